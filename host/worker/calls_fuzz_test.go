package worker

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// documented are the errnos that a guest may see of an import: those of
// docs/ABI.md, and EMFILE of event_open, which is WASI's.
var documented = []abi.Errno{abi.Success, abi.E2BIG, abi.EAGAIN, abi.EBADF, abi.ECANCELED, abi.EEXIST, abi.EFAULT,
	abi.EINVAL, abi.EIO, abi.EMSGSIZE, abi.ENOENT, abi.ENOMEM, abi.ENOSPC, abi.ENOSYS, abi.ENOTSUP, abi.EOVERFLOW, abi.EPERM, 33}

// A program of FuzzCalls is a memory image and calls of callSize bytes each:
// the import, and five parameters. A parameter is 16 bits, so that pointers
// into the image are common; the four values from 0xfffc stand for what is on
// the edges of 32 and 64 bits.
const (
	callSize = 11
	maxCalls = 64
)

func param(x uint16, wide bool) uint64 {
	if x < 0xfffc {
		return uint64(x)
	}
	edges := [4]uint64{0xffffffff, 0x80000000, 0xffff, 0x10000 - 4}
	if wide {
		edges = [4]uint64{1<<64 - 1, 1 << 63, 1 << 40, 0x10000}
	}
	return edges[x-0xfffc]
}

// callsOf lays calls down. Each is the import's name and its parameters.
func callsOf(calls ...[]any) (b []byte) {
	for _, c := range calls {
		at := slices.IndexFunc(HostModule().Funcs, func(f sandbox.HostFunc) bool { return f.Name == c[0] })
		b = append(b, byte(at))
		for i := range 5 {
			x := 0
			if i+1 < len(c) {
				x = c[i+1].(int)
			}
			b = binary.LittleEndian.AppendUint16(b, uint16(x))
		}
	}
	return b
}

// taskImage has the name "f" at 0, a number of a function at 4, a task of one
// argument and one result at 8, the argument at 144, the argument's bytes at
// 176, the result's handle at 184, and a value of one reference, to handle 1,
// at 192.
func taskImage(flags uint32) []byte {
	m := make([]byte, 256)
	m[0] = 'f'
	spec := m[8:]
	putU32(spec, abi.SpecFn, 1)
	putU32(spec, abi.SpecFlags, flags)
	putU32(spec, abi.SpecArgsPtr, 144)
	putU32(spec, abi.SpecNargs, 1)
	putU32(spec, abi.SpecResultsPtr, 184)
	putU32(spec, abi.SpecNresults, 1)
	copy(m[144+abi.ArgValue:], value(uint32(abi.EncodingRaw), 0, 176, 5, 0, 0))
	copy(m[176:], "bytes")
	copy(m[192:], value(uint32(abi.EncodingCBOR), 0, 176, 5, 188, 1))
	putU32(m, 188, 1)
	return m
}

// FuzzCalls calls the imports as a guest could that does what it likes: any
// memory, any parameters, any order. Each call ends with an errno that the ABI
// knows, and when the guest and its tasks are gone nothing is left of them.
func FuzzCalls(f *testing.F) {
	call := func(c ...any) []any { return c }
	function, submit := call("function", 0, 0, 0, 1, 4), call("submit", 8, 1, 256)
	f.Add(taskImage(0), callsOf(function, submit,
		call("object_watch", 184, 1), call("object_get", 1, 0x1000, 64, 256, 1), call("cancel", 1)))
	f.Add(taskImage(abi.SpecStream), callsOf(function, submit, call("stream_next", 1, 256, 1), call("handle_drop", 184, 1)))
	f.Add(taskImage(abi.SpecFresh|abi.SpecRetryErrors), callsOf(function, submit,
		call("object_put", 192, 256), call("object_refs", 2, 256, 1), call("handle_dup", 2, 260), call("submit", 8, 1, 8)))
	f.Add(taskImage(0), callsOf(call("object_put", 0xfffc, 0xfffe), call("object_map", 1, 0x10, 0xfffd, 0xfffc),
		call("object_wait", 0, 4, 1, 0, 16), call("event_open", 8), call("task_fail", 192), call("declare", 0, 1, 0, 0)))
	f.Add(taskImage(0), callsOf(call("submit", 0, 0xfffc, 0), call("object_watch", 0, 0xfffc), call("handle_drop", 0, 0xfffd)))
	// An argument that is an object, and one that is none: what was taken of the
	// first is given back.
	bad := taskImage(0)
	putU32(bad[8:], abi.SpecNargs, 2)
	putU32(bad[144:], abi.ArgKind, abi.ArgKindHandle)
	putU32(bad[144:], abi.ArgHandle, 1)
	f.Add(bad, callsOf(call("object_put", 152, 256), function, submit))
	f.Add(taskImage(0), callsOf(call("call_select", 1), call("call_end")))
	concurrent := taskImage(abi.SpecActor)
	putU32(concurrent[8:], abi.SpecConcurrency, 1<<31)
	f.Add(concurrent, callsOf(function, submit))
	placed := taskImage(0)
	putU32(placed[8:], abi.SpecPlacePtr, 220)
	putU32(placed[8:], abi.SpecPlaceLen, uint32(copy(placed[220:], "where\x00!spot\x00")))
	f.Add(placed, callsOf(function, submit))
	granted := taskImage(0)
	putU32(granted[8:], abi.SpecKeyPtr, 220)
	putU32(granted[8:], abi.SpecKeyLen, uint32(copy(granted[220:], "egress=a.b\x00")))
	f.Add(granted, callsOf(function, submit))
	asks := make([]byte, 256)
	putU32(asks, abi.HTTPRequestURLPtr, 64)
	putU32(asks, abi.HTTPRequestURLLen, uint32(copy(asks[64:], "https://a.b/")))
	putU32(asks, abi.HTTPRequestMethodPtr, 80)
	putU32(asks, abi.HTTPRequestMethodLen, uint32(copy(asks[80:], "GET")))
	putU32(asks, abi.HTTPRequestHeadersPtr, 84)
	putU32(asks, abi.HTTPRequestHeadersLen, uint32(copy(asks[84:], "A\x00b\x00")))
	f.Add(asks, callsOf(call("http_fetch", 0, 96), call("stream_next", 1, 100, 1), call("http_fetch", 0, 96), call("handle_drop", 96, 1)))
	// Room for the results that ends with the memory, and past it.
	for _, at := range []uint32{1<<16 - 4, 1<<16 - 3, 1<<32 - 4} {
		m := taskImage(0)
		putU32(m[8:], abi.SpecResultsPtr, at)
		f.Add(m, callsOf(function, submit))
	}
	h := newJobs(f, tinyGuest())
	funcs := HostModule().Funcs
	f.Fuzz(func(t *testing.T, image, calls []byte) {
		g, stop := h.start(t)
		defer func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}()
		mem := g.sb.Memory()
		copy(mem, image)
		for b := calls[:min(len(calls), maxCalls*callSize)]; len(b) >= callSize; b = b[callSize:] {
			fn := &funcs[int(b[0])%len(funcs)]
			var stack [6]uint64
			for i, typ := range fn.Params {
				stack[i] = param(binary.LittleEndian.Uint16(b[1+2*i:]), typ == 'I')
			}
			if fn.Name == "object_wait" {
				stack[3] = 0 // no code of the guest runs that could be parked
			}
			given := stack
			fn.Call(g.sb, mem, stack[:])
			if e := abi.Errno(stack[0]); fn.Name != "version" && (stack[0]>>32 != 0 || !slices.Contains(documented, e)) {
				t.Errorf("%s(%#x): errno %d, which the ABI does not know", fn.Name, given[:len(fn.Params)], stack[0])
			}
		}
	})
}

// TestSubmitRuns holds the first seed of FuzzCalls to its purpose: the task
// that it describes is taken and runs.
func TestSubmitRuns(t *testing.T) {
	h := newJobs(t, tinyGuest())
	g, stop := h.start(t)
	copy(g.sb.Memory(), taskImage(0))
	if e := g.call("function", 0, 0, 0, 1, 4); e != abi.Success {
		t.Fatalf("function: %d", e)
	}
	if e := g.call("submit", 8, 1, 256); e != abi.Success {
		t.Fatalf("submit: %d", e)
	}
	o, ok := g.handles.Object(u32(g.sb.Memory(), 184))
	if !ok {
		t.Fatal("the result has no handle")
	}
	done := make(chan struct{})
	o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { close(done) }))
	g.release() // what a guest that waits does
	<-done
	if err := o.Err(); err == nil {
		t.Error("a task that gives no result did not fail")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
