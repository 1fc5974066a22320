// Package sdk is wray's programming model: functions become tasks that run in
// parallel sandboxes, results become references, and the program that submits
// them, the driver, is the same Go program.
//
//	var count = sdk.Func("count", func(ctx context.Context, text []byte) (int, error) {
//		return len(bytes.Fields(text)), nil
//	})
//
//	func main() { sdk.Main(run) }
//
//	func run(ctx context.Context) error {
//		ref := count.Remote(ctx, []byte("to be or not to be"))
//		n, err := ref.Get(ctx)
//		…
//	}
//
// # Tasks
//
// A task is declared once, in a package variable: [Func] and its kin for
// functions of none to four arguments, [Stream] for those that give their
// results one by one. Its name is how driver and sandboxes agree on it. Remote
// submits a call and returns at once; [Ref.Get] waits for the result. With
// returns the same task with other options: processors, memory, timeout,
// retries.
//
// A task runs at least once, not exactly once. When the sandbox, its worker or
// its node fails, the task is run again, three times by default ([Retries]),
// even if it had had effects already. An error that the task returns, or a
// panic, is the task's own and is not retried unless [RetryOn] asks for it.
// Write tasks so that running them twice does no harm.
//
// Each task runs in a sandbox of the same program. Sandboxes are used again
// for other tasks of the job, so a package variable may hold what an earlier
// task left in it, and may not; [Fresh] gives a task a clean one.
//
// # Values
//
// Arguments and results are copied. A []byte travels as it is, a slice of
// fixed-width numbers (or of int and uint, as 64 bits) as their little-endian
// bytes, anything else as CBOR (RFC 8949), by the rules of
// github.com/fxamacker/cbor: exported fields, and tags as in encoding/json.
// The first two are read in place: the slice that a task gets, or that Get
// returns, may be memory that is mapped for all who read the same Ref in this
// sandbox. Writing to it never changes the object or anybody else's view, but
// a second Get of the same Ref may return the same slice. An empty slice
// arrives as an empty slice that is not nil.
//
// A [Ref] in a value stays a Ref: whoever gets the value gets the right to
// read the object. A Ref that is to be read before the task runs is given as an
// [Arg]. A Ref is good in the task, or driver, that got it, while that runs.
//
// # Errors
//
// Every failure of a task is, or wraps, a [*wray.Error] that says what class
// it is of, which task, which attempt, on which node, and what the task's
// stack was; errors.Is matches it with the sentinels of package wray, such as
// wray.ErrTimeout, and with errors that were given a name by [RegisterError].
//
// # Two builds
//
// Built for wasip1 and run by wray, tasks run in sandboxes. Built for any
// other target, such as by go test, the same program runs them as goroutines
// of its own process, without any isolation; see [Main].
package sdk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// A decl is a function that can be submitted.
type decl struct {
	module string // empty: the program's own
	name   string
	stream bool
	kind   declKind
	parts  int // results

	number atomic.Uint64 // by which the host knows it, and 1<<32; 0: not known
}

type declKind uint8

const (
	declTask   declKind = iota
	declClass           // makes an actor
	declMethod          // is called of one
)

// declare registers run under name. It is called for package variables, where
// there is nobody to return an error to.
func declare(name string, stream bool, parts int, run func(*rt.Call)) *decl {
	err := rt.Declare(name, func(c *rt.Call) {
		returned := false
		defer func() {
			if !returned {
				unwound(c, recover())
			}
		}()
		run(c)
		returned = true
	})
	if err != nil {
		panic(fmt.Sprintf("sdk: task %q cannot be declared (%v): declare each name once, in a package variable", name, err))
	}
	return &decl{name: name, stream: stream, parts: parts}
}

// unwound ends a task that panicked with v, or, where that is nil, called
// runtime.Goexit.
func unwound(c *rt.Call, v any) {
	if v != nil {
		fail(c, panicOf(c, v))
		return
	}
	fail(c, &wray.Error{Code: wray.CodeUserError, Task: c.Name(), Attempt: c.Attempt(),
		Message: "the task called runtime.Goexit", Hint: "return an error instead"})
	c.Abandon()
}

// lookup returns the number by which the host knows d.
func (d *decl) lookup(ctx context.Context, actor *rt.Ref) (uint32, error) {
	known := rt.Known(ctx, actor)
	if n := d.number.Load(); n != 0 && known {
		return uint32(n), nil
	}
	n, err := rt.Lookup(ctx, actor, d.module, d.name)
	if _, ok := err.(rt.Errno); err != nil && !ok {
		return 0, local("look up", err)
	}
	if err != nil {
		e := &wray.Error{Code: wray.CodeUnknownFunction, Task: d.name, Message: fmt.Sprintf("there is no task %q", d.name)}
		if d.module != "" {
			e.Message = fmt.Sprintf("there is no function %q of a module %q", d.name, d.module)
			e.Hint = "give the module with the job: wray run PROGRAM --with " + d.module + ".wasm"
			if !rt.Sandboxed {
				e.Hint = "modules exist under wray run only; this process runs its own tasks"
			}
		}
		return 0, e
	}
	if known {
		d.number.Store(1<<32 | uint64(n))
	}
	return n, nil
}

// A task is a function with options. It is immutable: With copies.
type task struct {
	d    *decl
	opts options
	//lint:ignore U1000 the wasip1 build uses it
	prepared prepared
}

func (t *task) with(opts []Option) *task {
	c := task{d: t.d, opts: t.opts}
	for _, o := range opts {
		o(&c.opts)
	}
	c.opts.check(t.d.kind)
	return &c
}

// A packet is what one submission needs, used again by later ones.
type packet struct {
	//lint:ignore U1000 the pool of the wasip1 build links packets
	next  *packet // in the pool
	spec  rt.Spec
	buf   []byte // the small payloads
	refs  []*rt.Ref
	args  [4]rt.Arg
	actor *rt.Ref // that is called, or nil
}

// newPacket returns a packet for a task of n arguments, or for one value.
func newPacket(n int) *packet {
	p := takePacket()
	if p == nil {
		p = &packet{buf: make([]byte, 0, 256), refs: make([]*rt.Ref, 0, 4)}
	}
	p.spec.Args = p.args[:n]
	return p
}

// free lets go of all that the packet points to and puts it into the pool.
func (p *packet) free() {
	for i := range p.args[:max(1, len(p.spec.Args))] {
		a := &p.args[i]
		a.Ref, a.Value.Data = nil, nil
		if a.Value.Refs != nil {
			a.Value.Refs = nil
		}
	}
	for i := range p.refs {
		p.refs[i] = nil
	}
	p.refs, p.buf, p.actor, p.spec.Actor = p.refs[:0], p.buf[:0], nil, nil
	givePacket(p)
}

// arg sets argument i to a copy of a plain value.
func arg[A any](p *packet, i int, v *A) error {
	var err error
	p.buf, err = encode(v, p.buf, &p.args[i].Value)
	if err != nil {
		return badArgument(i, err)
	}
	return nil
}

func badArgument(i int, err error) error {
	return unencodable(fmt.Sprintf("argument %d", i), err)
}

// unencodable says that what does not encode, and keeps the hint of why: an actor
// that could not be made is an argument that does not.
func unencodable(what string, err error) *wray.Error {
	e := &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%s does not encode: %v", what, err)}
	if cause := (*wray.Error)(nil); errors.As(err, &cause) {
		for ; cause != nil; cause = cause.Cause {
			if cause.Hint != "" {
				e.Hint = cause.Hint // the first failure's is the one that helps
			}
		}
	}
	return e
}

// submit submits p, which it frees, and returns the Ref for all results.
func (t *task) submit(ctx context.Context, p *packet, err error) *rt.Ref {
	if err == nil {
		if r := t.quick(ctx, p.spec.Args, p.actor); r != nil {
			p.free()
			return r
		}
	}
	r, err := t.send(ctx, p, err)
	p.free()
	if err != nil {
		return rt.Failed(t.inTask(err))
	}
	return r
}

func (t *task) send(ctx context.Context, p *packet, err error) (*rt.Ref, error) {
	if err == nil {
		err = t.opts.err
	}
	if err != nil {
		return nil, err
	}
	s := &p.spec
	if p.actor == nil {
		p.actor = t.opts.in
	}
	if s.Fn, err = t.d.lookup(ctx, p.actor); err != nil {
		return nil, err
	}
	t.opts.apply(s)
	s.Actor = p.actor
	if t.d.kind == declClass {
		t.opts.applyActor(s)
	}
	s.NumResults = t.d.parts
	if t.d.stream {
		s.Flags |= rt.StreamTask
	}
	if p.refs, err = rt.Submit(ctx, s, p.refs); err != nil {
		return nil, local("submit", err)
	}
	if len(p.refs) == 1 {
		return p.refs[0], nil
	}
	return rt.Group(append([]*rt.Ref(nil), p.refs...)), nil
}

// inTask names the task in err where that is not said.
func (t *task) inTask(err error) error {
	if e, ok := err.(*wray.Error); ok && e.Task == "" {
		c := *e
		c.Task = t.d.name
		return &c
	}
	return err
}

// input decodes argument i of a call. Where that fails the task has failed.
func input[A any](c *rt.Call, i int, a *A) bool {
	var v rt.Value
	err := c.Arg(i, &v)
	if err == nil {
		err = decode(&v, a)
	} else {
		err = local("read", err)
	}
	if err == nil {
		return true
	}
	e := failureOf(c, err)
	e.Code, e.Message, e.Cause = wray.CodeBadArgument, fmt.Sprintf("argument %d: %v", i, message(err)), nil
	fail(c, e)
	return false
}

// arity checks how many arguments a call has. Where it is wrong the task has
// failed.
func arity(c *rt.Call, n int) bool {
	if c.NumArgs() == n {
		return true
	}
	fail(c, &wray.Error{Code: wray.CodeBadArgument, Task: c.Name(), Attempt: c.Attempt(),
		Message: fmt.Sprintf("the task takes %d arguments and was given %d", n, c.NumArgs())})
	return false
}

// message is what err says without its class.
func message(err error) string {
	if e, ok := err.(*wray.Error); ok {
		return e.Message
	}
	return err.Error()
}

// output gives what a task returned, which is one object or several parts.
func output[R any](c *rt.Call, r *R, parts int, err error) {
	if err != nil {
		fail(c, failureOf(c, err))
		return
	}
	if parts > 1 {
		all := *r // only here must it be in the heap
		outputParts(c, any(&all).(multi))
		return
	}
	p := newPacket(0)
	v := &p.args[0].Value
	p.buf, err = encode(r, p.buf, v)
	if err != nil || !c.Finish(v) {
		give(c, 0, v, err)
	}
	p.free()
}

func outputParts(c *rt.Call, m multi) {
	p := newPacket(1)
	defer p.free()
	for i := range m.parts() {
		v := &p.args[0].Value
		*v = rt.Value{}
		var err error
		p.buf, err = m.encodePart(i, p.buf, v)
		if !give(c, i, v, err) {
			return
		}
	}
}

func give(c *rt.Call, i int, v *rt.Value, err error) bool {
	if err != nil {
		e := unencodable(fmt.Sprintf("result %d", i), err)
		e.Task, e.Attempt = c.Name(), c.Attempt()
		fail(c, e)
		return false
	}
	if err := c.Return(i, v); err != nil {
		e := failureOf(c, local("return", err))
		if e.Cause != nil {
			e.Code, e.Message, e.Limit, e.Hint, e.Cause = e.Cause.Code, e.Cause.Message, e.Cause.Limit, e.Cause.Hint, nil
		}
		fail(c, e)
		return false
	}
	return true
}

// Put stores v and returns a reference to it, to be given to many tasks
// without being sent with each. It waits while the store is full.
func Put[T any](ctx context.Context, v T) (Ref[T], error) {
	p := newPacket(1)
	val := &p.args[0].Value
	buf, err := encode(&v, p.buf, val)
	if err != nil {
		p.free()
		return Ref[T]{}, unencodable("the value", err)
	}
	p.buf = buf
	r, err := rt.Put(ctx, val)
	p.free()
	if err != nil {
		return Ref[T]{}, local("put", err)
	}
	return Ref[T]{r}, nil
}

// An AnyRef is a [Ref] of any type.
type AnyRef interface{ ref() *rt.Ref }

// Ref is a reference to a value that is there or will be. It is small, can be
// copied and compared (copies are equal; references that came by different
// ways are not), and is collected like any value: when nobody holds a Ref to an
// object, the object goes. References that came in one list of a thousand or more
// go a few together: one that is kept may keep those that were beside it, a 64th
// of the list at most. The zero Ref refers to nothing.
type Ref[T any] struct{ p *rt.Ref }

func (r Ref[T]) ref() *rt.Ref { return r.p }

// IsZero reports whether r is the zero Ref.
func (r Ref[T]) IsZero() bool { return r.p == nil }

var errZeroRef = &wray.Error{Code: wray.CodeBadArgument, Message: "the zero Ref refers to nothing"}

// Get waits for the value and returns it. The error is the failure of the task
// that should have made it, or of ctx. Get may be called any number of times,
// from many goroutines.
func (r Ref[T]) Get(ctx context.Context) (T, error) {
	if r.p == nil {
		var zero T
		return zero, errZeroRef
	}
	return get[T](ctx, r.p, nil)
}

// get reads p, after which the caller will read next.
func get[T any](ctx context.Context, p *rt.Ref, next []*rt.Ref) (T, error) {
	var v rt.Value
	var out T
	if parts := p.Parts(); parts != nil {
		all := new(T) // only here must it be in the heap
		err := getParts(ctx, parts, any(all))
		return *all, err
	}
	if err := p.Get(ctx, &v, next); err != nil {
		return out, local("get", err)
	}
	err := decode(&v, &out)
	return out, err
}

// Ready reports whether Get would return at once, as far as this sandbox has
// been told. [Wait] asks.
func (r Ref[T]) Ready() bool { return r.p != nil && waitsFor(r.p).Ready() }

// Cancel cancels the task that makes the value, and every task that it
// submitted. Get then fails with wray.ErrCanceled. Where the value is there
// already, nothing happens.
func (r Ref[T]) Cancel() error {
	if r.p == nil {
		return errZeroRef
	}
	return local("cancel", r.p.Cancel())
}

// GetAll waits for all of refs and returns their values, or the first error
// in their order.
func GetAll[T any](ctx context.Context, refs []Ref[T]) ([]T, error) {
	all := make([]*rt.Ref, len(refs))
	for i, r := range refs {
		if r.p == nil {
			return nil, errZeroRef
		}
		all[i] = r.p
	}
	out := make([]T, len(refs))
	for i, p := range all {
		v, err := get[T](ctx, p, all[i+1:])
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// Wait waits until n of refs are ready, or timeout has passed; a negative
// timeout means no limit, and zero that Wait only looks. It returns those that
// are ready, failed ones included, and the others, each in the order of refs.
// The error is ctx's.
func Wait[R AnyRef](ctx context.Context, refs []R, n int, timeout time.Duration) (ready, pending []R, err error) {
	all := make([]*rt.Ref, len(refs))
	for i, r := range refs {
		p := r.ref()
		if p == nil {
			return nil, refs, errZeroRef
		}
		all[i] = waitsFor(p)
	}
	have, err := rt.Wait(ctx, all, n, timeout)
	ready, pending = make([]R, 0, have), make([]R, 0, len(refs)-have)
	for i, r := range refs {
		if all[i].Ready() {
			ready = append(ready, r)
		} else {
			pending = append(pending, r)
		}
	}
	return ready, pending, local("wait", err)
}

// waitsFor is the object whose readiness is p's: of several results, the last.
func waitsFor(p *rt.Ref) *rt.Ref {
	if parts := p.Parts(); len(parts) > 0 {
		return parts[len(parts)-1]
	}
	return p
}
