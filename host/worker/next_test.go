package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/tests/hostile"
	"github.com/wray-project/wray/wasm/abi"
)

// started submits a task of the function n with one result, and returns the
// result.
func (g *guest) submitted(t *testing.T, n, flags uint32) *objectstore.Object {
	t.Helper()
	mem := view(g.sb.Memory())
	s := mem[atSpec:][:abi.SpecSize]
	clear(s)
	putU32(s, abi.SpecFn, n)
	putU32(s, abi.SpecFlags, flags)
	putU32(s, abi.SpecResultsPtr, atResults)
	putU32(s, abi.SpecNresults, 1)
	if e := g.call("submit", atSpec, 1, atOut); e != abi.Success {
		t.Fatalf("submit: %d", e)
	}
	o, ok := g.handles.Object(u32(mem, atResults))
	if !ok {
		t.Fatal("the task has no result")
	}
	return o
}

// ready returns when o is there.
func ready(o *objectstore.Object) {
	c := make(chan struct{})
	o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { close(c) }))
	<-c
}

// TestTaskNext goes on from one task to the next within a call.
func TestTaskNext(t *testing.T) {
	h := newJobs(t, tinyGuest())
	g, stop := h.start(t)
	copy(view(g.sb.Memory()), "f")
	if e := g.call("function", 0, 0, 0, 1, 4); e != abi.Success {
		t.Fatalf("function: %d", e)
	}
	const atInput, room, atLen = 2048, 4096, 1024
	var results [4]*objectstore.Object
	for i := range results {
		flags := uint32(0)
		if i == 2 {
			flags = abi.SpecFresh
		}
		results[i] = g.submitted(t, 1, flags)
	}
	first := g.held // the only one that has a processor
	g.held = nil
	if first == nil || first.results[0] != results[0] {
		t.Fatalf("started first: %+v", first)
	}
	e, err := h.now.newGuest(0)
	if err != nil {
		t.Fatal(err)
	}
	mem := view(e.sb.Memory())
	next := func(want abi.Errno) {
		t.Helper()
		const noise = 0xc0 << 32 // what the engine may leave above a parameter of 32 bits
		if got := e.call("task_next", noise, noise|atInput, noise|room, noise|atLen); got != want {
			t.Fatalf("task_next: %d, want %d", got, want)
		}
	}
	give := func() {
		t.Helper()
		copy(mem[atSpec:], value(uint32(abi.EncodingCBOR), 0, atInput, 1, 0, 0))
		if got := e.call("task_return", 0, atSpec); got != abi.Success {
			t.Fatalf("task_return: %d", got)
		}
	}
	next(abi.ENOENT) // it runs none
	e.begin(first)
	next(abi.ENOENT) // as an actor would
	e.many = true
	first.runner = e // no other goroutine knows of it yet
	next(abi.ENOENT) // it has not given its result
	if e.task != first || e.over != nil {
		t.Fatal("the task has ended without its result")
	}
	give()
	e.stderr.buf = append(e.stderr.buf, "not a line"...)
	next(abi.ENOENT) // its output is to be passed on under its name
	e.stderr.buf = nil
	if got := e.call("task_next", 0, atInput, 1<<20, atLen); got != abi.EFAULT || e.task != first {
		t.Fatalf("task_next beyond the memory: %d", got)
	}
	e.sb.Kill(wray.Errorf(wray.CodeCanceled, "meant for the first"))
	next(abi.Success)
	second := e.task
	if second == nil || second.results[0] != results[1] || second.runner != e || first.runner != nil || e.holder != second {
		t.Fatalf("the guest runs %+v", second)
	}
	if got := u64(mem[atInput:], abi.CallTaskSeq); got != second.id.Seq {
		t.Errorf("the guest was told of task %d, and runs %d", got, second.id.Seq)
	}
	if s := h.w.Stats(); s.Tasks.Running != 1 || !results[0].Ready() {
		t.Errorf("while the second runs: %+v", s.Tasks)
	}
	give()
	next(abi.ENOENT) // the third wants a clean sandbox
	third := e.next
	if third == nil || third.results[0] != results[2] || e.over != second || e.task != nil || e.holder != nil || e.name() != second.label() {
		t.Fatalf("the guest is to run %+v, and runs %+v", third, e.task)
	}
	if got := e.call("task_return", 0, atSpec); got != abi.EPERM {
		t.Errorf("task_return after the end: %d", got)
	}
	next(abi.ENOENT) // as often as it asks
	if s := h.w.Stats(); s.Tasks.Running != 1 {
		t.Errorf("while the third is to run: %+v", s.Tasks)
	}
	e.over, e.next, e.many = nil, nil, false
	e.close()
	third.dispatch() // to an executor, which runs the fourth as well
	ready(results[2])
	ready(results[3])
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestGuestStays holds that a guest that does not return when its task has ended
// is stopped, and that the task which is to follow runs.
func TestGuestStays(t *testing.T) {
	h := newJobs(t, hostile.Stays())
	g, stop := h.start(t)
	mem := view(g.sb.Memory())
	copy(mem, "stays")
	if e := g.call("function", 0, 0, 0, 5, atOut); e != abi.Success {
		t.Fatalf("function: %d", e)
	}
	n := u32(mem, atOut)
	stays, after := g.submitted(t, n, 0), g.submitted(t, n, abi.SpecFresh)
	g.release()
	ready(stays)
	ready(after)
	for _, o := range []*objectstore.Object{stays, after} {
		if o.State() != objectstore.Sealed {
			t.Errorf("the task failed: %v", o.Err())
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestGuestLeaves holds that what ends a guest between two tasks is the failure of
// neither: the one before has ended well, the next begins in another sandbox, in the
// same attempt and with all its time, and the job's user is told. What ends it from
// then on, where the guest says that it begins, is the next one's failure.
func TestGuestLeaves(t *testing.T) {
	for _, c := range []struct {
		how     string
		timeout time.Duration // of the next task
		told    string
	}{
		{hostile.LeavesBefore, 0, "task leaves has ended well, and then its sandbox did not: Trap"},
		{hostile.LeavesLoop, 0, "did not go on to its next task within 1s"},
		{hostile.LeavesLoop, 20 * time.Millisecond, "task leaves has ended well, and then its sandbox did not: Timeout"},
		{hostile.LeavesAfter, 0, ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			h := newJobs(t, hostile.Leaves(c.how))
			g, stop := h.start(t)
			told := make(chan string, 10)
			out := newOutput(func(_ string, s Stream, p []byte) {
				if s == Notice {
					told <- string(p)
				}
			})
			g.job.out = out
			mem := view(g.sb.Memory())
			copy(mem, "leaves")
			if e := g.call("function", 0, 0, 0, 6, atOut); e != abi.Success {
				t.Fatalf("function: %d", e)
			}
			n := u32(mem, atOut)
			first := g.submitted(t, n, 0)
			next := g.submitted(t, n, 0)
			h.w.mu.Lock()
			youngest := h.w.tasks.youngest
			youngest.timeout = c.timeout
			h.w.mu.Unlock()
			g.release()
			ready(first)
			ready(next)
			if first.State() != objectstore.Sealed {
				t.Errorf("the task before failed: %v", first.Err())
			}
			if err := next.Err(); (err == nil) != (c.told != "") {
				t.Errorf("the next task: %v", err)
			}
			if youngest.attempt != 1 {
				t.Errorf("the next task took %d attempts", youngest.attempt)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			out.close()
			close(told)
			if got := <-told; c.told == "" && got != "" || !strings.Contains(got, c.told) {
				t.Errorf("the job's user was told %q, want %q", got, c.told)
			}
		})
	}
}

// TestObjectTake reads several small values, up to the first that is none.
func TestObjectTake(t *testing.T) {
	h := newJobs(t, guestOf(128))
	g, stop := h.start(t)
	mem := view(g.sb.Memory())
	const atHandles, atBuf, most = 2 << 20, 3 << 20, 16
	copy(mem[atPayload:], "abcdefghijklmnopqrstuvwxyz")
	_, pending := addPending(t, g)
	small := func() uint32 { return uint32(g.put(t, 3)) }
	for _, c := range []struct {
		name  string
		last  func() uint32
		room  uint64
		taken uint32
	}{
		{"pending", func() uint32 { return pending }, 4096, 2},
		{"long", func() uint32 { return uint32(g.put(t, most+1)) }, 4096, 2},
		{"references", func() uint32 { return uint32(g.put(t, 3, pending)) }, 4096, 2},
		{"no handle", func() uint32 { return 1 << 30 }, 4096, 2},
		{"no room", small, 2*40 + 39, 2},
		{"all", small, 3 * 40, 3},
	} {
		list := []uint32{small(), small(), c.last()}
		for i, n := range list {
			putU32(mem, atHandles+4*i, n)
		}
		for i := range 3 * 40 {
			mem[atBuf+i] = 0xff
		}
		if e := g.call("object_take", atHandles, 3, most, atBuf, c.room, atOut); e != abi.Success || u32(mem, atOut) != c.taken {
			t.Errorf("%s: errno %d, %d taken, want %d", c.name, e, u32(mem, atOut), c.taken)
		}
		for i := range int(c.taken) {
			b := mem[atBuf+40*i:][:40]
			if u32(b, abi.InfoEncoding) != uint32(abi.EncodingRaw) || u64(b, abi.InfoLen) != 3 || string(b[abi.InfoSize:]) != "abc\x00\x00\x00\x00\x00" {
				t.Errorf("%s: value %d is %x", c.name, i, b)
			}
		}
		for i, n := range list[:2] {
			if _, there := g.handles.Object(n); there {
				t.Errorf("%s: handle %d is still there", c.name, i)
			}
		}
		if _, there := g.handles.Object(list[2]); there != (c.taken == 2 && c.name != "no handle") {
			t.Errorf("%s: the last handle: %v", c.name, there)
		}
	}
	for _, c := range [][]uint64{{1 << 31, 3, most, atBuf, 64, atOut}, {atHandles, 3, most, atBuf, 1 << 31, atOut}, {atHandles, 3, most, atBuf, 64, 1 << 31}} {
		if e := g.call("object_take", c...); e != abi.EFAULT {
			t.Errorf("object_take(%x): %d", c, e)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
