package sdk

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// A Class is a kind of actor whose state is an S: what [Actor] and its kin
// declare, and methods belong to.
type Class[S any] interface {
	class(*S) *task
}

// Actor declares a class of actors. An actor is a sandbox that lives on between
// calls, and what the constructor f returns is its state:
//
//	type Counter struct{ n int }
//
//	func newCounter(_ context.Context, start int) (*Counter, error) { return &Counter{start}, nil }
//
//	func (c *Counter) Add(_ context.Context, by int) (int, error) { c.n += by; return c.n, nil }
//
//	var (
//		counter = sdk.Actor("counter", newCounter)
//		add     = sdk.Method(counter, "add", (*Counter).Add)
//	)
//
//	c := counter.New(ctx, 40)           // sdk.Handle[Counter]
//	n, err := add.Remote(ctx, c, 2).Get(ctx)
//
// Calls run one at a time, unless [MaxConcurrency] says otherwise; those of one
// caller in the order in which it made them, where one whose arguments are not there yet holds up the caller's later
// ones. An error or a panic of a method is the call's, and the actor lives on.
// What ends its sandbox (a trap, a limit, a timeout, os.Exit) ends the actor:
// that call and all later ones fail with wray.ErrActorDied, unless
// [MaxRestarts] lets it start again.
//
// References that an actor keeps in its state stay good between its calls.
// Goroutines that a method leaves running stand still until the next call.
//
// An actor ends when nobody holds a [Handle] to it and its last call is
// answered. It holds the memory of its sandbox meanwhile, and as many
// processors as [CPU] says, by default none.
func Actor[A, S any](name string, f func(context.Context, A) (*S, error)) Class1[A, S] {
	return Class1[A, S]{declareClass(name, func(call *rt.Call) {
		var a A
		if arity(call, 1) && input(call, 0, &a) {
			s, err := f(call.Context(), a)
			construct(call, s, err)
		}
	})}
}

func declareClass(name string, run func(*rt.Call)) *task {
	d := declare(name, false, 1, run)
	d.kind = declClass
	return &task{d: d}
}

// construct ends a constructor's call.
func construct[S any](call *rt.Call, s *S, err error) {
	if err == nil && !call.Actor() {
		err = wray.Errorf(wray.CodeBadArgument, "%s makes an actor and was submitted as a task", call.Name())
	}
	if err == nil && s == nil {
		err = fmt.Errorf("the constructor of %s returned no state", call.Name())
	}
	if err == nil {
		*call.State() = s
	}
	var none struct{}
	output(call, &none, 1, err)
}

// Class1 is a class whose constructor takes one argument, declared by [Actor].
type Class1[A, S any] struct{ t *task }

func (c Class1[A, S]) class(*S) *task { return c.t }

// With returns the class with other options for the actors it makes.
func (c Class1[A, S]) With(opts ...Option) Class1[A, S] { return Class1[A, S]{c.t.with(opts)} }

// New makes an actor and returns at once. A constructor that fails is told by
// [Handle.Ready] and by every call.
func (c Class1[A, S]) New(ctx context.Context, a A) Handle[S] {
	p := newPacket(1)
	err := arg(p, 0, &a)
	return Handle[S]{c.t.submit(ctx, p, err)}
}

// NewArgs is New with an argument that is a plain value or a reference.
func (c Class1[A, S]) NewArgs(ctx context.Context, a Arg[A]) Handle[S] {
	p := newPacket(1)
	return Handle[S]{c.t.submit(ctx, p, setArgs(p, a))}
}

// Lookup returns the actor that was made with the option [Name]; the error is
// wray.ErrActorDied where there is none, or none any more.
func (c Class1[A, S]) Lookup(name string) (Handle[S], error) { return lookup[S](name) }

// Actor0 declares a class of actors whose constructor takes no argument; see
// [Actor].
func Actor0[S any](name string, f func(context.Context) (*S, error)) Class0[S] {
	return Class0[S]{declareClass(name, func(call *rt.Call) {
		if arity(call, 0) {
			s, err := f(call.Context())
			construct(call, s, err)
		}
	})}
}

// Class0 is a class whose constructor takes no argument, declared by [Actor0].
type Class0[S any] struct{ t *task }

func (c Class0[S]) class(*S) *task { return c.t }

// With returns the class with other options for the actors it makes.
func (c Class0[S]) With(opts ...Option) Class0[S] { return Class0[S]{c.t.with(opts)} }

// New makes an actor and returns at once. A constructor that fails is told by
// [Handle.Ready] and by every call.
func (c Class0[S]) New(ctx context.Context) Handle[S] {
	return Handle[S]{c.t.submit(ctx, newPacket(0), nil)}
}

// Lookup returns the actor that was made with the option [Name]; the error is
// wray.ErrActorDied where there is none, or none any more.
func (c Class0[S]) Lookup(name string) (Handle[S], error) { return lookup[S](name) }

func lookup[S any](name string) (Handle[S], error) {
	r, err := rt.LookupActor(name)
	if errno, ok := err.(rt.Errno); ok && abi.Errno(errno) == abi.ENOENT {
		return Handle[S]{}, &wray.Error{Code: wray.CodeActorDied, Message: fmt.Sprintf("there is no actor of the name %q", name),
			Hint: "actors get names by sdk.Name, and lose them when they end"}
	}
	if err != nil {
		return Handle[S]{}, local("look up", err)
	}
	return Handle[S]{r}, nil
}

// Handle is the right to call an actor. It may be copied, and sent to tasks and
// other actors inside arguments and results, as a [Ref] is. The zero Handle is
// of no actor.
type Handle[S any] struct{ p *rt.Ref }

func (h Handle[S]) ref() *rt.Ref { return h.p }

// IsZero reports whether h is the zero Handle.
func (h Handle[S]) IsZero() bool { return h.p == nil }

// Ready waits until the constructor has returned, and returns its failure.
func (h Handle[S]) Ready(ctx context.Context) error {
	_, err := Ref[struct{}](h).Get(ctx)
	return err
}

// Kill ends the actor at once, with the call that it runs. That call, those
// that wait and all later ones fail with wray.ErrActorDied.
func (h Handle[S]) Kill() error { return h.kill(false) }

// Restart ends the actor's sandbox at once, with the call that it runs, and has
// the actor start again if [MaxRestarts] lets it.
func (h Handle[S]) Restart() error { return h.kill(true) }

func (h Handle[S]) kill(restart bool) error {
	if h.p == nil {
		return errZeroHandle
	}
	return local("kill", rt.Kill(h.p, restart))
}

// MarshalCBOR encodes h inside a value; it is called by the sdk.
func (h Handle[S]) MarshalCBOR() ([]byte, error) { return Ref[S](h).MarshalCBOR() }

// UnmarshalCBOR decodes a Handle inside a value; it is called by the sdk.
func (h *Handle[S]) UnmarshalCBOR(b []byte) error { return (*Ref[S])(h).UnmarshalCBOR(b) }

var errZeroHandle = &wray.Error{Code: wray.CodeBadArgument, Message: "the zero Handle is of no actor"}

// Method declares a method of a class, for an f of one argument. A method
// expression is such an f: (*Counter).Add. The method's name is unique in its
// class.
func Method[S, A, R any](c Class[S], name string, f func(*S, context.Context, A) (R, error)) MethodOf1[S, A, R] {
	parts := partsOf[R]()
	return MethodOf1[S, A, R]{declareMethod(c, name, false, parts, func(s *S, call *rt.Call) {
		var a A
		if arity(call, 1) && input(call, 0, &a) {
			r, err := f(s, call.Context(), a)
			output(call, &r, parts, err)
		}
	})}
}

func declareMethod[S any](c Class[S], name string, stream bool, parts int, run func(*S, *rt.Call)) *task {
	class := c.class(nil).d.name
	d := declare(class+"."+name, stream, parts, func(call *rt.Call) {
		if !call.Actor() {
			fail(call, &wray.Error{Code: wray.CodeBadArgument, Task: call.Name(), Message: "a method was submitted as a task"})
			return
		}
		s, ok := (*call.State()).(*S)
		if !ok {
			fail(call, &wray.Error{Code: wray.CodeBadArgument, Task: call.Name(), Attempt: call.Attempt(),
				Message: fmt.Sprintf("the actor is not of the class %s", class)})
			return
		}
		run(s, call)
	})
	d.kind = declMethod
	return &task{d: d}
}

// remote calls a method of the actor h.
func (h Handle[S]) remote(ctx context.Context, t *task, p *packet, err error) *rt.Ref {
	if h.p == nil && err == nil {
		err = errZeroHandle
	}
	p.actor = h.p
	return t.submit(ctx, p, err)
}

// MethodOf1 is a method of one argument, declared by [Method].
type MethodOf1[S, A, R any] struct{ t *task }

// With returns the method with other options: [Name], [Timeout].
func (m MethodOf1[S, A, R]) With(opts ...Option) MethodOf1[S, A, R] {
	return MethodOf1[S, A, R]{m.t.with(opts)}
}

// Remote calls the method of h and returns a reference to its result, without
// waiting for it.
func (m MethodOf1[S, A, R]) Remote(ctx context.Context, h Handle[S], a A) Ref[R] {
	p := newPacket(1)
	err := arg(p, 0, &a)
	return Ref[R]{h.remote(ctx, m.t, p, err)}
}

// RemoteArgs is Remote with an argument that is a plain value or a reference.
func (m MethodOf1[S, A, R]) RemoteArgs(ctx context.Context, h Handle[S], a Arg[A]) Ref[R] {
	p := newPacket(1)
	return Ref[R]{h.remote(ctx, m.t, p, setArgs(p, a))}
}

// Method0 declares a method without arguments; see [Method].
func Method0[S, R any](c Class[S], name string, f func(*S, context.Context) (R, error)) MethodOf0[S, R] {
	parts := partsOf[R]()
	return MethodOf0[S, R]{declareMethod(c, name, false, parts, func(s *S, call *rt.Call) {
		if arity(call, 0) {
			r, err := f(s, call.Context())
			output(call, &r, parts, err)
		}
	})}
}

// MethodOf0 is a method without arguments, declared by [Method0].
type MethodOf0[S, R any] struct{ t *task }

// With returns the method with other options: [Name], [Timeout].
func (m MethodOf0[S, R]) With(opts ...Option) MethodOf0[S, R] { return MethodOf0[S, R]{m.t.with(opts)} }

// Remote calls the method of h and returns a reference to its result, without
// waiting for it.
func (m MethodOf0[S, R]) Remote(ctx context.Context, h Handle[S]) Ref[R] {
	if h.p != nil {
		if r := m.t.quick(ctx, nil, h.p); r != nil {
			return Ref[R]{r}
		}
	}
	return Ref[R]{h.remote(ctx, m.t, newPacket(0), nil)}
}

// Method2 declares a method of two arguments; see [Method].
func Method2[S, A, B, R any](c Class[S], name string, f func(*S, context.Context, A, B) (R, error)) MethodOf2[S, A, B, R] {
	parts := partsOf[R]()
	return MethodOf2[S, A, B, R]{declareMethod(c, name, false, parts, func(s *S, call *rt.Call) {
		var a A
		var b B
		if arity(call, 2) && input(call, 0, &a) && input(call, 1, &b) {
			r, err := f(s, call.Context(), a, b)
			output(call, &r, parts, err)
		}
	})}
}

// MethodOf2 is a method of two arguments, declared by [Method2].
type MethodOf2[S, A, B, R any] struct{ t *task }

// With returns the method with other options: [Name], [Timeout].
func (m MethodOf2[S, A, B, R]) With(opts ...Option) MethodOf2[S, A, B, R] {
	return MethodOf2[S, A, B, R]{m.t.with(opts)}
}

// Remote calls the method of h and returns a reference to its result, without
// waiting for it.
func (m MethodOf2[S, A, B, R]) Remote(ctx context.Context, h Handle[S], a A, b B) Ref[R] {
	p := newPacket(2)
	err := arg(p, 0, &a)
	if err == nil {
		err = arg(p, 1, &b)
	}
	return Ref[R]{h.remote(ctx, m.t, p, err)}
}

// RemoteArgs is Remote with arguments that are plain values or references.
func (m MethodOf2[S, A, B, R]) RemoteArgs(ctx context.Context, h Handle[S], a Arg[A], b Arg[B]) Ref[R] {
	p := newPacket(2)
	return Ref[R]{h.remote(ctx, m.t, p, setArgs(p, a, b))}
}

// StreamMethod declares a method that gives its results one by one; see
// [Stream]. The actor runs no other call before it returns, unless
// [MaxConcurrency] lets it.
func StreamMethod[S, A, T any](c Class[S], name string, f func(s *S, ctx context.Context, a A, yield func(T) error) error) StreamMethodOf1[S, A, T] {
	return StreamMethodOf1[S, A, T]{declareMethod(c, name, true, 1, func(s *S, call *rt.Call) {
		var a A
		if arity(call, 1) && input(call, 0, &a) {
			finish(call, f(s, call.Context(), a, yielder[T](call)))
		}
	})}
}

// StreamMethodOf1 is a streaming method of one argument, declared by
// [StreamMethod].
type StreamMethodOf1[S, A, T any] struct{ t *task }

// With returns the method with other options: [Name], [Timeout], [Window].
func (m StreamMethodOf1[S, A, T]) With(opts ...Option) StreamMethodOf1[S, A, T] {
	return StreamMethodOf1[S, A, T]{m.t.with(opts)}
}

// Remote calls the method of h and returns the stream of its results.
func (m StreamMethodOf1[S, A, T]) Remote(ctx context.Context, h Handle[S], a A) *Items[T] {
	p := newPacket(1)
	err := arg(p, 0, &a)
	return &Items[T]{h.remote(ctx, m.t, p, err)}
}

// applyActor sets what is of actors alone.
func (o *options) applyActor(s *rt.Spec) {
	s.Flags |= rt.NewActor | o.actorFlags
	if o.name != "" {
		s.Flags |= rt.Named
	}
	if o.hasRestarts {
		s.Flags |= rt.HasRetries
		s.Retries = o.restarts
	}
}

// GetIfExists has New, or [PlacementGroup], return the actor, or the group, that has
// the name already, if there is one; otherwise that is an error.
func GetIfExists() Option { return func(o *options) { o.actorFlags |= rt.GetIfExists } }

// Detached keeps the actor, or the placement group, when nobody holds a handle to
// it any more, until it is killed or removed, or the job ends. It is found again by
// its [Name].
func Detached() Option { return func(o *options) { o.actorFlags |= rt.Detached } }

// Durable keeps the actor on a disk: a call is answered when all that the actor
// is by then, memory, references to values and all, is on stable storage. The
// actor survives whatever ends its sandbox, the worker, or the node: New, with
// the same [Name], or Lookup, in a later run of the same program gives the actor
// that was. No call that was answered is lost, and none is applied twice, those
// that durable actors make of each other included; one that was not answered has
// been applied whole or not at all, and may be made again with [CallKey]. What a
// method does elsewhere, in files, by tasks and other actors, may be done twice,
// as a call is run again that a crash left undone. Within a call clocks go on only
// when the method waits.
//
// The node keeps durable actors where it is told to (wray run --state DIR).
// Durable implies [Detached] and [GetIfExists], needs a Name, and does not go
// with [MaxConcurrency] or methods that return streams. Unless [MaxRestarts]
// says otherwise it starts again as often as needed. [Handle.Kill] forgets it.
// In one process (go run) it is as any detached actor: it lasts as long as the
// process, starts again only with MaxRestarts, and what does not go with Durable
// is not refused.
func Durable() Option {
	return func(o *options) { o.actorFlags |= rt.Durable | rt.Detached | rt.GetIfExists }
}

// MaxRestarts sets how often an actor is started again after its sandbox was
// lost: by a trap, a limit, a timeout, a failure of the system, or
// [Handle.Restart]. It starts from its last checkpoint (see
// [CheckpointEvery]), or without one from its constructor. -1 is without end; the
// default is 0, and -1 of a [Durable] actor.
func MaxRestarts(n int) Option {
	return func(o *options) {
		if n < -1 || n > math.MaxInt32 {
			o.bad("MaxRestarts(%d): a number from -1 is wanted", n)
			return
		}
		o.restarts, o.hasRestarts = int32(n), true
	}
}

// MaxTaskRetries sets how often a call is run again when its actor was lost
// under it and starts again. The default is 0, as the call may have had
// effects; -1 is without end. Calls that had not begun are run in any case. Of an
// actor on another node that dies, all calls that were there count as begun; so
// without MaxTaskRetries an actor that may restart is sent one at a time.
func MaxTaskRetries(n int) Option {
	return func(o *options) {
		if n < -1 || n > math.MaxInt32 {
			o.bad("MaxTaskRetries(%d): a number from -1 is wanted", n)
			return
		}
		o.callTries = int32(n)
	}
}

// MaxPendingCalls bounds the calls that wait for the actor. A call beyond fails
// at once with wray.ErrLimitExceeded. The default is what the job may have
// queued in all, where callers wait instead.
func MaxPendingCalls(n int) Option {
	return func(o *options) {
		if n <= 0 || n > math.MaxInt32 {
			o.bad("MaxPendingCalls(%d): a positive number is wanted", n)
			return
		}
		o.maxPending = uint32(n)
	}
}

// MaxConcurrency lets an actor have n calls under way at once, each on a
// goroutine of its own: the others run while one waits, for a value, a channel
// or a timer. They share the actor's state as goroutines of any program do, and
// guard it with a lock. Calls of one caller start in the order in which it made
// them, and may end in any. What ends the sandbox fails all calls that are under
// way.
func MaxConcurrency(n int) Option {
	return func(o *options) {
		if n <= 0 || n > 64<<10 {
			o.bad("MaxConcurrency(%d): a number from 1 to 65,536 is wanted", n)
			return
		}
		o.concurrency = uint32(n)
	}
}

// Idle sets how long an actor rests before it gives its sandbox up and sleeps:
// what differs from a new one is kept, a few KiB of memory mostly, and the next
// call wakes it. Nobody notices but by the time that takes. The default is a
// minute; actors that are short of room sleep earlier.
func Idle(d time.Duration) Option {
	return func(o *options) {
		if d <= 0 {
			o.bad("Idle(%v): a positive duration is wanted", d)
			return
		}
		o.idle = d
	}
}
