// Command input reads its input in one goroutine while others run tasks.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"github.com/wray-project/wray/sdk"
)

var double = sdk.Func("double", func(_ context.Context, x int) (int, error) { return 2 * x, nil })

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(os.Stdin)
		for s.Scan() {
			lines <- s.Text()
		}
	}()
	// The reader waits by now, or will: nothing has been written yet.
	for i := range 3 {
		x, err := double.Remote(ctx, i).Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("task", x)
	}
	n := 0
	for l := range lines {
		n++
		x, err := double.Remote(ctx, len(l)).Get(ctx)
		if err != nil {
			return err
		}
		fmt.Println("line", l, x)
	}
	fmt.Println(n, "lines")
	return nil
}
