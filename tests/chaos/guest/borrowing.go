package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// box is references in a value.
type box struct{ Refs []sdk.Ref[[]byte] }

var (
	// forward hands a box on, from node to node, to who reads all of it.
	forward sdk.Task2[box, int, uint64]

	// pass gives back what it was given, without having read it.
	pass = sdk.Func("pass", func(_ context.Context, b box) (box, error) { return b, nil }).With(sdk.CPU(1), sdk.Spread())

	// fill puts values where it runs, and gives references to them.
	fill = sdk.Func("fill", func(ctx context.Context, key uint64) (b box, err error) {
		for i := range 4 {
			r, err := sdk.Put(ctx, value(key+uint64(i), sizeOf(i)))
			if err != nil {
				return b, err
			}
			b.Refs = append(b.Refs, r)
		}
		return b, nil
	}).With(sdk.CPU(1), sdk.Spread())
)

func init() {
	forward = sdk.Func2("forward", func(ctx context.Context, b box, far int) (uint64, error) {
		if far > 0 {
			return forward.Remote(ctx, b, far-1).Get(ctx)
		}
		values, err := sdk.GetAll(ctx, b.Refs)
		total := uint64(0)
		for i, v := range values {
			total += uint64(i+1) * sum(v)
		}
		return total, err
	}).With(sdk.CPU(1), sdk.Spread())
}

// sizeOf is how large value i is: every other is large.
func sizeOf(i int) int {
	if i%2 == 1 {
		return large
	}
	return 100
}

func boxed(key uint64, n int) (total uint64) {
	for i := range n {
		total += uint64(i+1) * sum(value(key+uint64(i), sizeOf(i)))
	}
	return total
}

// borrowing is references that travel in values to nodes that hand them on, of
// values that the driver has, and of values that are elsewhere.
type borrowing struct {
	seed uint64
	lost int // boxes that went with their node
}

func (w *borrowing) round(ctx context.Context, n uint64) (string, error) {
	key := mix(w.seed + n)
	own := box{}
	for i := range 6 {
		r, err := sdk.Put(ctx, value(key+uint64(i), sizeOf(i)))
		if err != nil {
			return "", err
		}
		own.Refs = append(own.Refs, r)
	}
	var sums []sdk.Ref[uint64]
	for i := range 4 {
		sums = append(sums, forward.Remote(ctx, own, i))
		sums = append(sums, forward.RemoteArgs(ctx, pass.Remote(ctx, own), sdk.Val(i%2)))
	}
	for i, r := range sums {
		got, err := r.Get(ctx)
		if err != nil {
			return "", fmt.Errorf("way %d of the driver's values: %w", i, err)
		}
		if want := boxed(key, len(own.Refs)); got != want {
			return "", wrong(fmt.Sprintf("way %d of the driver's values", i), got, want)
		}
	}
	for i := range uint64(3) {
		k := key + 100*(i+1)
		for {
			err := w.foreign(ctx, k)
			if err == nil {
				break
			}
			// Who has put it is gone: it cannot be made again. That it is so only
			// when a node was lost, who reads this sees.
			if !errors.Is(err, wray.ErrObjectLost) && !ownerDied(err) {
				return "", fmt.Errorf("values of another node: %w", err)
			}
			w.lost++
		}
	}
	return "", nil
}

// ownerDied reports whether err, or what caused it, is that an owner is gone.
func ownerDied(err error) bool {
	var e *wray.Error
	if !errors.As(err, &e) {
		return false
	}
	for ; e != nil; e = e.Cause {
		if e.Code == wray.CodeOwnerDied || e.Code == wray.CodeObjectLost {
			return true
		}
	}
	return false
}

// foreign has values put elsewhere, reads them from there and has others do so.
func (w *borrowing) foreign(ctx context.Context, key uint64) error {
	r := fill.Remote(ctx, key)
	b, err := r.Get(ctx)
	if err != nil {
		return err
	}
	far := forward.Remote(ctx, b, 1)
	for i, ref := range b.Refs {
		v, err := ref.Get(ctx)
		if err != nil {
			return err
		}
		if got, want := sum(v), sum(value(key+uint64(i), sizeOf(i))); got != want {
			return wrong(fmt.Sprintf("value %d of another node", i), got, want)
		}
	}
	got, err := far.Get(ctx)
	if want := boxed(key, len(b.Refs)); err == nil && got != want {
		err = wrong("values of another node on a third", got, want)
	}
	return err
}

func (w *borrowing) end(context.Context) (string, error) { return fmt.Sprintf("lost=%d", w.lost), nil }
