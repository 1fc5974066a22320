package objectstore

import (
	"bytes"
	"testing"
	"testing/synctest"
	"unsafe"

	"golang.org/x/sys/unix"

	wray "github.com/wray-project/wray"
)

func linuxStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustPut(t testing.TB, s *Store, seq uint64, p []byte) *Object {
	t.Helper()
	o, err := s.TryPut(wray.ID{Owner: 1, Seq: seq}, raw(p))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestWindowSeesSegment shows what windows delay reuse for: a private page
// that was not written is the segment's own, one that was is the window's.
func TestWindowSeesSegment(t *testing.T) {
	s := linuxStore(t, Config{})
	o := mustPut(t, s, 1, bytes.Repeat([]byte{1}, 1<<20))
	w, err := o.Pin()
	if err != nil {
		t.Fatal(err)
	}
	p, err := unix.MmapPtr(w.FD(), 0, nil, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	b := unsafe.Slice((*byte)(p), 1<<20)
	page := unix.Getpagesize()
	b[page] = 7
	for i := range 3 {
		o.segment.mem[i*page] = 9 // what a put into the segment would do
	}
	if b[0] != 9 || b[page] != 7 || b[2*page] != 9 {
		t.Errorf("pages never touched, written and read show %d, %d, %d: expected 9, 7, 9", b[0], b[page], b[2*page])
	}
	if err := unix.MunmapPtr(p, 1<<20); err != nil {
		t.Error(err)
	}
	w.Unpin()
	o.Release()
}

// TestWarming: a segment that came back is brought into the store's mapping,
// after which its descriptor is read-only for all; payloads are right whether
// they go by a system call, by the mapping, or by both.
func TestWarming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := linuxStore(t, Config{IdleTrim: -1})
		const n = 5 << 20
		o := mustPut(t, s, 1, make([]byte, n-100_000))
		g := o.segment
		if g.warm.Load() != 0 || g.noWrite.Load() {
			t.Errorf("a new segment is warm to %d, sealed %v", g.warm.Load(), g.noWrite.Load())
		}
		o.Release()
		synctest.Wait()
		if g.warm.Load() != n || !g.noWrite.Load() {
			t.Errorf("a pooled segment is warm to %d, sealed %v", g.warm.Load(), g.noWrite.Load())
		}
		if _, err := unix.Pwrite(g.fd, []byte{1}, 0); err == nil {
			t.Error("a warm segment's descriptor can be written to")
		}
		if got := resident(t, g.mem); got != n/unix.Getpagesize() {
			t.Errorf("%d pages of a warm segment are in memory: expected %d", got, n/unix.Getpagesize())
		}
		// Half warm and sealed: the rest must come by faults.
		g.warm.Store(1 << 20)
		want := bytes.Repeat([]byte("half warm "), n/10)
		o = mustPut(t, s, 2, want)
		if o.segment != g || !bytes.Equal(o.Bytes(), want) {
			t.Error("a payload in a half warm segment is wrong")
		}
		o.Release()
	})
}

// resident counts the pages of mem that are in memory.
func resident(t testing.TB, mem []byte) (n int) {
	t.Helper()
	v := make([]byte, len(mem)/unix.Getpagesize())
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&v[0])))
	if e != 0 {
		t.Fatal(e)
	}
	for _, b := range v {
		n += int(b & 1)
	}
	return n
}

// TestNewSegmentsAreZero: memory that left a store comes back without a byte
// of what was there.
func TestNewSegmentsAreZero(t *testing.T) {
	const n = 8 << 20
	for i := range uint64(4) {
		s := linuxStore(t, Config{Capacity: n})
		r, err := s.TryReserve(Size{Payload: n})
		if err != nil {
			t.Fatal(err)
		}
		b := r.Buffer()
		for at, c := range b.Bytes() {
			if c != 0 {
				t.Fatalf("byte %d of new memory is %#x", at, c)
			}
		}
		for at := range b.Bytes() {
			b.Bytes()[at] = 0xee
		}
		o, err := b.Put(wray.ID{Owner: 1, Seq: i + 1}, 1, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.Release()
		if i%2 == 0 {
			s.Trim()
		}
		s.Close()
	}
}

// TestWriteRefused: where the descriptor refuses half way, the mapping does
// the rest.
func TestWriteRefused(t *testing.T) {
	s := linuxStore(t, Config{})
	s.mem = shortWrites{memfdMemory{}}
	p := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	o := mustPut(t, s, 1, p)
	if !bytes.Equal(o.Bytes(), p) {
		t.Error("the payload is wrong")
	}
	o.Release()
}

type shortWrites struct{ memfdMemory }

func (m shortWrites) write(fd int, p []byte, off int64) int {
	return m.memfdMemory.write(fd, p[:len(p)/2], off)
}

// TestNoMemfd: where the system has no segment left, payloads live in the heap.
func TestNoMemfd(t *testing.T) {
	s := linuxStore(t, Config{})
	s.mem = noMemory{heapMemory{}}
	p := bytes.Repeat([]byte{5}, 3<<20)
	o := mustPut(t, s, 1, p)
	if !bytes.Equal(o.Bytes(), p) || o.Info().Mappable || s.Stats().InHeap != 1 || s.Stats().Used != 3<<20 {
		t.Errorf("object without a segment: %+v, %+v", o.Info(), s.Stats())
	}
	o.Release()
	if f := s.Stats(); f.Used != 0 || f.Segments != 0 {
		t.Errorf("after it: %+v", f)
	}
}

type noMemory struct{ heapMemory }

func (noMemory) make(int64) ([]byte, int, error) { return nil, -1, unix.EMFILE }
