package guest

import (
	"runtime"
	"unsafe"
)

// A value may hold thousands of references. To allocate each for itself, and to
// have the collector look into each at every collection, takes longer than all
// that the host does for them. So the Refs of a long list lie side by side in
// slabs, which hold no pointers and die as a whole.
//
// The price: a Ref that is kept keeps the handles of its slab, and so the
// objects behind them. That is a part in slabShare of what the list held at
// most; short lists have no slabs.
const (
	slabShare = 64
	slabMin   = 16  // Refs in a slab: with fewer it costs more than it spares
	slabMax   = 128 // fits Ref.slot
)

// extra is what few Refs have besides.
type extra struct {
	waiters waitList
	more    *refMore
}

// A loneRef is a Ref that is allocated by itself. One without refSlab is part of
// one, which is how peek finds what it has besides.
type loneRef struct {
	Ref
	extra
}

// slabHandles is where freeSlab collects handles; nil: it is in use, or not made yet.
var slabHandles *[slabMax]uint32

// slabExtras is what Refs in slabs have besides, by their addresses, which keep
// nothing alive. Those in it have refExtra.
var slabExtras map[uintptr]*extra

// peek returns what r has besides; nil: nothing.
func (r *Ref) peek() *extra {
	switch {
	case r.flags&refSlab == 0:
		return &(*loneRef)(unsafe.Pointer(r)).extra
	case r.flags&refExtra == 0:
		return nil
	}
	return slabExtras[uintptr(unsafe.Pointer(r))]
}

// besides returns the place of what r has besides.
func (r *Ref) besides() *extra {
	if p := r.peek(); p != nil {
		return p
	}
	p := new(extra)
	if slabExtras == nil {
		slabExtras = map[uintptr]*extra{}
	}
	slabExtras[uintptr(unsafe.Pointer(r))] = p
	r.flags |= refExtra
	return p
}

// more returns what few Refs have, or nil.
func (r *Ref) more() *refMore {
	if p := r.peek(); p != nil {
		return p.more
	}
	return nil
}

func (r *Ref) setMore(m *refMore) { r.besides().more = m }

// signal counts one for each who waits for r.
func (r *Ref) signal() {
	if p := r.peek(); p != nil {
		p.waiters.signal()
	}
}

// newRefs takes over handles, which the host gave for the references of one
// value, and fills in into, which is as long.
func newRefs(handles []uint32, into []*Ref) {
	ownAll(handles)
	// The task may end while others have their turn, below: then all handles are
	// given back, and these Refs are its.
	task := taskNumber
	size := min(len(handles)/slabShare, slabMax)
	if size < slabMin {
		for i, h := range handles {
			r := &(&loneRef{Ref: Ref{handle: h, task: task}}).Ref
			into[i] = r
			if task == taskNumber {
				track(r)
			}
		}
		return
	}
	for first := 0; first < len(handles); first += size {
		hs := handles[first:min(first+size, len(handles))]
		slab, to := make([]Ref, len(hs)), into[first:first+len(hs)]
		for i, h := range hs {
			r := &slab[i]
			r.handle, r.task, r.flags = h, task, refSlab
			to[i] = r
		}
		slab[0].slot = uint8(len(slab))
		runtime.SetFinalizer(&slab[0], freeSlab)
		hook()
		takeTurns(len(slab))
	}
}

// freeSlab gives the handles of a slab back, whose first Ref is first.
func freeSlab(first *Ref) {
	slab := unsafe.Slice(first, first.slot)
	hs := slabHandles
	slabHandles = nil // as another goroutine may come while the import runs
	if hs == nil {
		hs = new([slabMax]uint32)
	}
	n := 0
	for i := range slab {
		r := &slab[i]
		if r.flags&refExtra != 0 {
			delete(slabExtras, uintptr(unsafe.Pointer(r)))
			r.flags &^= refExtra
		}
		if r.handle != 0 && r.task == taskNumber && disown(r.handle) {
			hs[n] = r.handle
			n++
		}
		r.handle = 0
	}
	if n > 0 {
		importHandleDrop(&hs[0], uint32(n)) // EBADF tells nothing new
	}
	slabHandles = hs
}
