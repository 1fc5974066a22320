// Command spill keeps more than the object store of its test holds, as many
// blocks as its argument says, and reads all of it: in a task and in the driver,
// which keeps its references.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/wray-project/wray/sdk"
)

const length = 1 << 19 // float64s: 4 MiB

// block returns numbers that no compression shrinks.
func block(seed uint64) []float64 {
	b := make([]float64, length)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = float64(x >> 11)
	}
	return b
}

func sum(b []float64) (s float64) {
	for _, x := range b {
		s += x
	}
	return s
}

var makeBlock = sdk.Func("make", func(_ context.Context, seed uint64) ([]float64, error) { return block(seed), nil })

var sumBlock = sdk.Func("sum", func(_ context.Context, b []float64) (float64, error) { return sum(b), nil })

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	blocks, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	var refs []sdk.Ref[[]float64]
	for i := range blocks {
		refs = append(refs, makeBlock.Remote(ctx, uint64(i)))
	}
	for i, r := range refs { // which are kept, though their values do not fit
		want := sum(block(uint64(i)))
		got, err := sumBlock.RemoteArgs(ctx, r).Get(ctx)
		if err != nil {
			return err
		}
		b, err := r.Get(ctx)
		if err != nil {
			return err
		}
		if got != want || sum(b) != want {
			return fmt.Errorf("block %d: the task summed %v, the driver %v: expected %v", i, got, sum(b), want)
		}
	}
	// A second time, by the same references.
	for i, r := range refs {
		b, err := r.Get(ctx)
		if err != nil {
			return err
		}
		if sum(b) != sum(block(uint64(i))) {
			return fmt.Errorf("block %d is different when it is got again", i)
		}
	}
	fmt.Println(blocks, "blocks are as they were made")
	return nil
}
