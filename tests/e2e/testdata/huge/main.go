//go:build !wasip1

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray/sdk"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := sdk.Connect(ctx, os.Args[1], sdk.ConnectOptions{Module: os.Args[2]})
	if err == nil {
		err = both(ctx)
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// both makes a value on each side, for only one of which the store has room.
func both(ctx context.Context) error {
	begin := time.Now()
	step := func(what string) {
		fmt.Fprintf(os.Stderr, "%s: %.1f s\n", what, time.Since(begin).Seconds())
		begin = time.Now()
	}
	mine, err := build(ctx)
	if err != nil {
		return fmt.Errorf("build outside: %w", err)
	}
	step("built outside")
	if n, err := verifyInside.Remote(ctx, held{mine}).Get(ctx); err != nil || n != size {
		return fmt.Errorf("read inside: %d, %w", n, err)
	}
	step("read inside")
	theirs, err := buildInside.Remote(ctx).Get(ctx)
	if err != nil {
		return fmt.Errorf("build inside: %w", err)
	}
	step("built inside")
	if s, err := sdk.Info(mine); err != nil || !s.OnDisk || s.Size != size {
		return fmt.Errorf("the first was to be on disk: %+v, %w", s, err)
	}
	if err := verify(ctx, theirs.Ref); err != nil {
		return fmt.Errorf("read outside: %w", err)
	}
	step("read outside")
	if err := sdk.Free(theirs.Ref); err != nil {
		return err
	}
	if err := verify(ctx, mine); err != nil {
		return fmt.Errorf("read outside, from disk: %w", err)
	}
	step("read outside, from disk")
	fmt.Printf("two values of %d bytes are as they were made\n", int64(size))
	return nil
}
