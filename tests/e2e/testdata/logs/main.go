// Command logs has a task that prints faster than the flags of its test allow,
// and another that has the only core meanwhile.
package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/wray-project/wray/sdk"
)

var line = strings.Repeat("x", 999)

var flood = sdk.Func("flood", func(_ context.Context, lines int) (int, error) {
	for range lines {
		fmt.Println(line)
	}
	return lines, nil
})

var quick = sdk.Func("quick", func(_ context.Context, x int) (int, error) { return x + 1, nil })

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	printed := flood.Remote(ctx, 400)
	for x := 0; x < 10; {
		var err error
		if x, err = quick.Remote(ctx, x).Get(ctx); err != nil {
			return err
		}
	}
	fmt.Println("quick tasks are done")
	n, err := printed.Get(ctx)
	fmt.Println(n, "lines")
	return err
}
