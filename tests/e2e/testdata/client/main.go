//go:build !wasip1

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := sdk.Connect(ctx, os.Args[1], sdk.ConnectOptions{Module: os.Args[2]})
	if err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		os.Exit(1)
	}
	if os.Args[3] == "hold" {
		err = hold(ctx)
	} else {
		err = all(ctx)
	}
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println("fine")
}

// hold holds what only its death lets go of.
func hold(ctx context.Context) error {
	big, err := sdk.Put(ctx, make([]byte, 3<<20))
	if err != nil {
		return err
	}
	v, err := big.Get(ctx)
	if err != nil {
		return err
	}
	running := forever.Remote(ctx)
	c := counter.New(ctx, 1)
	if _, err := add.Remote(ctx, c, 1).Get(ctx); err != nil {
		return err
	}
	fmt.Println("holding")
	_, err = running.Get(ctx)
	runtime.KeepAlive(v)
	return err
}

func want[T comparable](what string, got T, err error, want T) error {
	if err != nil || got != want {
		return fmt.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
	return nil
}

// more frees, asks about, makes in place, and takes checkpoints.
func more(ctx context.Context) error {
	var errs []error
	check := func(err error) { errs = append(errs, err) }

	// What is known of a value, before and after it is dropped.
	r, err := sdk.Put(ctx, make([]byte, 1<<20))
	check(err)
	small, err := sdk.Put(ctx, "small")
	check(err)
	i, err := sdk.Info(r)
	check(want("info", i, err, sdk.ObjectInfo{Ready: true, Encoding: "raw bytes", Size: 1 << 20, References: 1}))
	kept, err := r.Get(ctx)
	check(err)
	_, err = small.Get(ctx)
	check(err)
	other, err := sdk.Put(ctx, bytes.Repeat([]byte{7}, 1<<20))
	check(err)
	rd, err := sdk.NewReader(ctx, other)
	check(err)
	check(sdk.Free[sdk.AnyRef](r, small, other))
	// A Reader holds what it reads, which is not fetched again for each read.
	runtime.GC()
	end := make([]byte, 3)
	got, err := rd.ReadAt(end, 1<<20-2)
	check(want("read at the end", got == 2 && end[0] == 7 && end[1] == 7, nil, true))
	check(want("error at the end", errors.Is(err, io.EOF), nil, true))
	if _, err := r.Get(ctx); !errors.Is(err, wray.ErrObjectLost) {
		check(fmt.Errorf("a value that was freed: %v", err))
	}
	if _, err := small.Get(ctx); !errors.Is(err, wray.ErrObjectLost) {
		check(fmt.Errorf("a small value that was freed: %v", err))
	}
	if _, err := sum.RemoteArgs(ctx, r).Get(ctx); !errors.Is(err, wray.ErrBadArgument) || !strings.Contains(err.Error(), "freed") {
		check(fmt.Errorf("a task of a value that was freed: %v", err))
	}
	i, err = sdk.Info(r)
	check(want("info", i.Ready && i.Failed, err, true))
	check(want("what was got", bytes.Count(kept, []byte{0}), nil, 1<<20))
	pending := forever.Remote(ctx)
	for i.Task == "" && err == nil { // it has begun, or waits
		i, err = sdk.Info(pending)
	}
	check(want("info of what is not there", i, err, sdk.ObjectInfo{References: i.References, Task: "forever"}))
	if err := sdk.Free(pending); !errors.Is(err, wray.ErrBadArgument) {
		check(fmt.Errorf("free what is not there: %v", err))
	}
	check(pending.Cancel())

	// The node is a cluster of one.
	three, err := sum.With(sdk.PreferNode("nobody"), sdk.Labels("!disk", wray.LabelOS)).Remote(ctx, []byte{1, 2}).Get(ctx)
	check(want("a task that would rather be elsewhere", three, err, 3))
	for _, o := range []sdk.Option{sdk.OnNode("nobody"), sdk.Labels("disk")} {
		if _, err := sum.With(o).Remote(ctx, nil).Get(ctx); !errors.Is(err, wray.ErrUnschedulable) {
			check(fmt.Errorf("a task for a node that is not there: %v", err))
		}
		if _, err := add.Remote(ctx, counter.With(o).New(ctx, 1), 1).Get(ctx); !errors.Is(err, wray.ErrActorDied) {
			check(fmt.Errorf("a call of an actor for such a node: %v", err))
		}
	}

	// Slices whose memory becomes the object.
	for _, n := range []int{1000, 64 << 10, 1<<20 + 1} {
		b, err := sdk.Make[byte](ctx, n)
		check(want("made", bytes.Count(b, []byte{0}), err, n))
		for i := range b {
			b[i] = 5
		}
		r, err := sdk.Put(ctx, b)
		check(err)
		for i := range b {
			b[i]++ // ours alone from now on
		}
		s, err := sum.RemoteArgs(ctx, r).Get(ctx)
		check(want("sum of what was made", s, err, 5*n))
		check(want("what was made", bytes.Count(b, []byte{6}), nil, n))
		s, err = sum.Remote(ctx, b).Get(ctx)
		check(want("sum of it again", s, err, 6*n))
		s, err = sum.Remote(ctx, b[:n/2]).Get(ctx)
		check(want("sum of a half", s, err, 6*(n/2)))
	}
	part, err := sdk.Make[byte](ctx, 1<<20)
	check(err)
	s, err := sum.Remote(ctx, part[:1<<19]).Get(ctx)
	check(want("sum of a part", s, err, 0))
	for i := range part {
		part[i] = 1 // it is no object yet
	}
	s, err = sum.Remote(ctx, part).Get(ctx)
	check(want("sum of the whole", s, err, 1<<20))

	for _, n := range []int64{10, 5 << 20} {
		b, err := sdk.NewBuilder(ctx, n)
		check(err)
		for range 3 {
			_, err = b.Write(bytes.Repeat([]byte{1}, int(n/4)))
			check(err)
		}
		if _, err = b.Write(make([]byte, n/2)); !errors.Is(err, wray.ErrBadArgument) {
			check(fmt.Errorf("more than the builder is for: %v", err))
		}
		r, err := b.Seal()
		check(err)
		s, err := sum.RemoteArgs(ctx, r).Get(ctx)
		check(want("sum of what was built", s, err, int(3*(n/4))))
	}

	// Checkpoints.
	saved := counter.With(sdk.MaxRestarts(-1), sdk.CheckpointEvery(2)).New(ctx, 0)
	for range 4 {
		_, err = add.Remote(ctx, saved, 1).Get(ctx)
		check(err)
	}
	check(saved.Restart())
	n, err := add.Remote(ctx, saved, 1).Get(ctx)
	check(want("add after a restart", n, err, 5))
	check(saved.Checkpoint(ctx))
	check(saved.Restart())
	n, err = add.Remote(ctx, saved, 1).Get(ctx)
	check(want("add after a checkpoint", n, err, 6))
	check(counter.With(sdk.MaxConcurrency(2)).New(ctx, 0).Checkpoint(ctx))
	return errors.Join(errs...)
}

func all(ctx context.Context) error {
	const large = 5<<20 + 7
	var errs []error
	check := func(err error) { errs = append(errs, err) }

	n, err := half.Remote(ctx, 84).Get(ctx)
	check(want("half", n, err, 42))
	_, err = half.Remote(ctx, 3).Get(ctx)
	if !errors.Is(err, errOdd) || !errors.Is(err, wray.ErrUserError) {
		check(fmt.Errorf("half of an odd number: %v", err))
	}
	n, err = half.With(sdk.Resource("licence", 1)).Remote(ctx, 84).Get(ctx)
	check(want("half with a licence", n, err, 42))
	if _, err = half.With(sdk.Resource("licence", 1.5)).Remote(ctx, 84).Get(ctx); !errors.Is(err, wray.ErrUnschedulable) {
		check(fmt.Errorf("half with more licences than there are: %v", err))
	}
	refs := make([]sdk.Ref[int], 1000)
	for i := range refs {
		refs[i] = half.Remote(ctx, 2*i)
	}
	for len(refs) < 1001 {
		refs = append(refs, half.RemoteArgs(ctx, refs[84]))
	}
	ready, pending, err := sdk.Wait(ctx, refs, len(refs), -1)
	check(want("wait", len(ready)-len(pending), err, 1001))
	ns, err := sdk.GetAll(ctx, refs)
	if err == nil {
		check(want("get all", ns[999]+ns[1000], nil, 999+42))
	}
	check(err)

	// Values of all sizes, both ways.
	for _, size := range []int{0, 1, 5000, 64<<10 - 1, 64 << 10, large} {
		r, err := sdk.Put(ctx, bytes.Repeat([]byte{1}, size))
		check(err)
		s, err := sum.RemoteArgs(ctx, r).Get(ctx)
		check(want("sum of a reference", s, err, size))
		s, err = sum.Remote(ctx, bytes.Repeat([]byte{2}, size)).Get(ctx)
		check(want("sum of a value", s, err, 2*size))
		b, err := fill.Remote(ctx, size, 3).Get(ctx)
		check(want("fill", bytes.Count(b, []byte{3}), err, size))
		back, err := r.Get(ctx)
		check(want("put and get", bytes.Count(back, []byte{1}), err, size))
		for i := range back {
			back[i] = 9 // ours alone
		}
		s, err = sum.RemoteArgs(ctx, r).Get(ctx)
		check(want("sum after writing", s, err, size))
	}

	// Parts of values.
	long := fill.Remote(ctx, large, 3)
	part, err := sdk.ReadRange(ctx, long, large-2, 9)
	check(want("part", string(part), err, "\x03\x03"))

	// References in values.
	inner, err := sdk.Put(ctx, []byte("inner"))
	check(err)
	two, err := pair.Remote(ctx, inner).Get(ctx)
	check(want("pair", len(two), err, 2))
	for _, r := range two {
		b, err := r.Get(ctx)
		check(want("inner", string(b), err, "inner"))
	}
	outer, err := sdk.Put(ctx, map[string]sdk.Ref[[]byte]{"a": two[1]})
	check(err)
	got, err := outer.Get(ctx)
	check(err)
	b, err := got["a"].Get(ctx)
	check(want("inner of outer", string(b), err, "inner"))

	// Streams.
	next := 0
	for i, err := range count.Remote(ctx, 100).All(ctx) {
		check(want("item", i, err, next))
		next++
	}
	check(want("items", next, nil, 100))
	cut := count.Remote(ctx, 1<<30)
	_, err = cut.Next(ctx)
	check(err)
	cut.Close()

	// Actors.
	c := counter.With(sdk.Name("the counter")).New(ctx, 40)
	check(c.Ready(ctx))
	for i := range 2 {
		n, err := add.Remote(ctx, c, 1).Get(ctx)
		check(want("add", n, err, 41+i))
	}
	again, err := counter.Lookup("the counter")
	check(err)
	n, err = add.Remote(ctx, again, 8).Get(ctx)
	check(want("add by name", n, err, 50))
	if _, err := counter.Lookup("nobody"); !errors.Is(err, wray.ErrActorDied) {
		check(fmt.Errorf("a name that nobody has: %v", err))
	}
	check(c.Kill())
	if _, err := add.Remote(ctx, c, 1).Get(ctx); !errors.Is(err, wray.ErrActorDied) {
		check(fmt.Errorf("an actor that was killed: %v", err))
	}

	check(more(ctx))

	// What cannot be.
	running := forever.Remote(ctx)
	check(running.Cancel())
	if _, err := running.Get(ctx); !errors.Is(err, wray.ErrCanceled) {
		check(fmt.Errorf("a canceled task: %v", err))
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	_, err = forever.Remote(ctx).Get(short)
	cancel()
	if !errors.Is(err, context.DeadlineExceeded) {
		check(fmt.Errorf("a get that was given up: %v", err))
	}
	if _, err := sdk.Import[int, int](sdk.Module("nowhere"), "x").Remote(ctx, 1).Get(ctx); !errors.Is(err, wray.ErrUnknownFunction) {
		check(fmt.Errorf("a function that nobody declares: %v", err))
	}
	if _, err := forever.With(sdk.Timeout(time.Millisecond)).Remote(ctx).Get(ctx); !errors.Is(err, wray.ErrTimeout) {
		check(fmt.Errorf("a task past its time: %v", err))
	}
	n, err = speak.Remote(ctx, "hello").Get(ctx)
	check(want("speak", n, err, 5))
	return errors.Join(errs...)
}
