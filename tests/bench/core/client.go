//go:build !wasip1

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/wray-project/wray/sdk"
)

// client runs the cases from this process, in a session of a node.
func client(address, module string) {
	os.Args = append(os.Args[:1], os.Args[4:]...)
	ctx := context.Background()
	c, err := sdk.Connect(ctx, address, sdk.ConnectOptions{Module: module, Memory: 4 << 30})
	if err == nil {
		err = run(ctx)
	}
	if c != nil {
		c.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
