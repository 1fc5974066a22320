package scheduler

import "github.com/wray-project/wray"

// state is where a task is between Submit and Done. DESIGN.md draws the moves.
type state uint8

const (
	gone      state = iota // before Submit and after Done
	waiting                // for dependencies
	queued                 // could run if resources were free
	grouped                // the same, in the bundles of its group
	backoff                // an attempt failed, the next one waits for its time
	condemned              // not started, and is to fail: see late
	lent                   // started at a peer: holds nothing here
	running                // started: holds CPU, memory and its claim
	blocked                // started and waiting: holds memory and its claim
	resuming               // started, no longer waiting: holds the same, wants its CPU
	recalled               // lent, and is to fail: condemned, but not pending again
	leaving                // done, and has children that its parent does not have yet
	states
)

var stateNames = [states]string{"gone", "waiting", "queued", "queued", "backoff", "condemned", "lent", "running", "blocked", "resuming", "recalled", "leaving"}

func (st state) String() string { return stateNames[st] }

// pending: not started, or not started again.
func (st state) pending() bool { return st >= waiting && st <= condemned }

// parks: it waits for no resources, so no queue has it; see job.parked.
func (st state) parks() bool {
	return st == waiting || st == backoff || st == condemned || st == blocked
}

// started: an attempt is under way and owes a Finished.
func (st state) started() bool { return st >= lent && st <= resuming }

// local: started, and on this node.
func (st state) local() bool { return st >= running && st <= resuming }

// task is the record of one task. Records are recycled: nothing may keep a
// *task beyond its Done.
type task struct {
	entry[task]
	name    string
	job     *job
	parent  *task // nil for the driver's; always alive, see adopt
	depth   int
	res     wray.Resources
	claim   *claim     // nil: no custom resources
	place   *placement // nil: the default strategy
	away    *away      // nil where it has nothing to do with other nodes
	results []*object  // nil where the object is there already
	retries int
	timeout int64
	bytes   int64
	value   any

	seq     uint64 // of its submission: greater is younger
	turn    uint64 // of its last arrival in its queue
	attempt int    // started so far
	state   state
	since   int64 // the time at which it came into that state

	stop    wray.Code // the reason of the attempt's Stop, CodeOK without one
	why     string    // why it was canceled
	here    bool      // this node could hold it, and its strategy lets it
	again   bool      // it makes anew what was lost
	spare   bool      // its children live on: it was canceled alone or, leaving, ended well
	visible bool      // blocked on what the scheduler sees: objects or Space
	all     bool      // blocked until all objects are there
	space   bool      // blocked on Space
	doom    *wray.Error
	pending int   // edges whose object is not there
	edges   *edge // what it waits for: dependencies or, blocked, objects

	room          *room // that it is started in, or nil
	before, after *task // started in that

	inner      bool   // its parent held something that it keeps while it waits, when t was queued
	queue      *queue // the queue it is in, or nil
	next, prev *task  // in queue

	children       family
	tended         bool  // in late.families
	older, younger *task // siblings

	timer      int64 // deadline, or end of backoff or patience
	timerIndex int   // in Scheduler.timers, or -1

	mark  uint64 // epoch of the deadlock search that found that it can go on
	needs int    // and how many things it needs to go on
}

// object is a thing that a task makes or waits for and that is not there yet.
type object struct {
	entry[object]
	producer    *task // nil when made elsewhere
	index       int   // in producer.results
	first, last *edge // tasks that wait for it, in the order they came

	coming bool        // it is there or failed: those who wait are being told
	err    *wray.Error // then, why it failed
}

// edge is one task waiting for one object. It is in the list of its task as
// long as the task waits, and in that of its object until the object is there.
type edge struct {
	task       *task
	object     *object // nil once there
	next, prev *edge   // among those that wait for object
	more       *edge   // in task.edges
}

// family is a list of siblings, oldest first: the children of a task, or the
// tasks of a job that have no parent. Every task that is not done is in one.
type family struct {
	oldest, youngest *task
	next             *task // the first that is to be canceled, and those after it; nil: none
}

func (f *family) add(t *task) {
	t.older, t.younger = f.youngest, nil
	if f.youngest != nil {
		f.youngest.younger = t
	} else {
		f.oldest = t
	}
	f.youngest = t
}

func (f *family) remove(t *task) {
	if t.older != nil {
		t.older.younger = t.younger
	} else {
		f.oldest = t.younger
	}
	if t.younger != nil {
		t.younger.older = t.older
	} else {
		f.youngest = t.older
	}
	if f.next == t {
		f.next = t.younger
	}
	t.older, t.younger = nil, nil
}

// each calls fn for every task of the family and all that descend from them,
// parents first. Depth of recursion is bounded by Config.MaxDepth.
func (f *family) each(fn func(*task)) {
	for t := f.oldest; t != nil; t = t.younger {
		fn(t)
		t.children.each(fn)
	}
}

// siblings returns the family that t is in.
func (t *task) siblings() *family {
	if t.parent != nil {
		return &t.parent.children
	}
	return &t.job.roots
}

// link makes t wait for the object id, which is not there.
func (s *Scheduler) link(t *task, id wray.ID) {
	o := s.objects.get(id)
	if o == nil {
		o = s.newObject(id)
	}
	e := s.freeEdges.get()
	e.task, e.object, e.more = t, o, t.edges
	t.edges = e
	t.pending++
	e.prev = o.last
	if o.last != nil {
		o.last.next = e
	} else {
		o.first = e
	}
	o.last = e
}

// unlink makes t wait for nothing. Objects that nobody makes or waits for any
// more are forgotten.
func (s *Scheduler) unlink(t *task) {
	for e := t.edges; e != nil; {
		more := e.more
		if o := e.object; o != nil {
			if e.prev != nil {
				e.prev.next = e.next
			} else {
				o.first = e.next
			}
			if e.next != nil {
				e.next.prev = e.prev
			} else {
				o.last = e.prev
			}
			if o.first == nil && o.producer == nil && !o.coming {
				s.forgetObject(o)
			}
		}
		*e = edge{}
		s.freeEdges.put(e)
		e = more
	}
	t.edges, t.pending = nil, 0
	if t.space {
		t.space = false
		s.deadlock.spaceWaiters--
	}
}

func (s *Scheduler) newObject(id wray.ID) *object {
	o := s.freeObjects.get()
	o.id = id
	s.objects.add(o)
	return o
}

func (s *Scheduler) forgetObject(o *object) {
	s.objects.remove(o)
	*o = object{}
	s.freeObjects.put(o)
}

// resolve takes note that o is there (err nil) or never will be. Tasks that
// depended on it move on; blocked ones do when the caller says Unblocked.
func (s *Scheduler) resolve(o *object, err *wray.Error) {
	if o.producer != nil {
		o.producer.results[o.index] = nil
		o.producer = nil
	}
	if o.coming {
		return
	}
	o.coming, o.err = true, err
	if !s.tell(o) {
		s.late.told.push(o)
	}
}

// recycle forgets t, whose edges, timer and queue are gone.
func (s *Scheduler) recycle(t *task) {
	s.disown(t)
	s.tasks.remove(t)
	results := t.results
	if cap(results) > maxSpareResults {
		results = nil
	}
	clear(results)
	*t = task{results: results[:0]}
	s.freeTasks.put(t)
}

// pool keeps records for reuse, so that a steady flow of tasks allocates
// nothing. It is bounded: after a burst the collector gets the rest.
type pool[T any] struct{ spare []*T }

const (
	maxSpare        = 4096 // records in a pool
	maxSpareResults = 64   // capacity of task.results kept with a record
)

func (p *pool[T]) get() *T {
	n := len(p.spare)
	if n == 0 {
		return new(T)
	}
	x := p.spare[n-1]
	p.spare[n-1] = nil
	p.spare = p.spare[:n-1]
	return x
}

func (p *pool[T]) put(x *T) {
	if len(p.spare) < maxSpare {
		p.spare = append(p.spare, x)
	}
}
