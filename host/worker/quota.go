package worker

import (
	"errors"
	"fmt"
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

// allowed is what of the quota bounds what tasks hold.
func (c *Config) allowed() wray.Resources {
	return wray.Resources{CPU: wray.CPU(c.Quota.CPU), Memory: c.Quota.Memory}
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
	var e *wray.Error
	if w.cfg.Quota != (wray.Quota{}) && errors.As(err, &e) {
		if x := w.quotaOf(e); x != e {
			return x
		}
	}
	return err
}

// quotaOf is ofQuota for the failure of a task, nil where it has none. What is not
// of the quota is returned as it is.
func (w *Worker) quotaOf(e *wray.Error) *wray.Error {
	q := &w.cfg.Quota
	if *q == (wray.Quota{}) || e == nil || e.Limit == nil {
		return e
	}
	flag := ""
	switch l := e.Limit; {
	case e.Code == wray.CodeLimitExceeded && l.Name == "nesting depth" && l.Value == q.Depth:
		x := q.Exceeded(w.cfg.Tenant, "depth")
		x.Task = e.Task
		return x
	case e.Code == wray.CodeUnschedulable && l.Name == "cpu" && l.Value == q.CPU:
		flag = "cpu"
	case e.Code == wray.CodeUnschedulable && l.Name == "memory" && l.Value == q.Memory:
		flag = "memory"
	default:
		return e
	}
	x := *e
	x.Limit = q.Exceeded(w.cfg.Tenant, flag).Limit
	x.Message += fmt.Sprintf("; that is the quota of tenant %s on each node", w.cfg.Tenant)
	x.Hint = "ask for less: a node more helps nothing; " + q.Hint(w.cfg.Tenant, flag)
	return &x
}
