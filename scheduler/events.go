package scheduler

import (
	"container/heap"

	"github.com/wray-project/wray"
)

// attemptOf returns the task whose attempt is under way, or nil when that
// attempt is over or the task not known.
func (s *Scheduler) attemptOf(id wray.ID, attempt int) *task {
	t := s.tasks.get(id)
	if t == nil || t.attempt != attempt || !t.state.started() {
		return nil
	}
	return t
}

// Finished tells that an attempt is over and its sandbox no longer runs it.
// What it holds is free again. A failed attempt is followed by another when
// the outcome says that it may, retries are left, and the task was not
// canceled; otherwise the task is done. An attempt that ended well is well,
// even when a Stop was on its way.
func (s *Scheduler) Finished(now int64, id wray.ID, attempt int, outcome Outcome) {
	s.at(now)
	t := s.attemptOf(id, attempt)
	if t == nil {
		s.stale++
		return
	}
	if p := t.peer(); p != nil {
		t.job.forgive(p.id) // it can run them
	}
	s.ended(t, outcome)
	s.settle()
}

// Anew tells that the sandbox which was given an attempt ended before it had begun
// it, and that another begins it now: its time counts from now on, and a Stop that
// came for its timeout meant something else.
func (s *Scheduler) Anew(now int64, id wray.ID, attempt int) {
	s.at(now)
	t := s.attemptOf(id, attempt)
	if t == nil || !t.state.local() {
		s.stale++
		return
	}
	if t.stop == wray.CodeTimeout {
		t.stop = wray.CodeOK
	}
	if t.stop == wray.CodeOK && t.timeout > 0 {
		s.stopTimer(t)
		s.setTimer(t, t.timeout)
	}
}

// ended does so for t; settle must follow.
func (s *Scheduler) ended(t *task, outcome Outcome) {
	if outcome.Err == nil {
		s.finish(t, nil)
		return
	}
	err := t.blame(outcome.Err)
	if t.stop != wray.CodeCanceled && t.stop != wray.CodeGroupRemoved && outcome.Retryable && (t.retries == Forever || t.attempt <= t.retries) {
		s.retry(t)
	} else {
		s.finish(t, err)
	}
}

// retry ends a failed attempt and sets the time of the next.
func (s *Scheduler) retry(t *task) {
	t.stop = wray.CodeOK
	s.cancelChildren(t)
	s.leave(t)
	t.job.totals.retried++
	s.move(t, backoff)
	s.setTimer(t, backoffOf(t.attempt))
}

// Blocked tells that a running attempt waits. Its CPU is free for others; its
// memory stays held.
func (s *Scheduler) Blocked(now int64, id wray.ID, attempt int, on Wait) {
	s.at(now)
	t := s.attemptOf(id, attempt)
	if t == nil || t.state != running {
		s.stale++
		return
	}
	for _, o := range on.Objects {
		s.link(t, o)
	}
	t.visible = len(on.Objects) > 0 || on.Space
	t.all = on.All && !on.Space
	if on.Space {
		t.space = true
		s.deadlock.spaceWaiters++
	}
	s.move(t, blocked)
}

// Unblocked tells that a blocked attempt has what it waited for. It gets its
// CPU back, and Resume says when: ahead of every task that has not started,
// in the order of Unblocked, without more CPU being given out than there is.
func (s *Scheduler) Unblocked(now int64, id wray.ID, attempt int) {
	s.at(now)
	t := s.attemptOf(id, attempt)
	if t == nil || t.state != blocked {
		s.stale++
		return
	}
	s.unlink(t)
	s.move(t, resuming)
	if t.room != nil {
		t.room.resume.add(t)
	} else {
		s.resume.add(t)
	}
}

// ObjectReady tells that an object is there. Results of a task need not be
// reported: they are there when it ends well. One that is reported earlier
// stays, even when the task then fails. Objects that nobody waits for are
// ignored.
func (s *Scheduler) ObjectReady(now int64, id wray.ID) {
	s.at(now)
	if o := s.objects.get(id); o != nil {
		s.deadlock.changed = true
		s.resolve(o, nil)
		s.settle()
	}
}

// ObjectFailed tells that an object will never be there. Tasks that depend on
// it fail with DependencyFailed and err as their Cause, and what depends on
// those in turn, with the same Cause.
func (s *Scheduler) ObjectFailed(now int64, id wray.ID, err *wray.Error) {
	s.at(now)
	if o := s.objects.get(id); o != nil {
		s.deadlock.changed = true
		s.resolve(o, err)
		s.settle()
	}
}

// backoffOf returns the nanoseconds between the failure of an attempt and the
// next: 10 ms after the first, twice that after the second, and so on, up to a
// second. Long enough that a failure which comes at once does not occupy the
// node, short enough not to be noticed after one that was an accident. There
// is no jitter: one node's tasks do not stampede each other, since they queue.
func backoffOf(attempt int) int64 {
	const first, most int64 = 10_000_000, 1_000_000_000
	if attempt > 7 { // first<<7 is beyond most
		return most
	}
	return min(first<<(attempt-1), most)
}

// timers is a heap of tasks with a timer, the earliest first.
type timers []*task

func (h timers) Len() int { return len(h) }
func (h timers) Less(i, k int) bool {
	if h[i].timer != h[k].timer {
		return h[i].timer < h[k].timer
	}
	return h[i].seq < h[k].seq
}
func (h timers) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].timerIndex, h[k].timerIndex = i, k
}

// Push is for container/heap.
func (h *timers) Push(x any) {
	t := x.(*task)
	t.timerIndex = len(*h)
	*h = append(*h, t)
}

// Pop is for container/heap.
func (h *timers) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.timerIndex = -1
	return t
}

// setTimer gives t, which has none, a timer that ends after d nanoseconds.
func (s *Scheduler) setTimer(t *task, d int64) {
	t.timer = addSaturated(s.now, d)
	heap.Push(&s.timers, t)
}

func (s *Scheduler) stopTimer(t *task) {
	if t.timerIndex >= 0 {
		heap.Remove(&s.timers, t.timerIndex)
	}
}
