package worker

import (
	"encoding/binary"

	"github.com/wray-project/wray/wasm/abi"
)

// view is a guest's linear memory. Its methods check bounds in 64 bits, so that
// no pointer and length a guest can give reach outside.
type view []byte

// bytes returns n bytes at p, aliasing the guest's memory.
func (v view) bytes(p, n uint32) ([]byte, bool) {
	end := uint64(p) + uint64(n)
	if end > uint64(len(v)) {
		return nil, false
	}
	return v[p:end:end], true
}

// array returns n records of size bytes at p.
func (v view) array(p, n, size uint32) ([]byte, bool) {
	end := uint64(p) + uint64(n)*uint64(size)
	if end > uint64(len(v)) {
		return nil, false
	}
	return v[p:end:end], true
}

func (v view) putU32(p, x uint32) bool {
	b, ok := v.bytes(p, 4)
	if ok {
		binary.LittleEndian.PutUint32(b, x)
	}
	return ok
}

func u32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func u64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

func putU32(b []byte, off int, x uint32) { binary.LittleEndian.PutUint32(b[off:], x) }
func putU64(b []byte, off int, x uint64) { binary.LittleEndian.PutUint64(b[off:], x) }

// guestValue is a value as a guest describes it. payload and refs alias the
// guest's memory.
type guestValue struct {
	encoding abi.Encoding
	meta     uint32
	payload  []byte
	refs     []byte // u32 handles
}

// value reads a struct value.
func (v view) value(b []byte) (g guestValue, e abi.Errno) {
	g.encoding, g.meta = abi.Encoding(u32(b, abi.ValueEncoding)), u32(b, abi.ValueMeta)
	if !validShape(g.encoding, g.meta, uint64(u32(b, abi.ValueLen))) {
		return g, abi.EINVAL
	}
	var ok bool
	if g.payload, ok = v.bytes(u32(b, abi.ValuePtr), u32(b, abi.ValueLen)); !ok {
		return g, abi.EFAULT
	}
	if g.refs, ok = v.array(u32(b, abi.ValueRefsPtr), u32(b, abi.ValueRefsLen), 4); !ok {
		return g, abi.EFAULT
	}
	return g, abi.Success
}

// validShape reports whether a value may have the encoding, meta and length.
func validShape(e abi.Encoding, meta uint32, length uint64) bool {
	switch e {
	case abi.EncodingRaw, abi.EncodingCBOR, abi.EncodingArrow, abi.EncodingError:
		return meta == 0
	case abi.EncodingNumeric:
		size := uint64(abi.Elem(meta).Size())
		return size != 0 && length%size == 0
	}
	return false
}

// valueAt reads a struct value at p.
func (v view) valueAt(p uint32) (guestValue, abi.Errno) {
	b, ok := v.bytes(p, abi.ValueSize)
	if !ok {
		return guestValue{}, abi.EFAULT
	}
	return v.value(b)
}
