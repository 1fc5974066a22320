package clientwire

import (
	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
)

// Messages about tenants. Numbers up to 54 are theirs.
const (
	KindTenants    link.Kind = 50 // client: request TenantsBody, reply Tenants
	KindTenantSet  link.Kind = 51 // client: request TenantBody, reply Tenant
	KindTenantLift link.Kind = 52 // client: request LiftBody, replied to when it is done
)

// TenantsBody asks for tenants.
type TenantsBody struct {
	Name string `cbor:"1,keyasint,omitempty"` // of this one alone; empty: of all
}

// What a TenantBody asks for.
const (
	TenantCreate = "create"
	TenantChange = "change"
	TenantRemove = "remove"
)

// TenantBody makes a tenant, changes or removes it.
type TenantBody struct {
	What    string           `cbor:"1,keyasint"`
	Name    string           `cbor:"2,keyasint"`
	Weight  *float64         `cbor:"3,keyasint,omitempty"`
	Disable *bool            `cbor:"4,keyasint,omitempty"`
	Quota   map[string]int64 `cbor:"5,keyasint,omitempty"` // bounds that change, by wray.QuotaField.Flag; 0 for none
	// Nodes takes the place of the selectors of its nodes, with SetNodes; Exclusive
	// is whether they are nobody else's.
	Nodes     []string     `cbor:"6,keyasint,omitempty"`
	SetNodes  bool         `cbor:"7,keyasint,omitempty"`
	Exclusive *bool        `cbor:"8,keyasint,omitempty"`
	Policy    *wray.Policy `cbor:"9,keyasint,omitempty"` // in place of what it was; nil: as it is
}

// Tenants are tenants as a node knows them, in order of names.
type Tenants struct {
	Node    string   `cbor:"1,keyasint" json:"node"`
	Tenants []Tenant `cbor:"2,keyasint" json:"tenants"`
}

// Tenant is a tenant, and what the node that tells has of it.
type Tenant struct {
	Name     string           `cbor:"1,keyasint" json:"name"`
	Weight   float64          `cbor:"2,keyasint" json:"weight"`
	Disabled bool             `cbor:"3,keyasint,omitempty" json:"disabled,omitempty"`
	Created  int64            `cbor:"4,keyasint,omitempty" json:"created_ms,omitempty"` // Unix milliseconds
	Quota    map[string]int64 `cbor:"5,keyasint,omitempty" json:"quota,omitempty"`      // by wray.QuotaField.Flag
	// Policy is what its jobs may be granted, and Unset says that nobody has set it.
	Policy wray.Policy `cbor:"15,keyasint,omitempty" json:"policy"`
	Unset  bool        `cbor:"16,keyasint,omitempty" json:"policy_unset,omitempty"`

	Jobs       int64     `cbor:"6,keyasint" json:"jobs"`                            // whose drivers run on the node
	Worker     bool      `cbor:"7,keyasint" json:"worker"`                          // it has a worker there
	Memory     int64     `cbor:"8,keyasint,omitempty" json:"memory,omitempty"`      // bytes that the worker takes
	Spilled    int64     `cbor:"9,keyasint,omitempty" json:"spilled,omitempty"`     // bytes of objects on disk
	State      int64     `cbor:"17,keyasint,omitempty" json:"state,omitempty"`      // bytes of durable actors on disk
	Restarts   int64     `cbor:"10,keyasint,omitempty" json:"restarts,omitempty"`   // of the worker since the node began
	Quarantine []Suspect `cbor:"11,keyasint,omitempty" json:"quarantine,omitempty"` // modules that run there no more

	Nodes     []string `cbor:"12,keyasint,omitempty" json:"nodes,omitempty"`     // selectors of the nodes that it may use; none: all
	Exclusive bool     `cbor:"13,keyasint,omitempty" json:"exclusive,omitempty"` // and nobody else
	Barred    string   `cbor:"14,keyasint,omitempty" json:"barred,omitempty"`    // why nothing of it runs on the node
}

// Suspect is a module that is refused, as workers died while it ran.
type Suspect struct {
	Hash   string `cbor:"1,keyasint" json:"hash"` // SHA-256 of its bytes
	Name   string `cbor:"2,keyasint" json:"name"` // as its job called it last
	Deaths int    `cbor:"3,keyasint" json:"deaths"`
	Last   int64  `cbor:"4,keyasint" json:"last_ms"` // Unix milliseconds
	Why    string `cbor:"5,keyasint" json:"why"`     // how the worker ended
}

// LiftBody has a node run a module again that it refuses.
type LiftBody struct {
	Tenant string `cbor:"1,keyasint"`
	Hash   string `cbor:"2,keyasint"` // or the first eight digits of it, or more
}
