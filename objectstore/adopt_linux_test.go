package objectstore

import (
	"bytes"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// memfd returns a memfd of size bytes that begins with p, sealed with seals.
func memfd(t *testing.T, p []byte, size int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAdopt seals an object with memory that another process wrote, and refuses
// memory that could still change, shrink, or grow when read.
func TestAdopt(t *testing.T) {
	const all = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	s, err := New(Config{Capacity: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	payload := bytes.Repeat([]byte("wray"), (InlineMax+100)/4)
	n := int64(len(payload))
	whole := append(bytes.Clone(payload), make([]byte, roundUp(n, Align)-n)...)
	dirty := bytes.Clone(whole)
	dirty[n] = 1
	seq := uint64(0)
	adopt := func(f *os.File) (*Object, error) {
		seq++
		o, err := s.Declare(wray.ID{Owner: 1, Seq: seq})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.TryReserve(Size{Payload: n})
		if err != nil {
			t.Fatal(err)
		}
		return o, r.Adopt(o, Value{Encoding: abi.EncodingRaw}, f)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, f := range map[string]*os.File{
		"writable":   memfd(t, whole, int64(len(whole)), unix.F_SEAL_SHRINK|unix.F_SEAL_GROW),
		"shrinkable": memfd(t, whole, int64(len(whole)), unix.F_SEAL_WRITE|unix.F_SEAL_GROW),
		"growable":   memfd(t, whole, int64(len(whole)), unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK),
		"short":      memfd(t, payload, n, all),
		"long":       memfd(t, append(bytes.Clone(whole), 0), int64(len(whole))+1, all),
		"holes":      memfd(t, payload[:1], int64(len(whole)), all),
		"tail":       memfd(t, dirty, int64(len(whole)), all),
		"no memfd":   null,
	} {
		o, err := adopt(f)
		if !errors.Is(err, ErrNotSealed) || o.Ready() {
			t.Errorf("%s: %v, ready %v", name, err, o.Ready())
		}
		o.Release()
	}
	if st := s.Stats(); st.Used != 0 || st.Segments != 0 {
		t.Fatalf("refusals left %+v", st)
	}
	o, err := adopt(memfd(t, whole, int64(len(whole)), all))
	if err != nil || !bytes.Equal(o.Bytes(), payload) || !o.Info().Mappable {
		t.Fatalf("%v, %d bytes, %+v", err, len(o.Bytes()), o.Info())
	}
	w, err := o.Pin()
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Used < int64(len(whole)) || st.Segments != 1 {
		t.Errorf("an adopted payload takes %+v", st)
	}
	if c := s.Census(); len(c) != 1 || c[0].Windows != 1 || c[0].Refs != 1 || c[0].Len != n {
		t.Errorf("census %+v", c)
	}
	o.Release()
	w.Unpin()
	if st := s.Stats(); st.Used != 0 || st.Segments != 0 || st.Pooled != 0 {
		t.Errorf("left behind %+v", st)
	}
	// Where a pooled segment was reserved, it makes way.
	p, err := s.TryPut(wray.ID{Owner: 2, Seq: 1}, Value{Encoding: abi.EncodingRaw, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	if o, err = adopt(memfd(t, whole, int64(len(whole)), all)); err != nil {
		t.Fatal(err)
	}
	o.Release()
	s.bg.wg.Wait() // the segment that made way may have been in the hands of warm
	s.Trim()
	if st := s.Stats(); st.Used != 0 || st.Segments != 0 || st.Pooled != 0 {
		t.Errorf("left behind %+v", st)
	}
}

// TestHandlesSet lets the owner choose numbers, which may be any.
func TestHandlesSet(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o, err := s.Declare(wray.ID{Owner: 1, Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	var c Clock
	c.Set(7)
	h := NewHandles(100)
	h.Clock = &c
	for _, n := range []uint32{5, 100, 1} {
		o.Retain()
		if err := h.Set(n, o); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint32{0, 5} {
		if err := h.Set(n, o); !errors.Is(err, ErrHandleUsed) {
			t.Errorf("%d: %v", n, err)
		}
	}
	for _, n := range []uint32{101, 1<<32 - 1} {
		if err := h.Set(n, o); !errors.Is(err, wray.ErrLimitExceeded) {
			t.Errorf("%d: %v", n, err)
		}
	}
	var seen []uint32
	h.Walk(func(n uint32, r Ref, since uint32) {
		if r != Ref(o) || since != 7 {
			t.Errorf("handle %d is of %v since %d", n, r, since)
		}
		seen = append(seen, n)
	})
	if len(seen) != 3 || h.Len() != 3 || !h.Drop(5) || h.Drop(5) {
		t.Errorf("walked %v of %d", seen, h.Len())
	}
	h.Reset()
	if n := o.refs.Load(); n != 1 {
		t.Errorf("%d references are left", n)
	}
	o.Release()
}

// heldWarming stops the next populating until it is told to go on, and counts
// segments that are freed meanwhile.
type heldWarming struct {
	memfdMemory
	at, goOn chan struct{}
	held     *atomic.Bool
	freed    *atomic.Int32
}

func (m heldWarming) populate(mem []byte) {
	if m.held.CompareAndSwap(false, true) {
		m.at <- struct{}{}
		<-m.goOn
		m.held.Store(false)
	}
	m.memfdMemory.populate(mem)
}

func (m heldWarming) free(mem []byte, fd int) {
	if m.held.Load() {
		m.freed.Add(1)
	}
	m.memfdMemory.free(mem, fd)
}

// TestAdoptWhileWarming: the segment that was reserved for what came as a file
// may be one that is just being warmed, and is freed after that.
func TestAdoptWhileWarming(t *testing.T) {
	s, err := New(Config{Capacity: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := heldWarming{at: make(chan struct{}), goOn: make(chan struct{}), held: new(atomic.Bool), freed: new(atomic.Int32)}
	s.mem = m
	const n = InlineMax + 100
	p, err := s.TryPut(wray.ID{Owner: 2, Seq: 1}, Value{Encoding: abi.EncodingRaw, Payload: make([]byte, n)})
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	<-m.at // the segment is in the pool, and being warmed
	o, err := s.Declare(wray.ID{Owner: 2, Seq: 2})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.TryReserve(Size{Payload: n})
	if err != nil {
		t.Fatal(err)
	}
	if r.room.segment == nil {
		t.Fatal("the segment that is being warmed was not reserved")
	}
	whole := make([]byte, roundUp(n, Align))
	if err := r.Adopt(o, Value{Encoding: abi.EncodingRaw}, memfd(t, whole, int64(len(whole)), unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)); err != nil {
		t.Fatal(err)
	}
	if m.freed.Load() != 0 {
		t.Error("memory was freed while it was being warmed")
	}
	m.goOn <- struct{}{}
	o.Release()
	s.bg.wg.Wait()
	if st := s.Stats(); st.Used != 0 || st.Segments != 0 || st.Pooled != 0 {
		t.Errorf("left behind %+v", st)
	}
}

// TestAdoptHoldsMaxSegments adopts more payloads than a store may have segments.
func TestAdoptHoldsMaxSegments(t *testing.T) {
	const most = 3
	s, err := New(Config{Capacity: 64 << 20, MaxSegments: most})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	payload := make([]byte, roundUp(InlineMax+1, Align))
	n := int64(len(payload))
	var kept []*Object
	for i := range uint64(most + 2) {
		o, err := s.Declare(wray.ID{Owner: 1, Seq: i + 1})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.TryReserve(Size{Payload: n})
		if err != nil {
			t.Fatal(err)
		}
		f := memfd(t, payload, n, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
		err = r.Adopt(o, Value{Encoding: abi.EncodingRaw}, f)
		var e *wray.Error
		switch {
		case i < most && err != nil:
			t.Fatalf("payload %d: %v", i, err)
		case i >= most && (!errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit == nil || e.Limit.Value != most):
			t.Errorf("payload %d: %v", i, err)
		}
		if st := s.Stats(); st.Segments > most {
			t.Errorf("%d segments", st.Segments)
		}
		kept = append(kept, o)
	}
	for _, o := range kept {
		o.Release()
	}
	if st := s.Stats(); st.Used != 0 || st.Segments != 0 {
		t.Errorf("left behind %+v", st)
	}
}
