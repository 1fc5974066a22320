// Actor-rust is a Go program that makes an actor written in Rust. Build that
// first, as README.md says, and give it with --with.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// Rolling is what rolling.rs declares.
type Rolling struct{}

var (
	rolling = sdk.ImportActor[Rolling, int](sdk.Module("rolling"), "rolling")
	add     = sdk.ImportMethod[[]float64, float64](rolling, "add")
	length  = sdk.ImportMethod0[int](rolling, "len")
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	r := rolling.With(sdk.MaxRestarts(1), sdk.CheckpointEvery(1)).New(ctx, 20000)
	for _, n := range []float64{1, 2, 6} {
		mean, err := add.Remote(ctx, r, []float64{n}).Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("mean:", mean)
	}
	if err := r.Restart(); err != nil {
		return err
	}
	many := make([]float64, 50000)
	for i := range many {
		many[i] = float64(i)
	}
	mean, err := add.Remote(ctx, r, many).Get(ctx)
	if err != nil {
		return err
	}
	n, err := length.Remote(ctx, r).Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println("mean:", mean, "of", n)
	if err = rolling.New(ctx, 0).Ready(ctx); !errors.Is(err, wray.ErrUserError) {
		return fmt.Errorf("a mean of no numbers: %v", err)
	}
	fmt.Println("refused:", err)
	return nil
}
