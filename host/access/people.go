package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
)

// Kinds of records in the control state, of a tenant each.
const (
	KindUser  = "user"         // named by the user
	KindToken = "access-token" // named by the token's ID
)

// Bounds.
const (
	// DefaultTokenLife and MaxTokenLife are how long a token is valid.
	DefaultTokenLife = 30 * 24 * time.Hour
	MaxTokenLife     = 366 * 24 * time.Hour
	// MaxTokens is the most valid tokens of one user.
	MaxTokens = 20
	// MaxUsers is the most users of one tenant.
	MaxUsers = 1_000
	// maxKept is the most tokens of one user that are kept, with those that have
	// expired: beyond it the oldest of these are forgotten.
	maxKept = 2 * MaxTokens
	// maxNote is the bytes of what is noted about a token.
	maxNote = 200
)

// UserRecord is what is kept of a user.
type UserRecord struct {
	Role     string `cbor:"1,keyasint"`
	Service  bool   `cbor:"2,keyasint,omitempty"` // a program's account
	Disabled bool   `cbor:"3,keyasint,omitempty"` // its tokens are good for nothing
	Created  int64  `cbor:"4,keyasint"`           // Unix time in milliseconds, as all times here
	By       string `cbor:"5,keyasint,omitempty"` // who made it
}

// TokenRecord is what is kept of a token.
type TokenRecord struct {
	User    string `cbor:"1,keyasint"`
	Hash    []byte `cbor:"2,keyasint"`           // of the secret
	Role    string `cbor:"3,keyasint,omitempty"` // the most it may, below its user's; empty for all of that
	Note    string `cbor:"4,keyasint,omitempty"` // what it is for
	Created int64  `cbor:"5,keyasint"`
	Expires int64  `cbor:"6,keyasint"`
	Used    int64  `cbor:"7,keyasint,omitempty"` // last, to within a minute, on a head
	By      string `cbor:"8,keyasint,omitempty"`
}

// Users returns the table of users.
func Users(s control.Store) control.Table[UserRecord] {
	return control.NewTable[UserRecord](s, KindUser, 1)
}

// Tokens returns the table of users' tokens.
func Tokens(s control.Store) control.Table[TokenRecord] {
	return control.NewTable[TokenRecord](s, KindToken, 1)
}

// People makes, lists and removes users and their tokens. Its methods may be
// called by any number of goroutines. That whoever asks may do so was decided
// before.
type People struct {
	Store control.Store
	// Pin is the hash of the cluster's authority, which tokens name; nil: none.
	Pin *[sha256.Size]byte
	Now func() time.Time // nil is time.Now
}

func (p *People) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

func bad(hint, format string, args ...any) error {
	e := wray.Errorf(wray.CodeBadArgument, format, args...)
	e.Hint = hint
	return e
}

// standing returns the condition of a commit that gives a tenant somebody: that
// its record is as it was read, so that one that is removed meanwhile gets nobody
// whom the next of its name would find. Home, which cannot be removed, has none.
func (p *People) standing(ctx context.Context, tenant string) ([]control.Cond, error) {
	if tenant == Home {
		return nil, nil
	}
	e, err := control.Tenants(p.Store).Get(ctx, tenant, tenant)
	switch {
	case errors.Is(err, control.ErrNotFound), errors.Is(err, control.ErrInvalid):
		return nil, bad("make it first: wray tenant create", "there is no tenant %.70q", tenant)
	case err != nil:
		return nil, err
	case e.Value.Disabled:
		return nil, &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("tenant %s takes nothing new, users and tokens neither: it is disabled", tenant),
			Hint: "an operator of the cluster can enable it: wray tenant enable " + tenant}
	}
	return []control.Cond{control.At(e.Record.Key, e.Record.Modified)}, nil
}

// Known returns an error where there is no such tenant; Home and "", all of them,
// there are.
func (p *People) Known(ctx context.Context, tenant string) error {
	if tenant == Home || tenant == "" {
		return nil
	}
	_, err := control.Tenants(p.Store).Get(ctx, tenant, tenant)
	if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrInvalid) {
		return bad("see wray tenant list", "there is no tenant %.70q", tenant)
	}
	return err
}

// commit does ops under conditions, and that the tenant stands. That its record
// was written meanwhile is no conflict as long as it stands yet.
func (p *People) commit(ctx context.Context, tenant string, conds []control.Cond, ops ...control.Op) error {
	for {
		stands, err := p.standing(ctx, tenant)
		if err != nil {
			return err
		}
		_, err = p.Store.Commit(ctx, control.Txn{If: append(stands, conds...), Do: ops})
		var c *control.ConflictError
		if len(stands) == 0 || !errors.As(err, &c) || c.Cond.Key != stands[0].Key {
			return err
		}
	}
}

// checkUserName is like auth.CheckName, and allows what addresses of mail have.
func checkUserName(name string) error {
	for i, c := range name {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_' && c != '@' && c != '+') {
			return bad("use letters, digits and, after the first, . - _ @ +", "user name %.70q has %q at %d", name, c, i)
		}
	}
	if name == "" || len(name) > 2*auth.MaxName {
		return bad("", "user name %.70q has %d bytes, it must have 1 to %d", name, len(name), 2*auth.MaxName)
	}
	return nil
}

// AddUser makes a user of a tenant.
func (p *People) AddUser(ctx context.Context, tenant, name string, role Role, service bool, by string) error {
	if err := checkUserName(name); err != nil {
		return err
	}
	if role < Viewer || role > Admin {
		return bad("the roles are viewer, developer, operator and admin", "a user needs a role")
	}
	if _, err := p.standing(ctx, tenant); err != nil {
		return err
	}
	n := 0
	for _, err := range Users(p.Store).All(ctx, tenant) {
		if err != nil {
			return err
		}
		n++
	}
	if n >= MaxUsers {
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("tenant %s has %d users", tenant, n), Limit: &wray.Limit{Name: "users of a tenant", Value: MaxUsers}, Hint: "remove some"}
	}
	key, err := control.Key(KindUser, tenant, name)
	if err != nil {
		return err
	}
	value, err := Users(p.Store).Encode(UserRecord{Role: role.String(), Service: service, Created: p.now().UnixMilli(), By: by})
	if err != nil {
		return err
	}
	err = p.commit(ctx, tenant, []control.Cond{control.Absent(key)}, control.Put(key, value))
	if errors.Is(err, control.ErrConflict) {
		return bad("choose another name, or change it: wray user set", "there is a user %s of tenant %s", name, tenant)
	}
	return err
}

// noUser is an error about a user that is not there.
func noUser(tenant, name string) error {
	return bad("see wray user list", "there is no user %.140q of tenant %s", name, tenant)
}

// ChangeUser has f change what is kept of a user. Tokens that were given heed it
// from then on.
func (p *People) ChangeUser(ctx context.Context, tenant, name string, f func(*UserRecord) error) error {
	_, err := Users(p.Store).Modify(ctx, tenant, name, func(u *UserRecord) error {
		if err := f(u); err != nil {
			return err
		}
		_, err := ParseRole(u.Role)
		return err
	})
	if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrInvalid) {
		return noUser(tenant, name)
	}
	return err
}

// RemoveUser removes a user and all its tokens.
func (p *People) RemoveUser(ctx context.Context, tenant, name string) error {
	for {
		e, err := Users(p.Store).Get(ctx, tenant, name)
		if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrInvalid) {
			return noUser(tenant, name)
		}
		if err != nil {
			return err
		}
		// The user first: tokens without one are good for nothing.
		if err = Users(p.Store).Delete(ctx, e); errors.Is(err, control.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	return p.removeTokens(ctx, tenant, func(t *TokenRecord) bool { return t.User == name })
}

// removeTokens removes tokens of a tenant, or of all where it is empty.
func (p *People) removeTokens(ctx context.Context, tenant string, which func(*TokenRecord) bool) error {
	for e, err := range Tokens(p.Store).All(ctx, tenant) {
		if err != nil {
			return err
		}
		if which(&e.Value) {
			if _, err := p.Store.Commit(ctx, control.Txn{Do: []control.Op{control.Delete(e.Record.Key)}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetAfter is how long an expired token is listed.
const forgetAfter = 7 * 24 * time.Hour

// Prune removes tokens that expired long ago.
func (p *People) Prune(ctx context.Context) error {
	oldest := p.now().Add(-forgetAfter).UnixMilli()
	return p.removeTokens(ctx, "", func(t *TokenRecord) bool { return t.Expires < oldest })
}

// ListUsers returns the users of a tenant, or of all where it is empty, by name.
func (p *People) ListUsers(ctx context.Context, tenant string) (out []control.Entry[UserRecord], err error) {
	for e, err := range Users(p.Store).All(ctx, tenant) {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// ListTokens returns the tokens of a tenant, or of all where it is empty. None of
// them can be made from it.
func (p *People) ListTokens(ctx context.Context, tenant string) (out []control.Entry[TokenRecord], err error) {
	for e, err := range Tokens(p.Store).All(ctx, tenant) {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// TokenOptions say what a token is good for.
type TokenOptions struct {
	Life time.Duration // zero is DefaultTokenLife
	Role Role          // the most it may; NoRole for all that its user may
	Note string        // what it is for
	By   string        // who asks for it
}

// NewToken makes a token of a user. It is shown once: only its hash is kept.
func (p *People) NewToken(ctx context.Context, tenant, user string, o TokenOptions) (Secret, TokenRecord, error) {
	fail := func(err error) (Secret, TokenRecord, error) { return Secret{}, TokenRecord{}, err }
	if o.Life == 0 {
		o.Life = DefaultTokenLife
	}
	if o.Life < time.Second || o.Life > MaxTokenLife {
		return fail(bad("", "a token for %v: it must be for 1s at least and %v at most", o.Life, MaxTokenLife))
	}
	if len(o.Note) > maxNote {
		return fail(bad("", "a token's note has %d bytes, at most %d are kept", len(o.Note), maxNote))
	}
	u, err := Users(p.Store).Get(ctx, tenant, user)
	if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrInvalid) {
		return fail(noUser(tenant, user))
	}
	if err != nil {
		return fail(err)
	}
	if role, err := ParseRole(u.Value.Role); err != nil {
		return fail(err)
	} else if o.Role > role {
		return fail(bad("leave the role out: the token may then what its user may", "user %s of tenant %s is %s: a token of role %s would give no more", user, tenant, role, o.Role))
	}
	now := p.now()
	n := 0
	var expired []control.Entry[TokenRecord]
	for e, err := range Tokens(p.Store).All(ctx, tenant) {
		if err != nil {
			return fail(err)
		}
		switch {
		case e.Value.User != user:
		case e.Value.Expires > now.UnixMilli():
			n++
		default:
			expired = append(expired, e)
		}
	}
	if n >= MaxTokens {
		return fail(&wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("user %s of tenant %s has %d valid tokens", user, tenant, n),
			Limit: &wray.Limit{Name: "tokens of a user", Value: MaxTokens}, Hint: "revoke some: wray token revoke"})
	}
	s := newSecret(p.Pin)
	h := s.hash()
	t := TokenRecord{User: user, Hash: h[:], Note: o.Note, Created: now.UnixMilli(), Expires: now.Add(o.Life).UnixMilli(), By: o.By}
	if o.Role != NoRole {
		t.Role = o.Role.String()
	}
	// While the user is as it was read: one that is removed now gets no token.
	key, err := control.Key(KindToken, tenant, s.id)
	if err != nil {
		return fail(err)
	}
	value, err := Tokens(p.Store).Encode(t)
	if err != nil {
		return fail(err)
	}
	ops := []control.Op{control.Put(key, value)}
	slices.SortFunc(expired, func(a, b control.Entry[TokenRecord]) int { return cmp.Compare(a.Value.Expires, b.Value.Expires) })
	for _, e := range expired[:min(max(n+len(expired)+1-maxKept, 0), len(expired), maxKept)] {
		ops = append(ops, control.Delete(e.Record.Key))
	}
	err = p.commit(ctx, tenant, []control.Cond{control.Absent(key), control.At(u.Record.Key, u.Record.Modified)}, ops...)
	if errors.Is(err, control.ErrConflict) {
		return fail(bad("try again", "user %s of tenant %s was changed meanwhile", user, tenant))
	}
	if err != nil {
		return fail(err)
	}
	return s, t, nil
}

// RevokeToken makes a token of a tenant worthless, and returns what it was.
func (p *People) RevokeToken(ctx context.Context, tenant, id string) (TokenRecord, error) {
	e, err := Tokens(p.Store).Get(ctx, tenant, id)
	if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrInvalid) {
		return TokenRecord{}, bad("see wray token list", "there is no token %.40q of tenant %s", id, tenant)
	}
	if err != nil {
		return TokenRecord{}, err
	}
	_, err = p.Store.Commit(ctx, control.Txn{Do: []control.Op{control.Delete(e.Record.Key)}})
	return e.Value, err
}

// FirstAdmin is the name of the first user.
const FirstAdmin = "admin"

// Begin makes the first user of a cluster, an admin of tenant Home, and a token
// for it; false where the tenant has users: one of another name may have taken the
// first one's place, which is not made again.
func (p *People) Begin(ctx context.Context) (Secret, bool, error) {
	for _, err := range Users(p.Store).All(ctx, Home) {
		return Secret{}, false, err
	}
	_, err := Users(p.Store).Create(ctx, Home, FirstAdmin, UserRecord{Role: Admin.String(), Created: p.now().UnixMilli(), By: "the first start"})
	if errors.Is(err, control.ErrConflict) {
		return Secret{}, false, nil
	}
	if err != nil {
		return Secret{}, false, err
	}
	s, _, err := p.NewToken(ctx, Home, FirstAdmin, TokenOptions{Note: "printed by the first start", By: "the first start"})
	return s, err == nil, err
}
