package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// The flags that raise the capacity, as errors name them. Whoever defines the
// flags uses these names.
const (
	FlagCPU      = "--cpus"
	FlagMemory   = "--memory"
	FlagResource = "--resource"
)

// ErrQueueFull is what Submit's error is when the job has as much queued as it
// may: submit again after the job's Space. errors.As finds the *[wray.Error]
// with the limit.
var ErrQueueFull = errors.New("scheduler: queue full")

// queueFull is made for every refusal, which a guest may provoke in a loop, so
// the message waits until somebody wants it.
type queueFull struct{ limit wray.Limit }

func (e *queueFull) Error() string { return e.Unwrap().Error() }

func (e *queueFull) Is(target error) bool { return target == ErrQueueFull }

func (e *queueFull) Unwrap() error {
	return &wray.Error{
		Code:    wray.CodeLimitExceeded,
		Message: "the job has too much waiting to run",
		Limit:   &e.limit,
		Hint:    "collect results before submitting more",
	}
}

func named(name string, err *wray.Error) *wray.Error {
	err.Task = name
	return err
}

func unschedulable(spec *Spec, capacity wray.Resources) *wray.Error {
	e := &wray.Error{Code: wray.CodeUnschedulable, Task: spec.Name}
	if spec.Resources.CPU > capacity.CPU {
		e.Message = fmt.Sprintf("it asks for %v CPUs, all there is are %v", spec.Resources.CPU, capacity.CPU)
		e.Limit = &wray.Limit{Name: "cpu", Value: int64(capacity.CPU), Unit: wray.UnitCPU, Flag: FlagCPU}
		e.Hint = "ask for less CPU, or give this node's jobs more with " + FlagCPU
		return e
	}
	e.Message = fmt.Sprintf("it asks for %s of memory, all there is are %s", size(spec.Resources.Memory), size(capacity.Memory))
	e.Limit = &wray.Limit{Name: "memory", Value: capacity.Memory, Unit: "bytes", Flag: FlagMemory}
	e.Hint = "ask for less memory, or give this node's jobs more with " + FlagMemory
	return e
}

func unschedulableCustom(spec *Spec, c wray.Custom, capacity wray.Amount) *wray.Error {
	e := &wray.Error{Code: wray.CodeUnschedulable, Task: spec.Name, Limit: limitOf(c.Name, capacity)}
	e.Message = fmt.Sprintf("it asks for %v of the resource %q, all there is is %v", c.Amount, c.Name, capacity)
	e.Hint = fmt.Sprintf("ask for less of it, or give this node more with %s '%s=%v'", FlagResource, c.Name, c.Amount)
	return e
}

func limitOf(resource string, capacity wray.Amount) *wray.Limit {
	return &wray.Limit{Name: resource, Value: int64(capacity), Unit: wray.UnitAmount, Flag: FlagResource}
}

func tooDeep(spec *Spec, depth int) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeLimitExceeded,
		Task:    spec.Name,
		Message: fmt.Sprintf("tasks that submit tasks are nested more than %d deep", depth),
		Limit:   &wray.Limit{Name: "nesting depth", Value: int64(depth), Unit: "tasks"},
		Hint:    "below some depth, call the function instead of submitting it",
	}
}

func tooManyBytes(spec *Spec, most int64) *wray.Error {
	return &wray.Error{
		Code:    wray.CodeLimitExceeded,
		Task:    spec.Name,
		Message: fmt.Sprintf("the task takes %s while it is queued", size(spec.Bytes)),
		Limit:   &wray.Limit{Name: "queued bytes", Value: most, Unit: "bytes"},
		Hint:    "store large arguments as objects and pass references",
	}
}

func canceled(t *task, why string) *wray.Error {
	return &wray.Error{Code: wray.CodeCanceled, Task: t.name, Attempt: t.attempt, Message: why}
}

// dependencyFailed is the error of a task that needed an object which failed
// with err. The Cause is the first failure of the chain, so that a long chain
// does not make long errors.
func dependencyFailed(t *task, err *wray.Error) *wray.Error {
	if err.Code == wray.CodeDependencyFailed && err.Cause != nil {
		err = err.Cause
	}
	return &wray.Error{
		Code:    wray.CodeDependencyFailed,
		Task:    t.name,
		Attempt: t.attempt,
		Message: "an argument could not be computed",
		Hint:    "the cause is the error to mend",
		Cause:   err,
	}
}

// resourceDeadlock is the error of t, which breakDeadlock chose to fail: what
// it lacks, and the chain of those who wait for it.
func (s *Scheduler) resourceDeadlock(t *task) *wray.Error {
	e := &wray.Error{Code: wray.CodeResourceDeadlock, Task: t.name, Attempt: t.attempt}
	if t.state == waiting {
		e.Message = "its job's queue is full, and all that could make room in it waits for room in it"
		e.Hint = "submit less before collecting results"
		return e
	}
	e.Limit = &wray.Limit{Name: "memory", Value: s.config.Capacity.Memory, Unit: "bytes", Flag: FlagMemory}
	e.Hint = "let the tasks ask for less memory or nest less deep, or give this node's jobs more with " + FlagMemory
	held := func(w *task) string {
		if n := w.state.holds(w.res).Memory; n > 0 {
			return size(n)
		}
		return ""
	}
	var b strings.Builder
	if lack := s.lacking(t); lack == nil || t.res.Memory > s.free.Memory {
		fmt.Fprintf(&b, "it needs %s of memory, %s are free", size(t.res.Memory), size(s.free.Memory))
	} else {
		c := &s.custom[lack.resource]
		fmt.Fprintf(&b, "it needs %v of the resource %q, %v is free", lack.amount, c.name, c.free)
		e.Limit = limitOf(c.name, c.capacity)
		e.Hint = "let the tasks ask for less of it or nest less deep, or give this node more with " + FlagResource
		held = func(w *task) string {
			if n := w.claim.of(lack.resource); n > 0 && w.state.local() {
				return n.String()
			}
			return ""
		}
	}
	fmt.Fprintf(&b, ", and the rest is held by tasks that wait: %s", t.label())
	const longest = 8
	seen := []*task{t}
	for w := s.stuckWaiterOf(t); w != nil; w = s.stuckWaiterOf(w) {
		if len(seen) == longest || slices.Contains(seen, w) {
			b.WriteString(" <- …")
			break
		}
		seen = append(seen, w)
		fmt.Fprintf(&b, " <- %s", w.label())
		if n := held(w); n != "" {
			fmt.Fprintf(&b, " (holds %s)", n)
		}
	}
	e.Message = b.String()
	return e
}

// stuckWaiterOf returns a task that waits for a result of t and cannot go on,
// or nil.
func (s *Scheduler) stuckWaiterOf(t *task) *task {
	for _, o := range t.results {
		if o == nil {
			continue
		}
		for e := o.first; e != nil; e = e.next {
			if e.task.mark != s.deadlock.able() {
				return e.task
			}
		}
	}
	return nil
}

// label names t in a message.
func (t *task) label() string {
	if t.name != "" {
		return t.name
	}
	return "task " + t.id.String()
}

// blame returns the error of an attempt that ended with err: when it was told
// to stop, whatever it then died of, the reason to stop is what happened.
func (t *task) blame(err *wray.Error) *wray.Error {
	if t.stop == wray.CodeOK || err.Code == t.stop {
		return err
	}
	e := &wray.Error{Code: t.stop, Task: t.name, Attempt: t.attempt, Node: err.Node, Trace: err.Trace}
	if t.stop == wray.CodeCanceled || t.stop == wray.CodeGroupRemoved {
		e.Message = t.why
		return e
	}
	e.Message = "ran longer than its timeout"
	e.Limit = &wray.Limit{Name: "timeout", Value: t.timeout, Unit: wray.UnitTime}
	e.Hint = "give the task a longer timeout, or make it do less"
	return e
}

// size writes an amount of memory for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.4g %ciB", f, "KMGTP"[i])
}
