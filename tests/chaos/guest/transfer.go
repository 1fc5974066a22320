package main

import (
	"context"
	"fmt"
	"time"

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
