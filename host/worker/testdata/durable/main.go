// Command durable runs a durable actor. Its arguments are what to do, in turn:
// add N (N calls, each answer printed), keep (a value, a large one that is
// mapped, and what does not last), check (what was kept), exit, panic and spin
// (a call that ends so), kill, deep, nested (it calls another), fill N and touch AT (many bytes), bare,
// wide, fails (calls, until one fails). With kill alone the actor is killed before it is there.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type tally struct {
	n     int
	small sdk.Ref[string]
	large []byte
	list  sdk.Ref[[]sdk.Ref[string]]
	later sdk.Ref[string]
	deep  sdk.Ref[[]link]
	big   []byte
}

// link is a value that refers to others like it.
type link struct{ Next sdk.Ref[[]link] }

var (
	slow = sdk.Func0("slow", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	// The constructor's argument counts only when the actor is new.
	tallies = sdk.Actor("tally", func(_ context.Context, from int) (*tally, error) { return &tally{n: from}, nil })
	add     = sdk.Method(tallies, "add", func(t *tally, _ context.Context, by int) (int, error) { t.n += by; return t.n, nil })
	keep    = sdk.Method(tallies, "keep", func(t *tally, ctx context.Context, large []byte) (int, error) {
		var err error
		if t.small, err = sdk.Put(ctx, "a small value"); err != nil {
			return 0, err
		}
		a, err := sdk.Put(ctx, "inside")
		if err != nil {
			return 0, err
		}
		if t.list, err = sdk.Put(ctx, []sdk.Ref[string]{a, t.small}); err != nil {
			return 0, err
		}
		t.later = slow.Remote(ctx)
		t.large = large
		t.large[7] = 'x' // its own copy
		return len(large), nil
	})
	check = sdk.Method0(tallies, "check", func(t *tally, ctx context.Context) (string, error) {
		s, err := t.small.Get(ctx)
		if err != nil {
			return "", err
		}
		list, err := t.list.Get(ctx)
		if err != nil {
			return "", err
		}
		in, err := list[0].Get(ctx)
		if err != nil {
			return "", err
		}
		sum := 0
		for _, b := range t.large {
			sum += int(b)
		}
		limited, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, later := t.later.Get(limited)
		return fmt.Sprintf("%s, %s, %d of %d, lost %t", s, in, sum, len(t.large), errors.Is(later, wray.ErrObjectLost)), nil
	})
	ends = sdk.Method(tallies, "ends", func(t *tally, _ context.Context, how string) (int, error) {
		t.n += 1000
		switch how {
		case "exit":
			os.Exit(3)
		case "panic":
			panic("an error of the call")
		}
		for {
			t.n++
		}
	})
	fill = sdk.Method(tallies, "fill", func(t *tally, _ context.Context, n int) (int, error) {
		t.big = make([]byte, n)
		for i, x := 0, uint32(1); i < n; i++ {
			x = x*1664525 + 1013904223
			t.big[i] = byte(x >> 24)
		}
		return n, nil
	})
	touch = sdk.Method(tallies, "touch", func(t *tally, _ context.Context, at int) (int, error) {
		t.big[at]++
		sum := 0
		for _, b := range t.big {
			sum += int(b)
		}
		return sum, nil
	})
	// deep keeps a reference to a value that refers to others.
	deep = sdk.Method(tallies, "deep", func(t *tally, _ context.Context, in []sdk.Ref[[]link]) (int, error) {
		t.deep = in[0]
		return len(in), nil
	})
	nested = sdk.Method(tallies, "nested", func(t *tally, ctx context.Context, other sdk.Handle[tally]) (int, error) {
		return add.Remote(ctx, other, 1).Get(ctx)
	})
)

// A knot is an actor that is not durable and calls others.
type knot struct{ calls int }

// way is where a call goes on to, and how long it waits for that; 0: for ever.
type way struct {
	To   []sdk.Handle[knot]
	Wait time.Duration
}

var (
	knots = sdk.Actor("knot", func(context.Context, int) (*knot, error) { return &knot{}, nil })
	pass  sdk.MethodOf1[knot, way, int]
)

func init() {
	pass = sdk.Method(knots, "pass", func(k *knot, ctx context.Context, w way) (int, error) {
		k.calls++
		if len(w.To) == 0 {
			return 1, nil
		}
		if w.Wait > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, w.Wait)
			defer cancel()
		}
		n, err := pass.Remote(ctx, w.To[0], way{w.To[1:], w.Wait}).Get(ctx)
		return n + 1, err
	})
}

// circle has n actors, each of which takes so many calls at once, call each other
// in a circle.
func circle(ctx context.Context, n, width int, wait, limit time.Duration) error {
	var to []sdk.Handle[knot]
	for i := range n {
		to = append(to, knots.With(sdk.Name(fmt.Sprintf("knot %d", i)), sdk.MaxConcurrency(width)).New(ctx, 0))
	}
	call := pass
	if limit > 0 {
		call = call.With(sdk.Timeout(limit))
	}
	for range 2 { // who was in a circle goes on
		got, err := call.Remote(ctx, to[0], way{append(to[1:n:n], to[0]), wait}).Get(ctx)
		for e := new(wray.Error); errors.As(err, &e) && e.Cause != nil; {
			err = e.Cause
		}
		fmt.Println(got, err)
	}
	for _, k := range to {
		if err := k.Kill(); err != nil {
			return err
		}
	}
	return nil
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	durable := tallies.With(sdk.Durable(), sdk.Name("the tally"))
	t := durable.New(ctx, 0)
	if len(os.Args) == 2 && os.Args[1] == "kill" {
		return t.Kill() // before it is there
	}
	if err := t.Ready(ctx); err != nil {
		return err
	}
	for i := 1; i < len(os.Args); i++ {
		switch what := os.Args[i]; what {
		case "add":
			i++
			n, err := strconv.Atoi(os.Args[i])
			if err != nil {
				return err
			}
			for range n {
				v, err := add.Remote(ctx, t, 1).Get(ctx)
				if err != nil {
					return err
				}
				fmt.Println(v)
			}
		case "keep":
			large := make([]byte, 300_000)
			for i := range large {
				large[i] = byte(i)
			}
			if _, err := keep.Remote(ctx, t, large).Get(ctx); err != nil {
				return err
			}
		case "check":
			s, err := check.Remote(ctx, t).Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(s)
		case "fails":
			n := 0
			for {
				v, err := add.Remote(ctx, t, 1).Get(ctx)
				if err != nil {
					fmt.Println("not added", errors.Is(err, wray.ErrActorDied))
					break
				}
				n = v
			}
			if v, err := add.Remote(ctx, t, 1).Get(ctx); err != nil || n > 0 && v != n+1 {
				return fmt.Errorf("after %d answered calls: %d, %v", n, v, err)
			}
		case "exit", "panic", "spin":
			_, err := ends.With(sdk.Timeout(100*time.Millisecond)).Remote(ctx, t, what).Get(ctx)
			if err == nil {
				return errors.New("it did not end")
			}
			fmt.Println(what, errors.Is(err, wray.ErrActorDied))
		case "kill":
			if err := t.Kill(); err != nil {
				return err
			}
			if _, err := add.Remote(ctx, t, 1).Get(ctx); !errors.Is(err, wray.ErrActorDied) {
				return fmt.Errorf("a call of one that was killed: %v", err)
			}
		case "deep":
			for _, n := range []int{500, 2000} {
				var at sdk.Ref[[]link]
				for i := range n {
					l := []link{{at}}
					if i == 0 {
						l = nil
					}
					var err error
					if at, err = sdk.Put(ctx, l); err != nil {
						return err
					}
				}
				_, err := deep.Remote(ctx, t, []sdk.Ref[[]link]{at}).Get(ctx)
				fmt.Println(n, errors.Is(err, wray.ErrActorDied), errors.Is(err, wray.ErrLimitExceeded))
			}
		case "fill", "touch":
			i++
			n, err := strconv.Atoi(os.Args[i])
			if err != nil {
				return err
			}
			if what == "fill" {
				n, err = fill.Remote(ctx, t, n).Get(ctx)
			} else {
				n, err = touch.Remote(ctx, t, n).Get(ctx)
			}
			if err != nil {
				return err
			}
			fmt.Println(n)
		case "circle":
			n, err := strconv.Atoi(os.Args[i+1])
			if err != nil {
				return err
			}
			width, err := strconv.Atoi(os.Args[i+2])
			if err != nil {
				return err
			}
			wait, err := time.ParseDuration(os.Args[i+3])
			if err != nil {
				return err
			}
			limit, err := time.ParseDuration(os.Args[i+4])
			if err != nil {
				return err
			}
			i += 4
			if err := circle(ctx, n, width, wait, limit); err != nil {
				return err
			}
		case "nested":
			other := tallies.With(sdk.Durable(), sdk.Name("another")).New(ctx, 0)
			_, err := nested.Remote(ctx, t, other).Get(ctx)
			fmt.Println(err)
			if err := other.Kill(); err != nil {
				return err
			}
		case "bare":
			fmt.Println(tallies.With(sdk.Durable()).New(ctx, 0).Ready(ctx))
		case "wide":
			fmt.Println(tallies.With(sdk.Durable(), sdk.Name("wide"), sdk.MaxConcurrency(2)).New(ctx, 0).Ready(ctx))
		default:
			return fmt.Errorf("what is %q?", what)
		}
	}
	return nil
}
