package guest

import (
	"runtime"
	"unsafe"
)

// The collector has to tell when nobody holds a Ref any more. A finalizer for
// each costs ten times what the Ref itself does (on wasm, 1 to 3 µs to set and
// run it, against 0.2 µs to allocate). So the binding looks for itself, after
// each collection, which Refs are gone: the runtime knows for each slot of a
// span of its heap whether an object lives in it, and the binding remembers
// which slots it had put Refs into.
//
// A slot that is free held a Ref that is dead. A slot that is not free holds
// that Ref still, or something that was allocated there since. If that is a
// Ref, track finds the slot taken and knows that the one before is dead. If it
// is another object, it does not look as the dead Ref did: see looksLike. Its
// first bytes alone say too little, since handles are small numbers, as much is
// that programs count. Where it looks so nevertheless, the handle is kept until
// that object dies, too: late, but never too early. This holds at every moment,
// also while the collector runs, since a slot is not freed before it is swept.
//
// The layout of a span differs between releases of Go. checkTracking tries it
// out before the snapshot; where it does not agree with what the collector
// does, Refs get finalizers.

// findObject returns the start of the object that p points into, its span, and
// its slot there.
//
//go:linkname findObject runtime.findObject
func findObject(p, refBase, refOff uintptr) (base uintptr, span *spanHead, index uintptr)

// spanHead is how runtime.mspan begins in Go 1.26. Spans lie outside of the
// heap and are never given back to the host, so one may be read at any time; a
// span that was freed may by now be another.
type spanHead struct {
	_         [3]uintptr // next, prev, list
	startAddr uintptr
	npages    uintptr
	_         uintptr // manualFreeList
	freeindex uint16  // slots below are in use
	nelems    uint16
	_         uint16     // freeIndexForScan
	_         uint64     // allocCache
	allocBits *[512]byte // by slot; from freeindex on, 0 is free
	_         [2]uintptr // gcmarkBits, pinnerBits
	_         [2]uint32  // sweepgen, divMul
	_         uint16     // allocCount
	spanclass uint8
	state     uint8 // 1: in use for the heap
	_         [4]byte
	elemsize  uintptr
}

const (
	spanInUse = 1
	pageShift = 13 // of the runtime's pages
	// refSlots is the most slots that a span of Refs has: one page of 48 bytes
	// each. A Go release that packs them otherwise fails checkTracking.
	// Ref.slot holds any of them.
	refSlots = 1 << pageShift / unsafe.Sizeof(loneRef{})
)

// refSpan is a span in which there are Refs.
type refSpan struct {
	span    *spanHead
	start   uintptr
	class   uint8
	n       int              // handles that are not 0
	handles [refSlots]uint32 // by slot; 0: no Ref that the binding knows
}

var tracking struct {
	exact  bool       // checkTracking has passed
	pages  []*refSpan // by address
	spans  []*refSpan // all of pages
	last   *refSpan   // where the last Ref was put
	since  int        // Refs since the scheduler was last given a turn
	hooked bool
}

// turnEvery is how many Refs a goroutine makes before others get a turn: one
// that does nothing else would never let the collector's finalizers run.
const turnEvery = 1024

// track notes that r holds a handle.
func track(r *Ref) {
	hook()
	if !tracking.exact {
		if r.flags&refFinalizer == 0 {
			r.flags |= refFinalizer
			runtime.SetFinalizer(r, (*Ref).release)
		}
		return
	}
	s, slot := slotOf(r)
	r.slot, r.mark = uint8(slot), refMark
	if old := s.handles[slot]; old != 0 {
		s.handles[slot] = r.handle
		drop(old)
	} else {
		s.handles[slot] = r.handle
		s.n++
	}
	takeTurns(1)
}

// takeTurns lets others have a turn where many Refs, n more, have been made
// since.
func takeTurns(n int) {
	if tracking.since += n; tracking.since >= turnEvery {
		tracking.since = 0
		drain()
		runtime.Gosched()
	}
}

// untrack forgets r's handle, which r gives back or gives away.
func untrack(r *Ref) {
	if !tracking.exact {
		return
	}
	if s := tracking.pages[uintptr(unsafe.Pointer(r))>>pageShift]; s.handles[r.slot] == r.handle {
		s.handles[r.slot] = 0
		s.n--
	}
}

// slotOf returns where r lies.
func slotOf(r *Ref) (*refSpan, uintptr) {
	// Most come from the span that the last one came from.
	if s := tracking.last; s != nil && !s.gone() {
		if off := uintptr(unsafe.Pointer(r)) - s.start; off < 1<<pageShift {
			return s, off / unsafe.Sizeof(loneRef{})
		}
	}
	s, slot := findSlot(r)
	tracking.last = s
	return s, slot
}

func findSlot(r *Ref) (*refSpan, uintptr) {
	base, span, slot := findObject(uintptr(unsafe.Pointer(r)), 0, 0)
	page := int(base >> pageShift)
	for page >= len(tracking.pages) {
		tracking.pages = append(tracking.pages, nil)
	}
	s := tracking.pages[page]
	if s == nil {
		s = &refSpan{span: span, start: span.startAddr, class: span.spanclass}
		if other := tracking.pages[page]; other != nil { // another goroutine was as far
			return other, slot
		}
		tracking.pages[page] = s
		tracking.spans = append(tracking.spans, s)
	}
	if s.span != span || s.class != span.spanclass {
		// The span that was here is gone, and all that was in it.
		s.dropAll()
		s.span, s.class = span, span.spanclass
	}
	return s, slot
}

func (s *refSpan) dropAll() {
	for i, h := range s.handles {
		if h != 0 {
			s.handles[i] = 0
			s.n--
			drop(h)
		}
	}
}

// gone reports whether the span that s stands for is no more.
func (s *refSpan) gone() bool {
	return s.span.startAddr != s.start || s.span.state != spanInUse || s.span.spanclass != s.class
}

// sweepRefs drops the handles of Refs that are dead. It looks at a slot and
// empties it without a call between, so that no Ref can be put there meanwhile.
func sweepRefs() {
	for _, s := range tracking.spans {
		if s.n == 0 {
			continue
		}
		for i, h := range s.handles {
			if h == 0 {
				continue
			}
			if s.span.startAddr == s.start && s.span.state == spanInUse && s.span.spanclass == s.class &&
				(i < int(s.span.freeindex) || s.span.allocBits[i/8]>>(i%8)&1 != 0) &&
				looksLike(s.start+uintptr(i)*s.span.elemsize, h, i) {
				continue
			}
			s.handles[i] = 0
			s.n--
			drop(h)
		}
	}
}

// looksLike reports whether what lies at an address, in a slot in use, is the Ref
// that track put there with a handle: it begins with that, knows its slot, and has
// the mark.
func looksLike(at uintptr, handle uint32, slot int) bool {
	r := (*Ref)(unsafe.Pointer(at))
	return r.handle == handle && r.slot == uint8(slot) && r.mark == refMark
}

// forgetRefs forgets all handles; they were given back otherwise.
func forgetRefs() {
	for _, s := range tracking.spans {
		if s.n > 0 {
			s.n = 0
			clear(s.handles[:])
		}
	}
}

// A gcHook is garbage at once, so its finalizer runs after each collection.
type gcHook struct{ self *gcHook }

// hook has afterGC run after collections from now on.
func hook() {
	if !tracking.hooked {
		tracking.hooked = true
		hookGC()
	}
}

func hookGC() { runtime.SetFinalizer(&gcHook{}, func(*gcHook) { afterGC() }) }

// afterGC runs after each collection, when part of the heap has been swept.
// What is swept later is found after the next.
func afterGC() {
	sweepRefs()
	windowsAfterGC()
	flushDrops()
	hookGC()
}

// checkTracking finds out whether spans are what this file takes them for:
// after a collection, all Refs that are held are found to live, and those that
// are not are found dead.
func checkTracking() bool {
	const n = 1000
	held := make([]*Ref, 0, n/3+1)
	type place struct {
		s    *refSpan
		slot uintptr
		held bool
	}
	places := make([]place, 0, n)
	spans := map[*spanHead]*refSpan{}
	for i := range n {
		r := &new(loneRef).Ref
		base, span, slot := findObject(uintptr(unsafe.Pointer(r)), 0, 0)
		if span == nil || span.npages != 1 || span.state != spanInUse || uintptr(span.nelems) > refSlots ||
			span.elemsize != unsafe.Sizeof(loneRef{}) || span.startAddr+slot*span.elemsize != base || uintptr(unsafe.Pointer(r)) != base {
			return false
		}
		s := spans[span]
		if s == nil {
			s = &refSpan{span: span, start: span.startAddr, class: span.spanclass}
			spans[span] = s
		}
		places = append(places, place{s, slot, i%3 == 0})
		if i%3 == 0 {
			held = append(held, r)
		}
	}
	alive := func(p place) bool {
		return !p.s.gone() && (p.slot < uintptr(p.s.span.freeindex) || p.s.span.allocBits[p.slot/8]>>(p.slot%8)&1 != 0)
	}
	for _, p := range places {
		if !alive(p) {
			return false
		}
	}
	runtime.GC()
	dead := 0
	for _, p := range places {
		switch {
		case p.held && !alive(p):
			return false
		case !p.held && !alive(p):
			dead++
		}
	}
	runtime.KeepAlive(held)
	return dead > n/2 // of two thirds; a few slots may have been used again
}
