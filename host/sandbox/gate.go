package sandbox

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// gate lets a number of sandboxes run at once and hands their turns round.
//
// A sandbox enters before guest code runs, leaves when it parks or ends, and
// yields at a meter tick when it has run its slice and others wait. Turns are
// given in order of arrival; a sandbox that comes back from a park goes before
// those that begin, so that what was started ends. One that was killed, or is
// past its deadline, does not wait: it has nothing to do but to end, and gets a
// turn beyond the slots.
type gate struct {
	slots int
	slice int64 // ns

	waiting atomic.Int32 // len(woken)+len(fresh), read without mu at every tick

	mu      sync.Mutex
	running int    // guarded by mu; <= slots, but for those that hurry
	woken   turnsQ // guarded by mu; back from a park
	fresh   turnsQ // guarded by mu; at the beginning of a call, or sliced
}

// turnsQ is a queue of sandboxes that wait for a turn.
type turnsQ struct {
	items []*Sandbox // nil where one was taken out
	head  int
}

func (q *turnsQ) push(sb *Sandbox) { q.items = append(q.items, sb) }

func (q *turnsQ) pop() (sb *Sandbox) {
	for sb == nil && q.head < len(q.items) {
		sb = q.items[q.head]
		q.items[q.head] = nil
		q.head++
	}
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return sb
}

// remove takes sb out, wherever it stands, and reports whether it was there.
func (q *turnsQ) remove(sb *Sandbox) bool {
	for i, have := range q.items[q.head:] {
		if have == sb {
			q.items[q.head+i] = nil
			return true
		}
	}
	return false
}

func newGate(slots int, slice time.Duration) *gate {
	if slots <= 0 {
		slots = runtime.NumCPU()
	}
	if slice <= 0 {
		slice = 10 * time.Millisecond
	}
	return &gate{slots: slots, slice: int64(slice)}
}

// enter waits until sb may run guest code.
func (g *gate) enter(sb *Sandbox, woken bool) {
	g.mu.Lock()
	// Who is killed from here on is found in the queue.
	if g.running < g.slots || sb.killed.Load() != nil {
		g.running++
		g.mu.Unlock()
		return
	}
	q := &g.fresh
	if woken {
		q = &g.woken
	}
	q.push(sb)
	g.waiting.Add(1)
	g.mu.Unlock()
	g.await(sb)
}

// await returns when sb, which is in a queue, has its turn.
func (g *gate) await(sb *Sandbox) {
	d := sb.deadline.Load()
	if d == 0 {
		<-sb.turn
		return
	}
	late := time.NewTimer(time.Duration(d - sb.engine.clock.now()))
	defer late.Stop()
	select {
	case <-sb.turn:
	case <-late.C:
		g.hurry(sb)
		<-sb.turn
	}
}

// hurry gives sb, which is to end, its turn, if it waits for one.
func (g *gate) hurry(sb *Sandbox) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.woken.remove(sb) || g.fresh.remove(sb) {
		g.waiting.Add(-1)
		g.running++
		sb.turn <- struct{}{} // buffered: never blocks
	}
}

// leave gives the turn to the next sandbox.
func (g *gate) leave() {
	g.mu.Lock()
	g.passLocked()
	g.mu.Unlock()
}

// passLocked gives a held turn to the next in line, or frees it.
func (g *gate) passLocked() {
	if g.running > g.slots { // some hurried
		g.running--
		return
	}
	next := g.woken.pop()
	if next == nil {
		next = g.fresh.pop()
	}
	if next == nil {
		g.running--
		return
	}
	g.waiting.Add(-1)
	next.turn <- struct{}{} // buffered: never blocks
}

// yield passes the turn on and waits for the next one.
func (g *gate) yield(sb *Sandbox) {
	g.mu.Lock()
	if g.waiting.Load() == 0 || sb.killed.Load() != nil {
		g.mu.Unlock()
		return
	}
	g.fresh.push(sb)
	g.waiting.Add(1)
	g.passLocked()
	g.mu.Unlock()
	g.await(sb)
}
