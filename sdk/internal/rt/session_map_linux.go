package rt

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/wasm/abi"
)

// Values are mapped over ranges of the Go heap: objects without pointers, so
// that the collector sees who still has a slice of one, however it was passed
// on. Memory outside of the heap could be unmapped under a slice that outlives
// its Ref. A finalizer takes the mapping away; then the range is kept for a
// while for the next value, since giving it back would have the runtime zero it,
// and touch every page of it, before it is used again. (Package wasm/guest does
// the same in a sandbox.)
var ranges struct {
	sync.Mutex
	free  map[int][]*byte // guarded by Mutex; allocations by their size
	bytes int             // guarded by Mutex; in free
}

// keepRanges bounds the bytes of address space that wait for reuse. They take no
// memory.
const keepRanges = 4 << 30

var pageSize = os.Getpagesize()

// rangeSize rounds n up to one of eight sizes for each power of two.
func rangeSize(n int) int {
	step := abi.MapAlign
	for step*16 <= n {
		step *= 2
	}
	return (n+step-1)/step*step + pageSize
}

func takeRange(size int) *byte {
	ranges.Lock()
	defer ranges.Unlock()
	if free := ranges.free[size]; len(free) > 0 {
		p := free[len(free)-1]
		free[len(free)-1] = nil
		ranges.free[size] = free[:len(free)-1]
		ranges.bytes -= size
		return p
	}
	return unsafe.SliceData(make([]byte, size))
}

func giveRange(p *byte, size int) {
	ranges.Lock()
	defer ranges.Unlock()
	if ranges.bytes+size > keepRanges {
		return
	}
	if ranges.free == nil {
		ranges.free = map[int][]*byte{}
	}
	ranges.free[size] = append(ranges.free[size], p)
	ranges.bytes += size
}

// start is the first whole page of an allocation.
func start(base *byte) unsafe.Pointer {
	p := unsafe.Pointer(base)
	at := uintptr(p)
	return unsafe.Add(p, (at+uintptr(pageSize)-1)&^(uintptr(pageSize)-1)-at)
}

// windowBytes returns the first n bytes of what is mapped over base.
func windowBytes(base *byte, n int) []byte { return unsafe.Slice((*byte)(start(base)), n)[:n:n] }

// mapFile maps the first n bytes of a file, privately: writing to them changes
// nobody else's. gone is called when nobody has a slice of them any more.
func mapFile(f *os.File, n int, gone func()) ([]byte, weak.Pointer[byte], error) {
	length := (n + pageSize - 1) / pageSize * pageSize
	var st unix.Stat_t
	size := rangeSize(n)
	base := takeRange(size)
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, weak.Pointer[byte]{}, err
	}
	var operr error
	err = raw.Control(func(fd uintptr) {
		if operr = unix.Fstat(int(fd), &st); operr != nil {
			return
		}
		if st.Size < int64(length) {
			operr = fmt.Errorf("a file of %d bytes for %d", st.Size, length)
			return
		}
		operr = mapOver(base, length, unix.MAP_PRIVATE|unix.MAP_FIXED, fd)
	})
	if err = errors.Join(err, operr); err != nil {
		giveRange(base, size)
		return nil, weak.Pointer[byte]{}, err
	}
	runtime.SetFinalizer(base, func(base *byte) {
		// Fresh pages, before anybody is told that the others are free.
		if err := mapOver(base, length, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_ANON, ^uintptr(0)); err != nil {
			panic("BUG: a value cannot be unmapped: " + err.Error())
		}
		giveRange(base, size)
		gone()
	})
	return windowBytes(base, n), weak.Make(base), nil
}

// mapOver maps over an allocation. The system call is made here, as unix.MmapPtr
// makes a pointer of its result, in which checkptr (go build -race) sees one that
// came from nowhere.
func mapOver(base *byte, length int, flags, fd uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_MMAP, uintptr(start(base)), uintptr(length), unix.PROT_READ|unix.PROT_WRITE, flags, fd, 0)
	if e != 0 {
		return e
	}
	return nil
}

// sealedFile returns a memfd of p that nobody can change.
func sealedFile(p []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("wray-value", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before 6.3
		fd, err = unix.MemfdCreate("wray-value", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "wray-value")
	size := (len(p) + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	err = writeAll(fd, p)
	if tail := size - len(p); err == nil && tail > 0 {
		_, err = unix.Pwrite(fd, make([]byte, tail), int64(len(p)))
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeAll(fd int, p []byte) error {
	for done := 0; done < len(p); {
		n, err := unix.Pwrite(fd, p[done:min(len(p), done+64<<20)], int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

var collecting atomic.Bool

// collect has garbage collected, without waiting for that: what nobody needs is
// dropped then.
func collect() {
	if !collecting.Swap(true) {
		go func() {
			defer collecting.Store(false)
			runtime.GC()
		}()
	}
}
