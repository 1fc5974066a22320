package worker

import (
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// bytes returns what a task keeps in memory while it waits, about. All of it is
// as long as who submits wants it to be, and none is counted elsewhere.
func (t *task) bytes() int64 {
	const argument, result = 64, 256 // arg; Object and its place in the index
	n := int64(len(t.name)) + argument*int64(len(t.args)) + result*int64(len(t.results))
	for _, s := range t.retryOn {
		n += int64(len(s)) + 16
	}
	for i := range t.args {
		n += int64(len(t.args[i].payload))
	}
	return n + placeBytes(t.place)
}

// placeBytes returns what a placement keeps in memory, about: its strings, which
// are as long as a stranger makes them, and which the scheduler has in a key too.
func placeBytes(p *wray.Placement) int64 {
	if p == nil {
		return 0
	}
	const selector, text = 56, 16 // wray.Selector; the head of a string
	n := 2 * len(p.Node)
	for i := range p.Where {
		n += selector + 2*len(p.Where[i].Key)
		for _, v := range p.Where[i].Values {
			n += text + 2*len(v)
		}
	}
	return int64(n)
}

// queue bounds the calls that wait in all mailboxes of a job.
type queue struct {
	mu      sync.Mutex
	n       int   // guarded by mu
	bytes   int64 // guarded by mu
	refused bool  // guarded by mu; somebody waits for room
}

// add takes note of one more call, or returns scheduler.ErrQueueFull.
func (q *queue) add(bytes int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n >= scheduler.DefaultMaxQueuedTasks || q.bytes > scheduler.DefaultMaxQueuedBytes-bytes {
		q.refused = true
		return scheduler.ErrQueueFull
	}
	q.n++
	q.bytes += bytes
	return nil
}

// addLent takes note of one more call, which is counted where it comes from as
// well.
func (q *queue) addLent(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.n++
	q.bytes += bytes
}

// takeOut takes a call that waits out of the mailbox. False: it does not wait.
func (a *actor) takeOut(t *task) bool {
	a.mu.Lock()
	waits := a.box.Remove(t.letter)
	a.mu.Unlock()
	if waits {
		a.job.takeQueued(t.bytes())
	}
	return waits
}

// takeQueued takes note that a call waits no more, and tells those who wait
// for room when a good part of it is there.
func (j *job) takeQueued(bytes int64) {
	q := &j.queued
	q.mu.Lock()
	q.n--
	q.bytes -= bytes
	room := q.refused && q.n <= scheduler.DefaultMaxQueuedTasks*3/4 && q.bytes <= scheduler.DefaultMaxQueuedBytes*3/4
	if room {
		q.refused = false
	}
	q.mu.Unlock()
	if room {
		j.space()
	}
}

// callTable finds calls by their ID, to cancel them.
type callTable struct {
	mu sync.Mutex
	m  map[uint64]*task // by the number in their IDs, whose owner is the worker; guarded by mu
}

func (c *callTable) add(t *task) {
	c.mu.Lock()
	if c.m == nil {
		c.m = make(map[uint64]*task)
	}
	c.m[t.id.Seq] = t
	c.mu.Unlock()
}

func (c *callTable) get(id wray.ID) *task {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.m[id.Seq]; t != nil && t.id == id {
		return t
	}
	return nil
}

func (c *callTable) remove(t *task) {
	c.mu.Lock()
	delete(c.m, t.id.Seq)
	c.mu.Unlock()
}
