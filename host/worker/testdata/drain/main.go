// Command drain has an actor that takes several calls at once take checkpoints,
// and starts it again from them.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type counter struct {
	mu   sync.Mutex
	n    int
	gate chan struct{}
}

var (
	counters = sdk.Actor0("counter", func(context.Context) (*counter, error) { return &counter{gate: make(chan struct{})}, nil })
	add      = sdk.Method(counters, "add", func(c *counter, _ context.Context, by int) (int, error) {
		time.Sleep(time.Millisecond) // so that others come meanwhile
		c.mu.Lock()
		defer c.mu.Unlock()
		c.n += by
		return c.n, nil
	})
	total = sdk.Method0(counters, "total", func(c *counter, _ context.Context) (int, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.n, nil
	})
	// wait waits for the call that lets it go on.
	wait = sdk.Method0(counters, "wait", func(c *counter, ctx context.Context) (int, error) {
		<-c.gate
		return 0, nil
	})
	open = sdk.Method0(counters, "open", func(c *counter, _ context.Context) (int, error) {
		c.gate <- struct{}{}
		return 0, nil
	})
	// begin has a call of wait under way.
	begin = sdk.Func("begin", func(ctx context.Context, a sdk.Handle[counter]) (sdk.Ref[int], error) {
		r := wait.Remote(ctx, a)
		_, err := total.Remote(ctx, a).Get(ctx)
		return r, err
	})
	save = sdk.Method0(counters, "save", func(c *counter, ctx context.Context) (int, error) {
		c.n++
		return c.n, sdk.Checkpoint(ctx)
	})
)

func main() { sdk.Main(run) }

func adds(ctx context.Context, a sdk.Handle[counter], n int) error {
	refs := make([]sdk.Ref[int], n)
	for i := range refs {
		refs[i] = add.Remote(ctx, a, 1)
	}
	_, err := sdk.GetAll(ctx, refs)
	return err
}

func is(ctx context.Context, a sdk.Handle[counter], want int) error {
	if n, err := total.Remote(ctx, a).Get(ctx); err != nil || n != want {
		return fmt.Errorf("it counts %d, %v: want %d", n, err, want)
	}
	return nil
}

func run(ctx context.Context) error {
	class := counters.With(sdk.MaxConcurrency(10), sdk.MaxRestarts(-1))
	a := class.With(sdk.CheckpointEvery(1)).New(ctx)
	if err := adds(ctx, a, 50); err != nil {
		return err
	}
	if err := a.Restart(); err != nil {
		return err
	}
	if err := is(ctx, a, 50); err != nil { // and nobody is told of a loss
		return fmt.Errorf("a checkpoint at each call: %w", err)
	}

	a = class.New(ctx)
	if err := errors.Join(adds(ctx, a, 20), a.Checkpoint(ctx), adds(ctx, a, 5), a.Restart()); err != nil {
		return err
	}
	// It is another caller's call that wakes it, and has the actor serve.
	first, err := begin.Remote(ctx, a).Get(ctx)
	if err != nil {
		return err
	}
	var e *wray.Error
	if _, err := total.Remote(ctx, a).Get(ctx); !errors.Is(err, wray.ErrActorRestarted) || !errors.As(err, &e) || e.Lost != 5 {
		return fmt.Errorf("after a restart from a checkpoint before 5 calls: %v", err)
	}
	if err := is(ctx, a, 20); err != nil {
		return fmt.Errorf("a checkpoint that was asked for: %w", err)
	}
	if _, err := sdk.GetAll(ctx, []sdk.Ref[int]{first, open.Remote(ctx, a)}); err != nil {
		return err
	}
	if n, err := save.Remote(ctx, a).Get(ctx); err != nil || n != 21 {
		return fmt.Errorf("a method that asks for a checkpoint: %d, %v", n, err)
	}
	if err := errors.Join(a.Restart(), is(ctx, a, 21)); err != nil {
		return fmt.Errorf("a checkpoint that a method asked for: %w", err)
	}

	// Everything in the actor waits, and nothing comes while calls are held back.
	a = class.With(sdk.MaxConcurrency(2)).New(ctx)
	waits := wait.Remote(ctx, a)
	if err := is(ctx, a, 0); err != nil { // so it is under way
		return err
	}
	if err := a.Checkpoint(ctx); !errors.Is(err, wray.ErrTimeout) {
		return fmt.Errorf("a checkpoint while a call is under way: %v", err)
	}
	opens := open.Remote(ctx, a)
	if _, err := sdk.GetAll(ctx, []sdk.Ref[int]{waits, opens}); err != nil {
		return err
	}
	if err := a.Checkpoint(ctx); err != nil {
		return fmt.Errorf("a checkpoint after it: %w", err)
	}
	fmt.Println("drained")
	return nil
}
