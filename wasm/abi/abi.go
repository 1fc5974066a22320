// Package abi is the vocabulary that hosts and guests of wray share: names of
// imports and exports, numbers, and the offsets of structures in linear
// memory. docs/ABI.md gives them meaning; TestGolden pins them. It builds for
// every target and imports nothing.
package abi

// Version is what the import "version" returns.
const Version = 1

// Module names of the imports a guest may have.
const (
	Module = "wray_v1"
	WASI   = "wasi_snapshot_preview1"
)

// Names of a guest's exports.
const (
	ExportMemory     = "memory"
	ExportInitialize = "_initialize"
	ExportCall       = "wray_call"
	ExportStart      = "_start"
)

// Op is the first argument of wray_call.
type Op uint32

// Operations of wray_call.
const (
	OpWarmup  Op = 1
	OpRestore Op = 2
	OpMain    Op = 3
	OpTask    Op = 4
	OpReclaim Op = 5
	OpServe   Op = 6
	OpRest    Op = 7
)

// Encoding says how a value's payload is to be read.
type Encoding uint32

// Encodings of values.
const (
	EncodingRaw     Encoding = 1
	EncodingCBOR    Encoding = 2
	EncodingNumeric Encoding = 3
	EncodingArrow   Encoding = 4
	EncodingError   Encoding = 5
)

// EncodingObject in a value says that the value is that of the object whose
// handle stands in ValuePtr. task_return and task_yield take such values.
const EncodingObject Encoding = 0

// RefTag is the CBOR tag around a reference's index: "wray" in ASCII.
const RefTag = 0x77726179

// Elem is the element kind of a NUMERIC payload.
type Elem uint32

// Element kinds.
const (
	ElemI8  Elem = 1
	ElemI16 Elem = 2
	ElemI32 Elem = 3
	ElemI64 Elem = 4
	ElemU8  Elem = 5
	ElemU16 Elem = 6
	ElemU32 Elem = 7
	ElemU64 Elem = 8
	ElemF32 Elem = 9
	ElemF64 Elem = 10
)

// Size returns the element's width in bytes, or 0 for an unknown kind.
func (e Elem) Size() int {
	switch e {
	case ElemI8, ElemU8:
		return 1
	case ElemI16, ElemU16:
		return 2
	case ElemI32, ElemU32, ElemF32:
		return 4
	case ElemI64, ElemU64, ElemF64:
		return 8
	}
	return 0
}

// struct value.
const (
	ValueSize     = 24
	ValueEncoding = 0
	ValueMeta     = 4
	ValuePtr      = 8
	ValueLen      = 12
	ValueRefsPtr  = 16
	ValueRefsLen  = 20
)

// struct task_spec.
const (
	SpecSize            = 128
	SpecFn              = 0
	SpecFlags           = 4
	SpecArgsPtr         = 8
	SpecNargs           = 12
	SpecResultsPtr      = 16
	SpecNresults        = 20
	SpecNamePtr         = 24
	SpecNameLen         = 28
	SpecCPU             = 32
	SpecRetries         = 36
	SpecMemory          = 40
	SpecTimeout         = 48
	SpecRetryOnPtr      = 56
	SpecRetryOnLen      = 60
	SpecWindow          = 64
	SpecActorRef        = 68
	SpecCallTries       = 72
	SpecMaxPending      = 76
	SpecIdle            = 80
	SpecConcurrency     = 88
	SpecCheckpointCalls = 92
	SpecCheckpointEvery = 96
	SpecCustomPtr       = 104
	SpecCustomLen       = 108
	SpecKeyPtr          = 112
	SpecKeyLen          = 116
	SpecPlacePtr        = 120
	SpecPlaceLen        = 124
)

// Flags of a task_spec.
const (
	SpecFresh       = 1
	SpecStream      = 2
	SpecRetryErrors = 4
	SpecHasCPU      = 8
	SpecHasRetries  = 16
	SpecActor       = 32
	SpecNamed       = 64
	SpecGetIfExists = 128
	SpecDetached    = 256
	SpecDurable     = 512
	SpecCheckpoint  = 1024
	SpecGroup       = 2048 // it makes a placement group
	SpecInGroup     = 4096 // it runs in one, whose handle is in place of an actor's
	SpecCapture     = 8192 // with SpecInGroup: what it submits does, too
)

// GroupName stands before the name of a placement group, where the import that
// finds actors by name is to find one.
const GroupName = "group\x00"

// struct arg.
const (
	ArgSize   = 32
	ArgKind   = 0
	ArgHandle = 4
	ArgValue  = 8
)

// Kinds of an arg.
const (
	ArgKindValue  = 0
	ArgKindHandle = 1
)

// struct call, followed by call_args, the task's name and payloads.
const (
	CallSize      = 64
	CallIndex     = 0
	CallNargs     = 4
	CallNresults  = 8
	CallFlags     = 12
	CallAttempt   = 16
	CallNameLen   = 20
	CallTimeout   = 24
	CallTaskOwner = 32
	CallTaskSeq   = 40
	CallItemsDone = 48
)

// Flags of a call.
const (
	CallStream = 1 // its results are a stream
	CallActor  = 2 // the sandbox is an actor's: what it holds stays
)

// Flags of kill.
const (
	KillRestart    = 1 // the actor may start again
	KillCheckpoint = 2 // nothing ends: the actor that calls, with handle 0, takes a checkpoint before its answer
)

// struct call_arg.
const (
	CallArgSize     = 32
	CallArgEncoding = 0
	CallArgMeta     = 4
	CallArgLen      = 8
	CallArgHandle   = 16
	CallArgOffset   = 20
	CallArgNrefs    = 24
)

// NoOffset in a call_arg says that the payload is read through the handle.
const NoOffset = 0xffffffff

// struct info.
const (
	InfoSize     = 32
	InfoEncoding = 0
	InfoMeta     = 4
	InfoLen      = 8
	InfoNrefs    = 16
	InfoFlags    = 20
)

// InfoMappable is the flag of an object that object_map accepts.
const InfoMappable = 1

// struct stat, followed by the name of the task that makes the object.
const (
	StatSize       = 40
	StatState      = 0
	StatEncoding   = 4
	StatMeta       = 8
	StatNrefs      = 12
	StatLen        = 16
	StatReferences = 24
	StatFlags      = 32
	StatNameLen    = 36
)

// States of an object.
const (
	StatePending = 0
	StateSealed  = 1
	StateFailed  = 2
)

// StatAway is the flag, beside InfoMappable, of an object that is on disk.
const StatAway = 2

// struct http_request.
const (
	HTTPRequestSize       = 40
	HTTPRequestURLPtr     = 0
	HTTPRequestURLLen     = 4
	HTTPRequestMethodPtr  = 8
	HTTPRequestMethodLen  = 12
	HTTPRequestHeadersPtr = 16
	HTTPRequestHeadersLen = 20
	HTTPRequestBody       = 24
	HTTPRequestFlags      = 28
	HTTPRequestTimeout    = 32
)

// FlagWatch asks object_get and stream_next for an event.
const FlagWatch = 1

// Bounds in bytes: of a value, and of what is read of a failure that task_fail tells.
const (
	MaxPayload = 1 << 40
	MaxFailure = 1 << 20
)

// MapAlign is the alignment of addresses and offsets of object_map.
const MapAlign = 64 << 10

// struct event.
const (
	EventSize   = 16
	EventKind   = 0
	EventHandle = 4
	EventArg    = 8
)

// Kinds of events.
const (
	EventReady    = 1
	EventSpace    = 2
	EventCancel   = 3
	EventDeadlock = 4
	EventRoom     = 5
	EventReclaim  = 6
	EventCall     = 7
	EventRest     = 8
)

// Errno is the result of every import, with WASI preview 1's numbers.
type Errno uint32

// Errnos that imports of wray_v1 return.
const (
	Success   Errno = 0
	E2BIG     Errno = 1
	EAGAIN    Errno = 6
	EBADF     Errno = 8
	ECANCELED Errno = 11
	EEXIST    Errno = 20
	EFAULT    Errno = 21
	EINVAL    Errno = 28
	EIO       Errno = 29
	EMSGSIZE  Errno = 35
	ENOENT    Errno = 44
	ENOMEM    Errno = 48
	ENOSPC    Errno = 51
	ENOSYS    Errno = 52
	ENOTSUP   Errno = 58
	EOVERFLOW Errno = 61
	EPERM     Errno = 63
)
