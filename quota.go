package wray

import "fmt"

// Quota is the most that a tenant may have on one node. A field that is zero
// bounds nothing.
type Quota struct {
	CPU         int64 `cbor:"1,keyasint,omitempty"`  // see wray.CPU; of tasks that run, and of its processes
	Memory      int64 `cbor:"2,keyasint,omitempty"`  // bytes that tasks hold
	ObjectBytes int64 `cbor:"3,keyasint,omitempty"`  // bytes of objects in memory
	Objects     int64 `cbor:"4,keyasint,omitempty"`  // objects
	SpillBytes  int64 `cbor:"5,keyasint,omitempty"`  // bytes of objects on disk
	Sandboxes   int64 `cbor:"6,keyasint,omitempty"`  // of tasks at once
	Actors      int64 `cbor:"7,keyasint,omitempty"`  // that have not ended
	Tasks       int64 `cbor:"8,keyasint,omitempty"`  // that have not ended
	Depth       int64 `cbor:"9,keyasint,omitempty"`  // of tasks that submit tasks
	SubmitRate  int64 `cbor:"10,keyasint,omitempty"` // tasks submitted a second
	LogRate     int64 `cbor:"11,keyasint,omitempty"` // bytes printed a second
	StateBytes  int64 `cbor:"12,keyasint,omitempty"` // bytes of durable actors on disk
	StateActors int64 `cbor:"13,keyasint,omitempty"` // durable actors on disk; 0: DefaultStateActors
	EgressRate  int64 `cbor:"14,keyasint,omitempty"` // bytes sent and received over HTTP a second
}

// DefaultStateActors is how many durable actors a tenant may have on one node's
// disk where its quota says nothing. Each is two files.
const DefaultStateActors = 20_000

// QuotaField is one bound of a Quota.
type QuotaField struct {
	Flag string // of wray quota set
	What string // what it bounds, for people
	Unit string // see Limit.Unit; empty for a plain number
	Of   func(*Quota) *int64
}

// QuotaFields are the bounds of a Quota, in the order in which they are shown.
var QuotaFields = []QuotaField{
	{"cpu", "cores that tasks hold", UnitCPU, func(q *Quota) *int64 { return &q.CPU }},
	{"memory", "memory that tasks hold", "bytes", func(q *Quota) *int64 { return &q.Memory }},
	{"object-bytes", "objects in memory", "bytes", func(q *Quota) *int64 { return &q.ObjectBytes }},
	{"objects", "objects", "objects", func(q *Quota) *int64 { return &q.Objects }},
	{"spill-bytes", "objects on disk", "bytes", func(q *Quota) *int64 { return &q.SpillBytes }},
	{"sandboxes", "sandboxes of tasks at once", "sandboxes", func(q *Quota) *int64 { return &q.Sandboxes }},
	{"actors", "actors", "actors", func(q *Quota) *int64 { return &q.Actors }},
	{"tasks", "live tasks", "tasks", func(q *Quota) *int64 { return &q.Tasks }},
	{"depth", "depth of tasks that submit tasks", "tasks", func(q *Quota) *int64 { return &q.Depth }},
	{"submit-rate", "tasks submitted a second", "tasks/s", func(q *Quota) *int64 { return &q.SubmitRate }},
	{"state-bytes", "durable actors on disk", "bytes", func(q *Quota) *int64 { return &q.StateBytes }},
	{"state-actors", "durable actors on disk", "actors", func(q *Quota) *int64 { return &q.StateActors }},
	{"log-rate", "bytes printed a second", "bytes/s", func(q *Quota) *int64 { return &q.LogRate }},
	{"egress-rate", "bytes sent and received over HTTP a second", "bytes/s", func(q *Quota) *int64 { return &q.EgressRate }},
}

// Check says what is wrong with a quota, if anything.
func (q *Quota) Check() error {
	for _, f := range QuotaFields {
		if v := *f.Of(q); v < 0 {
			return Errorf(CodeBadArgument, "a quota of %d for %s", v, f.What)
		}
	}
	for _, b := range []struct {
		what string
		v    int64
		min  int64
	}{{"memory", q.Memory, 16 << 20}, {"object-bytes", q.ObjectBytes, 1 << 20}} {
		if b.v > 0 && b.v < b.min {
			return Errorf(CodeBadArgument, "a quota of %d bytes for %s: nothing runs with less than %d", b.v, b.what, b.min)
		}
	}
	return nil
}

// Exceeded is the error about a tenant that has all that a bound of its quota,
// named by its flag, allows. It is of CodeLimitExceeded.
func (q *Quota) Exceeded(tenant, flag string) *Error {
	for _, f := range QuotaFields {
		if f.Flag == flag {
			v := *f.Of(q)
			return &Error{Code: CodeLimitExceeded, Message: fmt.Sprintf("tenant %s has all of its quota of %s on this node", tenant, f.What),
				Limit: &Limit{Name: "quota " + f.Flag, Value: v, Unit: f.Unit, Flag: "--" + f.Flag}, Hint: q.Hint(tenant, flag)}
		}
	}
	panic("BUG: no quota is called " + flag)
}

// Hint says who can raise a bound of a tenant's quota, and how.
func (q *Quota) Hint(tenant, flag string) string {
	return fmt.Sprintf("an operator of the cluster can raise it: wray quota set %s --%s VALUE", tenant, flag)
}
