package clientwire

import (
	"time"

	"github.com/wray-project/wray/internal/link"
)

// Version is that of the messages of this package. Both ends must have the same.
const Version = 2

// Messages over a node's socket. A client's are hostile input to the node.
const (
	KindRun    link.Kind = 16 // client: request RunBody with files, reply RanBody
	KindOutput link.Kind = 17 // node: request OutputBody, of the connection's jobs; replied to when it was read
	KindMemory link.Kind = 18 // client: request MemoryBody, reply Memory
	KindStats  link.Kind = 19 // client: request, reply StatsBody
	KindStatus link.Kind = 20 // client: request StatusBody or nothing, reply Status
	KindToken  link.Kind = 21 // client: request TokenBody, reply Token
	KindPing   link.Kind = 28 // client: request, replied to at once
	KindDrain  link.Kind = 40 // client: request DrainBody, replied to when it has begun
	KindRemove link.Kind = 41 // client: request RemoveBody, replied to when it is done
	KindRekey  link.Kind = 42 // client: request, replied to when it is done
)

// ControlOptions is how both ends open the connection.
func ControlOptions() link.Options {
	return link.Options{MaxFiles: 128, MaxCalls: 64, MaxCallBytes: 8 << 20, WriteTimeout: 30 * time.Second}
}

// RunBody asks for a job, which ends with the request. The message's files are
// the modules, as regular files; the granted directories; the driver's standard
// input, where Stdin is set; and where Session is, the socket of the session,
// which then is the driver.
type RunBody struct {
	Version int      `cbor:"1,keyasint"`
	Job     uint64   `cbor:"2,keyasint"` // the client's number for it, in OutputBody
	Name    string   `cbor:"3,keyasint"`
	Modules []string `cbor:"4,keyasint"` // their names; the first is the driver's
	Args    []string `cbor:"5,keyasint"`
	Env     []string `cbor:"6,keyasint"`
	Dirs    []Dir    `cbor:"7,keyasint"`
	Stdin   bool     `cbor:"8,keyasint"`
	Session bool     `cbor:"9,keyasint"`
	Memory  int64    `cbor:"10,keyasint"`
	Stack   int32    `cbor:"11,keyasint"`
	Files   int      `cbor:"12,keyasint"`
	Handles int      `cbor:"13,keyasint"`
	Timeout int64    `cbor:"14,keyasint"` // ns
	Windows int      `cbor:"15,keyasint"`
	LogRate int64    `cbor:"16,keyasint"`
	Tenant  string   `cbor:"17,keyasint,omitempty"` // whose it is; empty: of those who run the cluster
	Egress  []string `cbor:"18,keyasint,omitempty"` // servers that it may ask, see wray.ParseEgress
}

// Dir is a granted directory.
type Dir struct {
	Guest    string `cbor:"1,keyasint"`
	ReadOnly bool   `cbor:"2,keyasint"`
}

// RanBody is how a job ended that did.
type RanBody struct {
	ExitCode int `cbor:"1,keyasint"`
}

// Streams of an OutputBody.
const (
	Stdout = 1
	Stderr = 2
)

// OutputBody is what a job printed.
type OutputBody struct {
	Job    uint64 `cbor:"1,keyasint"`
	Task   string `cbor:"2,keyasint"`
	Stream uint8  `cbor:"3,keyasint"`
	Data   []byte `cbor:"4,keyasint"`
}

// StatsBody counts the node's tasks, and the bytes of objects on disk.
type StatsBody struct {
	Waiting  int64 `cbor:"1,keyasint" json:"waiting"`
	Running  int64 `cbor:"2,keyasint" json:"running"`
	Finished int64 `cbor:"3,keyasint" json:"finished"`
	Failed   int64 `cbor:"4,keyasint" json:"failed"`
	OnDisk   int64 `cbor:"5,keyasint" json:"on_disk_bytes"`
	Retried  int64 `cbor:"6,keyasint" json:"retried"`
}

// MemoryBody asks for a listing of objects.
type MemoryBody struct {
	Job   uint32 `cbor:"1,keyasint"` // of this job alone; 0: of all
	Leaks bool   `cbor:"2,keyasint"` // of those alone that nobody will use again
	Most  int    `cbor:"3,keyasint"` // objects to list, the largest first

	Tenant string `cbor:"4,keyasint,omitempty"` // whose; empty: the node's own
}

// StatusBody says whose jobs, and what of whom waits, a status has.
type StatusBody struct {
	Tenant string `cbor:"1,keyasint,omitempty"` // empty: the node's own
}

// Memory is a listing of objects and of who holds them.
type Memory struct {
	Node     string   `cbor:"1,keyasint" json:"node,omitempty"`
	PID      int      `cbor:"2,keyasint" json:"pid,omitempty"` // of the node
	Capacity int64    `cbor:"3,keyasint" json:"capacity"`      // bytes, of the store
	Used     int64    `cbor:"4,keyasint" json:"used"`          // bytes that objects and windows reserve
	Pooled   int64    `cbor:"5,keyasint" json:"pooled"`        // bytes kept for reuse
	Count    int64    `cbor:"6,keyasint" json:"count"`         // objects that the question is about
	Bytes    int64    `cbor:"7,keyasint" json:"bytes"`         // of their payloads
	Leaked   int64    `cbor:"8,keyasint" json:"leaked"`        // of them, those that nobody will use again
	Objects  []Object `cbor:"9,keyasint" json:"objects"`       // the largest first
	Jobs     []Job    `cbor:"10,keyasint" json:"jobs"`

	Resources   []Resource       `cbor:"11,keyasint" json:"resources"`
	Actors      []Actor          `cbor:"12,keyasint" json:"actors"`       // those with the most waiting calls and the most memory first
	ActorStates map[string]int64 `cbor:"13,keyasint" json:"actor_states"` // how many actors are in each state

	// Kept and KeptOnDisk are the bytes that states of actors which sleep, and
	// checkpoints, take of memory and of disk. Of all jobs, as is Undrained: the
	// times that an actor with several calls under way took no checkpoint since they
	// did not end.
	Kept       int64 `cbor:"14,keyasint" json:"kept"`
	KeptOnDisk int64 `cbor:"15,keyasint" json:"kept_on_disk"`
	Undrained  int64 `cbor:"16,keyasint" json:"undrained"`
}

// Resource is what a node has for tasks and actors to hold. CPU is in cores,
// memory in bytes.
type Resource struct {
	Name   string  `cbor:"1,keyasint" json:"name"`
	Custom bool    `cbor:"2,keyasint" json:"custom,omitempty"` // of wray run --resource
	Total  float64 `cbor:"3,keyasint" json:"total"`
	Free   float64 `cbor:"4,keyasint" json:"free"`
}

// Actor is an actor that has not ended.
type Actor struct {
	ID      string `cbor:"1,keyasint" json:"id"` // of the object that names it
	Name    string `cbor:"2,keyasint" json:"name,omitempty"`
	Class   string `cbor:"3,keyasint" json:"class"`
	Job     uint32 `cbor:"4,keyasint" json:"job"`
	State   string `cbor:"5,keyasint" json:"state"` // see the Actor constants
	Why     string `cbor:"6,keyasint" json:"why,omitempty"`
	Call    string `cbor:"7,keyasint" json:"call,omitempty"` // that is under way
	Calls   int64  `cbor:"8,keyasint" json:"calls"`          // that were begun
	Waiting int64  `cbor:"9,keyasint" json:"waiting"`        // calls in its queue
	Bytes   int64  `cbor:"10,keyasint" json:"bytes"`         // asleep, what is kept of it; else its linear memory when it last rested
}

// States of actors.
const (
	ActorRunning  = "running"
	ActorResting  = "resting"  // has a sandbox and nothing to do
	ActorSleeping = "sleeping" // has given its sandbox up
	ActorWaiting  = "waiting"  // Why says for what
)

// Job is a running job.
type Job struct {
	Number uint32 `cbor:"1,keyasint" json:"number"`
	Name   string `cbor:"2,keyasint" json:"name"`
	Run    uint64 `cbor:"3,keyasint,omitempty" json:"-"` // the node's number for it, between its worker and it
	// Grants are what it was granted, where that is told.
	Grants []JobGrant `cbor:"4,keyasint,omitempty" json:"grants,omitempty"`
}

// JobGrant is a grant of a job, as wray.Grants writes one.
type JobGrant struct {
	Grant string `cbor:"1,keyasint" json:"grant"`
	// Refused says that the tenant's policy does not have it any more: requests are
	// refused, and the next job that asks for it is.
	Refused bool `cbor:"2,keyasint,omitempty" json:"refused,omitempty"`
}

// Object is a live object.
type Object struct {
	ID       string   `cbor:"1,keyasint" json:"id"`
	State    string   `cbor:"2,keyasint" json:"state"`
	Encoding string   `cbor:"3,keyasint" json:"encoding,omitempty"`
	Bytes    int64    `cbor:"4,keyasint" json:"bytes"`
	Refs     int64    `cbor:"5,keyasint" json:"refs"`
	Age      int64    `cbor:"6,keyasint" json:"age"`            // seconds
	Job      uint32   `cbor:"7,keyasint" json:"job,omitempty"`  // that made it
	Task     string   `cbor:"8,keyasint" json:"task,omitempty"` // that makes it, while that lives
	Leak     string   `cbor:"9,keyasint" json:"leak,omitempty"` // why nobody will use it again
	Holders  []Holder `cbor:"10,keyasint" json:"holders"`
	More     int64    `cbor:"11,keyasint" json:"more,omitempty"` // holders beyond those
}

// Holder holds references to an object.
type Holder struct {
	Kind  string `cbor:"1,keyasint" json:"kind"` // see the Holder constants
	Name  string `cbor:"2,keyasint" json:"name,omitempty"`
	Job   uint32 `cbor:"3,keyasint" json:"job,omitempty"`
	Count int64  `cbor:"4,keyasint" json:"count"`
	Age   int64  `cbor:"5,keyasint" json:"age"` // seconds since the first was taken; -1: not known
}

// Kinds of holders.
const (
	HolderDriver   = "driver"   // by handles
	HolderTask     = "task"     // by handles, while it runs
	HolderActor    = "actor"    // by handles
	HolderSandbox  = "sandbox"  // by handles, between two tasks
	HolderClient   = "client"   // by handles, or what it waits for
	HolderArgument = "argument" // of a task that has not ended
	HolderResult   = "result"   // of a task that has not ended, which is to give it
	HolderStream   = "stream"   // an item that was not read
	HolderValue    = "value"    // named by the value of another object
	HolderWindow   = "window"   // mapped; not a reference
	HolderOther    = "other"    // for a moment, by what the worker does now
)

// Status is the cluster as a node knows it.
type Status struct {
	Node    string       `cbor:"1,keyasint" json:"node"`              // who tells
	Cluster string       `cbor:"2,keyasint" json:"cluster,omitempty"` // empty: the node is alone
	Nodes   []NodeStatus `cbor:"3,keyasint" json:"nodes,omitempty"`   // in order of names
	Tasks   StatsBody    `cbor:"4,keyasint" json:"tasks"`             // of the node that tells

	Jobs     []JobInfo  `cbor:"5,keyasint,omitempty" json:"jobs,omitempty"`           // submitted, of all nodes, that have not ended
	MoreJobs int64      `cbor:"6,keyasint,omitempty" json:"more_jobs,omitempty"`      // beyond those
	Waits    *Explained `cbor:"7,keyasint,omitempty" json:"waits,omitempty"`          // what waits on the node that tells
	Partial  []string   `cbor:"8,keyasint,omitempty" json:"could_not_tell,omitempty"` // what could not be had, and why

	Groups []GroupStatus `cbor:"9,keyasint,omitempty" json:"groups,omitempty"` // of nodes that come and go by what waits
}

// GroupStatus is nodes of one kind that are started for what waits, and removed.
type GroupStatus struct {
	Name     string `cbor:"1,keyasint" json:"name"`
	Provider string `cbor:"2,keyasint" json:"provider"`
	Min      int    `cbor:"3,keyasint" json:"min"`
	Max      int    `cbor:"4,keyasint" json:"max"`
	Wanted   int    `cbor:"5,keyasint" json:"wanted"`
	There    int    `cbor:"6,keyasint" json:"there"` // that take work
	Starting int    `cbor:"7,keyasint" json:"starting"`
	Draining int    `cbor:"8,keyasint" json:"draining"`
	Why      string `cbor:"9,keyasint,omitempty" json:"why,omitempty"`
}

// NodeStatus is a node of the cluster.
type NodeStatus struct {
	Name        string            `cbor:"1,keyasint" json:"name"`
	Incarnation uint64            `cbor:"2,keyasint" json:"incarnation"`
	Addr        string            `cbor:"3,keyasint" json:"addr"`
	Version     string            `cbor:"4,keyasint" json:"version"`
	Head        bool              `cbor:"5,keyasint" json:"head"`
	Learner     bool              `cbor:"13,keyasint,omitempty" json:"learner,omitempty"` // a head that has no vote yet, as a head knows
	Draining    bool              `cbor:"6,keyasint" json:"draining"`
	Status      string            `cbor:"7,keyasint" json:"status"` // alive, unreachable or dead
	Why         string            `cbor:"8,keyasint" json:"why"`
	Since       int64             `cbor:"9,keyasint" json:"seconds"`
	CPU         int64             `cbor:"10,keyasint" json:"cpu"` // wray.CPU: ten-thousandths of a core
	Memory      int64             `cbor:"11,keyasint" json:"memory"`
	Custom      []CustomStatus    `cbor:"12,keyasint" json:"custom,omitempty"`
	Labels      map[string]string `cbor:"14,keyasint,omitempty" json:"labels,omitempty"`
	Free        *FreeStatus       `cbor:"15,keyasint,omitempty" json:"free,omitempty"` // nil: the node that tells does not know
}

// FreeStatus is what tasks may have of a node now; of another node an estimate.
type FreeStatus struct {
	CPU    int64 `cbor:"1,keyasint" json:"cpu"` // as NodeStatus.CPU
	Memory int64 `cbor:"2,keyasint" json:"memory"`
}

// CustomStatus is what a node has of a resource of any name.
type CustomStatus struct {
	Name   string `cbor:"1,keyasint" json:"name"`
	Amount int64  `cbor:"2,keyasint" json:"amount"` // as wray.Custom counts it
}

// TokenBody asks for a join token.
type TokenBody struct {
	Uses int    `cbor:"1,keyasint"`           // 0: one
	Life int64  `cbor:"2,keyasint"`           // ns; 0: an hour
	Name string `cbor:"3,keyasint"`           // of the one node that it lets in, or empty
	Head bool   `cbor:"4,keyasint,omitempty"` // it lets heads in
}

// OperatorBody asks for the credential of an operator, or, with Revoke, that all
// that he has are good no more.
type OperatorBody struct {
	Name   string `cbor:"1,keyasint"`
	Life   int64  `cbor:"2,keyasint"` // ns; 0: the default
	Revoke bool   `cbor:"3,keyasint"`
}

// Operator is a credential, in PEM, and a node's address at which it is good, as
// it is at all others of the cluster. Both are empty after a revocation.
type Operator struct {
	Credential []byte `cbor:"1,keyasint"`
	Addr       string `cbor:"2,keyasint"`
}

// Token is a join token, as it is printed, and where it is good.
type Token struct {
	Token string `cbor:"1,keyasint" json:"token"`
	Addr  string `cbor:"2,keyasint" json:"address"`
}

// DrainBody drains a node.
type DrainBody struct {
	Name   string `cbor:"1,keyasint"`
	Within int64  `cbor:"2,keyasint"` // ns that what runs there has to end; 0: the default
}

// RemoveBody revokes what a node has, for good; with Head it is no head either.
type RemoveBody struct {
	Name string `cbor:"1,keyasint"`
	Why  string `cbor:"2,keyasint,omitempty"`
	Head bool   `cbor:"3,keyasint,omitempty"`
}
