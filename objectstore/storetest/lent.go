package storetest

import (
	"bytes"
	"errors"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// testLendable: what is lent shows nothing of earlier objects, and what its
// filler wrote past the payload nobody sees.
func testLendable(t *testing.T, s Suite) {
	st := s.open(t, capacity(64*mib))
	lend := func(n int64) (*objectstore.Buffer, error) {
		r, err := st.TryReserve(objectstore.Size{Payload: n})
		if err != nil {
			t.Fatal(err)
		}
		return r.Lendable(nil)
	}
	if _, err := lend(1000); !errors.Is(err, objectstore.ErrNotMappable) {
		t.Errorf("a small buffer: %v", err)
	}
	const n = 3*objectstore.Align + 100
	if s.Map == nil {
		if _, err := lend(n); !errors.Is(err, objectstore.ErrNotMappable) {
			t.Errorf("a buffer: %v", err)
		}
		return
	}
	for _, sealed := range []int64{n, n - objectstore.Align, 100, 0} {
		put(t, st, bytes.Repeat([]byte{0xee}, 4*objectstore.Align)).Release()
		b, err := lend(n)
		if err != nil {
			t.Fatal(err)
		}
		mem := b.Memory()
		if len(mem) != 4*objectstore.Align || b.Len() != n {
			t.Fatalf("a buffer of %d bytes lends %d of %d", n, len(mem), b.Len())
		}
		if i := bytes.IndexFunc(mem, func(r rune) bool { return r != 0 }); i >= 0 {
			t.Fatalf("byte %d of what is lent is %#x", i, mem[i])
		}
		p := pattern(uint64(sealed), len(mem)) // past its end, too
		copy(mem, p)
		b.Truncate(sealed)
		o, err := b.Put(newID(), abi.EncodingRaw, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "sealed", o.Bytes(), p[:sealed])
		w, err := o.Pin()
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Bytes(0, n); sealed > 0 {
			wantBytes(t, "window", got[:sealed], p[:sealed])
			if i := bytes.IndexFunc(got[sealed:], func(r rune) bool { return r != 0 }); i >= 0 {
				t.Errorf("byte %d past a payload of %d is %#x", i, sealed, got[sealed:][i])
			}
		} else if len(got) != 0 {
			t.Errorf("the window of an empty object shows %d bytes", len(got))
		}
		w.Unpin()
		o.Release()
		// All that the filler wrote is known to be stale.
		next, err := lend(4 * objectstore.Align)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(next.Memory(), func(r rune) bool { return r != 0 }); i >= 0 {
			t.Errorf("sealed with %d: byte %d of the next buffer is %#x", sealed, i, next.Memory()[i])
		}
		next.Discard()
	}
	if f := st.Stats(); f.SegmentsMade != 1 || f.Used != 0 {
		t.Errorf("after buffers of one class: %+v", f)
	}
	// Also where nothing came of it, in memory that nobody else has written to.
	st = s.open(t, capacity(64*mib))
	for range 2 {
		b, err := lend(n)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(b.Memory(), func(r rune) bool { return r != 0 }); i >= 0 {
			t.Errorf("byte %d of what is lent is %#x: it is of a buffer that was discarded", i, b.Memory()[i])
		}
		copy(b.Memory(), pattern(1, len(b.Memory())))
		b.Discard()
	}
}

// testSealAs: an object with the value of another shares its bytes, which go
// with the later of the two.
func testSealAs(t *testing.T, s Suite) {
	// Room for what is put at the end beside a segment of 3 MiB that is being
	// warmed in the pool, and not for two of those.
	st := s.open(t, capacity(5*mib+mib/8))
	for _, n := range []int{10, 3 * mib} {
		inner := put(t, st, []byte("inner"))
		p := pattern(9, n)
		a := put(t, st, p, inner)
		inner.Release()
		b := declare(t, st)
		if err := b.SealAs(a); err != nil {
			t.Fatal(err)
		}
		if err := b.SealAs(a); !errors.Is(err, objectstore.ErrSealed) {
			t.Errorf("sealed twice: %v", err)
		}
		if i := b.Info(); i.Encoding != abi.EncodingRaw || i.Len != int64(n) || i.Refs != 1 {
			t.Errorf("info of the second: %+v", i)
		}
		a.Release()
		wantBytes(t, "the second", b.Bytes(), p)
		wantBytes(t, "what it refers to", b.Refs()[0].Bytes(), []byte("inner"))
		if n > mib {
			if _, err := st.TryPut(newID(), raw(make([]byte, n))); !errors.Is(err, objectstore.ErrFull) {
				t.Errorf("the memory of the second was given away: %v", err)
			}
		}
		b.Release()
		if f := st.Stats(); f.Used != 0 || f.Objects != 0 {
			t.Errorf("after both are gone: %+v", f)
		}
	}
	self := put(t, st, make([]byte, mib))
	p := declare(t, st)
	q := put(t, st, make([]byte, mib), p)
	if err := p.SealAs(q); err == nil {
		t.Error("an object got a value that refers to itself")
	}
	p.Release()
	q.Release()
	self.Release()
}

// testFree: a value that was freed is an error to who reads it, its memory is
// there for others, and who has it mapped sees what it saw.
func testFree(t *testing.T, s Suite) {
	st := s.open(t, capacity(4*mib))
	for _, n := range []int{10, 3 * mib} {
		p := pattern(3, n)
		o := put(t, st, p)
		v, err := o.View()
		if err != nil {
			t.Fatal(err)
		}
		var w *objectstore.Window
		if n > mib && s.Map != nil {
			if w, err = o.Pin(); err != nil {
				t.Fatal(err)
			}
		}
		o.Free()
		o.Free()
		wantBytes(t, "a view of what was freed", v.Bytes(), p)
		if w != nil {
			got, unmap := s.Map(t, w)
			wantBytes(t, "a window of what was freed", got[:n], p)
			unmap()
			w.Unpin()
		}
		v.Close()
		if i := o.Info(); i.Encoding != abi.EncodingError || i.Mappable || i.Refs != 0 {
			t.Errorf("info of what was freed: %+v", i)
		}
		if err := o.Err(); !errors.Is(err, wray.ErrObjectLost) || err.Hint == "" {
			t.Errorf("what was freed fails with %v", err)
		}
		if v, err = o.View(); err != nil || !errors.Is(objectstore.DecodeFailure(v.Bytes()), wray.ErrObjectLost) {
			t.Errorf("a later view: %v", err)
		}
		v.Close()
		if _, err := o.Pin(); err == nil {
			t.Error("what was freed was mapped")
		}
		if n > mib {
			if f := st.Stats(); f.Used >= mib {
				t.Errorf("%d bytes are used when all is freed", f.Used)
			}
			put(t, st, p).Release()
		}
		o.Release()
	}
	// Bytes that were given out stay, as long as the object is there.
	given := put(t, st, pattern(4, mib))
	b := given.Bytes()
	given.Free()
	other := putWaiting(t, st, pattern(5, mib)) // what is pooled may be in the warmer's hands
	wantBytes(t, "bytes of what was freed", b, pattern(4, mib))
	other.Release()
	given.Release()
	o := declare(t, st)
	if err := o.Fail(wray.Errorf(wray.CodeUserError, "why")); err != nil {
		t.Fatal(err)
	}
	o.Free()
	if err := o.Err(); !errors.Is(err, wray.ErrUserError) {
		t.Errorf("a failure that was freed became %v", err)
	}
	o.Release()
	if f := st.Stats(); f.Used != 0 || f.Objects != 0 {
		t.Errorf("after all is gone: %+v", f)
	}
}
