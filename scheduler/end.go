package scheduler

import "github.com/wray-project/wray"

// Cancel ends a task: one that has not started is done at once, one that has
// is told to Stop and done when it is Finished. With recursive, what it
// submitted is canceled too, and what that submitted; without, its children
// live on. A task that is not known is done already and left alone.
func (s *Scheduler) Cancel(now int64, id wray.ID, recursive bool) {
	s.at(now)
	if t := s.tasks.get(id); t != nil {
		s.cancel(t, "canceled by its caller", recursive)
		s.settle()
	}
}

// cancel does so for t; settle must follow.
func (s *Scheduler) cancel(t *task, why string, recursive bool) {
	if !t.state.started() {
		if t.doom == nil {
			s.condemn(t, canceled(t, why))
		}
		return // children of an earlier attempt were canceled when it failed
	}
	if t.stop != wray.CodeCanceled {
		if t.stop == wray.CodeOK {
			s.stopTimer(t)
			s.emit(Decision{Kind: Stop, Code: wray.CodeCanceled, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value})
		}
		t.stop, t.why = wray.CodeCanceled, why // a task being stopped for its deadline is not retried now
	}
	t.spare = !recursive
	if recursive {
		s.cancelChildren(t, "the task that submitted it was canceled")
	}
}

func (s *Scheduler) cancelChildren(t *task, why string) {
	for c := t.children.oldest; c != nil; c = c.younger {
		s.cancel(c, why, true)
	}
}

// condemn sets t, which has not started, up to fail with err. That happens in
// settle, not here, because one failure leads to others and a chain of
// dependencies may be as long as the queue.
func (s *Scheduler) condemn(t *task, err *wray.Error) {
	t.doom = err
	s.doomed = append(s.doomed, t)
}

// settle fails all that is condemned, and what is condemned by that.
func (s *Scheduler) settle() {
	if len(s.doomed) == 0 {
		return
	}
	for i := 0; i < len(s.doomed); i++ {
		t := s.doomed[i]
		s.doomed[i] = nil
		s.finish(t, t.doom)
	}
	if cap(s.doomed) > maxSpareDecisions {
		s.doomed = nil
	} else {
		s.doomed = s.doomed[:0]
	}
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
	s.move(t, gone)
	for _, o := range t.results {
		if o != nil {
			s.resolve(o, err)
		}
	}
	if err != nil && !t.spare {
		s.cancelChildren(t, "the task that submitted it failed")
	}
	s.adopt(t)
	t.siblings().remove(t)
	s.recycle(t)
	s.closeIfEnded(j)
}

// adopt makes the children of t its parent's, so that canceling the parent
// reaches all that came of it.
func (s *Scheduler) adopt(t *task) {
	for c := t.children.oldest; c != nil; {
		next := c.younger
		t.children.remove(c)
		c.parent = t.parent
		c.siblings().add(c)
		c = next
	}
}
