// Command sleepers starts as many actors as its argument says, calls each ten
// times, says so, and then asks each what it counts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type counter struct{ n int }

var (
	counters = sdk.Actor("counter", func(_ context.Context, n int) (*counter, error) { return &counter{n}, nil })
	add      = sdk.Method(counters, "add", func(c *counter, _ context.Context, by int) (int, error) {
		c.n += by
		return c.n, nil
	})
)

func main() { sdk.Main(run) }

// never ends when it is canceled.
var never = sdk.Func0("never", func(ctx context.Context) (int, error) {
	<-ctx.Done()
	return 0, ctx.Err()
})

// wait waits for a value that is not there.
var wait = sdk.Method(counters, "wait", func(_ *counter, ctx context.Context, r []sdk.Ref[int]) (int, error) {
	return r[0].Get(ctx)
})

// blocked has n actors wait in a call, and counts those for which there was no
// room: refused of them are awaited.
func blocked(ctx context.Context, n, refused int) error {
	held := never.With(sdk.CPU(0)).Remote(ctx)
	refs := make([]sdk.Ref[int], n)
	for i := range refs {
		refs[i] = wait.Remote(ctx, counters.New(ctx, i), []sdk.Ref[int]{held})
	}
	// Those that are to be refused are, however long it takes, and no others.
	for _, more := range []struct {
		n int
		d time.Duration
	}{{refused, time.Minute}, {refused + 1, 500 * time.Millisecond}} {
		if _, _, err := sdk.Wait(ctx, refs, more.n, more.d); err != nil {
			return err
		}
	}
	if err := held.Cancel(); err != nil {
		return err
	}
	limited, canceled := 0, 0
	for _, r := range refs {
		switch _, err := r.Get(ctx); {
		case errors.Is(err, wray.ErrLimitExceeded):
			limited++
		case errors.Is(err, wray.ErrCanceled):
			canceled++
		default:
			return fmt.Errorf("a call that waited ended with %v", err)
		}
	}
	fmt.Printf("%d refused, %d waited\n", limited, canceled)
	fmt.Println("asked")
	return nil
}

func run(ctx context.Context) error {
	if len(os.Args) > 3 {
		n, _ := strconv.Atoi(os.Args[2])
		refused, _ := strconv.Atoi(os.Args[3])
		return blocked(ctx, n, refused)
	}
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	actors := make([]sdk.Handle[counter], n)
	for i := range actors {
		actors[i] = counters.New(ctx, i)
		for range 9 {
			add.Remote(ctx, actors[i], 1)
		}
		if _, err := add.Remote(ctx, actors[i], 1).Get(ctx); err != nil {
			return err
		}
	}
	fmt.Println("called")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // until the test has looked
		return err
	}
	for i, a := range actors {
		v, err := add.Remote(ctx, a, 0).Get(ctx)
		if err != nil {
			return err
		}
		if v != i+10 {
			return fmt.Errorf("actor %d counts %d", i, v)
		}
	}
	fmt.Println("asked")
	return nil
}
