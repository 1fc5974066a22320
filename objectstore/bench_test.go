package objectstore

import (
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
