package scheduler

import "container/heap"

// deadlock is what the search for deadlocks keeps from one event to the next.
//
// CPU cannot deadlock: whoever waits gives it back. Memory can, for it stays
// held: when all who hold it wait for tasks that need more of it than is left,
// nothing moves again. The search visits every task, so it is armed only when
// memory held by blocked tasks keeps a queued task from ever fitting, when
// something changed since the last search, and not more often than the number
// of tasks makes cheap.
type deadlock struct {
	blockedMemory int64 // held by tasks in state blocked
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
	if !s.memoryIsShort() {
		d.armed = false
		return
	}
	if !d.armed {
		d.armed = true
		d.at = max(addSaturated(s.now, searchDelay), d.next)
	}
}

// memoryIsShort reports whether some queued task would not fit even if every
// task that is not blocked ended, or a task is blocked on Space.
func (s *Scheduler) memoryIsShort() bool {
	if s.deadlock.spaceWaiters > 0 {
		return true
	}
	if s.deadlock.blockedMemory == 0 {
		return false
	}
	left := s.config.Capacity.Memory - s.deadlock.blockedMemory
	for _, j := range s.active {
		for _, q := range j.queues {
			if q.first != nil && q.first.res.Memory > left {
				return true
			}
		}
		if t := j.overflow.first; t != nil && t.res.Memory > left {
			return true
		}
	}
	return false
}

// sweep starts every queued task that fits, whatever its place. It is called
// when memory is short, before a deadlock is declared, and makes up for the
// two rules of dispatch by which a task that fits may have to wait: being held
// back for a starving task, and not being the first in job.overflow.
func (s *Scheduler) sweep() {
	for _, j := range s.order {
		if j.index < 0 {
			continue
		}
		for _, q := range j.queues {
			for q.first != nil && s.fits(q.first) {
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

// breakDeadlock looks for tasks that hold memory and wait for work that cannot
// be admitted, and fails the youngest such work. It breaks one knot at a time:
// whoever waited for it decides what to do next.
func (s *Scheduler) breakDeadlock() {
	d := &s.deadlock
	d.changed = false
	d.next = addSaturated(s.now, max(searchDelay, int64(len(s.tasks))*searchPerTask))
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
//   - a queued one is, when the memory it asks for fits in what is free and
//     what tasks in the set hold.
//
// What comes from outside is taken to come.
func (s *Scheduler) markAble() {
	s.deadlock.epoch++
	able := s.deadlock.able()
	var todo []*task        // marked, consequences not drawn
	var short byMemory      // lacking nothing but memory
	memory := s.free.Memory // what is or may become free

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
				short = append(short, t)
			case t.needs == 0:
				mark(t)
			}
		})
	}
	heap.Init(&short)
	for {
		for len(todo) > 0 {
			t := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			memory += t.state.holds(t.res).Memory
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
		if len(short) == 0 || short[0].res.Memory > memory {
			return
		}
		mark(heap.Pop(&short).(*task))
	}
}

// lacks returns how many things that tasks here make have to come before t can
// go on; of a queued task it does not count memory.
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

// byMemory is a heap of tasks, the smallest first.
type byMemory []*task

func (h byMemory) Len() int           { return len(h) }
func (h byMemory) Less(i, k int) bool { return h[i].res.Memory < h[k].res.Memory }
func (h byMemory) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }

// Push is for container/heap.
func (h *byMemory) Push(x any) { *h = append(*h, x.(*task)) }

// Pop is for container/heap.
func (h *byMemory) Pop() any {
	old := *h
	t := old[len(old)-1]
	*h = old[:len(old)-1]
	return t
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
