package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// many is how many calls wait for an actor: more than are sent ahead.
const many = 300

// pending makes calls of an actor, each of which adds one.
func pending(ctx context.Context, to sdk.Handle[tally], n int) []sdk.Ref[int] {
	refs := make([]sdk.Ref[int], n)
	for i := range refs {
		refs[i] = add.Remote(ctx, to, 1)
	}
	return refs
}

// told says how calls ended: runs of the same, in order. Sums go up by one.
func told(ctx context.Context, what string, refs []sdk.Ref[int]) {
	last, n, first, sum := "", 0, 0, 0
	flush := func() {
		switch {
		case n == 0:
		case last == "":
			fmt.Printf("%s: %d gave %d to %d\n", what, n, first, sum)
		default:
			fmt.Printf("%s: %d failed: %s\n", what, n, last)
		}
		n = 0
	}
	for _, r := range refs {
		v, err := r.Get(ctx)
		how := ""
		var e *wray.Error
		if errors.As(err, &e) {
			how = fmt.Sprintf("%v, attempt %d: %s", e.Code, e.Attempt, e.Message)
		} else if err != nil {
			how = err.Error()
		}
		if how != last || err == nil && n > 0 && v != sum+1 {
			flush()
		}
		if n++; n == 1 {
			first = v
		}
		last, sum = how, v
	}
	flush()
}

// ahead has calls wait for an actor on another node.
func ahead(ctx context.Context, await func(string), args []string) error {
	moves, again := sdk.Resource("moves", 1), []sdk.Option{sdk.MaxRestarts(2), sdk.MaxTaskRetries(1)}
	switch args[0] {
	case "waits": // behind a call that takes its time; some are canceled
		at := tallies.With(moves).New(ctx, 0)
		long := hang.Remote(ctx, at)
		refs := pending(ctx, at, many)
		await("busy")
		for _, i := range []int{10, many - 1} {
			refs[i].Cancel()
			_, err := refs[i].Get(ctx)
			say("canceled", i, err)
		}
		await("canceled")
		long.Cancel()
		told(ctx, "adds", append(refs[:10:10], refs[11:many-1]...))
	case "limit":
		at := tallies.With(moves, sdk.MaxPendingCalls(5)).New(ctx, 0)
		long := hang.Remote(ctx, at)
		await("busy")
		refs := pending(ctx, at, 6)
		_, err := refs[5].Get(ctx)
		say("many", nil, err)
		long.Cancel()
		told(ctx, "adds", refs[:5])
	case "once", "again", "restart": // while the actor goes to another node
		options := []sdk.Option{sdk.MaxRestarts(1)}
		if args[0] != "once" {
			options = again
		}
		at := tallies.With(moves).With(options...).New(ctx, 0)
		long := hang.Remote(ctx, at)
		refs := pending(ctx, at, many)
		await("busy")
		if args[0] == "restart" {
			if err := at.Restart(); err != nil {
				return err
			}
		}
		await("busy again")
		if args[0] != "once" {
			long.Cancel()
		}
		_, err := long.Get(ctx)
		say("hang", nil, err)
		told(ctx, "adds", refs)
	case "lost": // with all that waits there
		at := tallies.With(moves).New(ctx, 0)
		long := hang.Remote(ctx, at)
		refs := pending(ctx, at, many)
		await("busy")
		told(ctx, "hang", []sdk.Ref[int]{long})
		told(ctx, "adds", refs)
	case "dies", "dies again": // in one of many calls, while more are on their way
		class := tallies.With(moves)
		if args[0] == "dies again" {
			class = class.With(again...)
		}
		at := class.New(ctx, 0)
		if err := at.Ready(ctx); err != nil {
			return err
		}
		refs := pending(ctx, at, many)
		refs = append(refs, dies.Remote(ctx, at))
		refs = append(refs, pending(ctx, at, 4*many)...)
		told(ctx, "calls", refs)
	case "wide": // several at once
		at := tallies.With(moves, sdk.MaxConcurrency(4)).New(ctx, 0)
		var long []sdk.Ref[int]
		for range 4 {
			long = append(long, hang.Remote(ctx, at))
		}
		refs := pending(ctx, at, many)
		await("busy")
		for _, r := range long {
			r.Cancel()
		}
		all, err := sdk.GetAll(ctx, refs)
		say("wide", len(all), err)
	case "large": // more bytes than are sent ahead, twice
		at := tallies.With(moves).New(ctx, 0)
		for range 2 {
			long := hang.Remote(ctx, at)
			var refs []sdk.Ref[int]
			for range many {
				refs = append(refs, measure.Remote(ctx, at, make([]byte, 60_000)))
			}
			await("busy")
			long.Cancel()
			all, err := sdk.GetAll(ctx, refs)
			say("large", all[len(all)-1], err)
		}
	case "callers": // on three nodes, each in its order
		at := tallies.With(moves).New(ctx, 0)
		b, c := adds.With(sdk.Resource("b", 1)), adds.With(sdk.Resource("c", 1))
		refs := []sdk.Ref[int]{b.Remote(ctx, toTally{at, 2 * many}), c.Remote(ctx, toTally{at, 2 * many}), adds.Remote(ctx, toTally{at, 2 * many})}
		all, err := sdk.GetAll(ctx, refs)
		say("callers", all, err)
	case "calls": // for the benchmark
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		at := tallies.With(there).New(ctx, 0)
		if err := at.Ready(ctx); err != nil {
			return err
		}
		await("ready")
		told(ctx, "calls", pending(ctx, at, n))
	}
	return nil
}
