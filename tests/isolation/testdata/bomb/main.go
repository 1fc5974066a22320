// Command bomb is a task that submits two of itself, each of which does too, for
// ever: it lets go of what it submitted, and of what is refused it tries again.
package main

import (
	"context"

	"github.com/wray-project/wray/sdk"
)

var bomb sdk.Task1[int, int]

func init() {
	bomb = sdk.Func("bomb", func(ctx context.Context, n int) (int, error) {
		a, b := bomb.Remote(ctx, n+1), bomb.Remote(ctx, n+1)
		_, _ = a.Get(ctx)
		_, _ = b.Get(ctx)
		return n, nil
	})
}

func main() {
	sdk.Main(func(ctx context.Context) error {
		for ctx.Err() == nil {
			_, _ = bomb.Remote(ctx, 0).Get(ctx)
		}
		return nil
	})
}
