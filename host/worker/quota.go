package worker

import (
	"errors"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// bound lowers what the worker may have to the tenant's quota.
func (c *Config) bound() {
	q := &c.Quota
	if q.CPU > 0 {
		c.Capacity.CPU = min(c.Capacity.CPU, wray.CPU(q.CPU))
		// A task that runs has a slot, so that no more run than cores are allowed.
		c.Slots = min(c.Slots, max(1, int((q.CPU+int64(wray.OneCPU)-1)/int64(wray.OneCPU))))
	}
	if q.Memory > 0 {
		c.Capacity.Memory = min(c.Capacity.Memory, q.Memory)
	}
	if q.ObjectBytes > 0 {
		c.StoreBytes = min(c.StoreBytes, q.ObjectBytes)
	}
	if q.Sandboxes > 0 {
		c.Sandboxes = int(min(int64(c.Sandboxes), q.Sandboxes))
	}
}

// submitRate is how many tasks may be submitted now: a bucket that a second
// fills.
type submitRate struct {
	last int64 // time of the worker
	left int64 // in billionths of a task
}

// take takes one of rate tasks a second. Otherwise it says how long until there
// is one.
func (r *submitRate) take(now, rate int64) (wait time.Duration, ok bool) {
	const one = int64(time.Second)
	full := rate * one
	if since := now - r.last; since >= one || r.last == 0 {
		r.left = full
	} else {
		r.left = min(full, r.left+since*rate)
	}
	r.last = now
	if r.left < one {
		return time.Duration((one - r.left + rate - 1) / rate), false
	}
	r.left -= one
	return 0, true
}

// maxSubmitRate is a rate that bounds nothing, and does not overflow.
const maxSubmitRate = 1_000_000_000

// allowLocked says why the tenant's quota does not take t, which g submits, or
// nobody who could wait. mu is held.
func (w *Worker) allowLocked(g *guest, t *task) error {
	q := &w.cfg.Quota
	switch {
	case t.makes != nil && q.Actors > 0 && int64(w.tasks.actors) >= q.Actors:
		return q.Exceeded(w.cfg.Tenant, "actors")
	case t.makes == nil && q.Tasks > 0 && int64(w.tasks.n-w.tasks.actors) >= q.Tasks:
		return q.Exceeded(w.cfg.Tenant, "tasks")
	}
	if g != nil && q.SubmitRate > 0 && q.SubmitRate < maxSubmitRate {
		if wait, ok := w.rate.take(w.now(), q.SubmitRate); !ok {
			// It waits as for room in a queue, rather than fails: a program that
			// submits in a loop is slowed down.
			if !t.job.slowed {
				t.job.slowed = true
				time.AfterFunc(wait, func() { w.speedUp(t.job) }) // ends at once
			}
			return scheduler.ErrQueueFull
		}
	}
	return nil
}

// speedUp lets those of a job submit again that were to wait.
func (w *Worker) speedUp(j *job) {
	w.mu.Lock()
	j.slowed = false
	closed := w.closed
	w.mu.Unlock()
	if !closed {
		j.space()
	}
}

// ofQuota names the tenant's quota in an error about a bound that it has set.
func (w *Worker) ofQuota(err error) error {
	q := &w.cfg.Quota
	var e *wray.Error
	if *q == (wray.Quota{}) || !errors.As(err, &e) || e.Limit == nil {
		return err
	}
	switch {
	case e.Code == wray.CodeLimitExceeded && e.Limit.Name == "nesting depth" && e.Limit.Value == q.Depth:
		x := q.Exceeded(w.cfg.Tenant, "depth")
		x.Task = e.Task
		return x
	case e.Code == wray.CodeUnschedulable && e.Limit.Name == "cpu" && e.Limit.Value == q.CPU:
		e.Hint = "ask for less: it is the quota of its tenant; " + q.Hint(w.cfg.Tenant, "cpu")
	case e.Code == wray.CodeUnschedulable && e.Limit.Name == "memory" && e.Limit.Value == q.Memory:
		e.Hint = "ask for less: it is the quota of its tenant; " + q.Hint(w.cfg.Tenant, "memory")
	}
	return err
}
