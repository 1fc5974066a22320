//go:build !wasip1

package rt

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/wray-project/wray/wasm/abi"
)

// Sandboxed tells whether tasks run in sandboxes.
const Sandboxed = false

// RefsOwned tells whether the Refs of a Value that was read are its reader's alone.
const RefsOwned = false

// Flags of a Spec.
const (
	Fresh       = abi.SpecFresh
	StreamTask  = abi.SpecStream
	RetryErrors = abi.SpecRetryErrors
	HasCPU      = abi.SpecHasCPU
	HasRetries  = abi.SpecHasRetries
	NewActor    = abi.SpecActor
	Named       = abi.SpecNamed
	GetIfExists = abi.SpecGetIfExists
	Detached    = abi.SpecDetached
	Durable     = abi.SpecDurable
	Checkpoint  = abi.SpecCheckpoint
	NewGroup    = abi.SpecGroup
	InGroup     = abi.SpecInGroup
	Capture     = abi.SpecCapture
)

// Errors of the runtime.
var (
	ErrStale         = errors.New("the reference belongs to a task that has ended")
	ErrStreamDropped = errors.New("the stream was dropped")
	errEmpty         = errors.New("the reference stands for several objects; split it first")
)

// Errno is the failure of a call.
type Errno abi.Errno

// Error returns the errno's number.
func (e Errno) Error() string { return "errno " + strconv.Itoa(int(e)) }

// Value is a value on its way into or out of the runtime, which keeps copies
// of Data and gives copies away.
type Value struct {
	Encoding abi.Encoding
	Elem     abi.Elem
	Owned    bool
	Data     []byte
	Refs     []*Ref
}

// Release does nothing: Data belongs to whoever got it.
func (v *Value) Release() {}

func (v *Value) clone() Value {
	c := *v
	c.Data = append([]byte{}, v.Data...)
	c.Owned = true
	return c
}

// Spec is a task to submit.
type Spec struct {
	Fn         uint32
	Flags      uint32
	Args       []Arg
	NumResults int
	Name       string
	CPU        uint32
	Retries    int32
	Memory     uint64
	Timeout    time.Duration
	RetryOn    []byte
	Window     uint32
	Custom     []byte // custom resources, of use in a session alone
	Place      []byte // which nodes it runs on
	Key        string // of a call of a durable actor; of a task and an actor its grants

	Actor           *Ref
	CallTries       int32
	MaxPending      uint32
	Concurrency     uint32
	CheckpointCalls uint32
	CheckpointEvery time.Duration

	Idle time.Duration // of no use here: an actor that rests costs nothing
}

// Arg is an argument: the object behind Ref, or else Value.
type Arg struct {
	Ref   *Ref
	Value Value
}

// state is one lock and one condition for everything in the process: a
// program under test is small, and waits of all kinds are then the same.
var state struct {
	sync.Mutex
	changed chan struct{} // guarded by mu; closed when anything became ready
}

// broadcastLocked wakes every waiter.
func broadcastLocked() {
	if state.changed != nil {
		close(state.changed)
		state.changed = nil
	}
}

// await calls done, with the lock held, until it reports true or ctx is done.
func await(ctx context.Context, done func() bool) error {
	for {
		state.Lock()
		if done() {
			state.Unlock()
			return nil
		}
		if state.changed == nil {
			state.changed = make(chan struct{})
		}
		changed := state.changed
		state.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A Ref stands for an object, a stream, several objects, or a failure.
type Ref struct {
	err   error
	parts []*Ref
	*object
	stream *stream
	actor  *actor  // that the object stands for, or nil
	group  *group  // likewise
	h      *handle // in a session, instead of all but err and parts
}

// object is a value that is there or will be.
type object struct {
	task  *task // that makes it, or nil; guarded by state, and nil when it is over: what it was given is then nobody's
	ready bool  // guarded by state
	value Value // guarded by state; its Data is not changed again
}

// read returns the value, which is there.
func (o *object) read() Value {
	state.Lock()
	defer state.Unlock()
	return o.value
}

// seal gives o its value. The first one counts.
func (o *object) seal(v Value) {
	state.Lock()
	defer state.Unlock()
	if !o.ready {
		o.value, o.ready = v, true
		broadcastLocked()
	}
}

// Failed returns a Ref that stands for no object, because of err.
func Failed(err error) *Ref { return &Ref{err: err} }

// Group returns a Ref that stands for several objects.
func Group(parts []*Ref) *Ref { return &Ref{parts: parts, err: errEmpty} }

// Parts returns the objects of a group, or nil.
func (r *Ref) Parts() []*Ref { return r.parts }

// Err returns why r stands for no object, or nil.
func (r *Ref) Err() error { return r.err }

// Ready reports whether Get would return without waiting.
func (r *Ref) Ready() bool {
	if r.h != nil && r.err == nil {
		return r.h.isReady()
	}
	state.Lock()
	defer state.Unlock()
	return r.readyLocked()
}

func (r *Ref) readyLocked() bool {
	switch {
	case r.err != nil:
		return true
	case r.stream != nil:
		return r.stream.next < len(r.stream.items) || r.stream.ended
	}
	return r.object.ready
}

// Get waits for r's object. next are Refs that the caller will get after r.
func (r *Ref) Get(ctx context.Context, v *Value, next []*Ref) error {
	if r.err != nil {
		return r.err
	}
	if r.h != nil {
		defer runtime.KeepAlive(r)
		return r.h.get(ctx, v, next)
	}
	if r.stream != nil {
		return Errno(abi.EINVAL)
	}
	if err := await(ctx, func() bool { return r.object.ready }); err != nil {
		return err
	}
	o := r.object.read()
	*v = o.clone()
	return nil
}

// Next waits for the next item of the stream r, nil at its end.
func (r *Ref) Next(ctx context.Context) (item *Ref, err error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.h != nil {
		defer runtime.KeepAlive(r)
		return r.h.next(ctx)
	}
	s := r.stream
	if s == nil {
		return nil, Errno(abi.EINVAL)
	}
	err = await(ctx, func() bool {
		switch {
		case s.next < len(s.items):
			item = s.items[s.next]
			s.items[s.next] = nil
			s.next++
			broadcastLocked() // the producer has room
			return true
		case s.ended:
			return true
		}
		return false
	})
	return item, err
}

// Drop gives r back. A stream that is dropped is canceled.
func (r *Ref) Drop() {
	if r.h != nil {
		r.h.drop()
	}
	if r.stream != nil {
		r.stream.drop()
	}
	if r.err == nil {
		r.err = errors.New("the reference was dropped")
	}
}

// Cancel cancels the task whose result r is, and what that task submitted.
func (r *Ref) Cancel() error {
	switch {
	case len(r.parts) > 0:
		return r.parts[0].Cancel()
	case r.err != nil:
		return r.err
	case r.h != nil:
		defer runtime.KeepAlive(r)
		return r.h.cancel()
	}
	state.Lock()
	var t *task
	if r.stream != nil {
		t = r.stream.task
	} else {
		t = r.object.task
	}
	state.Unlock()
	if t != nil {
		t.cancel(errCanceled)
	}
	return nil
}

// Put stores a value.
func Put(ctx context.Context, v *Value) (*Ref, error) {
	if s := SessionOf(ctx); s != nil {
		return s.put(ctx, v)
	}
	return &Ref{object: &object{ready: true, value: v.clone()}}, ctx.Err()
}

// Wait waits until n of refs are ready, timeout has passed (none if negative)
// or ctx is done. It returns how many are ready.
func Wait(ctx context.Context, refs []*Ref, n int, timeout time.Duration) (have int, err error) {
	for _, r := range refs {
		if r.h != nil {
			if err := r.h.s.mine(refs...); err != nil {
				return 0, err
			}
			return r.h.s.waitFor(ctx, refs, n, timeout)
		}
	}
	limited := ctx
	if timeout >= 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err = await(limited, func() bool {
		have = 0
		for _, r := range refs {
			if r.readyLocked() {
				have++
			}
		}
		return have >= min(n, len(refs))
	})
	return have, ctxError(ctx, err)
}

// ctxError is err unless it only says that a limit below ctx was reached.
func ctxError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// stream is a sequence of objects that one task makes and one reader reads.
// All fields are guarded by state.
type stream struct {
	task    *task // nil when it is over
	items   []*Ref
	next    int // first unread
	sealed  uint64
	window  int
	ended   bool
	dropped bool
}

const defaultWindow = 64

func (s *stream) drop() {
	state.Lock()
	s.dropped = true
	t := s.task
	broadcastLocked()
	state.Unlock()
	if t != nil {
		t.cancel(errCanceled)
	}
}

// newStreamRef returns the one Ref of a stream; when it is garbage the stream
// is dropped.
func newStreamRef(s *stream) *Ref {
	r := &Ref{stream: s}
	runtime.AddCleanup(r, func(s *stream) { s.drop() }, s)
	return r
}
