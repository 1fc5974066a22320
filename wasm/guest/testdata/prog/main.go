// Command prog is what the tests of the guest binding run: its driver does
// what its first argument names.
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand"
	randv2 "math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	"github.com/wray-project/wray/wasm/guest"
)

var errOdd = sdk.RegisterError("prog.errOdd", errors.New("odd"))

var (
	double  = sdk.Func("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	add     = sdk.Func2("add", func(_ context.Context, a, b int) (int, error) { return a + b, nil })
	nothing = sdk.Func0("nothing", func(context.Context) (int, error) { return 0, nil })
	ok      = sdk.Func0("ok", func(context.Context) ([]byte, error) { return okBytes, nil })
	sum     = sdk.Func("sum", func(_ context.Context, x []float64) (float64, error) {
		s := 0.0
		for _, v := range x {
			s += v
		}
		return s, nil
	})
	odd    = sdk.Func("odd", func(_ context.Context, n int) (int, error) { return 0, fmt.Errorf("%d: %w", n, errOdd) })
	crash  = sdk.Func("crash", func(_ context.Context, m map[string]int) (int, error) { m["x"]++; return 0, nil })
	goexit = sdk.Func0("goexit", func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	count  = sdk.Stream("count", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			if err := yield(i); err != nil {
				return err
			}
		}
		if n == 7 {
			return errOdd
		}
		return nil
	})
	sumRefs = sdk.Func("sumRefs", func(ctx context.Context, refs []sdk.Ref[int]) (int, error) {
		all, err := sdk.GetAll(ctx, refs)
		s := 0
		for _, v := range all {
			s += v
		}
		return s, err
	})
	halves = sdk.Func("halves", func(_ context.Context, b []byte) (sdk.Two[[]byte, string], error) {
		return sdk.Two[[]byte, string]{A: b[:len(b)/2], B: string(b[len(b)/2:])}, nil
	})
	nested = sdk.Func("nested", func(ctx context.Context, depth int) (int, error) { return fan(ctx, depth) })
	last   []byte
	stash  = sdk.Func("stash", func(_ context.Context, b []byte) (string, error) {
		old := string(last)
		last = b
		return old, nil
	})
	stuck = sdk.Func0("stuck", func(context.Context) (int, error) { select {} })
	// patient waits to be canceled, and for nothing else.
	patient = sdk.Func0("patient", func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
)

var nestedTask func(ctx context.Context, n int) sdk.Ref[int]

func init() {
	nestedTask = func(ctx context.Context, n int) sdk.Ref[int] { return nested.Remote(ctx, n) }
}

// fan adds up two smaller ones of itself.
func fan(ctx context.Context, depth int) (int, error) {
	if depth == 0 {
		return 1, nil
	}
	a, b := nestedTask(ctx, depth-1), nestedTask(ctx, depth-1)
	x, err := a.Get(ctx)
	if err != nil {
		return 0, err
	}
	y, err := b.Get(ctx)
	return x + y, err
}

var okBytes = []byte("ok")

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	if len(os.Args) < 2 {
		return nil
	}
	f := map[string]func(context.Context) error{
		"values": values, "gets": gets, "errors": failures, "streams": streams, "random": random,
		"windows": windows, "puts": puts, "waits": waits, "deadlock": deadlock, "bench": bench, "stash": stashes, "slabs": slabs, "lookalikes": lookalikes,
	}[os.Args[1]]
	if f == nil {
		return fmt.Errorf("no case %q", os.Args[1])
	}
	return f(ctx)
}

func check(what string, got, want any) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("%s: got %s, want %s", what, g, w)
	}
	return nil
}

func values(ctx context.Context) error {
	n, err := double.Remote(ctx, 21).Get(ctx)
	if err := errors.Join(err, check("double", n, 42)); err != nil {
		return err
	}
	r := add.RemoteArgs(ctx, double.Remote(ctx, 1), sdk.Val(5))
	n, err = add.RemoteArgs(ctx, r, r).Get(ctx)
	if err := errors.Join(err, check("add", n, 14)); err != nil {
		return err
	}
	r = double.Remote(ctx, 4)
	if _, err = r.Get(ctx); err != nil { // r now holds the value and no handle
		return err
	}
	n, err = add.RemoteArgs(ctx, r, r).Get(ctx)
	if err := errors.Join(err, check("add of kept", n, 16)); err != nil {
		return err
	}
	n, err = sumRefs.Remote(ctx, []sdk.Ref[int]{r, double.Remote(ctx, 5), r}).Get(ctx)
	if err := errors.Join(err, check("sumRefs", n, 26)); err != nil {
		return err
	}
	a, b := sdk.Split2(halves.Remote(ctx, []byte("hello world!")))
	x, err := a.Get(ctx)
	y, err2 := b.Get(ctx)
	if err := errors.Join(err, err2, check("halves", string(x)+"|"+y, "hello |world!")); err != nil {
		return err
	}
	both, err := halves.Remote(ctx, []byte("abcd")).Get(ctx)
	if err := errors.Join(err, check("both", string(both.A)+both.B, "abcd")); err != nil {
		return err
	}
	s, err := sum.Remote(ctx, []float64{1, 2, 3.5}).Get(ctx)
	if err := errors.Join(err, check("sum", s, 6.5)); err != nil {
		return err
	}
	n, err = nested.Remote(ctx, 4).Get(ctx)
	return errors.Join(err, check("nested", n, 16))
}

func gets(ctx context.Context) error {
	const n = 5000
	refs := make([]sdk.Ref[int], 100)
	for i := range refs {
		refs[i] = double.Remote(ctx, i)
	}
	sums := make([]int, n)
	var wg sync.WaitGroup
	ticks := 0
	done := make(chan bool)
	go func() { // runs while all others wait
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				ticks++
			}
		}
	}()
	for i := range n {
		wg.Go(func() {
			v, err := refs[i%len(refs)].Get(ctx)
			if err == nil && i%10 == 0 {
				v, err = double.Remote(ctx, v).Get(ctx)
				v /= 2
			}
			if err != nil {
				fmt.Println(err)
			}
			sums[i] = v
		})
	}
	wg.Wait()
	close(done)
	for i, v := range sums {
		if err := check("get", v, 2*(i%len(refs))); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Millisecond)
	defer cancel()
	_, err := stuck.Remote(ctx).Get(limited)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, wray.ErrTimeout) {
		return fmt.Errorf("get of what never comes: %v", err)
	}
	return nil
}

func failures(ctx context.Context) error {
	_, err := odd.Remote(ctx, 3).Get(ctx)
	var e *wray.Error
	if !errors.Is(err, errOdd) || !errors.As(err, &e) || e.Code != wray.CodeUserError || e.Attempt != 1 {
		return fmt.Errorf("odd: %v", err)
	}
	_, err = crash.Remote(ctx, nil).Get(ctx)
	if !errors.Is(err, wray.ErrPanic) || !errors.As(err, &e) || !strings.Contains(e.Trace, "main.go") || !strings.Contains(e.Message, "nil map") {
		return fmt.Errorf("crash: %v", err)
	}
	if strings.Contains(e.Trace, "panicOf") {
		return fmt.Errorf("the trace begins with the recovery:\n%s", e.Trace)
	}
	_, err = goexit.Remote(ctx).Get(ctx)
	if !errors.As(err, &e) || !strings.Contains(e.Message, "Goexit") {
		return fmt.Errorf("goexit: %v", err)
	}
	_, err = sdk.Import[int, int](sdk.Module("none"), "f").Remote(ctx, 1).Get(ctx)
	if !errors.Is(err, wray.ErrUnknownFunction) {
		return fmt.Errorf("unknown: %v", err)
	}
	_, err = sdk.Import[string, int](sdk.Module(""), "double").Remote(ctx, "x").Get(ctx)
	if !errors.Is(err, wray.ErrBadArgument) || !strings.Contains(err.Error(), "int") {
		return fmt.Errorf("bad argument: %v", err)
	}
	_, err = sdk.Import[int, []int32](sdk.Module(""), "double").Remote(ctx, 1).Get(ctx)
	if !errors.Is(err, wray.ErrBadArgument) || !strings.Contains(err.Error(), "[]int32") || !strings.Contains(err.Error(), "CBOR") {
		return fmt.Errorf("bad result: %v", err)
	}
	return nil
}

func streams(ctx context.Context) error {
	n := 0
	for v, err := range count.With(sdk.Window(3)).Remote(ctx, 100).All(ctx) {
		if err := errors.Join(err, check("item", v, n)); err != nil {
			return err
		}
		n++
	}
	if err := check("items", n, 100); err != nil {
		return err
	}
	n = 0
	for _, err := range count.Remote(ctx, 7).All(ctx) {
		if n++; n == 8 {
			if !errors.Is(err, errOdd) {
				return fmt.Errorf("the end of a failed stream: %v", err)
			}
		} else if err != nil {
			return err
		}
	}
	if err := check("items and error", n, 8); err != nil {
		return err
	}
	for v, err := range count.Remote(ctx, 1_000_000).All(ctx) {
		if err != nil {
			return err
		}
		if v == 5 {
			break
		}
	}
	return nil
}

func random(context.Context) error {
	m := map[int]bool{}
	for i := range 12 {
		m[i] = true
	}
	var order []int
	for k := range m {
		order = append(order, k)
	}
	fmt.Println("rand", rand.Int63(), "v2", randv2.Uint64())
	fmt.Println("hash", maphash.String(maphash.MakeSeed(), "x"))
	fmt.Println("map", order)
	a, b := make(chan int, 64), make(chan int, 64)
	for range 64 {
		a <- 0
		b <- 1
	}
	picks := 0
	for range 64 {
		select {
		case <-a:
			picks <<= 1
		case <-b:
			picks = picks<<1 | 1
		}
	}
	fmt.Println("select", picks)
	return nil
}

func windows(ctx context.Context) error {
	const n = 1 << 20
	for round := range 40 {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(round)
		}
		ref, err := sdk.Put(ctx, data)
		if err != nil {
			return err
		}
		got, err := ref.Get(ctx)
		if err != nil {
			return err
		}
		ref = sdk.Ref[[]byte]{}
		tail := got[n-10:]
		got = nil
		runtime.GC()
		garbage := make([]byte, n/2)
		runtime.GC()
		for i := range garbage {
			garbage[i] = 0xff
		}
		// tail alone keeps the window.
		if err := check("tail", tail, data[n-10:]); err != nil {
			return err
		}
		s, err := sum.Remote(ctx, make([]float64, n/8)).Get(ctx)
		if err := errors.Join(err, check("sum", s, 0)); err != nil {
			return err
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Println("heap", m.HeapSys>>20, "MiB")
	if m.HeapSys > 40<<20 {
		return fmt.Errorf("windows are not used again: the heap is %d MiB", m.HeapSys>>20)
	}
	return nil
}

// puts puts far more than the store holds, and drops it.
func puts(ctx context.Context) error {
	for i := range 200 {
		if _, err := sdk.Put(ctx, make([]byte, 100<<10)); err != nil {
			return fmt.Errorf("put %d: %w", i, err)
		}
	}
	for i := range 100_000 {
		if _, err := sdk.Put(ctx, make([]byte, 100)); err != nil {
			return fmt.Errorf("small put %d: %w", i, err)
		}
	}
	return nil
}

// slabs gets lists that are long enough for slabs, in a store that does not hold
// all that they name: one reference of each list is kept, the others go.
func slabs(ctx context.Context) error {
	const n, size = 2000, 4 << 10
	var kept []sdk.Ref[[]byte]
	for round := range 6 {
		refs := make([]sdk.Ref[[]byte], n)
		for i := range refs {
			b := make([]byte, size)
			b[0], b[1], b[2] = byte(round), byte(i), byte(i>>8)
			var err error
			if refs[i], err = sdk.Put(ctx, b); err != nil {
				return fmt.Errorf("round %d, put %d: %w", round, i, err)
			}
		}
		list, err := sdk.Put(ctx, refs)
		if err != nil {
			return err
		}
		refs = nil
		got, err := list.Get(ctx)
		if err := errors.Join(err, check("length of the list", len(got), n)); err != nil {
			return err
		}
		kept = append(kept, got[round*331])
	}
	for round, r := range kept {
		b, err := r.Get(ctx)
		if err := errors.Join(err, check("what is kept", b[:3], []byte{byte(round), byte(round * 331), byte(round * 331 >> 8)})); err != nil {
			return err
		}
	}
	kept = nil

	// References in slabs wait, are waited for, and have windows, as others.
	results := make([]sdk.Ref[int], n)
	for i := range results {
		results[i] = double.Remote(ctx, i)
	}
	list, err := sdk.Put(ctx, results)
	if err != nil {
		return err
	}
	results, err = list.Get(ctx)
	if err != nil {
		return err
	}
	first := make(chan error, 1)
	go func() {
		v, err := results[n-1].Get(ctx)
		first <- errors.Join(err, check("the last", v, 2*(n-1)))
	}()
	ready, pending, err := sdk.Wait(ctx, results, n, -1)
	if err := errors.Join(err, check("ready", len(ready)+len(pending), n), check("pending", len(pending), 0), <-first); err != nil {
		return err
	}
	all, err := sdk.GetAll(ctx, results)
	if err != nil {
		return err
	}
	for i, v := range all {
		if v != 2*i {
			return fmt.Errorf("result %d is %d", i, v)
		}
	}
	large := make([]sdk.Ref[[]byte], n)
	b := make([]byte, 200<<10)
	for i := range large {
		part := b[:1]
		if i%500 == 0 {
			part = b
		}
		part[0] = byte(i / 500)
		if large[i], err = sdk.Put(ctx, part); err != nil {
			return err
		}
	}
	largeList, err := sdk.Put(ctx, large)
	if err != nil {
		return err
	}
	if large, err = largeList.Get(ctx); err != nil {
		return err
	}
	var views [][]byte
	for i := 0; i < n; i += 500 {
		v, err := large[i].Get(ctx)
		again, err2 := large[i].Get(ctx)
		if err := errors.Join(err, err2, check("large value", v[0], i/500), check("large value, again", again[0], i/500), check("its length", len(again), len(b))); err != nil {
			return err
		}
		views = append(views, v)
	}
	large = nil
	for range 3 {
		runtime.GC()
		runtime.Gosched()
	}
	for i, v := range views {
		if err := check("large value, later", v[0], i); err != nil {
			return err
		}
	}
	return nil
}

// lookalike is as large as a reference, has pointers as one has, and begins with a
// number as one does: anything may.
type lookalike struct {
	number   uint64
	pointers [5]*uint64
}

// kept holds lookalikes, to the end.
var kept []*lookalike

// lookalikes drops references and puts into the places of some, before the binding
// has looked there, what begins with the same number and lives on.
func lookalikes(ctx context.Context) error {
	const n, enough = 2000, 20
	numbers := make(map[uintptr]uint32, n) // of the handle, by where its reference is
	for i := range n {
		r, err := sdk.Put(ctx, i)
		if err != nil {
			return err
		}
		at := *(*uintptr)(unsafe.Pointer(&r))
		numbers[at] = *(*uint32)(unsafe.Pointer(at)) //nolint:govet // r lives
		runtime.KeepAlive(r)
	}
	for hits := 0; hits < enough; {
		if len(kept) > 1<<20 {
			return fmt.Errorf("no place of a reference was used again, but %d", hits)
		}
		o := new(lookalike)
		if h := numbers[uintptr(unsafe.Pointer(o))]; h != 0 {
			o.number = uint64(h)
			hits++
		}
		kept = append(kept, o)
	}
	for guest.Reclaim() {
	}
	kept = nil
	if guest.Reclaim() {
		return errors.New("the handles of references that were gone were kept for what lay in their places")
	}
	return nil
}

func waits(ctx context.Context) error {
	refs := make([]sdk.Ref[int], 1000)
	for i := range refs {
		refs[i] = double.Remote(ctx, i)
	}
	for len(refs) > 0 {
		ready, pending, err := sdk.Wait(ctx, refs, 1, -1)
		if err != nil || len(ready) == 0 || len(ready)+len(pending) != len(refs) {
			return fmt.Errorf("wait: %d ready, %d pending, %v", len(ready), len(pending), err)
		}
		if _, err := sdk.GetAll(ctx, ready); err != nil {
			return err
		}
		refs = pending
	}
	never := []sdk.Ref[int]{stuck.Remote(ctx)}
	ready, pending, err := sdk.Wait(ctx, never, 1, 2*time.Millisecond)
	if len(ready) != 0 || len(pending) != 1 || err != nil {
		return fmt.Errorf("wait for what never comes: %v, %v, %v", ready, pending, err)
	}
	return nil
}

// stashes checks that an argument which a task keeps is not overwritten by
// the next task's.
func stashes(ctx context.Context) error {
	if _, err := stash.Remote(ctx, []byte("first")).Get(ctx); err != nil {
		return err
	}
	s, err := stash.Remote(ctx, []byte("2nd..")).Get(ctx)
	if err != nil {
		return err
	}
	return check("stash", s, "first")
}

func deadlock(ctx context.Context) error {
	if len(os.Args) > 2 && os.Args[2] == "canceled" {
		if _, err := patient.Remote(ctx).Get(ctx); !errors.Is(err, wray.ErrCanceled) {
			return fmt.Errorf("a task that waits to be canceled: %v", err)
		}
		return nil
	}
	if len(os.Args) > 2 {
		_, err := stuck.Remote(ctx).Get(ctx)
		if !errors.Is(err, wray.ErrDeadlock) {
			return fmt.Errorf("a stuck task: %v", err)
		}
		var e *wray.Error
		if errors.As(err, &e) && !strings.Contains(e.Trace, "main.go") {
			return fmt.Errorf("trace: %s", e.Trace)
		}
		return nil
	}
	<-make(chan int)
	return nil
}

func bench(ctx context.Context) error {
	measure := func(name string, n int, f func()) {
		best := time.Hour
		for range 5 {
			t := time.Now()
			for range n {
				f()
			}
			best = min(best, time.Since(t))
		}
		fmt.Printf("%-24s %8.0f ns\n", name, float64(best.Nanoseconds())/float64(n))
	}
	var err error
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	zero, e := sdk.Put(ctx, 0)
	keep(e)
	if which := os.Args[2]; which != "all" {
		n, _ := strconv.Atoi(os.Args[3])
		for range n {
			switch which {
			case "put":
				_, e = sdk.Put(ctx, 0)
			case "get":
				_, e = zero.Get(ctx)
			case "submit":
				nothing.Remote(ctx)
			case "get of a result":
				_, e = nothing.Remote(ctx).Get(ctx)
			}
			keep(e)
		}
		return err
	}
	measure("get small", 20000, func() { _, e := zero.Get(ctx); keep(e) })
	measure("put small", 20000, func() { _, e := sdk.Put(ctx, 0); keep(e) })
	measure("task sync", 2000, func() { _, e := ok.Remote(ctx).Get(ctx); keep(e) })
	refs := make([]sdk.Ref[[]byte], 1000)
	var submit, get time.Duration = time.Hour, time.Hour
	for range 10 {
		t0 := time.Now()
		for j := range refs {
			refs[j] = ok.Remote(ctx)
		}
		t1 := time.Now()
		_, _, e := sdk.Wait(ctx, refs, len(refs), -1)
		keep(e)
		t2 := time.Now()
		_, e = sdk.GetAll(ctx, refs)
		keep(e)
		submit, get = min(submit, t1.Sub(t0)), min(get, time.Since(t2))
	}
	fmt.Printf("%-24s %8d ns\n", "submit", submit.Nanoseconds()/1000)
	fmt.Printf("%-24s %8d ns\n", "get of a ready result", get.Nanoseconds()/1000)
	measure("tasks async", 20, func() {
		for j := range refs {
			refs[j] = ok.Remote(ctx)
		}
		_, e := sdk.GetAll(ctx, refs)
		keep(e)
	})
	return err
}
