package worker

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"strconv"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// guestOf is the tiny guest with so many pages of memory.
func guestOf(pages uint64) []byte {
	n := binary.AppendUvarint(nil, pages)
	return bytes.Replace(tinyGuest(), []byte{5, 3, 1, 0, 1}, append([]byte{5, byte(2 + len(n)), 1, 0}, n...), 1)
}

// Places in the memory of hostile guests.
const (
	atSpec    = 64
	atOut     = 256
	atResults = 512
	atArgs    = 1 << 20
	atPayload = 4 << 20
)

// hostileSpec describes a task of so many arguments and one result.
func hostileSpec(t testing.TB, g *guest, args int) view {
	mem := view(g.sb.Memory())
	copy(mem, "f")
	if e := g.call("function", 0, 0, 0, 1, 4); e != abi.Success {
		t.Fatalf("function: %d", e)
	}
	s := mem[atSpec:][:abi.SpecSize]
	clear(s)
	putU32(s, abi.SpecFn, 1)
	putU32(s, abi.SpecArgsPtr, atArgs)
	putU32(s, abi.SpecNargs, uint32(args))
	putU32(s, abi.SpecResultsPtr, atResults)
	putU32(s, abi.SpecNresults, 1)
	return mem
}

// valueArgs makes all arguments the same n bytes.
func valueArgs(mem view, args int, n uint32) {
	for i := range args {
		a := mem[atArgs+i*abi.ArgSize:]
		putU32(a, abi.ArgKind, abi.ArgKindValue)
		copy(a[abi.ArgValue:], value(uint32(abi.EncodingRaw), 0, atPayload, n, 0, 0))
	}
}

// addPending gives the guest an object that is not there.
func addPending(t testing.TB, g *guest) (*objectstore.Object, uint32) {
	o, err := g.w.store.Declare(g.w.newID())
	if err != nil {
		t.Fatal(err)
	}
	h, err := g.handles.Add(o)
	if err != nil {
		t.Fatal(err)
	}
	return o, h
}

// put gives the guest the object of n bytes at atPayload.
func (g *guest) put(t testing.TB, n uint32, refs ...uint32) uint64 {
	mem := view(g.sb.Memory())
	for i, h := range refs {
		putU32(mem, atArgs+4*i, h)
	}
	copy(mem[atSpec:], value(uint32(abi.EncodingRaw), 0, atPayload, n, atArgs, uint32(len(refs))))
	if e := g.call("object_put", atSpec, atOut); e != abi.Success {
		t.Fatalf("object_put: %d", e)
	}
	return uint64(u32(mem, atOut))
}

// stopped calls an import of a guest that was killed, and fails unless the call
// was stopped before its end.
func (g *guest) stopped(t *testing.T, name string, params ...uint64) {
	t.Helper()
	g.sb.Kill(wray.Errorf(wray.CodeCanceled, "canceled"))
	defer func() {
		g.sb.Forgive()
		g.work = 0
		if err, ok := recover().(error); !ok {
			t.Errorf("%s was not stopped", name)
		} else if err.Error() != "Canceled: canceled" {
			panic(err)
		}
	}()
	g.call(name, params...)
}

// TestManyArguments submits one task whose arguments are all the same bytes:
// together they are more than the guest has, and no memory of the worker's is
// taken for them that nobody counts.
func TestManyArguments(t *testing.T) {
	h := newJobs(t, guestOf(128), func(c *Config) { c.StoreBytes = 8 << 20 })
	g, stop := h.start(t)
	const args = 16 << 10
	mem := hostileSpec(t, g, args)
	valueArgs(mem, args, inlineArg-1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e := g.call("submit", atSpec, 1, atOut)
	runtime.ReadMemStats(&after)
	if e != abi.EAGAIN {
		t.Errorf("%d MiB of arguments in a store of 8: %d", args*inlineArg>>20, e)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
		t.Errorf("%d MiB were taken for them", took>>20)
	}
	if st := h.w.store.Stats(); st.Used != 0 {
		t.Errorf("%d bytes are left in the store", st.Used)
	}
	g.wantsRoom = false

	valueArgs(mem, args, 0)
	if e := g.call("submit", atSpec, 1, atOut); e != abi.Success {
		t.Fatalf("submit: %d", e)
	}
	h.w.mu.Lock()
	for task := range h.w.tasks.all {
		if n := task.bytes(); n < 16*args {
			t.Errorf("%d empty arguments count as %d bytes", args, n)
		}
	}
	h.w.mu.Unlock()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestLongSubmitStops holds that a guest is stopped among the arguments of one
// task, and that nothing is kept of them.
func TestLongSubmitStops(t *testing.T) {
	h := newJobs(t, guestOf(512))
	g, stop := h.start(t)
	o, pending := addPending(t, g)
	for _, n := range []uint32{16, inlineArg - 1, inlineArg, objectstore.StepBytes + 1} {
		args := 4096
		if n > inlineArg {
			args = 1
		}
		mem := hostileSpec(t, g, args+1)
		valueArgs(mem, args+1, n)
		putU32(mem[atArgs:], abi.ArgKind, abi.ArgKindHandle)
		putU32(mem[atArgs:], abi.ArgHandle, pending)
		g.stopped(t, "submit", atSpec, 1, atOut)
		if st := h.w.store.Stats(); st.Used != 0 || o.References() != 1 {
			t.Errorf("arguments of %d bytes: %d bytes are left, %d references", n, st.Used, o.References())
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestLongHandleCallsStop does so among many handles.
func TestLongHandleCallsStop(t *testing.T) {
	h := newJobs(t, guestOf(256))
	g, stop := h.start(t)
	_, pending := addPending(t, g)
	many := make([]uint32, 3<<10) // fewer than are freed aside
	for i := range many {
		many[i] = pending
	}
	n := uint64(len(many))
	list := g.put(t, 8, many...) // which leaves them at atArgs
	g.stopped(t, "object_refs", list, atPayload, n)
	if got := g.handles.Len(); got < 2 || got >= 2+len(many) {
		t.Errorf("%d handles", got)
	}
	g.stopped(t, "object_put", atSpec, atOut)
	g.stopped(t, "object_wait", atArgs, n, n, 1<<40, atPayload)
	g.stopped(t, "object_watch", atArgs, n)
	if g.watching() == len(many) {
		t.Error("all watches were made")
	}
	g.drop()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestLongYieldStops does so in the copy of a stream's item.
func TestLongYieldStops(t *testing.T) {
	h := newJobs(t, guestOf(256))
	g, stop := h.start(t)
	g.task = &task{stream: objectstore.NewStream(h.w.newID(), 0, nil)}
	copy(g.sb.Memory()[atSpec:], value(uint32(abi.EncodingRaw), 0, atPayload, objectstore.StepBytes+1, 0, 0))
	g.stopped(t, "task_yield", atSpec)
	if st := h.w.store.Stats(); st.Used != 0 || g.task.items != 0 {
		t.Errorf("%d bytes are left, %d items", st.Used, g.task.items)
	}
	g.task.stream.Release()
	g.task = nil
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestLongMappingsStop does so while its pages are given back, and holds that
// what was half done is undone with the guest.
func TestLongMappingsStop(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, guestOf(1024), func(c *Config) { c.StoreBytes = 256 << 20 })
	g, stop := h.start(t)
	const at, n = 1 << 20, 2*stepPages + unit
	b := uint64(openBuffer(t, g, n, at))
	g.stopped(t, "buffer_seal", b, uint64(abi.EncodingRaw), 0, n, 16)
	fill(g, at, n, 'x')
	if e := g.call("buffer_seal", b, uint64(abi.EncodingRaw), 0, n, 16); e != abi.Success {
		t.Fatalf("buffer_seal: %d", e)
	}
	o := uint64(u32(g.sb.Memory(), 16))
	if bytes.Count(g.sb.Memory()[at:at+n], []byte("x")) == 0 { // from here on its pages are mapped
		t.Error("the sealed buffer is not what was written")
	}
	g.stopped(t, "object_unmap", at, n)
	if e := g.call("object_unmap", at, n); e != abi.Success || !all(g.sb.Memory()[at:at+n], 0) {
		t.Errorf("object_unmap: %d", e)
	}
	g.stopped(t, "object_map", o, at, n, 0)
	if st := h.w.store.Stats(); st.Windows != 0 || len(g.windows) != 0 {
		t.Errorf("%d windows are left, %d of the guest", st.Windows, len(g.windows))
	}
	if e := g.call("object_map", o, at, n, 0); e != abi.Success || g.sb.Memory()[at+n-1] != 'x' {
		t.Errorf("object_map: %d", e)
	}
	// Of pages that nobody touched there is nothing to give back.
	g.sb.Kill(wray.Errorf(wray.CodeCanceled, "canceled"))
	e := g.call("object_unmap", at, n)
	g.sb.Forgive()
	if e != abi.Success || !all(g.sb.Memory()[at:at+n], 0) {
		t.Errorf("object_unmap: %d", e)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestUnreadEvents holds that what a guest was told, and does not read, counts as
// what it waits for: it cannot fill the worker's memory with events.
func TestUnreadEvents(t *testing.T) {
	h := newJobs(t, guestOf(128))
	g, stop := h.start(t)
	const most = 1000
	g.job.spec.Limits.Handles = most
	mem := view(g.sb.Memory())
	there := g.put(t, 8)
	_, pending := addPending(t, g)
	st := objectstore.NewStream(h.w.newID(), 0, nil)
	stream, err := g.handles.Add(st)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(most) {
		putU32(mem, atArgs+int(4*i), uint32(there))
	}
	if e := g.call("object_watch", atArgs, most); e != abi.Success || g.sb.Unread() != most {
		t.Fatalf("object_watch: %d, %d events", e, g.sb.Unread())
	}
	for name, call := range map[string]func() abi.Errno{
		"object_watch": func() abi.Errno { return g.call("object_watch", atArgs, 1) },
		"object_get":   func() abi.Errno { return g.call("object_get", uint64(pending), 0, 0, atOut, abi.FlagWatch) },
		"stream_next":  func() abi.Errno { return g.call("stream_next", uint64(stream), atOut, abi.FlagWatch) },
	} {
		if e := call(); e != abi.E2BIG || g.refused == nil || g.refused.Limit.Value != most {
			t.Errorf("%s: %d, %v", name, e, g.refused)
		}
	}
	if e := g.call("event_open", atOut); e != abi.Success {
		t.Fatalf("event_open: %d", e)
	}
	if n := g.readEvents(t, 1); n != 1 {
		t.Fatalf("%d events were read", n)
	}
	if e := g.call("object_get", uint64(pending), 0, 0, atOut, abi.FlagWatch); e != abi.EAGAIN {
		t.Errorf("object_get with room for one: %d", e)
	}
	if e := g.call("object_get", uint64(pending), 0, 0, atOut, abi.FlagWatch); e != abi.E2BIG {
		t.Errorf("object_get with room for none: %d", e)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// readEvents reads up to n events of descriptor 3.
func (g *guest) readEvents(t *testing.T, n uint32) uint32 {
	t.Helper()
	mem := view(g.sb.Memory())
	putU32(mem, atOut+8, atPayload)
	putU32(mem, atOut+12, n*abi.EventSize)
	for _, f := range wasi.Functions() {
		if f.Name == "fd_read" {
			stack := []uint64{uint64(u32(mem, atOut)), atOut + 8, 1, atOut + 16}
			f.Call(g.sb.WASI(), mem, stack)
			if abi.Errno(stack[0]) != abi.Success {
				t.Fatalf("fd_read: %d", stack[0])
			}
		}
	}
	return u32(mem, atOut+16) / abi.EventSize
}

// TestRefusedSubmits holds that a guest which submits to a full queue again and
// again, and does not wait, has one SPACE on its way, and leaves one unread.
func TestRefusedSubmits(t *testing.T) {
	h := newJobs(t, guestOf(128))
	g, stop := h.start(t)
	for range 10 {
		g.wantsSpace = false // as submit begins
		g.awaitQueue()
	}
	if n := len(g.job.waiting); n != 1 {
		t.Errorf("the guest is %d times in the queue", n)
	}
	for range 10 {
		g.job.space()
		g.awaitQueue()
	}
	if n := g.sb.Unread(); n != 1 {
		t.Errorf("%d events of the same kind", n)
	}
	g.drop()
	g.awaitQueue() // of the next task of the same guest
	if n := len(g.job.waiting); n != 2 || !g.Outstanding(nil) {
		t.Errorf("after a reset: %d waits, outstanding %v", n, g.Outstanding(nil))
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestManyHandlesDropped holds that a guest with many handles ends at once, and
// that they are given back all the same.
func TestManyHandlesDropped(t *testing.T) {
	h := newJobs(t, guestOf(64))
	g, stop := h.start(t)
	o, _ := addPending(t, g)
	const n = 4 * manyHandles
	for range n - 1 {
		o.Retain()
		if _, err := g.handles.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	o.Retain() // ours
	g.drop()
	if g.handles.Len() != 0 {
		t.Errorf("%d handles are left", g.handles.Len())
	}
	g.job.executors.Wait() // those that give the rest back
	if refs := o.References(); refs != 1 {
		t.Errorf("%d references are left", refs)
	}
	o.Release()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// BenchmarkLookup asks for a function of a module that has very many.
func BenchmarkLookup(b *testing.B) {
	h := newJobs(b, guestOf(64))
	g, stop := h.start(b)
	m := g.module
	for i := range 1 << 16 {
		name := strconv.Itoa(i)
		m.declByName[name] = uint32(len(m.declared))
		m.declared = append(m.declared, declared{name: name, index: 1})
		if _, e := g.job.lookup("", name); e != abi.Success {
			b.Fatal(e)
		}
	}
	for b.Loop() {
		if _, e := g.job.lookup("", "65535"); e != abi.Success {
			b.Fatal(e)
		}
	}
	if err := stop(); err != nil {
		b.Error(err)
	}
}
