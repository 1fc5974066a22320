package objectstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// ErrSpilled says that an object's payload is on disk. [Object.Fetch] brings
// it back.
var ErrSpilled = errors.New("objectstore: object is on disk")

// View is a payload that is kept where it lies, in memory, until the view is
// closed: it may outlive the object. The zero View is closed. A View belongs
// to one goroutine at a time.
type View struct {
	store   *Store
	segment *segment // counts the view; nil where the payload is in the heap
	payload []byte
}

// Bytes returns the payload. It must not be written to, nor read after Close.
func (v View) Bytes() []byte { return v.payload }

// Close ends the view. It is idempotent.
func (v *View) Close() {
	s, g := v.store, v.segment
	*v = View{}
	if g != nil {
		s.unuse(g)
		s.grant()
	}
}

// residence says where the payload of an object is that may go before the
// object does: to disk, or for good. Only objects of InlineMax and more have
// one, and none that is a failure: what tells why something failed is always at
// hand.
//
// Object.payload, segment and charge of such an object are guarded by
// Object.mu, as is everything here that is not marked otherwise.
type residence struct {
	object  *Object
	source  Source      // keeps the payload at another node; nil: none does. Never changes
	sums    []uint32    // of the payload's chunks, taken as it was put; nil: not. Never changes
	touched atomic.Bool // used since the spiller last came by
	lost    atomic.Pointer[lostPayload]

	copy     diskCopy // of the payload; may be there while it is in memory too
	heap     int64    // of Object.charge, what a payload in the heap takes
	kept     bool     // Bytes gave the payload out: it stays in memory
	away     bool     // counted in spiller.away
	fetching bool     // on its way back, with a reference on the object
	fetches  []*fetch
	withdraw func() bool // takes the fetch out of the queue for room

	// Guarded by spiller.mu.
	prev, next *residence
	listed     bool
}

// lostPayload is what stands for a payload that disk did not keep.
type lostPayload struct {
	err     *wray.Error
	encoded []byte
}

// fetch is somebody who waits for a payload.
type fetch struct {
	told func(View, error)
}

// View returns the payload, kept in memory until the view is closed.
// ErrSpilled: it is on disk. What disk lost is an ERROR value, as Info says.
// Panics for a pending object.
func (o *Object) View() (View, error) {
	o.mustBeFinal()
	if o.residence == nil {
		return o.viewLocked(), nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.residentLocked() {
		return View{}, ErrSpilled
	}
	return o.viewLocked(), nil
}

// residentLocked reports whether there is something to view. mu is held.
func (o *Object) residentLocked() bool {
	return o.payload != nil || o.lost() != nil
}

// viewLocked makes a view of a payload that is there. mu is held where the
// object has a residence.
func (o *Object) viewLocked() View {
	if l := o.lost(); l != nil {
		return View{payload: l.encoded}
	}
	if r := o.residence; r != nil {
		r.touched.Store(true)
	}
	if o.segment == nil {
		return View{payload: o.payload}
	}
	o.segment.users.Add(1) // not the first: the object itself is one
	return View{store: o.store, segment: o.segment, payload: o.payload}
}

// Away reports whether the payload is on disk alone. Panics for a pending
// object.
func (o *Object) Away() bool {
	o.mustBeFinal()
	if o.residence == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.residentLocked()
}

// Fetch has told called, once, with a view of the payload, which told owns:
// at once, before Fetch returns, where the payload is in memory; else when it
// was read from disk, in another goroutine, which told must not block. It is
// called with an error instead where the store closes. Panics for a pending
// object.
//
// Reading needs room, which others may have to make. Those who read are served
// before those who put: what they wait for may be what lets others go on.
//
// The result withdraws the wait. True: told was not and will not be called.
func (o *Object) Fetch(told func(View, error)) (cancel func() bool) {
	o.mustBeFinal()
	r := o.residence
	if r == nil {
		told(o.viewLocked(), nil)
		return func() bool { return false }
	}
	o.mu.Lock()
	if o.residentLocked() {
		v := o.viewLocked()
		o.mu.Unlock()
		told(v, nil)
		return func() bool { return false }
	}
	f := &fetch{told: told}
	r.fetches = append(r.fetches, f)
	start := !r.fetching
	if start {
		r.fetching = true
		o.Retain() // given back by fetched, or by who withdraws
	}
	o.mu.Unlock()
	if start {
		o.startFetch()
	}
	return func() bool { return r.cancel(f) }
}

// WaitView returns a view of the payload, waiting for it where it is on disk,
// until ctx ends: then the error is its cause.
func (o *Object) WaitView(ctx context.Context) (View, error) {
	type answer struct {
		v   View
		err error
	}
	c := make(chan answer, 1)
	cancel := o.Fetch(func(v View, err error) { c <- answer{v, err} })
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		if !cancel() {
			a := <-c
			a.v.Close()
		}
		return View{}, context.Cause(ctx)
	}
}

// startFetch asks for the room that the payload needs.
func (o *Object) startFetch() {
	s := o.store
	withdraw := s.onSpace(Size{Payload: o.length}, true, func(rv *Reservation, err error) {
		switch {
		case err != nil:
			o.fetched(body{}, err)
		case !s.start(func() { s.restore(o, rv) }):
			rv.Cancel()
			o.fetched(body{}, ErrClosed)
		}
	})
	o.mu.Lock()
	if o.residence.fetching {
		o.residence.withdraw = withdraw
	}
	o.mu.Unlock()
	o.residence.endIdle() // who waited may have left before there was something to withdraw
}

// cancel withdraws f, and the whole fetch where nobody else waits for it.
func (r *residence) cancel(f *fetch) bool {
	r.object.mu.Lock()
	at := slices.Index(r.fetches, f)
	if at >= 0 {
		r.fetches = slices.Delete(r.fetches, at, at+1)
	}
	r.object.mu.Unlock()
	if at < 0 {
		return false
	}
	r.endIdle()
	return true
}

// endIdle withdraws a fetch that nobody waits for any more.
func (r *residence) endIdle() {
	o := r.object
	o.mu.Lock()
	withdraw := r.withdraw
	if len(r.fetches) > 0 || withdraw == nil {
		o.mu.Unlock()
		return
	}
	r.withdraw = nil
	o.mu.Unlock()
	// The queue's callback takes mu, so it must be free here. Who asks for the
	// payload meanwhile finds the fetch under way, and begins it anew below.
	if !withdraw() {
		return
	}
	o.mu.Lock()
	again := len(r.fetches) > 0
	r.fetching = again
	o.mu.Unlock()
	if again {
		o.startFetch()
	} else {
		o.Release()
	}
}

// fetched ends a fetch: with the payload in its place, with an error, or, where
// both are nothing, with the note that the payload is lost.
func (o *Object) fetched(b body, err error) {
	r := o.residence
	o.mu.Lock()
	vain := b.payload != nil && r.lost.Load() != nil // it was freed meanwhile
	var c diskCopy
	if vain {
		c, r.copy = r.copy, diskCopy{}
	} else if b.payload != nil {
		o.payload, o.segment = b.payload, b.segment
		o.charge += b.charge
		if b.segment == nil {
			r.heap = b.charge
		}
	}
	fetches := r.fetches
	r.fetches, r.fetching, r.withdraw = nil, false, nil
	views := make([]View, len(fetches))
	if err == nil {
		for i := range views {
			views[i] = o.viewLocked()
		}
	}
	o.mu.Unlock()
	if vain {
		o.store.giveBackBody(b)
		o.store.grant()
		o.store.discard(c)
	} else if b.payload != nil {
		o.store.spill.enter(r)
	}
	for i, f := range fetches {
		f.told(views[i], err)
	}
	o.Release()
}

// restore reads the payload of o into the room that rv reserves, and tells who
// waits.
func (s *Store) restore(o *Object, rv *Reservation) {
	o.mu.Lock()
	remote := o.residence.source != nil && o.residence.copy.batch == nil
	o.mu.Unlock()
	if remote {
		s.readRemote(o, rv)
		return
	}
	s.spill.readers <- struct{}{}
	defer func() { <-s.spill.readers }()
	o.mu.Lock()
	c := o.residence.copy
	o.mu.Unlock()
	b := rv.Buffer()
	err := readRecord(c.batch, c.off, c.data, c.index, o.id, b.Bytes())
	if err != nil {
		if name, ok := c.batch.Batch.(fmt.Stringer); ok && errors.Is(err, ErrBadRecord) {
			err = fmt.Errorf("%s: %w", name, err)
		}
		b.Discard()
		o.lose(err)
		o.fetched(body{}, nil)
		return
	}
	s.spill.restored.Add(o.length)
	o.mu.Lock()
	o.isBackLocked()
	o.mu.Unlock()
	b.done = true // the object owns the memory from here on
	o.fetched(b.body, nil)
}

// lose makes the object an ERROR value, as its payload cannot be had again.
func (o *Object) lose(err error) {
	e := &wray.Error{
		Code: wray.CodeObjectLost,
		Message: fmt.Sprintf("an object of %d bytes was moved to disk for want of memory, and cannot be read back: %v",
			o.length, err),
		Hint: "run the program again; if it comes back, check the disk, name another with " + SpillDirFlag +
			", or give the store more memory with " + CapacityFlag,
	}
	if why := (*wray.Error)(nil); errors.As(err, &why) && why.Hint != "" {
		e.Hint = why.Hint
	}
	o.loseTo(e)
}

// loseTo makes the object the ERROR value e.
func (o *Object) loseTo(e *wray.Error) {
	o.mu.Lock()
	if o.residence.lost.Load() == nil {
		o.residence.lost.Store(&lostPayload{err: e, encoded: EncodeFailure(e)})
	}
	c := o.residence.copy
	o.residence.copy = diskCopy{}
	o.isBackLocked()
	o.mu.Unlock()
	o.store.spill.lost.Add(1)
	o.store.discard(c)
}

// keep pins the payload in memory for as long as the object lives.
func (o *Object) keep() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l := o.residence.lost.Load(); l != nil {
		return l.encoded
	}
	if o.payload == nil {
		panic("BUG: objectstore: read of object " + o.id.String() + ", which is on disk")
	}
	o.residence.kept = true
	return o.payload
}

// settle gives o a residence where it may be moved to disk. Its payload is in
// its place; sums are of its chunks, if they were taken.
func (o *Object) settle(sums []uint32) {
	s := o.store
	if o.length < InlineMax || o.encoding == abi.EncodingError {
		return
	}
	o.residence = &residence{object: o, sums: sums}
	if o.segment == nil {
		o.residence.heap = o.charge - int64(len(o.table))*refCost
	}
	s.spill.enter(o.residence)
}

// detach takes the payload out of memory, where it has a copy on disk and
// nobody but the spiller uses it, and reports whether it did. views is how
// many views the caller has.
func (o *Object) detach(views int32) bool {
	s := o.store
	o.mu.Lock()
	r, g := o.residence, o.segment
	if r.kept || r.copy.batch == nil || r.lost.Load() != nil || g != nil && g.users.Load() != 1+views {
		o.mu.Unlock()
		return false
	}
	heap := int64(0)
	if g == nil {
		heap = r.heap
		o.charge -= heap
		r.heap = 0
	}
	o.payload, o.segment, r.away = nil, nil, true
	s.spill.away.Add(1)
	o.mu.Unlock()
	if g != nil {
		s.unuse(g)
	}
	s.space.committed.Add(-heap)
	return true
}

// users returns how many pins and views of the payload there are, and whether
// it is on disk alone.
func (o *Object) users() (n int, away bool) {
	if r := o.residence; r != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		away = !o.residentLocked()
	}
	if g := o.segment; g != nil {
		n = int(g.users.Load()) - 1
	}
	return n, away
}

// isBackLocked takes o out of the count of those on disk. mu is held.
func (o *Object) isBackLocked() {
	if o.residence.away {
		o.residence.away = false
		o.store.spill.away.Add(-1)
	}
}

// lost returns what stands for a payload that disk did not keep, or that was
// freed; nil for every other.
func (o *Object) lost() *lostPayload {
	if r := o.residence; r != nil {
		return r.lost.Load()
	}
	return o.freed.Load()
}

// Free drops the object's payload now, wherever it is, whoever has references:
// who reads the object from now on finds an ERROR value of code ObjectLost that
// says so. Windows and views keep the memory that they show until they end, and
// a payload below InlineMax goes with the object. A failure stays what it is.
// Panics for a pending object.
func (o *Object) Free() {
	o.mustBeFinal()
	if o.encoding == abi.EncodingError {
		return
	}
	e := &wray.Error{Code: wray.CodeObjectLost, Message: fmt.Sprintf("the value, of %d bytes, was freed", o.length),
		Hint: "free a value when nobody is to read it any more"}
	l := &lostPayload{err: e, encoded: EncodeFailure(e)}
	s, r := o.store, o.residence
	if r == nil {
		o.freed.CompareAndSwap(nil, l)
		return
	}
	o.mu.Lock()
	if r.lost.Load() != nil {
		o.mu.Unlock()
		return
	}
	r.lost.Store(l)
	var b body
	if !r.kept {
		b.segment = o.segment
		if b.segment == nil {
			b.charge, r.heap = r.heap, 0
			o.charge -= b.charge
		}
		o.payload, o.segment = nil, nil
	}
	var c diskCopy
	if !r.fetching { // else it is being read, and goes when that is over
		c, r.copy = r.copy, diskCopy{}
	}
	o.isBackLocked()
	o.mu.Unlock()
	s.spill.forget(r)
	s.giveBackBody(b)
	s.grant()
	s.discard(c)
}
