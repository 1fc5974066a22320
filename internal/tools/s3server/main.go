// Command s3server is the S3 server that tests store objects in: the gateway of
// versitygw over a directory, at an address of this machine.
//
//	s3server ADDRESS ACCESS SECRET DIRECTORY
//
// It ends when its standard input does, which is a pipe from the test: however
// that ends, no server is left.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "s3server:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: s3server ADDRESS ACCESS SECRET DIRECTORY")
	}
	be, err := posix.New(args[3], meta.XattrMeta{}, posix.PosixOpts{})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return embedgw.RunVersityGW(ctx, be, &embedgw.Config{RootUserAccess: args[1], RootUserSecret: args[2], Ports: []string{args[0]}, Quiet: true, MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10_000})
}
