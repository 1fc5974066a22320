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
	return n
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
