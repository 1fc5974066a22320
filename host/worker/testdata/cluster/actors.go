package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray/sdk"
)

// tally is an actor that remembers what it was told.
type tally struct {
	sum   int
	order []int
	kept  []sdk.Ref[[]byte]
	seen  []byte
}

// toTally is what a task is told that calls one.
type toTally struct {
	To sdk.Handle[tally]
	N  int
}

var (
	tallies = sdk.Actor("tally", func(_ context.Context, n int) (*tally, error) {
		if n < 0 {
			return nil, errors.New("less than nothing")
		}
		return &tally{sum: n}, nil
	}).With(there)
	savers = tallies.With(sdk.Resource("there", 0.1))
	add    = sdk.Method(tallies, "add", func(t *tally, _ context.Context, n int) (int, error) {
		t.sum += n
		t.order = append(t.order, n)
		return t.sum, nil
	})
	orderOf = sdk.Method0(tallies, "order", func(t *tally, _ context.Context) ([]int, error) { return t.order, nil })
	keep    = sdk.Method(tallies, "keep", func(t *tally, _ context.Context, x box) (int, error) {
		t.kept = append(t.kept, x.Ref)
		return len(t.kept), nil
	})
	weigh = sdk.Method0(tallies, "weigh", func(t *tally, ctx context.Context) (int, error) {
		n := 0
		for _, r := range t.kept {
			b, err := r.Get(ctx)
			if err != nil {
				return 0, err
			}
			n += len(b)
		}
		return n, nil
	})
	give    = sdk.Method(tallies, "give", func(_ *tally, _ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })
	measure = sdk.Method(tallies, "measure", func(_ *tally, _ context.Context, b []byte) (int, error) { return len(b), nil })
	errs    = sdk.Method0(tallies, "errs", func(_ *tally, _ context.Context) (int, error) { return 0, errors.New("as it should") })
	dies    = sdk.Method0(tallies, "dies", func(_ *tally, _ context.Context) (int, error) { os.Exit(3); return 0, nil })
	hang    = sdk.Method0(tallies, "hang", func(_ *tally, ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	pass = sdk.Method(tallies, "pass", func(t *tally, ctx context.Context, x toTally) (int, error) {
		v, err := add.Remote(ctx, x.To, x.N).Get(ctx)
		t.sum += v
		return t.sum, err
	})
	adds = sdk.Func("adds", func(ctx context.Context, x toTally) (int, error) {
		refs := make([]sdk.Ref[int], x.N)
		for i := range refs {
			refs[i] = add.Remote(ctx, x.To, 1)
		}
		all, err := sdk.GetAll(ctx, refs)
		for i := 1; i < len(all); i++ {
			if all[i] <= all[i-1] {
				return 0, fmt.Errorf("out of order: %v", all)
			}
		}
		return len(all), err
	})
	makes = sdk.Func("makes", func(ctx context.Context, n int) (toTally, error) {
		h := tallies.New(ctx, n)
		v, err := add.Remote(ctx, h, 1).Get(ctx)
		return toTally{h, v}, err
	}).With(there)
	names = sdk.Func("names", func(ctx context.Context, name string) (int, error) {
		h := tallies.With(sdk.Name(name), sdk.GetIfExists()).New(ctx, 100)
		found, err := tallies.Lookup(name)
		if err != nil {
			return 0, err
		}
		if _, err := add.Remote(ctx, h, 1).Get(ctx); err != nil {
			return 0, err
		}
		return add.Remote(ctx, found, 1).Get(ctx)
	}).With(there)
	kills = sdk.Func("kills", func(ctx context.Context, x toTally) (string, error) {
		if err := x.To.Kill(); err != nil {
			return "", err
		}
		_, err := add.Remote(ctx, x.To, 1).Get(ctx)
		_, missing := tallies.Lookup("nobody")
		return fmt.Sprint(err != nil, " ", missing != nil), nil
	}).With(there)
)

// actors has actors live on the nodes called b and c.
func actors(ctx context.Context, await func(string)) error {
	b, c := sdk.Resource("b", 0.1), sdk.Resource("c", 0.1)
	atB, atC := tallies.With(b).New(ctx, 10), tallies.With(c).New(ctx, 20)
	refs := make([]sdk.Ref[int], 50)
	for i := range refs {
		refs[i] = add.Remote(ctx, atB, i)
	}
	all, err := sdk.GetAll(ctx, refs)
	say("adds", all[len(all)-1], err)
	order, err := orderOf.Remote(ctx, atB).Get(ctx)
	say("order", len(order), err)
	for i, n := range order {
		if n != i {
			return fmt.Errorf("call %d was the one of %d", n, i)
		}
	}
	v, err := pass.Remote(ctx, atB, toTally{atC, 5}).Get(ctx)
	say("pass", v, err)
	v, err = adds.With(c).Remote(ctx, toTally{atB, 20}).Get(ctx) // from a third node
	say("from c", v, err)
	v, err = adds.With(b).Remote(ctx, toTally{atB, 20}).Get(ctx) // from where it is
	say("from b", v, err)
	x, err := makes.With(b).Remote(ctx, 7).Get(ctx)
	say("makes", x.N, err)
	v, err = add.Remote(ctx, x.To, 2).Get(ctx)
	say("made", v, err)
	v, err = names.With(c).Remote(ctx, "it").Get(ctx)
	say("names", v, err)
	data, err := sdk.Put(ctx, make([]byte, 100_000))
	if err != nil {
		return err
	}
	v, err = keep.Remote(ctx, atC, box{"kept", data}).Get(ctx)
	say("keep", v, err)
	data = sdk.Ref[[]byte]{}
	v, err = weigh.Remote(ctx, atC).Get(ctx)
	say("weigh", v, err)
	large, err := give.Remote(ctx, atC, 1<<20+1).Get(ctx)
	say("give", len(large), err)
	v, err = errs.Remote(ctx, atC).Get(ctx)
	say("errs", v, err)
	r := hang.Remote(ctx, atC)
	queued := add.Remote(ctx, atC, 1)
	queued.Cancel()
	_, err = queued.Get(ctx)
	say("canceled in the queue", nil, err)
	r.Cancel()
	_, err = r.Get(ctx)
	say("canceled", nil, err)
	few := tallies.With(b, sdk.MaxPendingCalls(1)).New(ctx, 0)
	if err := few.Ready(ctx); err != nil {
		return err
	}
	held := hang.Remote(ctx, few)
	for range 3 {
		add.Remote(ctx, few, 1) // at most one of them is kept
	}
	_, err = add.Remote(ctx, few, 1).Get(ctx)
	say("many", nil, err)
	held.Cancel()
	again := tallies.With(b, sdk.MaxRestarts(1)).New(ctx, 1)
	v, err = dies.Remote(ctx, again).Get(ctx)
	say("dies", v, err)
	v, err = add.Remote(ctx, again, 1).Get(ctx)
	say("again", v, err)
	v, err = dies.Remote(ctx, again).Get(ctx)
	say("dies for good", v, err)
	v, err = add.Remote(ctx, again, 1).Get(ctx)
	say("dead", v, err)
	if _, err = hang.With(sdk.Timeout(20*time.Millisecond)).Remote(ctx, tallies.With(b).New(ctx, 0)).Get(ctx); err != nil {
		say("late", nil, err)
	}
	_, err = add.Remote(ctx, tallies.With(c).New(ctx, -1), 1).Get(ctx)
	say("never was", nil, err)
	s, err := kills.With(c).Remote(ctx, toTally{x.To, 0}).Get(ctx)
	say("kills", s, err)
	v, err = add.Remote(ctx, x.To, 1).Get(ctx)
	say("killed", v, err)

	// The node called b dies.
	moves := tallies.With(sdk.MaxRestarts(1), sdk.MaxTaskRetries(1)).With(sdk.Resource("moves", 1)).New(ctx, 1)
	v, err = add.Remote(ctx, moves, 1).Get(ctx)
	say("before", v, err)
	waits := hang.Remote(ctx, atB)
	await("kill b")
	_, err = waits.Get(ctx)
	say("under way", nil, err)
	_, err = add.Remote(ctx, atB, 1).Get(ctx)
	say("later", nil, err)
	v, err = add.Remote(ctx, moves, 1).Get(ctx)
	say("moved", v, err)
	return nil
}
