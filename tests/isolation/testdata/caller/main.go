// Command caller calls what its arguments name, one after the other, and says
// how each call ended. After each it calls a good task, too.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

var double = sdk.Func("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	for _, arg := range os.Args[1:] {
		err := one(ctx, arg)
		var e *wray.Error
		switch {
		case err == nil:
			fmt.Println(arg, wray.CodeOK)
		case errors.As(err, &e) && e.Message != "":
			fmt.Println(arg, e.Code)
		default:
			fmt.Println(arg, "is no *wray.Error with a message:", err)
		}
		if n, err := double.Remote(ctx, 21).Get(ctx); n != 42 || err != nil {
			return fmt.Errorf("after %s a good task gave %d, %w", arg, n, err)
		}
	}
	return nil
}

func one(ctx context.Context, arg string) error {
	kind, name, _ := strings.Cut(arg, ":")
	own := sdk.Module("caller")
	var err error
	switch kind {
	case "command":
		opts := []sdk.Option{sdk.Timeout(200 * time.Millisecond), sdk.Memory(256 << 20)}
		if strings.HasPrefix(name, "memory-grow") || strings.HasPrefix(name, "recursion") {
			opts[0] = sdk.Timeout(20 * time.Second) // filling memory takes its time on a busy machine
		}
		var out sdk.Output
		out, err = sdk.Module(name).Command().With(opts...).Run(ctx)
		if err == nil && out.ExitCode != 0 {
			err = wray.Errorf(wray.CodeExit, "exit code %d", out.ExitCode)
		}
	case "task":
		_, err = sdk.Import[int, int](sdk.Module("tasks"), name).Remote(ctx, 1).Get(ctx)
	case "function":
		_, err = sdk.Import[int, int](own, name).Remote(ctx, 1).Get(ctx)
	case "module":
		_, err = sdk.Import[int, int](sdk.Module(name), "double").Remote(ctx, 1).Get(ctx)
	case "argument":
		_, err = sdk.Import[string, int](own, "double").Remote(ctx, "no number").Get(ctx)
	case "result":
		_, err = sdk.Import[int, string](own, "double").Remote(ctx, 1).Get(ctx)
	case "arguments":
		_, err = sdk.Import2[int, int, int](own, "double").Remote(ctx, 1, 2).Get(ctx)
	default:
		err = fmt.Errorf("what is %s?", arg)
	}
	return err
}
