package scheduler

import "github.com/wray-project/wray"

// Cancel ends a task: one that has not started is done at once, one that has
// is told to Stop and done when it is Finished. With recursive, what it
// submitted is canceled too, and what that submitted; without, its children
// live on. A task that is not known is done already and left alone.
func (s *Scheduler) Cancel(now int64, id wray.ID, recursive bool) {
	s.at(now)
	if t := s.tasks.get(id); t != nil && t.state != leaving {
		s.cancel(t, "canceled by its caller", recursive)
		s.settle()
	}
}

// cancel does so for t; settle must follow.
func (s *Scheduler) cancel(t *task, why string, recursive bool) {
	switch {
	case t.state == condemned, t.state == recalled:
		return
	case t.state == leaving: // what of its children are not yet its parent's
		if recursive {
			t.spare = false
		}
		return
	case !t.state.started():
		s.condemn(t, canceled(t, why))
		return // children of an earlier attempt are canceled since it failed
	}
	if t.stop != wray.CodeCanceled {
		if t.stop == wray.CodeOK {
			s.stopTimer(t)
			s.emitStop(t, wray.CodeCanceled)
		}
		t.stop, t.why = wray.CodeCanceled, why // a task being stopped for its deadline is not retried now
	}
	t.spare = !recursive
	if p := t.peer(); p != nil && p.unreachable {
		s.condemn(t, t.blame(peerDied(t, p))) // nobody waits for what it does there
	}
	if recursive {
		s.cancelChildren(t)
	}
}

// emitStop has the attempt of t stopped, here or where it is lent.
func (s *Scheduler) emitStop(t *task, code wray.Code) {
	d := Decision{Kind: Stop, Code: code, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value}
	if p := t.peer(); p != nil {
		d.Peer = p.id
	}
	s.emit(d)
}

// leave takes t out of its queue, its waits and the timers.
func (s *Scheduler) leave(t *task) {
	if t.queue != nil {
		s.dequeue(t)
	}
	s.unlink(t)
	s.stopTimer(t)
}

// finish ends t for good; err is nil when it ended well. Its results are there
// or fail; its children live on when it ended well or was canceled alone, and
// are canceled otherwise; those that remain are adopted by its parent.
// settle must follow.
func (s *Scheduler) finish(t *task, err *wray.Error) {
	j := t.job
	s.leave(t)
	done := Decision{Kind: Done, Task: t.id, Job: j.id, Attempt: t.attempt, Err: err, Value: t.value}
	switch {
	case err == nil:
		j.totals.finished++
	case err.Code == wray.CodeCanceled:
		j.totals.canceled++
		done.Code = err.Code
	default:
		j.totals.failed++
		done.Code = err.Code
	}
	s.emit(done)
	t.doom = nil
	t.spare = (err == nil || t.spare) && t.children.next == nil // else they are being canceled
	alone := t.children.oldest == nil && !t.tended
	if alone {
		s.move(t, gone)
	} else {
		s.move(t, leaving)
	}
	for _, o := range t.results {
		if o != nil {
			s.resolve(o, err)
		}
	}
	switch {
	case alone, !t.tended && s.handOver(t):
		s.forget(t)
	default:
		s.tendLater(t)
	}
}

// forget forgets t, which is done and has no children.
func (s *Scheduler) forget(t *task) {
	j := t.job
	if t.state == leaving {
		s.move(t, gone)
	}
	t.siblings().remove(t)
	s.recycle(t)
	s.closeIfEnded(j)
}
