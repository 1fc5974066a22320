package guest

import (
	"context"
	"time"
)

// A taskContext is the context of a call. It is canceled by the event CANCEL,
// when its deadline passes, and when the call ends. Asking whether it is done
// reads the events that are there, so that a task which computes without ever
// waiting can see that it was canceled.
type taskContext struct {
	deadline time.Time
	timer    *time.Timer
	done     chan struct{} // made when it is asked for
	err      error
	waits    int // goroutines in park with this very context
	after    map[*func()]func()
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Contexts are made sixteen at a time: a task may keep its own, so each has one,
// and to allocate it would be a tenth of the cost of a small task.
var contexts []taskContext

func newContext() *taskContext {
	if len(contexts) == 0 {
		makeContexts()
	}
	c := &contexts[0]
	contexts = contexts[1:]
	return c
}

func makeContexts() { contexts = make([]taskContext, 16) }

// limit ends the context after timeout, or never for 0.
func (c *taskContext) limit(timeout time.Duration) {
	if timeout > 0 {
		c.deadline = time.Now().Add(timeout)
		c.timer = time.AfterFunc(timeout, func() { c.cancel(context.DeadlineExceeded) })
	}
}

// forever is longer than anything runs.
const forever = 100 * 365 * 24 * time.Hour

// awaitsCancel reports whether somebody may wait for the context's end. Then
// there is a timer from now on, for the host to see that the guest waits for
// something.
func (c *taskContext) awaitsCancel() bool {
	if c.done == nil || c.err != nil {
		return false
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(forever, func() {})
	}
	return true
}

// end ends the context with its call.
func (c *taskContext) end() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.cancel(context.Canceled)
}

// Deadline implements context.Context.
func (c *taskContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Value implements context.Context.
func (c *taskContext) Value(any) any { return nil }

// Done implements context.Context.
func (c *taskContext) Done() <-chan struct{} {
	c.poll()
	if c.done == nil {
		if c.err != nil {
			return closed
		}
		c.done = make(chan struct{})
	}
	return c.done
}

// Err implements context.Context.
func (c *taskContext) Err() error {
	c.poll()
	return c.err
}

func (c *taskContext) poll() {
	if c.err != nil {
		return
	}
	drain()
	if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.cancel(context.DeadlineExceeded)
	}
}

// AfterFunc lets contexts derived from c be canceled without a goroutine each;
// package context looks for it.
func (c *taskContext) AfterFunc(f func()) (stop func() bool) {
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	key := new(func())
	if c.after == nil {
		c.after = make(map[*func()]func())
	}
	c.after[key] = f
	return func() bool {
		_, there := c.after[key]
		delete(c.after, key)
		return there
	}
}

func (c *taskContext) cancel(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if after := c.after; after != nil { // a loop over no map at all costs a small task a hundredth of its time
		c.after = nil
		for _, f := range after {
			go f()
		}
	}
	if c.waits > 0 {
		wakeAll()
	}
}
