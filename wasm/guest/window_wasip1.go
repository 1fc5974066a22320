package guest

import (
	"runtime"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// mapMin is the size from which an object is mapped instead of copied: below,
// copying costs less than the host calls, the pages' faults and the finalizer.
const mapMin = 256 << 10

// Windows are ranges of the Go heap over which the host lays the pages of an
// object. They are heap objects without pointers, so that the collector sees
// who still holds a slice of one, however it was passed on; ranges outside of
// the heap could be lost to a slice that outlives its Ref. A finalizer takes
// the mapping away again and puts the range into a pool. The pool keeps the
// window's memory allocated, so nothing else ever lies where an object was
// mapped, and a window taken from it costs no allocation, no zeroing, and no
// collection.
//
// What windows hold counts for the collector as live, which moves its next
// run away: a mapped object of 512 MiB would let as much garbage pile up.
// pace takes that out of its reckoning.
var windows struct {
	pool  map[uintptr][]*window // free ones, by size
	live  map[uintptr]*window   // mapped ones, by the address of base, so that this map holds none alive
	bytes int                   // of both
	fresh int                   // bytes allocated since the last collection
	pacer pacer
}

type window struct {
	base   *byte   // of the allocation, while in the pool; else nil
	start  uintptr // multiple of abi.MapAlign, inside the allocation
	size   uintptr // multiple of abi.MapAlign
	mapped uintptr // bytes mapped, rounded up
	age    int     // collections since it went into the pool
}

// mapRange maps n bytes from offset off of the object, or of the buffer, behind
// handle and returns them, or nil if the host cannot map it. off is a multiple
// of abi.MapAlign. Whoever holds a slice of the result keeps the mapping. The
// error says that there are as many mappings as there may be, or is EAGAIN: the
// object is on disk.
func mapRange(handle uint32, off int64, n uint64) ([]byte, error) {
	if n > 1<<31 {
		return nil, nil
	}
	need := (uintptr(n) + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	w, base := takeWindow(need)
	e := importObjectMap(handle, uint32(w.start), uint32(need), off)
	if abi.Errno(e) == abi.E2BIG {
		Reclaim() // windows of garbage count, too
		e = importObjectMap(handle, uint32(w.start), uint32(need), off)
	}
	if !ok(e) {
		putWindow(w, base)
		switch abi.Errno(e) {
		case abi.E2BIG, abi.EAGAIN, abi.ENOSPC:
			return nil, refused(e)
		}
		return nil, nil
	}
	w.mapped = need
	if windows.live == nil {
		windows.live = make(map[uintptr]*window)
	}
	windows.live[uintptr(unsafe.Pointer(base))] = w
	runtime.SetFinalizer(base, unmapWindow)
	// start lies inside base's allocation; counting from base says so to the
	// collector and to the compiler.
	p := unsafe.Add(unsafe.Pointer(base), w.start-uintptr(unsafe.Pointer(base)))
	return unsafe.Slice((*byte)(p), n)[:n:n], nil
}

// unmapWindow runs when no slice of a window is left.
func unmapWindow(base *byte) {
	w := windows.live[uintptr(unsafe.Pointer(base))]
	delete(windows.live, uintptr(unsafe.Pointer(base)))
	forgetBuffer(uint32(w.start))
	if e := importObjectUnmap(uint32(w.start), uint32(w.mapped)); !ok(e) {
		panic("BUG: object_unmap: " + Errno(e).Error())
	}
	w.mapped = 0
	putWindow(w, base)
}

func putWindow(w *window, base *byte) {
	w.base, w.age = base, 0
	if windows.pool == nil {
		windows.pool = make(map[uintptr][]*window)
	}
	windows.pool[w.size] = append(windows.pool[w.size], w)
}

// takeWindow returns a window of at least need bytes, and the start of its
// allocation, which only the caller keeps alive.
func takeWindow(need uintptr) (*window, *byte) {
	size := windowSize(need)
	if w, base := pooled(size); w != nil {
		return w, base
	}
	if windows.fresh += int(size); windows.fresh > freshMax {
		windows.fresh = 0
		collect() // a program that only makes and drops large values gives the collector no other occasion
		if w, base := pooled(size); w != nil {
			return w, base
		}
	}
	b := allocate(int(size + abi.MapAlign))
	base := unsafe.SliceData(b)
	start := (uintptr(unsafe.Pointer(base)) + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	windows.bytes += int(size)
	windows.pacer.changed()
	return &window{start: start, size: size}, base
}

// freshMax is how many bytes of windows are allocated before the binding
// collects garbage of its own accord.
const freshMax = 128 << 20

// pooled takes a window of a size out of the pool, or returns nil.
func pooled(size uintptr) (*window, *byte) {
	free := windows.pool[size]
	if len(free) == 0 {
		return nil, nil
	}
	w := free[len(free)-1]
	free[len(free)-1] = nil
	windows.pool[size] = free[:len(free)-1]
	base := w.base
	w.base = nil
	return w, base
}

// windowSize rounds need up to one of four sizes per power of two, so that
// windows are used again for objects of similar size.
func windowSize(need uintptr) uintptr {
	step := uintptr(abi.MapAlign)
	for step*8 <= need {
		step *= 2
	}
	return (need + step - 1) &^ (step - 1)
}

// windowLives is how many collections a window spends in the pool before its
// memory goes back to the heap.
const windowLives = 3

// windowsAfterGC gives back what the pool has not needed for a while.
func windowsAfterGC() {
	windows.fresh = 0
	if windows.bytes > 0 {
		dropWindows(windowLives)
	}
}

// trimWindows gives back all that the pool holds.
func trimWindows() {
	if windows.bytes > 0 {
		dropWindows(0)
	}
}

// dropWindows gives back the windows that have been in the pool for limit
// collections. It works on the pool as it finds it; what other goroutines put
// in meanwhile stays.
func dropWindows(limit int) {
	pool := windows.pool
	windows.pool = nil
	for _, free := range pool {
		for _, w := range free {
			if w.age++; w.age >= limit {
				windows.bytes -= int(w.size)
				continue
			}
			age := w.age
			putWindow(w, w.base)
			w.age = age
		}
	}
	windows.pacer.changed()
}

// allocate returns n bytes that are not zeroed: the caller overwrites them
// all, or maps over them.
func allocate(n int) []byte {
	if n == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(mallocgc(uintptr(n), nil, false)), n)
}
