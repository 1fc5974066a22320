// Command roam has two actors of one CPU each, which do not fit on one node of
// one. It calls both from a task and prints what they say; told by a line that
// the node of one of them is gone, it does so again, twice, and by another ends.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"github.com/wray-project/wray/sdk"
)

type counter struct{ n int }

// toCounter is what count is told.
type toCounter struct{ Of sdk.Handle[counter] }

var (
	counters = sdk.Actor("counter", func(_ context.Context, n int) (*counter, error) { return &counter{n}, nil }).
			With(sdk.CPU(1), sdk.MaxRestarts(3), sdk.MaxTaskRetries(-1))
	add = sdk.Method(counters, "add", func(c *counter, _ context.Context, n int) (int, error) {
		c.n += n
		return c.n, nil
	})
	count = sdk.Func("count", func(ctx context.Context, to toCounter) (int, error) {
		n := 0
		for range 100 {
			v, err := add.Remote(ctx, to.Of, 1).Get(ctx)
			if err != nil {
				return 0, err
			}
			n = v
		}
		return n, nil
	}).With(sdk.CPU(0))
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	both := []sdk.Handle[counter]{counters.New(ctx, 1000), counters.New(ctx, 2000)}
	call := func(what string) error {
		for i, h := range both {
			v, err := count.Remote(ctx, toCounter{h}).Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(what, i, v)
		}
		return nil
	}
	in := bufio.NewReader(os.Stdin)
	for _, what := range []string{"before", "after", "again"} {
		if err := call(what); err != nil {
			return err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
	}
	return nil
}
