package worker

import (
	"bytes"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// TestLongCallsStop holds that a guest which was killed is stopped within a
// call that copies much, and that nothing of the call is left.
func TestLongCallsStop(t *testing.T) {
	wide := bytes.Replace(tinyGuest(), []byte{5, 3, 1, 0, 1}, []byte{5, 4, 1, 0, 0xc8, 1}, 1) // 200 pages
	h := newJobs(t, wide)
	g, stop := h.start(t)
	const at, n = 1 << 16, objectstore.StepBytes + 1
	mem := g.sb.Memory()
	putU32(mem, abi.ValueEncoding, uint32(abi.EncodingRaw))
	putU32(mem, abi.ValuePtr, at)
	putU32(mem, abi.ValueLen, n)
	fill(g, at, n, 'x')
	if e := g.call("object_put", 0, 32); e != abi.Success {
		t.Fatalf("object_put: %d", e)
	}
	handle := uint64(u32(mem, 32))
	used := h.w.store.Stats().Used
	fill(g, at, n, 'y')
	for name, params := range map[string][]uint64{
		"object_put":  {0, 36},
		"object_read": {handle, 0, at, n, 40},
		"object_get":  {handle, at, n, 64, 0},
	} {
		g.sb.Kill(wray.Errorf(wray.CodeCanceled, "canceled"))
		func() {
			defer func() {
				if err, ok := recover().(error); !ok {
					t.Errorf("%s was not stopped", name)
				} else if err.Error() != "Canceled: canceled" {
					panic(err)
				}
			}()
			g.call(name, params...)
		}()
		g.sb.Forgive()
		g.work = 0
		if now := h.w.store.Stats().Used; now != used || g.handles.Len() != 1 {
			t.Errorf("%s: %d bytes are used, of %d before, by %d handles", name, now, used, g.handles.Len())
		}
		if last := mem[at+n-1]; last != 'y' {
			t.Errorf("%s was stopped at its end", name)
		}
	}
	if e := g.call("object_read", handle, 1, at, n, 40); e != abi.Success || u32(mem, 40) != n-1 || !all(mem[at:at+n-1], 'x') || mem[at+n-1] != 'y' {
		t.Errorf("object_read: %d, %d bytes", e, u32(mem, 40))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestManyWatches holds that a guest may pile watches up to a limit, that those
// which are over do not count, and that it leaves none.
func TestManyWatches(t *testing.T) {
	h := newJobs(t, tinyGuest())
	g, stop := h.start(t)
	mem := g.sb.Memory()
	o, err := h.w.store.Declare(h.w.newID())
	if err != nil {
		t.Fatal(err)
	}
	o.Retain()
	handle, err := g.handles.Add(o)
	if err != nil {
		t.Fatal(err)
	}
	const n = 8192
	for i := range uint32(n) {
		putU32(mem, int(4*i), handle)
	}
	g.job.spec.Limits.Handles = 3 * n
	for range 3 {
		if e := g.call("object_watch", 0, n); e != abi.Success {
			t.Fatalf("object_watch: %d", e)
		}
	}
	if len(g.watches) != 3*n || !g.Outstanding(nil) {
		t.Errorf("%d watches, outstanding %v", len(g.watches), g.Outstanding(nil))
	}
	if e := g.call("object_watch", 0, 1); e != abi.E2BIG || g.refused == nil || g.refused.Limit.Value != 3*n {
		t.Errorf("one more: %d, %v", e, g.refused)
	}
	ready, err := h.w.store.Declare(h.w.newID())
	if err != nil {
		t.Fatal(err)
	}
	g.drop()
	if h2, err := g.handles.Add(ready); err != nil {
		t.Fatal(err)
	} else {
		for i := range uint32(n) {
			putU32(mem, int(4*i), h2)
		}
	}
	for range 3 {
		if e := g.call("object_watch", 0, n); e != abi.Success {
			t.Fatalf("object_watch: %d", e)
		}
	}
	if err := ready.TrySeal(objectstore.Value{Encoding: abi.EncodingRaw}); err != nil || g.watching() != 0 {
		t.Errorf("%v, and %d watches are under way of what is there", err, g.watching())
	}
	g.drop()
	if len(g.watches) != 0 || g.Outstanding(nil) {
		t.Errorf("after a drop: %d watches, outstanding %v", len(g.watches), g.Outstanding(nil))
	}
	o.Release() // the watches have references of their own, until they are gone
	if err := stop(); err != nil {
		t.Error(err)
	}
}
