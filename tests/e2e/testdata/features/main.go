// Command features goes through the programming model and says of each part
// how it went. It says the same in sandboxes and in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

var errOdd = sdk.RegisterError("features.ErrOdd", errors.New("odd"))

type point struct {
	X, Y int
	Name string
}

var (
	add    = sdk.Func2("add", func(_ context.Context, a, b int) (int, error) { return a + b, nil })
	double = sdk.Func("double", func(_ context.Context, p point) (point, error) {
		return point{2 * p.X, 2 * p.Y, p.Name + p.Name}, nil
	})
	even = sdk.Func("even", func(_ context.Context, n int) (int, error) {
		if n%2 != 0 {
			return 0, fmt.Errorf("%d: %w", n, errOdd)
		}
		return n, nil
	})
	boom = sdk.Func0("boom", func(context.Context) (int, error) { panic("boom") })
	sums = sdk.Func("sums", func(_ context.Context, xs []float64) (sdk.Two[float64, int], error) {
		s := 0.0
		for _, x := range xs {
			s += x
		}
		return sdk.Two[float64, int]{A: s, B: len(xs)}, nil
	})
	squares = sdk.Stream("squares", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			if err := yield(i * i); err != nil {
				return err
			}
		}
		if n > 50 {
			return errors.New("too many")
		}
		return nil
	})
	sleep = sdk.Func("sleep", func(ctx context.Context, ms int) (int, error) {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return ms, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	deref = sdk.Func("deref", func(ctx context.Context, rs []sdk.Ref[int]) (int, error) {
		total := 0
		for _, r := range rs {
			v, err := r.Get(ctx)
			if err != nil {
				return 0, err
			}
			total += v
		}
		return total, nil
	})
	checksum = sdk.Func("checksum", func(_ context.Context, b []byte) (uint64, error) {
		var s uint64
		for i, c := range b {
			s += uint64(c) * uint64(i%251)
		}
		return s, nil
	})
)

// fib submits itself, so it is declared where Go allows that.
var fib sdk.Task1[int, int]

func init() { fib = sdk.Func("fib", fibonacci) }

func fibonacci(ctx context.Context, n int) (int, error) {
	if n < 2 {
		return n, nil
	}
	a, b := fib.Remote(ctx, n-1), fib.Remote(ctx, n-2)
	x, err := a.Get(ctx)
	if err != nil {
		return 0, err
	}
	y, err := b.Get(ctx)
	return x + y, err
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	say := func(name string, args ...any) { fmt.Println(append([]any{name}, args...)...) }

	n, err := add.Remote(ctx, 2, 3).Get(ctx)
	say("add", n, err)
	n, err = add.RemoteArgs(ctx, add.Remote(ctx, 1, 1), sdk.Val(40)).Get(ctx)
	say("refs as arguments", n, err)
	p, err := double.Remote(ctx, point{1, -2, "ab"}).Get(ctx)
	say("struct", p, err)
	_, err = even.Remote(ctx, 3).Get(ctx)
	var we *wray.Error
	say("error", errors.Is(err, errOdd), errors.As(err, &we), we.Code, we.Task, we.Attempt)
	_, err = even.With(sdk.Retries(2), sdk.RetryOn(errOdd)).Remote(ctx, 5).Get(ctx)
	say("retried", errors.Is(err, errOdd), errors.As(err, &we), we.Attempt)
	_, err = add.RemoteArgs(ctx, even.Remote(ctx, 7), sdk.Val(1)).Get(ctx)
	say("dependency", errors.Is(err, errOdd))
	_, err = boom.With(sdk.Name("bang")).Remote(ctx).Get(ctx)
	say("panic", errors.Is(err, wray.ErrPanic), errors.As(err, &we), we.Task, we.Trace != "")
	n, err = fib.Remote(ctx, 10).Get(ctx)
	say("nested", n, err)

	two := sums.Remote(ctx, []float64{1, 2, 3.5})
	total, count := sdk.Split2(two)
	f, err := total.Get(ctx)
	c, err2 := count.Get(ctx)
	say("several results", f, err, c, err2)

	var items []int
	for v, err := range squares.With(sdk.Window(3)).Remote(ctx, 10).All(ctx) {
		if err != nil {
			return err
		}
		items = append(items, v)
	}
	say("stream", items)
	last := error(nil)
	got := 0
	for _, err := range squares.Remote(ctx, 60).All(ctx) {
		if last = err; err == nil {
			got++
		}
	}
	say("stream that fails", got, errors.Is(last, wray.ErrUserError))
	for v := range squares.Remote(ctx, 40).All(ctx) {
		if v == 4 {
			break
		}
	}

	_, err = sleep.With(sdk.Timeout(50*time.Millisecond)).Remote(ctx, 60_000).Get(ctx)
	say("timeout", errors.Is(err, wray.ErrTimeout) || errors.Is(err, context.DeadlineExceeded))
	long := sleep.Remote(ctx, 60_000)
	quick := sleep.Remote(ctx, 1)
	ready, pending, err := sdk.Wait(ctx, []sdk.Ref[int]{long, quick}, 1, 20*time.Second)
	say("wait", len(ready), len(pending), ready[0] == quick, err)
	if err := long.Cancel(); err != nil {
		return err
	}
	_, err = long.Get(ctx)
	say("cancel", errors.Is(err, wray.ErrCanceled) || errors.Is(err, context.Canceled))

	refs := make([]sdk.Ref[int], 100)
	want := 0
	for i := range refs {
		if refs[i], err = sdk.Put(ctx, i); err != nil {
			return err
		}
		want += i
	}
	n, err = deref.Remote(ctx, refs).Get(ctx)
	say("refs in values", n == want, err)

	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	ref, err := sdk.Put(ctx, big)
	if err != nil {
		return err
	}
	back, err := ref.Get(ctx)
	say("large", slices.Equal(back, big), err)
	sum, err := checksum.RemoteArgs(ctx, ref).Get(ctx)
	sum2, err2 := checksum.With(sdk.Fresh()).Remote(ctx, big).Get(ctx)
	say("large argument", sum == sum2, err, err2)

	var wg sync.WaitGroup
	var mu sync.Mutex
	all := 0
	for i := range 1000 {
		wg.Go(func() {
			v, err := add.Remote(ctx, i, 1).Get(ctx)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			mu.Lock()
			all += v
			mu.Unlock()
		})
	}
	wg.Wait()
	say("a thousand goroutines", all)

	halves := sleep.With(sdk.CPU(0.5))
	hs := make([]sdk.Ref[int], 8)
	for i := range hs {
		hs[i] = halves.Remote(ctx, i)
	}
	vs, err := sdk.GetAll(ctx, hs)
	say("fractions", vs, err)
	return nil
}
