package guest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// ExitCode is what the driver's call returns to the host when main returns.
var ExitCode int

// current is the call in flight. There is never more than one, but see serving.
var current struct {
	ctx  *taskContext
	call *Call // nil in a driver
}

// Context returns the context of the running task, or of the driver: it is
// canceled when the host says so.
func Context() context.Context {
	if current.ctx == nil {
		return context.Background()
	}
	return current.ctx
}

// wrayCall is the guest's one entry (docs/ABI.md).
//
//go:wasmexport wray_call
func wrayCall(op, arg uint32) uint32 {
	switch abi.Op(op) {
	case abi.OpWarmup:
		warmup(int(arg))
		return 0
	case abi.OpRestore:
		restore()
		return 0
	case abi.OpMain:
		begin(nil, 0)
		mainMain()
		end()
		return uint32(ExitCode)
	case abi.OpTask:
		return runTask()
	case abi.OpServe:
		return serve()
	case abi.OpReclaim:
		Reclaim()
		return 0
	case abi.OpRest:
		return rest()
	}
	return uint32(abi.EINVAL)
}

// warmup does once, before the snapshot, what every sandbox would do again:
// it opens the event descriptor, finds the seeds, runs through the code that
// tasks use, and leaves a heap with room and a stack that has grown.
func warmup(mib int) {
	if v := importVersion(); v != abi.Version {
		fmt.Fprintf(os.Stderr, "wray: the host speaks version %d of wray_v1, this program version %d\n", v, abi.Version)
		os.Exit(1)
	}
	if err := openEvents(); err != nil {
		fmt.Fprintln(os.Stderr, "wray:", err)
	}
	if !findSeeds() {
		fmt.Fprintln(os.Stderr, "wray: this Go release keeps its random state where the binding does not find it: sandboxes will share it")
	}
	if tracking.exact = checkTracking(); !tracking.exact {
		fmt.Fprintln(os.Stderr, "wray: this Go release keeps its heap in another way than the binding knows: references will cost more")
	}
	liveHeap() // builds the table of metrics
	freeScratch = nil
	takeScratch().give()
	runtime.Gosched() // the dispatcher goes to the poller
	reserve(mib)
	runtime.Gosched()
	growStack(0)
	prime()
}

// growStack leaves the calling goroutine, which runs all tasks, with a stack
// of at least 32 KiB, after the collector has shrunk it.
//
//go:noinline
func growStack(depth int) byte {
	var frame [1 << 10]byte
	if depth < 24 {
		frame[depth] = growStack(depth + 1)
	}
	return frame[depth/2]
}

// rested holds a token when the host has seen that everything waits.
var rested = make(chan struct{}, 1)

// rest lets the goroutines that calls left running go on until all of them
// wait. The host sees then what for.
func rest() uint32 {
	if err := openEvents(); err != nil {
		return uint32(abi.EIO)
	}
	<-rested
	flushDrops()
	return 0
}

// restore makes a sandbox that was made from the snapshot one of its own.
func restore() {
	reseed()
}

// begin starts a call that runs user code.
func begin(c *Call, timeout time.Duration) {
	if !isActor {
		taskNumber++
	}
	ctx := newContext()
	ctx.limit(timeout)
	current.ctx, current.call = ctx, c
	if c != nil {
		c.ctx = ctx
	}
}

// end gives back what the call held, unless that is an actor's state.
// Goroutines that it left running stand still until the next call, or, of an
// actor, the operation REST; of a task their references are stale.
func end() {
	ctx := current.ctx
	current.ctx, current.call = nil, nil
	ctx.end()
	if isActor {
		return
	}
	taskNumber++
	if events.waiting {
		events.waiting = false
		clear(events.watched)
	}
	dropAll()
}

var functions []func(*Call)

// Declare tells the host that f runs the task called name. It is called from
// package variables and init functions only, which run before the snapshot.
// f must give all results, or call Fail; it must not panic, nor end by
// runtime.Goexit except after Fail and Abandon.
func Declare(name string, f func(*Call)) error {
	e := importDeclare(unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), uint32(len(functions)), 0)
	if !ok(e) {
		return Errno(e)
	}
	functions = append(functions, f)
	return nil
}
