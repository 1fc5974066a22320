package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// Tasks are declared in package variables.
var (
	words   = sdk.Func("words", func(_ context.Context, text []byte) (int, error) { return len(bytes.Fields(text)), nil })
	concat  = sdk.Func2("concat", func(_ context.Context, a, b string) (string, error) { return a + b, nil })
	minMax  = sdk.Func("minMax", findMinMax)
	squares = sdk.Stream("squares", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			if err := yield(i * i); err != nil {
				return err
			}
		}
		return nil
	})
	errEmpty = sdk.RegisterError("example.errEmpty", errors.New("nothing to look at"))
	slow     = sdk.Func0("slow", func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
)

func findMinMax(_ context.Context, x []float64) (sdk.Two[float64, float64], error) {
	if len(x) == 0 {
		return sdk.Two[float64, float64]{}, errEmpty
	}
	m := sdk.Two[float64, float64]{A: x[0], B: x[0]}
	for _, v := range x {
		m.A, m.B = min(m.A, v), max(m.B, v)
	}
	return m, nil
}

func ExampleFunc() {
	ctx := context.Background()
	ref := words.Remote(ctx, []byte("to be or not to be"))
	n, err := ref.Get(ctx)
	fmt.Println(n, err)
	// Output: 6 <nil>
}

// Arguments may be results of other tasks. The values go from task to task
// without passing through the driver.
func ExampleTask2_RemoteArgs() {
	ctx := context.Background()
	greeting := concat.Remote(ctx, "hello, ", "world")
	s, err := concat.RemoteArgs(ctx, greeting, sdk.Val("!")).Get(ctx)
	fmt.Println(s, err)
	// Output: hello, world! <nil>
}

func ExampleGetAll() {
	ctx := context.Background()
	var refs []sdk.Ref[int]
	for _, line := range strings.Split("one\ntwo words\nthree more words", "\n") {
		refs = append(refs, words.Remote(ctx, []byte(line)))
	}
	counts, err := sdk.GetAll(ctx, refs)
	fmt.Println(counts, err)
	// Output: [1 2 3] <nil>
}

func ExampleWait() {
	ctx := context.Background()
	stuck := slow.Remote(ctx)
	refs := []sdk.Ref[string]{stuck, concat.Remote(ctx, "a", "b")}
	ready, pending, err := sdk.Wait(ctx, refs, 1, -1)
	fmt.Println(len(ready), len(pending), err)
	_ = stuck.Cancel()
	_, err = stuck.Get(ctx)
	fmt.Println(errors.Is(err, wray.ErrCanceled))
	// Output:
	// 1 1 <nil>
	// true
}

func ExampleTask0_With() {
	ctx := context.Background()
	_, err := slow.With(sdk.Timeout(time.Millisecond), sdk.CPU(0.5), sdk.Name("a slow one")).Remote(ctx).Get(ctx)
	fmt.Println(errors.Is(err, wray.ErrTimeout))
	// Output: true
}

func ExamplePut() {
	ctx := context.Background()
	text, err := sdk.Put(ctx, []byte("stored once, given to many"))
	if err != nil {
		fmt.Println(err)
	}
	a, _ := words.RemoteArgs(ctx, text).Get(ctx)
	b, _ := words.RemoteArgs(ctx, text).Get(ctx)
	fmt.Println(a, b)
	// Output: 5 5
}

// A stream's values can be read while the task makes further ones.
func ExampleStream() {
	ctx := context.Background()
	for v, err := range squares.Remote(ctx, 5).All(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(v, " ")
	}
	fmt.Println()
	// Output: 0 1 4 9 16
}

func ExampleSplit2() {
	ctx := context.Background()
	lo, hi := sdk.Split2(minMax.Remote(ctx, []float64{3, 1, 2}))
	a, _ := lo.Get(ctx)
	b, _ := hi.Get(ctx)
	fmt.Println(a, b)
	// Output: 1 3
}

func ExampleRegisterError() {
	ctx := context.Background()
	_, err := minMax.Remote(ctx, nil).Get(ctx)
	var e *wray.Error
	errors.As(err, &e)
	fmt.Println(errors.Is(err, errEmpty), e.Task, e.Attempt)
	// Output: true minMax 1
}
