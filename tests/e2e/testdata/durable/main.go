// Command durable counts in a durable actor, and prints each number when the
// actor has answered, until it is killed or its argument is reached.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/wray-project/wray/sdk"
)

type counter struct {
	n    int
	seen map[int]bool // every number once
}

var (
	counters = sdk.Actor0("counter", func(context.Context) (*counter, error) { return &counter{seen: map[int]bool{}}, nil }).
			With(sdk.Durable(), sdk.Name("the counter"))
	add = sdk.Method0(counters, "add", func(c *counter, _ context.Context) (int, error) {
		c.n++
		if c.seen[c.n] {
			return 0, fmt.Errorf("%d was counted before", c.n)
		}
		c.seen[c.n] = true
		return c.n, nil
	})
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	to, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	c := counters.New(ctx)
	for {
		n, err := add.Remote(ctx, c).Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println(n)
		if n >= to {
			return nil
		}
	}
}
