package clientwire

import "github.com/wray-project/wray/internal/link"

// Messages about users and their tokens, to heads.
const (
	KindUserList    link.Kind = 60 // client: request PeopleBody, reply Users
	KindUserAdd     link.Kind = 61 // client: request PeopleBody, replied to when it is done
	KindUserSet     link.Kind = 62 // client: request PeopleBody, replied to when it is done
	KindUserRemove  link.Kind = 63 // client: request PeopleBody, replied to when it is done
	KindTokenList   link.Kind = 64 // client: request PeopleBody, reply UserTokens
	KindTokenCreate link.Kind = 65 // client: request PeopleBody, reply UserToken with its text
	KindTokenRevoke link.Kind = 66 // client: request PeopleBody, replied to when it is done
)

// PeopleBody says what is asked about users and tokens. Each message looks at
// some fields.
type PeopleBody struct {
	Tenant   string `cbor:"1,keyasint,omitempty" json:"tenant,omitempty"` // empty is that of who asks
	All      bool   `cbor:"2,keyasint,omitempty" json:"all,omitempty"`    // of all tenants
	User     string `cbor:"3,keyasint,omitempty" json:"user,omitempty"`
	Role     string `cbor:"4,keyasint,omitempty" json:"role,omitempty"` // of a user; of a token the most that it may
	Service  bool   `cbor:"5,keyasint,omitempty" json:"service,omitempty"`
	Disabled *bool  `cbor:"6,keyasint,omitempty" json:"disabled,omitempty"` // nil leaves it as it is
	Token    string `cbor:"7,keyasint,omitempty" json:"token,omitempty"`    // an ID
	Life     int64  `cbor:"8,keyasint,omitempty" json:"life_ns,omitempty"`  // nanoseconds
	Note     string `cbor:"9,keyasint,omitempty" json:"note,omitempty"`
}

// User is a user. Times are Unix milliseconds.
type User struct {
	Tenant   string `cbor:"1,keyasint" json:"tenant"`
	Name     string `cbor:"2,keyasint" json:"name"`
	Role     string `cbor:"3,keyasint" json:"role"`
	Service  bool   `cbor:"4,keyasint,omitempty" json:"service,omitempty"`
	Disabled bool   `cbor:"5,keyasint,omitempty" json:"disabled,omitempty"`
	Created  int64  `cbor:"6,keyasint" json:"created_ms"`
	By       string `cbor:"7,keyasint,omitempty" json:"by,omitempty"`
}

// Users is a list of users.
type Users struct {
	Users []User `cbor:"1,keyasint" json:"users"`
}

// UserToken is a token of a user. Only who made it has its text, once.
type UserToken struct {
	Tenant  string `cbor:"1,keyasint" json:"tenant"`
	User    string `cbor:"2,keyasint" json:"user"`
	ID      string `cbor:"3,keyasint" json:"id"`
	Role    string `cbor:"4,keyasint,omitempty" json:"role,omitempty"`
	Note    string `cbor:"5,keyasint,omitempty" json:"note,omitempty"`
	Created int64  `cbor:"6,keyasint" json:"created_ms"`
	Expires int64  `cbor:"7,keyasint" json:"expires_ms"`
	Used    int64  `cbor:"8,keyasint,omitempty" json:"used_ms,omitempty"` // last, at a head, to within a minute
	By      string `cbor:"9,keyasint,omitempty" json:"by,omitempty"`
	Text    string `cbor:"10,keyasint,omitempty" json:"token,omitempty"` // a secret
	Addr    string `cbor:"11,keyasint,omitempty" json:"addr,omitempty"`  // of the node that made it
}

// UserTokens is a list of tokens.
type UserTokens struct {
	Tokens []UserToken `cbor:"1,keyasint" json:"tokens"`
}
