package scheduler

import "github.com/wray-project/wray"

// DefaultSlice is the Slice of a [Config] that says nothing: a few milliseconds.
const DefaultSlice = 250

// late is work that grows with the number of tasks: one object may be waited
// for by all of them, and one job's end be theirs. The events between two
// Readys do at most Slice units of it, a unit being one task told or ended. The
// rest waits here, in the order it came, for Ticks, which NextDeadline asks for.
//
// Nothing starts meanwhile that is to end: who is condemned has left its queue,
// and nothing of a job that is ending is picked.
type late struct {
	left     int              // units until the next Ready
	doomed   fifo[*task]      // condemned, to be finished
	told     fifo[*object]    // those that are there or failed, with waiters who do not know
	families fifo[*household] // to be canceled or handed over
}

// household is whose family is to be worked on: a task's or a job's.
type household struct {
	task *task
	job  *job
}

// behind reports whether there is work for a Tick.
func (s *Scheduler) behind() bool {
	return s.late.doomed.len() > 0 || s.late.told.len() > 0 || s.late.families.len() > 0
}

// spend takes one unit; false: there is none left.
func (s *Scheduler) spend() bool {
	if s.late.left <= 0 {
		return false
	}
	s.late.left--
	return true
}

// condemn sets t, which has not started or is lent, up to fail with err. That
// happens in settle, not here, because one failure leads to others and a chain
// of dependencies may be as long as the queue.
func (s *Scheduler) condemn(t *task, err *wray.Error) {
	to := condemned
	if t.state == lent {
		to = recalled
	}
	s.leave(t)
	s.move(t, to)
	t.doom = err
	s.late.doomed.push(t)
}

// settle fails all that is condemned, and what is condemned by that, tells who
// was not told yet, as far as the units go.
func (s *Scheduler) settle() {
	l := &s.late
	for l.left > 0 {
		switch {
		case l.doomed.len() > 0:
			l.left--
			t := l.doomed.pop()
			s.finish(t, t.doom)
		case l.told.len() > 0:
			if o := l.told.pop(); !s.tell(o) {
				l.told.push(o)
			}
		case l.families.len() > 0:
			if f := l.families.pop(); !s.tend(f) {
				l.families.push(f)
			}
		default:
			return
		}
	}
}

// tell tells who waits for o, which is there or failed, and forgets it. False:
// some were not told.
func (s *Scheduler) tell(o *object) bool {
	for o.first != nil {
		if !s.spend() {
			return false
		}
		e := o.first
		if o.first = e.next; o.first != nil {
			o.first.prev = nil
		} else {
			o.last = nil
		}
		e.object, e.next, e.prev = nil, nil, nil
		t := e.task
		t.pending--
		if t.state != waiting {
			continue
		}
		if o.err != nil {
			s.condemn(t, dependencyFailed(t, o.err))
		} else if t.pending == 0 {
			s.unlink(t)
			s.enqueue(t)
		}
	}
	s.forgetObject(o)
	return true
}

// tend goes on with a family. False: it is not through.
func (s *Scheduler) tend(f *household) bool {
	switch t := f.task; {
	case t == nil:
		return s.cancelRest(&f.job.roots, "its job ended")
	case t.state == leaving:
		if !s.handOver(t) {
			return false
		}
		s.forget(t)
	case !s.cancelRest(&t.children, t.whyChildren()):
		return false
	default:
		t.tended = false
	}
	return true
}

// cancelChildren cancels what t has submitted.
func (s *Scheduler) cancelChildren(t *task) {
	t.children.next = t.children.oldest
	if !s.cancelRest(&t.children, t.whyChildren()) {
		s.tendLater(t)
	}
}

func (s *Scheduler) tendLater(t *task) {
	if !t.tended {
		t.tended = true
		s.late.families.push(&household{task: t})
	}
}

// whyChildren says why the children of t are canceled.
func (t *task) whyChildren() string {
	switch {
	case t.state == leaving:
		return "the task that submitted it failed"
	case t.stop == wray.CodeCanceled:
		return "the task that submitted it was canceled"
	}
	return "the attempt that submitted it failed"
}

// cancelRest cancels the members of f from f.next on. False: some are left.
func (s *Scheduler) cancelRest(f *family, why string) bool {
	for f.next != nil {
		if !s.spend() {
			return false
		}
		t := f.next
		f.next = t.younger
		s.cancel(t, why, true)
	}
	return true
}

// handOver makes the children of t, which is done, its parent's, so that
// canceling the parent reaches all that came of it, and cancels them where t
// failed. False: some are left.
func (s *Scheduler) handOver(t *task) bool {
	for c := t.children.oldest; c != nil; c = t.children.oldest {
		if !s.spend() {
			return false
		}
		t.children.remove(c)
		c.parent = t.parent
		c.siblings().add(c)
		if !t.spare {
			s.cancel(c, t.whyChildren(), true)
		}
	}
	return true
}

// fifo is a queue. The zero fifo is empty.
type fifo[T any] struct {
	items []T
	first int
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }

func (q *fifo[T]) push(x T) { q.items = append(q.items, x) }

func (q *fifo[T]) pop() T {
	var zero T
	x := q.items[q.first]
	q.items[q.first] = zero
	q.first++
	switch {
	case q.first < len(q.items):
		if q.first > maxSpareDecisions && q.first > len(q.items)/2 { // so that it does not grow while it is never empty
			n := copy(q.items, q.items[q.first:])
			clear(q.items[n:])
			q.items, q.first = q.items[:n], 0
		}
	case cap(q.items) > maxSpareDecisions:
		*q = fifo[T]{}
	default:
		q.items, q.first = q.items[:0], 0
	}
	return x
}
