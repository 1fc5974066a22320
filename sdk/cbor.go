package sdk

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// The modes say what Go programs expect of a value that comes back: strings
// are any bytes, times keep their nanoseconds, large slices are no error, and
// objects decode into map[string]any where nothing says otherwise.
var (
	cborEncoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano, TimeTag: cbor.EncTagRequired,
		InfConvert: cbor.InfConvertNone, NaNConvert: cbor.NaNConvertNone}.EncMode())
	cborDecoding = must(cbor.DecOptions{
		UTF8:             cbor.UTF8DecodeInvalid,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
		MaxNestedLevels:  maxNesting,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return v
}

// References travel beside a payload, which names them by index. Package cbor
// calls MarshalCBOR and UnmarshalCBOR of a Ref without saying which value it
// is at, so the table of the value at hand stands here, one value at a time.
var table struct {
	sync.Mutex
	encoding *[]*rt.Ref // guarded by the mutex; nil: no value is being encoded
	decoding []*rt.Ref  // guarded by the mutex
}

// marshalCBOR encodes *v. refs says whether it may hold references.
func marshalCBOR(v any, refs bool) ([]byte, []*rt.Ref, error) {
	if !refs {
		b, err := cborEncoding.Marshal(v)
		return b, nil, err
	}
	var held []*rt.Ref
	table.Lock()
	defer table.Unlock()
	table.encoding = &held
	defer func() { table.encoding = nil }()
	b, err := cborEncoding.Marshal(v)
	return b, held, err
}

// unmarshalCBOR decodes v into out, a pointer. refs says whether that may hold
// references.
func unmarshalCBOR(v *rt.Value, out any, refs bool) error {
	if !refs {
		return cborDecoding.Unmarshal(v.Data, out)
	}
	table.Lock()
	defer table.Unlock()
	table.decoding = v.Refs
	defer func() { table.decoding = nil }()
	return cborDecoding.Unmarshal(v.Data, out)
}

var errStrayRef = errors.New("sdk: a Ref can only be encoded as part of a value given to a task or returned by one")

// MarshalCBOR encodes r inside a value; it is called by the sdk.
func (r Ref[T]) MarshalCBOR() ([]byte, error) {
	if r.p == nil {
		return []byte{0xf6}, nil
	}
	if table.encoding == nil {
		return nil, errStrayRef
	}
	if err := r.p.Err(); err != nil {
		return nil, err
	}
	return appendRef(nil, table.encoding, r.p), nil
}

// refHead is how an encoded reference begins; its index in the value's table
// follows.
var refHead = appendHead(nil, 0xc0, abi.RefTag)

// appendRef encodes p, which it enters into the table held.
func appendRef(b []byte, held *[]*rt.Ref, p *rt.Ref) []byte {
	i := 0
	for i < len(*held) && (*held)[i] != p {
		if i++; i == 64 { // looking for one that was seen pays for few only
			i = len(*held)
		}
	}
	if i == len(*held) {
		*held = append(*held, p)
	}
	return appendHead(append(b, refHead...), 0, uint64(i))
}

// isRefs reports whether t is a slice of Refs or Handles, which has the layout
// of a []*rt.Ref. Package cbor decodes such elements by reflection, which takes
// three times as long as to get the objects behind them (measure: wray bench
// core "10k refs").
func isRefs(t reflect.Type) bool {
	if t.Kind() != reflect.Slice || t.Implements(marshalerType) {
		return false
	}
	e := t.Elem()
	return e.Kind() == reflect.Struct && e.NumField() == 1 && e.Field(0).Type == reflect.TypeFor[*rt.Ref]() &&
		e.Implements(refBaseType) && e.Implements(marshalerType)
}

// marshalRefs encodes refs as package cbor would, by MarshalCBOR of each.
func marshalRefs(refs []*rt.Ref) (data []byte, held []*rt.Ref, err error) {
	if refs == nil {
		return []byte{0xf6}, nil, nil
	}
	data = appendHead(make([]byte, 0, len(refs)*(len(refHead)+3)+9), 0x80, uint64(len(refs)))
	for _, p := range refs {
		if p == nil {
			data = append(data, 0xf6)
			continue
		}
		if err := p.Err(); err != nil {
			return nil, nil, err
		}
		data = appendRef(data, &held, p)
	}
	return data, held, nil
}

// unmarshalRefs decodes what marshalRefs writes. It reports false, and leaves
// out as it was, where v is anything else, or a null.
func unmarshalRefs(v *rt.Value, out *[]*rt.Ref) bool {
	major, n, b, ok := cutHead(v.Data)
	if !ok || major != 0x80 || n > uint64(len(b)) {
		return false
	}
	if n > 0 && n == uint64(len(v.Refs)) && inOrder(b, int(n)) {
		if *out = v.Refs; !rt.RefsOwned {
			*out = slices.Clone(v.Refs)
		}
		return true
	}
	refs := make([]*rt.Ref, n)
	for k := range refs {
		if len(b) > 0 && b[0] == 0xf6 {
			b = b[1:]
			continue
		}
		i, rest, ok := cutRef(b)
		if !ok || i >= uint64(len(v.Refs)) {
			return false
		}
		refs[k], b = v.Refs[i], rest
	}
	if len(b) > 0 {
		return false
	}
	*out = refs
	return true
}

// inOrder reports whether b is a reference to each of the first n in a value's
// table, in their order, as most lists are.
func inOrder(b []byte, n int) bool {
	for k := 0; k < n; k++ {
		// Most have an index of two bytes, and so take eight.
		for len(b) >= 8 && k < n && k>>8 != 0 && k>>16 == 0 &&
			binary.LittleEndian.Uint64(b) == longRef|uint64(k>>8)<<48|uint64(k&0xff)<<56 {
			b = b[8:]
			k++
		}
		if k == n {
			break
		}
		i, rest, ok := cutRef(b)
		if !ok || i != uint64(k) {
			return false
		}
		b = rest
	}
	return len(b) == 0
}

// longRef is an encoded reference whose index takes two bytes, but for those, as
// a little-endian number: the tag, and the head of the index.
var longRef = uint64(0xda) | uint64(bits.ReverseBytes32(abi.RefTag))<<8 | 0x19<<40

// cutRef reads an encoded reference: its index in the value's table.
func cutRef(b []byte) (i uint64, rest []byte, ok bool) {
	if len(b) < 6 || b[0] != 0xda || binary.BigEndian.Uint32(b[1:]) != abi.RefTag {
		return 0, nil, false
	}
	if n := b[5]; n < 24 {
		return uint64(n), b[6:], true
	} else if n == 0x19 && len(b) >= 8 {
		return uint64(binary.BigEndian.Uint16(b[6:])), b[8:], true
	}
	major, i, rest, ok := cutHead(b[5:])
	return i, rest, ok && major == 0
}

// UnmarshalCBOR decodes a Ref inside a value; it is called by the sdk.
func (r *Ref[T]) UnmarshalCBOR(b []byte) error {
	if len(b) == 1 && (b[0] == 0xf6 || b[0] == 0xf7) {
		*r = Ref[T]{}
		return nil
	}
	major, tag, rest, ok := cutHead(b)
	if !ok || major != 0xc0 || tag != abi.RefTag {
		return errors.New("sdk: not a reference")
	}
	major, i, rest, ok := cutHead(rest)
	if !ok || major != 0 || len(rest) != 0 || i >= uint64(len(table.decoding)) {
		return errors.New("sdk: a reference to an object that the value does not hold")
	}
	*r = Ref[T]{table.decoding[i]}
	return nil
}
