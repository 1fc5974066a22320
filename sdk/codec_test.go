package sdk

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

func roundTrip[T any](t *testing.T, v T) rt.Value {
	t.Helper()
	var enc rt.Value
	if _, err := encode(&v, nil, &enc); err != nil {
		t.Errorf("%T %v: %v", v, v, err)
		return enc
	}
	got := enc
	got.Data = bytes.Clone(enc.Data)
	var out T
	if err := decode(&got, &out); err != nil {
		t.Errorf("%T %v: %v", v, v, err)
	}
	if !reflect.DeepEqual(v, out) && !(v2eq(v, out)) {
		t.Errorf("%T: gave %v, got %v", v, v, out)
	}
	return enc
}

func v2eq(a, b any) bool {
	x, ok := a.(float64)
	y, ok2 := b.(float64)
	return ok && ok2 && math.Float64bits(x) == math.Float64bits(y)
}

// sameAsCBOR checks that the fast path writes what package cbor writes, and
// reads what it reads.
func sameAsCBOR[T any](t *testing.T, values ...T) {
	t.Helper()
	for _, v := range values {
		enc := roundTrip(t, v)
		want, err := cborEncoding.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if enc.Encoding != abi.EncodingCBOR || !bytes.Equal(enc.Data, want) {
			t.Errorf("%T %v: encoded %x, package cbor %x", v, v, enc.Data, want)
		}
	}
}

func TestScalars(t *testing.T) {
	ints := []int64{0, 1, -1, 23, 24, -24, -25, 255, 256, -256, -257, 65535, 65536, 1<<32 - 1, 1 << 32, math.MaxInt64, math.MinInt64}
	sameAsCBOR(t, ints...)
	for _, i := range ints {
		sameAsCBOR(t, int(i))
		sameAsCBOR(t, int8(i), int8(i>>8))
		sameAsCBOR(t, int16(i), int16(i>>16))
		sameAsCBOR(t, int32(i))
		sameAsCBOR(t, uint64(i))
		sameAsCBOR(t, uint(i))
		sameAsCBOR(t, uint8(i))
		sameAsCBOR(t, uint16(i))
		sameAsCBOR(t, uint32(i))
	}
	sameAsCBOR(t, true, false)
	sameAsCBOR(t, "", "a", strings.Repeat("x", 23), strings.Repeat("x", 24), strings.Repeat("é", 300))
	sameAsCBOR(t, 0.0, 1.5, math.Inf(-1), math.MaxFloat64)
	sameAsCBOR(t, float32(0), float32(1.5))
	sameAsCBOR(t, struct{}{})
	roundTrip(t, math.NaN())
	roundTrip(t, "not \xff UTF-8")
}

func TestCompound(t *testing.T) {
	type point struct {
		X, Y float64
		Name string `cbor:"n"`
		T    time.Time
		P    *int
	}
	seven := 7
	roundTrip(t, map[string]int{"a": 1, "b": -2})
	roundTrip(t, []string{"x", "", "z"})
	roundTrip(t, []map[string][]byte{{"k": {1, 2}}})
	roundTrip(t, point{1, 2, "p", time.Unix(1_700_000_000, 123456789).UTC(), &seven})
	roundTrip(t, [3]int{1, 2, 3})
	roundTrip(t, []bool{true, false})
	roundTrip[any](t, map[string]any{"a": uint64(1), "b": []any{"c", nil, true}})
	roundTrip(t, []point{{X: 1}})
	var e error
	if _, err := encode(&e, nil, new(rt.Value)); err != nil {
		t.Log(err) // an interface that cannot be decoded may be refused
	}
	f := func() {}
	if _, err := encode(&f, nil, new(rt.Value)); err == nil {
		t.Error("a function was encoded")
	}
}

type (
	celsius  float64
	readings []celsius
	blob     []byte
)

func TestBuffers(t *testing.T) {
	check := func(v rt.Value, e abi.Encoding, elem abi.Elem, data string) {
		t.Helper()
		if v.Encoding != e || v.Elem != elem || string(v.Data) != data {
			t.Errorf("encoding %d, element %d, %q", v.Encoding, v.Elem, v.Data)
		}
	}
	check(roundTrip(t, []byte("hello")), abi.EncodingRaw, 0, "hello")
	check(roundTrip(t, blob("hello")), abi.EncodingRaw, 0, "hello")
	check(roundTrip(t, []byte{}), abi.EncodingRaw, 0, "")
	check(roundTrip(t, []int8{-1, 2}), abi.EncodingNumeric, abi.ElemI8, "\xff\x02")
	check(roundTrip(t, []int16{-2, 3}), abi.EncodingNumeric, abi.ElemI16, "\xfe\xff\x03\x00")
	check(roundTrip(t, []int32{1}), abi.EncodingNumeric, abi.ElemI32, "\x01\x00\x00\x00")
	check(roundTrip(t, []int64{1}), abi.EncodingNumeric, abi.ElemI64, "\x01\x00\x00\x00\x00\x00\x00\x00")
	check(roundTrip(t, []uint16{0x102}), abi.EncodingNumeric, abi.ElemU16, "\x02\x01")
	check(roundTrip(t, []uint32{0x1020304}), abi.EncodingNumeric, abi.ElemU32, "\x04\x03\x02\x01")
	check(roundTrip(t, []uint64{1}), abi.EncodingNumeric, abi.ElemU64, "\x01\x00\x00\x00\x00\x00\x00\x00")
	check(roundTrip(t, []float32{1}), abi.EncodingNumeric, abi.ElemF32, "\x00\x00\x80\x3f")
	check(roundTrip(t, []float64{1, 2}), abi.EncodingNumeric, abi.ElemF64, "\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\x00\x40")
	check(roundTrip(t, readings{1}), abi.EncodingNumeric, abi.ElemF64, "\x00\x00\x00\x00\x00\x00\xf0\x3f")
	if reflect.TypeFor[int]().Size() == 8 {
		check(roundTrip(t, []int{-1}), abi.EncodingNumeric, abi.ElemI64, "\xff\xff\xff\xff\xff\xff\xff\xff")
	}
	roundTrip(t, []float64{})

	// A payload at an odd address, which belongs to nobody for good.
	raw := []byte("x\x00\x00\x00\x00\x00\x00\xf0\x3f")
	var out []float64
	if err := decode(&rt.Value{Encoding: abi.EncodingNumeric, Elem: abi.ElemF64, Owned: true, Data: raw[1:]}, &out); err != nil || out[0] != 1 {
		t.Error(out, err)
	}
	var a any
	if err := decode(&rt.Value{Encoding: abi.EncodingNumeric, Elem: abi.ElemI16, Data: []byte{1, 0, 2, 0}}, &a); err != nil || !reflect.DeepEqual(a, []int16{1, 2}) {
		t.Error(a, err)
	}
	if err := decode(&rt.Value{Encoding: abi.EncodingRaw, Data: []byte{1}}, &a); err != nil || !reflect.DeepEqual(a, []byte{1}) {
		t.Error(a, err)
	}
}

func TestMismatch(t *testing.T) {
	bad := func(err error, words ...string) {
		t.Helper()
		if e, ok := err.(*wray.Error); !ok || e.Code != wray.CodeBadArgument {
			t.Errorf("got %v", err)
			return
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	bad(decode(&rt.Value{Encoding: abi.EncodingRaw, Data: []byte("x")}, new(int)), "raw bytes", "int")
	bad(decode(&rt.Value{Encoding: abi.EncodingNumeric, Elem: abi.ElemF32, Data: make([]byte, 4)}, new([]float64)), "array of float32", "[]float64")
	bad(decode(&rt.Value{Encoding: abi.EncodingNumeric, Elem: abi.ElemF64, Data: make([]byte, 7)}, new([]float64)), "[]float64")
	bad(decode(&rt.Value{Encoding: abi.EncodingNumeric, Elem: 99, Data: make([]byte, 8)}, new(any)), "unknown")
	bad(decode(&rt.Value{Encoding: abi.EncodingCBOR, Data: []byte{0x18, 200}}, new(int8)), "CBOR", "int8")
	bad(decode(&rt.Value{Encoding: abi.EncodingCBOR, Data: []byte{0x61}}, new(string)), "CBOR", "string")
	bad(decode(&rt.Value{Encoding: abi.EncodingCBOR, Data: nil}, new(map[string]int)), "CBOR", "map[string]int")
	bad(decode(&rt.Value{Encoding: abi.EncodingArrow, Data: nil}, new(int)), "Arrow")
	bad(decode(&rt.Value{Encoding: 77, Data: nil}, new(int)), "77")
	// Package cbor takes these; so does the fast path's fallback.
	var f float64
	if err := decode(&rt.Value{Encoding: abi.EncodingCBOR, Data: []byte{5}}, &f); err != nil || f != 5 {
		t.Error(f, err)
	}
	var i int
	if err := decode(&rt.Value{Encoding: abi.EncodingCBOR, Data: []byte{0x19, 0, 5}}, &i); err != nil || i != 5 {
		t.Error(i, err)
	}
}

func TestRefsInValues(t *testing.T) {
	a, b := Ref[int]{rt.Failed(nil)}, Ref[string]{rt.Failed(nil)}
	a.p, b.p = mustPut(t, 1), mustPut(t, "x")
	type pair struct {
		A    Ref[int]
		B    []Ref[string]
		Zero Ref[int]
	}
	v := pair{A: a, B: []Ref[string]{b, b}}
	var enc rt.Value
	if _, err := encode(&v, nil, &enc); err != nil {
		t.Fatal(err)
	}
	if len(enc.Refs) != 2 || enc.Refs[0] != a.p || enc.Refs[1] != b.p {
		t.Fatalf("the value holds %v", enc.Refs)
	}
	if !bytes.Contains(enc.Data, []byte{0xda, 0x77, 0x72, 0x61, 0x79, 0x01}) {
		t.Errorf("no tag in %x", enc.Data)
	}
	var out pair
	if err := decode(&enc, &out); err != nil || out.A != a || out.B[1] != b || !out.Zero.IsZero() {
		t.Error(out, err)
	}
	enc.Refs = enc.Refs[:1]
	if err := decode(&enc, &out); err == nil {
		t.Error("an index past the references was accepted")
	}
	enc.Refs = nil
	if err := decode(&enc, &out); err == nil {
		t.Error("a reference without an object was accepted")
	}
	if _, err := a.MarshalCBOR(); err == nil {
		t.Error("a reference was encoded outside of a value")
	}
}

// TestSlicesOfRefs checks that slices of references travel as package cbor has
// them, and that what it does not take is refused as package cbor does.
func TestSlicesOfRefs(t *testing.T) {
	p := []*rt.Ref{mustPut(t, 0), mustPut(t, 1), mustPut(t, 2)}
	many := make([]Ref[int], 300)
	for i := range many {
		many[i] = Ref[int]{mustPut(t, i)}
	}
	type refs []Ref[int]
	type handles []Handle[int]
	if k, _ := kindOf[refs](); k != kindRefs {
		t.Errorf("the kind of a named slice of references is %d", k)
	}
	if k, _ := kindOf[handles](); k != kindRefs {
		t.Errorf("the kind of a slice of handles is %d", k)
	}
	if k, _ := kindOf[[]struct{ Ref[int] }](); k != kindCBOR {
		t.Errorf("the kind of a slice of structs is %d", k)
	}
	turned := slices.Clone(many)
	turned[298], turned[299] = turned[299], turned[298]
	for _, v := range []refs{nil, {}, {{p[0]}}, {{p[2]}, {}, {p[0]}, {p[2]}}, many, turned, many[:299]} {
		var enc rt.Value
		if _, err := encode(&v, nil, &enc); err != nil {
			t.Fatal(err)
		}
		data, held, err := marshalCBOR(v, true)
		if err != nil || !bytes.Equal(enc.Data, data) || !reflect.DeepEqual(enc.Refs, held) {
			t.Errorf("%d references: %x %v, package cbor %x %v, %v", len(v), enc.Data, enc.Refs, data, held, err)
		}
		var out, slow refs
		if err := decode(&enc, &out); err != nil || !reflect.DeepEqual(out, v) {
			t.Errorf("%d references: got %v, %v", len(v), out, err)
		}
		if err := unmarshalCBOR(&enc, &slow, true); err != nil || !reflect.DeepEqual(slow, out) {
			t.Errorf("%d references: package cbor got %v, %v", len(v), slow, err)
		}
		for cut := range min(len(enc.Data), 30) {
			bad := rt.Value{Encoding: abi.EncodingCBOR, Data: enc.Data[:cut], Refs: enc.Refs}
			if err := decode(&bad, &out); err == nil {
				t.Errorf("%d of %d bytes were accepted", cut, len(enc.Data))
			}
		}
		if len(v) > 0 {
			for _, bad := range []rt.Value{{Data: enc.Data}, {Data: append(bytes.Clone(enc.Data), 0), Refs: enc.Refs}} {
				bad.Encoding = abi.EncodingCBOR
				if err := decode(&bad, &out); err == nil {
					t.Error("a reference without an object, or a byte too many, was accepted")
				}
			}
		}
	}
	// Another language may name them in another order.
	name := func(i byte) []byte { return []byte{0xda, 0x77, 0x72, 0x61, 0x79, i} }
	for what, v := range map[string]struct {
		items [][]byte
		want  refs
	}{
		"in turn":     {[][]byte{name(0), name(1), name(2)}, refs{{p[0]}, {p[1]}, {p[2]}}},
		"turned":      {[][]byte{name(0), name(2), name(1)}, refs{{p[0]}, {p[2]}, {p[1]}}},
		"with a null": {[][]byte{name(0), {0xf6}, name(2)}, refs{{p[0]}, {}, {p[2]}}},
	} {
		enc := rt.Value{Encoding: abi.EncodingCBOR, Data: append([]byte{0x80 | byte(len(v.items))}, bytes.Join(v.items, nil)...), Refs: slices.Clone(p)}
		var out refs
		if err := decode(&enc, &out); err != nil || !reflect.DeepEqual(out, v.want) {
			t.Errorf("%s: got %v, want %v, %v", what, out, v.want, err)
		}
		clear(out)
		if !slices.Equal(enc.Refs, p) {
			t.Errorf("%s: the value's references are the program's to write to", what)
		}
	}
	gone := refs{{rt.Failed(errors.New("lost"))}}
	if _, err := encode(&gone, nil, new(rt.Value)); err == nil {
		t.Error("a reference to nothing was encoded")
	}
}

func mustPut[T any](t *testing.T, v T) *rt.Ref {
	r, err := Put(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return r.p
}

// FuzzDecode gives decode what another guest may have written.
func FuzzDecode(f *testing.F) {
	f.Add(uint32(2), uint32(0), []byte{0x18, 200})
	f.Add(uint32(3), uint32(10), make([]byte, 16))
	f.Add(uint32(1), uint32(0), []byte("text"))
	f.Add(uint32(5), uint32(0), []byte{0xa1, 1, 2})
	f.Add(uint32(2), uint32(0), []byte{0xda, 0x77, 0x72, 0x61, 0x79, 0x01})
	f.Add(uint32(2), uint32(0), []byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, encoding, elem uint32, data []byte) {
		v := func() *rt.Value {
			return &rt.Value{Encoding: abi.Encoding(encoding), Elem: abi.Elem(elem), Data: bytes.Clone(data)}
		}
		var (
			i   int
			u8  uint8
			f64 float64
			s   string
			b   []byte
			fs  []float64
			m   map[string]int
			st  struct{ A, B int }
			r   Ref[int]
			rs  []Ref[int]
			a   any
		)
		for _, err := range []error{decode(v(), &i), decode(v(), &u8), decode(v(), &f64), decode(v(), &s), decode(v(), &b),
			decode(v(), &fs), decode(v(), &m), decode(v(), &st), decode(v(), &r), decode(v(), &rs), decode(v(), &a)} {
			if err != nil && err.Error() == "" {
				t.Error("an error without a text")
			}
		}
		// What the fast path takes, package cbor must take alike.
		if encoding == uint32(abi.EncodingCBOR) {
			var want int
			if kind, _ := kindOf[int](); fast(kind, data, ptrOf(&i)) {
				if err := cbor.Unmarshal(data, &want); err != nil || want != i {
					t.Errorf("%x: the fast path reads %d, package cbor %d, %v", data, i, want, err)
				}
			}
		}
	})
}

func ptrOf[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }
