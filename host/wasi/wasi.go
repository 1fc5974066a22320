// Package wasi is a host for WASI preview 1: the 46 functions of
// wasi_snapshot_preview1 over a slice of guest memory and one [System] for
// each sandbox. It knows no engine, no cluster and no process model; the
// engine registers the rows of [Functions], and everything a guest can reach
// is what a [Config] grants: nothing else is ambient.
//
// # What holds
//
//   - A guest cannot make a function panic, read or write outside the memory
//     it is given, allocate host memory without bound, or reach a file outside
//     its grants. Pointers and lengths are checked in 64 bits, and every
//     pointer a function writes through is checked before it changes anything.
//   - Files are opened by an [FS], the one seam to the outside: path strings
//     and flags in, an *os.File, a structure or an [Errno] out. Reads, writes,
//     stat and readdir of an open file are done here, on its descriptor.
//   - Nothing blocks but reads and writes of real files, the host's own Files
//     and output functions if they choose to, and [Poller.Wait]. A read of a
//     File that has nothing yet waits in Poller.Wait too.
//
// # Threads
//
// A System belongs to the goroutine that runs its sandbox. Calls may nest
// (Poller.Wait may run the guest again on the same goroutine) but never run at
// the same time. The guest's memory must not move while a call is in flight;
// it may grow in place.
//
// The names, numbers and layouts are those of WASI preview 1,
// https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md.
package wasi

// ModuleName is the import module of the functions.
const ModuleName = "wasi_snapshot_preview1"

// Func is one function of WASI preview 1: how to call it, and what a host
// must know of it to grant, meter and schedule it.
type Func struct {
	// Name is the import's name.
	Name string
	// Params has one letter for each parameter: 'i' for i32, 'I' for i64.
	Params string
	// Result tells that the function returns an errno, an i32.
	Result bool
	// Call runs the function. stack holds the parameters, one a word, and
	// afterwards the errno in stack[0]; it has room for one word at least.
	// mem is the guest's linear memory, and is not kept.
	Call func(s *System, mem []byte, stack []uint64)

	// Capability is what of a Config the function acts on.
	Capability Capability
	// MaxPayload is the largest number of bytes one call moves between guest
	// and host under the default Limits, or NoPayload.
	MaxPayload int64
	// Cost estimates what the call costs the host.
	Cost Cost
	// Blocks tells whether and where a call may wait.
	Blocks Blocking
}

// NoPayload is the MaxPayload of a function that moves no bytes.
const NoPayload = -1

// Capability names what a function acts on.
type Capability string

// The capabilities.
const (
	CapArgs   Capability = "args"   // Config.Args, Config.Env
	CapClock  Capability = "clock"  // Config.WallClock, MonoClock, CPUClock
	CapRandom Capability = "random" // Config.Random
	CapFiles  Capability = "files"  // descriptors the guest holds
	CapDirs   Capability = "dirs"   // paths under Config.Dirs
	CapPoll   Capability = "poll"   // Config.Poller
	CapExit   Capability = "exit"   // Config.Exit
	CapYield  Capability = "yield"  // Config.Yield
	CapNone   Capability = "none"   // nothing: the function always fails
)

// Cost estimates the host's work for one call in nanoseconds of one core, to
// be charged to the guest: Base for the call and PerKiB for each 1024 bytes
// that [System.TakeMoved] reports.
type Cost struct {
	Base   uint32
	PerKiB uint32
}

// Blocking says whether a call may wait. The zero value is no answer.
type Blocking uint8

// How a function may wait.
const (
	NeverBlocks  Blocking = 1 + iota
	BlocksOnDisk          // for as long as the operating system takes for a real file
	BlocksInPoll          // in Poller.Wait, where the sandbox is parked
)

// call is a function of the table before it is wrapped into a Func.Call.
// a has as many words as the function has parameters.
type call func(s *System, mem memory, a []uint64) Errno

// bind makes a call into a Func.Call.
func bind(nparams int, f call) func(s *System, mem []byte, stack []uint64) {
	return func(s *System, mem []byte, stack []uint64) {
		if !s.live {
			stack[0] = uint64(ECANCELED)
			return
		}
		stack[0] = uint64(f(s, mem, stack[:nparams]))
	}
}
