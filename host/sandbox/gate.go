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
// those that begin, so that what was started ends.
type gate struct {
	slots int
	slice int64 // ns

	waiting atomic.Int32 // len(woken)+len(fresh), read without mu at every tick

	mu      sync.Mutex
	running int    // guarded by mu; <= slots
	woken   turnsQ // guarded by mu; back from a park
	fresh   turnsQ // guarded by mu; at the beginning of a call, or sliced
}

// turnsQ is a queue of sandboxes that wait for a turn.
type turnsQ struct {
	items []*Sandbox
	head  int
}

func (q *turnsQ) push(sb *Sandbox) { q.items = append(q.items, sb) }

func (q *turnsQ) pop() *Sandbox {
	if q.head == len(q.items) {
		return nil
	}
	sb := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return sb
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
	if g.running < g.slots {
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
	<-sb.turn
}

// leave gives the turn to the next sandbox.
func (g *gate) leave() {
	g.mu.Lock()
	g.passLocked()
	g.mu.Unlock()
}

// passLocked gives a held turn to the next in line, or frees it.
func (g *gate) passLocked() {
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
	if g.woken.head == len(g.woken.items) && g.fresh.head == len(g.fresh.items) {
		g.mu.Unlock()
		return
	}
	g.fresh.push(sb)
	g.waiting.Add(1)
	g.passLocked()
	g.mu.Unlock()
	<-sb.turn
}
