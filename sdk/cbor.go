package sdk

import (
	"errors"
	"math"
	"reflect"
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
		MaxNestedLevels:  256,
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
	held := *table.encoding
	i := 0
	for i < len(held) && held[i] != r.p {
		if i++; i == 64 { // looking for one that was seen pays for few only
			i = len(held)
		}
	}
	if i == len(held) {
		*table.encoding = append(held, r.p)
	}
	return appendHead(appendHead(nil, 0xc0, abi.RefTag), 0, uint64(i)), nil
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
