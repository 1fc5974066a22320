package worker

import (
	"fmt"
	"time"

	"github.com/wray-project/wray"
)

// An actor that takes several calls at once is between two calls when it is
// handed none for a while, and those that are under way have ended: it is
// drained. Where a checkpoint is due that is waited for, but not for long, as a
// call under way may wait for one that is held back. Results of calls that end
// meanwhile are withheld until the checkpoint is there, or there is none.

// DefaultDrain is how long calls that are under way have to end, where nothing
// is said.
const DefaultDrain = 5 * time.Second

// drainRest is how many times as long the actor is left alone after it could not
// be drained.
const drainRest = 4

// drain is how an actor is drained. It is guarded by actor.mu, as part of
// serving.
type drain struct {
	held      bool // no calls are handed out
	number    int  // counts drains
	timer     *time.Timer
	asks      []*task // calls that ask for a checkpoint; they are out of the mailbox
	ended     []ended // whose results are withheld; likewise
	notBefore time.Time
	told      bool // that the actor could not be drained, since it last was
}

// ended is a call that is over.
type ended struct {
	t   *task
	err *wray.Error
}

// drainLocked holds calls back, unless that was in vain a moment ago.
func (a *actor) drainLocked() {
	s := &a.serving
	if s.held || len(s.asks) == 0 && time.Now().Before(s.notBefore) {
		return
	}
	s.held = true
	s.number++
	n := s.number
	s.timer = time.AfterFunc(a.job.w.cfg.Drain, func() { a.undrained(n) })
}

// stopLocked ends a drain, and returns who waits for its end.
func (d *drain) stopLocked() (asks []*task, over []ended) {
	if d.timer != nil {
		d.timer.Stop()
	}
	asks, over = d.asks, d.ended
	d.held, d.asks, d.ended, d.timer = false, nil, nil, nil
	return asks, over
}

// withholds counts a call that has ended and was not settled yet, and reports
// whether its result is to wait for a checkpoint: then settling it is drained's
// or undrained's.
func (a *actor) withholds(t *task, err *wray.Error) bool {
	due := a.countCall(t)
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.serving
	if due {
		a.drainLocked()
	}
	if s.held {
		s.ended = append(s.ended, ended{t, err})
	}
	return s.held
}

// drained is called when no call is under way, on the goroutine of live. It
// takes the checkpoint that was waited for, if one was, and returns why the
// actor is to end.
func (a *actor) drained() (ends *wray.Error) {
	a.mu.Lock()
	if !a.serving.held {
		a.mu.Unlock()
		return nil
	}
	asks, over := a.serving.stopLocked()
	a.serving.told = false
	for range over {
		a.box.Done()
	}
	a.mu.Unlock()
	var err error
	before := a.dur.sent
	if len(asks) == 0 {
		ends = a.tryCheckpoint()
	} else {
		err = a.checkpoint(a.guest.sb)
	}
	for _, e := range over {
		a.covers(e.t, before)
		a.job.takeQueued(e.t.bytes())
		a.settle(e.t, e.err)
	}
	for _, t := range asks {
		a.covers(t, before)
		if failure := a.tellCheckpoint(t, err); failure != nil {
			ends = failure
		}
	}
	return ends
}

// undrained gives up the drain n: calls were under way for too long.
func (a *actor) undrained(n int) {
	w := a.job.w
	a.mu.Lock()
	s := &a.serving
	if !s.held || s.number != n {
		a.mu.Unlock()
		return
	}
	a.job.executors.Add(1) // live counts as one of them, so that nobody has waited for all yet
	defer a.job.executors.Done()
	asks, over := s.stopLocked()
	s.notBefore = time.Now().Add(drainRest * w.cfg.Drain)
	told, calls := s.told, len(s.calls)
	s.told = true
	for range over {
		a.box.Done()
	}
	a.feedLocked()
	a.mu.Unlock()
	w.undrained.Add(1)
	err := &wray.Error{Code: wray.CodeTimeout,
		Message: fmt.Sprintf("no checkpoint of the actor %s: %d of its calls were still under way after %v", a.create.name, calls, w.cfg.Drain),
		Hint:    "have calls that wait for long give up now and then, or ask when there are none"}
	if !told {
		a.say("%s", err.Message)
	}
	for _, e := range over {
		a.job.takeQueued(e.t.bytes())
		a.settle(e.t, e.err)
	}
	for _, t := range asks {
		a.complete(t, err)
	}
}

// lostWhileHeldLocked returns the calls whose results are withheld when the sandbox is
// lost: what they did is, too. Calls that asked for a checkpoint wait again.
func (a *actor) lostWhileHeldLocked() (calls []*task) {
	asks, over := a.serving.stopLocked()
	for i := len(asks) - 1; i >= 0; i-- {
		a.box.PutBack(asks[i].letter, asks[i].from)
	}
	d := &a.dur
	for _, e := range over {
		calls = append(calls, e.t)
		if d.since[e.t.from] > 0 { // told by its own error
			d.since[e.t.from]--
			d.unsaved--
		}
		if d.since[e.t.from] == 0 {
			delete(d.since, e.t.from)
		}
	}
	return calls
}
