package storetest

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/objectstore"
)

func testRecycling(t *testing.T, s Suite) {
	st := s.open(t, capacity(64*mib))
	// Lengths of one class use one segment, again and again; the contents of
	// each use are its own, warm segment or cold.
	for i := range 30 {
		n := 4*mib - 1000*i
		p := pattern(uint64(i), n)
		o := put(t, st, p)
		wantBytes(t, "object in a recycled segment", o.Bytes(), p)
		o.Release()
	}
	if f := st.Stats(); f.SegmentsMade != 1 || f.SegmentsPooled != 1 || f.Pooled != 4*mib || f.Used != 0 {
		t.Errorf("after 30 objects of one class: %+v", f)
	}
	// Two at a time need two.
	a, b := put(t, st, make([]byte, 4*mib)), put(t, st, make([]byte, 4*mib))
	a.Release()
	b.Release()
	if f := st.Stats(); f.SegmentsMade != 2 || f.SegmentsPooled != 2 {
		t.Errorf("after two objects at a time: %+v", f)
	}
}

// testStaleBytes: windows come in units of Align, and what is past the payload
// is not what an earlier object left there.
func testStaleBytes(t *testing.T, s Suite) {
	if s.Map == nil {
		return // nothing shows what is past a payload
	}
	st := s.open(t, nil)
	for _, n := range []int{objectstore.Align + 1, 2*objectstore.Align - 1, 2*objectstore.Align - 5000} {
		full := put(t, st, bytes.Repeat([]byte{0xee}, 2*objectstore.Align))
		full.Release()
		p := pattern(1, n)
		fill := func() *objectstore.Object { return put(t, st, p) }
		inPlace := func() *objectstore.Object {
			r, err := st.TryReserve(objectstore.Size{Payload: int64(n)})
			if err != nil {
				t.Fatal(err)
			}
			b := r.Buffer()
			copy(b.Bytes(), p)
			o, err := b.Put(newID(), 1, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		for how, make := range map[string]func() *objectstore.Object{"copied": fill, "filled in place": inPlace} {
			o := make()
			w, err := o.Pin()
			if err != nil {
				t.Fatal(err)
			}
			if w.Len() != int64(n) || w.MapLen() != 2*objectstore.Align {
				t.Errorf("window of %d bytes is of %d and %d to map", n, w.Len(), w.MapLen())
			}
			got, unmap := s.Map(t, w)
			wantBytes(t, how, got[:n], p)
			for i, c := range got[n:] {
				if c != 0 {
					t.Fatalf("%s: byte %d past a payload of %d is %#x", how, i, n, c)
				}
			}
			unmap()
			w.Unpin()
			o.Release()
			full := put(t, st, bytes.Repeat([]byte{0xee}, 2*objectstore.Align))
			full.Release()
		}
	}
	if f := st.Stats(); f.SegmentsMade != 1 {
		t.Errorf("the test used %d segments: it is about one", f.SegmentsMade)
	}
}

func testWindows(t *testing.T, s Suite) {
	st := s.open(t, nil)
	small := put(t, st, make([]byte, 1000))
	if _, err := small.Pin(); !errors.Is(err, objectstore.ErrNotMappable) {
		t.Errorf("pin of a small object: %v", err)
	}
	small.Release()
	p := pattern(5, 3*mib+17)
	o := put(t, st, p)
	defer o.Release()
	if s.Map == nil {
		if _, err := o.Pin(); !errors.Is(err, objectstore.ErrNotMappable) {
			t.Errorf("pin: %v", err)
		}
		return
	}
	w, err := o.Pin()
	if err != nil {
		t.Fatal(err)
	}
	if n := st.Stats().Windows; n != 1 {
		t.Errorf("%d windows: expected 1", n)
	}
	// Two guests: what one writes is its own.
	a, unmapA := s.Map(t, w)
	b, unmapB := s.Map(t, w)
	for i := range a {
		a[i] = 0xaa
	}
	wantBytes(t, "the other window", b[:len(p)], p)
	wantBytes(t, "the object", o.Bytes(), p)
	unmapA()
	unmapB()

	f, err := w.File()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(len(p))), got); err != nil {
		t.Error(err)
	}
	wantBytes(t, "the file", got, p)
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a descriptor that was passed on can be written to")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("a descriptor that was passed on can be truncated")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	w.Unpin()
	wantPanic(t, "second Unpin", w.Unpin)
	wantPanic(t, "FD after Unpin", func() { w.FD() })
}

// testWindowsDelayReuse: a private page that was not written yet is the
// segment's own, so reuse must wait for the window.
func testWindowsDelayReuse(t *testing.T, s Suite) {
	if s.Map == nil {
		return
	}
	st := s.open(t, capacity(3*mib))
	p := pattern(1, mib)
	a := put(t, st, p)
	w, err := a.Pin()
	if err != nil {
		t.Fatal(err)
	}
	got, unmap := s.Map(t, w) // no page touched yet
	a.Release()
	if f := st.Stats(); f.Objects != 0 || f.Used != mib || f.SegmentsPooled != 0 {
		t.Errorf("a window alone: %+v", f)
	}
	for i := range 10 {
		b := put(t, st, pattern(uint64(100+i), mib))
		b.Release()
	}
	wantBytes(t, "window after its object went", got[:mib], p)
	if f := st.Stats(); f.SegmentsMade != 2 {
		t.Errorf("%d segments made: expected the window's and another", f.SegmentsMade)
	}
	unmap()
	w.Unpin()
	if f := st.Stats(); f.Used != 0 || f.SegmentsPooled != 2 || f.Windows != 0 {
		t.Errorf("after the window: %+v", f)
	}
	x, y := put(t, st, p), put(t, st, p)
	if f := st.Stats(); f.SegmentsMade != 2 {
		t.Errorf("the window's segment is not used again: %+v", f)
	}
	y.Release()
	x.Release()
}

// testWindowsGiveRoom: who waits for room is served when a window gives it up,
// and no sooner.
func testWindowsGiveRoom(t *testing.T, s Suite) {
	if s.Map == nil {
		return
	}
	st := s.open(t, capacity(mib))
	o := put(t, st, make([]byte, mib))
	w, err := o.Pin()
	if err != nil {
		t.Fatal(err)
	}
	o.Release()
	var r *objectstore.Reservation
	st.OnSpace(objectstore.Size{Payload: mib}, func(got *objectstore.Reservation, _ error) { r = got })
	if r != nil {
		t.Fatal("a window's memory was given to another")
	}
	w.Unpin()
	if r == nil {
		t.Fatal("nobody was served after Unpin")
	}
	r.Cancel()
}

func testMaxSegments(t *testing.T, s Suite) {
	st := s.open(t, func(c *objectstore.Config) { c.MaxSegments = 2 })
	var held []*objectstore.Object
	for i := range 4 {
		held = append(held, put(t, st, pattern(uint64(i), 200_000)))
	}
	for i, o := range held {
		wantBytes(t, "object", o.Bytes(), pattern(uint64(i), 200_000))
		if o.Info().Mappable != (s.Map != nil && i < 2) {
			t.Errorf("object %d of 4 with 2 segments: mappable is %v", i, o.Info().Mappable)
		}
	}
	if f := st.Stats(); f.Segments != 2 || f.InHeap != 2 {
		t.Errorf("%+v", f)
	}
	for _, o := range held {
		o.Release()
	}
	if s.Map != nil {
		return // the warmer may hold what the next put would have to evict
	}
	o := put(t, st, make([]byte, 3*mib)) // evicts one of the pooled
	if f := st.Stats(); f.Segments != 2 || f.InHeap != 2 || f.SegmentsMade != 3 {
		t.Errorf("after eviction: %+v", f)
	}
	o.Release()
}

func testTrim(t *testing.T, s Suite) {
	synctest.Test(t, func(t *testing.T) {
		st := s.open(t, nil)
		for _, n := range []int{100_000, mib, 9 * mib} {
			a, b := put(t, st, make([]byte, n)), put(t, st, make([]byte, n))
			a.Release()
			b.Release()
		}
		keep := put(t, st, pattern(1, mib))
		synctest.Wait() // for the warmer
		st.Trim()
		if f := st.Stats(); f.SegmentsPooled != 0 || f.Pooled != 0 || f.Segments != 1 || f.Used != mib {
			t.Errorf("after Trim: %+v", f)
		}
		wantBytes(t, "what is in use", keep.Bytes(), pattern(1, mib))
		keep.Release()
	})
}

func testTrimIdle(t *testing.T, s Suite) {
	synctest.Test(t, func(t *testing.T) {
		st := s.open(t, func(c *objectstore.Config) { c.IdleTrim = time.Minute })
		pooled := func() int {
			synctest.Wait()
			return st.Stats().SegmentsPooled
		}
		a, b := put(t, st, make([]byte, mib)), put(t, st, make([]byte, 2*mib))
		a.Release()
		<-time.After(40 * time.Second)
		b.Release()
		if n := pooled(); n != 2 {
			t.Errorf("%d pooled after 40 s: expected 2", n)
		}
		<-time.After(30 * time.Second)
		if n := pooled(); n != 1 {
			t.Errorf("%d pooled after 70 s: expected 1", n)
		}
		<-time.After(40 * time.Second)
		if n := pooled(); n != 0 {
			t.Errorf("%d pooled after 110 s: expected none", n)
		}

		// What is used again is idle from then on.
		a = put(t, st, make([]byte, mib))
		a.Release()
		<-time.After(50 * time.Second)
		a = put(t, st, make([]byte, mib))
		a.Release()
		<-time.After(50 * time.Second)
		if n := pooled(); n != 1 {
			t.Errorf("%d pooled 50 s after the last use: expected 1", n)
		}
		<-time.After(30 * time.Second)
		if n := pooled(); n != 0 {
			t.Errorf("%d pooled 80 s after the last use: expected none", n)
		}
		if f := st.Stats(); f.Segments != 0 || f.SegmentsMade != 3 {
			t.Errorf("at the end: %+v", f)
		}
	})
}
