package guest

import (
	"context"
	"math/bits"
	"runtime"

	"github.com/wray-project/wray/wasm/abi"
)

const (
	dropBatch  = 64  // handles given back in one host call
	youngBatch = 512 // Refs in a youngChunk
	youngMax   = 8   // chunks of which the collector has not been told
	largeMin   = 64 << 10
)

var handles struct {
	// owned is the set of handles that the guest holds and has not put into
	// dropping: what the end of a task gives back.
	owned []uint64
	count int

	dropping *dropBuffer // nil, or the one being filled
	spare    *dropBuffer

	// Refs that hold a handle and have no finalizer, from first (the oldest)
	// to last (being filled).
	first, last *youngChunk
	chunks      int
	old         int // chunks that have lived through a collection
	hooked      bool
}

type dropBuffer struct {
	n       int
	handles [dropBatch]uint32
}

type youngChunk struct {
	n    int
	full bool // to be filled no further
	next *youngChunk
	refs [youngBatch]*Ref
}

// own notes that the guest holds handle.
func own(handle uint32) {
	for int(handle/64) >= len(handles.owned) {
		handles.owned = append(handles.owned, 0)
	}
	handles.owned[handle/64] |= 1 << (handle % 64)
	handles.count++
}

// drop gives handle back, with others, soon: no later than the next wait.
func drop(handle uint32) {
	i, bit := int(handle/64), uint64(1)<<(handle%64)
	if i >= len(handles.owned) || handles.owned[i]&bit == 0 {
		return
	}
	handles.owned[i] &^= bit
	handles.count--
	b := handles.dropping
	if b == nil {
		b, handles.spare = handles.spare, nil
		if b == nil {
			b = new(dropBuffer)
			if handles.dropping != nil { // another goroutine was as far, during new
				b = handles.dropping
			}
		}
		handles.dropping = b
	}
	b.handles[b.n] = handle // no call from here to the end, so nobody comes between
	b.n++
	if b.n == dropBatch {
		handles.dropping = nil
		b.send()
	}
}

// flushDrops gives back now what drop collected.
func flushDrops() {
	if b := handles.dropping; b != nil {
		handles.dropping = nil // the import reads b; other goroutines fill another
		b.send()
	}
}

func (b *dropBuffer) send() {
	importHandleDrop(&b.handles[0], uint32(b.n)) // EBADF tells nothing new
	b.n = 0
	handles.spare = b
}

// dropAll gives back every handle: the task that got them has ended.
func dropAll() {
	if handles.count > 0 {
		for i := range handles.owned {
			for handles.owned[i] != 0 {
				drop(uint32(i*64 + bits.TrailingZeros64(handles.owned[i])))
			}
		}
	}
	flushDrops()
	handles.first, handles.last, handles.chunks, handles.old = nil, nil, 0, 0
}

// addYoung puts r among those of which the collector is told later.
func addYoung(r *Ref) {
	c := handles.last
	for c == nil || c.full {
		if !handles.hooked {
			handles.hooked = true
			hookGC()
		}
		fresh := new(youngChunk)
		if c = handles.last; c != nil && !c.full {
			break // another goroutine was as far, during new
		}
		if c == nil {
			handles.first = fresh
		} else {
			c.next = fresh
		}
		c, handles.last = fresh, fresh
		handles.chunks++
		if handles.chunks > youngMax {
			settleOldest()
			c = handles.last
		}
	}
	c.refs[c.n] = r // no call from here to c.n++, so nobody comes between
	c.n++
	c.full = c.n == youngBatch
}

// settleOldest tells the collector of the oldest young Refs that still hold a
// handle, and holds on to them no longer.
func settleOldest() {
	c := handles.first
	if c == nil {
		return
	}
	handles.first = c.next
	if handles.first == nil {
		handles.last = nil
	}
	handles.chunks--
	handles.old = max(0, handles.old-1)
	for i, r := range c.refs[:c.n] {
		c.refs[i] = nil
		if r.handle != 0 {
			r.settle()
		}
	}
}

// settle makes the collector call release when r is unreachable.
func (r *Ref) settle() {
	if r.flags&refFinalizer == 0 {
		r.flags |= refFinalizer
		runtime.SetFinalizer(r, (*Ref).release)
	}
}

// A gcHook is garbage at once, so its finalizer runs after each collection.
type gcHook struct{ self *gcHook }

func hookGC() { runtime.SetFinalizer(&gcHook{}, func(*gcHook) { afterGC() }) }

// afterGC runs after each collection. A Ref that is young for a second time
// is left to the collector, so garbage is given back after three collections
// at the latest; memory pressure (Reclaim) waits for none to pass.
func afterGC() {
	for handles.old > 0 {
		settleOldest()
	}
	handles.old = handles.chunks
	if c := handles.last; c != nil {
		c.full = true // a chunk must not hold both old and young ones
	}
	windowsAfterGC()
	flushDrops()
	hookGC()
}

// Reclaim collects garbage and gives back the handles of Refs that are
// unreachable. It reports whether it gave any back.
func Reclaim() bool {
	before := handles.count
	for handles.chunks > 0 {
		settleOldest()
	}
	for range 2 { // what a finalizer makes unreachable needs another
		runtime.GC()
		for range 3 {
			runtime.Gosched() // the finalizers' goroutine runs
		}
	}
	trimWindows()
	flushDrops()
	return handles.count < before
}

// A retry makes room after an import answered EAGAIN or ENOSPC.
type retry struct{ reclaimed bool }

// after reports whether the import that answered errno is to be called again.
// It reclaims at first, then it waits for the event SPACE. The import is always
// called between the two: the event that follows an EAGAIN may come while the
// collector runs, and must find somebody who waits.
func (t *retry) after(ctx context.Context, errno abi.Errno) (bool, error) {
	if errno != abi.EAGAIN && errno != abi.ENOSPC {
		return false, nil
	}
	if !t.reclaimed {
		t.reclaimed = true
		gave := handles.count > 0 && Reclaim()
		return gave || errno == abi.EAGAIN, nil
	}
	if errno == abi.ENOSPC {
		return false, nil
	}
	t.reclaimed = false // what becomes garbage meanwhile counts again
	return true, parkSingle(ctx, newWaiter(), &events.space)
}
