package sdk

import (
	"context"
	"iter"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// Items is a stream of values that a task gives one by one. It is read by one
// reader. A stream that is not read to its end is closed, or garbage, and its
// task canceled then.
type Items[T any] struct{ p *rt.Ref }

// Next waits for the next value. At the end of the stream the error is
// wray.ErrEndOfStream; a failure of the task comes after the values that it
// gave before.
func (s *Items[T]) Next(ctx context.Context) (T, error) {
	r, err := s.NextRef(ctx)
	if err != nil {
		var zero T
		return zero, err
	}
	return r.Get(ctx)
}

// NextRef is Next without reading the value. A failure of the task is what the
// last Ref holds.
func (s *Items[T]) NextRef(ctx context.Context) (Ref[T], error) {
	r, err := s.p.Next(ctx)
	switch {
	case err != nil:
		return Ref[T]{}, local("next", err)
	case r == nil:
		return Ref[T]{}, wray.ErrEndOfStream
	}
	return Ref[T]{r}, nil
}

// All returns an iterator over the values that are still to come. An error,
// of the task or of ctx, is the last, with a zero value: look at it before the
// value. A loop that is left early closes the stream.
func (s *Items[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		defer s.Close()
		for {
			v, err := s.Next(ctx)
			if err == wray.ErrEndOfStream {
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// Close gives the stream back. Where its task still runs it is canceled.
func (s *Items[T]) Close() { s.p.Drop() }

// yielder returns the yield function of a stream's task.
func yielder[T any](c *rt.Call) func(T) error {
	return func(v T) error {
		p := newPacket(0)
		defer p.free()
		val := &p.args[0].Value
		var err error
		if p.buf, err = encode(&v, p.buf, val); err != nil {
			return unencodable("the item", err)
		}
		return local("yield", c.Yield(c.Context(), val))
	}
}

// finish ends a stream's task.
func finish(c *rt.Call, err error) {
	if err != nil {
		fail(c, failureOf(c, err))
	}
}

// Stream0 declares a streaming task without arguments; see [Stream].
func Stream0[T any](name string, f func(ctx context.Context, yield func(T) error) error) StreamTask0[T] {
	d := declare(name, true, 1, func(call *rt.Call) {
		if arity(call, 0) {
			finish(call, f(call.Context(), yielder[T](call)))
		}
	})
	return StreamTask0[T]{&task{d: d}}
}

// StreamTask0 is a streaming task, declared by [Stream0].
type StreamTask0[T any] struct{ t *task }

// With returns the task with other options.
func (t StreamTask0[T]) With(opts ...Option) StreamTask0[T] {
	return StreamTask0[T]{t.t.with(opts)}
}

// Remote submits a call and returns the stream of its results.
func (t StreamTask0[T]) Remote(ctx context.Context) *Items[T] {
	return &Items[T]{t.t.submit(ctx, newPacket(0), nil)}
}

// Stream declares a task that gives its results one by one, by calling yield.
// While as many as its [Window] are unread, yield waits, and the task does not
// hold its processors. yield fails when the reader has gone; the task should
// return then. A task that is retried gives the same items again from the
// first: those that the reader can have seen are skipped, so the items must
// not depend on anything but the arguments.
func Stream[A, T any](name string, f func(ctx context.Context, a A, yield func(T) error) error) StreamTask1[A, T] {
	d := declare(name, true, 1, func(call *rt.Call) {
		var a A
		if arity(call, 1) && input(call, 0, &a) {
			finish(call, f(call.Context(), a, yielder[T](call)))
		}
	})
	return StreamTask1[A, T]{&task{d: d}}
}

// StreamTask1 is a streaming task, declared by [Stream].
type StreamTask1[A, T any] struct{ t *task }

// With returns the task with other options.
func (t StreamTask1[A, T]) With(opts ...Option) StreamTask1[A, T] {
	return StreamTask1[A, T]{t.t.with(opts)}
}

// Remote submits a call and returns the stream of its results.
func (t StreamTask1[A, T]) Remote(ctx context.Context, a A) *Items[T] {
	p := newPacket(1)
	err := arg(p, 0, &a)
	return &Items[T]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with an argument that is a plain value or a reference.
func (t StreamTask1[A, T]) RemoteArgs(ctx context.Context, a Arg[A]) *Items[T] {
	p := newPacket(1)
	return &Items[T]{t.t.submit(ctx, p, setArgs(p, a))}
}

// Stream2 declares a streaming task of two arguments; see [Stream].
func Stream2[A, B, T any](name string, f func(ctx context.Context, a A, b B, yield func(T) error) error) StreamTask2[A, B, T] {
	d := declare(name, true, 1, func(call *rt.Call) {
		var (
			a A
			b B
		)
		if arity(call, 2) && input(call, 0, &a) && input(call, 1, &b) {
			finish(call, f(call.Context(), a, b, yielder[T](call)))
		}
	})
	return StreamTask2[A, B, T]{&task{d: d}}
}

// StreamTask2 is a streaming task, declared by [Stream2].
type StreamTask2[A, B, T any] struct{ t *task }

// With returns the task with other options.
func (t StreamTask2[A, B, T]) With(opts ...Option) StreamTask2[A, B, T] {
	return StreamTask2[A, B, T]{t.t.with(opts)}
}

// Remote submits a call and returns the stream of its results.
func (t StreamTask2[A, B, T]) Remote(ctx context.Context, a A, b B) *Items[T] {
	p := newPacket(2)
	err := arg(p, 0, &a)
	if err == nil {
		err = arg(p, 1, &b)
	}
	return &Items[T]{t.t.submit(ctx, p, err)}
}

// RemoteArgs is Remote with arguments each of which is a plain value or a reference.
func (t StreamTask2[A, B, T]) RemoteArgs(ctx context.Context, a Arg[A], b Arg[B]) *Items[T] {
	p := newPacket(2)
	return &Items[T]{t.t.submit(ctx, p, setArgs(p, a, b))}
}
