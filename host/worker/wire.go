package worker

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// The messages between a node and a worker. A worker's messages are hostile
// input to the node: link bounds their size and decodes them strictly, and the
// node checks every field.
const (
	KindStart  link.Kind = 1 // node: request StartBody, reply StartedBody
	KindRun    link.Kind = 2 // node: request RunBody with files, reply RanBody
	KindStats  link.Kind = 3 // node: request, reply StatsBody
	KindOutput link.Kind = 4 // worker: request OutputBody, replied to when it was read
	KindFS     link.Kind = 5 // worker: request FSBody, reply FSReply and perhaps a file
	KindSpill  link.Kind = 6 // worker: request spill.Request, reply spill.Reply, with files
	KindState  link.Kind = 8 // worker: request StateBody, reply with the files of a durable actor's log, or empty
	KindMemory link.Kind = 7 // node: request clientwire.MemoryBody, reply clientwire.Memory

	KindExplain link.Kind = 18 // node: request clientwire.ExplainBody, reply ExplainedBody
)

// StartBody tells a worker what it has.
type StartBody struct {
	Node       string `cbor:"1,keyasint"`
	CacheDir   string `cbor:"2,keyasint"`
	CPU        int64  `cbor:"3,keyasint"` // wray.CPU; 0: the machine's
	Memory     int64  `cbor:"4,keyasint"`
	StoreBytes int64  `cbor:"5,keyasint"`
	Slots      int    `cbor:"6,keyasint"`
	Residents  int    `cbor:"7,keyasint"`
	Sandboxes  int    `cbor:"8,keyasint"`
	Spills     bool   `cbor:"9,keyasint,omitempty"` // the node keeps what the store has no room for
	// Custom are the custom resources, each name once.
	Custom []CustomBody `cbor:"10,keyasint,omitempty"`
	Labels []LabelBody  `cbor:"14,keyasint,omitempty"` // of the node, for placements
	// State is set where the node keeps durable actors.
	State bool `cbor:"12,keyasint,omitempty"`
	// Peers is set where the node carries messages to the tenant's other workers.
	Peers bool `cbor:"13,keyasint,omitempty"`
	// Tenant is whose the worker is, and Quota what it may have.
	Tenant string     `cbor:"15,keyasint,omitempty"`
	Quota  wray.Quota `cbor:"16,keyasint,omitempty"`
}

// StateBody asks for the files of a durable actor.
type StateBody struct {
	Op   StateOp `cbor:"1,keyasint"`
	Name string  `cbor:"2,keyasint"`
}

// StateOp is what to do with them; see StateDir.
type StateOp uint8

// The operations.
const (
	StateOpen StateOp = iota + 1
	StateRelease
	StateRemove
	StateFind // StateOpen of one that is there; the reply has no files where it is not
)

// StartedBody tells what the worker has put itself under.
type StartedBody struct {
	Jail string `cbor:"1,keyasint"`
	Peer uint64 `cbor:"2,keyasint"` // names this incarnation to its peers
}

// ExplainedBody is what waits on a worker, and the nodes that it knows workers of.
type ExplainedBody struct {
	Explained clientwire.Explained `cbor:"1,keyasint"`
	Known     []KnownNode          `cbor:"2,keyasint,omitempty"`
}

// KnownNode is a node with a worker that this one knows, and what it has free by
// its estimate.
type KnownNode struct {
	Name   string `cbor:"1,keyasint"`
	CPU    int64  `cbor:"2,keyasint"` // wray.CPU
	Memory int64  `cbor:"3,keyasint"`
}

// RunBody is a job. The message's files are the modules' artifacts in order,
// then the driver's standard input where Stdin is set, or, where Client is, the
// socket of a native client, which is the driver.
type RunBody struct {
	Run     uint64       `cbor:"1,keyasint"` // the node's number for the job
	Name    string       `cbor:"2,keyasint"`
	Modules []ModuleBody `cbor:"3,keyasint"`
	Args    []string     `cbor:"4,keyasint"`
	Env     []string     `cbor:"5,keyasint"`
	Dirs    []DirBody    `cbor:"6,keyasint"`
	Stdin   bool         `cbor:"7,keyasint"`
	Memory  int64        `cbor:"8,keyasint"`
	Stack   int32        `cbor:"9,keyasint"`
	Files   int          `cbor:"10,keyasint"`
	Timeout int64        `cbor:"11,keyasint"` // ns
	Handles int          `cbor:"12,keyasint"`
	Windows int          `cbor:"13,keyasint"`
	LogRate int64        `cbor:"14,keyasint"`
	Client  bool         `cbor:"15,keyasint"`
}

// ModuleBody is a module of a job.
type ModuleBody struct {
	Name   string `cbor:"1,keyasint"`
	Native string `cbor:"2,keyasint"` // path of the compiled code
	Hash   string `cbor:"3,keyasint"` // of the module's bytes: what peers ask for it by
}

// DirBody is a granted directory, by its position.
type DirBody struct {
	Guest    string `cbor:"1,keyasint"`
	ReadOnly bool   `cbor:"2,keyasint"`
}

// RanBody is how a job ended. A job without an exit code ends as a failure of
// the call.
type RanBody struct {
	ExitCode int `cbor:"1,keyasint"`
}

// StatsBody is a picture of the worker's tasks, of its objects on disk, and of
// its actors.
type StatsBody struct {
	Waiting  int64 `cbor:"1,keyasint"`
	Running  int64 `cbor:"2,keyasint"`
	Finished int64 `cbor:"3,keyasint"`
	Failed   int64 `cbor:"4,keyasint"`
	Replaced int64 `cbor:"5,keyasint"` // see Stats.Replaced
	OnDisk   int64 `cbor:"6,keyasint"` // bytes that objects take on disk; see objectstore.Stats for these and the next
	Spilled  int64 `cbor:"7,keyasint"`
	Restored int64 `cbor:"8,keyasint"`
	Lost     int64 `cbor:"9,keyasint"`
	Retried  int64 `cbor:"10,keyasint"` // attempts after the first, of all tasks

	Resident     int64 `cbor:"11,keyasint"` // see Stats for these
	Asleep       int64 `cbor:"12,keyasint"`
	AsleepBytes  int64 `cbor:"13,keyasint"`
	AsleepOnDisk int64 `cbor:"14,keyasint"`
	Undrained    int64 `cbor:"15,keyasint"`
}

// OutputBody is what a job printed.
type OutputBody struct {
	Run    uint64 `cbor:"1,keyasint"`
	Task   string `cbor:"2,keyasint"`
	Stream Stream `cbor:"3,keyasint"`
	Data   []byte `cbor:"4,keyasint"`
}

// FSOp is an operation on a granted directory.
type FSOp uint8

// The operations, as wasi.FS has them.
const (
	FSOpen FSOp = iota + 1
	FSStat
	FSSetTimes
	FSMkdir
	FSUnlink
	FSRmdir
	FSRename
	FSLink
	FSSymlink
	FSReadlink
)

// FSBody asks for an operation.
type FSBody struct {
	Run    uint64 `cbor:"1,keyasint"`
	Dir    int    `cbor:"2,keyasint"` // position in RunBody.Dirs
	Op     FSOp   `cbor:"3,keyasint"`
	Path   []byte `cbor:"4,keyasint"` // bytes: guests may use what is not UTF-8
	Path2  []byte `cbor:"5,keyasint,omitempty"`
	Flags  uint32 `cbor:"6,keyasint,omitempty"`
	Follow bool   `cbor:"7,keyasint,omitempty"`
	Atim   int64  `cbor:"8,keyasint,omitempty"`
	Mtim   int64  `cbor:"9,keyasint,omitempty"`
}

// FSReply is its result.
type FSReply struct {
	Errno uint16        `cbor:"1,keyasint"`
	Stat  wasi.Filestat `cbor:"2,keyasint"`
	Text  []byte        `cbor:"3,keyasint,omitempty"`
}

// LinkOptions is how both ends open the link.
func LinkOptions() link.Options { return link.Options{WriteTimeout: time.Minute} }
