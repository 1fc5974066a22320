// Command timers has goroutines that methods left running wait for timers, in
// actors that rest, sleep and start again, and prints a line for each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type clock struct{ fired int }

var (
	clocks = sdk.Actor0("clock", func(context.Context) (*clock, error) { return &clock{}, nil })
	// after has a line printed after d, and again, n times in all.
	after = sdk.Method2(clocks, "after", func(c *clock, _ context.Context, d time.Duration, n int) (struct{}, error) {
		begun, wall := time.Now(), time.Now().Round(0)
		go func() {
			for range n {
				time.Sleep(d)
				c.fired++
				if late := time.Since(begun); late < time.Duration(c.fired)*d {
					fmt.Println("too early:", late)
				}
				if d := time.Now().Round(0).Sub(wall) - time.Since(begun); d > 100*time.Millisecond {
					fmt.Println("the clock stood still for", d)
				}
				fmt.Printf("fired %d\n", c.fired)
			}
		}()
		return struct{}{}, nil
	})
	breaks = sdk.Method(clocks, "breaks", func(_ *clock, _ context.Context, d time.Duration) (struct{}, error) {
		time.AfterFunc(d, func() {
			fmt.Println("fired 1")
			panic("no call sees this")
		})
		return struct{}{}, nil
	})
	fired = sdk.Method0(clocks, "fired", func(c *clock, _ context.Context) (int, error) { return c.fired, nil })
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	a := clocks.With(sdk.MaxRestarts(1), sdk.CheckpointEvery(1)).New(ctx)
	want := 1
	switch mode := os.Args[1]; mode {
	case "rests":
		want = 3
		if _, err := after.Remote(ctx, a, 5*time.Millisecond, want).Get(ctx); err != nil {
			return err
		}
	case "sleeps", "restarts":
		if _, err := after.Remote(ctx, a, 200*time.Millisecond, want).Get(ctx); err != nil {
			return err
		}
		if mode == "restarts" {
			if err := a.Restart(); err != nil {
				return err
			}
			break
		}
		for range 5 { // in whose favour the other sleeps
			if _, err := fired.Remote(ctx, clocks.New(ctx)).Get(ctx); err != nil {
				return err
			}
		}
		fmt.Println("sleeps")
	case "breaks":
		a = clocks.New(ctx)
		if _, err := breaks.Remote(ctx, a, 5*time.Millisecond).Get(ctx); err != nil {
			return err
		}
	}
	fmt.Println("called")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // until the test has seen the timers
		return err
	}
	n, err := fired.Remote(ctx, a).Get(ctx)
	if os.Args[1] == "breaks" {
		if !errors.Is(err, wray.ErrActorDied) {
			return fmt.Errorf("its goroutine panicked: %d, %v", n, err)
		}
	} else if err != nil || n != want {
		return fmt.Errorf("%d, %v: want %d", n, err, want)
	}
	fmt.Println("asked")
	return nil
}
