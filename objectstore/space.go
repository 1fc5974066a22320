package objectstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	wray "github.com/wray-project/wray"
)

// Bytes that are counted for an object besides its payload, so that a guest
// that puts empty objects for ever meets the capacity too.
const (
	objectCost = 256 // Object, its place in the index, a handle
	refCost    = 8
)

// space counts bytes and keeps the queue of those who wait for some.
//
// Invariant: committed is what all objects were charged, plus the sizes of all
// segments alive, in use or pooled, plus what reservations hold; it is at most
// limit but for what takeAnyway added.
type space struct {
	limit     int64
	committed atomic.Int64
	peak      atomic.Int64
	granted   atomic.Int64 // waiters served, ever
	waiting   atomic.Int32 // waiters in queue; written with mu held

	mu       sync.Mutex
	head     *waiter // guarded by mu, as is all that follows
	tail     *waiter
	urgent   *waiter // the last urgent one, or nil
	granting bool    // a goroutine serves the queue
	again    bool    // it is to look once more
}

// waiter is somebody in the queue, which is served in order of arrival.
type waiter struct {
	size Size
	told func(*Reservation, error)
	// urgent: before all that are not.
	urgent bool

	next, prev *waiter // guarded by space.mu, as is queued
	queued     bool
}

// room is what a value may take: bytes counted for it, and perhaps a segment.
// It is used up by copyIn or giveBack, exactly once.
type room struct {
	charge  int64    // for the object, segment apart
	class   int      // of its segment; noClass where it has none or an odd one
	length  int64    // of its segment; 0 where the payload lives in the heap
	segment *segment // from the pool; nil where it is yet to be made
}

// want returns the room that size needs, nothing of it taken yet.
func (s *Store) want(size Size) room {
	r := room{charge: int64(size.Refs) * refCost, class: noClass}
	if size.Payload < InlineMax {
		r.charge += objectCost + size.Payload
		return r
	}
	r.class, r.length = classFor(size.Payload)
	if r.charge+r.length > s.cfg.Capacity {
		// The class's rounding is what does not fit: take what the payload
		// needs, and do without the pool.
		r.class, r.length = noClass, roundUp(size.Payload, Align)
	}
	return r
}

// add counts n bytes more unless they go beyond the limit.
func (p *space) add(n int64) bool {
	for {
		c := p.committed.Load()
		if c+n > p.limit {
			return false
		}
		if p.committed.CompareAndSwap(c, c+n) {
			p.notePeak(c + n)
			return true
		}
	}
}

// addAnyway counts n bytes more.
func (p *space) addAnyway(n int64) { p.notePeak(p.committed.Add(n)) }

func (p *space) notePeak(c int64) {
	for {
		old := p.peak.Load()
		if c <= old || p.peak.CompareAndSwap(old, c) {
			return
		}
	}
}

// take returns room for size. Those who wait go first, except before payloads
// without a segment: results and errors are mostly such, memory often comes
// back only once they are delivered, and they are too small to starve a large
// one that the pressure they cause frees memory for.
func (s *Store) take(size Size) (room, error) {
	if s.closed.Load() {
		return room{}, ErrClosed
	}
	r := s.want(size)
	if r.charge+r.length > s.cfg.Capacity {
		return room{}, s.tooLarge(size)
	}
	if r.length == 0 || s.space.waiting.Load() == 0 {
		if s.fit(&r) {
			if r.length > 0 && s.spill.presses(spillAhead) && s.shortfall() > s.batchSize()/4 {
				s.relieve() // so that writing goes on while others put
			}
			return r, nil
		}
	}
	s.pressure(r.charge + r.length)
	return room{}, ErrFull
}

// takeAnyway returns room for a small size, full store or not.
func (s *Store) takeAnyway(size Size) room {
	r := s.want(size)
	s.space.addAnyway(r.charge + r.length)
	return r
}

// fit takes the room r, closing pooled segments where they are in the way.
func (s *Store) fit(r *room) bool {
	for !s.fitOnce(r) {
		if !s.evict(s.space.committed.Load() + r.charge + r.length - s.space.limit) {
			return false
		}
	}
	return true
}

// fitOnce takes the room r if it is there.
func (s *Store) fitOnce(r *room) bool {
	if !s.space.add(r.charge) {
		return false
	}
	if r.length == 0 {
		return true
	}
	// A pooled segment's bytes are committed since it was made.
	if r.segment = s.pool.get(r.class); r.segment != nil {
		return true
	}
	if s.space.add(r.length) {
		return true
	}
	s.space.committed.Add(-r.charge)
	return false
}

// giveBack returns room that was not used.
func (s *Store) giveBack(r room) {
	s.space.committed.Add(-r.charge)
	switch {
	case r.segment != nil:
		s.recycle(r.segment)
	case r.length > 0:
		s.space.committed.Add(-r.length)
	}
	s.grant()
}

// pressure tells the owner of the store that n bytes are missed, and the
// spiller, which gives holders of handles time to drop some.
func (s *Store) pressure(n int64) {
	s.spill.pressed.Store(time.Now().UnixNano())
	s.relieve()
	if s.cfg.OnPressure != nil {
		s.cfg.OnPressure(n)
	}
}

// tooLarge is the final refusal of what no waiting can make room for.
func (s *Store) tooLarge(size Size) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeStoreFull,
		Message: fmt.Sprintf("an object of %d bytes is larger than the object store", size.Payload),
		Limit:   &wray.Limit{Name: "object store memory", Value: s.cfg.Capacity, Unit: "bytes", Flag: CapacityFlag},
		Hint:    "put it in parts, or give the store more memory with " + CapacityFlag,
	}
}

// Progress is a mark of what moves in a store: where two are the same, nobody
// who waits for room has come nearer to it in between.
type Progress struct{ granted, committed, spilled, restored int64 }

// Progress returns the mark of now.
func (s *Store) Progress() Progress {
	return Progress{s.space.granted.Load(), s.space.committed.Load(), s.spill.spilled.Load(), s.spill.restored.Load()}
}

// FullError is what to tell the user of a put that will not wait longer for
// room.
func (s *Store) FullError(size Size) *wray.Error {
	e := &wray.Error{
		Code:    wray.CodeStoreFull,
		Message: fmt.Sprintf("no room for an object of %d bytes: %s and none is dropped", size.Payload, s.FullOf()),
		Limit:   &wray.Limit{Name: "object store memory", Value: s.cfg.Capacity, Unit: "bytes", Flag: CapacityFlag},
		Hint:    "drop references that are no longer needed, or give the store more memory with " + CapacityFlag,
	}
	if s.cfg.Disk == nil {
		e.Hint += ", or a disk with " + SpillDirFlag
		return e
	}
	s.spill.mu.Lock()
	failure := s.spill.failure
	s.spill.mu.Unlock()
	if failure != nil {
		e.Message += fmt.Sprintf("; objects cannot be moved to disk: %v", failure)
		e.Hint += ", or room on another disk with " + SpillDirFlag + " or " + SpillLimitFlag
	} else {
		e.Message += "; what is left in memory is in use, and cannot be moved to disk"
	}
	return e
}

// FullOf says, for a person, what the store is full of.
func (s *Store) FullOf() string {
	st := s.Stats()
	return fmt.Sprintf("%d objects hold %d of %d bytes", st.Objects, st.Used, st.Capacity)
}

// OnSpace has told called, once, with room reserved for size: at once, mostly
// before OnSpace returns, where there is room and nobody waits; else in a
// goroutine that makes room, first come, first served. It is called with an
// error instead where there can never be room, or when the store closes. The
// callback owns the reservation, which must be used or canceled: nobody else
// is served from those bytes.
//
// The result withdraws the wait. True: told was not and will not be called.
func (s *Store) OnSpace(size Size, told func(*Reservation, error)) (cancel func() bool) {
	return s.onSpace(size, false, told)
}

// onSpace is OnSpace; who is urgent goes before all that are not.
func (s *Store) onSpace(size Size, urgent bool, told func(*Reservation, error)) (cancel func() bool) {
	r := s.want(size)
	if r.charge+r.length > s.cfg.Capacity {
		told(nil, s.tooLarge(size))
		return func() bool { return false }
	}
	w := &waiter{size: size, urgent: urgent, told: told}
	s.space.push(w)
	if s.closed.Load() {
		s.failWaiters()
	}
	s.grant()
	if s.space.isQueued(w) {
		s.pressure(r.charge + r.length)
	}
	return func() bool {
		if !s.space.drop(w) {
			return false
		}
		s.grant() // those behind w may fit
		return true
	}
}

// WaitSpace returns room reserved for size, waiting for it in order of
// arrival. The caller must use the reservation or cancel it. Errors: a
// *wray.Error of CodeStoreFull, where there can never be room; ErrClosed; the
// cause of ctx's end.
func (s *Store) WaitSpace(ctx context.Context, size Size) (*Reservation, error) {
	type answer struct {
		r   *Reservation
		err error
	}
	c := make(chan answer, 1)
	cancel := s.OnSpace(size, func(r *Reservation, err error) { c <- answer{r, err} })
	select {
	case a := <-c:
		return a.r, a.err
	case <-ctx.Done():
		if !cancel() {
			if a := <-c; a.err == nil {
				a.r.Cancel()
			}
		}
		return nil, context.Cause(ctx)
	}
}

// grant serves the queue as far as there is room. Whoever lowers committed or
// fills the pool calls it after, and whoever joins the queue calls it after
// too: so of a release and an arrival at the same time, one sees the other.
//
// One goroutine serves at a time; one that comes meanwhile leaves it a note to
// look again. So callbacks run in order, and one that makes room itself, by
// canceling its reservation, does not recurse.
//
// Where some are left, the spiller looks whether what was in use can be moved
// to disk now.
func (s *Store) grant() {
	if s.space.waiting.Load() > 0 && !s.serve() {
		s.relieve()
	}
}

// serve is grant without the spiller. It reports whether the queue is empty, or
// somebody else's to serve.
func (s *Store) serve() bool {
	p := &s.space
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.granting {
		p.again = true
		return true
	}
	p.granting = true
	for p.head != nil {
		p.again = false
		w := p.head
		r := s.want(w.size)
		if s.fitOnce(&r) {
			p.unlink(w)
			p.granted.Add(1)
			p.mu.Unlock()
			w.told(&Reservation{store: s, size: w.size, room: r}, nil)
			p.mu.Lock()
			continue
		}
		// Closing segments is slow, so it is done without the lock.
		p.mu.Unlock()
		evicted := s.evict(p.committed.Load() + r.charge + r.length - p.limit)
		p.mu.Lock()
		if !evicted && !p.again {
			break
		}
	}
	p.granting = false
	return p.head == nil
}

// failWaiters empties the queue with ErrClosed.
func (s *Store) failWaiters() {
	for {
		s.space.mu.Lock()
		w := s.space.head
		if w != nil {
			s.space.unlink(w)
		}
		s.space.mu.Unlock()
		if w == nil {
			return
		}
		w.told(nil, ErrClosed)
	}
}

func (p *space) push(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.queued = true
	prev := p.tail
	if w.urgent {
		prev = p.urgent
		p.urgent = w
	}
	next := p.head
	if prev != nil {
		next = prev.next
	}
	w.prev, w.next = prev, next
	if prev == nil {
		p.head = w
	} else {
		prev.next = w
	}
	if next == nil {
		p.tail = w
	} else {
		next.prev = w
	}
	p.waiting.Add(1)
}

// unlink takes w out of the queue. mu is held.
func (p *space) unlink(w *waiter) {
	if p.urgent == w {
		p.urgent = w.prev // which is urgent too, or nil
	}
	if w.prev == nil {
		p.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		p.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev, w.queued = nil, nil, false
	p.waiting.Add(-1)
}

func (p *space) drop(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.queued {
		return false
	}
	p.unlink(w)
	return true
}

func (p *space) isQueued(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.queued
}
