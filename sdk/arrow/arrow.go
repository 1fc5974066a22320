// Package arrow lets Arrow record batches travel as values: as arguments and
// results of tasks, items of streams, and objects.
//
//	var scan = sdk.Func("scan", func(ctx context.Context, b arrow.Batch) (float64, error) {
//		return sum(b.Column(0).(*array.Float64)), nil
//	})
//
//	ref, err := arrow.Put(ctx, record)
//	total, err := scan.RemoteArgs(ctx, ref).Get(ctx)
//
// A batch is an Arrow IPC stream in the object store, written there directly,
// with buffers at multiples of 64 bytes. Who reads it gets arrays whose buffers
// are the stream's own bytes, which in a sandbox are mapped from the store: to
// read a batch costs the reading of its metadata and a look at the offsets of
// its strings and lists, whatever its size. A batch stays valid for as long as
// anything of it is in use; to release it is not needed.
//
// Records are those of github.com/apache/arrow/go/v15; those of other major
// versions of Arrow are other types to Go. Programs that do not import this
// package do not link Arrow.
package arrow

import (
	"context"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	"github.com/wray-project/wray/wasm/abi"
)

// Batch is a record batch as a value. The types that it may hold are null,
// booleans, numbers, decimals, dates and times, strings and bytes of any kind
// but views, lists, maps, structs, dictionaries, and extensions of those.
type Batch struct{ arrow.Record }

// Put stores a record batch.
func Put(ctx context.Context, r arrow.Record) (sdk.Ref[Batch], error) {
	return sdk.Put(ctx, Batch{r})
}

// Get waits for a record batch and returns it.
func Get(ctx context.Context, r sdk.Ref[Batch]) (arrow.Record, error) {
	b, err := r.Get(ctx)
	return b.Record, err
}

// MarshalPayload is what package sdk encodes a Batch by: its stream, in memory
// of alloc.
func (b *Batch) MarshalPayload(alloc func(n int) ([]byte, error)) (abi.Encoding, []byte, error) {
	if b.Record == nil {
		return 0, nil, wray.Errorf(wray.CodeBadArgument, "a Batch without a Record is no value")
	}
	p, err := encode(b.Record, alloc)
	return abi.EncodingArrow, p, err
}

// UnmarshalPayload is what package sdk decodes a Batch by. It keeps p.
func (b *Batch) UnmarshalPayload(p []byte) error {
	r, err := decode(p)
	b.Record = r
	return err
}

// Encode returns a record batch as an Arrow IPC stream whose buffers lie at
// multiples of 64 bytes from its beginning.
func Encode(r arrow.Record) ([]byte, error) {
	return encode(r, func(n int) ([]byte, error) { return aligned(n), nil })
}

// Decode reads a stream of one record batch whose buffers are p's own bytes,
// which must not change. It checks whatever it is given, which may come from
// anybody. A stream that begins at an odd address is copied.
func Decode(p []byte) (arrow.Record, error) { return decode(p) }
