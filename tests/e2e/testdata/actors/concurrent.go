package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// A gate lets calls through when it is opened.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed when it is
	log  []int         // who came, in order
	in   chan struct{} // one token for each that waits
}

func newGate(context.Context) (*gate, error) {
	return &gate{open: make(chan struct{}), in: make(chan struct{}, 100)}, nil
}

// pass waits until the gate is open.
func (g *gate) pass(ctx context.Context, who int) (int, error) {
	g.mu.Lock()
	g.log = append(g.log, who)
	open := g.open
	g.mu.Unlock()
	g.in <- struct{}{}
	select {
	case <-open:
		return who, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// await waits until n calls of pass wait.
func (g *gate) await(ctx context.Context, n int) (int, error) {
	for range n {
		select {
		case <-g.in:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return n, nil
}

// set opens the gate, or closes it.
func (g *gate) set(_ context.Context, open bool) ([]int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if open {
		close(g.open)
	} else {
		g.open = make(chan struct{})
	}
	if runtime.GOOS != "wasip1" {
		slices.Sort(g.log) // natively calls start in parallel
	}
	return g.log, nil
}

func (g *gate) end(_ context.Context, how string) (int, error) {
	switch how {
	case "panic":
		panic("a method may panic")
	case "leave":
		runtime.Goexit()
	case "stay":
		select {}
	}
	return 0, errors.New("a method may fail")
}

// items gives n items, each when who asked for the one before is through.
func (g *gate) items(ctx context.Context, n int, yield func(int) error) error {
	for i := range n {
		v, err := square.Remote(ctx, i).Get(ctx)
		if err != nil {
			return err
		}
		if err := yield(v); err != nil {
			return err
		}
	}
	return nil
}

var (
	gates     = sdk.Actor0("gate", newGate)
	passGate  = sdk.Method(gates, "pass", (*gate).pass)
	awaitGate = sdk.Method(gates, "await", (*gate).await)
	setGate   = sdk.Method(gates, "set", (*gate).set)
	endGate   = sdk.Method(gates, "end", (*gate).end)
	gateItems = sdk.StreamMethod(gates, "items", (*gate).items)
)

// done says that a call is answered, and not what with.
func done[T any](ctx context.Context, what string, r sdk.Ref[T]) {
	_, err := r.Get(ctx)
	say(what, "done", err)
}

func concurrent(ctx context.Context) error {
	g := gates.With(sdk.MaxConcurrency(8)).New(ctx)
	refs := make([]sdk.Ref[int], 5)
	for i := range refs {
		refs[i] = passGate.Remote(ctx, g, i)
	}
	get(ctx, "all wait", awaitGate.Remote(ctx, g, len(refs)))
	get(ctx, "fails alone", endGate.Remote(ctx, g, ""))
	get(ctx, "panics alone", endGate.Remote(ctx, g, "panic"))
	get(ctx, "leaves alone", endGate.Remote(ctx, g, "leave"))
	get(ctx, "and again", endGate.Remote(ctx, g, "leave"))
	if err := refs[2].Cancel(); err != nil {
		return err
	}
	_, err := refs[2].Get(ctx)
	fmt.Println("canceled alone:", errors.Is(err, wray.ErrCanceled))
	streams := []*sdk.Items[int]{gateItems.With(sdk.Window(1)).Remote(ctx, g, 5), gateItems.With(sdk.Window(1)).Remote(ctx, g, 5)}
	sum := 0
	for range 5 {
		for _, s := range streams {
			v, err := s.Next(ctx)
			if err != nil {
				return err
			}
			sum += v
		}
	}
	fmt.Println("two streams at once:", sum)
	get(ctx, "started in order", setGate.Remote(ctx, g, true))
	for _, i := range []int{4, 3, 1, 0} {
		get(ctx, "passed", refs[i])
	}

	// No more than may be are under way: the ninth comes when one is through.
	done(ctx, "closed", setGate.Remote(ctx, g, false))
	var full []sdk.Ref[int]
	for i := range 8 {
		full = append(full, passGate.Remote(ctx, g, 10+i))
	}
	ninth := setGate.Remote(ctx, g, true)
	_, pending, err := sdk.Wait(ctx, []sdk.Ref[[]int]{ninth}, 1, 50*time.Millisecond)
	if err != nil {
		return err
	}
	fmt.Println("the ninth waits:", len(pending) == 1)
	if err := full[0].Cancel(); err != nil {
		return err
	}
	done(ctx, "the ninth", ninth)
	all, err := sdk.GetAll(ctx, full[1:])
	say("the others", all, err)

	// It sleeps when it rests.
	drowsy := gates.With(sdk.MaxConcurrency(2), sdk.Idle(time.Millisecond)).New(ctx)
	early := passGate.Remote(ctx, drowsy, 1)
	done(ctx, "before sleep", setGate.Remote(ctx, drowsy, true))
	get(ctx, "early", early)
	for range 3 {
		time.Sleep(10 * time.Millisecond)
		get(ctx, "after sleep", passGate.Remote(ctx, drowsy, 2))
	}

	// It ends when nobody refers to it and its calls are through.
	h := gates.With(sdk.MaxConcurrency(3)).New(ctx)
	last := []sdk.Ref[int]{passGate.Remote(ctx, h, 1), passGate.Remote(ctx, h, 2)}
	opened := setGate.Remote(ctx, h, true)
	h = sdk.Handle[gate]{}
	done(ctx, "last set", opened)
	for _, r := range last {
		get(ctx, "last", r)
	}
	return nil
}

func concurrentLost(ctx context.Context) error {
	g := gates.With(sdk.MaxConcurrency(4)).New(ctx)
	refs := []sdk.Ref[int]{passGate.Remote(ctx, g, 0), passGate.Remote(ctx, g, 1), passGate.Remote(ctx, g, 2), passGate.Remote(ctx, g, 3)}
	waits := endGate.Remote(ctx, g, "")
	say("made", 0, g.Ready(ctx))
	if err := g.Kill(); err != nil {
		return err
	}
	for _, r := range append(refs, waits) {
		get(ctx, "killed", r)
	}

	// A timeout takes all with it, and what is not run again.
	g = gates.With(sdk.MaxConcurrency(4), sdk.MaxRestarts(1)).New(ctx)
	lost := passGate.Remote(ctx, g, 7)
	get(ctx, "waits", awaitGate.Remote(ctx, g, 1))
	_, err := endGate.With(sdk.Timeout(20*time.Millisecond)).Remote(ctx, g, "stay").Get(ctx)
	fmt.Println("timed out:", errors.Is(err, wray.ErrActorDied), errors.Is(err, wray.ErrTimeout))
	_, err = lost.Get(ctx)
	fmt.Println("lost with it:", errors.Is(err, wray.ErrActorDied), errors.Is(err, wray.ErrTimeout))
	done(ctx, "lives", setGate.Remote(ctx, g, true))

	// Calls that are run again keep their order.
	g = gates.With(sdk.MaxConcurrency(4), sdk.MaxRestarts(-1), sdk.MaxTaskRetries(1)).New(ctx)
	for i := range refs[:3] {
		refs[i] = passGate.Remote(ctx, g, i)
	}
	get(ctx, "wait", awaitGate.Remote(ctx, g, 3))
	if err := g.Restart(); err != nil {
		return err
	}
	get(ctx, "wait again", awaitGate.Remote(ctx, g, 3))
	get(ctx, "open", setGate.Remote(ctx, g, true))
	for _, r := range refs[:3] {
		get(ctx, "run again", r)
	}
	return nil
}
