// Command faults has a task, or a driver, that fails as its argument says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/wray-project/wray/sdk"
)

var fault = sdk.Func("fault", func(_ context.Context, how string) (int, error) {
	switch how {
	case "panic", "retry":
		outer(how)
	case "exit":
		os.Exit(9)
	default:
		crash(how)
	}
	return 0, errors.New("no luck")
})

// relay fails for the failure of another.
var relay = sdk.Func("relay", func(_ context.Context, n int) (int, error) { return n, nil })

//go:noinline
func outer(how string) { inner(how) }

//go:noinline
func inner(how string) { panic("broken on purpose: " + how) }

// crash ends the program by Go's runtime.
func crash(how string) {
	switch how {
	case "goroutine":
		go outer(how)
		select {}
	case "unlock":
		var mu sync.Mutex
		mu.Unlock()
	case "memory":
		for all := [][]byte(nil); ; {
			all = append(all, make([]byte, 16<<20))
		}
	case "deadlock":
		for range 20 {
			go func() { select {} }()
		}
		select {}
	case "like":
		fmt.Fprint(os.Stderr, "panic: it only looks so\n\ngoroutine 1 [running]:\nmain.crash()\n\tmain.go:1\n")
		os.Exit(3)
	}
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	f, how := fault, os.Args[1]
	switch how {
	case "driver":
		outer(how)
	case "spin":
		for {
		}
	case "here":
		crash(os.Args[2])
	case "retry":
		f = f.With(sdk.Retries(2), sdk.RetryOn())
	case "depend":
		_, err := relay.RemoteArgs(ctx, fault.Remote(ctx, "panic")).Get(ctx)
		return err
	}
	_, err := f.Remote(ctx, how).Get(ctx)
	return err
}
