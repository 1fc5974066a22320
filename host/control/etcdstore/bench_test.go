package etcdstore

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray/host/control"
)

// both are the implementations, to be compared in one run.
func both(b *testing.B, f func(b *testing.B, s control.Store)) {
	b.Run("memory", func(b *testing.B) {
		s := control.NewMemory(control.MemoryOptions{})
		defer s.Close()
		f(b, s)
	})
	b.Run("etcd", func(b *testing.B) { f(b, start(b, Options{})) })
}

// BenchmarkStart is from nothing to the first write that was done.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s := start(b, Options{})
		if _, err := s.Commit(b.Context(), control.Txn{Do: []control.Op{control.Put("a", nil)}}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

// BenchmarkWrite is one writer's latency, 100 bytes at a time.
func BenchmarkWrite(b *testing.B) {
	both(b, func(b *testing.B, s control.Store) {
		value := make([]byte, 100)
		for b.Loop() {
			if _, err := s.Commit(b.Context(), control.Txn{Do: []control.Op{control.Put("a", value)}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWrites is what 64 writers get done together, compare-and-set each.
func BenchmarkWrites(b *testing.B) {
	both(b, func(b *testing.B, s control.Store) {
		value := make([]byte, 100)
		var writers atomic.Int64
		b.SetParallelism(32) // per processor: 64 on two
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			key := fmt.Sprint("k", writers.Add(1))
			cond := control.Absent(key)
			for pb.Next() {
				rev, err := s.Commit(b.Context(), control.Txn{If: []control.Cond{cond}, Do: []control.Op{control.Put(key, value)}})
				if err != nil {
					b.Error(err)
					return
				}
				cond = control.At(key, rev)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	})
}

// BenchmarkRead is one linearizable read.
func BenchmarkRead(b *testing.B) {
	both(b, func(b *testing.B, s control.Store) {
		if _, err := s.Commit(b.Context(), control.Txn{Do: []control.Op{control.Put("a", make([]byte, 100))}}); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for b.Loop() {
			if _, err := s.Get(b.Context(), "a"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkKeepAlive is one renewal of a lease.
func BenchmarkKeepAlive(b *testing.B) {
	both(b, func(b *testing.B, s control.Store) {
		l, err := s.Grant(b.Context(), control.MaxTTL)
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for b.Loop() {
			if err := s.KeepAlive(b.Context(), l.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
