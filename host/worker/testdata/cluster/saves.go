package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// savesKilled calls an actor whose every call is on record while its nodes die.
// What was answered is never lost.
func savesKilled(ctx context.Context, options []sdk.Option, again bool) error {
	if again {
		options = append(options, sdk.MaxTaskRetries(-1))
	}
	at := savers.With(options...).With(sdk.CheckpointEvery(1)).New(ctx, 0)
	ok, failed, sum := 0, 0, 0
	for range 15 {
		for _, r := range pending(ctx, at, 5) {
			v, err := r.Get(ctx)
			var e *wray.Error
			switch {
			case err == nil && v <= sum:
				return fmt.Errorf("%d came after %d", v, sum)
			case err == nil:
				sum = v
				ok++
			case errors.As(err, &e) && e.Code == wray.CodeActorDied && e.Lost == 0 && !again:
				failed++
			default:
				return err
			}
		}
	}
	if sum < ok || !again && sum > ok+failed {
		return fmt.Errorf("%d calls were answered, %d failed, and the sum is %d", ok, failed, sum)
	}
	fmt.Println("all there")
	return nil
}

// savesHome has an actor come home from a node that dies, and stay.
func savesHome(ctx context.Context, await func(string), options []sdk.Option) error {
	at := savers.With(options...).With(sdk.CheckpointEvery(2), sdk.PreferNode("b")).New(ctx, 0)
	five := func() { told(ctx, "adds", pending(ctx, at, 5)) }
	five()
	await("kill")
	five()
	five()
	await("back")
	if err := at.Restart(); err != nil {
		return err
	}
	five()
	await("home")
	return nil
}

// savesFull has an actor that is too large to be on record at home.
func savesFull(ctx context.Context, await func(string), options []sdk.Option) error {
	at := savers.With(options...).With(sdk.CheckpointEvery(1)).New(ctx, 0)
	v, err := own.Remote(ctx, at, 6<<20).Get(ctx)
	say("own", v, err)
	v, err = own.Remote(ctx, at, 1).Get(ctx)
	say("own", v, err)
	await("kill")
	v, err = own.Remote(ctx, at, 1).Get(ctx)
	say("told", v, err)
	v, err = own.Remote(ctx, at, 1).Get(ctx)
	say("again", v, err)
	return nil
}

// own has the actor keep a value that it has made itself, and what lies in
// another that it maps.
var (
	own = sdk.Method(tallies, "own", func(t *tally, ctx context.Context, n int) (int, error) {
		r, err := sdk.Put(ctx, make([]byte, n))
		t.kept = append(t.kept, r)
		return len(t.kept), err
	})
	view = sdk.Method(tallies, "view", func(t *tally, ctx context.Context, x box) (int, error) {
		var err error
		t.seen, err = x.Ref.Get(ctx)
		if err == nil && len(t.seen) > 0 {
			t.seen[1]++ // a page of its own over the object's
		}
		return len(t.seen), err
	})
	seen = sdk.Method0(tallies, "seen", func(t *tally, _ context.Context) ([]int, error) {
		return []int{len(t.seen), int(t.seen[0]), int(t.seen[1]), int(t.seen[len(t.seen)-1])}, nil
	})
	saving = sdk.Method(tallies, "saving", func(t *tally, ctx context.Context, n int) (int, error) {
		t.sum += n
		return t.sum, sdk.Checkpoint(ctx)
	})
)

// saves has an actor with checkpoints live on other nodes, which die: next has
// its attempt end.
func saves(ctx context.Context, await func(string), args []string) error {
	options := []sdk.Option{sdk.MaxRestarts(-1), sdk.Resource("moves", 0.1)}
	next := func(all ...sdk.Handle[tally]) error {
		await("kill")
		for _, at := range all {
			if args[0] == "alone" {
				if err := at.Restart(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	switch args[0] {
	case "kills":
		return savesKilled(ctx, options, args[1] == "again")
	case "home":
		return savesHome(ctx, await, options)
	case "full":
		return savesFull(ctx, await, options)
	}
	sum := func(what string, at sdk.Handle[tally], n int) {
		v, err := add.Remote(ctx, at, n).Get(ctx)
		say(what, v, err)
	}

	at := savers.With(options...).With(sdk.CheckpointEvery(4)).New(ctx, 0)
	b := make([]byte, 300_000)
	b[0], b[1], b[len(b)-1] = 3, 4, 5
	data, err := sdk.Put(ctx, b)
	if err != nil {
		return err
	}
	if _, err := own.Remote(ctx, at, 100_000).Get(ctx); err != nil {
		return err
	}
	if _, err := keep.Remote(ctx, at, box{"kept", data}).Get(ctx); err != nil {
		return err
	}
	if _, err := view.Remote(ctx, at, box{"seen", data}).Get(ctx); err != nil {
		return err
	}
	sum("saved", at, 10)
	sum("after", at, 20)
	sum("after", at, 30)
	if err := next(at); err != nil {
		return err
	}
	sum("told", at, 1) // what is lost, and not run
	sum("again", at, 2)
	v, err := weigh.Remote(ctx, at).Get(ctx)
	say("weigh", v, err)
	list, err := seen.Remote(ctx, at).Get(ctx)
	say("seen", list, err)

	// A call dies in the sandbox, its node lives.
	sum("before", at, 3) // a checkpoint, the 4th call
	sum("lost", at, 4)
	_, err = dies.Remote(ctx, at).Get(ctx)
	say("dies", nil, err)
	sum("again", at, 5)

	// Checkpoints that are asked for.
	asked := savers.With(options...).New(ctx, 100)
	sum("asked", asked, 1)
	say("checkpoint", nil, asked.Checkpoint(ctx))
	sum("asked", asked, 2)
	v, err = saving.Remote(ctx, asked, 3).Get(ctx)
	say("saving", v, err)
	if err := next(at, asked); err != nil {
		return err
	}
	sum("asked", asked, 4)
	sum("told", at, 6) // of the other: who knows what it has lost is told, too

	// Several calls at once, every one on record.
	wide := savers.With(options...).With(sdk.CheckpointEvery(1), sdk.MaxConcurrency(4)).New(ctx, 0)
	refs := pending(ctx, wide, 20)
	all, err := sdk.GetAll(ctx, refs)
	say("wide", len(all), err)
	if err := next(at, asked, wide); err != nil {
		return err
	}
	sum("wide", wide, 1)

	// By time.
	timed := savers.With(options...).With(sdk.CheckpointInterval(time.Millisecond)).New(ctx, 0)
	sum("timed", timed, 1)
	return nil
}
