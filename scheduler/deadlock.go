package scheduler

// deadlock is what the search for deadlocks keeps from one event to the next.
//
// CPU cannot deadlock: whoever waits gives it back. Memory and custom resources
// can, for they stay held: when all who hold some wait for tasks that need more
// than is left, nothing moves again. The search visits every task, so it is armed
// only when what blocked tasks hold keeps a queued task from ever fitting, when
// something changed since the last search, and not more often than the number
// of tasks makes cheap.
type deadlock struct {
	blockedMemory int64 // held by tasks in state blocked
	blockedClaims int   // tasks in state blocked that have a claim
	spaceWaiters  int   // tasks blocked on Space

	changed bool  // since the last search
	armed   bool  // a search is due at:
	at      int64 //
	next    int64 // earliest time of the next search
	epoch   uint64
}

const (
	searchDelay   = 10_000_000 // least nanoseconds between two searches
	searchPerTask = 2_500      // and for each task alive: some ten times what its visit costs
)

// due reports whether a search is to be made now, and disarms it.
func (d *deadlock) due(now int64) bool {
	if !d.armed || now < d.at {
		return false
	}
	d.armed = false
	return true
}

// arm sets the time of the next search when one might find something.
func (d *deadlock) arm(s *Scheduler) {
	if !d.changed {
		return
	}
	if !s.isShort() {
		d.armed = false
		return
	}
	if !d.armed {
		d.armed = true
		d.at = max(addSaturated(s.now, searchDelay), d.next)
	}
}

// isShort reports whether some queued task would not fit even if every
// task that is not blocked ended, or a task is blocked on Space.
func (s *Scheduler) isShort() bool {
	if s.deadlock.spaceWaiters > 0 {
		return true
	}
	if s.deadlock.blockedMemory == 0 && s.deadlock.blockedClaims == 0 {
		return false
	}
	for _, j := range s.active {
		for _, q := range j.queues {
			if s.blockedOut(q.first) && !s.abroad(q.first) {
				return true
			}
		}
		// One that another node may run may stay at the head for long, and says
		// nothing of those behind it.
		looked := 0
		for t := j.overflow.first; t != nil && s.blockedOut(t); t = t.next {
			if looked++; looked > maxShapes || !s.abroad(t) {
				return true
			}
		}
	}
	return false
}

// blockedOut reports whether t, which may be nil, would not fit even if every
// task that is not blocked ended.
func (s *Scheduler) blockedOut(t *task) bool {
	if t == nil {
		return false
	}
	if t.res.Memory > s.config.Capacity.Memory-s.deadlock.blockedMemory {
		return true
	}
	if t.claim != nil && s.deadlock.blockedClaims > 0 {
		for _, w := range t.claim.wants {
			if c := &s.custom[w.resource]; w.amount > c.capacity-c.blocked {
				return true
			}
		}
	}
	return false
}

// sweep starts every queued task that fits, whatever its place. It is called
// when something is short, before a deadlock is declared, and makes up for the
// two rules of dispatch by which a task that fits may have to wait: being held
// back for a starving task, and not being the first in job.overflow.
func (s *Scheduler) sweep() {
	for _, j := range s.order {
		if j.index < 0 || j.ending {
			continue
		}
		for _, q := range j.queues {
			for q.first != nil && q.first.here && s.fits(q.first) {
				s.start(q.first)
			}
		}
		for t := j.overflow.first; t != nil; {
			next := t.next
			if s.fits(t) {
				s.start(t)
			}
			t = next
		}
	}
}

// breakDeadlock looks for tasks that keep resources and wait for work that cannot
// be admitted, and fails the youngest such work. It breaks one knot at a time:
// whoever waited for it decides what to do next.
func (s *Scheduler) breakDeadlock() {
	d := &s.deadlock
	d.changed = false
	d.next = addSaturated(s.now, max(searchDelay, int64(s.tasks.n)*searchPerTask))
	s.markAble()
	stuck := s.stuck()
	for _, t := range stuck {
		if t.space && t.job.refused && s.roomIn(t.job, 0) {
			// The quarter that offerSpace waits for will not come; what there
			// is will do.
			s.grantSpace(t.job)
			return
		}
	}
	if t := s.youngestFor(stuck); t != nil {
		s.condemn(t, s.resourceDeadlock(t))
	}
}

// able returns the mark of the tasks that the last search found able to go on.
func (d *deadlock) able() uint64 { return d.epoch }

// markAble marks every task that can go on, by what the scheduler knows: the
// least set such that
//
//   - an attempt that computes, will resume or is being stopped is in it,
//   - a blocked one is, when what it waits for comes from outside or from
//     tasks in the set, or is there already; when it waits for Space, any task
//     of its job that is in the set and has not started makes some,
//   - one with dependencies is, when any of them comes from outside or from a
//     task in the set, for that might fail; should it come, and the task then
//     not be admitted, that is for a later search,
//   - a queued one is, when the memory and the custom resources it asks for fit
//     in what is free and what tasks in the set hold, or it may run on another
//     node.
//
// What comes from outside is taken to come.
func (s *Scheduler) markAble() {
	s.deadlock.epoch++
	able := s.deadlock.able()
	var todo []*task // marked, consequences not drawn
	short := s.newShort()

	mark := func(t *task) {
		if t.mark != able {
			t.mark = able
			todo = append(todo, t)
		}
	}
	for _, j := range s.order {
		j.roots.each(func(t *task) {
			t.needs = t.lacks()
			switch {
			case t.state == queued || t.state == backoff:
				if t.place.in() != nil || s.abroad(t) || short.gather(t) {
					mark(t)
				}
			case t.needs == 0:
				mark(t)
			}
		})
	}
	short.init()
	for {
		for len(todo) > 0 {
			t := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			short.add(t)
			if j := t.job; t.state.pending() && s.deadlock.spaceWaiters > 0 && j.mark != able {
				j.mark = able
				j.roots.each(func(w *task) {
					if w.space {
						mark(w)
					}
				})
			}
			for _, o := range t.results {
				if o == nil {
					continue
				}
				for e := o.first; e != nil; e = e.next {
					if e.task.needs--; e.task.needs == 0 {
						mark(e.task)
					}
				}
			}
		}
		t := short.next()
		if t == nil {
			return
		}
		mark(t)
	}
}

// lacks returns how many things that tasks here make have to come before t can
// go on; of a queued task it does not count resources.
func (t *task) lacks() int {
	switch {
	case t.state != waiting && t.state != blocked || t.stop != 0:
		return 0
	case t.state == blocked && (!t.visible || t.space && !t.job.refused):
		return 0
	}
	makers, outside, there := 0, 0, 0
	for e := t.edges; e != nil; e = e.more {
		switch {
		case e.object == nil:
			there++
		case e.object.producer == nil:
			outside++
		default:
			makers++
		}
	}
	switch {
	case t.state == blocked && t.all:
		return makers
	case outside > 0 || t.state == blocked && there > 0:
		return 0
	}
	return 1 // any of them, or Space
}

// stuck returns the blocked tasks that the last search did not mark.
func (s *Scheduler) stuck() []*task {
	var stuck []*task
	for _, j := range s.order {
		j.roots.each(func(t *task) {
			if t.state == blocked && t.mark != s.deadlock.able() {
				stuck = append(stuck, t)
			}
		})
	}
	return stuck
}

// youngestFor returns, of the queued tasks that were not marked, the youngest that one of the stuck tasks waits for, directly or
// through dependencies; nil when there is none. For one that waits for Space
// any pending task of its job will do.
func (s *Scheduler) youngestFor(stuck []*task) *task {
	able := s.deadlock.able()
	var youngest *task
	consider := func(t *task) {
		if youngest == nil || t.seq > youngest.seq {
			youngest = t
		}
	}
	seen := make(map[*task]bool)
	jobs := make(map[*job]bool)
	for len(stuck) > 0 {
		t := stuck[len(stuck)-1]
		stuck = stuck[:len(stuck)-1]
		if seen[t] {
			continue
		}
		seen[t] = true
		if t.state == queued || t.state == backoff {
			consider(t)
			continue
		}
		if t.space && !jobs[t.job] {
			jobs[t.job] = true
			t.job.roots.each(func(p *task) {
				if p.state.pending() && p.mark != able {
					consider(p)
				}
			})
		}
		for e := t.edges; e != nil; e = e.more {
			if o := e.object; o != nil && o.producer != nil && o.producer.mark != able {
				stuck = append(stuck, o.producer)
			}
		}
	}
	return youngest
}
