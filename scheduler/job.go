package scheduler

import (
	"slices"

	"github.com/wray-project/wray"
)

// job is a program's tasks and their account.
type job struct {
	id    wray.ID
	roots family // tasks without a parent that is alive

	queues   []*queue      // tasks in state queued, by shape: see enqueue
	overflow queue         // those of the shapes beyond maxShapes
	abroad   queue         // those of them that may not run on this node
	parked   [states]queue // by state: the tasks that wait for something else, in the order they came
	index    int           // in Scheduler.active, or -1
	served   uint64        // Scheduler.starts at its last start

	count  [states]int // tasks by state
	live   int         // their sum
	held   wray.Resources
	custom []wray.Amount // held, as Scheduler.custom; nil before the first
	cpu    meter         // integral of held.CPU up to metered
	bytes  int64         // of pending tasks
	totals totals

	avoided []avoidance // peers that could not run its tasks

	metered int64 // time
	refused bool  // a Submit met ErrQueueFull; Space is owed
	wanted  int64 // the largest Spec.Bytes of those refused
	ending  bool
	mark    uint64 // epoch of the deadlock search that found that it can make Space
}

// totals are the counters of a job, which only grow.
type totals struct {
	submitted, finished, failed, canceled, retried, refused uint64
}

func (j *job) pending() int {
	return j.count[waiting] + j.count[queued] + j.count[grouped] + j.count[backoff] + j.count[condemned]
}

// meterTo brings the integral of held CPU up to now. It is called before held
// changes.
func (j *job) meterTo(now int64) {
	if now > j.metered {
		j.cpu.add(j.held.CPU, now-j.metered)
		j.metered = now
	}
}

// share is j's dominant share: the largest of its shares of CPU, memory and
// custom resources (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011).
func (s *Scheduler) share(j *job) float64 {
	capacity := &s.config.Capacity
	share := max(float64(j.held.CPU)/float64(capacity.CPU), float64(j.held.Memory)/float64(capacity.Memory))
	if j.custom != nil {
		share = max(share, s.customShare(j))
	}
	return share
}

// AddJob admits the tasks of a job. The ID must be new.
func (s *Scheduler) AddJob(now int64, id wray.ID) error {
	s.at(now)
	if id.IsZero() || s.jobs[id] != nil {
		return wray.Errorf(wray.CodeBadArgument, "job %v is zero or there already", id)
	}
	j := &job{id: id, index: -1, metered: s.now}
	s.jobs[id] = j
	s.order = append(s.order, j)
	return nil
}

// EndJob cancels every task of a job and refuses new ones. JobEnded follows
// when the last of them is done, at once when there is none. A job that is
// not known or ending already is left alone.
func (s *Scheduler) EndJob(now int64, id wray.ID) {
	s.at(now)
	j := s.jobs[id]
	if j == nil || j.ending {
		return
	}
	j.ending = true
	j.roots.next = j.roots.oldest
	if f := (&household{job: j}); !s.tend(f) {
		s.late.families.push(f)
	}
	s.endGangsOf(id)
	s.settle()
	s.closeIfEnded(j) // else done by the last of its tasks
}

// closeIfEnded forgets j when it is ending and has no task left.
func (s *Scheduler) closeIfEnded(j *job) {
	if !j.ending || j.live > 0 || s.jobs[j.id] != j {
		return
	}
	stats := s.statsOf(j)
	s.past.add(&stats)
	s.emit(Decision{Kind: JobEnded, Job: j.id, Stats: &stats})
	delete(s.jobs, j.id)
	s.order = slices.DeleteFunc(s.order, func(k *job) bool { return k == j })
}

// offerSpace emits the Space owed to j when there is room again: for what was
// refused, and down to three quarters of the limits, so that a submitter is
// not woken for every task that starts.
func (s *Scheduler) offerSpace(j *job) {
	if !j.ending && s.roomIn(j, 4) {
		s.grantSpace(j)
	}
}

// roomIn reports whether the largest spec that was refused would be taken now,
// and, with part > 0, whether that part of the limits is free.
func (s *Scheduler) roomIn(j *job, part int) bool {
	tasks, bytes := 1, j.wanted
	if part > 0 {
		tasks = max(tasks, s.config.MaxQueuedTasks/part)
		bytes = max(bytes, s.config.MaxQueuedBytes/int64(part))
	}
	return j.pending() <= s.config.MaxQueuedTasks-tasks && j.bytes <= s.config.MaxQueuedBytes-bytes
}

func (s *Scheduler) grantSpace(j *job) {
	j.refused, j.wanted = false, 0
	s.emit(Decision{Kind: Space, Job: j.id})
}

// holds is what a task of resources r holds in a state, besides its claim.
func (st state) holds(r wray.Resources) wray.Resources {
	switch st {
	case running:
		return r
	case blocked, resuming:
		return wray.Resources{Memory: r.Memory}
	}
	return wray.Resources{}
}

// move changes the state of t and every account that follows from it. It is
// the one place that does; queues, edges and timers are the caller's part.
func (s *Scheduler) move(t *task, to state) {
	j, from := t.job, t.state
	t.state, t.since = to, s.now
	if t.queue != nil && from.parks() {
		t.queue.remove(t)
	}
	if to.parks() {
		j.parked[to].add(t)
	}
	if from != gone {
		j.count[from]--
	} else {
		j.live++
	}
	if to != gone {
		j.count[to]++
	} else {
		j.live--
	}
	if t.room != nil {
		s.moveIn(t, from, to)
		if from == lent {
			t.away.peer = nil
		}
	} else if from.started() || to.started() {
		s.gangs.changed = s.gangs.changed || from.started()
		change := to.holds(t.res).Sub(from.holds(t.res))
		if change != (wray.Resources{}) {
			j.meterTo(s.now)
			j.held = j.held.Add(change)
			s.free = s.free.Sub(change)
		}
		if from == blocked {
			s.deadlock.blockedMemory -= t.res.Memory
		}
		if to == blocked {
			s.deadlock.blockedMemory += t.res.Memory
		}
		if t.claim != nil {
			s.moveClaim(t, from, to)
		}
		if to == lent {
			t.away.peer.loan(t, 1)
		} else if from == lent {
			p := t.away.peer
			p.loan(t, -1)
			p.resort()
			t.away.peer = nil
		}
	}
	switch {
	case to.pending() && !from.pending():
		j.bytes += t.bytes
	case from.pending() && !to.pending():
		j.bytes -= t.bytes
		if j.refused {
			s.offerSpace(j)
		}
	}
	s.deadlock.changed = true
}
