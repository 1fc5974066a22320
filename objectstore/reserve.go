package objectstore

import (
	"sync/atomic"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Reservation is room for one value. It is used once, by Put, Seal or Buffer,
// or given back by Cancel; using it twice panics. It may be passed between
// goroutines.
type Reservation struct {
	store *Store
	size  Size
	room  room
	used  atomic.Bool
}

// TryReserve returns room for size. Errors: as [Store.TryPut].
func (s *Store) TryReserve(size Size) (*Reservation, error) {
	r, err := s.take(size)
	if err != nil {
		return nil, err
	}
	return &Reservation{store: s, size: size, room: r}, nil
}

// Size returns what the reservation has room for.
func (r *Reservation) Size() Size { return r.size }

// use takes the room out, for v or, where v does not fit, for nothing.
func (r *Reservation) use(v Value) (room, error) {
	if r.used.Swap(true) {
		panic("BUG: objectstore: reservation used twice")
	}
	err := r.store.admits(&v)
	switch {
	case err != nil:
	case r.store.closed.Load():
		err = ErrClosed
	case v.Size() != r.size:
		err = wray.Errorf(wray.CodeInternal, "a value of %+v does not fit a reservation of %+v", v.Size(), r.size)
	}
	if err != nil {
		r.store.giveBack(r.room)
	}
	return r.room, err
}

// Put is [Store.TryPut] with the room of r, which is used up, on an error too.
// v must be of r's size.
func (r *Reservation) Put(id wray.ID, v Value) (*Object, error) {
	room, err := r.use(v)
	if err != nil {
		return nil, err
	}
	return r.store.putInto(id, v, room)
}

// Seal is [Object.TrySeal] with the room of r, which is used up, on an error
// too. v must be of r's size.
func (r *Reservation) Seal(o *Object, v Value) error {
	room, err := r.use(v)
	if err != nil {
		return err
	}
	return o.sealInto(v, room)
}

// Cancel gives the room back. After the reservation was used it does nothing.
func (r *Reservation) Cancel() {
	if !r.used.Swap(true) {
		r.store.giveBack(r.room)
	}
}

// Buffer turns r into memory to be filled in place. It uses r up.
func (r *Reservation) Buffer() *Buffer {
	if r.used.Swap(true) {
		panic("BUG: objectstore: reservation used twice")
	}
	b := &Buffer{store: r.store, size: r.size}
	b.body = r.store.place(nil, r.size.Payload, r.room)
	if g := b.body.segment; g != nil {
		g.populate(r.store.mem, r.size.Payload)
		g.finish(r.size.Payload)
	}
	return b
}

// Lendable turns r into memory that somebody else may fill in place, through a
// shared mapping of Memory: all of it is zero, so that who gets it sees nothing
// of earlier objects, and what is left untouched stays so. It uses r up.
// ErrNotMappable: there is no segment to be had, and the room is given back.
// step is as a Value's Step; when it panics the room is given back.
func (r *Reservation) Lendable(step func()) (*Buffer, error) {
	if r.used.Swap(true) {
		panic("BUG: objectstore: reservation used twice")
	}
	if r.room.length == 0 || r.store.cfg.Heap {
		r.store.giveBack(r.room)
		return nil, ErrNotMappable
	}
	b := &Buffer{store: r.store, size: r.size, lent: true}
	b.body = r.store.place(nil, r.size.Payload, r.room)
	g := b.body.segment
	if !g.mappable() {
		b.Discard()
		return nil, ErrNotMappable
	}
	whole := false
	defer func() {
		if !whole {
			b.Discard()
		}
	}()
	for stale := g.mem[:g.dirty]; len(stale) > 0; {
		n := min(len(stale), StepBytes)
		clearPreemptibly(stale[:n])
		if stale = stale[n:]; step != nil && len(stale) > 0 {
			step()
		}
	}
	whole = true
	g.dirty = max(g.dirty, roundUp(r.size.Payload, Align)) // all that is lent may be written
	return b, nil
}

// Buffer is a payload in the making. It belongs to one goroutine at a time and
// ends with Put, Seal or Discard.
type Buffer struct {
	store *Store
	size  Size
	body  body
	lent  bool // made by Lendable
	done  bool
}

// Len returns the length of the payload in bytes.
func (b *Buffer) Len() int64 { return b.size.Payload }

// Memory returns what is to be lent: the payload, and zeros after it to a
// multiple of Align. The buffer must come from Lendable, and what was mapped of
// its memory for writing must not be so any more when Put, Seal or Discard is
// called.
func (b *Buffer) Memory() []byte {
	b.mustBeOpen()
	if !b.lent {
		panic("BUG: objectstore: memory of a buffer that is not lendable")
	}
	return b.body.segment.mem[:roundUp(b.size.Payload, Align)]
}

// FD returns the descriptor of what Memory returns, under the conditions of
// [Window.FD]. Valid until Put, Seal or Discard.
func (b *Buffer) FD() int {
	b.mustBeOpen()
	return b.body.segment.fd
}

// Pin makes a window of the payload, which outlives the buffer. The buffer must
// come from Lendable.
func (b *Buffer) Pin() *Window {
	b.mustBeOpen()
	b.body.segment.users.Add(1) // not the first: the buffer is one
	b.store.windows.Add(1)
	return &Window{store: b.store, segment: b.body.segment, length: b.size.Payload}
}

// Truncate makes the payload n bytes long, no longer than it is. The room stays
// taken.
func (b *Buffer) Truncate(n int64) {
	b.mustBeOpen()
	if n < 0 || n > b.size.Payload {
		panic("BUG: objectstore: buffer truncated to more than it is")
	}
	b.size.Payload = n
	b.body.payload = b.body.payload[:n:n]
}

// Bytes returns the memory to fill, of the reserved length. The caller must
// write all of it: what is not written may hold bytes of an earlier object of
// the tenant. It must not be touched after Put, Seal or Discard.
func (b *Buffer) Bytes() []byte {
	b.mustBeOpen()
	return b.body.payload
}

// Put makes the sealed object id of what the buffer holds, with one reference,
// which the caller owns. The buffer is used up, on an error too. The number of
// refs must be the reserved one. Errors: as [Store.TryPut], less ErrFull.
func (b *Buffer) Put(id wray.ID, e abi.Encoding, meta uint32, refs []*Object) (*Object, error) {
	o := &Object{id: id, store: b.store, born: b.store.clock.Now()}
	o.refs.Store(1)
	if err := b.Seal(o, e, meta, refs); err != nil {
		return nil, err
	}
	if !b.store.index.add(o) {
		o.Release()
		return nil, ErrExists
	}
	return o, nil
}

// Seal gives the pending object o what the buffer holds. The buffer is used
// up, on an error too. The number of refs must be the reserved one. Errors: as
// [Object.TrySeal], less ErrFull.
func (b *Buffer) Seal(o *Object, e abi.Encoding, meta uint32, refs []*Object) error {
	b.mustBeOpen()
	err := b.store.admits(&Value{Encoding: e, Meta: meta, Payload: b.body.payload, Refs: refs})
	if err == nil && len(refs) != b.size.Refs {
		err = wray.Errorf(wray.CodeInternal, "%d references do not fit a reservation of %d", len(refs), b.size.Refs)
	}
	if err == nil {
		err = o.claim(refs)
	}
	if err != nil {
		b.Discard()
		return err
	}
	b.done = true
	if b.lent {
		b.body.segment.finish(b.size.Payload) // who filled it may have written past its end
	}
	o.fill(e, meta, refs, b.body)
	o.publish()
	return nil
}

// Discard gives the memory back. After the buffer was used it does nothing.
func (b *Buffer) Discard() {
	if b.done {
		return
	}
	b.done = true
	b.store.giveBackBody(b.body)
	b.store.grant()
}

func (b *Buffer) mustBeOpen() {
	if b.done {
		panic("BUG: objectstore: buffer used after its end")
	}
}

// place gives a payload of n bytes its memory in the room r, not filled. Tiny
// payloads live in o, where it is not nil.
func (s *Store) place(o *Object, n int64, r room) body {
	if r.length > 0 {
		g := r.segment
		if g == nil {
			g = s.newSegment(r)
		}
		if g != nil {
			g.users.Store(1)
			return body{payload: g.mem[:n:n], segment: g, charge: r.charge}
		}
		s.inHeap.Add(1)
	}
	b := body{charge: r.charge + r.length}
	if o != nil && n <= tinyMax {
		b.payload = o.tiny[:n:n]
	} else {
		b.payload = make([]byte, n)
	}
	return b
}

// copyIn gives the payload p its place in the room r. When step panics, the
// room is given back.
func (s *Store) copyIn(o *Object, p []byte, r room, step func()) body {
	if r.length == 0 {
		// As place, but without zeroing what is written next.
		return body{charge: r.charge, payload: append(o.tiny[:0], p...)}
	}
	b := s.place(o, int64(len(p)), r)
	if b.segment != nil {
		whole := false
		if step != nil {
			defer func() {
				if !whole {
					s.giveBackBody(b)
					s.grant()
				}
			}()
		}
		if s.cfg.Disk != nil && s.spill.presses(spillPresses) && len(p) >= InlineMax {
			b.sums = make([]uint32, chunksOf(uint64(len(p))))
		}
		b.segment.fill(s.mem, p, step, b.sums)
		whole = true
	} else {
		copyPreemptibly(b.payload, p)
	}
	return b
}

// giveBackBody returns what a payload took. The caller calls grant after.
func (s *Store) giveBackBody(b body) {
	if b.segment != nil {
		s.unuse(b.segment)
	}
	s.space.committed.Add(-b.charge)
}
