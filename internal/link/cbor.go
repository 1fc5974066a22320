package link

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
)

// Bounds of a decoded body. An array element costs at least one byte of the
// body and at most the size of its Go type, so these and Options.MaxBody bound
// what a hostile body can make a node allocate.
const (
	maxNesting  = 32
	maxElements = 1 << 17
)

var (
	encMode = must(cbor.EncOptions{
		Sort:        cbor.SortNone,
		IndefLength: cbor.IndefLengthForbidden,
		TagsMd:      cbor.TagsForbidden,
	}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:             cbor.DupMapKeyEnforcedAPF,
		IndefLength:           cbor.IndefLengthForbidden,
		TagsMd:                cbor.TagsForbidden,
		ExtraReturnErrors:     cbor.ExtraDecErrorUnknownField,
		FieldNameMatching:     cbor.FieldNameMatchingCaseSensitive,
		MapKeyByteString:      cbor.MapKeyByteStringForbidden,
		UTF8:                  cbor.UTF8RejectInvalid,
		MaxNestedLevels:       maxNesting,
		MaxArrayElements:      maxElements,
		MaxMapPairs:           maxElements,
		BignumTag:             cbor.BignumTagForbidden,
		ByteStringToString:    cbor.ByteStringToStringForbidden,
		ByteStringToTime:      cbor.ByteStringToTimeForbidden,
		BinaryUnmarshaler:     cbor.BinaryUnmarshalerNone,
		IntDec:                cbor.IntDecConvertNone,
		DefaultByteStringType: nil,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return v
}

// Marshal encodes the body of a message.
func Marshal(v any) ([]byte, error) { return encMode.Marshal(v) }

// Unmarshal decodes the body of a message into v, a pointer. It refuses unknown
// and repeated fields, tags, indefinite lengths, invalid UTF-8, trailing bytes,
// more than 32 levels and arrays or maps of more than 131,072 elements.
// The error wraps ErrProtocol.
func Unmarshal(body []byte, v any) error {
	if err := decMode.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: body: %w", ErrProtocol, err)
	}
	return nil
}

// maxCauses bounds the chain of causes of an error from a peer.
const maxCauses = 16

// decodeFailure decodes the body of a failure frame.
func decodeFailure(body []byte) (*wray.Error, error) {
	var e wray.Error
	if err := Unmarshal(body, &e); err != nil {
		return nil, err
	}
	n := 0
	for c := &e; c != nil; c = c.Cause {
		if n++; n > maxCauses {
			return nil, protocolError("more than %d causes", maxCauses)
		}
	}
	if e.Code == wray.CodeOK {
		return nil, protocolError("failure without a code")
	}
	return &e, nil
}
