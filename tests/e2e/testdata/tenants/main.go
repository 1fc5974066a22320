// Command tenants does what its first argument says, of what a tenant has or is
// bounded in, and prints what becomes of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type counter struct{ n int }

var (
	counters = sdk.Actor0("counter", func(context.Context) (*counter, error) { return &counter{}, nil })
	kept     = counters.With(sdk.Durable(), sdk.Name("the counter"))
	add      = sdk.Method0(counters, "add", func(c *counter, _ context.Context) (int, error) { c.n++; return c.n, nil })

	same = sdk.Func("same", func(_ context.Context, n int) (int, error) { return n, nil })
	rest = sdk.Func("rest", func(ctx context.Context, n int) (int, error) {
		time.Sleep(time.Duration(n) * time.Millisecond)
		return n, nil
	})
	down sdk.Task1[int, int]
)

func init() {
	down = sdk.Func("down", func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		return down.Remote(ctx, n-1).Get(ctx)
	})
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	switch os.Args[1] {
	case "count": // in a durable actor
		c := kept.New(ctx)
		for range n {
			v, err := add.Remote(ctx, c).Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(v)
		}
	case "tasks": // at once
		var refs []sdk.Ref[int]
		for range n {
			refs = append(refs, rest.Remote(ctx, 50))
		}
		return first(ctx, refs)
	case "submit": // one after the other, with little to do
		var refs []sdk.Ref[int]
		for i := range n {
			refs = append(refs, same.Remote(ctx, i))
		}
		return first(ctx, refs)
	case "actors":
		var refs []sdk.Ref[int]
		var all []sdk.Handle[counter]
		for range n {
			c := counters.New(ctx)
			all = append(all, c)
			refs = append(refs, add.Remote(ctx, c))
		}
		err := first(ctx, refs)
		_ = all[0]
		return err
	case "objects":
		var refs []sdk.Ref[int]
		for i := range n {
			r, err := sdk.Put(ctx, i)
			if err != nil {
				fmt.Println(len(refs), "are there")
				return say(err)
			}
			refs = append(refs, r)
		}
		return first(ctx, refs)
	case "down":
		_, err := down.Remote(ctx, n).Get(ctx)
		return say(err)
	case "print": // bytes
		line := strings.Repeat("x", 1023) + "\n"
		for range n / len(line) {
			fmt.Print(line)
		}
	case "wait": // until it is stopped; where nothing could come it would be told so, and end
		for ctx.Err() == nil {
			time.Sleep(time.Second)
		}
	}
	return nil
}

// first prints how many are there, and the first error of the others.
func first(ctx context.Context, refs []sdk.Ref[int]) error {
	good := 0
	var bad error
	for _, r := range refs {
		if _, err := r.Get(ctx); err == nil {
			good++
		} else if bad == nil {
			bad = err
		}
	}
	fmt.Println(good, "are there")
	return say(bad)
}

func say(err error) error {
	var e *wray.Error
	if !errors.As(err, &e) {
		return err
	}
	for e.Limit == nil && e.Cause != nil {
		e = e.Cause
	}
	if e.Limit == nil {
		return err
	}
	fmt.Printf("%v: %s: %s is %d; %s\n", e.Code, e.Message, e.Limit.Name, e.Limit.Value, e.Hint)
	return nil
}
