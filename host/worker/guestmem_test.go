package worker

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/wray-project/wray/wasm/abi"
)

func TestViewBounds(t *testing.T) {
	v := make(view, 64, 128) // what lies behind len is not the guest's
	const top = math.MaxUint32
	for _, tc := range []struct {
		p, n, size uint32
		ok         bool
	}{
		{0, 0, 1, true}, {0, 64, 1, true}, {64, 0, 1, true}, {63, 1, 1, true}, {32, 4, 8, true}, {0, 0, top, true},
		{0, 65, 1, false}, {64, 1, 1, false}, {65, 0, 1, false}, {1, 64, 1, false}, {top, 0, 1, false},
		{top, top, 1, false}, {32, top, 1, false}, {top, 1, 1, false}, {32, 5, 8, false},
		{0, 1 << 31, 2, false}, {0, 1 << 30, 4, false}, {16, top, top, false}, {0, 1 << 28, 16, false},
	} {
		b, ok := v.array(tc.p, tc.n, tc.size)
		if ok != tc.ok || ok && (len(b) != int(tc.n*tc.size) || cap(b) != len(b)) {
			t.Errorf("array(%d, %d, %d) = %d bytes of %d, %v; want %v", tc.p, tc.n, tc.size, len(b), cap(b), ok, tc.ok)
		}
		if tc.size != 1 {
			continue
		}
		b, ok = v.bytes(tc.p, tc.n)
		if ok != tc.ok || ok && (len(b) != int(tc.n) || cap(b) != len(b)) {
			t.Errorf("bytes(%d, %d) = %d bytes of %d, %v; want %v", tc.p, tc.n, len(b), cap(b), ok, tc.ok)
		}
	}
	if v.putU32(61, 1) || v.putU32(top, 1) || !v.putU32(60, 0x04030201) || !bytes.Equal(v[60:], []byte{1, 2, 3, 4}) {
		t.Error("putU32 does not keep to the memory")
	}
	if _, e := v.str(0, maxName+1); e != abi.EMSGSIZE {
		t.Errorf("a long name: %d", e)
	}
	if _, e := v.str(60, 5); e != abi.EFAULT {
		t.Errorf("a name past the end: %d", e)
	}
}

// value lays a struct value down.
func value(fields ...uint32) []byte {
	var b []byte
	for _, f := range fields {
		b = binary.LittleEndian.AppendUint32(b, f)
	}
	return b
}

func TestValue(t *testing.T) {
	const max = math.MaxUint32
	for _, tc := range []struct {
		encoding       abi.Encoding
		meta           uint32
		ptr, len       uint32
		refsPtr, refsN uint32
		want           abi.Errno
	}{
		{abi.EncodingRaw, 0, 0, 0, 0, 0, 0},
		{abi.EncodingRaw, 0, 0, 256, 256, 0, 0},
		{abi.EncodingCBOR, 0, 255, 1, 0, 64, 0},
		{abi.EncodingNumeric, uint32(abi.ElemF64), 0, 64, 0, 0, 0},
		{abi.EncodingNumeric, uint32(abi.ElemF64), 0, 65, 0, 0, abi.EINVAL},
		{abi.EncodingNumeric, 0, 0, 64, 0, 0, abi.EINVAL},
		{abi.EncodingNumeric, 11, 0, 64, 0, 0, abi.EINVAL},
		{abi.EncodingNumeric, max, 0, 64, 0, 0, abi.EINVAL},
		{abi.EncodingNumeric, uint32(abi.ElemU8), 0, max, 0, 0, abi.EFAULT},
		{abi.EncodingRaw, 1, 0, 0, 0, 0, abi.EINVAL},
		{0, 0, 0, 0, 0, 0, abi.EINVAL},
		{6, 0, 0, 0, 0, 0, abi.EINVAL},
		{max, 0, 0, 0, 0, 0, abi.EINVAL},
		{abi.EncodingArrow, 0, 256, 1, 0, 0, abi.EFAULT},
		{abi.EncodingError, 0, 1, max, 0, 0, abi.EFAULT},
		{abi.EncodingRaw, 0, max, max, 0, 0, abi.EFAULT},
		{abi.EncodingRaw, 0, 0, 0, 0, 65, abi.EFAULT},
		{abi.EncodingRaw, 0, 0, 0, 0, 1 << 30, abi.EFAULT}, // 4 GiB of handles: 0 in 32 bits
		{abi.EncodingRaw, 0, 0, 0, max, 1, abi.EFAULT},
	} {
		v := make(view, 256, 512)
		copy(v, value(uint32(tc.encoding), tc.meta, tc.ptr, tc.len, tc.refsPtr, tc.refsN))
		if _, e := v.valueAt(0); e != tc.want {
			t.Errorf("%+v: errno %d", tc, e)
		}
	}
	if _, e := make(view, 64).valueAt(64 - abi.ValueSize + 1); e != abi.EFAULT {
		t.Errorf("a value past the end: %d", e)
	}
}

// FuzzValue reads a struct value anywhere in a memory of any content. What it
// accepts lies in the memory, and is what the structure says.
func FuzzValue(f *testing.F) {
	f.Add(value(uint32(abi.EncodingNumeric), uint32(abi.ElemI64), 0, 16, 4, 2), uint32(0))
	f.Add(value(uint32(abi.EncodingCBOR), 0, 23, 1, 0, 6), uint32(0))
	f.Add(value(uint32(abi.EncodingRaw), 0, math.MaxUint32, 1, 1<<30, 1<<30), uint32(0))
	f.Fuzz(func(t *testing.T, mem []byte, p uint32) {
		v := view(mem)
		g, e := v.valueAt(p)
		switch e {
		case abi.Success:
		case abi.EFAULT, abi.EINVAL:
			return
		default:
			t.Fatalf("errno %d", e)
		}
		at := func(off uint32) uint64 { return uint64(u32(mem, int(p+off))) }
		inside := func(what string, b []byte, ptr, n uint64) {
			if ptr+n > uint64(len(mem)) || uint64(len(b)) != n || cap(b) != len(b) || !bytes.Equal(b, mem[ptr:ptr+n]) {
				t.Errorf("%s: %d bytes of %d at %d in a memory of %d, want %d", what, len(b), cap(b), ptr, len(mem), n)
			}
		}
		inside("payload", g.payload, at(abi.ValuePtr), at(abi.ValueLen))
		inside("refs", g.refs, at(abi.ValueRefsPtr), 4*at(abi.ValueRefsLen))
		if s := abi.Elem(g.meta).Size(); g.encoding == abi.EncodingNumeric && (s == 0 || len(g.payload)%s != 0) ||
			g.encoding != abi.EncodingNumeric && g.meta != 0 || g.encoding < abi.EncodingRaw || g.encoding > abi.EncodingError {
			t.Errorf("accepted encoding %d, meta %d, %d bytes", g.encoding, g.meta, len(g.payload))
		}
	})
}
