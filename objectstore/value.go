package objectstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Value is what an object is to hold. The store copies Payload and Refs; both
// stay the caller's, who must not change them before the call returns.
type Value struct {
	Encoding abi.Encoding
	Meta     uint32 // the element kind of a NUMERIC payload, else 0
	Payload  []byte
	Refs     []*Object // in the order in which the payload names them by index
	// Step, where it is not nil, is called between the parts of StepBytes in which
	// a long payload is copied, and among very many Refs. It may panic: then
	// nothing was stored.
	Step func()

	held []*Object // Refs with a reference each, where hold has taken them
}

// stepRefs is how many references are taken between two calls of a Value's Step.
const stepRefs = 1 << 14

// hold takes v's references in steps, where there are many, before anything is
// taken that a panic of Step would leave. Who calls it gives them back with
// letGo unless fill took them over.
func (v *Value) hold() {
	if v.Step == nil || len(v.Refs) <= stepRefs {
		return
	}
	held := make([]*Object, 0, len(v.Refs))
	whole := false
	defer func() {
		if v.held = held; !whole {
			v.letGo()
		}
	}()
	for i, r := range v.Refs {
		if i%stepRefs == stepRefs-1 {
			v.Step()
		}
		r.Retain()
		held = append(held, r)
	}
	whole = true
}

// table returns v's references for fillHeld, which takes them over.
func (v *Value) table() []*Object {
	if v.held != nil {
		return v.held
	}
	return retained(v.Refs)
}

func (v *Value) letGo() {
	for _, r := range v.held {
		r.Release()
	}
	v.held = nil
}

// StepBytes is how much is copied between two calls of a Value's Step: a few
// milliseconds' work where the memory is new.
const StepBytes = 8 << 20

// Size is how much room a value needs.
type Size struct {
	Payload int64 // bytes
	Refs    int   // references
}

// Size returns how much room v needs.
func (v Value) Size() Size { return Size{Payload: int64(len(v.Payload)), Refs: len(v.Refs)} }

// checkShape reports what no value may be, as a *wray.Error: values come from
// guests. It holds the rules of docs/ABI.md "Values" that do not need the
// payload's bytes.
func checkShape(e abi.Encoding, meta uint32, length, refs uint64) error {
	switch {
	case e < abi.EncodingRaw || e > abi.EncodingError:
		return wray.Errorf(wray.CodeBadArgument, "encoding %d is unknown: expected %d to %d",
			e, abi.EncodingRaw, abi.EncodingError)
	case length > MaxPayload:
		return wray.Errorf(wray.CodeBadArgument, "a payload of %d bytes is longer than %d", length, uint64(MaxPayload))
	case refs > MaxRefs:
		return &wray.Error{
			Code:    wray.CodeLimitExceeded,
			Message: fmt.Sprintf("a value refers to %d objects", refs),
			Limit:   &wray.Limit{Name: "references in a value", Value: MaxRefs},
			Hint:    "put the references into several values and refer to those",
		}
	case e != abi.EncodingNumeric && meta != 0:
		return wray.Errorf(wray.CodeBadArgument, "meta is %d: expected 0 for encoding %d", meta, e)
	case e == abi.EncodingNumeric && abi.Elem(meta).Size() == 0:
		return wray.Errorf(wray.CodeBadArgument, "element kind %d is unknown", meta)
	case e == abi.EncodingNumeric && length%uint64(abi.Elem(meta).Size()) != 0:
		return wray.Errorf(wray.CodeBadArgument, "a payload of %d bytes is no array of %d-byte elements",
			length, abi.Elem(meta).Size())
	}
	return nil
}

// Header describes a value away from its store: on disk or between nodes. The
// payload follows it there.
type Header struct {
	Encoding abi.Encoding
	Meta     uint32
	Len      uint64 // of the payload, in bytes
	Refs     []wray.ID
}

// ErrBadHeader says that bytes are no value header of this version.
var ErrBadHeader = errors.New("objectstore: bad value header")

// The binary form of a Header, little-endian:
//
//	 0  [4]byte  "wryv"
//	 4  u16      version, 1
//	 6  u16      flags, 0
//	 8  u32      encoding
//	12  u32      meta
//	16  u64      length of the payload
//	24  u32      n, the number of references
//	28  u32      CRC-32C of everything before and of the references
//	32  n times  u64 owner, u64 seq
const (
	headerMagic   = "wryv"
	headerVersion = 1
	headerFixed   = 32
	headerRef     = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// HeaderSize returns the length in bytes of a header with refs references.
func HeaderSize(refs int) int { return headerFixed + refs*headerRef }

// AppendBinary appends the binary form of h to b. It fails for a header that
// DecodeHeader would refuse.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return b, err
	}
	at := len(b)
	b = slices.Grow(b, HeaderSize(len(h.Refs)))
	b = append(b, headerMagic...)
	b = binary.LittleEndian.AppendUint16(b, headerVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Encoding))
	b = binary.LittleEndian.AppendUint32(b, h.Meta)
	b = binary.LittleEndian.AppendUint64(b, h.Len)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.Refs)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	for _, id := range h.Refs {
		b = binary.LittleEndian.AppendUint64(b, id.Owner)
		b = binary.LittleEndian.AppendUint64(b, id.Seq)
	}
	binary.LittleEndian.PutUint32(b[at+28:], headerSum(b[at:]))
	return b, nil
}

// DecodeHeader reads a header from the front of b and returns how many bytes
// it took. The result keeps nothing of b. Errors wrap ErrBadHeader. It
// allocates no more than b is long.
func DecodeHeader(b []byte) (Header, int, error) {
	bad := func(format string, args ...any) (Header, int, error) {
		return Header{}, 0, fmt.Errorf("%w: "+format, append([]any{ErrBadHeader}, args...)...)
	}
	if len(b) < headerFixed {
		return bad("%d bytes: expected at least %d", len(b), headerFixed)
	}
	if string(b[:4]) != headerMagic {
		return bad("magic is %q: expected %q", b[:4], headerMagic)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != headerVersion {
		return bad("version is %d: expected %d", v, headerVersion)
	}
	if f := binary.LittleEndian.Uint16(b[6:]); f != 0 {
		return bad("flags are %#x: expected 0", f)
	}
	n := binary.LittleEndian.Uint32(b[24:])
	// Compared before it is multiplied: n comes from outside.
	if n > MaxRefs || uint64(n) > uint64(len(b)-headerFixed)/headerRef {
		return bad("%d references do not fit into %d bytes", n, len(b))
	}
	size := HeaderSize(int(n))
	if got, want := headerSum(b[:size]), binary.LittleEndian.Uint32(b[28:]); got != want {
		return bad("checksum is %#08x: expected %#08x", got, want)
	}
	h := Header{
		Encoding: abi.Encoding(binary.LittleEndian.Uint32(b[8:])),
		Meta:     binary.LittleEndian.Uint32(b[12:]),
		Len:      binary.LittleEndian.Uint64(b[16:]),
	}
	if n > 0 {
		h.Refs = make([]wray.ID, n)
	}
	for i := range h.Refs {
		at := headerFixed + i*headerRef
		h.Refs[i] = wray.ID{
			Owner: binary.LittleEndian.Uint64(b[at:]),
			Seq:   binary.LittleEndian.Uint64(b[at+8:]),
		}
	}
	if err := h.check(); err != nil {
		return Header{}, 0, err
	}
	return h, size, nil
}

// check reports a header that describes no value.
func (h *Header) check() error {
	if err := checkShape(h.Encoding, h.Meta, h.Len, uint64(len(h.Refs))); err != nil {
		return fmt.Errorf("%w: %w", ErrBadHeader, err)
	}
	for i, id := range h.Refs {
		if id.IsZero() {
			return fmt.Errorf("%w: reference %d is the zero ID", ErrBadHeader, i)
		}
	}
	return nil
}

// headerSum is the checksum of b, a whole header, its own field apart.
func headerSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:28])
	return crc32.Update(sum, castagnoli, b[headerFixed:])
}
