package objectstore

import (
	"sync"
	"time"
)

// pool keeps the segments that are free, for reuse by payloads of the same
// class, and counts all of them. Its segments' memory stays counted as
// committed; it is given back when it is in somebody's way, when it was idle
// for long, and when the store closes.
type pool struct {
	mu      sync.Mutex
	classes map[int]*segment // the latest returned of each class, linked by sameNext
	free    freeList
	bytes   int64 // of free segments
	alive   int   // segments in use or free
	made    int64 // segments ever made
	closed  bool
	timer   *time.Timer // trims; armed while free is not empty

	cold    []*segment // to be warmed; some may be in use again, which does no harm
	warming bool       // the warmer runs
}

// freeList links free segments by the time of their return.
type freeList struct {
	oldest, newest *segment
	n              int
}

func (p *pool) init() { p.classes = map[int]*segment{} }

// get takes a free segment of class out of the pool, or returns nil. It has no
// user yet.
func (p *pool) get(class int) *segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.classes[class]
	if g != nil {
		p.unlink(g)
	}
	return g
}

// link enters g as the latest. mu is held.
func (p *pool) link(g *segment) {
	g.sameNext, g.samePrev = p.classes[g.class], nil
	if g.sameNext != nil {
		g.sameNext.samePrev = g
	}
	p.classes[g.class] = g

	l := &p.free
	g.older, g.newer = l.newest, nil
	if l.newest == nil {
		l.oldest = g
	} else {
		l.newest.newer = g
	}
	l.newest = g
	l.n++
	p.bytes += int64(len(g.mem))
}

// unlink takes g out. mu is held.
func (p *pool) unlink(g *segment) {
	switch {
	case g.samePrev != nil:
		g.samePrev.sameNext = g.sameNext
	case g.sameNext != nil:
		p.classes[g.class] = g.sameNext
	default:
		delete(p.classes, g.class)
	}
	if g.sameNext != nil {
		g.sameNext.samePrev = g.samePrev
	}
	g.sameNext, g.samePrev = nil, nil

	l := &p.free
	if g.older == nil {
		l.oldest = g.newer
	} else {
		g.older.newer = g.newer
	}
	if g.newer == nil {
		l.newest = g.older
	} else {
		g.newer.older = g.older
	}
	g.older, g.newer = nil, nil
	l.n--
	p.bytes -= int64(len(g.mem))
}

// newSegment makes a segment for the room r, whose bytes are committed. It
// returns nil where there are too many, or the system has none left: then the
// payload lives in the heap.
func (s *Store) newSegment(r room) *segment {
	if !s.oneMore(0) {
		return nil
	}
	p := &s.pool
	p.mu.Lock()
	p.made++
	p.mu.Unlock()
	mem, fd, err := s.mem.make(r.length)
	if err != nil {
		p.mu.Lock()
		p.alive--
		p.made--
		p.mu.Unlock()
		return nil
	}
	return &segment{mem: mem, fd: fd, class: r.class}
}

// oneMore counts a segment that the caller is about to make, where there may be
// one more but for extra that will go at once; one in the pool makes way.
func (s *Store) oneMore(extra int) bool {
	p := &s.pool
	p.mu.Lock()
	if p.alive-extra >= s.cfg.MaxSegments {
		old := p.takeOldest(1)
		p.mu.Unlock()
		if old == nil {
			return false
		}
		s.freeAll(old)
		s.grant()
		p.mu.Lock()
		if p.alive-extra >= s.cfg.MaxSegments { // somebody was quicker
			p.mu.Unlock()
			return false
		}
	}
	p.alive++
	p.mu.Unlock()
	return true
}

// unuse takes a user off g, which goes to the pool with the last one. The
// caller calls grant after.
func (s *Store) unuse(g *segment) {
	switch n := g.users.Add(-1); {
	case n == 0:
		s.recycle(g)
	case n < 0:
		panic("BUG: objectstore: segment with fewer users than none")
	}
}

// warmMax is the longest segment that is warmed: a longer one may be a payload
// that is mostly holes, and warming fills them.
const warmMax = 2 << 30

// recycle puts g, which has no user, into the pool, or gives it back to the
// system. The caller calls grant after.
func (s *Store) recycle(g *segment) {
	p := &s.pool
	p.mu.Lock()
	if p.closed || g.class == noClass {
		p.mu.Unlock()
		s.drop(g)
		return
	}
	p.link(g)
	if s.cfg.IdleTrim > 0 {
		g.idle = time.Now()
		if p.timer == nil {
			p.timer = time.AfterFunc(s.cfg.IdleTrim, func() { s.start(s.trimIdle) })
		}
	}
	start := false
	// Where somebody waits for room the segment may have to go at once.
	if g.fd >= 0 && !g.warming && g.warm.Load() < g.dirty && int64(len(g.mem)) <= warmMax && s.space.waiting.Load() == 0 {
		g.warming = true
		p.cold = append(p.cold, g)
		start = !p.warming
		p.warming = true
	}
	p.mu.Unlock()
	if start && !s.start(s.warm) {
		s.warm() // the store is closing: this frees what it holds
	}
}

// drop gives g, which has no user and is not in the pool, back to the system:
// at once, or, where it is being warmed, after that. The caller calls grant
// after.
func (s *Store) drop(g *segment) {
	s.pool.mu.Lock()
	g.doomed = g.warming
	later := g.doomed
	s.pool.mu.Unlock()
	if !later {
		s.free(g)
	}
}

// free gives g, which is not being warmed, back to the system.
func (s *Store) free(g *segment) {
	n := int64(len(g.mem))
	s.mem.free(g.mem, g.fd)
	g.mem = nil
	s.pool.mu.Lock()
	s.pool.alive--
	s.pool.mu.Unlock()
	s.space.committed.Add(-n)
}

// freeAll frees a list linked by newer.
func (s *Store) freeAll(list *segment) {
	for list != nil {
		g := list
		list, g.newer = g.newer, nil
		s.free(g)
	}
}

// takeOldest takes free segments of together n bytes or more out of the pool,
// the longest unused first, linked by newer; or nil where there are fewer
// bytes. mu is held.
func (p *pool) takeOldest(n int64) *segment {
	found, last := int64(0), (*segment)(nil)
	for g := p.free.oldest; g != nil && found < n; g = g.newer {
		if !g.warming {
			found += int64(len(g.mem))
			last = g
		}
	}
	if found < n {
		return nil
	}
	return p.takeUntil(func(g *segment) bool { return g == last })
}

// takeUntil takes free segments out of the pool, from the oldest to the first
// for which last is true, linked by newer. Those that are being warmed stay.
// mu is held.
func (p *pool) takeUntil(last func(*segment) bool) *segment {
	var list, tail *segment
	for g := p.free.oldest; g != nil; {
		next, stop := g.newer, last(g)
		if !g.warming {
			p.unlink(g)
			if tail == nil {
				list = g
			} else {
				tail.newer = g
			}
			tail = g
		}
		if stop {
			break
		}
		g = next
	}
	return list
}

// evict frees pooled segments of n bytes or more. It reports false, and frees
// none, where there are fewer.
func (s *Store) evict(n int64) bool {
	if n <= 0 {
		return true // somebody made the room meanwhile
	}
	s.pool.mu.Lock()
	list := s.pool.takeOldest(n)
	s.pool.mu.Unlock()
	s.freeAll(list)
	return list != nil
}

// Trim gives the memory of all pooled segments back to the system.
func (s *Store) Trim() {
	s.pool.mu.Lock()
	list := s.pool.takeUntil(func(*segment) bool { return false })
	s.pool.mu.Unlock()
	s.freeAll(list)
	s.grant()
}

// trimIdle gives back what was not used for long, and arms the timer for what
// is left.
func (s *Store) trimIdle() {
	p := &s.pool
	p.mu.Lock()
	deadline := time.Now().Add(-s.cfg.IdleTrim)
	var list *segment
	if g := p.free.oldest; g != nil && !g.idle.After(deadline) {
		list = p.takeUntil(func(g *segment) bool { return g.newer == nil || g.newer.idle.After(deadline) })
	}
	p.timer = nil
	if g := p.free.oldest; g != nil && !p.closed {
		// Not at once: what is past its time is being warmed.
		wait := max(g.idle.Sub(deadline), s.cfg.IdleTrim/8+1)
		p.timer = time.AfterFunc(wait, func() { s.start(s.trimIdle) })
	}
	p.mu.Unlock()
	s.freeAll(list)
	s.grant()
}

// warm brings the pages of used segments into the store's mapping, so that
// copying into them runs at full speed from their next use on. A segment that
// is taken meanwhile is not disturbed: populating changes no byte.
func (s *Store) warm() {
	p := &s.pool
	for {
		p.mu.Lock()
		if len(p.cold) == 0 {
			p.cold, p.warming = nil, false
			p.mu.Unlock()
			return
		}
		g := p.cold[0]
		p.cold[0] = nil
		p.cold = p.cold[1:]
		stop := p.closed
		n := int64(len(g.mem))
		p.mu.Unlock()

		// The whole segment: what its last payload did not reach is an eighth
		// of it at most, and its next may.
		at := g.warm.Load()
		for ; at < n && !stop; at = min(at+populateStep, n) {
			// Nobody waits for room, or the segment would be held back from
			// whom it could serve.
			stop = s.closed.Load() || s.space.waiting.Load() > 0
			s.mem.populate(g.mem[at:min(at+populateStep, n)])
			advance(&g.warm, min(at+populateStep, n))
		}
		if at >= n {
			g.noWrite.Store(true)
			s.mem.sealWrites(g.fd)
		}
		p.mu.Lock()
		g.warming = false
		doomed := g.doomed
		p.mu.Unlock()
		if doomed {
			s.free(g)
		}
		s.grant()
	}
}

// closePool frees what is pooled and keeps the pool empty from now on.
func (s *Store) closePool() {
	p := &s.pool
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	for g := p.free.oldest; g != nil; {
		next := g.newer
		if g.warming {
			p.unlink(g)
			g.doomed = true
		}
		g = next
	}
	list := p.takeUntil(func(*segment) bool { return false })
	p.mu.Unlock()
	s.freeAll(list)
}
