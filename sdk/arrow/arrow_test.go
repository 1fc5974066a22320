package arrow

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// everyType is a schema of every kind of column that a Batch may have, without
// dictionaries.
var everyType = arrow.NewSchema([]arrow.Field{
	{Name: "null", Type: arrow.Null, Nullable: true},
	{Name: "bool", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	{Name: "i8", Type: arrow.PrimitiveTypes.Int8},
	{Name: "i64", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	{Name: "f64", Type: arrow.PrimitiveTypes.Float64},
	{Name: "dec", Type: &arrow.Decimal128Type{Precision: 30, Scale: 2}},
	{Name: "time", Type: arrow.FixedWidthTypes.Timestamp_us},
	{Name: "fixed", Type: &arrow.FixedSizeBinaryType{ByteWidth: 3}},
	{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "big", Type: arrow.BinaryTypes.LargeBinary},
	{Name: "list", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
	{Name: "pair", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)},
	{Name: "map", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32)},
	{Name: "struct", Type: arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int16},
		arrow.Field{Name: "b", Type: arrow.ListOf(arrow.FixedWidthTypes.Boolean), Nullable: true})},
}, nil)

// everything is a batch of n rows of that schema.
func everything(n int) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, everyType)
	for i := range n {
		null := i%3 == 1
		word := strings.Repeat("wray", i%7)
		b.Field(0).(*array.NullBuilder).AppendNull()
		b.Field(2).(*array.Int8Builder).Append(int8(i))
		b.Field(4).(*array.Float64Builder).Append(float64(i) / 3)
		b.Field(5).(*array.Decimal128Builder).Append(decimal128.FromI64(int64(i)))
		b.Field(6).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		b.Field(7).(*array.FixedSizeBinaryBuilder).Append([]byte("abc"))
		b.Field(9).(*array.BinaryBuilder).Append([]byte(word))
		l := b.Field(10).(*array.ListBuilder)
		if null {
			b.Field(1).AppendNull()
			b.Field(3).AppendNull()
			b.Field(8).AppendNull()
			l.AppendNull()
		} else {
			b.Field(1).(*array.BooleanBuilder).Append(i%2 == 0)
			b.Field(3).(*array.Int64Builder).Append(int64(i) << 33)
			b.Field(8).(*array.StringBuilder).Append(word)
			l.Append(true)
			for range i % 4 {
				l.ValueBuilder().(*array.StringBuilder).Append(word)
			}
		}
		p := b.Field(11).(*array.FixedSizeListBuilder)
		p.Append(true)
		p.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{1, float32(i)}, nil)
		m := b.Field(12).(*array.MapBuilder)
		m.Append(true)
		for j := range i % 3 {
			m.KeyBuilder().(*array.StringBuilder).Append(word)
			m.ItemBuilder().(*array.Int32Builder).Append(int32(j))
		}
		s := b.Field(13).(*array.StructBuilder)
		s.Append(true)
		s.FieldBuilder(0).(*array.Int16Builder).Append(int16(i))
		sl := s.FieldBuilder(1).(*array.ListBuilder)
		sl.Append(true)
		sl.ValueBuilder().(*array.BooleanBuilder).Append(true)
	}
	return b.NewRecord()
}

// words is a batch with a dictionary.
func words(n int) arrow.Record {
	s := arrow.NewSchema([]arrow.Field{{Name: "w", Nullable: true,
		Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	d := b.Field(0).(*array.BinaryDictionaryBuilder)
	for i := range n {
		if i%5 == 4 {
			d.AppendNull()
		} else if err := d.AppendString([]string{"a", "bb", "ccc"}[i%3]); err != nil {
			panic(err)
		}
	}
	return b.NewRecord()
}

func encoded(t testing.TB, r arrow.Record) []byte {
	t.Helper()
	p, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRoundTrip holds that what is read is what was written, and that package
// ipc reads the same.
func TestRoundTrip(t *testing.T) {
	all := everything(1000)
	for name, r := range map[string]arrow.Record{
		"everything": all, "none": everything(0), "one": everything(1), "slice": all.NewSlice(301, 900), "dictionary": words(100),
		"no columns": array.NewRecord(arrow.NewSchema(nil, nil), nil, 0),
	} {
		p := encoded(t, r)
		got, err := Decode(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !array.RecordEqual(got, r) || !got.Schema().Equal(r.Schema()) {
			t.Errorf("%s: read\n%v\nwritten\n%v", name, got, r)
		}
		std, err := ipc.NewReader(bytes.NewReader(p))
		if err != nil {
			t.Fatalf("%s: package ipc: %v", name, err)
		}
		if !std.Next() || !array.RecordEqual(std.Record(), r) {
			t.Errorf("%s: package ipc reads something else (%v)", name, std.Err())
		}
		odd := append(make([]byte, 1, len(p)+1), p...)[1:]
		if got, err := Decode(odd); err != nil || !array.RecordEqual(got, r) {
			t.Errorf("%s: read from an odd address: %v", name, err)
		}
	}
}

// TestInPlace holds that arrays are the stream's own bytes, aligned.
func TestInPlace(t *testing.T) {
	p := encoded(t, everything(1000))
	r, err := Decode(p)
	if err != nil {
		t.Fatal(err)
	}
	first := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	n := 0
	var walk func(d arrow.ArrayData)
	walk = func(d arrow.ArrayData) {
		for _, b := range d.Buffers() {
			if b == nil || b.Len() == 0 {
				continue
			}
			n++
			at := uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes())))
			if at < first || at >= first+uintptr(len(p)) || (at-first)%bodyAlign != 0 {
				t.Errorf("a buffer of %d bytes lies at %d of a stream of %d", b.Len(), int64(at-first), len(p))
			}
		}
		for _, c := range d.Children() {
			walk(c)
		}
	}
	for _, c := range r.Columns() {
		walk(c.Data())
	}
	if n < 20 {
		t.Errorf("found only %d buffers", n)
	}
}

func TestRefused(t *testing.T) {
	view := arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.StringView}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, view)
	if _, err := Encode(b.NewRecord()); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a view: %v", err)
	}
	var z bytes.Buffer
	r := everything(100)
	w := ipc.NewWriter(&z, ipc.WithSchema(r.Schema()), ipc.WithZstd())
	if err := errors.Join(w.Write(r), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(z.Bytes()); !errors.Is(err, wray.ErrBadArgument) || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("a compressed batch: %v", err)
	}
	p := encoded(t, r)
	for n := range p {
		if n%97 == 0 || n < 64 {
			if _, err := Decode(p[:n]); err == nil && n < len(p)-8 {
				t.Fatalf("the first %d bytes of %d are read", n, len(p))
			}
		}
	}
	if _, err := Decode(append(bytes.Clone(p[:len(p)-8]), p...)); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("two batches: %v", err)
	}
	if _, err := sdk.Put(t.Context(), Batch{}); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a Batch of nothing: %v", err)
	}
}

// readAll reads every value of r, which panics where an array is none.
func readAll(r arrow.Record) {
	var walk func(a arrow.Array)
	walk = func(a arrow.Array) {
		switch a := a.(type) {
		case *array.Null:
		case array.ListLike: // maps, too
			for i := range min(a.Len(), 1<<12) {
				from, to := a.ValueOffsets(i)
				array.NewSlice(a.ListValues(), from, to).Release()
			}
			walk(a.ListValues())
		case *array.Struct:
			for i := range a.NumField() {
				walk(a.Field(i))
			}
		case *array.Dictionary:
			for i := range a.Len() {
				if a.IsValid(i) {
					_ = a.Dictionary().ValueStr(a.GetValueIndex(i))
				}
			}
		default:
			for i := range min(a.Len(), 1<<12) {
				_ = a.ValueStr(i)
			}
		}
	}
	for _, c := range r.Columns() {
		walk(c)
	}
}

// TestDamaged changes bytes of good streams: what is read all the same can be
// read to its end.
func TestDamaged(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	read := 0
	for _, good := range [][]byte{encoded(t, everything(20)), encoded(t, words(20))} {
		for range 3000 {
			p := bytes.Clone(good)
			for range 1 + rng.IntN(3) {
				switch i := rng.IntN(len(p) - 8); rng.IntN(3) {
				case 0:
					p[i] ^= 1 << rng.IntN(8)
				case 1:
					binary.LittleEndian.PutUint32(p[i&^3:], rng.Uint32())
				default:
					binary.LittleEndian.PutUint64(p[i&^7:], uint64(rng.IntN(64)-8))
				}
			}
			if r, err := Decode(p); err == nil {
				readAll(r)
				read++
			}
		}
	}
	if read == 0 {
		t.Error("none was read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, everything(3)))
	f.Add(encoded(f, words(6)))
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := Decode(p); err == nil {
			readAll(r)
		}
	})
}

// The tasks of TestTasks.
var (
	total = sdk.Func("arrow_total", func(_ context.Context, b Batch) (int64, error) {
		return array.NewInt64Data(b.Column(3).Data()).Value(2), nil
	})
	half = sdk.Func("arrow_half", func(_ context.Context, b Batch) (Batch, error) {
		return Batch{b.NewSlice(0, b.NumRows()/2)}, nil
	})
)

func TestTasks(t *testing.T) {
	ctx := t.Context()
	r := everything(100)
	ref, err := Put(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Get(ctx, ref); err != nil || !array.RecordEqual(got, r) {
		t.Errorf("put and got: %v", err)
	}
	h := half.RemoteArgs(ctx, ref)
	if got, err := Get(ctx, h); err != nil || !array.RecordEqual(got, r.NewSlice(0, 50)) {
		t.Errorf("half: %v", err)
	}
	if n, err := total.RemoteArgs(ctx, h).Get(ctx); err != nil || n != 2<<33 {
		t.Errorf("total: %d, %v", n, err)
	}
	if _, err := half.Remote(ctx, Batch{}).Get(ctx); err == nil {
		t.Error("a Batch of nothing was an argument")
	}
}

// columns is a batch of about 37 MB: a million rows of numbers, strings and
// lists.
func columns() arrow.Record {
	s := arrow.NewSchema([]arrow.Field{{Name: "i", Type: arrow.PrimitiveTypes.Int64}, {Name: "f", Type: arrow.PrimitiveTypes.Float64},
		{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32)}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	for i := range 1_000_000 {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Float64Builder).Append(float64(i))
		b.Field(2).(*array.StringBuilder).Append("value"[:i%6])
		l := b.Field(3).(*array.ListBuilder)
		l.Append(true)
		for range i % 5 {
			l.ValueBuilder().(*array.Int32Builder).Append(int32(i))
		}
	}
	return b.NewRecord()
}

// BenchmarkDecode reads 37 MB in place, and with package ipc, and says how many
// times as long that takes.
func BenchmarkDecode(b *testing.B) {
	p := encoded(b, columns())
	var copying, inPlace time.Duration
	for b.Loop() {
		begin := time.Now()
		r, err := ipc.NewReader(bytes.NewReader(p))
		if err != nil || !r.Next() {
			b.Fatal(err, r.Err())
		}
		copying += time.Since(begin)
		begin = time.Now()
		if _, err := Decode(p); err != nil {
			b.Fatal(err)
		}
		inPlace += time.Since(begin)
	}
	b.ReportMetric(float64(len(p))/1e6, "MB")
	b.ReportMetric(float64(inPlace.Microseconds())/float64(b.N), "in-place-µs")
	b.ReportMetric(float64(copying.Microseconds())/float64(b.N), "copying-µs")
	b.ReportMetric(float64(copying)/float64(inPlace), "times")
}
