// Command core is the driver of "wray bench core": Ray's microbenchmarks that
// apply on one node, under Ray's names, with Ray's loops and counting
// (python/ray/_private/ray_perf.py in github.com/ray-project/ray), run from a
// driver inside a sandbox. It prints one JSON object a line.
//
// Arguments: the rounds of each case, the seconds of a round, and optionally a
// part of the names of the cases to run, and then anything where it is to be those
// of a native client alone. For the cases of tests/bench/engine it is also a guest
// of others: with the argument first it runs one task, with touch it puts a GiB
// once, with churn and a number it puts that many bytes and forgets them. Built
// for the machine itself and given the argument client, a node's address and the
// module, it is the native client of "wray bench client".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray/sdk"
)

var (
	small = sdk.Func0("small_value", func(context.Context) ([]byte, error) { return []byte("ok"), nil })

	// putMany puts n small values and drops them.
	putMany = sdk.Func("put_many", func(ctx context.Context, n int) (int, error) {
		for range n {
			if _, err := sdk.Put(ctx, 0); err != nil {
				return 0, err
			}
		}
		return n, nil
	})

	// putArrays puts n arrays of 80 MiB, each made anew, and drops them.
	putArrays = sdk.Func("put_arrays", func(ctx context.Context, n int) (int, error) {
		for range n {
			if _, err := sdk.Put(ctx, make([]byte, arrayBytes)); err != nil {
				return 0, err
			}
			runtime.GC() // as in the case of one client
		}
		return n, nil
	})

	// dirty writes to n pages of memory that the snapshot holds.
	dirty = sdk.Func("dirty_pages", func(_ context.Context, n int) (int, error) {
		for i := range n {
			arena[i*4096]++
		}
		return n, nil
	})
)

// arena lies in the snapshot's pages, so that writing to it costs a copy of
// each page and not the growth of memory.
var arena = func() []byte {
	b := make([]byte, 257*4096)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}()

// result is a line of output.
type result struct {
	Case   string  `json:"case"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

type bench struct {
	rounds int
	round  time.Duration
	only   string
	native bool // those that bench client has alone
}

// time runs f, which does n things, over and over, and prints how many things
// it does a second.
func (b *bench) time(name, unit string, n float64, f func() error) error {
	if !strings.Contains(name, b.only) {
		return nil
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for warm := time.Now(); time.Since(warm) < b.round/2; {
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	rates := make([]float64, b.rounds)
	for i := range rates {
		begin, count := time.Now(), 0
		for time.Since(begin) < b.round {
			if err := f(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			count++
		}
		rates[i] = float64(count) * n / time.Since(begin).Seconds()
	}
	return emit(name, unit, rates)
}

func emit(name, unit string, xs []float64) error {
	slices.Sort(xs)
	return json.NewEncoder(os.Stdout).Encode(result{name, unit, xs[len(xs)/2], xs[0], xs[len(xs)-1]})
}

func main() {
	if len(os.Args) > 3 && os.Args[1] == "client" {
		client(os.Args[2], os.Args[3])
		return
	}
	sdk.Main(run)
}

func run(ctx context.Context) error {
	b := &bench{rounds: 5, round: time.Second}
	if len(os.Args) == 2 && os.Args[1] == "first" {
		_, err := small.Remote(ctx).Get(ctx)
		fmt.Println("done")
		return err
	}
	if len(os.Args) == 2 && os.Args[1] == "touch" {
		return touch(ctx)
	}
	if len(os.Args) == 3 && os.Args[1] == "churn" {
		n, err := strconv.Atoi(os.Args[2])
		if err != nil {
			return err
		}
		return churn(ctx, n)
	}
	if len(os.Args) > 1 {
		b.rounds, _ = strconv.Atoi(os.Args[1])
	}
	if len(os.Args) > 2 {
		s, _ := strconv.ParseFloat(os.Args[2], 64)
		b.round = time.Duration(s * float64(time.Second))
	}
	if len(os.Args) > 3 {
		b.only = os.Args[3]
	}
	b.native = len(os.Args) > 4
	cases := []func(context.Context, *bench) error{objects, tasks, actors, groups, large, fresh, durable}
	if b.native {
		cases = cases[:4]
	}
	for _, f := range cases {
		if err := f(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// hundred makes one iteration of a hundred, where one alone is shorter than
// the clock's step.
func hundred(f func() error) func() error {
	return func() error {
		for range 100 {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

func objects(ctx context.Context, b *bench) error {
	value, err := sdk.Put(ctx, 0)
	if err != nil {
		return err
	}
	if err := b.time("single client get calls (Plasma Store)", "get/s", 100, hundred(func() error {
		_, err := value.Get(ctx)
		return err
	})); err != nil {
		return err
	}
	if err := b.time("single client put calls (Plasma Store)", "put/s", 100, hundred(func() error {
		_, err := sdk.Put(ctx, 0)
		return err
	})); err != nil {
		return err
	}
	if err := b.time("multi client put calls (Plasma Store)", "put/s", 1000, func() error {
		refs := make([]sdk.Ref[int], 10)
		for i := range refs {
			refs[i] = putMany.Remote(ctx, 100)
		}
		_, err := sdk.GetAll(ctx, refs)
		return err
	}); err != nil {
		return err
	}
	refs := make([]sdk.Ref[int], 10_000)
	for i := range refs {
		if refs[i], err = sdk.Put(ctx, i); err != nil {
			return err
		}
	}
	holder, err := sdk.Put(ctx, refs)
	if err != nil {
		return err
	}
	return b.time("single client get object containing 10k refs", "get/s", 1, func() error {
		got, err := holder.Get(ctx)
		if err == nil && len(got) != len(refs) {
			err = fmt.Errorf("%d refs", len(got))
		}
		return err
	})
}

func tasks(ctx context.Context, b *bench) error {
	if err := b.time("single client tasks sync", "task/s", 10, func() error {
		for range 10 {
			if _, err := small.Remote(ctx).Get(ctx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	submit := func() []sdk.Ref[[]byte] {
		refs := make([]sdk.Ref[[]byte], 1000)
		for i := range refs {
			refs[i] = small.Remote(ctx)
		}
		return refs
	}
	if err := b.time("single client tasks async", "task/s", 1000, func() error {
		_, err := sdk.GetAll(ctx, submit())
		return err
	}); err != nil {
		return err
	}
	if err := b.time("single client tasks and get batch", "batch/s", 1, func() error {
		_, err := sdk.GetAll(ctx, submit())
		return err
	}); err != nil {
		return err
	}
	return b.time("single client wait 1k refs", "batch/s", 1, func() error {
		for pending := submit(); len(pending) > 0; {
			var err error
			if _, pending, err = sdk.Wait(ctx, pending, 1, -1); err != nil {
				return err
			}
		}
		return nil
	})
}

// groups makes a hundred placement groups of one bundle, waits for all and removes
// them. Ray's bundles have a thousandth of a custom resource, these of a core.
func groups(ctx context.Context, b *bench) error {
	const n = 100
	return b.time("placement group create/removal", "group/s", n, func() error {
		made := make([]sdk.Group, n)
		for i := range made {
			made[i] = sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 0.001}})
		}
		for _, pg := range made {
			if err := pg.Ready(ctx); err != nil {
				return err
			}
		}
		for _, pg := range made {
			if err := pg.Remove(); err != nil {
				return err
			}
		}
		return nil
	})
}

// churn puts n bytes and forgets them, a MiB at a time.
func churn(ctx context.Context, n int) error {
	block := make([]byte, 1<<20)
	for i := range n / len(block) {
		block[0] = byte(i)
		if _, err := sdk.Put(ctx, block); err != nil {
			return fmt.Errorf("put %d: %w", i, err)
		}
	}
	return nil
}

const (
	gib        = 1 << 30
	arrayBytes = 80 << 20 // of Ray's case with several clients
)

// touch puts a GiB into a store that has held nothing, when a line comes on
// standard input, and prints the GiB/s of that.
func touch(ctx context.Context) error {
	data := gigabyte()
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	begin := time.Now()
	ref, err := sdk.Put(ctx, data)
	took := time.Since(begin)
	runtime.KeepAlive(ref)
	fmt.Println(1 / took.Seconds())
	return err
}

// gigabyte returns a GiB of which each page was written.
func gigabyte() []byte {
	data := make([]byte, gib)
	for i := 0; i < len(data); i += 4096 {
		data[i] = byte(i >> 12)
	}
	return data
}

func large(ctx context.Context, b *bench) error {
	if strings.Contains(putBuffer, b.only) {
		if err := buffers(ctx, b); err != nil {
			return err
		}
	}
	if err := b.time("multi client put gigabytes", "GiB/s", 100*arrayBytes/float64(gib), func() error {
		refs := make([]sdk.Ref[int], 10)
		for i := range refs {
			refs[i] = putArrays.Remote(ctx, 10)
		}
		_, err := sdk.GetAll(ctx, refs)
		return err
	}); err != nil {
		return err
	}
	if !strings.Contains("single client put gigabytes", b.only) && !strings.Contains("get 1 GiB object", b.only) {
		return nil
	}
	data := gigabyte()
	if err := b.time("single client put gigabytes", "GiB/s", 1, func() error {
		_, err := sdk.Put(ctx, data)
		// Ray's client counts references and drops this one here. A driver in Go
		// drops it when the collector has looked: the next put finds the memory
		// of this one, and the time of the collector counts.
		runtime.GC()
		return err
	}); err != nil {
		return err
	}
	ref, err := sdk.Put(ctx, data)
	if err != nil {
		return err
	}
	data = nil
	// A guest's clock goes in steps that are longer than a get. The mean of many
	// differences is right all the same, since they begin anywhere in a step.
	times := make([]float64, b.rounds)
	for i := range times {
		var sum time.Duration
		n := 0
		for begin := time.Now(); n == 0 || time.Since(begin) < b.round; n++ {
			d, err := getLarge(ctx, ref)
			if err != nil {
				return err
			}
			sum += d
		}
		times[i] = float64(sum.Microseconds()) / float64(n)
	}
	return emit("get 1 GiB object", "µs", times)
}

const (
	putBuffer = "put 1 GiB by buffer, sealing alone"
	putCopy   = "put 1 GiB by copy, beside it"
)

// buffers puts a GiB that was made in place, and in turn one that was not. To
// fill them is not counted.
func buffers(ctx context.Context, b *bench) error {
	by := [2][]float64{}
	for range b.rounds {
		for i, make := range []func() ([]byte, error){
			func() ([]byte, error) { return sdk.Make[byte](ctx, gib) },
			func() ([]byte, error) { return make([]byte, gib), nil },
		} {
			data, err := make()
			if err != nil {
				return err
			}
			for at := 0; at < gib; at += 4096 {
				data[at] = 1
			}
			begin := time.Now()
			if _, err := sdk.Put(ctx, data); err != nil {
				return err
			}
			by[i] = append(by[i], float64(time.Since(begin).Microseconds()))
			data = nil
			runtime.GC() // a guest has 4 GiB, and its windows are part of that
			runtime.GC()
		}
	}
	if err := emit(putBuffer, "µs", by[0]); err != nil {
		return err
	}
	return emit(putCopy, "µs", by[1])
}

// getLarge gets an object of 1 GiB and returns the time that took.
func getLarge(ctx context.Context, ref sdk.Ref[[]byte]) (time.Duration, error) {
	runtime.GC() // a guest has 4 GiB: the last window goes first
	// A new reference to the object is needed for each get, since a Ref keeps
	// what it has got.
	holder, err := sdk.Put(ctx, []sdk.Ref[[]byte]{ref})
	if err != nil {
		return 0, err
	}
	refs, err := holder.Get(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	got, err := refs[0].Get(ctx)
	if err == nil && (len(got) != gib || got[4096] != 1) {
		err = errors.New("wrong bytes")
	}
	return time.Since(begin), err
}

// fresh compares a task in a fresh sandbox with one in a warm sandbox, at
// several numbers of dirtied pages, in turn.
func fresh(ctx context.Context, b *bench) error {
	for _, pages := range []int{1, 4, 16, 64, 256} {
		name := fmt.Sprintf("fresh sandbox, %d pages dirtied, over warm", pages)
		if !strings.Contains(name, b.only) {
			continue
		}
		one := func(t sdk.Task1[int, int]) (float64, error) {
			const n = 1000 // a guest sees whole milliseconds
			begin := time.Now()
			for range n {
				if _, err := t.Remote(ctx, pages).Get(ctx); err != nil {
					return 0, err
				}
			}
			return float64(time.Since(begin).Microseconds()) / n, nil
		}
		cold := dirty.With(sdk.Fresh())
		var over []float64
		for range b.rounds + 1 {
			w, err := one(dirty)
			if err != nil {
				return err
			}
			c, err := one(cold)
			if err != nil {
				return err
			}
			over = append(over, c-w)
		}
		if err := emit(name, "µs", over[1:]); err != nil {
			return err
		}
	}
	return nil
}
