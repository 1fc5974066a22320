package objectstore

import (
	"bytes"
	"errors"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// TestStep holds that a long copy stops between its parts, that one which ends
// there stores nothing and keeps no room, and that nothing of it is seen after.
func TestStep(t *testing.T) {
	s, err := New(Config{Capacity: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const parts = 4
	long := bytes.Repeat([]byte("long"), (parts-1)*StepBytes/4+1000)
	seq := uint64(0)
	id := func() wray.ID { seq++; return wray.ID{Owner: 1, Seq: seq} }
	value := func(p []byte, stopAt int) (v Value, steps *int) {
		steps = new(int)
		return Value{Encoding: abi.EncodingRaw, Payload: p, Step: func() {
			if *steps++; *steps == stopAt {
				panic(errStopped)
			}
		}}, steps
	}
	stopped := func(f func()) (was bool) {
		defer func() { was = recover() == errStopped }()
		f()
		return false
	}
	lend := func() {
		t.Helper()
		r, err := s.TryReserve(Size{Payload: int64(len(long))})
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Lendable(nil)
		if err != nil {
			t.Fatal(err)
		}
		if m := b.Memory(); bytes.Count(m, []byte{0}) != len(m) {
			t.Error("memory that is lent is not zero")
		}
		b.Discard()
	}
	if v, _ := value(long, 2); !stopped(func() { _, _ = s.TryPut(id(), v) }) {
		t.Fatal("not stopped")
	}
	lend()                 // what was copied before the end
	for round := range 3 { // into new memory, and into what was written before
		for stopAt := 1; stopAt < parts; stopAt++ {
			v, steps := value(long, stopAt)
			if !stopped(func() { _, _ = s.TryPut(id(), v) }) || *steps != stopAt || s.Stats().Used != 0 {
				t.Fatalf("round %d: put stopped in step %d of %d, %d bytes are used", round, *steps, stopAt, s.Stats().Used)
			}
			o, err := s.Declare(id())
			if err != nil {
				t.Fatal(err)
			}
			used := s.Stats().Used
			v, _ = value(long, stopAt)
			if !stopped(func() { _ = o.TrySeal(v) }) || o.Ready() || s.Stats().Used != used {
				t.Fatalf("round %d: seal: ready %v, %d bytes are used", round, o.Ready(), s.Stats().Used)
			}
			v, _ = value(long, 0)
			if err := o.TrySeal(v); err != nil { // it can still be given its value
				t.Fatal(err)
			}
			o.Release()
		}
		short := []byte("short")
		for _, p := range [][]byte{long, bytes.Repeat(short, 100_000)} {
			v, _ := value(p, 0)
			o, err := s.TryPut(id(), v)
			if err != nil {
				t.Fatal(err)
			}
			w, err := o.View()
			if err != nil || !bytes.Equal(w.Bytes(), p) {
				t.Fatalf("round %d: another payload, %v", round, err)
			}
			w.Close()
			o.Release()
		}
		r, err := s.TryReserve(Size{Payload: int64(len(long))})
		if err != nil {
			t.Fatal(err)
		}
		if !stopped(func() { _, _ = r.Lendable(func() { panic(errStopped) }) }) || s.Stats().Used != 0 {
			t.Fatalf("lendable: %d bytes are used", s.Stats().Used)
		}
		lend()
	}
}

var errStopped = errors.New("stopped")
