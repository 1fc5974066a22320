// Command durable counts in a durable actor until its first argument is reached.
// When the actor has answered it writes the number to the file that the second
// one names, and prints it: what is printed may be lost on its way when the node
// is killed, what is written is not.
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
	log := os.Stdout
	if len(os.Args) > 2 {
		if log, err = os.OpenFile(os.Args[2], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return err
		}
		defer log.Close()
	}
	c := counters.New(ctx)
	for {
		n, err := add.Remote(ctx, c).Get(ctx)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(log, n); err != nil {
			return err
		}
		if log != os.Stdout {
			fmt.Println(n)
		}
		if n >= to {
			return nil
		}
	}
}
