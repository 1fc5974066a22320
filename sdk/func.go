package sdk

import (
	"context"

	"github.com/wray-project/wray/sdk/internal/rt"
)

// An Arg is an argument of type T in a call by RemoteArgs: a Ref[T], whose
// value is there before the task runs, or a plain value, by [Val].
type Arg[T any] interface {
	set(p *packet, i int) error
	argument(T) // keeps an Arg[T] from being an Arg of another type
}

// Val returns v as an argument for RemoteArgs.
func Val[T any](v T) Arg[T] { return val[T]{v} }

type val[T any] struct{ v T }

func (a val[T]) argument(T) {}

func (a val[T]) set(p *packet, i int) error { return arg(p, i, &a.v) }

func (r Ref[T]) argument(T) {}

func (r Ref[T]) set(p *packet, i int) error {
	if r.p == nil {
		return badArgument(i, errZeroRef)
	}
	if err := r.p.Err(); err != nil {
		return dependency(i, err)
	}
	p.args[i].Ref = r.p
	return nil
}

// Func0 declares a task without arguments; see [Func].
func Func0[R any](name string, f func(context.Context) (R, error)) Task0[R] {
	parts := partsOf[R]()
	d := declare(name, false, parts, func(call *rt.Call) {
		if arity(call, 0) {
			r, err := f(call.Context())
			output(call, &r, parts, err)
		}
	})
	return Task0[R]{&task{d: d}}
}

// Task0 is a task without arguments, declared by [Func0].
type Task0[R any] struct{ t *task }

// With returns the task with other options.
func (t Task0[R]) With(opts ...Option) Task0[R] { return Task0[R]{t.t.with(opts)} }

// Remote submits a call and returns a reference to its result. It waits only
// while too much is queued, until ctx is done. What goes wrong is told by the
// Ref.
func (t Task0[R]) Remote(ctx context.Context) Ref[R] {
	if r := t.t.quick(ctx, nil, nil); r != nil {
		return Ref[R]{r}
	}
	return Ref[R]{t.t.submit(ctx, newPacket(0), nil)}
}

// Func declares a task: f, under a name that is unique in the program. It is
// called for package variables,
//
//	var count = sdk.Func("count", func(ctx context.Context, text []byte) (int, error) { … })
//
// so that the task is known in every sandbox before any code runs there. R may
// be struct{} for a task that only succeeds or fails, and [Two], [Three] or
// [Four] for one whose results are objects of their own. f's context is done
// when the task is canceled, when its time is over, and when it returns;
// goroutines that f leaves running stand still from then on.
func Func[A, R any](name string, f func(context.Context, A) (R, error)) Task1[A, R] {
	parts := partsOf[R]()
	d := declare(name, false, parts, func(call *rt.Call) {
		var a A
		if arity(call, 1) && input(call, 0, &a) {
			r, err := f(call.Context(), a)
			output(call, &r, parts, err)
		}
	})
	return Task1[A, R]{&task{d: d}}
}

// Task1 is a task of one argument, declared by [Func].
type Task1[A, R any] struct{ t *task }

// With returns the task with other options.
func (t Task1[A, R]) With(opts ...Option) Task1[A, R] { return Task1[A, R]{t.t.with(opts)} }

// Remote submits a call and returns a reference to its result. It waits only
// while too much is queued, until ctx is done. What goes wrong is told by the
// Ref.
func (t Task1[A, R]) Remote(ctx context.Context, a A) Ref[R] {
	p := newPacket(1)
	err := arg(p, 0, &a)
	return Ref[R]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with an argument that is a plain value or a reference.
// The task runs when the referenced values are there; where one's task
// failed, this one fails with wray.CodeDependencyFailed.
func (t Task1[A, R]) RemoteArgs(ctx context.Context, a Arg[A]) Ref[R] {
	p := newPacket(1)
	return Ref[R]{t.t.submit(ctx, p, setArgs(p, a))}
}

// Func2 declares a task of two arguments; see [Func].
func Func2[A, B, R any](name string, f func(context.Context, A, B) (R, error)) Task2[A, B, R] {
	parts := partsOf[R]()
	d := declare(name, false, parts, func(call *rt.Call) {
		var (
			a A
			b B
		)
		if arity(call, 2) && input(call, 0, &a) && input(call, 1, &b) {
			r, err := f(call.Context(), a, b)
			output(call, &r, parts, err)
		}
	})
	return Task2[A, B, R]{&task{d: d}}
}

// Task2 is a task of two arguments, declared by [Func2].
type Task2[A, B, R any] struct{ t *task }

// With returns the task with other options.
func (t Task2[A, B, R]) With(opts ...Option) Task2[A, B, R] { return Task2[A, B, R]{t.t.with(opts)} }

// Remote submits a call and returns a reference to its result. It waits only
// while too much is queued, until ctx is done. What goes wrong is told by the
// Ref.
func (t Task2[A, B, R]) Remote(ctx context.Context, a A, b B) Ref[R] {
	p := newPacket(2)
	err := arg(p, 0, &a)
	if err == nil {
		err = arg(p, 1, &b)
	}
	return Ref[R]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with arguments each of which is a plain value or a reference.
// The task runs when the referenced values are there; where one's task
// failed, this one fails with wray.CodeDependencyFailed.
func (t Task2[A, B, R]) RemoteArgs(ctx context.Context, a Arg[A], b Arg[B]) Ref[R] {
	p := newPacket(2)
	return Ref[R]{t.t.submit(ctx, p, setArgs(p, a, b))}
}

// Func3 declares a task of three arguments; see [Func].
func Func3[A, B, C, R any](name string, f func(context.Context, A, B, C) (R, error)) Task3[A, B, C, R] {
	parts := partsOf[R]()
	d := declare(name, false, parts, func(call *rt.Call) {
		var (
			a A
			b B
			c C
		)
		if arity(call, 3) && input(call, 0, &a) && input(call, 1, &b) && input(call, 2, &c) {
			r, err := f(call.Context(), a, b, c)
			output(call, &r, parts, err)
		}
	})
	return Task3[A, B, C, R]{&task{d: d}}
}

// Task3 is a task of three arguments, declared by [Func3].
type Task3[A, B, C, R any] struct{ t *task }

// With returns the task with other options.
func (t Task3[A, B, C, R]) With(opts ...Option) Task3[A, B, C, R] {
	return Task3[A, B, C, R]{t.t.with(opts)}
}

// Remote submits a call and returns a reference to its result. It waits only
// while too much is queued, until ctx is done. What goes wrong is told by the
// Ref.
func (t Task3[A, B, C, R]) Remote(ctx context.Context, a A, b B, c C) Ref[R] {
	p := newPacket(3)
	err := arg(p, 0, &a)
	if err == nil {
		err = arg(p, 1, &b)
	}
	if err == nil {
		err = arg(p, 2, &c)
	}
	return Ref[R]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with arguments each of which is a plain value or a reference.
// The task runs when the referenced values are there; where one's task
// failed, this one fails with wray.CodeDependencyFailed.
func (t Task3[A, B, C, R]) RemoteArgs(ctx context.Context, a Arg[A], b Arg[B], c Arg[C]) Ref[R] {
	p := newPacket(3)
	return Ref[R]{t.t.submit(ctx, p, setArgs(p, a, b, c))}
}

// Func4 declares a task of four arguments; see [Func].
func Func4[A, B, C, D, R any](name string, f func(context.Context, A, B, C, D) (R, error)) Task4[A, B, C, D, R] {
	parts := partsOf[R]()
	d := declare(name, false, parts, func(call *rt.Call) {
		var (
			a A
			b B
			c C
			d D
		)
		if arity(call, 4) && input(call, 0, &a) && input(call, 1, &b) && input(call, 2, &c) && input(call, 3, &d) {
			r, err := f(call.Context(), a, b, c, d)
			output(call, &r, parts, err)
		}
	})
	return Task4[A, B, C, D, R]{&task{d: d}}
}

// Task4 is a task of four arguments, declared by [Func4].
type Task4[A, B, C, D, R any] struct{ t *task }

// With returns the task with other options.
func (t Task4[A, B, C, D, R]) With(opts ...Option) Task4[A, B, C, D, R] {
	return Task4[A, B, C, D, R]{t.t.with(opts)}
}

// Remote submits a call and returns a reference to its result. It waits only
// while too much is queued, until ctx is done. What goes wrong is told by the
// Ref.
func (t Task4[A, B, C, D, R]) Remote(ctx context.Context, a A, b B, c C, d D) Ref[R] {
	p := newPacket(4)
	err := arg(p, 0, &a)
	if err == nil {
		err = arg(p, 1, &b)
	}
	if err == nil {
		err = arg(p, 2, &c)
	}
	if err == nil {
		err = arg(p, 3, &d)
	}
	return Ref[R]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with arguments each of which is a plain value or a reference.
// The task runs when the referenced values are there; where one's task
// failed, this one fails with wray.CodeDependencyFailed.
func (t Task4[A, B, C, D, R]) RemoteArgs(ctx context.Context, a Arg[A], b Arg[B], c Arg[C], d Arg[D]) Ref[R] {
	p := newPacket(4)
	return Ref[R]{t.t.submit(ctx, p, setArgs(p, a, b, c, d))}
}

type setter interface {
	set(p *packet, i int) error
}

func setArgs(p *packet, args ...setter) error {
	for i, a := range args {
		if a == nil {
			return badArgument(i, errZeroRef)
		}
		if err := a.set(p, i); err != nil {
			return err
		}
	}
	return nil
}
