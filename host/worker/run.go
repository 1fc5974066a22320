package worker

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// This file is the thin driver around the scheduler: every change goes through
// step, which gives the machine an event and carries out what it decides.

// step runs f on the scheduler and acts on the decisions. self, where not nil,
// is a guest that is idle now: if one of the decisions starts a task that it
// can run, step returns that task instead of handing it to another goroutine.
func (w *Worker) step(self *guest, f func(*scheduler.Scheduler)) *task {
	w.mu.Lock()
	f(w.sched)
	return w.actLocked(self, nil)
}

// actLocked carries out what the scheduler decided, and releases w.mu. It
// returns a task for self to run, or nil. holder, where not nil, is a guest
// that submits: it keeps the last started task for a moment, see hold.
func (w *Worker) actLocked(self, holder *guest) (mine *task) {
	// Acting calls the store and other guests, which needs the lock free, so
	// what it needs is taken out first. Most steps make one decision, or two.
	var few [2]scheduler.Decision
	acts := w.sched.Ready(few[:0])
	var own *task
	for i := range acts {
		d := &acts[i]
		t, _ := d.Value.(*task)
		switch d.Kind {
		case scheduler.Start:
			t.attempt = d.Attempt
			if own == nil && self != nil && self.fits(t) {
				if own = t; self.many && !t.fresh() {
					t.runner = self // which goes on with it at once
				}
			}
		case scheduler.Lend:
			t.attempt = d.Attempt
			d.Value = w.lendLocked(t, d)
		case scheduler.Stop:
			if d.Peer != 0 {
				d.Value = t.stopLentLocked(d.Code)
				continue
			}
			t.stopped = d.Code
			d.Value = stopping{t, t.runner}
		case scheduler.TellGroup:
			w.tellGroupLocked(d)
		case scheduler.Resume:
			d.Value = t.runner
		case scheduler.Done:
			w.tasks.remove(t)
			if t.far != nil && t.far.lend != nil {
				t.far.lend = nil
				delete(w.peers.lent, t.id)
			}
		case scheduler.Space:
			d.Value = w.jobs[d.Job]
		case scheduler.JobEnded:
			d.Value = w.jobs[d.Job]
			delete(w.jobs, d.Job)
		}
	}
	w.pokeTickerLocked()
	w.mu.Unlock()

	for i := range acts {
		d := &acts[i]
		switch d.Kind {
		case scheduler.Start:
			t := d.Value.(*task)
			if t == own {
				mine = t
			} else if holder != nil {
				holder.hold(t)
			} else {
				t.dispatch()
			}
		case scheduler.Lend:
			d.Value.(*lending).send()
		case scheduler.Stop:
			switch s := d.Value.(type) {
			case stopping:
				if s.runner != nil {
					s.runner.stop(s.task, d.Code)
				}
			case *lend:
				w.stopLent(d.Task, s, d.Code)
			}
		case scheduler.Resume:
			d.Value.(*guest).resumed <- struct{}{} // buffered
		case scheduler.Done:
			t := d.Value.(*task)
			if t.makes != nil {
				t.makes.ended(d.Err)
			}
			if t.far != nil && t.far.to != nil {
				w.lentDone(t, d.Err)
			}
			if d.Err != nil {
				t.fail(t.job.named(w.quotaOf(d.Err), t.name, d.Attempt))
			} else if t.stream != nil {
				_ = t.stream.End()
			}
			t.release()
		case scheduler.Space:
			d.Value.(*job).space()
		case scheduler.GroupReady:
			d.Value.(*placementGroup).ready()
		case scheduler.GroupEnded:
			d.Value.(*placementGroup).ended(d.Err)
		case scheduler.JobEnded:
			close(d.Value.(*job).tasks)
		}
	}
	if w.peers != nil && len(acts) > 0 {
		if w.peers.leaving.begun.Load() {
			w.peers.leaving.note()
		}
		w.peers.tellRoom()
	}
	return mine
}

// stopping is a task that is to be stopped, and the guest that ran it when that
// was decided, or nil.
type stopping struct {
	task   *task
	runner *guest
}

// submit gives a task to the scheduler. On an error the task was not taken and
// is still the caller's.
func (w *Worker) submit(g *guest, t *task, spec *scheduler.Spec) error {
	if err := t.groupFailed(); err != nil {
		return err
	}
	w.mu.Lock()
	if err := w.expectGroupLocked(t); err != nil {
		w.mu.Unlock()
		return err
	}
	if w.limited {
		if err := w.allowLocked(g, t); err != nil {
			w.mu.Unlock()
			return err
		}
	}
	for i := range t.args {
		o := t.args[i].object
		if o == nil {
			continue
		}
		switch o.State() {
		case objectstore.Pending:
			spec.Deps = append(spec.Deps, o.ID())
		case objectstore.Failed:
			w.mu.Unlock()
			return dependencyFailed(i, o.Err())
		}
	}
	waits := len(spec.Deps) > 0
	spec.Value = t
	if err := w.sched.Submit(w.now(), spec); err != nil {
		w.mu.Unlock()
		return w.ofQuota(err)
	}
	w.tasks.add(t)
	var objects []*objectstore.Object
	if waits {
		// Once the lock is free the task may end and release its arguments.
		for i := range t.args {
			if o := t.args[i].object; o != nil {
				o.Retain()
				objects = append(objects, o)
			}
		}
	}
	w.actLocked(nil, g)
	for _, o := range objects {
		o.Watch(objectstore.WatcherFunc(w.objectReady))
		o.Release()
	}
	return nil
}

// objectReady tells the scheduler that what tasks depend on is there.
func (w *Worker) objectReady(o *objectstore.Object) {
	id, err, at := o.ID(), o.Err(), locationOf(o)
	w.step(nil, func(s *scheduler.Scheduler) {
		if err != nil {
			s.ObjectFailed(w.now(), id, err)
		} else if at != 0 {
			s.ObjectAt(w.now(), id, at, o.Info().Len)
		} else {
			s.ObjectReady(w.now(), id)
		}
	})
}

// hold keeps a task that the guest has just submitted, and that may start,
// until the guest submits another, waits, or meets a tick. A guest that waits
// for the only task it has submitted is the common case; then the task runs on
// the thread that the guest leaves, and no other has to be woken.
func (g *guest) hold(t *task) {
	g.release()
	g.held = t
}

// release lets the held task run.
func (g *guest) release() {
	if t := g.held; t != nil {
		g.held = nil
		t.dispatch()
	}
}

// Tick implements sandbox.Hooks.
func (g *guest) Tick(*sandbox.Sandbox) {
	g.release()
	if g.between.ended != nil {
		g.mustGoOn()
	}
}

// blocked tells the scheduler that a task waits for objects.
func (w *Worker) blocked(t *task, on scheduler.Wait) {
	w.step(nil, func(s *scheduler.Scheduler) { s.Blocked(w.now(), t.id, t.attempt, on) })
}

// unblocked waits until the guest's task has its CPU again.
func (w *Worker) unblocked(g *guest) {
	t := g.holder
	w.step(nil, func(s *scheduler.Scheduler) { s.Unblocked(w.now(), t.id, t.attempt) })
	<-g.resumed
}

// cancelTask cancels a task and what it submitted, or a call.
func (w *Worker) cancelTask(id wray.ID) {
	if t := w.calls.get(id); t != nil {
		if t.actor == nil {
			w.cancelAway(t)
		} else {
			t.actor.cancel(t)
		}
		return
	}
	w.step(nil, func(s *scheduler.Scheduler) { s.Cancel(w.now(), id, true) })
}

// tickLoop tells the scheduler the time when it matters.
func (w *Worker) tickLoop(ctx context.Context) {
	defer w.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		next, ok := w.sched.NextDeadline()
		busy := len(w.jobs) > 0
		w.nextTick = 0
		if ok {
			w.nextTick = max(next, 1)
		}
		w.mu.Unlock()
		d := time.Hour
		if ok {
			d = max(time.Duration(next-w.now()), 0)
		}
		if busy {
			w.now() // the store's clock is to go while there are jobs
			d = min(d, time.Second)
		}
		timer.Reset(d)
		select {
		case <-ctx.Done():
			return
		case <-w.wakeTick:
			w.removeIdle()
		case <-timer.C:
			w.step(nil, func(s *scheduler.Scheduler) { s.Tick(w.now()) })
		}
	}
}

// pokeTickerLocked wakes the ticker when something is due earlier than it
// sleeps.
func (w *Worker) pokeTickerLocked() {
	next, ok := w.sched.NextDeadline()
	if !ok || w.nextTick != 0 && w.nextTick <= next {
		return
	}
	select {
	case w.wakeTick <- struct{}{}:
	default:
	}
}

// space tells the job's guests that the queue has room.
func (j *job) space() {
	j.mu.Lock()
	waiting := j.waiting
	j.waiting = nil
	for _, q := range waiting {
		q.g.queuedIn = 0
	}
	j.mu.Unlock()
	for _, q := range waiting {
		q.g.event(q.epoch, abi.EventSpace, 0)
	}
}

// fits reports whether an idle guest can run t.
func (g *guest) fits(t *task) bool {
	return t.makes == nil && g.module == t.fn.module && g.memory == t.memory
}

// overran is the failure of an attempt that took more than the task's timeout.
func (t *task) overran() *wray.Error {
	return &wray.Error{Code: wray.CodeTimeout, Message: "ran longer than its timeout of " + t.timeout.String(),
		Hint: "give it more time with the option Timeout"}
}

// stop ends the guest's attempt of t, if it still runs it. A task is told
// first, and killed when it has not ended a moment later; one past its
// deadline is killed at once.
func (g *guest) stop(t *task, code wray.Code) {
	if t.makes != nil {
		why := "the job has ended"
		if t.far != nil && t.far.to != nil && t.far.to.moved.Load() {
			why = "node " + g.w.cfg.Node + " leaves its cluster"
		}
		if code == wray.CodeGroupRemoved {
			t.makes.stop(wray.Errorf(code, "the placement group that it ran in was removed"))
			return
		}
		t.makes.stop(wray.Errorf(wray.CodeCanceled, "%s", why))
		return
	}
	if code == wray.CodeTimeout {
		g.killTask(t, t.overran())
		return
	}
	err := wray.Errorf(wray.CodeCanceled, "the task was canceled")
	g.w.mu.Lock()
	if t.runner == g {
		g.cancel(t)
	}
	g.w.mu.Unlock()
	time.AfterFunc(cancelGrace, func() { g.killTask(t, err) })
}

// cancelGrace is what a canceled task has to end by itself.
const cancelGrace = 10 * time.Millisecond

// killTask stops the guest if it still runs t. Holding the lock keeps the
// guest from taking another task meanwhile.
func (g *guest) killTask(t *task, err *wray.Error) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if t.runner == g {
		g.sb.Kill(err)
	}
}

// dispatch has a started task run, or a call that was posted.
func (t *task) dispatch() {
	switch {
	case t.actor != nil:
		t.actor.poke()
	case t.makes != nil:
		t.job.executors.Add(1)
		go t.makes.live()
	default:
		t.fn.module.dispatch(t)
	}
}

// dispatch gives a started task to an idle executor, or to a new one.
func (m *module) dispatch(t *task) {
	if g := m.takeIdle(t); g != nil {
		g.run <- t // buffered; an idle executor takes it
		return
	}
	m.job.executors.Add(1)
	go m.executor(t)
}

// takeIdle takes the guest that suits t best out of the pool: the latest used,
// or the latest clean one where t wants a fresh sandbox, else any. It returns
// nil where none fits.
func (m *module) takeIdle(t *task) *guest {
	m.mu.Lock()
	defer m.mu.Unlock()
	best := -1
	for i := len(m.idle) - 1; i >= 0; i-- {
		g := m.idle[i]
		if g.memory != t.memory {
			continue
		}
		if best < 0 {
			best = i
		}
		if g.used != t.fresh() {
			best = i
			break
		}
	}
	if best < 0 {
		return nil
	}
	g := m.idle[best]
	m.idle = slices.Delete(m.idle, best, best+1)
	return g
}

// executor runs tasks in one sandbox until none is left for it and the module
// has enough idle ones.
func (m *module) executor(t *task) {
	defer m.job.executors.Done()
	w := m.job.w
	var g *guest
	placed := false
	for t != nil {
		if g == nil {
			var err error
			if !placed {
				if refused := w.places.take(w.letIdleGo); refused != nil {
					t = w.finish(nil, t, m.job.named(refused, t.name, t.attempt))
					continue
				}
				placed = true
			}
			if g, err = m.newGuest(t.memory); err != nil {
				t = w.finish(nil, t, m.job.named(err, t.name, t.attempt))
				continue
			}
		}
		if g.used && t.fresh() && !g.reset() {
			g.close()
			g = nil
			continue
		}
		g.used = true
		w.mu.Lock()
		t.runner = g
		stopped := t.stopped
		t.stopped = 0
		w.mu.Unlock()
		if stopped != 0 {
			g.sb.Kill(wray.Errorf(stopped, "the task was stopped before it began"))
		}
		g.sb.KeepTurn()
		last, over, err := g.executeMany(t)
		next := g.next
		g.next = nil
		g.endTask()
		if g.sb.Spoilt() && !g.reset() {
			g.close()
			g = nil
		}
		fresh := last.fresh()
		if t = next; !over {
			t = w.finish(g, last, err)
		}
		if g != nil && (t == nil || t.fresh()) {
			g.sb.ReleaseTurn()
		}
		if t != nil || g == nil {
			continue
		}
		if fresh && g.used && !m.resetEarly(g) {
			g.close()
			g = nil
			continue
		}
		t = m.rest(g)
	}
	if g != nil {
		g.close()
	}
	if placed {
		w.places.give()
	}
}

// finish tells the scheduler how an attempt ended and returns the next task
// for g.
func (w *Worker) finish(g *guest, t *task, err *wray.Error) *task {
	w.mu.Lock()
	t.runner, t.stopped = nil, 0
	if g != nil {
		g.sb.Forgive()
	}
	w.sched.Finished(w.now(), t.id, t.attempt, scheduler.Outcome{Err: err, Retryable: err != nil && t.retryable(err)})
	return w.actLocked(g, nil)
}

// resetEarly resets a guest after a task that wanted a fresh one, as the next
// task will, which then need not wait for it. It lets those who wait for the
// last task's results run first. Of a module one guest at a time is reset so:
// where all processors are busy it comes late, and the others must not be
// missed meanwhile. False: the guest is to be closed.
func (m *module) resetEarly(g *guest) bool {
	if !m.resetting.CompareAndSwap(false, true) {
		return true
	}
	defer m.resetting.Store(false)
	runtime.Gosched()
	return g.reset()
}

// rest puts an idle guest into the pool and waits for its next task. It
// returns nil when the guest is to be closed.
func (m *module) rest(g *guest) *task {
	m.mu.Lock()
	if m.closing || len(m.idle) >= m.job.w.cfg.WarmSandbox || m.job.w.places.wanted() {
		m.mu.Unlock()
		return nil
	}
	m.idle = append(m.idle, g)
	m.mu.Unlock()
	return <-g.run
}

// letIdleGo ends the executors that rest now, to make room.
func (w *Worker) letIdleGo() {
	w.mu.Lock()
	var modules []*module
	for _, j := range w.jobs {
		modules = append(modules, j.modules...)
	}
	w.mu.Unlock()
	for _, m := range modules {
		m.letIdleGo(false)
	}
}

// closeIdle ends the executors that rest, and those that come to rest later.
func (m *module) closeIdle() { m.letIdleGo(true) }

// letIdleGo ends the executors that rest; closing: and those that come to rest
// later.
func (m *module) letIdleGo(closing bool) {
	m.mu.Lock()
	m.closing = m.closing || closing
	idle := m.idle
	m.idle = nil
	m.mu.Unlock()
	for _, g := range idle {
		close(g.run)
	}
}
