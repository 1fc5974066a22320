// Package scheduler decides when each task of one tenant runs on one node. It
// is a state machine: events and the time go in, decisions come out. It starts
// no goroutine, reads no clock, does no I/O and draws no random number, so the
// same events always give the same decisions, and every behaviour is a script
// that can be read (see testdata).
//
// # Usage
//
// The caller holds one lock around the machine, tells it what happened, and
// then asks what to do:
//
//	s, err := scheduler.New(scheduler.Config{Capacity: capacity})
//	err = s.AddJob(now, job)
//
//	err = s.Submit(now, &spec)             // what happened …
//	s.Finished(now, task, attempt, outcome)
//	decisions = s.Ready(decisions[:0])     // … what to do about it
//
// Any number of events may come before one Ready: nothing is started, resumed
// or admitted in between, so a batch is judged as a whole. Times are
// nanoseconds on any one clock that does not go back; an earlier time than the
// last one counts as the last one.
//
// # Obligations of the caller
//
//  1. Carry out decisions in the order of Seq, or act as if: a Stop may follow
//     the Start of the same attempt.
//  2. End every started attempt with exactly one Finished, also after a Stop
//     and also when the sandbox was killed. What the attempt holds is given
//     back only then, so that nothing is ever promised twice.
//  3. Name in Spec.Deps and Wait.Objects only objects that are not there yet,
//     judged under the same lock, and report each of them that no task here
//     makes with ObjectReady or ObjectFailed.
//  4. Tell Blocked when an attempt waits, and after Unblocked do not let it
//     compute before its Resume. Tell Unblocked in the batch of what ended
//     the wait: a batch later, another task may have its CPU.
//  5. Call Tick at NextDeadline, which may move with every Ready.
//
// Events about an attempt that is over, or a task that is not known (any
// more), are expected in a system where sandboxes are killed: they change
// nothing and are counted in Stats.Stale.
//
// A Scheduler is not safe for concurrent use. DESIGN.md has the terms, states,
// rules and invariants.
package scheduler

import (
	"container/heap"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
)

// Defaults of Config.
const (
	DefaultMaxQueuedTasks = 1_000_000
	DefaultMaxQueuedBytes = 1 << 30
	DefaultMaxDepth       = 64
)

// Config is what a Scheduler is made of. Limits left zero take their default.
type Config struct {
	// Capacity is what tasks of this tenant may hold together. Both parts must
	// be positive.
	Capacity wray.Resources

	// Quota is what whoever shares out nodes lets them hold on each: an error names
	// it as its limit where Capacity is no more because of it. Zero is no bound.
	Quota wray.Resources

	// Custom is what they may hold of other resources, each name once.
	Custom []wray.Custom

	// Node and Labels are what the node is called and has, for strategies.
	Node   string
	Labels []Label

	// MaxQueuedTasks and MaxQueuedBytes bound what one job may have waiting to
	// run; beyond, Submit answers [ErrQueueFull] and a Space decision follows
	// when there is room. Retries are never refused and may pass the limits.
	MaxQueuedTasks int
	MaxQueuedBytes int64

	// MaxDepth bounds nesting: a task of the driver has depth 1, what it
	// submits depth 2. Cancellation walks the tree of tasks by recursion,
	// which this bounds, too.
	MaxDepth int

	// Patience is how many nanoseconds a task that this node could never hold waits
	// for one that could, where there is none and none is promised: one
	// may be on its way, or back in a moment. Then it fails as Unschedulable. 0:
	// it fails at once.
	Patience int64

	// Slice bounds the work that the events between two Readys do at once for
	// tasks that end or wait together. The rest is left to Ticks.
	Slice int
}

func (c *Config) ensureDefaults() {
	if c.MaxQueuedTasks == 0 {
		c.MaxQueuedTasks = DefaultMaxQueuedTasks
	}
	if c.MaxQueuedBytes == 0 {
		c.MaxQueuedBytes = DefaultMaxQueuedBytes
	}
	if c.MaxDepth == 0 {
		c.MaxDepth = DefaultMaxDepth
	}
	if c.Slice == 0 {
		c.Slice = DefaultSlice
	}
}

func (c *Config) validate() error {
	switch {
	case c.Capacity.CPU <= 0:
		return fmt.Errorf("scheduler: capacity of %d ten-thousandths of a core: want more than 0", c.Capacity.CPU)
	case c.Capacity.Memory <= 0:
		return fmt.Errorf("scheduler: capacity of %d bytes of memory: want more than 0", c.Capacity.Memory)
	case c.MaxQueuedTasks < 0 || c.MaxQueuedBytes < 0 || c.MaxDepth < 0 || c.Slice < 0 || c.Patience < 0:
		return errors.New("scheduler: a limit is negative")
	}
	if err := validateCustom(c.Custom); err != nil {
		return fmt.Errorf("scheduler: capacity: %w", err)
	}
	return nil
}

// Scheduler is the state machine. Make one with [New].
type Scheduler struct {
	config Config
	now    int64          // the latest time told
	free   wray.Resources // capacity less what started tasks hold

	node   Node
	own    int               // how many custom resources this node has
	custom []custom          // their accounts, by name; then those of resources that peers alone have
	claims map[string]*claim // of the tasks alive, by their key

	tasks    table[task, *task]     // every task that is not done
	objects  table[object, *object] // every object that a task makes or waits for and that is not there
	jobs     map[wray.ID]*job
	promises []Promise        // nodes of which more can be there
	coming   map[string]int64 // nodes that are there, and have not said what they have: since when
	order    []*job           // the jobs, oldest first: maps are never ranged over

	active []*job // jobs with queued tasks, in no order
	resume queue  // tasks in state resuming, in the order of Unblocked
	timers timers // deadlines of attempts, and ends of backoffs and of patience
	late   late

	peers      peers
	gangs      gangs
	placements map[string]*placement // of the tasks alive, by their key
	round      uint64                // of lendOut
	missed     bool                  // in this round, somebody may have room who was not drawn
	lendAgain  int64                 // when to draw again; 0: no need

	submits uint64 // submissions so far: a task's seq
	queued  uint64 // arrivals in queues so far: a task's turn
	starts  uint64 // starts so far: a job's served
	stale   uint64 // events ignored
	past    Stats  // of jobs that are gone

	starvation starvation
	deadlock   deadlock

	out []Decision // made and not yet taken by Ready
	seq uint64     // of the last decision

	freeTasks   pool[task]
	freeObjects pool[object]
	freeEdges   pool[edge]
}

// New returns a Scheduler without jobs.
func New(c Config) (*Scheduler, error) {
	c.ensureDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Scheduler{
		config: c,
		node:   Node{Name: c.Node, Capacity: c.Capacity, Custom: c.Custom, Labels: c.Labels},
		own:    len(c.Custom),
		free:   c.Capacity,
		custom: customs(c.Custom),
		claims: make(map[string]*claim),
		jobs:   make(map[wray.ID]*job),
		late:   late{left: c.Slice},
	}, nil
}

// at takes note of the time of an event.
func (s *Scheduler) at(now int64) {
	if now > s.now {
		s.now = now
	}
}

// emit adds a decision for Ready.
func (s *Scheduler) emit(d Decision) {
	s.seq++
	d.Seq = s.seq
	s.out = append(s.out, d)
}

// Value returns the [Spec]'s Value of a task that is not done, or nil.
func (s *Scheduler) Value(id wray.ID) any {
	if t := s.tasks.get(id); t != nil {
		return t.value
	}
	return nil
}

// Tick tells that time passed: attempts past their deadline are stopped, and
// retries whose backoff is over are queued; and a slice of the work is done that
// events left. Calling it early or often is
// harmless.
func (s *Scheduler) Tick(now int64) {
	s.at(now)
	for len(s.timers) > 0 && s.timers[0].timer <= s.now {
		t := heap.Pop(&s.timers).(*task)
		if t.state == queued {
			switch {
			case s.hope(t.res, t.claim.all(), t.place):
			case s.comes(t.place):
				s.beginPatience(t)
			default:
				err := s.nowhere(t.name, t.res, t.claim.all(), t.place)
				err.Attempt = t.attempt
				s.condemn(t, err)
			}
			continue
		}
		if t.state == backoff {
			if t.children.next != nil { // the last attempt's are being canceled
				s.setTimer(t, searchDelay)
				continue
			}
			s.enqueue(t)
			continue
		}
		t.stop = wray.CodeTimeout
		s.emitStop(t, wray.CodeTimeout)
	}
	s.tickGangs()
	if s.deadlock.due(s.now) {
		s.sweep()
		s.breakDeadlock()
	}
	s.settle()
}

// Waiting reports whether some task waits for resources and nothing else.
func (s *Scheduler) Waiting() bool { return len(s.active) > 0 }

// NextDeadline returns the time at which the next Tick has something to do;
// false when no passing of time alone changes anything. Events and Ready may
// make it earlier.
func (s *Scheduler) NextDeadline() (int64, bool) {
	var next int64
	var ok bool
	earliest := func(t int64) {
		if !ok || t < next {
			next, ok = t, true
		}
	}
	if len(s.timers) > 0 {
		earliest(s.timers[0].timer)
	}
	if s.deadlock.armed {
		earliest(s.deadlock.at)
	}
	if until, holding := s.starvation.holding(s.now); holding {
		earliest(until)
	}
	if s.lendAgain > 0 {
		earliest(s.lendAgain)
	}
	if s.behind() {
		earliest(s.now)
	}
	if at := s.gangDeadline(); at > 0 {
		earliest(at)
	}
	if until, holding := s.gangHolds(); holding {
		earliest(until)
	}
	return next, ok
}

// Ready admits what fits, and appends to dst the decisions made since the last
// call: first those that events led to, in their order, then Resumes, then
// Starts and, of what does not fit here, Lends. The caller owns dst; nothing in it is touched later, except that a
// Done's Err belongs to all who hold it and is not to be modified.
func (s *Scheduler) Ready(dst []Decision) []Decision {
	s.dispatch()
	if len(s.peers.all.list) > 0 {
		for s.lendOut() {
			s.dispatch()
		}
	}
	s.deadlock.arm(s)
	if invariants {
		s.mustHold()
	}
	s.late.left = s.config.Slice
	dst = append(dst, s.out...)
	if cap(s.out) > maxSpareDecisions {
		s.out = nil
	} else {
		clear(s.out) // lets go of errors
		s.out = s.out[:0]
	}
	return dst
}

// maxSpareDecisions bounds the buffer kept between two Readys.
const maxSpareDecisions = 4096
