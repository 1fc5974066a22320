package scheduler

import "github.com/wray-project/wray"

// maxShapes is how many different shapes of one job's queued tasks have a
// queue each. Within such a queue the first task may start when any may, so
// that admission looks at one task for each, however many wait.
const maxShapes = 64

// shape is all that decides whether a queued task may start.
type shape struct {
	res   wray.Resources
	claim *claim
	place *placement
	inner bool // see heldBack
}

func (t *task) shape() shape { return shape{t.res, t.claim, t.place, t.inner} }

// queue is a list of tasks that wait for resources.
type queue struct {
	shape       shape // of all of them, except in job.overflow, job.abroad and Scheduler.resume
	first, last *task
	n           int
	round       uint64 // the last in which its first was to be lent, and nobody was found
}

func (q *queue) add(t *task) {
	t.queue = q
	t.prev, t.next = q.last, nil
	if q.last != nil {
		q.last.next = t
	} else {
		q.first = t
	}
	q.last = t
	q.n++
}

func (q *queue) remove(t *task) {
	q.n--
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		q.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		q.last = t.prev
	}
	t.next, t.prev, t.queue = nil, nil, nil
}

// insert puts t back in the place that its turn gives it.
func (q *queue) insert(t *task) {
	at := q.first
	for at != nil && at.turn < t.turn {
		at = at.next
	}
	if at == nil {
		q.add(t)
		return
	}
	t.queue = q
	t.prev, t.next = at.prev, at
	if at.prev != nil {
		at.prev.next = t
	} else {
		q.first = t
	}
	at.prev = t
	q.n++
}

// queueFor returns the queue for t. Of the shapes beyond
// maxShapes all share one queue, in which only the first task is considered
// (until memory is short: see sweep).
func (j *job) queueFor(t *task) *queue {
	shape := t.shape()
	var empty *queue
	for _, q := range j.queues {
		if q.shape == shape {
			return q
		}
		if q.first == nil {
			empty = q
		}
	}
	if empty != nil {
		empty.shape = shape
		return empty
	}
	if len(j.queues) < maxShapes {
		q := &queue{shape: shape}
		j.queues = append(j.queues, q)
		return q
	}
	if !t.here {
		return &j.abroad
	}
	return &j.overflow
}

// enqueue puts t, which waits for nothing else, at the end of its queue.
func (s *Scheduler) enqueue(t *task) {
	if t.place.in() != nil {
		s.enqueueIn(t)
		return
	}
	j := t.job
	s.move(t, queued)
	s.queued++
	t.turn = s.queued
	t.inner = t.parent != nil && (t.parent.res.Memory > 0 || t.parent.claim != nil)
	j.queueFor(t).add(t)
	s.activate(j)
	s.bePatient(t)
}

// activate enters j, which has a queued task, where those are.
func (s *Scheduler) activate(j *job) {
	if j.index < 0 {
		j.index = len(s.active)
		s.active = append(s.active, j)
	}
}

// dequeue takes t, queued, resuming or lent, out of its queue; move must follow.
func (s *Scheduler) dequeue(t *task) {
	t.queue.remove(t)
	if t.state != queued {
		return
	}
	s.stopTimer(t)
	if s.starvation.task == t {
		s.starvation = starvation{}
	}
	if j := t.job; j.count[queued] == 1 {
		last := s.active[len(s.active)-1]
		s.active[j.index] = last
		last.index = j.index
		s.active[len(s.active)-1] = nil
		s.active = s.active[:len(s.active)-1]
		j.index = -1
	}
}

// dispatch gives out what is free: to attempts that want their CPU back, then
// to tasks that have not started.
func (s *Scheduler) dispatch() {
	for t := s.resume.first; t != nil && t.res.CPU <= s.free.CPU; t = s.resume.first {
		s.dequeue(t)
		s.move(t, running)
		s.emit(Decision{Kind: Resume, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value})
	}
	s.reserve()
	s.seatGangs()
	for {
		t := s.pick()
		if t == nil {
			return
		}
		if t.place != nil || t.away != nil {
			if p := s.prefer(t); p != nil {
				s.lend(t, p)
				continue
			}
		}
		s.start(t)
	}
}

// begin counts an attempt of t that starts.
func (s *Scheduler) begin(t *task) {
	s.starts++
	t.job.served = s.starts
	t.attempt++
	if t.timeout > 0 {
		s.setTimer(t, t.timeout)
	}
}

func (s *Scheduler) start(t *task) {
	s.dequeue(t)
	s.move(t, running)
	s.begin(t)
	s.emit(Decision{Kind: Start, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value})
}

// pick returns the task to start next, or nil. Jobs come in the order of their
// dominant shares, the smallest first, and with equal shares the one that has
// not been served for longest; a job's tasks in the order in which they became
// able to run. The first that fits is taken.
func (s *Scheduler) pick() *task {
	var due, fits *task // the first in that order, and the first that may start
	var dueShare, fitsShare float64
	for _, j := range s.active {
		if j.ending {
			continue
		}
		share := s.share(j)
		isDue := due == nil || before(j, share, due.job, dueShare)
		mayFit := fits == nil || before(j, share, fits.job, fitsShare)
		if !isDue && !mayFit {
			continue
		}
		head, fit := s.heads(j)
		if head == nil {
			continue // none of them may run here
		}
		if isDue {
			due, dueShare = head, share
		}
		if mayFit && fit != nil {
			fits, fitsShare = fit, share
		}
	}
	if fits != nil && fits != due && s.starvation.task == nil {
		s.starvation = starvation{task: due, since: s.now}
	}
	return fits
}

// before reports whether job j is served before job k.
func before(j *job, share float64, k *job, other float64) bool {
	if share != other {
		return share < other
	}
	if j.served != k.served {
		return j.served < k.served
	}
	return j.first().turn < k.first().turn
}

// first returns the oldest queued task of a job that has one.
func (j *job) first() *task {
	oldest := j.overflow.first
	if t := j.abroad.first; t != nil && (oldest == nil || t.turn < oldest.turn) {
		oldest = t
	}
	for _, q := range j.queues {
		if t := q.first; t != nil && (oldest == nil || t.turn < oldest.turn) {
			oldest = t
		}
	}
	return oldest
}

// heads returns, of the queued tasks of j that may run here, the oldest, and the oldest of those at the
// head of a queue that may start now, or nil.
func (s *Scheduler) heads(j *job) (oldest, fit *task) {
	consider := func(t *task) {
		if t == nil || !t.here {
			return
		}
		if oldest == nil || t.turn < oldest.turn {
			oldest = t
		}
		if (fit == nil || t.turn < fit.turn) && s.mayStart(t) {
			fit = t
		}
	}
	for _, q := range j.queues {
		consider(q.first)
	}
	consider(j.overflow.first)
	return oldest, fit
}

// fits reports whether what t wants is free. CPU that a resuming attempt waits
// for is not.
func (s *Scheduler) fits(t *task) bool {
	return t.res.Fits(s.free) && (t.res.CPU == 0 || s.resume.first == nil) && s.lacking(t) == nil
}

func (s *Scheduler) mayStart(t *task) bool {
	return s.fits(t) && !s.heldBack(t)
}

// starvation guards one queued task against being overtaken for ever by
// smaller ones: of the tasks passed over it is the one that was so first, until it starts.
//
// From time to time resources are kept free for it. When it has waited for
// w = 100 ms, 200 ms, 400 ms, and so on, nothing that would take what it lacks
// starts for w/10. So at most a tenth of the node's time is given up, and the
// task runs after waiting for at most about twenty times as long as the tasks
// in its way take, even when other tasks hold their part for ever.
type starvation struct {
	task  *task
	since int64
}

const (
	firstHold  = 100_000_000 // nanoseconds waited before the first hold
	holdFactor = 10          // a hold lasts for 1/holdFactor of that
)

// holding reports whether resources are kept free for the task now, and until
// when.
func (v *starvation) holding(now int64) (until int64, yes bool) {
	if v.task == nil {
		return 0, false
	}
	return holdingSince(v.since, now)
}

// holdingSince is holding of what has waited since then.
func holdingSince(since, now int64) (until int64, yes bool) {
	if now-since < firstHold {
		return 0, false
	}
	w := int64(firstHold)
	for w <= (now-since)/2 {
		w *= 2
	}
	until = addSaturated(since, w+w/holdFactor)
	return until, now < until
}

// heldBack reports whether t has to leave what is free to a starving task. A
// task whose parent keeps something while it waits (memory, custom resources)
// may pass one that lacks such, for that parent may be what it lacks it of.
func (s *Scheduler) heldBack(t *task) bool {
	if _, yes := s.gangHolds(); yes && !t.inner && (t.res.CPU > 0 || t.res.Memory > 0 || t.claim != nil) {
		return true
	}
	v := &s.starvation
	if v.task == nil || v.task == t {
		return false
	}
	if _, yes := v.holding(s.now); !yes {
		return false
	}
	lacksCPU := v.task.res.CPU > s.free.CPU
	if lacksCPU && t.res.CPU > 0 {
		return true
	}
	if t.inner {
		return false
	}
	if v.task.res.Memory > s.free.Memory && t.res.Memory > 0 {
		return true
	}
	w := s.lacking(v.task)
	return w != nil && t.claim.of(w.resource) > 0
}
