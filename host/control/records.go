package control

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/wray-project/wray"
)

// Kinds of records. KV is what programs keep under keys of their own: bytes,
// without a table.
const (
	KindTenant = "tenant" // named after the tenant, within itself
	KindJob    = "job"
	KindModule = "module" // named by the hash of its content
	KindActor  = "actor"  // named, and detached ones
	KindGroup  = "group"  // placement groups
	KindNode   = "node"   // bound to the node's lease; tenant "cluster"
	KindKV     = "kv"
	// KindCluster says whose the control state is; tenant "cluster".
	KindCluster = "cluster"
	KindDrain   = "drain" // orders to nodes to leave, named by the node; tenant "cluster"
	KindLead    = "lead"  // who does what one head does; tenant "cluster"
)

// Cluster is the tenant of what is no tenant's.
const Cluster = "cluster"

// Tenant is who owns jobs, objects and quotas.
type Tenant struct {
	Weight   float64    `cbor:"1,keyasint,omitempty"` // share of a node that is wanted by several; 0 is 1
	Disabled bool       `cbor:"3,keyasint,omitempty"` // nothing new is accepted from it
	Quota    wray.Quota `cbor:"4,keyasint,omitempty"` // on each node
	Created  int64      `cbor:"5,keyasint,omitempty"` // Unix time in milliseconds

	// Nodes are selectors of labels (wray.ParseSelector), all of which a node must
	// have on which anything of the tenant's runs; none: any node. With Exclusive
	// nothing of another tenant's runs on those.
	Nodes     []string `cbor:"6,keyasint,omitempty"`
	Exclusive bool     `cbor:"7,keyasint,omitempty"`

	// Policy is what its jobs may be granted; nil: wray.DefaultPolicy.
	Policy *wray.Policy `cbor:"8,keyasint,omitempty"`
}

// maxTenantNodes bounds the selectors of a tenant's nodes.
const maxTenantNodes = 16

// On reports whether a node with these labels is one of the tenant's. One whose
// selectors cannot be read is not.
func (t *Tenant) On(labels []wray.Label) bool {
	for _, text := range t.Nodes {
		s, err := wray.ParseSelector(text)
		if err != nil || !s.Matches(labels) {
			return false
		}
	}
	return true
}

// Bounds of a tenant's weight.
const (
	MinWeight = 0.01
	MaxWeight = 100
)

// Check says what is wrong with a tenant's record, if anything.
func (t *Tenant) Check() error {
	if w := t.Weight; w != 0 && !(w >= MinWeight && w <= MaxWeight) {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("a weight of %v", w), Hint: fmt.Sprintf("from %v to %v; 1 is what others have", MinWeight, MaxWeight)}
	}
	if len(t.Nodes) > maxTenantNodes {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%d selectors of nodes, the most are %d", len(t.Nodes), maxTenantNodes)}
	}
	for _, text := range t.Nodes {
		if _, err := wray.ParseSelector(text); err != nil {
			return &wray.Error{Code: wray.CodeBadArgument, Message: err.Error(), Hint: "write --nodes KEY=VALUE, --nodes '!KEY' or --nodes 'KEY in (A,B)'; wray status shows the labels of nodes"}
		}
	}
	if t.Exclusive && len(t.Nodes) == 0 {
		return &wray.Error{Code: wray.CodeBadArgument, Message: "a tenant that has nodes for itself alone, and no labels that say which", Hint: "say which with --nodes KEY=VALUE"}
	}
	if t.Policy != nil {
		if err := t.Policy.Check(); err != nil {
			return err
		}
	}
	return t.Quota.Check()
}

// JobState is where a job is in its life.
type JobState uint8

// The states of a job, in order.
const (
	JobPending JobState = iota + 1
	JobRunning
	JobSucceeded
	JobFailed
	JobStopped
)

// Job is a program that was submitted.
type Job struct {
	State   JobState    `cbor:"1,keyasint"`
	Module  string      `cbor:"2,keyasint"` // name of its driver's Module
	Args    []string    `cbor:"3,keyasint,omitempty"`
	Durable bool        `cbor:"4,keyasint,omitempty"` // survives its driver's node
	Node    string      `cbor:"5,keyasint,omitempty"` // where its driver runs
	Created int64       `cbor:"6,keyasint"`           // Unix time in milliseconds
	Ended   int64       `cbor:"7,keyasint,omitempty"`
	Error   *wray.Error `cbor:"8,keyasint,omitempty"` // of a job that failed

	Name        string `cbor:"9,keyasint,omitempty"`  // of its driver's module, for people
	Incarnation uint64 `cbor:"10,keyasint,omitempty"` // of Node: another one does not run it any more
	Started     int64  `cbor:"11,keyasint,omitempty"`
	ExitCode    int    `cbor:"12,keyasint,omitempty"`
	By          string `cbor:"13,keyasint,omitempty"` // who submitted it
}

// Module says where the bytes of a module are. They are not here.
type Module struct {
	Size    int64    `cbor:"1,keyasint"`           // bytes
	Hash    []byte   `cbor:"2,keyasint"`           // SHA-256 of its bytes
	Holders []string `cbor:"3,keyasint,omitempty"` // nodes that have it
}

// Actor is an actor that has a name, or outlives its job.
type Actor struct {
	ID       wray.ID `cbor:"1,keyasint"`
	Job      string  `cbor:"2,keyasint,omitempty"` // empty for a detached one whose job is gone
	Detached bool    `cbor:"3,keyasint,omitempty"`
	Node     string  `cbor:"4,keyasint,omitempty"` // where it lives; empty while it is nowhere
	// Epoch grows by one each time the actor is given to a node. Whoever acts
	// for it says which epoch gave it the right to, and an older one is refused.
	Epoch uint64 `cbor:"5,keyasint"`
	Class string `cbor:"6,keyasint,omitempty"` // the function that makes it, for messages
}

// Bundle is resources of a placement group that are held together, on one node.
type Bundle struct {
	Resources wray.Resources `cbor:"1,keyasint"`
	Node      string         `cbor:"2,keyasint,omitempty"` // empty while it is not placed
}

// Group is a placement group.
type Group struct {
	Strategy string   `cbor:"1,keyasint"` // pack, spread, strict-pack or strict-spread
	Bundles  []Bundle `cbor:"2,keyasint"`
	Job      string   `cbor:"3,keyasint,omitempty"` // empty for a detached one
	Detached bool     `cbor:"4,keyasint,omitempty"`
}

// Tenants returns the table of tenants.
func Tenants(s Store) Table[Tenant] { return NewTable[Tenant](s, KindTenant, 1) }

// Jobs returns the table of jobs.
func Jobs(s Store) Table[Job] { return NewTable[Job](s, KindJob, 1) }

// Modules returns the table of modules.
func Modules(s Store) Table[Module] { return NewTable[Module](s, KindModule, 1) }

// Groups returns the table of placement groups.
func Groups(s Store) Table[Group] { return NewTable[Group](s, KindGroup, 1) }

// Actors are the named and the detached actors of a store. A name belongs to
// one actor at a time, and the actor to one node.
type Actors struct{ Table[Actor] }

// NewActors returns the actors of a store.
func NewActors(s Store) Actors { return Actors{NewTable[Actor](s, KindActor, 1)} }

// ErrMoved says that the actor was given to another node, or is gone, since the
// caller had the right to act for it.
var ErrMoved = errors.New("the actor is not here any more")

// Claim gives a name to an actor, with Epoch 1. If another has it, the entry is
// that one's and the error is a *ConflictError; if the same actor has, as after
// a claim whose reply was lost, there is no error.
func (a Actors) Claim(ctx context.Context, tenant, name string, actor Actor) (Entry[Actor], error) {
	if actor.ID.IsZero() {
		return Entry[Actor]{}, fmt.Errorf("%w: claim of the name %q for an actor without an ID", ErrInvalid, name)
	}
	actor.Epoch = 1
	e, err := a.Create(ctx, tenant, name, actor)
	if errors.Is(err, ErrConflict) && e.Value.ID == actor.ID {
		return e, nil
	}
	return e, err
}

// Move gives the actor of that ID to a node, from the given epoch on, and
// returns it with the next. It is refused with ErrMoved when the actor's epoch
// is another. A move that was done already is done: its reply may be lost.
func (a Actors) Move(ctx context.Context, tenant, name string, id wray.ID, epoch uint64, node string) (Entry[Actor], error) {
	done := errors.New("done already")
	var found Actor
	e, err := a.Modify(ctx, tenant, name, func(v *Actor) error {
		found = *v
		if v.ID == id && v.Epoch == epoch+1 && v.Node == node {
			return done
		}
		if v.ID != id || v.Epoch != epoch {
			return ErrMoved
		}
		v.Epoch, v.Node = epoch+1, node
		return nil
	})
	switch {
	case err == done:
		return e, nil
	case errors.Is(err, ErrMoved):
		return e, fmt.Errorf("move actor %q of tenant %s, %v at epoch %d, to node %q: it is %v at epoch %d on node %q: %w",
			name, tenant, id, epoch, node, found.ID, found.Epoch, found.Node, ErrMoved)
	case errors.Is(err, ErrNotFound):
		return e, fmt.Errorf("%w: %w", ErrMoved, err)
	}
	return e, err
}

// Release takes the name from the actor of that ID. That it has it no more is
// no error.
func (a Actors) Release(ctx context.Context, tenant, name string, id wray.ID) error {
	for {
		e, err := a.Get(ctx, tenant, name)
		if errors.Is(err, ErrNotFound) || err == nil && e.Value.ID != id {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.Delete(ctx, e); !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// tenantName is what tenants are called: a name that is a directory's on every
// system, and a part of a key.
var tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckTenant reports what is wrong with a tenant's name.
func CheckTenant(name string) error {
	if !tenantName.MatchString(name) || name == Cluster {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%.80q is no name for a tenant", name),
			Hint: "up to 63 of a-z 0-9 . _ -, the first a letter or digit; not " + Cluster}
	}
	return nil
}
