package actors

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray/sdk"
)

// Forever is the timeout of who waits without end.
const Forever time.Duration = -1

// Queues is a kind of queue, declared by [DeclareQueue].
type Queues[T any] struct {
	class sdk.Class1[int, queue[T]]
	put   sdk.MethodOf2[queue[T], []T, time.Duration, int]
	get   sdk.MethodOf2[queue[T], int, time.Duration, []T]
	size  sdk.MethodOf0[queue[T], int]
}

// A Queue is first in, first out, and has a bound. It may be sent to tasks and
// actors, and lives as long as somebody has it.
type Queue[T any] struct {
	Handle sdk.Handle[queue[T]]
}

// DeclareQueue declares queues of T. It is called for package variables, as
// sdk.Actor is, and name is one that no class of the program has:
//
//	var jobs = actors.DeclareQueue[Job]("jobs")
//
//	q := jobs.New(ctx, 100)
//	ok, err := jobs.Put(ctx, q, job, actors.Forever)
//	job, ok, err := jobs.Get(ctx, q, time.Second)
func DeclareQueue[T any](name string) Queues[T] {
	class := sdk.Actor(name, func(_ context.Context, bound int) (*queue[T], error) {
		if bound < 0 {
			return nil, fmt.Errorf("a queue with a bound of %d items: a number from 1 is wanted, or 0 for none", bound)
		}
		return &queue[T]{bound: bound, changed: make(chan struct{})}, nil
	}).With(sdk.MaxConcurrency(most))
	return Queues[T]{
		class: class,
		put:   sdk.Method2(class, "put", (*queue[T]).put),
		get:   sdk.Method2(class, "get", (*queue[T]).get),
		size:  sdk.Method0(class, "size", (*queue[T]).size),
	}
}

// New makes a queue that holds bound items at most; 0 is no bound.
func (c Queues[T]) New(ctx context.Context, bound int) Queue[T] {
	return Queue[T]{c.class.New(ctx, bound)}
}

// Put adds v. Where the queue is full it waits for so long, and then reports
// false.
func (c Queues[T]) Put(ctx context.Context, q Queue[T], v T, timeout time.Duration) (bool, error) {
	n, err := c.PutBatch(ctx, q, []T{v}, timeout)
	return n == 1, err
}

// PutBatch adds vs, in order and with none of others between, if there is room
// for all of them within timeout. It returns how many were added: all or none.
func (c Queues[T]) PutBatch(ctx context.Context, q Queue[T], vs []T, timeout time.Duration) (int, error) {
	return await(ctx, c.put.Remote(ctx, q.Handle, vs, timeout))
}

// Get takes the oldest item. Where there is none it waits for so long, and then
// reports false.
func (c Queues[T]) Get(ctx context.Context, q Queue[T], timeout time.Duration) (v T, ok bool, err error) {
	vs, err := c.GetBatch(ctx, q, 1, timeout)
	if len(vs) == 1 {
		v, ok = vs[0], true
	}
	return v, ok, err
}

// GetBatch takes up to n items, as many as there are. Where there is none it
// waits for so long.
func (c Queues[T]) GetBatch(ctx context.Context, q Queue[T], n int, timeout time.Duration) ([]T, error) {
	return await(ctx, c.get.Remote(ctx, q.Handle, n, timeout))
}

// Size returns how many items there are.
func (c Queues[T]) Size(ctx context.Context, q Queue[T]) (int, error) {
	return c.size.Remote(ctx, q.Handle).Get(ctx)
}

type queue[T any] struct {
	mu      sync.Mutex
	bound   int
	items   []T           // guarded by mu
	changed chan struct{} // guarded by mu; closed when items changes
}

// when waits until try, called with the lock held, reports true. False: that
// took longer than timeout.
func (q *queue[T]) when(ctx context.Context, timeout time.Duration, try func() bool) (bool, error) {
	var over <-chan time.Time
	for {
		q.mu.Lock()
		if try() {
			close(q.changed)
			q.changed = make(chan struct{})
			q.mu.Unlock()
			return true, nil
		}
		changed := q.changed
		q.mu.Unlock()
		if timeout == 0 {
			return false, nil
		}
		if over == nil && timeout > 0 {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-changed:
		case <-over:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (q *queue[T]) put(ctx context.Context, vs []T, timeout time.Duration) (int, error) {
	if q.bound > 0 && len(vs) > q.bound {
		return 0, fmt.Errorf("%d items for a queue with a bound of %d", len(vs), q.bound)
	}
	ok, err := q.when(ctx, timeout, func() bool {
		if q.bound > 0 && len(q.items)+len(vs) > q.bound {
			return false
		}
		q.items = append(q.items, vs...)
		return true
	})
	if !ok {
		return 0, err
	}
	return len(vs), nil
}

func (q *queue[T]) get(ctx context.Context, n int, timeout time.Duration) (vs []T, err error) {
	if n <= 0 {
		return nil, fmt.Errorf("%d items are wanted: a positive number is", n)
	}
	_, err = q.when(ctx, timeout, func() bool {
		n := min(n, len(q.items))
		vs = append(vs, q.items[:n]...)
		clear(q.items[:n]) // they may hold references
		q.items = q.items[n:]
		return n > 0
	})
	return vs, err
}

func (q *queue[T]) size(context.Context) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), nil
}
