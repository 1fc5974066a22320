package clientwire

import "github.com/wray-project/wray/internal/link"

// KindExplain asks what waits and why.
const KindExplain link.Kind = 43 // client: request ExplainBody, reply Explained

// ExplainBody asks what waits and why.
type ExplainBody struct {
	What string `cbor:"1,keyasint,omitempty"` // a task, an actor or a job, by name, or a job by its number; empty: everything
	Most int    `cbor:"2,keyasint,omitempty"` // groups to list; 0: a default

	Tenant string `cbor:"3,keyasint,omitempty"` // whose; empty: the node's own
}

// Explained is what waits on a node, and why: what was submitted there. What
// other nodes' jobs wait for those nodes know.
type Explained struct {
	Node      string     `cbor:"1,keyasint" json:"node"` // who tells
	Resources []Resource `cbor:"2,keyasint" json:"resources"`
	Jobs      []Job      `cbor:"3,keyasint" json:"jobs"` // that run
	// MoreJobs is how many jobs there are beyond those.
	MoreJobs int64 `cbor:"4,keyasint,omitempty" json:"more_jobs,omitempty"`

	Tasks []Wait `cbor:"5,keyasint" json:"tasks"` // in groups, the largest first
	// More is how many tasks wait beyond those of Tasks, and Unseen how many wait
	// whose names were not looked at, where one was asked for.
	More   int64 `cbor:"6,keyasint,omitempty" json:"more,omitempty"`
	Unseen int64 `cbor:"7,keyasint,omitempty" json:"unseen,omitempty"`

	Actors []ActorWait `cbor:"8,keyasint" json:"actors"` // that have calls which were not answered
	// MoreCalls is how many calls are not answered beyond those of Actors.
	MoreCalls int64 `cbor:"9,keyasint,omitempty" json:"more_calls,omitempty"`

	// Others are nodes of the cluster of which the scheduler knows no worker, and
	// why nothing is lent to them. Tasks[].Nodes does not have them.
	Others     []OtherNode `cbor:"10,keyasint,omitempty" json:"other_nodes,omitempty"`
	MoreOthers int64       `cbor:"11,keyasint,omitempty" json:"more_other_nodes,omitempty"`

	// Groups are placement groups of jobs of this node, those that wait and those
	// that do not.
	Groups     []PlacementGroup `cbor:"13,keyasint,omitempty" json:"placement_groups,omitempty"`
	MoreGroups int64            `cbor:"14,keyasint,omitempty" json:"more_placement_groups,omitempty"`

	// Idle says what there is of that name where nothing of it waits.
	Idle string `cbor:"12,keyasint,omitempty" json:"idle,omitempty"`
}

// Wait is tasks that wait for the same reason. What is said of one of them is so
// of the first in their queue.
type Wait struct {
	Job     uint32     `cbor:"1,keyasint" json:"job"`                      // by its number
	Name    string     `cbor:"2,keyasint,omitempty" json:"name,omitempty"` // empty: of any name, as so many were not looked at
	Actor   bool       `cbor:"3,keyasint,omitempty" json:"actor,omitempty"`
	State   string     `cbor:"4,keyasint" json:"state"` // see the Wait constants
	Count   int64      `cbor:"5,keyasint" json:"count"`
	Seconds int64      `cbor:"6,keyasint" json:"seconds"`                   // that it has waited in that state
	Wants   []Resource `cbor:"7,keyasint,omitempty" json:"wants,omitempty"` // Total is what it wants
	// Strategy is where it is to run, in words, and Labels how the node is to be labeled.
	Strategy string   `cbor:"8,keyasint,omitempty" json:"strategy,omitempty"`
	Labels   []string `cbor:"9,keyasint,omitempty" json:"labels,omitempty"` // selectors, such as KEY=VALUE

	Never     bool          `cbor:"10,keyasint,omitempty" json:"never,omitempty"`      // no node that is known could ever hold it
	Nodes     []NodeVerdict `cbor:"11,keyasint,omitempty" json:"nodes,omitempty"`      // what keeps it from each
	MoreNodes int64         `cbor:"12,keyasint,omitempty" json:"more_nodes,omitempty"` // beyond those

	For     []WaitFor `cbor:"13,keyasint,omitempty" json:"for,omitempty"`      // objects that it waits for
	MoreFor int64     `cbor:"14,keyasint,omitempty" json:"more_for,omitempty"` // beyond those
	Why     string    `cbor:"15,keyasint,omitempty" json:"why,omitempty"`      // in words, what else it waits for
	Again   bool      `cbor:"16,keyasint,omitempty" json:"again,omitempty"`    // it makes anew what was lost

	Promised []string `cbor:"17,keyasint,omitempty" json:"groups,omitempty"`  // groups of nodes that could hold it, of which there can be more
	Scaling  string   `cbor:"18,keyasint,omitempty" json:"scaling,omitempty"` // in words, what is done about that
}

// States of what waits.
const (
	WaitQueued  = "queued"  // for a node with room
	WaitArgs    = "waiting" // for its arguments
	WaitBackoff = "backoff" // for the time of its next attempt
	WaitEnd     = "ending"  // it is about to fail, or canceled
	WaitBlocked = "blocked" // it runs, and waits
)

// NodeVerdict is what keeps a task from a node.
type NodeVerdict struct {
	Node  string `cbor:"1,keyasint" json:"node"`
	Never bool   `cbor:"2,keyasint,omitempty" json:"never,omitempty"` // with nothing else to do there either
	Why   string `cbor:"3,keyasint,omitempty" json:"why,omitempty"`   // in words; empty: nothing
	Fails []Fail `cbor:"4,keyasint,omitempty" json:"fails,omitempty"`
}

// Fail is one constraint that fails. Of resources CPU is in cores and memory in
// bytes.
type Fail struct {
	Constraint string  `cbor:"1,keyasint" json:"constraint"` // such as cpu, memory, resource, label, draining
	Name       string  `cbor:"2,keyasint,omitempty" json:"name,omitempty"`
	Need       float64 `cbor:"3,keyasint,omitempty" json:"need,omitempty"`
	Has        float64 `cbor:"4,keyasint,omitempty" json:"has,omitempty"`
	Free       float64 `cbor:"5,keyasint,omitempty" json:"free,omitempty"`
	Never      bool    `cbor:"6,keyasint,omitempty" json:"never,omitempty"`
}

// WaitFor is an object that is not there, and who makes it, as far as is known.
type WaitFor struct {
	Object string `cbor:"1,keyasint" json:"object"`
	Task   string `cbor:"2,keyasint,omitempty" json:"task,omitempty"`  // its name, or that of a call
	Actor  string `cbor:"3,keyasint,omitempty" json:"actor,omitempty"` // that is called
	State  string `cbor:"4,keyasint,omitempty" json:"state,omitempty"` // of the task
	Node   string `cbor:"5,keyasint,omitempty" json:"node,omitempty"`  // that it is lent to
	Again  bool   `cbor:"6,keyasint,omitempty" json:"again,omitempty"` // it was there, was lost, and is made again
}

// ActorWait is an actor whose calls wait.
type ActorWait struct {
	Actor Actor     `cbor:"1,keyasint" json:"actor"`
	Calls int64     `cbor:"2,keyasint" json:"unanswered"`              // of those that were looked at
	For   []WaitFor `cbor:"3,keyasint,omitempty" json:"for,omitempty"` // arguments that a call of it waits for
	// Start is the state of its constructor, where that waits: see the Wait constants.
	Start string `cbor:"4,keyasint,omitempty" json:"start,omitempty"`
}

// OtherNode is a node to which nothing is lent, as no worker of it is known.
type OtherNode struct {
	Node string `cbor:"1,keyasint" json:"node"`
	Why  string `cbor:"2,keyasint" json:"why"`
}
