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

	"github.com/wray-project/wray/internal/fd"
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
	err := fd.Do(f, func(fd int) error {
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Size < int64(length) {
			return fmt.Errorf("a file of %d bytes for %d", st.Size, length)
		}
		return mapOver(base, length, unix.MAP_PRIVATE|unix.MAP_FIXED, fd)
	})
	if err != nil {
		giveRange(base, size)
		return nil, weak.Pointer[byte]{}, err
	}
	runtime.SetFinalizer(base, func(base *byte) {
		// Fresh pages, before anybody is told that the others are free.
		if err := mapOver(base, length, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_ANON, -1); err != nil {
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
func mapOver(base *byte, length, flags, fd int) error {
	_, _, e := unix.Syscall6(unix.SYS_MMAP, uintptr(start(base)), uintptr(length), unix.PROT_READ|unix.PROT_WRITE, uintptr(flags), uintptr(fd), 0)
	if e != 0 {
		return e
	}
	return nil
}

// newFile returns an empty memfd that can be sealed.
func newFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("wray-value", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before 6.3
		fd, err = unix.MemfdCreate("wray-value", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "wray-value"), nil
}

// seal gives a file the length of an object of n bytes, which is at least what
// was written, and has nobody change it any more.
func seal(f *os.File, n int64) error {
	size := (n + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	if err := f.Truncate(size); err != nil {
		return err
	}
	return fd.Do(f, func(fd int) error {
		// What was never written has pages, too: an object's memory is all there.
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Blocks*512 < size {
			if err := unix.Fallocate(fd, 0, 0, size); err != nil {
				return err
			}
		}
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
		return err
	})
}

// sealedFile returns a memfd of p that nobody can change.
func sealedFile(p []byte) (*os.File, error) {
	f, err := newFile()
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(p, 0); err == nil {
		err = seal(f, int64(len(p)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// buffers are the slices of newBuffer that were not put yet. Each is a file that
// is mapped, shared, over a part of the Go heap, as values are.
var buffers struct {
	sync.Mutex
	at map[uintptr]*buffer // guarded by Mutex; by the address of the first byte
}

type buffer struct {
	file *os.File
	n    int // bytes
}

// newBuffer returns n zero bytes that can become an object without being copied,
// or nil where there is no memory of that kind.
func newBuffer(n int) []byte {
	f, err := newFile()
	if err != nil {
		return nil
	}
	length := (n + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	size := rangeSize(n)
	base := takeRange(size)
	if err = f.Truncate(int64(length)); err == nil {
		err = fd.Do(f, func(fd int) error { return mapOver(base, length, unix.MAP_SHARED|unix.MAP_FIXED, fd) })
	}
	if err != nil {
		f.Close()
		giveRange(base, size)
		return nil
	}
	at := uintptr(start(base))
	buffers.Lock()
	if buffers.at == nil {
		buffers.at = map[uintptr]*buffer{}
	}
	buffers.at[at] = &buffer{file: f, n: n}
	buffers.Unlock()
	runtime.SetFinalizer(base, func(base *byte) {
		buffers.Lock()
		if b := buffers.at[at]; b != nil {
			b.file.Close()
			delete(buffers.at, at)
		}
		buffers.Unlock()
		if err := mapOver(base, length, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_ANON, -1); err != nil {
			panic("BUG: a buffer cannot be unmapped: " + err.Error())
		}
		giveRange(base, size)
	})
	return windowBytes(base, n)
}

// takeBuffer returns the sealed file of a whole slice of newBuffer that is put
// for the first time; nil for any other, and where the file cannot be sealed.
// What the slice then shows is a private view of the file, so that writing to it
// changes nobody else's.
func takeBuffer(p []byte) *os.File {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	buffers.Lock()
	defer buffers.Unlock()
	b := buffers.at[at]
	if b == nil || b.n != len(p) {
		return nil
	}
	delete(buffers.at, at)
	length := (b.n + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	err := fd.Do(b.file, func(fd int) error {
		_, _, e := unix.Syscall6(unix.SYS_MMAP, at, uintptr(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED, uintptr(fd), 0)
		if e != 0 {
			return e
		}
		return nil
	})
	if err == nil {
		err = seal(b.file, int64(b.n))
	}
	runtime.KeepAlive(p)
	if err != nil {
		b.file.Close() // the mapping keeps what is in it
		return nil
	}
	return b.file
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
