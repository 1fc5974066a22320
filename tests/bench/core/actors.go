package main

import (
	"context"
	"os"
	"strconv"

	"github.com/wray-project/wray/sdk"
)

// server is Ray's Actor of the microbenchmarks.
type server struct{}

// caller is Ray's Client: an actor that calls servers.
type caller struct{ servers []sdk.Handle[server] }

var (
	servers    = sdk.Actor0("server", func(context.Context) (*server, error) { return &server{}, nil })
	smallValue = sdk.Method0(servers, "small_value", func(*server, context.Context) ([]byte, error) { return []byte("ok"), nil })
	smallArg   = sdk.Method(servers, "small_value_arg", func(_ *server, _ context.Context, _ int) ([]byte, error) { return []byte("ok"), nil })

	clients = sdk.Actor("client", func(_ context.Context, servers []sdk.Handle[server]) (*caller, error) { return &caller{servers}, nil })
	batch   = sdk.Method(clients, "small_value_batch", (*caller).batch)
	argMany = sdk.Method(clients, "small_value_batch_arg", (*caller).batchArg)
	tasking = sdk.Method(clients, "task_batch", (*caller).tasks)

	// work calls each of the actors in turn, n times in all.
	work = sdk.Func2("work", func(ctx context.Context, actors []sdk.Handle[server], n int) (int, error) {
		refs := make([]sdk.Ref[[]byte], n)
		for i := range refs {
			refs[i] = smallValue.Remote(ctx, actors[i%len(actors)])
		}
		_, err := sdk.GetAll(ctx, refs)
		return n, err
	})
)

func (c *caller) batch(ctx context.Context, n int) (int, error) {
	refs := make([]sdk.Ref[[]byte], 0, n*len(c.servers))
	for _, s := range c.servers {
		for range n {
			refs = append(refs, smallValue.Remote(ctx, s))
		}
	}
	_, err := sdk.GetAll(ctx, refs)
	return len(refs), err
}

func (c *caller) batchArg(ctx context.Context, n int) (int, error) {
	x, err := sdk.Put(ctx, 0)
	if err != nil {
		return 0, err
	}
	refs := make([]sdk.Ref[[]byte], 0, n*len(c.servers))
	for _, s := range c.servers {
		for range n {
			refs = append(refs, smallArg.RemoteArgs(ctx, s, x))
		}
	}
	_, err = sdk.GetAll(ctx, refs)
	return len(refs), err
}

func (c *caller) tasks(ctx context.Context, n int) (int, error) {
	refs := make([]sdk.Ref[[]byte], n)
	for i := range refs {
		refs[i] = small.Remote(ctx)
	}
	_, err := sdk.GetAll(ctx, refs)
	return n, err
}

// actorsVar is the environment variable that has actorsN, as a guest does not
// see how many processors there are.
const actorsVar = "WRAY_BENCH_ACTORS"

// actorsN is Ray's n_cpu, half the machine's processors.
var actorsN = func() int {
	n, _ := strconv.Atoi(os.Getenv(actorsVar))
	return max(n, 1)
}()

const (
	// clientsN is Ray's m.
	clientsN = 4
	// asyncN is how many calls an asyncio actor of Ray has under way at most.
	asyncN = 1000
)

// actors measures the cases of actors.
func actors(ctx context.Context, b *bench) error {
	all := func(refs []sdk.Ref[int]) error {
		_, err := sdk.GetAll(ctx, refs)
		return err
	}
	none := make([]sdk.Handle[caller], clientsN)
	for i := range none {
		none[i] = clients.New(ctx, nil)
	}
	const multi = 10_000
	if err := b.time("multi client tasks async", "task/s", clientsN*multi, func() error {
		refs := make([]sdk.Ref[int], clientsN)
		for i := range refs {
			refs[i] = tasking.Remote(ctx, none[i], multi)
		}
		return all(refs)
	}); err != nil {
		return err
	}
	one := servers.New(ctx)
	if err := b.time("1:1 actor calls sync", "call/s", 10, func() error {
		for range 10 {
			if _, err := smallValue.Remote(ctx, one).Get(ctx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := b.time("1:1 actor calls async", "call/s", 1000, func() error {
		refs := make([]sdk.Ref[[]byte], 1000)
		for i := range refs {
			refs[i] = smallValue.Remote(ctx, one)
		}
		_, err := sdk.GetAll(ctx, refs)
		return err
	}); err != nil {
		return err
	}
	calls := func(call func() sdk.Ref[[]byte]) func() error {
		return func() error {
			refs := make([]sdk.Ref[[]byte], 1000)
			for i := range refs {
				refs[i] = call()
			}
			_, err := sdk.GetAll(ctx, refs)
			return err
		}
	}
	// Ray has two kinds of actors with several calls at once, by threads and by
	// asyncio, the latter with 1,000 calls unless one says otherwise. Here they
	// are the same.
	threaded := servers.With(sdk.MaxConcurrency(16)).New(ctx)
	if err := b.time("1:1 actor calls concurrent", "call/s", 1000,
		calls(func() sdk.Ref[[]byte] { return smallValue.Remote(ctx, threaded) })); err != nil {
		return err
	}
	asyncs := servers.With(sdk.MaxConcurrency(asyncN))
	async := asyncs.New(ctx)
	if err := b.time("1:1 async-actor calls sync", "call/s", 10, func() error {
		for range 10 {
			if _, err := smallValue.Remote(ctx, async).Get(ctx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := b.time("1:1 async-actor calls async", "call/s", 1000,
		calls(func() sdk.Ref[[]byte] { return smallValue.Remote(ctx, async) })); err != nil {
		return err
	}
	if err := b.time("1:1 async-actor calls with args async", "call/s", 1000,
		calls(func() sdk.Ref[[]byte] { return smallArg.Remote(ctx, async, 1) })); err != nil {
		return err
	}
	many, manyAsync := make([]sdk.Handle[server], actorsN), make([]sdk.Handle[server], actorsN)
	for i := range many {
		many[i], manyAsync[i] = servers.New(ctx), asyncs.New(ctx)
	}
	const n = 5000
	asyncCaller := clients.New(ctx, manyAsync)
	if err := b.time("1:n async-actor calls async", "call/s", float64(n*actorsN), func() error {
		_, err := batch.Remote(ctx, asyncCaller, n).Get(ctx)
		return err
	}); err != nil {
		return err
	}
	if err := b.time("n:n async-actor calls async", "call/s", clientsN*n, func() error {
		refs := make([]sdk.Ref[int], clientsN)
		for i := range refs {
			refs[i] = work.Remote(ctx, manyAsync, n)
		}
		return all(refs)
	}); err != nil {
		return err
	}
	allCaller := clients.New(ctx, many)
	if err := b.time("1:n actor calls async", "call/s", float64(n*actorsN), func() error {
		_, err := batch.Remote(ctx, allCaller, n).Get(ctx)
		return err
	}); err != nil {
		return err
	}
	if err := b.time("n:n actor calls async", "call/s", clientsN*n, func() error {
		refs := make([]sdk.Ref[int], clientsN)
		for i := range refs {
			refs[i] = work.Remote(ctx, many, n)
		}
		return all(refs)
	}); err != nil {
		return err
	}
	own := make([]sdk.Handle[caller], actorsN)
	for i := range own {
		own[i] = clients.New(ctx, []sdk.Handle[server]{many[i]})
	}
	return b.time("n:n actor calls with arg async", "call/s", float64(1000*actorsN), func() error {
		refs := make([]sdk.Ref[int], actorsN)
		for i := range refs {
			refs[i] = argMany.Remote(ctx, own[i], 1000)
		}
		return all(refs)
	})
}
