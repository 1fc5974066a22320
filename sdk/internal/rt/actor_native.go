//go:build !wasip1

package rt

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// actor runs calls one after the other, or as many at once as it may, as a
// sandbox would; but there goroutines run only while others wait.
type actor struct {
	create *task
	object *object           // that names it
	ref    weak.Pointer[Ref] // the one Ref to it
	keep   *Ref              // of a detached actor
	state  *any              // of this attempt; belongs to the goroutine of live
	dur    checkpoints

	// Guarded by state.
	pending      []*task // by posted
	posted       uint64
	running      int         // calls that are under way
	lost         *wray.Error // a call took the state with it
	unreferenced bool
	ending       *wray.Error
	final        bool
	dead         *wray.Error
}

// named holds the actors that have a name. Guarded by state.
var named = map[string]*actor{}

// newActor makes the actor that t creates, or finds the one of its name.
func newActor(t *task) *Ref {
	state.Lock()
	defer state.Unlock()
	if t.spec.Flags&Named != 0 {
		if r := lookupLocked(t.name); r != nil {
			t.cancel(nil)
			if t.spec.Flags&GetIfExists != 0 {
				return r
			}
			return &Ref{object: &object{ready: true, value: encodeError(&wray.Error{Code: wray.CodeBadArgument, Task: t.name,
				Message: fmt.Sprintf("there is an actor of the name %q", t.name),
				Hint:    "give it another name, or use the option GetIfExists"})}}
		}
	}
	o := &object{task: t}
	a := &actor{create: t, object: o}
	t.results, t.actor = []*object{o}, a
	r := &Ref{object: o, actor: a}
	a.ref = weak.Make(r)
	if t.spec.Flags&Detached != 0 {
		a.keep = r
	}
	if t.spec.Flags&Named != 0 {
		named[t.name] = a
	}
	runtime.AddCleanup(r, func(a *actor) {
		state.Lock()
		defer state.Unlock()
		a.unreferenced = true
		broadcastLocked()
	}, a)
	go a.live()
	return r
}

// unnameLocked frees the actor's name for another.
func (a *actor) unnameLocked() {
	if named[a.create.name] == a {
		delete(named, a.create.name)
	}
}

func lookupLocked(name string) *Ref {
	if a := named[name]; a != nil {
		return a.ref.Value()
	}
	return nil
}

// LookupActor returns the actor of a name.
func LookupActor(name string) (*Ref, error) {
	if s := SessionOf(context.Background()); s != nil {
		return s.lookupActor(name)
	}
	state.Lock()
	defer state.Unlock()
	r, group := lookupGroupLocked(name)
	if !group {
		r = lookupLocked(name)
	}
	if r != nil {
		return r, nil
	}
	return nil, Errno(abi.ENOENT)
}

// Kill ends an actor. With restart it may start again.
func Kill(r *Ref, restart bool) error {
	if r.err != nil {
		return r.err
	}
	if r.h != nil {
		defer runtime.KeepAlive(r)
		return r.h.kill(restart)
	}
	if r.group != nil && !restart {
		r.group.remove()
		return nil
	}
	if r.actor == nil {
		return Errno(abi.EBADF)
	}
	state.Lock()
	defer state.Unlock()
	a := r.actor
	if a.ending == nil {
		a.ending = wray.Errorf(wray.CodeActorDied, "the actor was killed")
	}
	if !restart {
		a.final = true
		a.unnameLocked()
	}
	broadcastLocked()
	return nil
}

// post takes a call.
func (a *actor) post(t *task) {
	state.Lock()
	err := a.dead
	if n := int(a.create.spec.MaxPending); err == nil && n > 0 && len(a.pending) >= n {
		err = &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("actor %s has %d calls that wait", a.create.name, n),
			Limit: &wray.Limit{Name: "pending calls", Value: int64(n), Unit: "calls"},
			Hint:  "wait for results before calling again, or raise sdk.MaxPendingCalls"}
	}
	if err == nil {
		a.posted++
		t.posted = a.posted
		a.pending = append(a.pending, t)
		broadcastLocked()
	}
	state.Unlock()
	if err != nil {
		t.fail(err)
		return
	}
	context.AfterFunc(t.ctx, func() {
		state.Lock()
		defer state.Unlock()
		broadcastLocked()
	})
}

// fail ends a task before it ran.
func (t *task) fail(e *wray.Error) {
	c := *e
	c.Task = t.name
	t.cancel(nil)
	t.end(&c)
}

// next waits for the call that is to start, nil when the attempt is to end: the
// first whose arguments are there and that none of the same caller waits
// before.
func (a *actor) next() (c *task) {
	_ = await(context.Background(), func() bool {
		if a.ending != nil || a.lost != nil {
			return true
		}
		if a.running >= max(int(a.create.spec.Concurrency), 1) {
			return false
		}
		waits := map[context.Context]bool{}
		for i, t := range a.pending {
			if t.ctx.Err() != nil || !waits[t.parent] && t.readyLocked() {
				a.pending = slices.Delete(a.pending, i, i+1)
				a.running++
				c = t
				return true
			}
			waits[t.parent] = true
		}
		return a.unreferenced && len(a.pending) == 0 && a.running == 0
	})
	return c
}

// readyLocked reports whether the arguments that are objects are there.
func (t *task) readyLocked() bool {
	for i := range t.spec.Args {
		if r := t.spec.Args[i].Ref; r != nil && r.object != nil && !r.object.ready {
			return false
		}
	}
	return true
}

// live runs the actor to its end.
func (a *actor) live() {
	t := a.create
	e := t.arguments()
	restarts := 0
	if t.spec.Flags&HasRetries != 0 {
		restarts = int(t.spec.Retries)
	}
	for attempt := 1; e == nil; attempt++ {
		again := restarts < 0 || attempt <= restarts
		e = a.attempt(attempt, again)
		state.Lock()
		if a.ending != nil {
			e, a.ending = a.ending, nil
		}
		if e == nil {
			state.Unlock()
			break
		}
		again = again && !a.final && e.Code != wray.CodeCanceled && (a.object.ready || t.retryable(e))
		state.Unlock()
		if again {
			e = nil
			time.Sleep(10 * time.Millisecond)
		}
	}
	dead := &wray.Error{Code: wray.CodeActorDied, Message: "the actor " + t.name + " is gone", Cause: e}
	if e != nil {
		dead.Hint = e.Hint
		if e.Code == wray.CodeActorDied {
			dead.Message, dead.Cause = e.Message, nil
		}
		if e.Task == "" {
			e.Task = t.name
		}
		t.end(e)
	}
	t.cancel(nil)
	state.Lock()
	t.leaveLocked()
	a.unnameLocked()
	pending := a.pending
	a.dead, a.pending, a.keep = dead, nil, nil
	state.Unlock()
	for _, c := range pending {
		c.fail(dead)
	}
}

// attempt runs the constructor and then calls. It returns why the state is
// gone; nil when nobody refers to the actor.
func (a *actor) attempt(n int, again bool) *wray.Error {
	a.state = new(any)
	a.create.state = a.state
	if a.dur.has {
		*a.state = deepCopy(a.dur.saved)
	} else if e := a.create.attempt(n); e != nil {
		return e
	}
	if !a.object.ready {
		a.create.end(nil)
	}
	state.Lock()
	a.lost = nil
	state.Unlock()
	var answered atomic.Int64
	var calls sync.WaitGroup
	for c := a.next(); c != nil; c = a.next() {
		if a.create.spec.Concurrency > 1 {
			calls.Go(func() { a.call(c, again, &answered) })
			continue
		}
		a.saveIfOld()
		if loss := a.lossOf(c); loss != nil {
			state.Lock()
			a.overLocked(false, nil)
			state.Unlock()
			c.fail(loss)
			continue
		}
		a.call(c, again, &answered)
	}
	calls.Wait()
	a.saveIfOld()
	a.losing(nil)
	state.Lock()
	defer state.Unlock()
	return a.lost
}

// call runs a call and gives it its end.
func (a *actor) call(c *task, again bool, answered *atomic.Int64) {
	e := c.arguments()
	if e == nil && c.ctx.Err() != nil {
		e = wray.Errorf(wray.CodeCanceled, "the call was canceled")
	}
	ran := e == nil
	switch {
	case ran && c.spec.Flags&Checkpoint != 0:
		e = a.answerCheckpoint(c)
	case ran:
		e = a.run(c)
	}
	lost := ran && e != nil && (e.Code == wray.CodeTimeout || e.Code == wray.CodeActorDied)
	state.Lock()
	most := int(a.create.spec.CallTries)
	if retry := lost && again && !a.final && !c.answeredLocked() && (most < 0 || c.tries <= most); retry {
		at, _ := slices.BinarySearchFunc(a.pending, c, func(x, y *task) int { return cmp.Compare(x.posted, y.posted) })
		a.pending = slices.Insert(a.pending, at, c)
		a.overLocked(lost, e)
		state.Unlock()
		return
	}
	if lost && !again {
		a.unnameLocked() // before the caller is told
	}
	state.Unlock()
	if ran && !lost && c.spec.Flags&Checkpoint == 0 {
		a.note(c)
	}
	switch {
	case lost:
		died := &wray.Error{Code: wray.CodeActorDied, Message: "the actor ended in this call", Cause: e, Hint: e.Hint}
		if e.Code == wray.CodeActorDied {
			died.Message, died.Cause = e.Message, nil
		} else if a.create.spec.Concurrency > 1 {
			died.Message = "the actor ended while this call was under way"
		}
		if again {
			died.Lost = int(answered.Load())
			if a.saves() {
				died.Lost = a.dur.unsaved
				a.losing(c)
			}
			died.Message += fmt.Sprintf("; it starts again without the effects of %d calls that it had answered", died.Lost)
		}
		c.fail(died)
	case e != nil:
		c.fail(e)
	default:
		answered.Add(1)
		c.give()
		c.cancel(nil)
		c.end(nil)
	}
	state.Lock()
	defer state.Unlock()
	a.overLocked(lost, e)
}

// answeredLocked reports whether the caller has all that it asked for.
func (t *task) answeredLocked() bool {
	return len(t.results) > 0 && !slices.ContainsFunc(t.results, func(o *object) bool { return !o.ready })
}

// overLocked takes note that a call is over, and may have taken the state with
// it.
func (a *actor) overLocked(lost bool, e *wray.Error) {
	a.running--
	if lost && a.lost == nil {
		a.lost = e
	}
	broadcastLocked()
}

// run runs a call. One that outlives the actor's end is left to itself.
func (a *actor) run(c *task) *wray.Error {
	done := make(chan *wray.Error, 1)
	c.state = a.state
	state.Lock()
	c.tries++
	n := c.tries
	state.Unlock()
	go func() {
		e := c.attempt(n)
		state.Lock()
		defer state.Unlock()
		done <- e
		broadcastLocked()
	}()
	var e *wray.Error
	_ = await(context.Background(), func() bool {
		select {
		case e = <-done:
			return true
		default:
		}
		if e = a.ending; e == nil {
			e = a.lost
		}
		return e != nil
	})
	if e != nil && e.Attempt == 0 && e.Code != wray.CodeActorDied {
		e.Attempt = n
	}
	return e
}

// State is where the state of the actor that c calls, or makes, is kept.
func (c *Call) State() *any { return c.state }

// Actor reports whether c makes or calls an actor.
func (c *Call) Actor() bool { return c.task.actor != nil }
