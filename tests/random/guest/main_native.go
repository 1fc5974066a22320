//go:build !wasip1

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/wray-project/wray/sdk"
)

func main() {
	if len(os.Args) < 3 {
		alone = true
		sdk.Main(run)
		return
	}
	ctx := context.Background()
	c, err := sdk.Connect(ctx, os.Args[1], sdk.ConnectOptions{Module: os.Args[2]})
	if err == nil {
		err = run(ctx)
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
