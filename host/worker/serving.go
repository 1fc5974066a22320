package worker

import (
	"cmp"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/wasm/abi"
)

// An actor that takes several calls at once runs them all in one operation
// SERVE of its sandbox: two exports of a guest that both wait would return to
// each other's callers. Calls are handed to the guest by events, which it reads
// when everything in it waits, and each is over when the guest says so.

// maxConcurrency bounds the calls that one actor may have under way.
const maxConcurrency = 64 << 10

// serving is the calls that are under way in an actor. It is guarded by
// actor.mu.
type serving struct {
	calls map[uint64]*task // by the number that the guest knows them by
	order uint64           // calls handed out so far
	timed int              // of calls, have a deadline
	round int              // counts operations SERVE
	drain
}

// underWay is what is known of a call while it is under way. begun
// belongs to the sandbox's goroutine, the rest to actor.mu.
type underWay struct {
	order    uint64
	round    int       // the operation that it was handed to
	deadline time.Time // zero: none
	begun    bool      // the guest asked for it
	lost     bool      // it is not run, but told what its caller has lost: failure
}

// mayBeCalled reports whether a call may come to those that are under way. Then
// a guest of which all goroutines wait may wait for that.
func (a *actor) mayBeCalled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving.held {
		return true // not for long
	}
	return !a.box.Full() && (!a.unreferenced.Load() || a.box.Len() > 0)
}

// recheck has a sandbox in which everything waits ask mayBeCalled again.
func (a *actor) recheck() {
	if !a.serves.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.g != nil {
		a.g.signal()
	}
}

// feed hands calls to the operation that is under way. False: there is none.
func (a *actor) feed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.feedLocked()
}

func (a *actor) feedLocked() bool {
	s := &a.serving
	if !a.serves.Load() || a.g == nil || a.ending != nil {
		return false
	}
	if a.due.Load() {
		a.drainLocked()
	}
	for !s.held {
		l := a.box.Next()
		if l == nil {
			break
		}
		if l.Value.flags&abi.SpecCheckpoint != 0 {
			s.asks = append(s.asks, l.Value)
			a.drainLocked()
			break
		}
		a.handLocked(l.Value)
	}
	return true
}

// handLocked hands one call to the guest.
func (a *actor) handLocked(t *task) {
	s := &a.serving
	s.order++
	t.call = underWay{order: s.order, round: s.round}
	if s.calls == nil {
		s.calls = map[uint64]*task{}
	}
	s.calls[t.id.Seq] = t
	t.canceled = false
	a.calls.Add(1)
	a.used.Store(true)
	a.g.send(sandbox.Event{Kind: abi.EventCall, Arg: t.id.Seq})
}

// setDeadlineLocked sets the sandbox's deadline to the first of the calls'.
func (a *actor) setDeadlineLocked() {
	t := a.serving.first()
	if t == nil {
		a.g.sb.SetDeadline(0)
		return
	}
	a.g.sb.SetDeadline(max(time.Until(t.call.deadline), 1))
}

// first returns the call with the first deadline, or nil.
func (s *serving) first() (first *task) {
	if s.timed == 0 {
		return nil
	}
	for _, t := range s.calls {
		if !t.call.deadline.IsZero() && (first == nil || t.call.deadline.Before(first.call.deadline)) {
			first = t
		}
	}
	return first
}

// take forgets a call that is over.
func (s *serving) take(t *task) {
	delete(s.calls, t.id.Seq)
	if !t.call.deadline.IsZero() {
		s.timed--
	}
}

// serve runs calls, the first of which is given, until none is under way. It
// returns why the actor's state is gone, where it is.
func (a *actor) serve(g *guest, first *task) *wray.Error {
	g.serves, g.refused = true, nil
	a.mu.Lock()
	a.running = nil
	a.serves.Store(true)
	a.serving.round++
	a.handLocked(first)
	a.feedLocked()
	a.mu.Unlock()
	for {
		r, err := g.sb.Call(abi.OpServe, 0)
		err = g.ended(err)
		if err != nil {
			return a.lost(g, err)
		}
		if done, failure := a.served(g, abi.Errno(r)); done {
			g.serves = false
			g.endTask()
			if failure == nil {
				return a.drained()
			}
			a.mu.Lock()
			held := a.serving.held
			a.mu.Unlock()
			if held {
				failure = a.lost(g, failure)
			}
			return failure
		}
	}
}

// served is called when an operation SERVE has returned. It reports whether no
// call is under way, and why the actor is to end.
func (a *actor) served(g *guest, e abi.Errno) (done bool, failure *wray.Error) {
	a.mu.Lock()
	s := &a.serving
	var left []*task
	for _, t := range s.calls {
		// One that came while the guest was about to return waits in its events.
		if e != abi.Success || t.call.begun || t.call.round < s.round {
			s.take(t)
			a.box.Done()
			left = append(left, t)
		}
	}
	s.round++
	done = len(s.calls) == 0
	switch {
	case a.ending != nil: // it came too late for the operation
		failure = a.ending
	case !done:
		a.setDeadlineLocked()
	}
	if done {
		a.serves.Store(false)
		g.sb.Forgive()
	}
	a.mu.Unlock()
	if failure != nil && !done {
		return true, a.lost(g, failure)
	}
	for _, t := range left {
		err := wray.Errorf(wray.CodeBadArgument, "the module returned without ending this call")
		if e != abi.Success {
			err = &wray.Error{Code: wray.CodeBadArgument, Message: "the actor's module does not take several calls at once",
				Hint: "make the actor without MaxConcurrency"}
		}
		a.job.takeQueued(t.bytes())
		a.settle(t, err)
	}
	return done, nil
}

// lost ends the calls that were under way when the sandbox was lost: those that
// may be run again go back to the mailbox.
func (a *actor) lost(g *guest, err error) *wray.Error {
	g.serves, g.task = false, nil
	g.endTask()
	a.mu.Lock()
	a.serves.Store(false)
	s := &a.serving
	late := s.first()
	calls := make([]*task, 0, len(s.calls))
	for _, t := range s.calls {
		calls = append(calls, t)
	}
	calls = append(a.lostWhileHeldLocked(), calls...)
	s.calls, s.timed = nil, 0
	restarts := !a.final && a.create.mayRestart()
	ended := calls[:0:0]
	slices.SortFunc(calls, func(x, y *task) int { return cmp.Compare(y.call.order, x.call.order) })
	for _, t := range calls { // the last first
		if !t.call.begun || restarts && !t.answered() && (t.tries < 0 || t.attempt <= t.tries) {
			a.box.PutBack(t.letter, t.from)
			continue
		}
		a.box.Done()
		ended = append(ended, t)
	}
	a.mu.Unlock()
	failure := a.create.asError(err)
	if failure.Code == wray.CodeTimeout && late != nil {
		failure = a.job.named(failure, late.name, late.attempt)
	}
	slices.Reverse(ended)
	for _, t := range ended {
		why := failure
		if t.failure != nil {
			why = t.asError(err) // it told before it left
		}
		a.job.takeQueued(t.bytes())
		if a.hosted {
			t.far.end = replyGone
			a.settle(t, why)
			continue
		}
		a.settle(t, a.died(t, "the actor ended while this call was under way", why, restarts))
	}
	return failure
}

// callSelect is the import that says which call the imports of tasks mean.
func callSelect(g *guest, _ view, s []uint64) abi.Errno {
	if !g.serves {
		return abi.EPERM
	}
	a := g.holder.makes
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.serving.calls[s[0]]
	if t == nil {
		return abi.ENOENT
	}
	if !t.call.begun {
		t.call.begun = true
		t.attempt++
		t.failure = a.lossOf(t)
		t.call.lost = t.failure != nil
		if t.timeout > 0 {
			t.call.deadline = time.Now().Add(t.timeout)
			a.serving.timed++
			a.setDeadlineLocked()
		}
	}
	g.task = t
	return abi.Success
}

// callEnd is the import that ends the selected call.
func callEnd(g *guest, _ view, _ []uint64) abi.Errno {
	t := g.task
	if !g.serves || t == nil {
		return abi.EPERM
	}
	g.task = nil
	err := t.failure
	if err == nil {
		err = t.complete()
	}
	a := g.holder.makes
	if err == nil {
		a.answered++
	} else {
		err = a.job.named(err, t.name, t.attempt)
	}
	bytes := t.bytes()
	a.mu.Lock()
	a.serving.take(t)
	if !t.call.deadline.IsZero() {
		a.setDeadlineLocked()
	}
	a.mu.Unlock()
	if !t.call.lost && a.withholds(t, err) {
		return abi.Success
	}
	a.mu.Lock()
	a.box.Done()
	a.mu.Unlock()
	a.job.takeQueued(bytes)
	a.settle(t, err)
	a.feed()
	return abi.Success
}
