package guest

import (
	"context"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// A buffer is an object in the making whose pages lie in a window, where the
// program fills them. It is the program's slice that keeps the window, and with
// it the buffer: nothing else says when the program has lost interest.
type buffer struct {
	handle uint32
	task   uint32 // taskNumber when the handle was given
	length int
}

// buffers are those that are open, by the address of their first byte.
var buffers map[uint32]*buffer

// Alloc returns n zero bytes, at an address that is a multiple of 8. Large ones
// are a buffer: the first time that all of them, or half of them and more from
// the first on, are given to the host as a value, they become an object without
// being copied. To the program that looks as if they had been: what it writes
// to them later is its own.
func Alloc(ctx context.Context, n int) ([]byte, error) {
	if n >= mapMin && n <= 1<<31 {
		if data, err := openBuffer(ctx, n); data != nil || err != nil {
			return data, err
		}
	}
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:n:n], nil
}

// openBuffer returns nil where the host has no buffers.
func openBuffer(ctx context.Context, n int) ([]byte, error) {
	s := takeScratch()
	defer s.give()
	if e := importBufferOpen(uint64(n), &s.out); !ok(e) {
		if abi.Errno(e) == abi.ENOTSUP {
			return nil, nil
		}
		if err := again(ctx, e, func() uint32 { return importBufferOpen(uint64(n), &s.out) }); err != nil {
			return nil, err
		}
	}
	b := &buffer{handle: s.out, task: taskNumber, length: n}
	own(b.handle)
	data, err := mapRange(b.handle, 0, uint64(n))
	if data == nil {
		drop(b.handle)
		return nil, err
	}
	if buffers == nil {
		buffers = make(map[uint32]*buffer)
	}
	buffers[bytesAddr(data)] = b
	return data, nil
}

// forgetBuffer is called when no slice of the window at start is left.
func forgetBuffer(start uint32) {
	if b := buffers[start]; b != nil {
		delete(buffers, start)
		if b.task == taskNumber {
			drop(b.handle)
		}
	}
}

// sealed makes an object of v without copying it, where v's payload is a
// buffer, and returns a handle that the caller owns. Else it returns 0, and v
// is to be copied.
func sealed(v *Value) uint32 {
	if len(buffers) == 0 || len(v.Data) < mapMin || len(v.Refs) > 0 {
		return 0
	}
	start, n := bytesAddr(v.Data), len(v.Data)
	b := buffers[start]
	if b == nil || b.task != taskNumber || n > b.length || n < b.length/2 {
		return 0
	}
	// What is past the payload is no part of the object and is gone from the
	// window with it; it is the program's all the same.
	all := unsafe.Slice(unsafe.SliceData(v.Data), b.length)
	rest := append([]byte(nil), all[n:]...)
	delete(buffers, start)
	var h uint32
	if e := importBufferSeal(b.handle, uint32(v.Encoding), uint32(v.Elem), uint64(n), &h); !ok(e) {
		return 0
	}
	disown(b.handle)
	copy(all[n:], rest)
	return h
}

// setWhole describes v to the host for a call that takes objects as values: as
// set does, or, where v is a buffer, by a handle, which done gives back.
func (s *scratch) setWhole(v *Value) error {
	s.whole = 0
	if h := sealed(v); h != 0 {
		own(h)
		s.whole = h
		s.value = rawValue{encoding: uint32(abi.EncodingObject), ptr: h}
		return nil
	}
	s.handles = s.handles[:0]
	return s.set(&s.value, v)
}

func (s *scratch) done() {
	if s.whole != 0 {
		drop(s.whole)
		s.whole = 0
	}
}
