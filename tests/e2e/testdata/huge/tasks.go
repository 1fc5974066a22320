// Command huge makes values of more than 4 GiB, which no sandbox can hold at
// once, inside of a sandbox and outside, and has each read on the other side.
// Built for wasip1 it is the module whose tasks it runs, and otherwise the
// client of a node.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// size is more than 32 bits can say, and no multiple of anything.
const size = 4<<30 + 4099

// word is the eight bytes of a value from 8*i on: no two are the same.
func word(i int64) uint64 { return uint64(i+1) * 0x9e3779b97f4a7c15 }

// fill makes p what a value has from off on, a multiple of 8.
func fill(p []byte, off int64) {
	i := off / 8
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, word(i))
		i++
	}
	var last [8]byte
	binary.LittleEndian.PutUint64(last[:], word(i))
	copy(p, last[:])
}

// check looks whether p is what a value has from off on.
func check(p []byte, off int64) error {
	for len(p) > 0 {
		if off%8 == 0 && len(p) >= 8 {
			if got, want := binary.LittleEndian.Uint64(p), word(off/8); got != want {
				return fmt.Errorf("the bytes from %d on are %#x: expected %#x", off, got, want)
			}
			p, off = p[8:], off+8
			continue
		}
		if want := byte(word(off/8) >> (8 * (off % 8))); p[0] != want {
			return fmt.Errorf("byte %d is %#x: expected %#x", off, p[0], want)
		}
		p, off = p[1:], off+1
	}
	return nil
}

// build makes a value.
func build(ctx context.Context) (r sdk.Ref[[]byte], err error) {
	b, err := sdk.NewBuilder(ctx, size)
	if err != nil {
		return r, err
	}
	defer b.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), size-off)]
		fill(p, off)
		if _, err := b.Write(p); err != nil {
			return r, err
		}
	}
	return b.Seal()
}

// verify reads ranges of a value, and then all of it.
func verify(ctx context.Context, r sdk.Ref[[]byte]) error {
	const n = 64 << 10
	ranges := []int64{0, 1<<31 - 3, 1<<32 - 5, 1 << 32, size - n, size - 7, size}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		ranges = append(ranges, rng.Int64N(size))
	}
	for _, off := range ranges {
		p, err := sdk.ReadRange(ctx, r, off, n)
		if err == nil && int64(len(p)) != min(n, size-off) {
			err = fmt.Errorf("%d bytes from %d on", len(p), off)
		}
		if err == nil {
			err = check(p, off)
		}
		if err != nil {
			return fmt.Errorf("a range: %w", err)
		}
	}
	if _, err := sdk.ReadRange(ctx, r, size+1, 1); !errors.Is(err, wray.ErrBadArgument) {
		return fmt.Errorf("a range beyond the end: %v", err)
	}
	all, err := sdk.NewReader(ctx, r)
	if err != nil {
		return err
	}
	buf := make([]byte, 4<<20)
	for off := int64(0); off < size; {
		k, err := io.ReadFull(all, buf)
		if k == 0 {
			return fmt.Errorf("at %d: %w", off, err)
		}
		if err := check(buf[:k], off); err != nil {
			return err
		}
		off += int64(k)
	}
	if k, err := all.Read(buf); k != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the end: %d bytes, %v", k, err)
	}
	return nil
}

// held is a value that is not read when it is sent.
type held struct{ Ref sdk.Ref[[]byte] }

var (
	buildInside = sdk.Func0("build", func(ctx context.Context) (held, error) {
		r, err := build(ctx)
		return held{r}, err
	})
	verifyInside = sdk.Func("verify", func(ctx context.Context, h held) (int64, error) { return size, verify(ctx, h.Ref) })
)
