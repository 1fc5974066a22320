package objectstore

import (
	"os"
	"sync/atomic"
)

// Window keeps an object's segment as it is while pages of it are mapped
// somewhere: in a guest's memory, or in another process that got a descriptor.
// It outlives the object.
//
// Map it private and copy-on-write. Private pages that were not written are
// still the segment's own, so they would show its next payload: what was
// mapped must be mapped over or unmapped before Unpin.
type Window struct {
	store    *Store
	segment  *segment
	length   int64
	unpinned atomic.Bool
}

// Pin makes a window of the object's payload. ErrNotMappable: it has no
// segment; copy it instead. ErrSpilled: it is on disk. Panics for a pending
// object.
func (o *Object) Pin() (*Window, error) {
	o.mustBeFinal()
	if r := o.residence; r != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.residentLocked() {
			return nil, ErrSpilled
		}
		r.touched.Store(true)
	}
	g := o.segment
	if !g.mappable() {
		return nil, ErrNotMappable
	}
	g.users.Add(1) // not the first: the object itself is one
	o.store.windows.Add(1)
	return &Window{store: o.store, segment: g, length: o.length}, nil
}

// FD returns the descriptor of the segment, in which the payload begins at
// offset 0. It is the store's: it is valid until Unpin and must not be closed,
// written to or passed on.
func (w *Window) FD() int {
	w.mustBePinned()
	return w.segment.fd
}

// Len returns the length of the payload in bytes.
func (w *Window) Len() int64 { return w.length }

// MapLen returns how many bytes may be mapped: Len rounded up to Align. What
// is past Len is zero.
func (w *Window) MapLen() int64 { return roundUp(w.length, Align) }

// Bytes returns what a mapping of n bytes from offset off shows, as far as the
// payload and the zeros after it go. It is valid until Unpin and must not be
// written to.
func (w *Window) Bytes(off, n int64) []byte {
	w.mustBePinned()
	most := w.MapLen()
	return w.segment.mem[min(off, most):min(off+n, most)]
}

// File returns a duplicate of the descriptor for another process of the
// tenant, which can map and read it and not write. It shows the whole segment:
// past MapLen there may be bytes of earlier objects. The caller closes the
// file, and unpins when the receiver has closed its own.
func (w *Window) File() (*os.File, error) {
	w.mustBePinned()
	w.segment.noWrite.Store(true)
	w.store.mem.sealWrites(w.segment.fd)
	return duplicate(w.segment.fd)
}

// Lend returns a duplicate of the descriptor for the process that started this
// one, which reads the first Len bytes and is trusted not to write. The caller
// closes the file, and unpins when the receiver has closed its own.
func (w *Window) Lend() (*os.File, error) {
	w.mustBePinned()
	return duplicate(w.segment.fd)
}

// Again makes another window of the same.
func (w *Window) Again() *Window {
	w.mustBePinned()
	w.segment.users.Add(1) // not the first: w is one
	w.store.windows.Add(1)
	return &Window{store: w.store, segment: w.segment, length: w.length}
}

// Unpin ends the window. Panics when it has ended before.
func (w *Window) Unpin() {
	if w.unpinned.Swap(true) {
		panic("BUG: objectstore: window unpinned twice")
	}
	w.store.windows.Add(-1)
	w.store.unuse(w.segment)
	w.store.grant()
}

func (w *Window) mustBePinned() {
	if w.unpinned.Load() {
		panic("BUG: objectstore: window used after Unpin")
	}
}
