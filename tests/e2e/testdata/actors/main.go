// Command actors goes through what actors do and says of each part how it
// went. It says the same in sandboxes and in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type counter struct {
	n    int
	log  []int
	kept sdk.Ref[[]byte]
}

func newCounter(_ context.Context, start int) (*counter, error) {
	if start < 0 {
		return nil, fmt.Errorf("cannot start at %d", start)
	}
	return &counter{n: start}, nil
}

func (c *counter) add(_ context.Context, by int) (int, error) {
	c.n += by
	c.log = append(c.log, by)
	return c.n, nil
}

func (c *counter) history(context.Context) ([]int, error) { return c.log, nil }

func (c *counter) fail(_ context.Context, how string) (int, error) {
	switch how {
	case "panic":
		panic("a method may panic")
	case "loop":
		for {
		}
	}
	return 0, errors.New("a method may fail")
}

func (c *counter) keep(_ context.Context, r []sdk.Ref[[]byte]) (int, error) {
	c.kept = r[0]
	return 0, nil
}

func (c *counter) kept2(ctx context.Context) (int, error) {
	b, err := c.kept.Get(ctx)
	return len(b), err
}

func (c *counter) count(_ context.Context, to int, yield func(int) error) error {
	for i := range to {
		c.n++
		if err := yield(i * i); err != nil {
			return err
		}
	}
	return nil
}

func (c *counter) nested(ctx context.Context, n int) (int, error) {
	v, err := square.Remote(ctx, n).Get(ctx)
	c.n += v
	return c.n, err
}

func (c *counter) save(ctx context.Context, by int) (int, error) {
	c.n += by
	return c.n, sdk.Checkpoint(ctx)
}

type relay struct{ to sdk.Handle[counter] }

var (
	counters = sdk.Actor("counter", newCounter)
	add      = sdk.Method(counters, "add", (*counter).add)
	history  = sdk.Method0(counters, "history", (*counter).history)
	fail     = sdk.Method(counters, "fail", (*counter).fail)
	keep     = sdk.Method(counters, "keep", (*counter).keep)
	kept     = sdk.Method0(counters, "kept", (*counter).kept2)
	count    = sdk.StreamMethod(counters, "count", (*counter).count)
	save     = sdk.Method(counters, "save", (*counter).save)
	nested   = sdk.Method(counters, "nested", (*counter).nested)

	relays = sdk.Actor("relay", func(_ context.Context, to sdk.Handle[counter]) (*relay, error) { return &relay{to}, nil })
	pass   = sdk.Method(relays, "pass", func(r *relay, ctx context.Context, by int) (int, error) {
		return add.Remote(ctx, r.to, by).Get(ctx)
	})

	square = sdk.Func("square", func(_ context.Context, n int) (int, error) { return n * n, nil })
	slow   = sdk.Func("slow", func(_ context.Context, n int) (int, error) {
		time.Sleep(20 * time.Millisecond)
		return n, nil
	})
	viaTask = sdk.Func("viaTask", func(ctx context.Context, h sdk.Handle[counter]) (int, error) {
		return add.Remote(ctx, h, 1000).Get(ctx)
	})
	addLater = sdk.Func2("addLater", func(ctx context.Context, name string, by int) (int, error) {
		h, err := counters.Lookup(name)
		if err != nil {
			return 0, err
		}
		return add.Remote(ctx, h, by).Get(ctx)
	})
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	only := ""
	if len(os.Args) > 1 {
		only = os.Args[1]
	}
	for _, part := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"state", states}, {"order", order}, {"errors", failures}, {"constructor", constructor}, {"kill", kill},
		{"restart", restart}, {"retry", retry}, {"names", names}, {"handles", handles}, {"refs", refs},
		{"streams", streams}, {"pending", pending}, {"cancel", cancel}, {"options", options}, {"many", many},
		{"checkpoints", checkpoints},
		{"concurrent", concurrent}, {"lost", concurrentLost},
		{"queues", queues}, {"semaphores", semaphores}, {"pools", pools},
	} {
		if only != "" && only != part.name {
			continue
		}
		fmt.Printf("== %s\n", part.name)
		if err := part.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// say prints a value, or an error in the form that is the same everywhere.
func say[T any](what string, v T, err error) {
	var e *wray.Error
	switch {
	case errors.As(err, &e):
		fmt.Printf("%s: %s: %s\n", what, e.Code, e.Message)
		for e = e.Cause; e != nil; e = e.Cause {
			fmt.Printf("\tbecause %s: %s\n", e.Code, e.Message)
		}
	case err != nil:
		fmt.Printf("%s: %v\n", what, err)
	default:
		fmt.Printf("%s: %v\n", what, v)
	}
}

func get[T any](ctx context.Context, what string, r sdk.Ref[T]) {
	v, err := r.Get(ctx)
	say(what, v, err)
}

func states(ctx context.Context) error {
	a, b := counters.New(ctx, 40), counters.New(ctx, 0)
	get(ctx, "a+2", add.Remote(ctx, a, 2))
	get(ctx, "b+1", add.Remote(ctx, b, 1))
	get(ctx, "a+1", add.Remote(ctx, a, 1))
	get(ctx, "nested", nested.Remote(ctx, a, 5))
	return a.Ready(ctx)
}

func order(ctx context.Context) error {
	a := counters.New(ctx, 0)
	var rs []sdk.Ref[int]
	rs = append(rs, add.RemoteArgs(ctx, a, slow.Remote(ctx, 1))) // holds up those after it
	for i := range 9 {
		rs = append(rs, add.Remote(ctx, a, i+2))
	}
	vs, err := sdk.GetAll(ctx, rs)
	say("sums", vs, err)
	get(ctx, "history", history.Remote(ctx, a))
	return nil
}

func failures(ctx context.Context) error {
	a := counters.New(ctx, 1)
	get(ctx, "error", fail.Remote(ctx, a, ""))
	get(ctx, "panic", fail.Remote(ctx, a, "panic"))
	get(ctx, "argument", add.RemoteArgs(ctx, a, square.Remote(ctx, 3)))
	get(ctx, "failed argument", add.RemoteArgs(ctx, a, fail.Remote(ctx, a, "")))
	get(ctx, "after", add.Remote(ctx, a, 1))
	get(ctx, "zero handle", add.Remote(ctx, sdk.Handle[counter]{}, 1))
	return nil
}

func constructor(ctx context.Context) error {
	a := counters.New(ctx, -1)
	say("ready", "", a.Ready(ctx))
	get(ctx, "call", add.Remote(ctx, a, 1))
	return nil
}

func kill(ctx context.Context) error {
	a := counters.New(ctx, 0)
	get(ctx, "before", add.Remote(ctx, a, 1))
	looping := fail.Remote(ctx, a, "loop")
	waits := add.Remote(ctx, a, 1)
	if err := a.Kill(); err != nil {
		return err
	}
	get(ctx, "looping", looping)
	get(ctx, "waiting", waits)
	get(ctx, "later", add.Remote(ctx, a, 1))
	return a.Kill()
}

func restart(ctx context.Context) error {
	a := counters.With(sdk.MaxRestarts(1)).New(ctx, 10)
	get(ctx, "first life", add.Remote(ctx, a, 1))
	lost := fail.With(sdk.Timeout(20*time.Millisecond)).Remote(ctx, a, "loop")
	_, err := lost.Get(ctx)
	fmt.Println("lost:", errors.Is(err, wray.ErrActorDied), errors.Is(err, wray.ErrTimeout), strings.Contains(err.Error(), "effects of 1 calls"))
	get(ctx, "second life", add.Remote(ctx, a, 1))
	if err := a.Restart(); err != nil {
		return err
	}
	for ctx.Err() == nil { // calls that had not begun are answered until the actor has ended
		if _, err = add.Remote(ctx, a, 1).Get(ctx); err != nil {
			break
		}
	}
	say("dead", "", err)
	return nil
}

func retry(ctx context.Context) error {
	a := counters.With(sdk.MaxRestarts(-1), sdk.MaxTaskRetries(1)).New(ctx, 10)
	_, err := fail.With(sdk.Timeout(20*time.Millisecond)).Remote(ctx, a, "loop").Get(ctx)
	fmt.Println("twice:", errors.Is(err, wray.ErrActorDied))
	get(ctx, "lives", add.Remote(ctx, a, 1))
	return nil
}

func names(ctx context.Context) error {
	_, err := counters.Lookup("bank")
	say("none", "", err)
	a := counters.With(sdk.Name("bank")).New(ctx, 100)
	get(ctx, "by name", addLater.Remote(ctx, "bank", 1))
	say("taken", "", counters.With(sdk.Name("bank")).New(ctx, 0).Ready(ctx))
	b := counters.With(sdk.Name("bank"), sdk.GetIfExists()).New(ctx, 0)
	get(ctx, "the same", add.Remote(ctx, b, 1))
	_ = a.Kill()
	get(ctx, "killed", add.Remote(ctx, b, 1))
	for ctx.Err() == nil {
		if _, err = counters.Lookup("bank"); err != nil {
			break
		}
	}
	c := counters.With(sdk.Name("bank"), sdk.Detached()).New(ctx, 7)
	get(ctx, "anew", add.Remote(ctx, c, 1))
	return nil
}

func handles(ctx context.Context) error {
	a := counters.New(ctx, 0)
	get(ctx, "in a task", viaTask.Remote(ctx, a))
	r := relays.New(ctx, a)
	get(ctx, "through an actor", pass.Remote(ctx, r, 5))
	get(ctx, "the same", add.Remote(ctx, a, 0))
	return nil
}

func refs(ctx context.Context) error {
	a := counters.New(ctx, 0)
	big, err := sdk.Put(ctx, make([]byte, 300_000))
	if err != nil {
		return err
	}
	get(ctx, "kept", keep.Remote(ctx, a, []sdk.Ref[[]byte]{big}))
	get(ctx, "read in a later call", kept.Remote(ctx, a))
	return nil
}

func streams(ctx context.Context) error {
	a := counters.New(ctx, 0)
	sum := 0
	for v, err := range count.Remote(ctx, a, 200).All(ctx) {
		if err != nil {
			return err
		}
		sum += v
	}
	say("sum", sum, nil)
	get(ctx, "state", add.Remote(ctx, a, 0))
	return nil
}

func pending(ctx context.Context) error {
	a := counters.With(sdk.MaxPendingCalls(2)).New(ctx, 0)
	if err := a.Ready(ctx); err != nil {
		return err
	}
	first := add.RemoteArgs(ctx, a, slow.Remote(ctx, 1))
	second := add.Remote(ctx, a, 1)
	get(ctx, "third", add.Remote(ctx, a, 1))
	get(ctx, "first", first)
	get(ctx, "second", second)
	get(ctx, "fourth", add.Remote(ctx, a, 1))
	return nil
}

func cancel(ctx context.Context) error {
	a := counters.New(ctx, 0)
	first := add.RemoteArgs(ctx, a, slow.Remote(ctx, 1))
	second := add.Remote(ctx, a, 10)
	third := add.Remote(ctx, a, 100)
	if err := second.Cancel(); err != nil {
		return err
	}
	get(ctx, "second", second)
	get(ctx, "first", first)
	get(ctx, "third", third)
	return nil
}

func options(ctx context.Context) error {
	say("task", "", square.With(sdk.MaxRestarts(1)).Remote(ctx, 1).Cancel())
	say("class", "", counters.With(sdk.Retries(1)).New(ctx, 1).Ready(ctx))
	get(ctx, "method", add.With(sdk.CPU(1)).Remote(ctx, counters.New(ctx, 1), 1))
	return nil
}

func many(ctx context.Context) error {
	var hs []sdk.Handle[counter]
	for i := range 200 {
		hs = append(hs, counters.New(ctx, i))
	}
	var rs []sdk.Ref[int]
	for range 5 {
		for _, h := range hs {
			rs = append(rs, add.Remote(ctx, h, 1))
		}
	}
	vs, err := sdk.GetAll(ctx, rs)
	sum := 0
	for _, v := range vs {
		sum += v
	}
	say("sum", sum, err)
	return nil
}

// checkpoints has actors start again from what they were at various times.
func checkpoints(ctx context.Context) error {
	a := counters.With(sdk.MaxRestarts(-1), sdk.CheckpointEvery(2)).New(ctx, 10)
	for range 3 {
		get(ctx, "add", add.Remote(ctx, a, 1))
	}
	_, err := fail.With(sdk.Timeout(20*time.Millisecond)).Remote(ctx, a, "loop").Get(ctx)
	lost := 0
	if e := (*wray.Error)(nil); errors.As(err, &e) {
		lost = e.Lost
	}
	fmt.Println("looped:", errors.Is(err, wray.ErrActorDied), "lost", lost)
	get(ctx, "back at 12", add.Remote(ctx, a, 0))
	get(ctx, "12 is saved", add.Remote(ctx, a, 0))
	get(ctx, "to be lost", add.Remote(ctx, a, 5))
	if err := a.Restart(); err != nil {
		return err
	}
	first, second := add.Remote(ctx, a, 1), add.Remote(ctx, a, 1)
	_, err = first.Get(ctx)
	say("told", "", err)
	fmt.Println(errors.Is(err, wray.ErrActorRestarted))
	get(ctx, "and goes on", second)
	get(ctx, "history", history.Remote(ctx, a))

	get(ctx, "on request", add.Remote(ctx, a, 100))
	say("checkpoint", "", a.Checkpoint(ctx))
	if err := a.Restart(); err != nil {
		return err
	}
	get(ctx, "nothing lost", add.Remote(ctx, a, 1))

	b := counters.With(sdk.MaxRestarts(-1)).New(ctx, 0)
	get(ctx, "inside", save.Remote(ctx, b, 7))
	get(ctx, "more", add.Remote(ctx, b, 1))
	if err := b.Restart(); err != nil {
		return err
	}
	get(ctx, "told", add.Remote(ctx, b, 1))
	get(ctx, "as it was", add.Remote(ctx, b, 0))
	say("outside", "", sdk.Checkpoint(ctx))

	c := counters.With(sdk.MaxRestarts(-1), sdk.CheckpointInterval(time.Millisecond)).New(ctx, 0)
	for {
		get := func(by int) error { _, err := add.Remote(ctx, c, by).Get(ctx); return err }
		if err := get(1); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // for the time to pass, not for it to be enough
		if err := c.Restart(); err != nil {
			return err
		}
		if err := get(0); err == nil {
			break
		} else if !errors.Is(err, wray.ErrActorRestarted) {
			return err
		}
	}
	get(ctx, "method", add.With(sdk.CheckpointEvery(1)).Remote(ctx, c, 1))
	return nil
}
