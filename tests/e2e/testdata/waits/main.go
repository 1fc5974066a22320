// Command waits has tasks and calls wait for each of the reasons that wray explain
// tells of, on two nodes of which the second has one licence. It says when they
// wait, and when the task that has the licence is lost.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type clerk struct{}

var (
	licence = sdk.Resource("licence", 1)

	// there is on the second node, as soon as that is known.
	there = sdk.Func("there", func(context.Context, int) (int, error) { return 0, nil })

	// hold has the licence until its node is gone.
	hold = sdk.Func("hold", func(context.Context, int) (int, error) {
		fmt.Println("has it")
		time.Sleep(time.Hour)
		return 0, nil
	})
	use   = sdk.Func("use", func(_ context.Context, n int) (int, error) { return n, nil })
	after = sdk.Func("after", func(_ context.Context, n int) (int, error) { return n, nil })
	ping  = sdk.Func("ping", func(context.Context, int) (int, error) { return 0, nil })

	clerks = sdk.Actor0("clerk", func(context.Context) (*clerk, error) { return &clerk{}, nil })
	rest   = sdk.Method(clerks, "rest", func(_ *clerk, _ context.Context, n int) (int, error) {
		fmt.Println("rests")
		time.Sleep(time.Hour)
		return n, nil
	})
)

func run(ctx context.Context) error {
	for { // until the other node is known; before that no node could hold it
		_, err := there.With(licence).Remote(ctx, 0).Get(ctx)
		var e *wray.Error
		if errors.As(err, &e) && e.Code == wray.CodeUnschedulable {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	held := hold.With(licence, sdk.Retries(0)).Remote(ctx, 0)
	var uses []sdk.Ref[int]
	for n := range 3 {
		uses = append(uses, use.With(licence, sdk.Memory(64<<20)).Remote(ctx, n))
	}
	last := after.RemoteArgs(ctx, uses[0])
	ann := clerks.With(sdk.Name("ann")).New(ctx)
	calls := []sdk.Ref[int]{rest.Remote(ctx, ann, 1), rest.Remote(ctx, ann, 2)}
	// What was submitted before it has been taken when it has ended.
	if _, err := ping.Remote(ctx, 0).Get(ctx); err != nil {
		return err
	}
	fmt.Println("they wait")
	_, err := held.Get(ctx)
	fmt.Println("it is lost:", err != nil)
	_, err = last.Get(ctx)
	fmt.Println(calls, err)
	return err
}

func main() { sdk.Main(run) }
