package objectstore

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

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
// A Handles is not for concurrent use, but for Walk: whoever runs the sandbox
// owns it. Giving handles back may run callbacks of those who wait for room;
// they must not use the same table.
//
// A table is filled by Add, which chooses the numbers, or by Set, whose caller
// does: a client that names what it will get saves the way back.
//
// A number is used again, soonest the one given back last. Within a sandbox
// that confuses nothing but the guest that uses a handle it has dropped, and
// even that one reaches only what the sandbox holds. What the host keeps for a
// handle across the guest's turns, such as an event not yet read, it keeps
// with the handle's Tag, which no other use of the number has, and drops when
// Live is false.
type Handles struct {
	// Clock, where it is not nil, tells what Walk says of when handles were made.
	Clock *Clock

	mu    sync.Mutex // held by the owner to change slots, and by Walk to read them
	slots []slot     // slots[h] is handle h; slots[0] is none
	free  uint32     // the first free slot; 0: none
	n     int        // handles in use
	limit int
	tag   uint32 // of the handle made last
}

// slot is a handle in use where ref is not nil, else a link of the free list.
type slot struct {
	ref  Ref
	tag  uint32
	next uint32 // the next free slot; of a handle in use, when it was made
}

// ErrHandleUsed says that a handle is there already, or that no handle can have
// the number.
var ErrHandleUsed = errors.New("objectstore: the number is no free handle")

// keepSlots is how long a table may be that stays allocated across Reset.
const keepSlots = 1 << 10

// NewHandles returns a table of at most limit handles; 0: as many as memory
// holds.
func NewHandles(limit int) *Handles { return &Handles{limit: limit} }

// Room returns how many handles more there may be.
func (t *Handles) Room() int {
	if t.limit == 0 {
		return math.MaxInt
	}
	return t.limit - t.n
}

// Len returns the number of handles in use.
func (t *Handles) Len() int { return t.n }

// Add makes a handle for r and takes over the caller's reference. On an error,
// a *wray.Error of CodeLimitExceeded, the reference stays the caller's.
func (t *Handles) Add(r Ref) (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addLocked(r, t.Clock.Now())
}

// AddAll makes a handle for each of objects, of which it calls put with the
// index, and gives each handle a reference of its own. On an error, which is
// Add's, it made none, whatever put was told. put must not use the table.
func (t *Handles) AddAll(objects []*Object, put func(i int, h uint32)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit > 0 && len(objects) > t.limit-t.n {
		return t.full()
	}
	now := t.Clock.Now()
	for i, o := range objects {
		if i%Ahead == 0 {
			for _, o := range objects[i:min(i+Ahead, len(objects))] {
				o.References()
			}
		}
		h, err := t.addLocked(o, now)
		if err != nil {
			panic("BUG: objectstore: no room for a handle in a table that has it")
		}
		o.Retain()
		put(i, h)
	}
	return nil
}

// Ahead is of how many objects the count is read (References) before it is
// changed, where many are. A processor fetches what plain reads ask for side by
// side, but waits for each atomic change before it goes on, and many objects lie
// in memory that no cache holds.
const Ahead = 32

func (t *Handles) addLocked(r Ref, now uint32) (uint32, error) {
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
	t.slots[h] = slot{ref: r, tag: t.tag, next: now}
	return h, nil
}

// Set makes h, which the caller chooses, a handle for r, and takes over the
// caller's reference. On an error the reference stays the caller's:
// ErrHandleUsed, or as Add's where h is beyond the limit. The table takes memory
// for the greatest number in it.
func (t *Handles) Set(h uint32, r Ref) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case h == 0 || t.slot(h) != nil:
		return ErrHandleUsed
	case t.limit > 0 && uint64(h) > uint64(t.limit):
		return t.full()
	}
	if n := int(h) + 1 - len(t.slots); n > 0 {
		t.slots = append(t.slots, make([]slot, n)...)
	}
	t.n++
	t.tag++
	t.slots[h] = slot{ref: r, tag: t.tag, next: t.Clock.Now()}
	return nil
}

// Walk calls f for each handle, with when it was made by Clock. Any goroutine
// may call it; f must not use the table, and r is good while f runs.
func (t *Handles) Walk(f func(h uint32, r Ref, since uint32)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h := range t.slots {
		if s := &t.slots[h]; s.ref != nil {
			f(uint32(h), s.ref, s.next)
		}
	}
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
	t.remove(h, s).Release()
	return true
}

// remove takes h, whose slot s is, out of the table.
func (t *Handles) remove(h uint32, s *slot) Ref {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := s.ref
	t.removeLocked(h, s)
	return r
}

func (t *Handles) removeLocked(h uint32, s *slot) {
	*s = slot{next: t.free}
	t.free = h
	t.n--
}

// DropAll drops each of hs, and returns how many were no handles.
func (t *Handles) DropAll(hs []uint32) (bad int) {
	taken := t.TakeAll(hs, nil)
	for _, r := range taken {
		r.Release()
	}
	return len(hs) - len(taken)
}

// Take gives h back and hands its reference to the caller. False: h is no
// handle.
func (t *Handles) Take(h uint32) (Ref, bool) {
	s := t.slot(h)
	if s == nil {
		return nil, false
	}
	return t.remove(h, s), true
}

// TakeAll is Take for each of hs. It appends the references to into, in their
// order; numbers that are no handles add nothing. The counts of objects are read
// ahead (Ahead).
func (t *Handles) TakeAll(hs []uint32, into []Ref) []Ref {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range hs {
		s := t.slot(h)
		if s == nil {
			continue
		}
		if o, ok := s.ref.(*Object); ok {
			o.References()
		}
		into = append(into, s.ref)
		t.removeLocked(h, s)
	}
	return into
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

// Clone returns a table of the same handles, with a reference of its own for
// each, that chooses the same numbers from here on.
func (t *Handles) Clone() *Handles {
	c := &Handles{Clock: t.Clock}
	c.Become(t)
	return c
}

// Become gives all handles back, and has those of the table from, which is
// another one, from then on. Others may Walk it meanwhile.
func (t *Handles) Become(from *Handles) {
	t.Reset()
	from.mu.Lock()
	free, n, limit, tag, slots := from.free, from.n, from.limit, from.tag, slices.Clone(from.slots)
	for i := range slots {
		if r := slots[i].ref; r != nil {
			r.Retain()
		}
	}
	from.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free, t.n, t.limit, t.tag, t.slots = free, n, limit, tag, slots
}

// Reset gives all handles back.
func (t *Handles) Reset() {
	if rest := t.ResetSome(math.MaxInt); rest != nil {
		rest()
	}
}

// ResetSome is Reset that leaves the references beyond about the first n of
// them to the caller: rest, where it is not nil, gives them back, in any
// goroutine. The table is empty when it returns.
func (t *Handles) ResetSome(n int) (rest func()) {
	t.mu.Lock()
	slots := t.slots
	t.free, t.n = 0, 0
	if len(slots) > keepSlots {
		t.slots = nil
	} else {
		t.slots = slots[:0]
	}
	t.mu.Unlock()
	release := func(slots []slot) {
		for i := range slots {
			if r := slots[i].ref; r != nil {
				slots[i] = slot{}
				r.Release()
			}
		}
	}
	if n = max(n, keepSlots); n >= len(slots) { // a table that is kept is cleared here
		release(slots)
		return nil
	}
	release(slots[:n])
	return func() { release(slots[n:]) }
}
