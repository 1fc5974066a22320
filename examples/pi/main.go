// Command pi estimates π by Monte Carlo: of points drawn in the unit square,
// π/4 lie within the unit circle. Its tasks are nested: the driver submits a
// few tasks, each of which submits many that draw, and adds up what they give.
// A task that waits for others gives its CPU to them.
//
//	wray run ./examples/pi
//	wray run ./examples/pi -- 100000000 256
//
// The arguments are how many points are drawn and by how many tasks. Each task
// draws from a generator seeded with its number, so the same arguments give
// the same estimate, however many sandboxes work on it.
package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"

	"github.com/wray-project/wray/sdk"
)

// A span is the part of the work that one adding task has: tasks first to
// first+tasks-1 of all, which are numbered from 0.
type span struct {
	First, Tasks int
	All          int // tasks in the whole job
	Samples      int // points in the whole job
}

// draw draws the points of one task and counts those within the circle.
var draw = sdk.Func2("draw", func(_ context.Context, seed uint64, samples int) (int, error) {
	return inside(seed, samples), nil
})

// add submits the tasks of a span and adds up their counts.
var add = sdk.Func("add", func(ctx context.Context, s span) (int, error) {
	counts := make([]sdk.Ref[int], s.Tasks)
	for i := range counts {
		n := s.First + i
		counts[i] = draw.Remote(ctx, uint64(n), share(s.Samples, s.All, n))
	}
	return sum(ctx, counts)
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	samples, tasks := 10_000_000, 64
	for i, n := range []*int{&samples, &tasks} {
		if len(os.Args) <= i+1 {
			break
		}
		var err error
		if *n, err = strconv.Atoi(os.Args[i+1]); err != nil || *n < 1 {
			return fmt.Errorf("argument %d: %q is not a number of at least 1; the arguments are SAMPLES and TASKS", i+1, os.Args[i+1])
		}
	}
	pi, err := estimate(ctx, samples, tasks)
	if err != nil {
		return err
	}
	fmt.Printf("pi    %.8f\nerror %.8f\n", pi, math.Abs(pi-math.Pi))
	return nil
}

// estimate spreads the drawing over about √tasks adding tasks, so that neither
// the driver nor any of those has many references to hold.
func estimate(ctx context.Context, samples, tasks int) (float64, error) {
	spans := int(math.Ceil(math.Sqrt(float64(tasks))))
	counts := make([]sdk.Ref[int], 0, spans)
	for i, first := 0, 0; i < spans; i++ {
		n := share(tasks, spans, i)
		counts = append(counts, add.Remote(ctx, span{First: first, Tasks: n, All: tasks, Samples: samples}))
		first += n
	}
	total, err := sum(ctx, counts)
	return 4 * float64(total) / float64(samples), err
}

func sum(ctx context.Context, counts []sdk.Ref[int]) (total int, err error) {
	for _, ref := range counts {
		n, err := ref.Get(ctx)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// share is how many of total things part i of parts gets. The shares differ by
// one at most and add up to total.
func share(total, parts, i int) int {
	n := total / parts
	if i < total%parts {
		n++
	}
	return n
}

// inside draws points in the unit square and counts those within the circle.
func inside(seed uint64, samples int) (n int) {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	for range samples {
		x, y := r.Float64(), r.Float64()
		if x*x+y*y < 1 {
			n++
		}
	}
	return n
}
