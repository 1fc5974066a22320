package objectstore

import (
	"hash/crc32"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// memory makes the memory of segments. There are two: one of memfds, which
// can be mapped elsewhere, and one of the heap.
type memory interface {
	// make returns n bytes, all zero, and a descriptor of them or -1.
	make(n int64) (mem []byte, fd int, err error)
	// free gives memory of make back to the system, which hands it to nobody
	// before it is zero again. Nothing may read it after.
	free(mem []byte, fd int)
	// write puts p at off of a segment by a system call, which for
	// memory that was never touched costs less than half of what faults do. It
	// returns how much it put: less than all where the descriptor refuses.
	write(fd int, p []byte, off int64) int
	// populate makes the first write to each page of mem cheap.
	populate(mem []byte)
	// sealWrites makes descriptors read-only for whoever gets a duplicate; the
	// store's own mapping stays writable.
	sealWrites(fd int)
	// adopt makes memory of n bytes, rounded up to Align, of a memfd that came
	// from elsewhere, for reading, and a descriptor of its own. ErrNotSealed
	// where the file is not what [Reservation.Adopt] asks for,
	// errors.ErrUnsupported where segments are no memfds.
	adopt(f *os.File, n int64) (mem []byte, fd int, err error)
}

// Sizes of segments come in classes so that they can be used again: multiples
// of Align up to 16 of them, and from there eight steps for each doubling,
// which bounds what is reserved in vain to an eighth.
const (
	noClass     = -1
	linearSteps = 16
	doubleSteps = 8
)

// classFor returns the class of the smallest segments that hold n bytes, and
// their length.
func classFor(n int64) (class int, length int64) {
	units := uint64((n + Align - 1) / Align)
	if units <= linearSteps {
		return int(units) - 1, int64(units) * Align
	}
	// Within [2^k, 2^(k+1)) steps are 2^k/8 units. units-1 makes a bound
	// exactly reached belong to its class and not to the next.
	k := bits.Len64(units-1) - 1
	step := uint64(1) << (k - 3)
	n8 := (units - 1 - 1<<k) / step // 0 to 7
	return linearSteps + (k-4)*doubleSteps + int(n8), int64((1<<k + (n8+1)*step) * Align)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// segment is memory for one payload at a time.
//
// users counts who needs what is in it: the object whose payload it is, and
// each window. At zero, and only then, it may be written again.
type segment struct {
	mem   []byte
	fd    int // -1 where it is no memfd
	class int
	users atomic.Int32

	// dirty is the length of the prefix that was ever written; everything
	// after is zero. Owned by whoever fills the segment.
	dirty int64

	// warm is the length of the prefix whose pages are in the store's mapping,
	// so that copying to it faults nowhere. Only the warmer, or whoever fills
	// the segment, advances it.
	warm atomic.Int64

	// noWrite is set when descriptors were made read-only.
	noWrite atomic.Bool

	// Guarded by pool.mu.
	warming  bool // in the warmer's hands: not to be freed
	doomed   bool // to be freed by the warmer when it is done
	idle     time.Time
	newer    *segment // in pool.free, by time of return
	older    *segment
	sameNext *segment // in pool.classes, latest first
	samePrev *segment
}

// mappable reports whether windows of g can be made. g may be nil.
func (g *segment) mappable() bool { return g != nil && g.fd >= 0 }

// fill writes p to the beginning of g and zeroes what a window of p would
// show after it. Only the owner of an unused segment may call it. step may be
// nil, and is called between parts of StepBytes; when it panics, g is as it was
// but for bytes that count as dirty. sums, where it is not nil, has an element
// for each chunk of a record, which becomes its checksum: on the way, while the
// bytes are in the processor's cache, it costs less than it does later.
func (g *segment) fill(m memory, p []byte, step func(), sums []uint32) {
	n := int64(len(p))
	for from := int64(0); from < n; {
		to := n
		if step != nil {
			if to = min(from+StepBytes, n); from > 0 && from%StepBytes == 0 {
				step()
			}
		}
		if sums != nil {
			to = min(from+sumStep, to)
			sum := &sums[from/recordChunk]
			*sum = crc32.Update(*sum, castagnoli, p[from:to])
		}
		g.dirty = max(g.dirty, to)
		g.fillPart(m, p[from:to], from)
		from = to
	}
	g.finish(n)
}

// sumStep is how much is summed and copied, or read and summed, at a time: it
// fits the cache of one core.
const sumStep = 256 << 10

// fillPart writes p at off.
func (g *segment) fillPart(m memory, p []byte, off int64) {
	n := off + int64(len(p))
	if g.warm.Load() < n {
		if !g.noWrite.Load() {
			done := m.write(g.fd, p, off)
			p, off = p[done:], off+int64(done)
		}
		if off < n {
			g.populate(m, n)
		}
	}
	copyPreemptibly(g.mem[off:n], p)
}

// populate prepares the first n bytes for being written in place.
func (g *segment) populate(m memory, n int64) {
	if w := g.warm.Load(); w < n {
		populateInParallel(m, g.mem[w:n])
		advance(&g.warm, n)
	}
}

// finish notes that the first n bytes were written and zeroes stale bytes from
// there to the end of the last window unit: windows come in whole units.
func (g *segment) finish(n int64) {
	if end := min(g.dirty, roundUp(n, Align)); n < end {
		clear(g.mem[n:end])
	}
	g.dirty = max(g.dirty, n)
}

// advance raises a to n.
func advance(a *atomic.Int64, n int64) {
	for {
		old := a.Load()
		if old >= n || a.CompareAndSwap(old, n) {
			return
		}
	}
}

// copyStep bounds how long a copy keeps the goroutine from being preempted:
// about 50 µs. A single copy of a gigabyte would delay the collector by as
// long as it takes.
const copyStep = 1 << 20

func copyPreemptibly(dst, src []byte) {
	for len(src) > 0 {
		n := min(len(src), copyStep)
		copySome(dst, src[:n])
		dst, src = dst[n:], src[n:]
	}
}

// copySome is a call of its own because the function's entry is where the
// goroutine can be preempted.
//
//go:noinline
func copySome(dst, src []byte) { copy(dst, src) }

func clearPreemptibly(p []byte) {
	for len(p) > 0 {
		n := min(len(p), copyStep)
		clearSome(p[:n])
		p = p[n:]
	}
}

// clearSome is a call of its own, as copySome.
//
//go:noinline
func clearSome(p []byte) { clear(p) }

// populateStep is the unit in which pages are populated: the kernel holds the
// lock of the address space meanwhile, about 0.5 ms.
const populateStep = 2 << 20

// populateInParallel populates mem on two threads where it is long: faults of
// distinct pages do not exclude each other.
func populateInParallel(m memory, mem []byte) {
	if len(mem) < 4*populateStep {
		m.populate(mem)
		return
	}
	half := int(roundUp(int64(len(mem)/2), populateStep))
	var wg sync.WaitGroup
	wg.Go(func() { populateBySteps(m, mem[half:]) })
	populateBySteps(m, mem[:half])
	wg.Wait()
}

func populateBySteps(m memory, mem []byte) {
	for len(mem) > 0 {
		n := min(len(mem), populateStep)
		m.populate(mem[:n])
		mem = mem[n:]
	}
}
