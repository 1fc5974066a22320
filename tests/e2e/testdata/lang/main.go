// Lang uses tasks and actors of c/guest.c, and prints what went wrong.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type counterClass struct{}
type otherClass struct{}

var (
	c       = sdk.Module("guest")
	counter = sdk.ImportActor[counterClass, int](c, "counter")
	add     = sdk.ImportMethod[int, int](counter, "add")
	keep    = sdk.ImportMethod[sdk.Ref[[]byte], struct{}](counter, "keep")
	kept    = sdk.ImportMethod0[[]byte](counter, "kept")
	keptRef = sdk.ImportMethod0[sdk.Ref[[]byte]](counter, "kept_ref")
	save    = sdk.ImportMethod0[struct{}](counter, "save")
	crash   = sdk.ImportMethod0[struct{}](counter, "crash")
	letters = sdk.ImportStreamMethod[int, []byte](counter, "stream")
	missing = sdk.ImportMethod0[int](counter, "missing")
	addText = sdk.ImportMethod[string, int](counter, "add")
	add2    = sdk.ImportMethod2[int, int, int](counter, "add")

	other    = sdk.ImportActor0[otherClass](c, "other")
	otherGet = sdk.ImportMethod0[int](other, "get")
	// The class says counter, the function is other's.
	mixed   = sdk.ImportMethod0[int](sdk.ImportActor0[counterClass](c, "other"), "get")
	asActor = sdk.ImportActor[counterClass, int](c, "sum")
	asTask  = sdk.Import[int, struct{}](c, "counter")

	both      = sdk.Import[int, sdk.Two[int, []byte]](c, "both")
	mean      = sdk.Import[[]float64, float64](c, "mean")
	nothing   = sdk.Import2[int, int, struct{}](c, "nothing")
	sum       = sdk.Import[int, int](c, "sum")
	crashTask = sdk.Import0[struct{}](c, "crash")
	caught    = sdk.Import0[string](c, "caught")
	because   = sdk.Import[int, string](c, "caught")
	counting  = sdk.ImportStream[int, int](c, "counting")
	restores  = sdk.Import0[int](c, "restores")
	patient   = sdk.Import[sdk.Handle[counterClass], struct{}](c, "patient")

	errSeven    = sdk.RegisterError("lang.ErrSeven", errors.New("seven"))
	errNegative = sdk.RegisterError("lang.ErrNegative", errors.New("negative"))
)

type tree struct {
	Name  string
	Bytes []byte
	Ints  []any
	Map   map[string]float64
	Ref   sdk.Ref[string]
	Kids  []tree
	None  *int
	Yes   bool
}

// callTwice is given an actor, and calls it from another sandbox.
var callTwice = sdk.Func("call twice", func(ctx context.Context, h sdk.Handle[counterClass]) (int, error) {
	add.Remote(ctx, h, 1)
	return add.Remote(ctx, h, 1).Get(ctx)
})

func main() { sdk.Main(run) }

var wrong int

func check(what string, ok bool, args ...any) {
	if !ok {
		wrong++
		fmt.Println("WRONG:", what, fmt.Sprint(args...))
	}
}

func same[T any](ctx context.Context, what string, v T) {
	got, err := sdk.Import[T, T](c, "echo").Remote(ctx, v).Get(ctx)
	check(what, err == nil && reflect.DeepEqual(got, v), got, err)
}

func fails(what string, err error, as error, text string) {
	check(what, errors.Is(err, as) && strings.Contains(err.Error(), text), err)
}

func run(ctx context.Context) error {
	values(ctx)
	tasks(ctx)
	actors(ctx)
	lost(ctx)
	many(ctx)
	if wrong > 0 {
		return fmt.Errorf("%d wrong", wrong)
	}
	fmt.Println("all right")
	return nil
}

func values(ctx context.Context) {
	same(ctx, "bytes", []byte("abc"))
	same(ctx, "no bytes", []byte{})
	same(ctx, "large bytes", bytes.Repeat([]byte("0123456789"), 30001))
	same(ctx, "numbers", []int32{1, -2, math.MaxInt32})
	same(ctx, "large text", strings.Repeat("wörter ", 20000))
	for _, n := range []int64{0, 23, 24, 255, 256, 65535, 65536, 1 << 32, math.MaxInt64, -1, -24, -25, math.MinInt64} {
		same(ctx, "integer", n)
	}
	same(ctx, "large integer", uint64(math.MaxUint64))
	same(ctx, "float", 1.5)
	same(ctx, "float32", float32(-0.25))
	text, err := sdk.Put(ctx, "inside")
	check("put", err == nil, err)
	v := tree{Name: "t", Bytes: []byte{0}, Ints: []any{uint64(1), "x", nil, true, 2.5}, Map: map[string]float64{"π": math.Pi},
		Ref: text, Kids: []tree{{Name: "kid", Ref: text}}, Yes: true}
	got, err := sdk.Import[tree, tree](c, "echo").Remote(ctx, v).Get(ctx)
	if check("tree", err == nil && len(got.Kids) == 1, got, err); err == nil && len(got.Kids) == 1 {
		a, err := got.Ref.Get(ctx)
		b, err2 := got.Kids[0].Ref.Get(ctx)
		check("refs", a == "inside" && b == "inside", a, b, err, err2)
		got.Ref, got.Kids[0].Ref = text, text
		check("tree", reflect.DeepEqual(got, v), got)
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		m := map[string][]int64{}
		for range r.IntN(20) {
			list := []int64{}
			for range r.IntN(20) {
				list = append(list, int64(r.Uint64()>>r.IntN(64)))
			}
			m[fmt.Sprint(r.Uint64())] = list
		}
		same(ctx, fmt.Sprint("random, seed ", seed), m)
	}
}

func tasks(ctx context.Context) {
	t, err := both.Remote(ctx, 5).Get(ctx)
	check("two results", err == nil && t.A == 5 && string(t.B) == "two", t, err)
	x := make([]float64, 100000)
	for i := range x {
		x[i] = float64(i)
	}
	m, err := mean.Remote(ctx, x).Get(ctx)
	check("mean", m == 49999.5, m, err)
	ref, err := sdk.Put(ctx, x[:3])
	check("put", err == nil, err)
	m, err = mean.RemoteArgs(ctx, ref).Get(ctx)
	check("mean of a reference", m == 1, m, err)
	_, err = nothing.Remote(ctx, 1, 2).Get(ctx)
	check("no result", err == nil, err)
	n, err := sum.Remote(ctx, 5).Get(ctx)
	check("sum", n == 32, n, err)
	_, err = sdk.Import[[]int64, float64](c, "mean").Remote(ctx, []int64{1}).Get(ctx)
	fails("wrong numbers", err, wray.ErrBadArgument, "argument 0: a slice of other numbers is wanted")
	_, err = sdk.Import[string, int](c, "sum").Remote(ctx, "x").Get(ctx)
	fails("wrong type", err, wray.ErrBadArgument, "argument 0: an integer of 64 bits is wanted")
	_, err = sdk.Import0[int](c, "sum").Remote(ctx).Get(ctx)
	fails("no argument", err, wray.ErrBadArgument, "argument 0 is wanted, and there are 0")
	_, err = sdk.Import0[int](c, "absent").Remote(ctx).Get(ctx)
	fails("no such task", err, wray.ErrUnknownFunction, "absent")
	_, err = crashTask.Remote(ctx).Get(ctx)
	fails("crash", err, wray.ErrTrap, "unreachable")
	code, err := caught.Remote(ctx).Get(ctx)
	check("a failure read in C", code == fmt.Sprint(uint32(wray.CodeTrap)), code, err)
	_, err = because.Remote(ctx, 1).Get(ctx)
	fails("a failure passed on", err, wray.ErrDependencyFailed, "as it was asked to")
	fails("its cause", err, wray.ErrTrap, "unreachable")
	for i := range 3 {
		n, err = restores.Remote(ctx).Get(ctx)
		check("restored", n == 1, i, n, err)
	}

	items := counting.With(sdk.Window(2)).Remote(ctx, 7)
	i := 0
	for n, err := range items.All(ctx) {
		if err != nil {
			fails("a stream's failure", err, errSeven, "seven")
			break
		}
		check("item", n == i, n)
		i++
	}
	check("items", i == 7, i)
	items = counting.With(sdk.Window(1)).Remote(ctx, 1<<40)
	n, err = items.Next(ctx)
	check("first item", n == 0, n, err)
	items.Close()

	h := counter.New(ctx, 0)
	p := patient.Remote(ctx, h)
	await(ctx, h, 1)
	check("cancel", p.Cancel() == nil)
	await(ctx, h, 2)
	_, err = p.Get(ctx)
	fails("canceled", err, wray.ErrCanceled, "")
}

// await waits until a counter has come to n.
func await(ctx context.Context, h sdk.Handle[counterClass], n int) {
	for ctx.Err() == nil {
		if have, err := add.Remote(ctx, h, 0).Get(ctx); err != nil || have == n {
			check("await", err == nil, err)
			return
		}
	}
}

func actors(ctx context.Context) {
	h := counter.New(ctx, 100)
	check("ready", h.Ready(ctx) == nil)
	var refs []sdk.Ref[int]
	for i := range 100 {
		refs = append(refs, add.Remote(ctx, h, i))
	}
	all, err := sdk.GetAll(ctx, refs)
	total := 100
	for i, n := range all {
		total += i
		check("in order", n == total, i, n)
	}
	check("calls", err == nil && len(all) == 100, err)
	n, err := callTwice.Remote(ctx, h).Get(ctx)
	check("a handle passed on", n == total+2, n, err)

	big := bytes.Repeat([]byte("big"), 100000)
	ref, err := sdk.Put(ctx, big)
	check("put", err == nil, err)
	_, err = keep.Remote(ctx, h, ref).Get(ctx)
	check("keep", err == nil, err)
	b, err := kept.Remote(ctx, h).Get(ctx)
	check("kept", bytes.Equal(b, big), len(b), err)
	again, err := keptRef.Remote(ctx, h).Get(ctx)
	check("kept", err == nil, err)
	b, err = again.Get(ctx)
	check("a reference given back", bytes.Equal(b, big), len(b), err)

	var got []byte
	for b, err := range letters.Remote(ctx, h, 0).All(ctx) {
		check("letter", err == nil, err)
		got = append(got, b...)
	}
	check("letters", string(got) == "abc", string(got))

	_, err = addText.Remote(ctx, h, "x").Get(ctx)
	fails("wrong type", err, wray.ErrBadArgument, "argument 0")
	_, err = add2.Remote(ctx, h, 1, 2).Get(ctx)
	check("an argument more", err == nil, err) // C does not mind
	_, err = missing.Remote(ctx, h).Get(ctx)
	fails("no such method", err, wray.ErrUnknownFunction, "counter.missing")
	_, err = mixed.Remote(ctx, h).Get(ctx)
	fails("another class", err, wray.ErrBadArgument, "the actor is of the class counter, and not of other")
	fails("a task as a class", asActor.New(ctx, 1).Ready(ctx), wray.ErrBadArgument, "sum is a task")
	_, err = asTask.Remote(ctx, 1).Get(ctx)
	fails("a class as a task", err, wray.ErrBadArgument, "counter is of an actor")
	fails("a constructor's error", counter.New(ctx, -5).Ready(ctx), errNegative, "-5 is below 0")
	fails("several calls at once", manyAtOnce(ctx), wray.ErrBadArgument, "")

	named := other.With(sdk.Name("only"), sdk.GetIfExists())
	a, err := otherGet.Remote(ctx, named.New(ctx)).Get(ctx)
	check("named", a == 7, a, err)
}

func manyAtOnce(ctx context.Context) error {
	_, err := add.Remote(ctx, counter.With(sdk.MaxConcurrency(2)).New(ctx, 0), 1).Get(ctx)
	return err
}

// lost has actors lose their sandboxes.
func lost(ctx context.Context) {
	h := counter.New(ctx, 0)
	_, err := crash.Remote(ctx, h).Get(ctx)
	fails("crash", err, wray.ErrActorDied, "unreachable")
	_, err = add.Remote(ctx, h, 1).Get(ctx)
	fails("after it", err, wray.ErrActorDied, "")

	h = counter.With(sdk.MaxRestarts(-1)).New(ctx, 10)
	add.Remote(ctx, h, 5)
	_, err = crash.Remote(ctx, h).Get(ctx)
	fails("crash", err, wray.ErrActorDied, "starts again")
	n, err := add.Remote(ctx, h, 1).Get(ctx)
	check("from its constructor", n == 11, n, err)

	ref, err := sdk.Put(ctx, []byte("kept over a restart"))
	check("put", err == nil, err)
	keep.Remote(ctx, h, ref)
	check("checkpoint", h.Checkpoint(ctx) == nil)
	check("restart", h.Restart() == nil)
	n, err = add.Remote(ctx, h, 1).Get(ctx)
	check("from its checkpoint", n == 12, n, err)
	b, err := kept.Remote(ctx, h).Get(ctx)
	check("with its reference", string(b) == "kept over a restart", string(b), err)
	_, err = save.Remote(ctx, h).Get(ctx)
	check("a checkpoint of its own", err == nil, err)
	check("restart", h.Restart() == nil)
	n, err = add.Remote(ctx, h, 0).Get(ctx)
	check("from that", n == 12, n, err)

	h = counter.With(sdk.MaxRestarts(-1), sdk.CheckpointEvery(1), sdk.MaxTaskRetries(0)).New(ctx, 0)
	for i := range 10 {
		n, err := add.Remote(ctx, h, 1).Get(ctx)
		check("call", n == i+1, n, err)
		check("restart", h.Restart() == nil)
	}
}

// many has more actors than may have sandboxes at once, so that they sleep.
func many(ctx context.Context) {
	var hs [12]sdk.Handle[counterClass]
	for i := range hs {
		hs[i] = counter.With(sdk.Idle(time.Hour)).New(ctx, 1000*i)
	}
	for round := range 3 {
		for i, h := range hs {
			n, err := add.Remote(ctx, h, 1).Get(ctx)
			check("actor", n == 1000*i+round+1, i, n, err)
		}
	}
}
