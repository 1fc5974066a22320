// Leak has values held that it does not know of any more, and actors in every
// state, until its input ends. With the argument c, a task of the module forgetful
// holds one as well.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/wray-project/wray/sdk"
)

type hoard struct{ kept []sdk.Ref[[]byte] }

var (
	hoarder = sdk.Actor0("hoarder", func(context.Context) (*hoard, error) { return &hoard{}, nil })
	keep    = sdk.Method(hoarder, "keep", func(h *hoard, _ context.Context, r sdk.Ref[[]byte]) (int, error) {
		h.kept = append(h.kept, r)
		return len(h.kept), nil
	})
	wait = sdk.Method(hoarder, "wait", func(_ *hoard, ctx context.Context, r sdk.Ref[int]) (int, error) { return r.Get(ctx) })

	never = sdk.Func0("never", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	forget = sdk.Import[sdk.Ref[[]byte], struct{}](sdk.Module("forgetful"), "forget")
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	licence := hoarder.With(sdk.Resource("licence", 1.5))
	sleeper := licence.With(sdk.Name("sleeper"), sdk.Idle(time.Millisecond)).New(ctx)
	if err := leak(ctx, sleeper, 1<<20); err != nil {
		return err
	}
	if len(os.Args) > 1 {
		r, err := sdk.Put(ctx, make([]byte, 2<<20))
		if err != nil {
			return err
		}
		if _, err := forget.Remote(ctx, r).Get(ctx); err != nil {
			return err
		}
	}
	late := licence.New(ctx) // there are 2
	stuck := hoarder.New(ctx)
	one := never.With(sdk.CPU(0)).Remote(ctx)
	call := wait.Remote(ctx, stuck, one)
	fmt.Println("holding")
	go func() {
		for ctx.Err() == nil {
			runtime.GC() // drops what was put
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(sleeper)
	runtime.KeepAlive(late)
	runtime.KeepAlive(call)
	return err
}

// leak gives the actor a value of n bytes, of which nobody else knows.
func leak(ctx context.Context, h sdk.Handle[hoard], n int) error {
	r, err := sdk.Put(ctx, make([]byte, n))
	if err != nil {
		return err
	}
	_, err = keep.Remote(ctx, h, r).Get(ctx)
	return err
}
