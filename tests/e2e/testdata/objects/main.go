// Command objects makes, shares and reads large values in every way there is,
// and says of each how it went. It says the same in sandboxes and in one
// process.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	sdkarrow "github.com/wray-project/wray/sdk/arrow"
)

const large = 1 << 20 // bytes, past which values are mapped

var (
	ramp = sdk.Func("ramp", func(ctx context.Context, n int) ([]float64, error) {
		xs, err := sdk.Make[float64](ctx, n)
		for i := range xs {
			xs[i] = float64(i)
		}
		return xs, err
	})
	// head gives less than it made.
	head = sdk.Func("head", func(ctx context.Context, n int) ([]int32, error) {
		xs, err := sdk.Make[int32](ctx, n)
		for i := range xs {
			xs[i] = int32(i)
		}
		return xs[:n-n/4], err
	})
	blocks = sdk.Stream("blocks", func(ctx context.Context, n int, yield func([]byte) error) error {
		for i := range n {
			b, err := sdk.Make[byte](ctx, large+i)
			if err != nil {
				return err
			}
			fill(b, byte(i))
			if err := yield(b); err != nil {
				return err
			}
			fill(b, 0xff) // the item has left
		}
		return nil
	})
	sum = sdk.Func("sum", func(_ context.Context, b []byte) (uint32, error) { return crc32.ChecksumIEEE(b), nil })
	// lengths adds a column: how long the strings of the first are.
	lengths = sdk.Func("lengths", func(_ context.Context, b sdkarrow.Batch) (sdkarrow.Batch, error) {
		words := b.Column(0).(*array.String)
		n := array.NewInt64Builder(memory.DefaultAllocator)
		for i := range words.Len() {
			n.Append(int64(len(words.Value(i))))
		}
		s := arrow.NewSchema(append(b.Schema().Fields(), arrow.Field{Name: "length", Type: arrow.PrimitiveTypes.Int64}), nil)
		return sdkarrow.Batch{Record: array.NewRecord(s, []arrow.Array{words, n.NewArray()}, b.NumRows())}, nil
	})
	// late changes what it got: nobody else sees that.
	late  = sdk.Func("late", func(_ context.Context, xs []float64) (float64, error) { xs[0] = -1; return xs[0] + xs[1], nil })
	never = sdk.Func0("never", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
)

func fill(b []byte, c byte) {
	for i := range b {
		b[i] = c
	}
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	check := func(what string, err error, got ...any) {
		if err != nil {
			var e *wray.Error
			if !errors.As(err, &e) {
				got = append(got, "an error without a code:", err)
			} else {
				got = append(got, e.Code, e.Message)
			}
		}
		fmt.Println(append([]any{what + ":"}, got...)...)
	}

	r := ramp.Remote(ctx, 1<<20)
	xs, err := r.Get(ctx)
	check("ramp", err, len(xs), xs[1], xs[1<<20-1])
	changed, err := late.RemoteArgs(ctx, r).Get(ctx)
	check("a task changes its view", err, changed)
	again, err := sdk.ReadRange(ctx, r, 0, 2)
	check("and nobody's else", err, again)
	hs, err := head.Remote(ctx, 1<<20).Get(ctx)
	check("head", err, len(hs), hs[len(hs)-1])

	i := 0
	for b, err := range blocks.Remote(ctx, 8).All(ctx) {
		if err != nil || len(b) != large+i || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, large+i)) {
			check("blocks", err, "item", i, "is wrong")
		}
		i++
	}
	check("blocks", nil, i)

	b, err := sdk.Make[byte](ctx, large)
	if err != nil {
		return err
	}
	fill(b, 7)
	want := crc32.ChecksumIEEE(b)
	direct := sum.Remote(ctx, b) // takes the memory
	fill(b[:large/2], 8)
	put, err := sdk.Put(ctx, b) // so this is a copy
	fill(b, 9)
	got, err2 := direct.Get(ctx)
	check("given to a task", err2, got == want)
	whole, err2 := put.Get(ctx)
	check("put after that", err, err2 == nil, whole[0], whole[large-1], b[0])

	c, err := sdk.Make[byte](ctx, large)
	if err != nil {
		return err
	}
	fill(c, 1)
	most, err := sdk.Put(ctx, c[:large-100_000])
	check("put of most", err, len(c), c[0], c[large-1], crc32.ChecksumIEEE(c))
	few, err2 := sdk.Put(ctx, c[10:20])
	v, err := most.Get(ctx)
	w, err3 := few.Get(ctx)
	check("read of most", errors.Join(err, err2, err3), len(v), v[len(v)-1], w)

	bld, err := sdk.NewBuilder(ctx, 40<<20)
	if err != nil {
		return err
	}
	chunk := make([]byte, 1_000_003)
	sumAll := crc32.NewIEEE()
	for i := range 36 {
		fill(chunk, byte(i))
		sumAll.Write(chunk)
		if _, err := bld.Write(chunk); err != nil {
			return err
		}
	}
	_, err = bld.Write(make([]byte, 10<<20))
	check("too much", err)
	built, err := bld.Seal()
	check("built", err, bld.Close())
	rd, err := sdk.NewReader(ctx, built)
	if err != nil {
		return err
	}
	sumRead := crc32.NewIEEE()
	n, err := io.Copy(sumRead, rd)
	check("read in parts", err, n, sumRead.Sum32() == sumAll.Sum32())
	part, err := sdk.ReadRange(ctx, built, 17_000_000, 500_000)
	check("a range", err, len(part), part[0], part[len(part)-1])
	part, err = sdk.ReadRange(ctx, built, rd.Size()-5, 500_000)
	check("a range at the end", err, part)
	_, err = sdk.ReadRange(ctx, built, rd.Size()+5, 1)
	check("a range past the end", err)
	ints, err := sdk.Put(ctx, []int16{1, 2, 3, 4, 5})
	if err != nil {
		return err
	}
	small, err := sdk.ReadRange(ctx, ints, 1, 3)
	check("a small range", err, small)
	kept := sum.Remote(ctx, []byte("x"))
	_, err = sdk.ReadRange(ctx, sdk.Ref[[]byte]{}, 0, 1)
	check("a range of nothing", err)
	_, err = kept.Get(ctx)
	check("kept", err)

	words := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "word", Type: arrow.BinaryTypes.String}}, nil))
	for i := range 200_000 {
		words.Field(0).(*array.StringBuilder).Append("abcdefg"[:i%8])
	}
	batch, err := sdkarrow.Put(ctx, words.NewRecord())
	if err != nil {
		return err
	}
	longer, err := sdkarrow.Get(ctx, lengths.RemoteArgs(ctx, batch))
	if err != nil {
		return err
	}
	var total int64
	for _, n := range longer.Column(1).(*array.Int64).Int64Values() {
		total += n
	}
	check("arrow", nil, longer.NumRows(), longer.Column(0).(*array.String).Value(15), total)

	// Metadata, and an early end.
	info, err := sdk.Info(built)
	check("info", err, info.Ready, info.Failed, info.Encoding, info.Size, info.OnDisk)
	check("freed", sdk.Free(built))
	_, err = built.Get(ctx)
	check("read of what was freed", nil, errors.Is(err, wray.ErrObjectLost))
	_, err = sum.RemoteArgs(ctx, most).Get(ctx)
	check("before it is freed", err)
	check("two freed", sdk.Free(most, most))
	holder, err := sdk.Put(ctx, []sdk.Ref[[]byte]{put})
	if err != nil {
		return err
	}
	copies, err := holder.Get(ctx)
	check("freed by another reference", errors.Join(err, sdk.Free(copies...)))
	info, err = sdk.Info(put)
	check("what others see", err, info.Ready, info.Failed, info.Encoding)
	check("what was got before", nil, whole[0], len(whole))

	// Deadlines.
	slow := never.Remote(ctx)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	_, err = slow.Get(short)
	check("get with a deadline", nil, errors.Is(err, wray.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	_, err = sdk.GetAll(short, []sdk.Ref[int]{slow, slow})
	check("get all with a deadline", nil, errors.Is(err, wray.ErrTimeout))
	cancel()
	fast := sum.Remote(ctx, []byte("y"))
	info, err = sdk.Info(slow)
	check("info of a task", err, info.Ready, info.Encoding, info.Task)
	check("free of a task", sdk.Free(slow))
	ready, pending, err := sdk.Wait(ctx, []sdk.AnyRef{slow, fast}, 2, time.Second/2)
	check("wait for both", err, len(ready), len(pending))
	if err := slow.Cancel(); err != nil {
		return err
	}
	_, err = slow.Get(ctx)
	check("canceled", nil, errors.Is(err, wray.ErrCanceled))

	if !slices.Equal(again, []float64{0, 1}) {
		os.Exit(1)
	}
	return nil
}
