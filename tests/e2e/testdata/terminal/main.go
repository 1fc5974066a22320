// Command terminal prints from its driver and from tasks, and then has two
// tasks that last until a line comes on standard input.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray/sdk"
)

var left = sdk.Func("left", say)
var right = sdk.Func("right", say)

func say(_ context.Context, text string) (int, error) {
	fmt.Println(text + " out")
	fmt.Fprintln(os.Stderr, text+" err")
	fmt.Print("no \x1b[2Jescape\r, no end of line")
	return 0, nil
}

// last lasts until its job ends.
var last = sdk.Func("last", func(ctx context.Context, _ int) (int, error) {
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	return 0, ctx.Err()
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	fmt.Println("driver out")
	fmt.Fprintln(os.Stderr, "driver err")
	if _, err := left.Remote(ctx, "one").Get(ctx); err != nil {
		return err
	}
	if _, err := right.Remote(ctx, "two").Get(ctx); err != nil {
		return err
	}
	for n := range 2 {
		last.Remote(ctx, n)
	}
	bufio.NewScanner(os.Stdin).Scan()
	fmt.Println("driver ends")
	return nil
}
