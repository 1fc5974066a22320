package objectstore

import (
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	wray "github.com/wray-project/wray"
)

const gib = 1 << 30

// anonymous returns n bytes of touched memory outside the heap, as a guest's
// is.
func anonymous(b *testing.B, n int) []byte {
	b.Helper()
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(m) })
	for i := 0; i < n; i += unix.Getpagesize() {
		m[i] = byte(i >> 12)
	}
	return m
}

// rates collects the durations of two ways to move a gibibyte, measured in
// turns so that both meet the same neighbours, and reports medians.
type rates struct{ ours, bare []time.Duration }

func (r *rates) report(b *testing.B, bare string) {
	slices.Sort(r.ours)
	slices.Sort(r.bare)
	o, m := r.ours[len(r.ours)/2], r.bare[len(r.bare)/2]
	b.ReportMetric(gib/1e9/o.Seconds(), "put-GB/s")
	b.ReportMetric(gib/1e9/m.Seconds(), bare+"-GB/s")
	b.ReportMetric(100*m.Seconds()/o.Seconds(), "%")
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// BenchmarkPutGiB is a put of 1 GiB into a recycled segment, and a memcpy of
// as much between touched pages beside it.
func BenchmarkPutGiB(b *testing.B) {
	s := benchStore(b, 2*gib)
	src, dst := anonymous(b, gib), anonymous(b, gib)
	seq := uint64(0)
	put := func() {
		seq++
		mustPut(b, s, seq, src).Release()
	}
	put()
	waitWarm(s)
	var r rates
	for b.Loop() {
		r.bare = append(r.bare, timed(func() { copy(dst, src) }))
		r.ours = append(r.ours, timed(put))
	}
	r.report(b, "memcpy")
}

// waitWarm returns when nothing is left to be warmed.
func waitWarm(s *Store) { s.bg.wg.Wait() }

// BenchmarkPutGiBLoop is what a guest sees that puts and drops 1 GiB again and
// again, from the first put on: rounds 1 (first touch), 2 and 3.
func BenchmarkPutGiBLoop(b *testing.B) {
	src := anonymous(b, gib)
	var rounds [3]time.Duration
	n := 0
	for b.Loop() {
		s := benchStore(b, 2*gib)
		for i := range rounds {
			rounds[i] += timed(func() { mustPut(b, s, uint64(i+1), src).Release() })
		}
		s.Close()
		n++
	}
	for i, d := range rounds {
		b.ReportMetric(float64(n)*gib/1e9/d.Seconds(), []string{"first-GB/s", "second-GB/s", "third-GB/s"}[i])
	}
}

// BenchmarkPutGiBFirstTouch is a put of 1 GiB into a new segment, and a
// write(2) of as much into a new memfd beside it.
func BenchmarkPutGiBFirstTouch(b *testing.B) {
	s := benchStore(b, 2*gib)
	src := anonymous(b, gib)
	var files []int // closed out of the time
	bare := func() {
		fd, err := unix.MemfdCreate("bare", unix.MFD_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		for p := src; len(p) > 0; {
			n, err := unix.Write(fd, p)
			if err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
		files = append(files, fd)
	}
	seq := uint64(0)
	var r rates
	for b.Loop() {
		r.bare = append(r.bare, timed(bare))
		for _, fd := range files {
			_ = unix.Close(fd)
		}
		files = nil
		var o *Object
		r.ours = append(r.ours, timed(func() {
			seq++
			o = mustPut(b, s, seq, src)
		}))
		o.Release()
		waitWarm(s) // which holds it for a moment
		s.Trim()
	}
	r.report(b, "write")
}

// BenchmarkBufferGiBFirstTouch is memory of 1 GiB to be filled in place, new.
func BenchmarkBufferGiBFirstTouch(b *testing.B) {
	s := benchStore(b, 2*gib)
	src := anonymous(b, gib)
	seq := uint64(0)
	for b.Loop() {
		r, err := s.TryReserve(Size{Payload: gib})
		if err != nil {
			b.Fatal(err)
		}
		buf := r.Buffer()
		copyPreemptibly(buf.Bytes(), src)
		seq++
		o, err := buf.Put(wray.ID{Owner: 1, Seq: seq}, 1, 0, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		o.Release()
		s.Trim()
		b.StartTimer()
	}
	b.SetBytes(gib)
}

// BenchmarkMapGiB is what a get of a 1 GiB object into a guest costs: pin, and
// a private mapping over a reserved range. What the guest then touches is not
// counted, nor is the unmapping.
func BenchmarkMapGiB(b *testing.B) {
	s := benchStore(b, 2*gib)
	src := anonymous(b, gib)
	o := mustPut(b, s, 1, src)
	reserve := func() unsafe.Pointer {
		p, err := unix.MmapPtr(-1, 0, nil, gib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	for b.Loop() {
		b.StopTimer()
		p := reserve()
		b.StartTimer()
		w, err := o.Pin()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := unix.MmapPtr(w.FD(), 0, p, uintptr(w.MapLen()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := unix.MunmapPtr(p, gib); err != nil {
			b.Fatal(err)
		}
		w.Unpin()
		b.StartTimer()
	}
	b.StopTimer()
	o.Release()
}

// BenchmarkPut64KiB is put and drop of the smallest object with a segment,
// recycled.
func BenchmarkPut64KiB(b *testing.B) {
	s := benchStore(b, 0)
	src := make([]byte, InlineMax)
	seq := uint64(0)
	b.SetBytes(InlineMax)
	for b.Loop() {
		seq++
		mustPut(b, s, seq, src).Release()
	}
}
