package sdk

import (
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"sync"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// A kind is a way in which a Go type travels.
type kind uint8

const (
	kindCBOR kind = iota // through package cbor
	kindUnit             // struct{}: an empty CBOR map
	kindBool
	kindInt
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindUint
	kindUint8
	kindUint16
	kindUint32
	kindUint64
	kindFloat32
	kindFloat64
	kindString
	kindBytes   // RAW
	kindNumeric // NUMERIC, with the kind's element
	kindPayload // ARROW, by the type's own methods
	kindRefs    // a slice of references, and nothing else
)

// kindOf returns the kind of the unnamed basic types and their slices, which
// are what most values are. It costs one type switch; classify does the rest.
func kindOf[T any]() (kind, abi.Elem) {
	switch any((*T)(nil)).(type) {
	case *struct{}:
		return kindUnit, 0
	case *bool:
		return kindBool, 0
	case *int:
		return kindInt, 0
	case *int8:
		return kindInt8, 0
	case *int16:
		return kindInt16, 0
	case *int32:
		return kindInt32, 0
	case *int64:
		return kindInt64, 0
	case *uint:
		return kindUint, 0
	case *uint8:
		return kindUint8, 0
	case *uint16:
		return kindUint16, 0
	case *uint32:
		return kindUint32, 0
	case *uint64:
		return kindUint64, 0
	case *float32:
		return kindFloat32, 0
	case *float64:
		return kindFloat64, 0
	case *string:
		return kindString, 0
	case *[]byte:
		return kindBytes, 0
	case *[]int8:
		return kindNumeric, abi.ElemI8
	case *[]int16:
		return kindNumeric, abi.ElemI16
	case *[]int32:
		return kindNumeric, abi.ElemI32
	case *[]int64:
		return kindNumeric, abi.ElemI64
	case *[]uint16:
		return kindNumeric, abi.ElemU16
	case *[]uint32:
		return kindNumeric, abi.ElemU32
	case *[]uint64:
		return kindNumeric, abi.ElemU64
	case *[]float32:
		return kindNumeric, abi.ElemF32
	case *[]float64:
		return kindNumeric, abi.ElemF64
	}
	c := classify(reflect.TypeFor[T]())
	return c.kind, c.elem
}

// class is what is known of a type that kindOf's switch does not name.
type class struct {
	kind kind
	elem abi.Elem
	refs bool // a value may hold a Ref
	// nests is set where nothing but the value says how deep it nests.
	nests bool
}

var classes sync.Map // reflect.Type to class

var (
	payloadType   = reflect.TypeFor[rt.Payload]()
	refBaseType   = reflect.TypeFor[AnyRef]()
	marshalerType = reflect.TypeFor[interface{ MarshalCBOR() ([]byte, error) }]()
)

// classify returns t's class. Named types whose elements are numbers travel
// as those of unnamed types do.
func classify(t reflect.Type) class {
	if c, ok := classes.Load(t); ok {
		return c.(class)
	}
	var c class
	if t.Kind() == reflect.Slice && !t.Implements(marshalerType) && !t.Elem().Implements(marshalerType) {
		c.kind = kindNumeric
		switch t.Elem().Kind() {
		case reflect.Uint8:
			c.kind = kindBytes
		case reflect.Int8:
			c.elem = abi.ElemI8
		case reflect.Int16:
			c.elem = abi.ElemI16
		case reflect.Int32:
			c.elem = abi.ElemI32
		case reflect.Int64:
			c.elem = abi.ElemI64
		case reflect.Uint16:
			c.elem = abi.ElemU16
		case reflect.Uint32:
			c.elem = abi.ElemU32
		case reflect.Uint64:
			c.elem = abi.ElemU64
		case reflect.Float32:
			c.elem = abi.ElemF32
		case reflect.Float64:
			c.elem = abi.ElemF64
		case reflect.Int, reflect.Uint:
			// Their width is the machine's, and the other side's may differ.
			c.elem = abi.ElemI64
			if t.Elem().Kind() == reflect.Uint {
				c.elem = abi.ElemU64
			}
			if t.Elem().Size() != 8 {
				c = class{}
			}
		default:
			c = class{}
		}
	}
	if reflect.PointerTo(t).Implements(payloadType) {
		c.kind = kindPayload
	}
	if isRefs(t) {
		c.kind = kindRefs
	}
	c.refs = (c.kind == kindCBOR || c.kind == kindRefs) && mayHoldRefs(t, nil)
	c.nests = c.kind == kindCBOR && nests(t)
	classes.Store(t, c)
	return c
}

// mayHoldRefs reports whether a value of type t may contain a Ref.
func mayHoldRefs(t reflect.Type, seen []reflect.Type) bool {
	for _, s := range seen {
		if s == t {
			return false // decided where it was first seen
		}
	}
	seen = append(seen, t)
	if t.Implements(refBaseType) {
		return true
	}
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return mayHoldRefs(t.Elem(), seen)
	case reflect.Map:
		return mayHoldRefs(t.Key(), seen) || mayHoldRefs(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if mayHoldRefs(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// encode describes *v in out. Small payloads are appended to buf, which is
// returned; others stay where they are, so out must be used before *v changes.
func encode[T any](v *T, buf []byte, out *rt.Value) ([]byte, error) {
	k, elem := kindOf[T]()
	p := unsafe.Pointer(v)
	start := len(buf)
	switch k {
	case kindUnit:
		buf = append(buf, 0xa0)
	case kindBool:
		b := byte(0xf4)
		if *(*bool)(p) {
			b = 0xf5
		}
		buf = append(buf, b)
	case kindInt:
		buf = appendInt(buf, int64(*(*int)(p)))
	case kindInt8:
		buf = appendInt(buf, int64(*(*int8)(p)))
	case kindInt16:
		buf = appendInt(buf, int64(*(*int16)(p)))
	case kindInt32:
		buf = appendInt(buf, int64(*(*int32)(p)))
	case kindInt64:
		buf = appendInt(buf, *(*int64)(p))
	case kindUint:
		buf = appendHead(buf, 0, uint64(*(*uint)(p)))
	case kindUint8:
		buf = appendHead(buf, 0, uint64(*(*uint8)(p)))
	case kindUint16:
		buf = appendHead(buf, 0, uint64(*(*uint16)(p)))
	case kindUint32:
		buf = appendHead(buf, 0, uint64(*(*uint32)(p)))
	case kindUint64:
		buf = appendHead(buf, 0, *(*uint64)(p))
	case kindFloat32:
		buf = binary.BigEndian.AppendUint32(append(buf, 0xfa), math.Float32bits(*(*float32)(p)))
	case kindFloat64:
		buf = binary.BigEndian.AppendUint64(append(buf, 0xfb), math.Float64bits(*(*float64)(p)))
	case kindString:
		s := *(*string)(p)
		buf = append(appendHead(buf, 0x60, uint64(len(s))), s...)
	case kindBytes:
		out.Encoding, out.Elem, out.Data = abi.EncodingRaw, 0, *(*[]byte)(p)
		return buf, nil
	case kindNumeric:
		// Any slice has this layout; only its first two words are used.
		s := (*sliceHeader)(p)
		out.Encoding, out.Elem = abi.EncodingNumeric, elem
		out.Data = unsafe.Slice((*byte)(s.data), s.len*elem.Size())
		if bigEndian {
			out.Data = swapped(out.Data, elem.Size())
		}
		return buf, nil
	case kindPayload:
		c := *v
		var err error
		out.Elem = 0
		out.Encoding, out.Data, err = any(&c).(rt.Payload).MarshalPayload(func(n int) ([]byte, error) {
			return rt.Alloc(rt.Context(), n)
		})
		return buf, err
	case kindRefs:
		var err error
		out.Encoding, out.Elem = abi.EncodingCBOR, 0
		out.Data, out.Refs, err = marshalRefs(*(*[]*rt.Ref)(p))
		return buf, err
	default:
		c := *v // only here must the value be in the heap
		var err error
		out.Encoding, out.Elem = abi.EncodingCBOR, 0
		cl := classify(reflect.TypeFor[T]())
		if cl.nests {
			if err := checkDepth(reflect.ValueOf(&c).Elem()); err != nil {
				return buf, err
			}
		}
		out.Data, out.Refs, err = marshalCBOR(&c, cl.refs)
		return buf, err
	}
	out.Encoding, out.Elem, out.Data = abi.EncodingCBOR, 0, buf[start:len(buf):len(buf)]
	return buf, nil
}

type sliceHeader struct {
	data unsafe.Pointer
	len  int
	cap  int
}

// appendHead appends the head of a CBOR item (RFC 8949, section 3) in its
// shortest form: the major type, shifted left by 5, and the number.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// appendInt appends a CBOR integer: type 0 for n ≥ 0, type 1 holding -1-n else.
func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, 0x20, uint64(^n))
	}
	return appendHead(b, 0, uint64(n))
}

// cutHead reads the head of a CBOR item of definite length.
func cutHead(b []byte) (major byte, n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, nil, false
	}
	major, info := b[0]&0xe0, b[0]&0x1f
	b = b[1:]
	switch {
	case info < 24:
		return major, uint64(info), b, true
	case info == 24 && len(b) >= 1:
		return major, uint64(b[0]), b[1:], true
	case info == 25 && len(b) >= 2:
		return major, uint64(binary.BigEndian.Uint16(b)), b[2:], true
	case info == 26 && len(b) >= 4:
		return major, uint64(binary.BigEndian.Uint32(b)), b[4:], true
	case info == 27 && len(b) >= 8:
		return major, binary.BigEndian.Uint64(b), b[8:], true
	}
	return 0, 0, nil, false
}

// decode reads v into *out and releases it. The forms that encode writes are
// read here; every other is left to package cbor, which also explains what
// does not fit.
func decode[T any](v *rt.Value, out *T) error {
	defer v.Release()
	if v.Encoding == abi.EncodingError {
		return decodeFailure(v.Data)
	}
	k, elem := kindOf[T]()
	p := unsafe.Pointer(out)
	switch v.Encoding {
	case abi.EncodingRaw:
		if k == kindBytes {
			*(*[]byte)(p) = ownedBytes(v)
			return nil
		}
		if b, ok := any(out).(*any); ok {
			*b = ownedBytes(v)
			return nil
		}
		return mismatch[T](v)
	case abi.EncodingNumeric:
		size := v.Elem.Size()
		if b, ok := any(out).(*any); ok && size > 0 && len(v.Data)%size == 0 {
			return decodeNumericAny(v, b)
		}
		if k != kindNumeric || elem != v.Elem || len(v.Data)%size != 0 {
			return mismatch[T](v)
		}
		b := alignedBytes(v, size)
		*(*sliceHeader)(p) = sliceHeader{unsafe.Pointer(unsafe.SliceData(b)), len(b) / size, len(b) / size}
		return nil
	case abi.EncodingArrow:
		if k != kindPayload {
			return mismatch[T](v)
		}
		c := new(T)
		if err := any(c).(rt.Payload).UnmarshalPayload(ownedBytes(v)); err != nil {
			return badValue[T](v, err)
		}
		*out = *c
		return nil
	case abi.EncodingCBOR:
		if k == kindPayload {
			return mismatch[T](v)
		}
		if k == kindRefs && unmarshalRefs(v, (*[]*rt.Ref)(p)) || fast(k, v.Data, p) {
			return nil
		}
		c := new(T)
		if err := unmarshalCBOR(v, c, (k == kindCBOR || k == kindRefs) && classify(reflect.TypeFor[T]()).refs); err != nil {
			return badValue[T](v, err)
		}
		*out = *c
		return nil
	}
	return mismatch[T](v)
}

// fast decodes the canonical form of a basic kind into p. It reports false
// where data is anything else.
func fast(k kind, data []byte, p unsafe.Pointer) bool {
	switch k {
	case kindCBOR, kindBytes, kindNumeric, kindPayload:
		return false
	case kindFloat32:
		if len(data) == 5 && data[0] == 0xfa {
			*(*float32)(p) = math.Float32frombits(binary.BigEndian.Uint32(data[1:]))
			return true
		}
		return false
	case kindFloat64:
		if len(data) == 9 && data[0] == 0xfb {
			*(*float64)(p) = math.Float64frombits(binary.BigEndian.Uint64(data[1:]))
			return true
		}
		return false
	}
	major, n, rest, ok := cutHead(data)
	if !ok {
		return false
	}
	if k == kindString {
		if major != 0x60 || uint64(len(rest)) != n {
			return false
		}
		*(*string)(p) = string(rest)
		return true
	}
	if len(rest) != 0 {
		return false
	}
	switch k {
	case kindUnit:
		return major == 0xa0 && n == 0
	case kindBool:
		*(*bool)(p) = data[0] == 0xf5
		return data[0] == 0xf4 || data[0] == 0xf5
	}
	if major == 0 {
		switch k {
		case kindUint:
			*(*uint)(p) = uint(n)
			return uint64(uint(n)) == n
		case kindUint8:
			*(*uint8)(p) = uint8(n)
			return n <= math.MaxUint8
		case kindUint16:
			*(*uint16)(p) = uint16(n)
			return n <= math.MaxUint16
		case kindUint32:
			*(*uint32)(p) = uint32(n)
			return n <= math.MaxUint32
		case kindUint64:
			*(*uint64)(p) = n
			return true
		}
	}
	i := int64(n)
	if i < 0 || major > 0x20 {
		return false
	}
	if major == 0x20 {
		i = ^i
	}
	switch k {
	case kindInt:
		*(*int)(p) = int(i)
		return int64(int(i)) == i
	case kindInt8:
		*(*int8)(p) = int8(i)
		return int64(int8(i)) == i
	case kindInt16:
		*(*int16)(p) = int16(i)
		return int64(int16(i)) == i
	case kindInt32:
		*(*int32)(p) = int32(i)
		return int64(int32(i)) == i
	case kindInt64:
		*(*int64)(p) = i
		return true
	}
	return false
}

// ownedBytes returns v's payload for good.
func ownedBytes(v *rt.Value) []byte {
	if v.Owned && v.Data != nil {
		return v.Data[:len(v.Data):len(v.Data)]
	}
	return append(make([]byte, 0, len(v.Data)), v.Data...)
}

// alignedBytes returns v's payload for good, at an address that is a multiple
// of size.
func alignedBytes(v *rt.Value, size int) []byte {
	b := v.Data
	if !bigEndian && v.Owned && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(size) == 0 {
		return b
	}
	words := make([]uint64, (len(b)+7)/8)
	c := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:len(b)]
	copy(c, b)
	if bigEndian {
		return swapped(c, size)
	}
	return c
}

// decodeNumericAny decodes into an empty interface, as the slice that the
// element kind names.
func decodeNumericAny(v *rt.Value, out *any) error {
	size := v.Elem.Size()
	b := alignedBytes(v, size)
	p, n := unsafe.Pointer(unsafe.SliceData(b)), len(b)/size
	switch v.Elem {
	case abi.ElemI8:
		*out = unsafe.Slice((*int8)(p), n)
	case abi.ElemI16:
		*out = unsafe.Slice((*int16)(p), n)
	case abi.ElemI32:
		*out = unsafe.Slice((*int32)(p), n)
	case abi.ElemI64:
		*out = unsafe.Slice((*int64)(p), n)
	case abi.ElemU8:
		*out = unsafe.Slice((*uint8)(p), n)
	case abi.ElemU16:
		*out = unsafe.Slice((*uint16)(p), n)
	case abi.ElemU32:
		*out = unsafe.Slice((*uint32)(p), n)
	case abi.ElemU64:
		*out = unsafe.Slice((*uint64)(p), n)
	case abi.ElemF32:
		*out = unsafe.Slice((*float32)(p), n)
	case abi.ElemF64:
		*out = unsafe.Slice((*float64)(p), n)
	}
	return nil
}

// bigEndian is true on machines whose numbers have to be turned around.
var bigEndian = func() bool {
	n := uint16(1)
	return *(*byte)(unsafe.Pointer(&n)) == 0
}()

// swapped returns a copy of b with the bytes of each element reversed.
func swapped(b []byte, size int) []byte {
	c := make([]byte, len(b))
	for i := 0; i < len(b); i += size {
		for j := range size {
			c[i+j] = b[i+size-1-j]
		}
	}
	return c
}

func encodingName(v *rt.Value) string {
	switch v.Encoding {
	case abi.EncodingRaw:
		return "raw bytes"
	case abi.EncodingCBOR:
		return "CBOR"
	case abi.EncodingNumeric:
		names := [...]string{"", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}
		if int(v.Elem) < len(names) {
			return "an array of " + names[v.Elem]
		}
		return "an array of unknown numbers"
	case abi.EncodingArrow:
		return "an Arrow stream"
	case abi.EncodingError:
		return "a failure"
	}
	return fmt.Sprintf("encoding %d", v.Encoding)
}

func mismatch[T any](v *rt.Value) error {
	return &wray.Error{Code: wray.CodeBadArgument,
		Message: fmt.Sprintf("the value is %s and does not decode into %v", encodingName(v), reflect.TypeFor[T]()),
		Hint:    "give both sides of the call the same Go type"}
}

func badValue[T any](v *rt.Value, err error) error {
	return &wray.Error{Code: wray.CodeBadArgument,
		Message: fmt.Sprintf("the value is %s and does not decode into %v: %v", encodingName(v), reflect.TypeFor[T](), err),
		Hint:    "give both sides of the call the same Go type"}
}
