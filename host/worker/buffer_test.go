package worker

import (
	"bytes"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// roomyGuest is tinyGuest with a memory of 20 pages.
func roomyGuest() []byte {
	return bytes.Replace(tinyGuest(), []byte{5, 3, 1, 0, 1}, []byte{5, 3, 1, 0, 20}, 1)
}

const unit = abi.MapAlign

// openBuffer opens a buffer of n bytes and maps all of it at at. Handles are
// written to address 8.
func openBuffer(t *testing.T, g *guest, n, at uint64) (h uint32) {
	t.Helper()
	if e := g.call("buffer_open", n, 8); e != abi.Success {
		t.Fatalf("buffer_open: %d", e)
	}
	h = u32(g.sb.Memory(), 8)
	if e := g.call("object_map", uint64(h), at, n, 0); e != abi.Success {
		t.Fatalf("object_map of a buffer: %d", e)
	}
	return h
}

// fill writes c to n bytes at at, as the guest's code would.
func fill(g *guest, at, n uint64, c byte) {
	for i := range g.sb.Memory()[at : at+n] {
		g.sb.Memory()[at+uint64(i)] = c
	}
}

func all(p []byte, c byte) bool { return len(bytes.TrimLeft(p, string([]byte{c}))) == 0 }

// TestBufferSealed holds the claim that a guest cannot change what it sealed,
// nor see what others left.
func TestBufferSealed(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, roomyGuest())
	g, stop := h.start(t)
	other, stopOther := h.start(t)
	for round := range 3 {
		// What another job leaves behind in a segment of the same class.
		if o, err := h.w.store.TryPut(h.w.newID(), objectstore.Value{Encoding: abi.EncodingRaw,
			Payload: bytes.Repeat([]byte{0xee}, 4*unit)}); err != nil {
			t.Fatal(err)
		} else {
			o.Release()
		}
		const n = 3*unit + 100
		b := openBuffer(t, g, n, 4*unit)
		mem := g.sb.Memory()
		if !all(mem[4*unit:8*unit], 0) {
			t.Fatalf("round %d: a new buffer shows earlier bytes", round)
		}
		fill(g, 4*unit, 4*unit, 1) // past its end, too
		if e := g.call("object_get", uint64(b), 0, 0, 64, 0); e != abi.EBADF {
			t.Errorf("a buffer is read: %d", e)
		}
		if e := g.call("buffer_seal", uint64(b), uint64(abi.EncodingRaw), 0, n, 8); e != abi.Success {
			t.Fatalf("buffer_seal: %d", e)
		}
		o, ok := g.handles.Object(u32(mem, 8))
		if !ok {
			t.Fatal("the sealed buffer has no handle")
		}
		// The guest sees what it wrote, and then goes on writing.
		if !all(mem[4*unit:4*unit+n], 1) || !all(mem[4*unit+n:8*unit], 0) {
			t.Error("the guest does not see the object")
		}
		fill(g, 4*unit, 4*unit, 2)
		if len(o.Bytes()) != n || !all(o.Bytes(), 1) {
			t.Fatal("a guest changed an object that it had sealed")
		}
		// And another guest sees it as it was sealed.
		o.Retain()
		oh, err := other.handles.Add(o)
		if err != nil {
			t.Fatal(err)
		}
		if e := other.call("object_map", uint64(oh), 4*unit, n, 0); e != abi.Success {
			t.Fatalf("object_map: %d", e)
		}
		if !all(other.sb.Memory()[4*unit:4*unit+n], 1) || !all(other.sb.Memory()[4*unit+n:8*unit], 0) {
			t.Error("another guest sees something else")
		}
		for _, g := range []*guest{g, other} {
			if e := g.call("object_unmap", 4*unit, n); e != abi.Success {
				t.Errorf("object_unmap: %d", e)
			}
			if !all(g.sb.Memory()[4*unit:8*unit], 0) {
				t.Error("pages under a window are not fresh")
			}
		}
		g.handles.Reset()
		other.handles.Reset()
	}
	for _, stop := range []func() error{stop, stopOther} {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if n := h.w.windows.Load(); n != 0 {
		t.Errorf("%d windows are counted when none is left", n)
	}
}

// TestBufferParts makes an object through parts of a memory that is smaller,
// and seals less than was opened.
func TestBufferParts(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, roomyGuest())
	g, stop := h.start(t)
	const parts = 40
	if e := g.call("buffer_open", parts*unit, 8); e != abi.Success {
		t.Fatalf("buffer_open: %d", e)
	}
	b := uint64(u32(g.sb.Memory(), 8))
	for i := range uint64(parts) {
		if e := g.call("object_map", b, unit, unit, i*unit); e != abi.Success {
			t.Fatalf("map part %d: %d", i, e)
		}
		fill(g, unit, unit, byte(i+1))
		if i < parts-1 {
			if e := g.call("object_unmap", unit, unit); e != abi.Success {
				t.Fatalf("unmap part %d: %d", i, e)
			}
		}
	}
	if e := g.call("object_map", b, 2*unit, 2*unit, (parts-1)*unit); e != abi.EINVAL {
		t.Errorf("a part past the end: %d", e)
	}
	if e := g.call("object_map", b, unit, unit, 0); e != abi.EEXIST {
		t.Errorf("a part over another: %d", e)
	}
	for _, bad := range [][4]uint64{{uint64(abi.EncodingError), 0, 8}, {uint64(abi.EncodingNumeric), uint64(abi.ElemF64), 9},
		{uint64(abi.EncodingRaw), 1, 8}, {0, 0, 8}, {uint64(abi.EncodingRaw), 0, parts*unit + 1}, {uint64(abi.EncodingRaw), 0, 1 << 63}} {
		if e := g.call("buffer_seal", b, bad[0], bad[1], bad[2], 8); e != abi.EINVAL {
			t.Errorf("sealed as %v: %d", bad, e)
		}
	}
	const n = 38*unit + 17 // the part that is mapped lies past it
	if e := g.call("buffer_seal", b, uint64(abi.EncodingRaw), 0, n, 8); e != abi.Success {
		t.Fatalf("buffer_seal: %d", e)
	}
	if !all(g.sb.Memory()[unit:2*unit], 0) {
		t.Error("the guest sees what is past the object")
	}
	o, _ := g.handles.Object(u32(g.sb.Memory(), 8))
	for i := range n {
		if o.Bytes()[i] != byte(i/unit+1) {
			t.Fatalf("byte %d is %d", i, o.Bytes()[i])
		}
	}
	// It is read in ranges.
	if e := g.call("object_read", uint64(u32(g.sb.Memory(), 8)), 37*unit-10, 4*unit, 20, 16); e != abi.Success || u32(g.sb.Memory(), 16) != 20 {
		t.Errorf("object_read: %d, %d bytes", e, u32(g.sb.Memory(), 16))
	}
	if got := g.sb.Memory()[4*unit:][:20]; !all(got[:10], 37) || !all(got[10:], 38) {
		t.Errorf("read %v", got)
	}
	if e := g.call("object_read", uint64(u32(g.sb.Memory(), 8)), n-3, 4*unit, 20, 16); e != abi.Success || u32(g.sb.Memory(), 16) != 3 {
		t.Errorf("object_read at the end: %d, %d bytes", e, u32(g.sb.Memory(), 16))
	}
	for _, off := range []uint64{n + 1, 1<<64 - 1, 1 << 63} {
		if e := g.call("object_read", uint64(u32(g.sb.Memory(), 8)), off, 4*unit, 20, 16); e != abi.EINVAL {
			t.Errorf("object_read at %d: %d", int64(off), e)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestBufferGivenBack drops handles and mappings of buffers in every order: the
// store gets its memory back with the last, and a reset leaves none.
func TestBufferGivenBack(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, roomyGuest())
	g, stop := h.start(t)
	used := func() int64 { return h.w.store.Stats().Used }
	b := openBuffer(t, g, 4*unit, unit)
	if used() == 0 {
		t.Error("a buffer takes no room")
	}
	if !g.handles.Drop(b) {
		t.Fatal("no handle")
	}
	fill(g, unit, 4*unit, 1)
	if used() == 0 {
		t.Error("the room of a buffer that is mapped was given away")
	}
	if e := g.call("object_unmap", unit, 4*unit); e != abi.Success || used() != 0 {
		t.Errorf("unmapped (%d): %d bytes are used", e, used())
	}
	b = openBuffer(t, g, 4*unit, unit)
	if e := g.call("object_unmap", unit, 4*unit); e != abi.Success || used() == 0 {
		t.Errorf("unmapped (%d): %d bytes are used", e, used())
	}
	if e := g.call("handle_dup", uint64(b), 8); e != abi.Success {
		t.Errorf("handle_dup: %d", e)
	}
	twin := u32(g.sb.Memory(), 8)
	g.handles.Drop(b)
	if used() == 0 {
		t.Error("a buffer went with the first of two handles")
	}
	if e := g.call("buffer_seal", uint64(twin), uint64(abi.EncodingRaw), 0, 8, 8); e != abi.Success {
		t.Errorf("sealed by another handle: %d", e)
	}
	g.handles.Drop(u32(g.sb.Memory(), 8))
	if used() != 0 {
		t.Errorf("%d bytes are used when all is dropped", used())
	}
	openBuffer(t, g, 4*unit, unit)
	fill(g, unit, 4*unit, 1)
	if !g.reset() {
		t.Fatal("the sandbox cannot be reset")
	}
	if used() != 0 || !all(g.sb.Memory()[unit:5*unit], 0) {
		t.Errorf("after a reset %d bytes are used", used())
	}
	openBuffer(t, g, 4*unit, unit) // stop looks at what is left
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestBufferSleeps holds that a buffer which is open while an actor sleeps is
// the same when it wakes.
func TestBufferSleeps(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, roomyGuest())
	g, stop := h.start(t)
	b := openBuffer(t, g, 4*unit, unit)
	fill(g, unit, 2*unit, 7)
	k, err := g.sleep(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer h.w.stash.drop(k)
	s, err := h.w.stash.get(k)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Changed(); n > 64 {
		t.Errorf("the state holds %d bytes: the buffer's are kept twice", n)
	}
	if err := g.rouse(s); err != nil {
		t.Fatal(err)
	}
	if !all(g.sb.Memory()[unit:3*unit], 7) {
		t.Error("what was filled is gone")
	}
	fill(g, 3*unit, 2*unit, 7)
	if e := g.call("buffer_seal", uint64(b), uint64(abi.EncodingRaw), 0, 4*unit, 8); e != abi.Success {
		t.Fatalf("buffer_seal: %d", e)
	}
	if o, _ := g.handles.Object(u32(g.sb.Memory(), 8)); !all(o.Bytes(), 7) {
		t.Error("what was filled after waking is not in the object")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestWindowLimits holds that mappings are bounded, for a sandbox and for all,
// with an error that says so.
func TestWindowLimits(t *testing.T) {
	if !canMap {
		t.Skip("SKIP: nothing can be mapped here")
	}
	h := newJobs(t, roomyGuest())
	g, stop := h.start(t)
	g.job.spec.Limits.Windows = 3
	refusal := func(what string, e abi.Errno) {
		t.Helper()
		if e != abi.E2BIG {
			t.Fatalf("%s: errno %d", what, e)
		}
		if e := g.call("refusal", unit/2, unit/2, 8); e != abi.Success {
			t.Fatalf("refusal: %d", e)
		}
		why := objectstore.DecodeFailure(g.sb.Memory()[unit/2:][:u32(g.sb.Memory(), 8)])
		if why.Code != wray.CodeLimitExceeded || why.Limit == nil || why.Limit.Value != 3 || why.Hint == "" {
			t.Errorf("%s: %v", what, why)
		}
	}
	b := uint64(openBuffer(t, g, 10*unit, unit))
	g.call("object_unmap", unit, 10*unit)
	mapAll := func(n uint64) (e abi.Errno) {
		for i := uint64(1); i <= n && e == abi.Success; i++ {
			e = g.call("object_map", b, i*unit, unit, 0)
		}
		return e
	}
	refusal("the sandbox's", mapAll(4))
	g.job.spec.Limits.Windows = 0
	h.w.maxWindows = 3
	if e := g.call("object_map", b, 4*unit, unit, 0); e != abi.E2BIG {
		t.Errorf("the worker's: %d", e)
	}
	if e := g.call("refusal", unit/2, unit/2, 8); e != abi.Success {
		t.Errorf("refusal: %d", e)
	}
	if e := g.call("object_unmap", unit, unit); e != abi.Success {
		t.Errorf("object_unmap: %d", e)
	}
	if e := g.call("object_map", b, 4*unit, unit, 0); e != abi.Success {
		t.Errorf("in the place of another: %d", e)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

var canMap = func() bool {
	s, err := objectstore.New(objectstore.Config{})
	if err != nil {
		return false
	}
	defer s.Close()
	o, err := s.TryPut(wray.ID{Owner: 1, Seq: 1}, objectstore.Value{Encoding: abi.EncodingRaw, Payload: make([]byte, unit)})
	if err != nil {
		return false
	}
	defer o.Release()
	return o.Info().Mappable
}()
