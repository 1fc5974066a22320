package objectstore

import (
	"fmt"

	wray "github.com/wray-project/wray"
)

// Ref is what a handle stands for: an [*Object], a [*Stream], or whatever else
// is counted.
type Ref interface {
	Retain()
	Release()
}

// HandlesFlag is the flag that the error of a full table names as the remedy.
const HandlesFlag = "--max-handles"

// Handles is the table from small positive integers to what they stand for, as
// a process has one of file descriptors: a sandbox names objects by handles
// alone, so it reaches no object that it was not given. Each handle owns one
// reference. The zero Handles has no limit.
//
// A Handles is not for concurrent use: whoever runs the sandbox owns it. Giving
// handles back may run callbacks of those who wait for room; they must not use
// the same table.
//
// A number is used again, soonest the one given back last. Within a sandbox
// that confuses nothing but the guest that uses a handle it has dropped, and
// even that one reaches only what the sandbox holds. What the host keeps for a
// handle across the guest's turns, such as an event not yet read, it keeps
// with the handle's Tag, which no other use of the number has, and drops when
// Live is false.
type Handles struct {
	slots []slot // slots[h] is handle h; slots[0] is none
	free  uint32 // the first free slot; 0: none
	n     int    // handles in use
	limit int
	tag   uint32 // of the handle made last
}

// slot is a handle in use where ref is not nil, else a link of the free list.
type slot struct {
	ref  Ref
	tag  uint32
	next uint32
}

// keepSlots is how long a table may be that stays allocated across Reset.
const keepSlots = 1 << 10

// NewHandles returns a table of at most limit handles; 0: as many as memory
// holds.
func NewHandles(limit int) *Handles { return &Handles{limit: limit} }

// Len returns the number of handles in use.
func (t *Handles) Len() int { return t.n }

// Add makes a handle for r and takes over the caller's reference. On an error,
// a *wray.Error of CodeLimitExceeded, the reference stays the caller's.
func (t *Handles) Add(r Ref) (uint32, error) {
	h := t.free
	if h != 0 {
		t.free = t.slots[h].next
	} else {
		if t.limit > 0 && t.n >= t.limit {
			return 0, t.full()
		}
		if len(t.slots) == 0 {
			t.slots = append(t.slots, slot{})
		}
		h = uint32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	t.n++
	t.tag++
	t.slots[h] = slot{ref: r, tag: t.tag}
	return h, nil
}

func (t *Handles) full() *wray.Error {
	return &wray.Error{
		Code:    wray.CodeLimitExceeded,
		Message: fmt.Sprintf("the sandbox holds %d handles", t.n),
		Limit:   &wray.Limit{Name: "handles", Value: int64(t.limit), Flag: HandlesFlag},
		Hint:    "drop references that are no longer needed, or raise the limit with " + HandlesFlag,
	}
}

// slot returns the slot of a handle in use, or nil. h may be any number.
func (t *Handles) slot(h uint32) *slot {
	if uint64(h) >= uint64(len(t.slots)) || t.slots[h].ref == nil {
		return nil
	}
	return &t.slots[h]
}

// Get returns what h stands for. The reference stays the table's: the caller
// retains what it keeps past the next change of the table.
func (t *Handles) Get(h uint32) (Ref, bool) {
	s := t.slot(h)
	if s == nil {
		return nil, false
	}
	return s.ref, true
}

// Object returns the object that h stands for, as Get does. False: h is no
// handle, or not one of an object.
func (t *Handles) Object(h uint32) (*Object, bool) {
	s := t.slot(h)
	if s == nil {
		return nil, false
	}
	o, ok := s.ref.(*Object)
	return o, ok
}

// Stream returns the stream that h stands for, as Get does. False: h is no
// handle, or not one of a stream.
func (t *Handles) Stream(h uint32) (*Stream, bool) {
	s := t.slot(h)
	if s == nil {
		return nil, false
	}
	st, ok := s.ref.(*Stream)
	return st, ok
}

// Dup makes another handle for what h stands for. False: h is no handle. The
// error is Add's.
func (t *Handles) Dup(h uint32) (uint32, bool, error) {
	s := t.slot(h)
	if s == nil {
		return 0, false, nil
	}
	r := s.ref
	r.Retain()
	d, err := t.Add(r)
	if err != nil {
		r.Release()
	}
	return d, true, err
}

// Drop gives h and its reference back. False: h is no handle.
func (t *Handles) Drop(h uint32) bool {
	s := t.slot(h)
	if s == nil {
		return false
	}
	r := s.ref
	*s = slot{next: t.free}
	t.free = h
	t.n--
	r.Release()
	return true
}

// DropAll drops each of hs, and returns how many were no handles.
func (t *Handles) DropAll(hs []uint32) (bad int) {
	for _, h := range hs {
		if !t.Drop(h) {
			bad++
		}
	}
	return bad
}

// Take gives h back and hands its reference to the caller. False: h is no
// handle.
func (t *Handles) Take(h uint32) (Ref, bool) {
	s := t.slot(h)
	if s == nil {
		return nil, false
	}
	r := s.ref
	*s = slot{next: t.free}
	t.free = h
	t.n--
	return r, true
}

// Tag returns a number that no other use of the handle h has, short of 2^32
// handles later, or 0 where h is no handle.
func (t *Handles) Tag(h uint32) uint32 {
	s := t.slot(h)
	if s == nil {
		return 0
	}
	return s.tag
}

// Live reports whether h is the same use of the number as when Tag returned
// tag.
func (t *Handles) Live(h, tag uint32) bool {
	s := t.slot(h)
	return s != nil && s.tag == tag
}

// Reset gives all handles back.
func (t *Handles) Reset() {
	slots := t.slots
	t.free, t.n = 0, 0
	if len(slots) > keepSlots {
		t.slots = nil
	} else {
		t.slots = slots[:0]
	}
	for i := range slots {
		if r := slots[i].ref; r != nil {
			slots[i] = slot{}
			r.Release()
		}
	}
}
