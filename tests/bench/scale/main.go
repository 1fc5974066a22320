// Command scale is the driver of "wray bench scale": how large things may get.
// The first cases are those of Ray's scalability envelope that apply on one
// node (release/benchmarks/single_node in github.com/ray-project/ray), with its
// loops; the others are about actors. It prints one JSON object a line.
//
// Arguments: the rounds of each case, the scale, which 1 is, or less for a test,
// and optionally a part of the names of the cases to run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// counter is the state of the actors.
type counter struct{ n int }

var (
	counters = sdk.Actor0("counter", func(context.Context) (*counter, error) { return &counter{}, nil })
	add      = sdk.Method(counters, "add", func(c *counter, _ context.Context, by int) (int, error) {
		c.n += by
		return c.n, nil
	})

	// busy holds its processor until it is canceled.
	busy = sdk.Func("busy", func(ctx context.Context, _ int) (int, error) {
		n := 0
		for ctx.Err() == nil {
			for range 100_000 {
				n++
			}
			runtime.Gosched()
		}
		return n, ctx.Err()
	})
	nothing = sdk.Func0("nothing", func(context.Context) (struct{}, error) { return struct{}{}, nil })
)

type result struct {
	Case   string  `json:"case"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

type bench struct {
	rounds int
	scale  float64
	only   string
}

// of returns n in the scale of this run.
func (b *bench) of(n int) int { return max(10, int(float64(n)*b.scale)) }

// memory asks the host for what the worker takes now.
func (b *bench) memory(name string) error {
	return json.NewEncoder(os.Stdout).Encode(result{Case: name, Unit: unitMemory})
}

// unitMemory marks a line whose figure the host fills in.
const unitMemory = "GiB of the worker's memory"

// each runs f, which measures once, for each round.
func (b *bench) each(name, unit string, f func() (float64, error)) error {
	if !strings.Contains(name, b.only) {
		return nil
	}
	xs := make([]float64, b.rounds)
	for i := range xs {
		var err error
		if xs[i], err = f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	slices.Sort(xs)
	return json.NewEncoder(os.Stdout).Encode(result{name, unit, xs[len(xs)/2], xs[0], xs[len(xs)-1]})
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	b := &bench{rounds: 1, scale: 1}
	if len(os.Args) > 1 {
		b.rounds, _ = strconv.Atoi(os.Args[1])
	}
	if len(os.Args) > 2 {
		b.scale, _ = strconv.ParseFloat(os.Args[2], 64)
	}
	if len(os.Args) > 3 {
		b.only = os.Args[3]
	}
	for _, f := range []func(context.Context, *bench) error{objects, arguments, returns, queue, checkpoint, wake, crowd, asleep} {
		if err := f(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// bulk is the state of the actor of checkpoint.
type bulk struct{ data []byte }

var (
	bulks = sdk.Actor("bulk", func(_ context.Context, n int) (*bulk, error) { return &bulk{make([]byte, n)}, nil })
	touch = sdk.Method(bulks, "touch", func(b *bulk, _ context.Context, each int) (struct{}, error) {
		for i := 0; i < len(b.data); i += each {
			b.data[i]++
		}
		return struct{}{}, nil
	})
)

// checkpoint takes checkpoints of an actor each time 5% of its pages were
// written to.
func checkpoint(ctx context.Context, b *bench) error {
	return b.each("checkpoint of an actor with 5% of 64 MiB dirty", "ms", func() (float64, error) {
		const page = 4096
		a := bulks.With(sdk.Memory(256<<20)).New(ctx, b.of(64<<20))
		var ms []float64
		for i := range 11 {
			each := 20 * page
			if i == 0 {
				each = page // all of it, once
			}
			if _, err := touch.Remote(ctx, a, each).Get(ctx); err != nil {
				return 0, err
			}
			begin := time.Now()
			if err := a.Checkpoint(ctx); err != nil {
				return 0, err
			}
			if i > 0 {
				ms = append(ms, float64(time.Since(begin).Microseconds())/1000)
			}
		}
		slices.Sort(ms)
		return ms[len(ms)/2], nil
	})
}

// wake calls actors that sleep.
func wake(ctx context.Context, b *bench) error {
	n := b.of(1000)
	var actors []sdk.Handle[counter]
	return b.each("call of an actor that sleeps", "µs", func() (float64, error) {
		for len(actors) < n {
			a := counters.With(sdk.Idle(time.Millisecond)).New(ctx)
			actors = append(actors, a)
			for range 10 {
				if _, err := add.Remote(ctx, a, 1).Get(ctx); err != nil {
					return 0, err
				}
			}
		}
		time.Sleep(300 * time.Millisecond) // they go to sleep
		begin := time.Now()
		for _, a := range actors {
			if _, err := add.Remote(ctx, a, 1).Get(ctx); err != nil {
				return 0, err
			}
		}
		return float64(time.Since(begin).Microseconds()) / float64(n), nil
	})
}

// crowd starts 40,000 actors, calls each, and calls each again in an order
// drawn by lot.
func crowd(ctx context.Context, b *bench) error {
	n := b.of(40_000)
	const name = "40,000 actors, started, called, and called again in random order"
	return b.each(name, "s", func() (float64, error) {
		begin := time.Now()
		actors := make([]sdk.Handle[counter], n)
		refs := make([]sdk.Ref[int], n)
		for i := range actors {
			actors[i] = counters.New(ctx)
			refs[i] = add.Remote(ctx, actors[i], i)
		}
		if _, err := sdk.GetAll(ctx, refs); err != nil {
			return 0, err
		}
		started := time.Since(begin)
		order := rand.Perm(n)
		for k, i := range order {
			refs[k] = add.Remote(ctx, actors[i], 1)
		}
		got, err := sdk.GetAll(ctx, refs)
		if err != nil {
			return 0, err
		}
		for k, i := range order {
			if got[k] != i+1 {
				return 0, fmt.Errorf("actor %d answers %d", i, got[k])
			}
		}
		took := time.Since(begin).Seconds()
		fmt.Fprintf(os.Stderr, "note: of 40,000 actors: started and called in %.1f s\n", started.Seconds())
		return took, b.memory("memory with 40,000 actors")
	})
}

// asleep starts a million actors and calls each once. Few of them have a
// sandbox at once; the others sleep.
func asleep(ctx context.Context, b *bench) error {
	n := b.of(1_000_000)
	return b.each("1,000,000 actors, started and called", "actor/s", func() (float64, error) {
		actors := make([]sdk.Handle[counter], 0, n)
		begin := time.Now()
		refs := make([]sdk.Ref[int], 0, 1000)
		for len(actors) < n {
			a := counters.New(ctx)
			actors = append(actors, a)
			if refs = append(refs, add.Remote(ctx, a, 1)); len(refs) == cap(refs) || len(actors) == n {
				if _, err := sdk.GetAll(ctx, refs); err != nil {
					return 0, err
				}
				refs = refs[:0]
			}
		}
		took := time.Since(begin).Seconds()
		if err := b.memory("memory with 1,000,000 actors, nearly all asleep"); err != nil {
			return 0, err
		}
		for range min(n, 1000) { // they are what they were
			v, err := add.Remote(ctx, actors[rand.IntN(n)], 0).Get(ctx)
			if err != nil || v != 1 {
				return 0, fmt.Errorf("an actor that slept answers %d, %v", v, err)
			}
		}
		return float64(n) / took, nil
	})
}

// objects gets many objects at once, each a list of 10,000 integers.
func objects(ctx context.Context, b *bench) error {
	n := b.of(10_000)
	return b.each("10,000 objects in one get", "s", func() (float64, error) {
		list := make([]int, 10_000)
		refs := make([]sdk.Ref[[]int], n)
		for i := range refs {
			list[0] = i
			var err error
			if refs[i], err = sdk.Put(ctx, list); err != nil {
				return 0, err
			}
		}
		begin := time.Now()
		got, err := sdk.GetAll(ctx, refs)
		if err != nil {
			return 0, err
		}
		took := time.Since(begin).Seconds()
		for i, l := range got {
			if len(l) != len(list) || l[0] != i {
				return 0, fmt.Errorf("object %d is another", i)
			}
		}
		return took, nil
	})
}

var (
	one = sdk.Func("one", func(_ context.Context, n int) (int, error) { return n, nil })
	sum = sdk.Func("sum", func(ctx context.Context, refs []sdk.Ref[int]) (int, error) {
		all, err := sdk.GetAll(ctx, refs)
		n := 0
		for _, i := range all {
			n += i
		}
		return n, err
	})
	many = sdk.Stream("many", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			if err := yield(i); err != nil {
				return err
			}
		}
		return nil
	})
)

// arguments passes results of tasks to a task, as references that it reads.
func arguments(ctx context.Context, b *bench) error {
	n := b.of(10_000)
	refs := make([]sdk.Ref[int], n)
	return b.each("10,000 arguments to one task", "s", func() (float64, error) {
		for i := range refs {
			refs[i] = one.Remote(ctx, i)
		}
		if _, err := sdk.GetAll(ctx, refs); err != nil {
			return 0, err
		}
		begin := time.Now()
		got, err := sum.Remote(ctx, refs).Get(ctx)
		if err == nil && got != n*(n-1)/2 {
			err = fmt.Errorf("the sum is %d", got)
		}
		return time.Since(begin).Seconds(), err
	})
}

// returns has one task give many results.
func returns(ctx context.Context, b *bench) error {
	n := b.of(3000)
	return b.each("3,000 returns of one task", "s", func() (float64, error) {
		begin, got := time.Now(), 0
		s := many.Remote(ctx, n)
		defer s.Close()
		for {
			v, err := s.Next(ctx)
			if errors.Is(err, wray.ErrEndOfStream) {
				break
			}
			if err != nil || v != got {
				return 0, fmt.Errorf("result %d is %d, %w", got, v, err)
			}
			got++
		}
		if got != n {
			return 0, fmt.Errorf("%d results", got)
		}
		return time.Since(begin).Seconds(), nil
	})
}

// queue has a million tasks wait behind tasks that hold every processor, lets
// them run, and gets their results.
func queue(ctx context.Context, b *bench) error {
	n := b.of(1_000_000)
	return b.each("1,000,000 tasks queued, then run", "s", func() (float64, error) {
		holders := make([]sdk.Ref[int], 256)
		for i := range holders {
			holders[i] = busy.Remote(ctx, i)
		}
		begin := time.Now()
		refs := make([]sdk.Ref[struct{}], n-len(holders)*min(1, n/1000))
		for i := range refs {
			refs[i] = nothing.Remote(ctx)
		}
		queued := time.Since(begin)
		if err := b.memory("memory with 1,000,000 tasks queued"); err != nil {
			return 0, err
		}
		for _, h := range holders {
			if err := h.Cancel(); err != nil {
				return 0, err
			}
		}
		if _, err := sdk.GetAll(ctx, refs); err != nil {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "note: of 1,000,000 tasks: queued in %.1f s\n", queued.Seconds())
		return time.Since(begin).Seconds(), nil
	})
}
