package main

import (
	"context"
	"fmt"

	"github.com/wray-project/wray/sdk"
)

// order is a placement group in a value.
type order struct {
	Group sdk.Group
	N     int
}

var (
	twice = sdk.Func("twice", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	// within runs a task in a group that has come in a value, and one that is
	// captured.
	within = sdk.Func("within", func(ctx context.Context, o order) (int, error) {
		a, err := twice.With(sdk.InGroup(o.Group, sdk.AnyBundle), sdk.CPU(0.25)).Remote(ctx, o.N).Get(ctx)
		if err != nil {
			return 0, err
		}
		b, err := twice.With(sdk.CPU(0.25)).Remote(ctx, a).Get(ctx)
		return b, err
	})
	guests  = sdk.Actor0("guest", func(context.Context) (*int, error) { return new(int), nil })
	counts  = sdk.Method0(guests, "counts", func(n *int, _ context.Context) (int, error) { *n++; return *n, nil })
	apart   = sdk.StrictSpread()
	bundles = []sdk.Bundle{{CPU: 1}, {CPU: 1}, {CPU: 1}}
)

// use runs tasks in all bundles of pg, from here and from elsewhere.
func use(ctx context.Context, pg sdk.Group) error {
	var refs []sdk.Ref[int]
	for i := range 12 {
		refs = append(refs, twice.With(sdk.InGroup(pg, i%3), sdk.CPU(0.5)).Remote(ctx, i))
		refs = append(refs, within.With(sdk.InGroup(pg, i%3), sdk.CPU(0.5), sdk.CaptureTasks()).Remote(ctx, order{pg, i}))
	}
	got, err := sdk.GetAll(ctx, refs)
	if err != nil {
		return err
	}
	for i, n := range got {
		if want := i / 2 * 2 * (1 + i%2); n != want {
			return fmt.Errorf("task %d gave %d, want %d", i, n, want)
		}
	}
	return nil
}

// inGroups makes groups whose bundles are on three nodes, uses and removes them,
// and keeps one over what await lets happen.
func inGroups(ctx context.Context, await func(string)) error {
	for range 5 {
		pg := sdk.PlacementGroup(ctx, bundles, apart)
		if err := use(ctx, pg); err != nil {
			return err
		}
		if err := pg.Remove(); err != nil {
			return err
		}
	}
	pg := sdk.PlacementGroup(ctx, bundles, apart, sdk.Name("kept"))
	var handles []sdk.Handle[int]
	for i := range bundles {
		handles = append(handles, guests.With(sdk.InGroup(pg, i), sdk.CPU(0.25), sdk.MaxRestarts(-1), sdk.MaxTaskRetries(-1)).New(ctx))
	}
	for _, h := range handles {
		if _, err := counts.Remote(ctx, h).Get(ctx); err != nil {
			return err
		}
	}
	await("made")
	for _, h := range handles {
		if _, err := counts.Remote(ctx, h).Get(ctx); err != nil {
			return err
		}
	}
	found, err := sdk.LookupGroup("kept")
	if err != nil {
		return err
	}
	if err := use(ctx, found); err != nil {
		return err
	}
	if err := found.Remove(); err != nil {
		return err
	}
	_, err = counts.Remote(ctx, handles[0]).Get(ctx)
	say("an actor of a group that was removed", 0, err)
	_, err = twice.With(sdk.InGroup(pg, 0)).Remote(ctx, 1).Get(ctx)
	say("a task of it", 0, err)
	fmt.Println("done")
	return nil
}
