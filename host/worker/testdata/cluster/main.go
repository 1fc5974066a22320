// Command cluster does what its argument says, with tasks on nodes that have the
// resource "there", which the driver's node has not.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type hoarded struct{ Ref sdk.Ref[[]sdk.Ref[int]] }

type box struct {
	Note string
	Ref  sdk.Ref[[]byte]
}

var errFlaky = sdk.RegisterError("cluster.flaky", errors.New("flaky"))

var (
	there  = sdk.Resource("there", 1)
	fails  = sdk.Func0("fails", func(context.Context) (int, error) { return 0, errors.New("as it should") }).With(there)
	panics = sdk.Func0("panics", func(context.Context) (int, error) { panic("loud") }).With(there)
	flaky  = sdk.Func0("flaky", func(context.Context) (int, error) { return 0, errFlaky }).With(there, sdk.RetryOn(errFlaky), sdk.Retries(2))
	spin   = sdk.Func0("spin", func(ctx context.Context) (int, error) {
		for i := 0; ; i++ {
			if i%(1<<24) == 0 && ctx.Err() != nil {
				return 0, ctx.Err()
			}
		}
	}).With(there)
	speaks = sdk.Func("speaks", func(_ context.Context, n int) (int, error) {
		for i := range n {
			fmt.Println("line", i)
		}
		return n, nil
	}).With(there)
	large = sdk.Func("large", func(_ context.Context, n int) ([]byte, error) {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i % 251)
		}
		return b, nil
	}).With(there)
	sum = sdk.Func("sum", func(_ context.Context, b []byte) (int, error) {
		s := 0
		for _, c := range b {
			s += int(c)
		}
		return s, nil
	}).With(there)
	pack = sdk.Func("pack", func(ctx context.Context, n int) (box, error) {
		b := make([]byte, n)
		b[n-1] = 7
		r, err := sdk.Put(ctx, b)
		return box{"packed", r}, err
	}).With(sdk.Resource("b", 1))
	unpack = sdk.Func("unpack", func(ctx context.Context, x box) (box, error) {
		b, err := x.Ref.Get(ctx)
		if err != nil {
			return box{}, err
		}
		return box{fmt.Sprint(x.Note, " ", len(b), " ", b[len(b)-1]), x.Ref}, nil
	}).With(sdk.Resource("c", 1))
	toils = sdk.Func("toils", func(_ context.Context, ms int) (int, error) {
		for begun := time.Now(); time.Since(begun) < time.Duration(ms)*time.Millisecond; {
		}
		return ms, nil
	}).With(there)
	inner = sdk.Func("inner", func(_ context.Context, n int) (int, error) { return n * n, nil })
	outer = sdk.Func("outer", func(ctx context.Context, n int) (int, error) {
		refs := make([]sdk.Ref[int], n)
		for i := range refs {
			refs[i] = inner.Remote(ctx, i)
		}
		all, err := sdk.GetAll(ctx, refs)
		s := 0
		for _, v := range all {
			s += v
		}
		return s, err
	}).With(there)
	reads = sdk.Func("reads", func(_ context.Context, name string) (string, error) {
		// Long enough that there is no room for all on one node.
		for begun := time.Now(); time.Since(begun) < 20*time.Millisecond; {
		}
		b, err := os.ReadFile(name)
		return string(b), err
	})
	asks = sdk.Func0("asks", func(ctx context.Context) (int, error) {
		a := counters.New(ctx, 40)
		r := bump.Remote(ctx, a, 2)
		return r.Get(ctx)
	})
	hoard = sdk.Func("hoard", func(ctx context.Context, n int) ([]sdk.Ref[int], error) {
		list := make([]sdk.Ref[int], n)
		for i := range list {
			r, err := sdk.Put(ctx, i)
			if err != nil {
				return nil, err
			}
			list[i] = r
		}
		return list, nil
	})
	count = sdk.Func("count", func(_ context.Context, list []sdk.Ref[int]) (int, error) { return len(list), nil }).With(there)
	peek  = sdk.Func("peek", func(ctx context.Context, x hoarded) (int, error) {
		list, err := x.Ref.Get(ctx)
		if err != nil {
			err = errors.New(err.Error())
		}
		return len(list), err
	}).With(there)
	odd      = sdk.Func("odd\xff", func(_ context.Context, n int) (int, error) { return n, nil })
	counters = sdk.Actor("counter", func(_ context.Context, n int) (*int, error) { return &n, nil })
	bump     = sdk.Method(counters, "bump", func(n *int, _ context.Context, by int) (int, error) { *n += by; return *n, nil })
)

func say(what string, v any, err error) {
	var e *wray.Error
	if errors.As(err, &e) {
		fmt.Printf("%s: %v on %s, attempt %d, trace %v: %s\n", what, e.Code, e.Node, e.Attempt, e.Trace != "", e.Message)
		return
	}
	fmt.Printf("%s: %v %v\n", what, v, err)
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	in := bufio.NewReader(os.Stdin)
	await := func(said string) { // the test does something, and says that it has
		fmt.Println(said)
		_, _ = in.ReadString('\n')
	}
	switch os.Args[1] {
	case "errors":
		for name, f := range map[string]sdk.Task0[int]{"fails": fails, "panics": panics, "flaky": flaky, "spin": spin.With(sdk.Timeout(50 * time.Millisecond))} {
			v, err := f.Remote(ctx).Get(ctx)
			say(name, v, err)
		}
		r := spin.Remote(ctx)
		await("canceling")
		r.Cancel()
		v, err := r.Get(ctx)
		say("canceled", v, err)
	case "print":
		v, err := speaks.Remote(ctx, 20_000).Get(ctx)
		say("speaks", v, err)
	case "large":
		r := large.Remote(ctx, 3<<20+5)
		v, err := sum.RemoteArgs(ctx, r).Get(ctx)
		say("sum", v, err)
		b, err := r.Get(ctx)
		say("large", len(b), err)
		x := unpack.RemoteArgs(ctx, pack.Remote(ctx, 100_000))
		got, err := x.Get(ctx)
		say("unpack", got.Note, err)
		b, err = got.Ref.Get(ctx)
		say("packed", len(b), err)
	case "late": // a node that is not there yet
		ref := inner.With(sdk.OnNode("d"), sdk.Labels("zone=east")).Remote(ctx, 7)
		fmt.Println("asked")
		v, err := ref.Get(ctx)
		say("late", v, err)
	case "nested":
		v, err := outer.Remote(ctx, 20).Get(ctx)
		say("outer", v, err)
	case "home":
		refs := make([]sdk.Ref[string], 6)
		for i := range refs {
			refs[i] = reads.Remote(ctx, "/data/file")
		}
		v, err := sdk.GetAll(ctx, refs)
		say("reads", v, err)
		asked := make([]sdk.Ref[int], 6)
		for i := range asked {
			asked[i] = asks.Remote(ctx)
		}
		n, err := sdk.GetAll(ctx, asked)
		say("asks", n, err)
	case "lost":
		kept := large.Remote(ctx, 1<<20)
		if _, _, err := sdk.Wait(ctx, []sdk.Ref[[]byte]{kept}, 1, time.Minute); err != nil {
			return err
		}
		r := spin.With(sdk.Retries(0)).Remote(ctx)
		await("made")
		b, err := kept.Get(ctx)
		say("kept", len(b), err)
		v, err := r.Get(ctx)
		say("spin", v, err)
		v, err = sum.RemoteArgs(ctx, kept).Get(ctx)
		say("sum", v, err)
	case "leaves":
		kept := large.Remote(ctx, 1<<20)
		packed := pack.Remote(ctx, 100_000)
		if _, err := packed.Get(ctx); err != nil {
			return err
		}
		if _, _, err := sdk.Wait(ctx, []sdk.Ref[[]byte]{kept}, 1, time.Minute); err != nil {
			return err
		}
		r := toils.Remote(ctx, 500)
		await("made")
		b, err := kept.Get(ctx)
		say("kept", len(b), err)
		x, err := packed.Get(ctx)
		if err != nil {
			return err
		}
		b, err = x.Ref.Get(ctx)
		say("packed", len(b), err)
		v, err := r.Get(ctx)
		say("toils", v, err)
	case "moves":
		v, err := toils.With(sdk.Retries(0)).Remote(ctx, 2000).Get(ctx)
		say("toils", v, err)
	case "many":
		n, err := strconv.Atoi(os.Args[2])
		if err != nil {
			return err
		}
		refs := make([]sdk.Ref[int], n)
		for i := range refs {
			refs[i] = inner.With(there).Remote(ctx, i)
		}
		_, err = sdk.GetAll(ctx, refs)
		say("many", n, err)
	case "groups":
		return inGroups(ctx, await)
	case "actors":
		return actors(ctx, await)
	case "saves":
		return saves(ctx, await, os.Args[2:])
	case "keyed":
		return keyed(ctx)
	case "ahead":
		return ahead(ctx, await, os.Args[2:])
	case "hoard": // what cannot travel
		const n = 70_000
		_, err := hoard.With(there).Remote(ctx, n).Get(ctx)
		say("hoard", 0, err)
		kept := hoard.Remote(ctx, n)
		list, err := kept.Get(ctx)
		say("kept", len(list), err)
		v, err := count.RemoteArgs(ctx, kept).Get(ctx)
		say("count", v, err)
		v, err = peek.Remote(ctx, hoarded{kept}).Get(ctx)
		say("peek", v, err)
		v, err = odd.With(there).Remote(ctx, 3).Get(ctx)
		say("odd", v, err)
		v, err = inner.With(there, sdk.Name("na\xfeme")).Remote(ctx, 7).Get(ctx)
		say("inner", v, err)
	case "stop":
		r := inner.With(there).Remote(ctx, 3)
		await("asked")
		r.Cancel()
		_, err := r.Get(ctx)
		say("stopped", 0, err)
		await("canceled")
	case "cut":
		r := large.Remote(ctx, 1<<20)
		await("asked")
		b, err := r.Get(ctx)
		say("large", len(b), err)
	}
	return nil
}
