package objectstore

import (
	"sync/atomic"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

func benchStore(b *testing.B, capacity int64) *Store {
	b.Helper()
	s, err := New(Config{Capacity: capacity, IdleTrim: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func raw(p []byte) Value { return Value{Encoding: abi.EncodingRaw, Payload: p} }

// BenchmarkPutSmall is put, handle, drop of a payload of 8 and of 100 bytes.
func BenchmarkPutSmall(b *testing.B) {
	for name, n := range map[string]int{"8B": 8, "100B": 100} {
		b.Run(name, func(b *testing.B) {
			s := benchStore(b, 0)
			t := NewHandles(0)
			p := make([]byte, n)
			b.ReportAllocs()
			seq := uint64(0)
			for b.Loop() {
				seq++
				o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, raw(p))
				if err != nil {
					b.Fatal(err)
				}
				h, err := t.Add(o)
				if err != nil {
					b.Fatal(err)
				}
				t.Drop(h)
			}
		})
	}
}

// BenchmarkPutSmallKeep puts without dropping, in rounds of 10,000 that are
// dropped together: the cost of put and handle, and of the drop beside it.
func BenchmarkPutSmallKeep(b *testing.B) {
	s := benchStore(b, 0)
	t := NewHandles(0)
	p := make([]byte, 8)
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		seq++
		o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, raw(p))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := t.Add(o); err != nil {
			b.Fatal(err)
		}
		if seq%10000 == 0 {
			b.StopTimer()
			t.Reset()
			b.StartTimer()
		}
	}
}

// BenchmarkGetSmall is what a get of a small object costs the host: handle to
// object, state, copy.
func BenchmarkGetSmall(b *testing.B) {
	s := benchStore(b, 0)
	t := NewHandles(0)
	o, err := s.TryPut(wray.ID{Owner: 1, Seq: 1}, raw(make([]byte, 100)))
	if err != nil {
		b.Fatal(err)
	}
	h, _ := t.Add(o)
	dst := make([]byte, 100)
	for b.Loop() {
		o, ok := t.Object(h)
		if !ok || !o.Ready() {
			b.Fatal("no object")
		}
		info := o.Info()
		if info.Len != int64(copy(dst, o.Bytes())) {
			b.Fatal("short")
		}
	}
}

// BenchmarkDrop is the drop of objects that a handle alone holds.
func BenchmarkDrop(b *testing.B) {
	s := benchStore(b, 0)
	t := NewHandles(0)
	seq := uint64(0)
	var hs []uint32
	for b.Loop() {
		if len(hs) == 0 {
			b.StopTimer()
			for range 10000 {
				seq++
				o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, raw(nil))
				if err != nil {
					b.Fatal(err)
				}
				h, err := t.Add(o)
				if err != nil {
					b.Fatal(err)
				}
				hs = append(hs, h)
			}
			b.StartTimer()
		}
		t.Drop(hs[len(hs)-1])
		hs = hs[:len(hs)-1]
	}
	t.Reset()
}

// BenchmarkSeal is the life of a task's result: declare, watch, seal, drop.
func BenchmarkSeal(b *testing.B) {
	s := benchStore(b, 0)
	b.ReportAllocs()
	seq, told := uint64(0), 0
	w := WatcherFunc(func(*Object) { told++ })
	p := make([]byte, 8)
	for b.Loop() {
		seq++
		o, err := s.Declare(wray.ID{Owner: 1, Seq: seq})
		if err != nil {
			b.Fatal(err)
		}
		o.Watch(w)
		if err := o.TrySeal(raw(p)); err != nil {
			b.Fatal(err)
		}
		o.Release()
	}
	if told != int(seq) {
		b.Fatalf("%d of %d watches told", told, seq)
	}
}

// BenchmarkPutParallel is BenchmarkPutSmall on all cores at once.
func BenchmarkPutParallel(b *testing.B) {
	s := benchStore(b, 0)
	var seq atomic.Uint64
	p := make([]byte, 8)
	b.RunParallel(func(pb *testing.PB) {
		t := NewHandles(0)
		for pb.Next() {
			o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq.Add(1)}, raw(p))
			if err != nil {
				b.Error(err)
				return
			}
			h, err := t.Add(o)
			if err != nil {
				b.Error(err)
				return
			}
			t.Drop(h)
		}
	})
}
