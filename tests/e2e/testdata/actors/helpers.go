package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	"github.com/wray-project/wray/sdk/actors"
)

var (
	words = actors.DeclareQueue[string]("words")

	// produce puts what it is given into a queue, one by one.
	produce = sdk.Func2("produce", func(ctx context.Context, q actors.Queue[string], vs []string) (int, error) {
		for i, v := range vs {
			if _, err := words.Put(ctx, q, v, actors.Forever); err != nil {
				return i, err
			}
		}
		return len(vs), nil
	})
	// guarded counts in a counter with a permit of the semaphore, as the signal lets it.
	guarded = sdk.Func3("guarded", func(ctx context.Context, s actors.Semaphore, start actors.Signal, to sdk.Handle[counter]) (int, error) {
		if err := start.Wait(ctx); err != nil {
			return 0, err
		}
		if err := s.Acquire(ctx); err != nil {
			return 0, err
		}
		if _, err := add.Remote(ctx, to, 1).Get(ctx); err != nil {
			return 0, err
		}
		return 0, s.Release(ctx)
	})
)

func queues(ctx context.Context) error {
	q := words.New(ctx, 2)
	_, ok, err := words.Get(ctx, q, 5*time.Millisecond)
	say("empty", ok, err)
	producer := produce.Remote(ctx, q, []string{"a", "b", "c", "d", "e"})
	var got []string
	for len(got) < 5 {
		vs, err := words.GetBatch(ctx, q, 10, actors.Forever)
		if err != nil {
			return err
		}
		got = append(got, vs...)
	}
	fmt.Println(got)
	get(ctx, "producer", producer)
	n, err := words.PutBatch(ctx, q, []string{"x", "y"}, 0)
	say("batch", n, err)
	ok, err = words.Put(ctx, q, "z", time.Millisecond)
	say("full", ok, err)
	n, err = words.Size(ctx, q)
	say("size", n, err)
	_, err = words.PutBatch(ctx, q, []string{"1", "2", "3"}, 0)
	say("too many", 0, err)
	_, _, _ = words.Get(ctx, q, 0)
	_, _, _ = words.Get(ctx, q, 0)
	// Who gives up takes nothing with it.
	limited, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	_, _, err = words.Get(limited, q, actors.Forever)
	fmt.Println("gave up:", errors.Is(err, context.DeadlineExceeded) || errors.Is(err, wray.ErrTimeout))
	if _, err := words.Put(ctx, q, "kept", 0); err != nil {
		return err
	}
	v, _, err := words.Get(ctx, q, 0)
	say("left", v, err)
	return nil
}

func semaphores(ctx context.Context) error {
	s, start, c := actors.NewSemaphore(ctx, 2), actors.NewSignal(ctx), counters.New(ctx, 0)
	var refs []sdk.Ref[int]
	for range 6 {
		refs = append(refs, guarded.Remote(ctx, s, start, c))
	}
	get(ctx, "before the signal", add.Remote(ctx, c, 0))
	if err := start.Set(ctx); err != nil {
		return err
	}
	if _, err := sdk.GetAll(ctx, refs); err != nil {
		return err
	}
	get(ctx, "after it", add.Remote(ctx, c, 0))
	for range 3 {
		ok, err := s.TryAcquire(ctx)
		say("permit", ok, err)
	}
	for range 3 {
		say("release", 0, s.Release(ctx))
	}
	if err := start.Clear(ctx); err != nil {
		return err
	}
	limited, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	fmt.Println("cleared:", start.Wait(limited) != nil)
	return nil
}

var (
	doublers = sdk.Actor0("doubler", func(context.Context) (*struct{}, error) { return new(struct{}), nil })
	double   = sdk.Method(doublers, "double", func(_ *struct{}, _ context.Context, n int) (int, error) {
		if n < 0 {
			return 0, errors.New("a negative number")
		}
		time.Sleep(time.Duration(n%3) * time.Millisecond)
		return 2 * n, nil
	})
)

func pools(ctx context.Context) error {
	pool := actors.NewPool(double, doublers.New(ctx), doublers.New(ctx))
	pool.Push(ctx, doublers.New(ctx))
	in := []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
	var out []int
	for v, err := range pool.Map(ctx, slices.Values(in)) {
		if err != nil {
			return err
		}
		out = append(out, v)
	}
	fmt.Println("map:", out)
	out = nil
	for v, err := range pool.MapUnordered(ctx, slices.Values(in)) {
		if err != nil {
			return err
		}
		out = append(out, v)
	}
	slices.Sort(out)
	fmt.Println("unordered:", out)
	pool.Submit(ctx, -1)
	_, err := pool.Next(ctx)
	say("failed", 0, err)
	pool.Submit(ctx, 21)
	v, err := pool.Next(ctx)
	say("goes on", v, err)
	_, err = pool.NextUnordered(ctx)
	fmt.Println("no more:", errors.Is(err, actors.ErrNoMore), pool.Len())
	free := 0
	for _, ok := pool.Pop(); ok; _, ok = pool.Pop() {
		free++
	}
	fmt.Println("free:", free)
	return nil
}
