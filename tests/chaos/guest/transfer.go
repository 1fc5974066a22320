package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// transfer reads values of so many bytes from another node.
type transfer struct{ size uint64 }

var blob = sdk.Func("blob", func(ctx context.Context, n uint64) ([]byte, error) {
	b, err := sdk.Make[byte](ctx, int(n))
	for i := uint64(0); err == nil && i < n; i += 8 {
		for k, x := 0, mix(i); k < 8; k++ {
			b[i+uint64(k)] = byte(x >> (8 * k))
		}
	}
	return b, err
}).With(sdk.OnNode("three"))

func (w transfer) round(ctx context.Context, _ uint64) (string, error) {
	r := blob.Remote(ctx, w.size)
	if _, _, err := sdk.Wait(ctx, []sdk.Ref[[]byte]{r}, 1, -1); err != nil {
		return "", err
	}
	begun := time.Now()
	b, err := r.Get(ctx)
	if err != nil {
		return "", err
	}
	took := time.Since(begun)
	for i := uint64(0); i+8 <= w.size; i += 1 << 16 {
		if b[i] != byte(mix(i)) {
			return "", wrong(fmt.Sprintf("byte %d", i), b[i], byte(mix(i)))
		}
	}
	return fmt.Sprintf("ns=%d", took), nil
}

func (transfer) end(context.Context) (string, error) { return "", nil }

// broadcast has tasks on all other nodes read one value at one time.
type broadcast struct {
	size  uint64
	nodes int
}

// total reads all of a value, which is in place when it begins.
var total = sdk.Func("total", func(_ context.Context, b []byte) (uint64, error) {
	n := uint64(0)
	for i := 0; i+8 <= len(b); i += 1 << 16 {
		n += uint64(b[i])
	}
	return n, nil
})

func (broadcast) at(i int) sdk.Task1[[]byte, uint64] {
	return total.With(sdk.OnNode(fmt.Sprintf("n%d", i)), sdk.CPU(0))
}

func (w broadcast) round(ctx context.Context, n uint64) (string, error) {
	for i := 0; n == 1 && i < w.nodes; { // the workers there may take longer to start than a task waits
		_, err := w.at(i).Remote(ctx, nil).Get(ctx)
		var e *wray.Error
		switch {
		case err == nil:
			i++
		case !errors.As(err, &e) || e.Code != wray.CodeUnschedulable:
			return "", err
		}
	}
	b, err := sdk.Make[byte](ctx, int(w.size))
	if err != nil {
		return "", err
	}
	want := uint64(0)
	for i := uint64(0); i < w.size; i += 8 {
		for k, x := 0, mix(i^n<<40); k < 8; k++ {
			b[i+uint64(k)] = byte(x >> (8 * k))
		}
		if i%(1<<16) == 0 {
			want += uint64(b[i])
		}
	}
	ref, err := sdk.Put(ctx, b)
	if err != nil {
		return "", err
	}
	begun := time.Now()
	var refs []sdk.Ref[uint64]
	for i := range w.nodes {
		refs = append(refs, w.at(i).RemoteArgs(ctx, ref))
	}
	sums, err := sdk.GetAll(ctx, refs)
	if err != nil {
		return "", err
	}
	for i, got := range sums {
		if got != want {
			return "", wrong(fmt.Sprintf("the sum at node n%d", i), got, want)
		}
	}
	return fmt.Sprintf("ns=%d", time.Since(begun)), nil
}

func (broadcast) end(context.Context) (string, error) { return "", nil }
