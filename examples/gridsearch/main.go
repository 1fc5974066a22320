// Command gridsearch tries every configuration of a grid, each as a task, and
// prints the best. The grid is 5 × 5 values of x and y, the score to be made
// small is sqrt((x²+y²)/2), and a trial takes simulated seconds, which it
// spends holding a CPU as training a model would: with 2 CPUs the search takes
// half as long as the trials one after another.
//
//	wray run ./examples/gridsearch
//	wray run ./examples/gridsearch -- 1.5
//
// The argument is how many seconds a trial takes.
package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/wray-project/wray/sdk"
)

// A config is a point of the grid.
type config struct{ X, Y float64 }

// values are the values of each parameter.
var values = []float64{-1, -0.5, 0, 0.5, 1}

var trial = sdk.Func2("trial", func(ctx context.Context, c config, seconds float64) (float64, error) {
	// A task that sleeps keeps its CPU, unlike one that waits for another.
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	return score(c), ctx.Err()
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	seconds := 0.2
	if len(os.Args) > 1 {
		var err error
		if seconds, err = strconv.ParseFloat(os.Args[1], 64); err != nil || !(seconds >= 0 && seconds <= 3600) {
			return fmt.Errorf("%q is not a number of seconds from 0 to 3600", os.Args[1])
		}
	}
	begin := time.Now()
	best, lowest, err := search(ctx, seconds)
	if err != nil {
		return err
	}
	trials := len(values) * len(values)
	fmt.Printf("best: x=%g y=%g score=%g\n", best.X, best.Y, lowest)
	fmt.Printf("%d trials: %.2f s in parallel, %.2f s one after another\n",
		trials, time.Since(begin).Seconds(), float64(trials)*seconds)
	return nil
}

// search runs all trials and returns the configuration with the lowest score,
// the first of equals.
func search(ctx context.Context, seconds float64) (best config, lowest float64, err error) {
	var configs []config
	var scores []sdk.Ref[float64]
	for _, x := range values {
		for _, y := range values {
			c := config{x, y}
			configs = append(configs, c)
			scores = append(scores, trial.With(sdk.Name(fmt.Sprintf("trial x=%g y=%g", x, y))).Remote(ctx, c, seconds))
		}
	}
	lowest = math.Inf(1)
	for i, ref := range scores {
		s, err := ref.Get(ctx)
		if err != nil {
			return config{}, 0, err
		}
		if s < lowest {
			best, lowest = configs[i], s
		}
	}
	return best, lowest, nil
}

func score(c config) float64 { return math.Sqrt((c.X*c.X + c.Y*c.Y) / 2) }
