package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

var (
	errOdd   = sdk.RegisterError("sdk_test.errOdd", errors.New("odd"))
	errOther = sdk.RegisterError("sdk_test.errOther", errors.New("other"))

	attempts atomic.Int32

	double = sdk.Func("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	add    = sdk.Func2("add", func(_ context.Context, a, b int) (int, error) { return a + b, nil })
	join3  = sdk.Func3("join3", func(_ context.Context, a string, b []byte, c int) (string, error) {
		return fmt.Sprint(a, string(b), c), nil
	})
	join4 = sdk.Func4("join4", func(_ context.Context, a string, b []byte, c int, d []float64) (string, error) {
		return fmt.Sprint(a, string(b), c, d), nil
	})
	saying = sdk.Func2("saying", func(_ context.Context, s string, n int) (int, error) {
		return 0, fmt.Errorf("%s: %w", strings.Repeat(s, n), errOdd)
	})
	nothing = sdk.Func0("nothing", func(context.Context) (struct{}, error) { return struct{}{}, nil })
	even    = sdk.Func("even", func(_ context.Context, n int) (int, error) {
		if n%2 != 0 {
			return 0, fmt.Errorf("%d: %w", n, errOdd)
		}
		return n, nil
	})
	flaky = sdk.Func("flaky", func(_ context.Context, until int) (int, error) {
		n := int(attempts.Add(1))
		if n < until {
			return 0, errOdd
		}
		return n, nil
	})
	explode = sdk.Func0("explode", func(context.Context) (int, error) { panic(fmt.Errorf("boom: %w", errOther)) })
	goexit  = sdk.Func0("goexit", func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	forever = sdk.Func0("forever", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
	parent  = sdk.Func0("parent", func(ctx context.Context) (int, error) {
		r := forever.Remote(ctx)
		children <- r
		return r.Get(ctx)
	})
	children = make(chan sdk.Ref[int], 1)
	missing  = sdk.Func0("missing", func(context.Context) (int, error) {
		return 0, &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	})
	mutate = sdk.Func("mutate", func(_ context.Context, b []byte) (byte, error) { b[0]++; return b[0], nil })
	halves = sdk.Func("halves", func(_ context.Context, b []byte) (sdk.Two[[]byte, string], error) {
		return sdk.Two[[]byte, string]{A: b[:len(b)/2], B: string(b[len(b)/2:])}, nil
	})
	thirds = sdk.Func0("thirds", func(context.Context) (sdk.Three[int, string, float64], error) {
		return sdk.Three[int, string, float64]{A: 1, B: "two", C: 3}, nil
	})
	quarters = sdk.Func0("quarters", func(context.Context) (sdk.Four[int, int, int, []int32], error) {
		return sdk.Four[int, int, int, []int32]{A: 1, B: 2, C: 3, D: []int32{4}}, nil
	})
	sumRefs = sdk.Func("sumRefs", func(ctx context.Context, refs map[string]sdk.Ref[int]) (int, error) {
		s := 0
		for _, r := range refs {
			n, err := r.Get(ctx)
			if err != nil {
				return 0, err
			}
			s += n
		}
		return s, nil
	})
	outer = sdk.Func0("outer", func(ctx context.Context) (int, error) {
		_, err := even.Remote(ctx, 1).Get(ctx)
		return 0, fmt.Errorf("outer: %w", err)
	})
	sleeping = make(chan struct{})
	gated    = sdk.Func("gated", func(ctx context.Context, n int) (int, error) {
		select {
		case <-sleeping:
		case <-ctx.Done():
		}
		return n, nil
	})
	unsendable = sdk.Func0("unsendable", func(context.Context) (func(), error) { return func() {}, nil })
	count      = sdk.Stream("count", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			produced.Store(int32(i))
			if err := yield(i); err != nil {
				return err
			}
		}
		if n == 5 {
			return errOdd
		}
		return nil
	})
	produced atomic.Int32
	retried  = sdk.Stream0("retried", func(_ context.Context, yield func(int) error) error {
		n := int(attempts.Add(1))
		for i := range 4 {
			if err := yield(10*n + i); err != nil {
				return err
			}
			if i == n-1 && n < 3 {
				return errOdd
			}
		}
		return nil
	})
	pairs = sdk.Stream2("pairs", func(_ context.Context, a, b string, yield func(string) error) error {
		return errors.Join(yield(a), yield(b))
	})
)

func want[T any](t *testing.T, ref sdk.Ref[T], v T) {
	t.Helper()
	got, err := ref.Get(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(v) {
		t.Errorf("got %v, %v; want %v", got, err, v)
	}
}

func fails[T any](t *testing.T, ref sdk.Ref[T], target error) *wray.Error {
	t.Helper()
	_, err := ref.Get(t.Context())
	var e *wray.Error
	if !errors.Is(err, target) || !errors.As(err, &e) {
		t.Fatalf("got %v, want %v", err, target)
	}
	return e
}

func TestCalls(t *testing.T) {
	ctx := t.Context()
	want(t, double.Remote(ctx, 21), 42)
	want(t, add.Remote(ctx, 1, 2), 3)
	want(t, join3.Remote(ctx, "a", []byte("b"), 3), "ab3")
	want(t, join4.Remote(ctx, "a", []byte("b"), 3, []float64{1.5}), "ab3 [1.5]")
	want(t, nothing.Remote(ctx), struct{}{})
	r := double.Remote(ctx, 1)
	want(t, add.RemoteArgs(ctx, r, sdk.Val(5)), 7)
	want(t, add.RemoteArgs(ctx, r, r), 4)
	s, err := sdk.Put(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	want(t, join3.RemoteArgs(ctx, s, sdk.Val([]byte("q")), r), "pq2")
	want(t, join4.RemoteArgs(ctx, s, sdk.Val([]byte("q")), r, sdk.Val([]float64{})), "pq2 []")
	want(t, sumRefs.Remote(ctx, map[string]sdk.Ref[int]{"a": r, "b": double.Remote(ctx, 10)}), 22)
}

func TestValuesAreCopied(t *testing.T) {
	b := []byte{1}
	want(t, mutate.Remote(t.Context(), b), 2)
	ref, err := sdk.Put(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	b[0] = 9
	want(t, mutate.RemoteArgs(t.Context(), ref), 2)
	want(t, mutate.RemoteArgs(t.Context(), ref), 2)
	if b[0] != 9 {
		t.Error("a task changed its caller's value")
	}
}

func TestSeveralResults(t *testing.T) {
	ctx := t.Context()
	a, b := sdk.Split2(halves.Remote(ctx, []byte("hello world!")))
	want(t, a, []byte("hello "))
	want(t, b, "world!")
	want(t, halves.Remote(ctx, []byte("abcd")), sdk.Two[[]byte, string]{A: []byte("ab"), B: "cd"})
	x, y, z := sdk.Split3(thirds.Remote(ctx))
	want(t, x, 1)
	want(t, y, "two")
	want(t, z, 3)
	_, _, _, q := sdk.Split4(quarters.Remote(ctx))
	want(t, q, []int32{4})
	ready, _, err := sdk.Wait(ctx, []sdk.AnyRef{halves.Remote(ctx, []byte("abcd")), x}, 2, -1)
	if len(ready) != 2 || err != nil {
		t.Error(ready, err)
	}
}

// TestErrorText holds that an error whose text is not UTF-8, or is very long,
// arrives with what of it is good.
func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		text  string
		times int
		want  string
	}{{"caf\xe9: no such table", 1, "caf?: no such table"}, {"no such table ", 1 << 20, "no such table no such table "}} {
		e := fails(t, saying.Remote(t.Context(), c.text, c.times), errOdd)
		if e.Code != wray.CodeUserError || e.Task != "saying" || !strings.HasPrefix(e.Message, c.want) || len(e.Message) > 8<<10 {
			t.Errorf("%q: %v: %.100q, %d bytes", c.text, e.Code, e.Message, len(e.Message))
		}
	}
}

func TestErrors(t *testing.T) {
	ctx := t.Context()
	e := fails(t, even.Remote(ctx, 3), errOdd)
	if e.Code != wray.CodeUserError || e.Task != "even" || e.Attempt != 1 || e.Message != "3: odd" {
		t.Errorf("%+v", e)
	}
	if err := error(e); errors.Is(err, errOther) {
		t.Error("the error matches another sentinel")
	}
	e = fails(t, explode.Remote(ctx), wray.ErrPanic)
	if !strings.Contains(e.Message, "boom") || !strings.Contains(e.Trace, "sdk_test.go") || strings.Contains(e.Trace, "panicOf") || strings.Contains(e.Trace, "declare") || strings.Contains(e.Trace, "sdk.Func") {
		t.Errorf("%+v", e)
	}
	fails(t, explode.Remote(ctx), errOther)
	fails(t, missing.Remote(ctx), fs.ErrNotExist)
	e = fails(t, goexit.Remote(ctx), wray.ErrUserError)
	if !strings.Contains(e.Message, "Goexit") {
		t.Errorf("%+v", e)
	}
	// The error of a nested task is the cause, and matches like the outer one.
	e = fails(t, outer.Remote(ctx), errOdd)
	if e.Task != "outer" || e.Cause == nil || e.Cause.Task != "even" || strings.Count(e.Error(), "1: odd") != 1 {
		t.Errorf("%v", e)
	}
	// One whose argument failed never runs.
	r := even.Remote(ctx, 5)
	e = fails(t, add.RemoteArgs(ctx, r, sdk.Val(1)), errOdd)
	if e.Code != wray.CodeDependencyFailed || e.Task != "add" || e.Cause.Task != "even" {
		t.Errorf("%+v", e)
	}
	e = fails(t, unsendable.Remote(ctx), wray.ErrBadArgument)
	if !strings.Contains(e.Message, "result 0") {
		t.Errorf("%+v", e)
	}
	e = fails(t, sdk.Import[string, int](sdk.Module(""), "double").Remote(ctx, "x"), wray.ErrBadArgument)
	if !strings.Contains(e.Message, "argument 0") || !strings.Contains(e.Message, "int") || !strings.Contains(e.Message, "CBOR") {
		t.Errorf("%+v", e)
	}
	e = fails(t, sdk.Import2[int, int, int](sdk.Module(""), "double").Remote(ctx, 1, 2), wray.ErrBadArgument)
	if !strings.Contains(e.Message, "takes 1") {
		t.Errorf("%+v", e)
	}
	e = fails(t, sdk.Import0[int](sdk.Module("nowhere"), "f").Remote(ctx), wray.ErrUnknownFunction)
	if e.Hint == "" {
		t.Errorf("%+v", e)
	}
	fails(t, sdk.Module("nowhere").Command().Remote(ctx, sdk.Input{Args: []string{"x"}}), wray.ErrUnknownFunction)
	fails(t, sdk.Ref[int]{}, wray.ErrBadArgument)
	fails(t, add.RemoteArgs(ctx, sdk.Ref[int]{}, nil), wray.ErrBadArgument)
	fails(t, add.RemoteArgs(ctx, sdk.Val(1), nil), wray.ErrBadArgument)
}

func TestOptions(t *testing.T) {
	ctx := t.Context()
	e := fails(t, even.With(sdk.Name("chunk 7")).Remote(ctx, 1), errOdd)
	if e.Task != "chunk 7" {
		t.Errorf("%+v", e)
	}
	for _, o := range []sdk.Option{sdk.CPU(-1), sdk.Memory(0), sdk.Retries(-2), sdk.Timeout(0), sdk.Window(0), sdk.RetryOn(errors.New("unknown")),
		sdk.Resource("", 1), sdk.Resource("a\x00b", 1), sdk.Resource("a", -1), sdk.Resource("a", 0.00001), sdk.Resource("a", math.NaN()), sdk.Resource("a", 1e10)} {
		fails(t, double.With(o).Remote(ctx, 1), wray.ErrBadArgument)
	}
	want(t, double.With(sdk.Resource("gpu", 0.5), sdk.CPU(0.5), sdk.Memory(1<<20), sdk.Fresh(), sdk.Timeout(time.Hour), sdk.Retries(0)).Remote(ctx, 1), 2)
	fails(t, forever.With(sdk.Timeout(time.Millisecond)).Remote(ctx), wray.ErrTimeout)

	attempts.Store(0)
	fails(t, flaky.Remote(ctx, 3), errOdd) // user errors are not retried
	attempts.Store(0)
	want(t, flaky.With(sdk.RetryOn(errOdd)).Remote(ctx, 3), 3)
	attempts.Store(0)
	want(t, flaky.With(sdk.RetryOn()).Remote(ctx, 4), 4)
	attempts.Store(0)
	fails(t, flaky.With(sdk.RetryOn(errOther)).Remote(ctx, 3), errOdd)
	attempts.Store(0)
	if e := fails(t, flaky.With(sdk.RetryOn(errOdd), sdk.Retries(1)).Remote(ctx, 3), errOdd); e.Attempt != 2 {
		t.Errorf("%+v", e)
	}
	attempts.Store(0)
	want(t, flaky.With(sdk.RetryOn(errOdd), sdk.Retries(-1)).Remote(ctx, 10), 10)
}

func TestCancel(t *testing.T) {
	ctx := t.Context()
	r := forever.Remote(ctx)
	if err := r.Cancel(); err != nil {
		t.Fatal(err)
	}
	fails(t, r, wray.ErrCanceled)
	p := parent.Remote(ctx)
	child := <-children
	if err := p.Cancel(); err != nil {
		t.Fatal(err)
	}
	fails(t, p, wray.ErrCanceled)
	fails(t, child, wray.ErrCanceled)

	limited, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	r = forever.Remote(ctx)
	if _, err := r.Get(limited); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, wray.ErrTimeout) {
		t.Error(err)
	}
	_ = r.Cancel()
	if _, err := double.Remote(limited, 1).Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestWait(t *testing.T) {
	ctx := t.Context()
	refs := []sdk.Ref[int]{gated.Remote(ctx, 1), double.Remote(ctx, 1), gated.Remote(ctx, 2), even.Remote(ctx, 1)}
	ready, pending, err := sdk.Wait(ctx, refs, 2, -1)
	if err != nil || len(ready) != 2 || ready[0] != refs[1] || ready[1] != refs[3] || pending[0] != refs[0] || pending[1] != refs[2] {
		t.Error(ready, pending, err)
	}
	ready, pending, err = sdk.Wait(ctx, pending, 1, time.Millisecond)
	if err != nil || len(ready) != 0 || len(pending) != 2 {
		t.Error(ready, pending, err)
	}
	if ready, _, err := sdk.Wait(ctx, refs, 3, 0); err != nil || len(ready) != 2 {
		t.Error(ready, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := sdk.Wait(canceled, pending, 1, -1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(sleeping)
	all, err := sdk.GetAll(ctx, append(refs[:3:3], double.Remote(ctx, 4)))
	if fmt.Sprint(all) != "[1 2 2 8]" || err != nil {
		t.Error(all, err)
	}
	if _, err := sdk.GetAll(ctx, refs); !errors.Is(err, errOdd) {
		t.Error(err)
	}
}

func TestStream(t *testing.T) {
	ctx := t.Context()
	n := 0
	for v, err := range count.Remote(ctx, 100).All(ctx) {
		if v != n || err != nil {
			t.Fatal(v, n, err)
		}
		n++
	}
	if n != 100 {
		t.Errorf("%d items", n)
	}
	s := count.Remote(ctx, 5)
	for i := range 5 {
		if v, err := s.Next(ctx); v != i || err != nil {
			t.Fatal(v, err)
		}
	}
	if _, err := s.Next(ctx); !errors.Is(err, errOdd) {
		t.Error(err)
	}
	if _, err := s.Next(ctx); err != wray.ErrEndOfStream {
		t.Error(err)
	}
	// The producer waits while three are unread.
	s = count.With(sdk.Window(3)).Remote(ctx, 1000)
	if v, err := s.Next(ctx); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	r, err := s.NextRef(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 1)
	if p := produced.Load(); p > 5 {
		t.Errorf("the producer is at item %d", p)
	}
	s.Close()
	if _, err := s.Next(ctx); err == nil {
		t.Error("a closed stream gave an item")
	}
	for v, err := range count.Remote(ctx, 1<<30).All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if v == 3 {
			break
		}
	}
	var got []string
	for v, err := range pairs.RemoteArgs(ctx, sdk.Val("a"), sdk.Val("b")).All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if fmt.Sprint(got) != "[a b]" {
		t.Error(got)
	}
}

// TestStreamRetry: a retry skips what was given, so the reader sees each index
// once, whichever attempt it is of.
func TestStreamRetry(t *testing.T) {
	attempts.Store(0)
	var got []int
	for v, err := range retried.With(sdk.RetryOn(errOdd)).Remote(t.Context()).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if fmt.Sprint(got) != "[10 21 32 33]" {
		t.Error(got)
	}
}

// TestMany has thousands of goroutines wait at once.
func TestMany(t *testing.T) {
	ctx := t.Context()
	const n = 2000
	sums := make(chan int, n)
	for i := range n {
		go func() {
			v, err := double.Remote(ctx, i).Get(ctx)
			if err != nil {
				t.Error(err)
			}
			sums <- v
		}()
	}
	total := 0
	for range n {
		total += <-sums
	}
	if total != n*(n-1) {
		t.Error(total)
	}
}

func TestRegisterTwice(t *testing.T) {
	if sdk.RegisterError("sdk_test.errOdd", errOdd) != errOdd {
		t.Error("the same error again")
	}
	defer func() {
		if recover() == nil {
			t.Error("two errors under one name")
		}
	}()
	sdk.RegisterError("sdk_test.errOdd", errors.New("odd"))
}

func TestLargeValues(t *testing.T) {
	big := bytes.Repeat([]byte{7}, 10<<20)
	r := halves.Remote(t.Context(), big)
	a, b := sdk.Split2(r)
	x, err := a.Get(t.Context())
	if err != nil || len(x) != 5<<20 {
		t.Error(len(x), err)
	}
	y, err := b.Get(t.Context())
	if err != nil || len(y) != 5<<20 {
		t.Error(len(y), err)
	}
}
