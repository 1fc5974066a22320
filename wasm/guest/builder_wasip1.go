package guest

import (
	"context"
	"errors"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// A Builder makes one object from first byte to last, part after part: it may be
// longer than the guest's memory.
type Builder struct {
	handle uint32 // of the buffer; 0 when the Builder has ended
	task   uint32
	size   int64 // most bytes
	n      int64 // bytes written

	w     *window
	base  *byte  // keeps w's memory
	part  []byte // of w, mapped at
	first int64  // offset of part
}

// partSize is how much of the object is mapped at a time.
const partSize = 16 << 20

// NewBuilder returns a builder for an object of size bytes at most.
func NewBuilder(ctx context.Context, size int64) (*Builder, error) {
	b := &Builder{size: size, task: taskNumber}
	s := takeScratch()
	defer s.give()
	// What is too short to be a buffer is a longer one, cut.
	length := uint64(max(size, abi.MapAlign))
	if e := importBufferOpen(length, &s.out); !ok(e) {
		if err := again(ctx, e, func() uint32 { return importBufferOpen(length, &s.out) }); err != nil {
			return nil, err
		}
	}
	b.handle = s.out
	own(b.handle)
	b.w, b.base = takeWindow(partSize)
	return b, nil
}

// ErrTooLong is the failure of a Write past what the Builder was made for.
var ErrTooLong = errors.New("more is written than the object was to have")

var errEnded = errors.New("the builder was sealed or closed")

// Write appends p.
func (b *Builder) Write(p []byte) (written int, err error) {
	switch {
	case b.handle == 0:
		return 0, errEnded
	case b.task != taskNumber:
		return 0, ErrStale
	case int64(len(p)) > b.size-b.n:
		return 0, ErrTooLong
	}
	for len(p) > 0 {
		if b.n >= b.first+int64(len(b.part)) {
			if err := b.next(); err != nil {
				return written, err
			}
		}
		k := copy(b.part[b.n-b.first:], p)
		p = p[k:]
		written += k
		b.n += int64(k)
	}
	return written, nil
}

// next maps the part of the object that begins at n, a multiple of partSize.
func (b *Builder) next() error {
	b.unmap()
	length := min(int64(partSize), max(b.size, abi.MapAlign)-b.n)
	length = (length + abi.MapAlign - 1) &^ (abi.MapAlign - 1)
	e := importObjectMap(b.handle, uint32(b.w.start), uint32(length), b.n)
	if abi.Errno(e) == abi.E2BIG {
		Reclaim()
		e = importObjectMap(b.handle, uint32(b.w.start), uint32(length), b.n)
	}
	if !ok(e) {
		return refused(e)
	}
	p := unsafe.Add(unsafe.Pointer(b.base), b.w.start-uintptr(unsafe.Pointer(b.base)))
	b.part, b.first = unsafe.Slice((*byte)(p), length), b.n
	return nil
}

func (b *Builder) unmap() {
	if len(b.part) == 0 {
		return
	}
	if e := importObjectUnmap(uint32(b.w.start), uint32(len(b.part))); !ok(e) {
		panic("BUG: object_unmap: " + Errno(e).Error())
	}
	b.first, b.part = b.n, nil
}

// Seal returns the object of what was written. The Builder has ended.
func (b *Builder) Seal(e abi.Encoding, elem abi.Elem) (*Ref, error) {
	switch {
	case b.handle == 0:
		return nil, errEnded
	case b.task != taskNumber:
		return nil, ErrStale
	}
	b.unmap()
	var h uint32
	if e := importBufferSeal(b.handle, uint32(e), uint32(elem), uint64(b.n), &h); !ok(e) {
		return nil, refused(e)
	}
	disown(b.handle)
	b.end()
	return newRef(h, refReady), nil
}

// Close gives up what was not sealed. After Seal, or Close, it does nothing.
func (b *Builder) Close() {
	if b.handle == 0 {
		return
	}
	b.unmap()
	if b.task == taskNumber {
		drop(b.handle)
	}
	b.end()
}

func (b *Builder) end() {
	putWindow(b.w, b.base)
	b.handle, b.w, b.base = 0, nil, nil
}
