//go:build !wasip1

package rt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

var functions struct {
	sync.Mutex
	byName map[string]uint32
	run    []func(*Call)
	names  []string
}

// Declare says that f runs the task called name.
func Declare(name string, f func(*Call)) error {
	functions.Lock()
	defer functions.Unlock()
	if _, there := functions.byName[name]; there {
		return Errno(abi.EEXIST)
	}
	if functions.byName == nil {
		functions.byName = make(map[string]uint32)
	}
	functions.byName[name] = uint32(len(functions.run))
	functions.run = append(functions.run, f)
	functions.names = append(functions.names, name)
	return nil
}

// Known reports whether numbers of functions are the same for each submission
// like this one, so that they can be kept.
func Known(ctx context.Context, actor *Ref) bool { return sessionFor(ctx, actor) == nil }

// sessionFor is the session in which a task is to run: its actor's, or ctx's.
func sessionFor(ctx context.Context, actor *Ref) *Session {
	if actor != nil {
		if actor.h != nil {
			return actor.h.s
		}
		return nil
	}
	return SessionOf(ctx)
}

// Lookup returns the number of a function. There are no other modules but in a
// session.
func Lookup(ctx context.Context, actor *Ref, module, name string) (uint32, error) {
	if s := sessionFor(ctx, actor); s != nil {
		return s.Lookup(module, name)
	}
	functions.Lock()
	defer functions.Unlock()
	if n, ok := functions.byName[name]; ok && module == "" {
		return n, nil
	}
	return 0, Errno(abi.ENOENT)
}

// Why is for guests.
func Why(error) []byte { return nil }

// Context returns the context of the driver.
func Context() context.Context { return context.Background() }

// SetExitCode is for guests.
func SetExitCode(int) {}

// task is a submitted task and all its attempts.
type task struct {
	spec    Spec
	name    string
	run     func(*Call)
	ctx     context.Context // ends when the task is canceled; child of its parent's
	cancel  context.CancelCauseFunc
	results []*object
	stream  *stream

	group  *group          // that it runs in, or nil
	actor  *actor          // that it makes or calls, or nil
	state  *any            // of that actor in this attempt
	posted uint64          // which call of the actor it is
	tries  int             // attempts of the call so far
	held   map[int]Value   // results of an attempt, of an actor that takes checkpoints
	parent context.Context // of the task that submitted it
}

// errCanceled is the cause of a cancellation by Cancel.
var errCanceled = errors.New("canceled")

type taskKey struct{}

// Submit starts a task.
func Submit(ctx context.Context, s *Spec, into []*Ref) ([]*Ref, error) {
	if err := ctx.Err(); err != nil {
		return into, err
	}
	if s.Actor == nil || s.Actor.err == nil {
		if session := sessionFor(ctx, s.Actor); session != nil {
			return session.submit(ctx, s, into)
		}
	}
	inGroup := s.Flags&InGroup != 0
	if r := s.Actor; r != nil && r.err != nil {
		return into, r.err
	} else if r != nil && r.actor == nil && !inGroup {
		return into, Errno(abi.EBADF)
	}
	if s.Flags&NewGroup != 0 {
		r, err := newGroup(s)
		if err != nil {
			return into, err
		}
		return append(into, r), nil
	}
	if !inGroup {
		if err := placed(s); err != nil {
			return into, err
		}
	}
	functions.Lock()
	if s.Flags&Checkpoint == 0 && int(s.Fn) >= len(functions.run) {
		functions.Unlock()
		return into, Errno(abi.ENOENT)
	}
	t := &task{spec: *s, name: s.Name}
	if s.Flags&Checkpoint == 0 {
		t.run = functions.run[s.Fn]
	}
	if t.name == "" {
		t.name = functions.names[s.Fn]
	}
	functions.Unlock()
	t.spec.RetryOn = bytes.Clone(s.RetryOn)
	t.spec.Args = slices.Clone(s.Args)
	for i := range t.spec.Args {
		if a := &t.spec.Args[i]; a.Ref == nil {
			a.Value = a.Value.clone()
		}
	}
	parent := context.Background()
	if c, ok := ctx.Value(taskKey{}).(context.Context); ok {
		parent = c
	}
	t.parent = parent
	if s.Flags&NewActor != 0 {
		parent = context.Background() // it outlives its maker
	}
	t.ctx, t.cancel = context.WithCancelCause(parent)
	if inGroup {
		t.spec.Actor = nil
		if err := t.join(s.Actor); err != nil {
			t.cancel(nil)
			return into, err
		}
	}
	if s.Flags&NewActor != 0 {
		return append(into, newActor(t)), nil
	}
	if s.Flags&StreamTask != 0 {
		t.stream = &stream{task: t, window: int(s.Window)}
		if t.stream.window == 0 {
			t.stream.window = defaultWindow
		}
		into = append(into, newStreamRef(t.stream))
	} else {
		for range s.NumResults {
			o := &object{task: t}
			t.results = append(t.results, o)
			into = append(into, &Ref{object: o})
		}
	}
	if r := t.spec.Actor; r != nil {
		t.actor = r.actor
		r.actor.post(t)
		return into, nil
	}
	go t.attempts()
	return into, nil
}

// attempts runs the task until it succeeds, fails for good, or is canceled.
func (t *task) attempts() {
	defer t.cancel(nil)
	e := t.arguments()
	retries := 3
	if t.spec.Flags&HasRetries != 0 {
		retries = int(t.spec.Retries)
	}
	for attempt := 1; e == nil; attempt++ {
		failure := t.attempt(attempt)
		if failure == nil {
			break
		}
		if failure.Task == "" {
			failure.Task = t.name
		}
		if failure.Attempt == 0 {
			failure.Attempt = attempt
		}
		if t.ctx.Err() != nil || !t.retryable(failure) || retries >= 0 && attempt > retries {
			e = failure
		}
	}
	if e == nil {
		t.end(nil)
		return
	}
	if e.Task == "" {
		e.Task = t.name
	}
	t.end(e)
}

// end gives all results that are missing the failure e, or ends the stream.
// Results let go of the task, and so of its arguments and its actor's handle: an
// actor that keeps the result of a call of its own would keep itself.
func (t *task) end(e *wray.Error) {
	var v Value
	if e != nil {
		v = encodeError(e)
	}
	if t.actor == nil {
		state.Lock()
		t.leaveLocked()
		state.Unlock()
	}
	for i, o := range t.results {
		if e == nil {
			v = encodeError(&wray.Error{Code: wray.CodeBadArgument, Task: t.name,
				Message: fmt.Sprintf("the task returned without its result %d of %d", i, len(t.results))})
		}
		o.seal(v)
		state.Lock()
		o.task = nil
		state.Unlock()
	}
	if s := t.stream; s != nil {
		state.Lock()
		if e != nil {
			s.items = append(s.items, &Ref{object: &object{ready: true, value: v}})
		}
		s.ended, s.task = true, nil
		broadcastLocked()
		state.Unlock()
	}
}

// arguments waits for the arguments that are objects.
func (t *task) arguments() *wray.Error {
	for i := range t.spec.Args {
		r := t.spec.Args[i].Ref
		if r == nil {
			continue
		}
		if r.err != nil || r.object == nil {
			return wray.Errorf(wray.CodeBadArgument, "argument %d is no object: %v", i, r.err)
		}
		if await(t.ctx, func() bool { return r.object.ready }) != nil {
			return t.canceled()
		}
		if v := r.object.read(); v.Encoding == abi.EncodingError {
			return &wray.Error{Code: wray.CodeDependencyFailed, Message: fmt.Sprintf("argument %d failed", i), Cause: decodeError(v.Data)}
		}
	}
	return nil
}

// attempt runs the task once. A task that outlives its context is left to
// itself.
func (t *task) attempt(n int) *wray.Error {
	c := &Call{task: t, attempt: n, state: t.state}
	var cancel context.CancelFunc
	ctx := context.WithValue(context.WithValue(t.ctx, taskKey{}, t.ctx), callKey{}, c)
	if t.spec.Timeout > 0 {
		c.ctx, cancel = context.WithTimeout(ctx, t.spec.Timeout)
	} else {
		c.ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	if t.stream != nil {
		state.Lock()
		c.itemsDone = t.stream.sealed
		state.Unlock()
	}
	done := make(chan struct{})
	go func() {
		defer close(done) // also when the task called runtime.Goexit
		t.run(c)
	}()
	select {
	case <-done:
	case <-c.ctx.Done():
		if t.ctx.Err() != nil {
			return t.canceled()
		}
		return &wray.Error{Code: wray.CodeTimeout, Message: "ran longer than its timeout of " + t.spec.Timeout.String(),
			Hint: "give it more time with sdk.Timeout"}
	}
	return c.outcome()
}

// canceled is the failure of a task whose context is done.
func (t *task) canceled() *wray.Error {
	if errors.Is(context.Cause(t.ctx), errGroupRemoved) {
		return groupRemoved()
	}
	return canceled()
}

func canceled() *wray.Error { return wray.Errorf(wray.CodeCanceled, "the task was canceled") }

// retryable reports whether a failure asks for another attempt.
func (t *task) retryable(e *wray.Error) bool {
	switch {
	case e.Code.System():
		return true
	case e.Code == wray.CodeCanceled, e.Code == wray.CodeGroupRemoved, e.Code == wray.CodeUnknownFunction, e.Code == wray.CodeBadArgument:
		return false
	case t.spec.Flags&RetryErrors != 0:
		return true
	}
	names := strings.Split(string(t.spec.RetryOn), "\x00")
	return slices.ContainsFunc(e.Sentinels, func(s string) bool { return slices.Contains(names, s) })
}

func encodeError(e *wray.Error) Value {
	b, err := cbor.Marshal(e)
	if err != nil {
		panic("BUG: a wray.Error does not encode: " + err.Error())
	}
	return Value{Encoding: abi.EncodingError, Data: b, Owned: true}
}

func decodeError(b []byte) *wray.Error {
	e := new(wray.Error)
	if err := cbor.Unmarshal(b, e); err != nil {
		return wray.Errorf(wray.CodeInternal, "a failure that does not decode: %v", err)
	}
	return e
}

// Call is one attempt of a task.
type Call struct {
	task      *task
	state     *any
	ctx       context.Context
	attempt   int
	itemsDone uint64
	items     uint64

	mu     sync.Mutex
	failed *wray.Error // guarded by mu
}

func (c *Call) outcome() *wray.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Context returns the task's context.
func (c *Call) Context() context.Context { return c.ctx }

// Name returns the task's name.
func (c *Call) Name() string { return c.task.name }

// Abandon follows Fail in a task that called runtime.Goexit.
func (c *Call) Abandon() {}

// Attempt returns which attempt this is, from 1.
func (c *Call) Attempt() int { return c.attempt }

// NumArgs returns the number of arguments.
func (c *Call) NumArgs() int { return len(c.task.spec.Args) }

// NumResults returns the number of results that the caller wants.
func (c *Call) NumResults() int { return c.task.spec.NumResults }

// Stream reports whether the caller wants a stream.
func (c *Call) Stream() bool { return c.task.stream != nil }

// Arg describes argument i in v.
func (c *Call) Arg(i int, v *Value) error {
	a := &c.task.spec.Args[i]
	if a.Ref != nil {
		return a.Ref.Get(c.ctx, v, nil)
	}
	*v = a.Value.clone()
	return nil
}

// Finish is Return of the only result, with which a task ends, where that is less
// work. Here it never is.
func (c *Call) Finish(*Value) bool { return false }

// Return gives result i.
func (c *Call) Return(i int, v *Value) error {
	if i >= len(c.task.results) {
		return Errno(abi.EINVAL)
	}
	if a := c.task.actor; a != nil && c.task != a.create && a.holds() {
		v := v.clone()
		state.Lock()
		defer state.Unlock()
		if c.attempt != c.task.tries {
			return nil // the actor was lost under it, and the call runs again
		}
		if c.task.held == nil {
			c.task.held = map[int]Value{}
		}
		c.task.held[i] = v
		return nil
	}
	c.task.results[i].seal(v.clone())
	return nil
}

// Fail ends the task with v, of encoding ERROR.
func (c *Call) Fail(v *Value) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = decodeError(v.Data)
	return nil
}

// Yield gives the next item of a stream, and waits while its window is full.
func (c *Call) Yield(ctx context.Context, v *Value) error {
	if c.items < c.itemsDone {
		c.items++
		return nil
	}
	s := c.task.stream
	dropped := false
	item := &Ref{object: &object{ready: true, value: v.clone()}}
	err := await(ctx, func() bool {
		if dropped = s.dropped; dropped {
			return true
		}
		if len(s.items)-s.next >= s.window {
			return false
		}
		s.items = append(s.items, item)
		s.sealed++
		broadcastLocked()
		return true
	})
	runtime.KeepAlive(item)
	if dropped {
		return ErrStreamDropped
	}
	c.items++
	return err
}
