package main

import (
	"context"

	"github.com/wray-project/wray/sdk"
)

// counter is a small durable actor.
type counter struct{ n int }

var (
	counters = sdk.Actor0("durable counter", func(context.Context) (*counter, error) { return new(counter), nil }).With(sdk.Durable())
	count    = sdk.Method0(counters, "count", func(c *counter, _ context.Context) (int, error) { c.n++; return c.n, nil })
	pass     = sdk.Method(counters, "pass", func(c *counter, ctx context.Context, to sdk.Handle[counter]) (int, error) {
		c.n++
		return count.Remote(ctx, to).Get(ctx)
	})
)

// durable measures calls that are on stable storage before they are answered.
func durable(ctx context.Context, b *bench) error {
	const many = 16
	names := "abcdefghijklmnop"
	all := make([]sdk.Handle[counter], many)
	for i := range all {
		all[i] = counters.With(sdk.Name("bench " + names[i:i+1])).New(ctx)
		if err := all[i].Ready(ctx); err != nil {
			return err
		}
	}
	if err := b.time("durable calls sync", "call/s", 10, func() error {
		for range 10 {
			if _, err := count.Remote(ctx, all[0]).Get(ctx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := b.time("durable calls async, 16 actors", "call/s", 10*many, func() error {
		refs := make([]sdk.Ref[int], 0, 10*many)
		for range 10 {
			for _, c := range all {
				refs = append(refs, count.Remote(ctx, c))
			}
		}
		_, err := sdk.GetAll(ctx, refs)
		return err
	}); err != nil {
		return err
	}
	return b.time("durable calls that call a durable actor, sync", "call/s", 10, func() error {
		for range 10 {
			if _, err := pass.Remote(ctx, all[0], all[1]).Get(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}
