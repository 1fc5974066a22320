//go:build !wasip1

package rt

import (
	"context"
	"errors"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Alloc returns n zero bytes, at an address that is a multiple of 8.
func Alloc(ctx context.Context, n int) ([]byte, error) {
	words := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)[:n:n], ctx.Err()
}

// Range describes n bytes of r's payload from offset off on, fewer at its end,
// in v, and returns the payload's length.
func (r *Ref) Range(ctx context.Context, off, n int64, v *Value) (length int64, err error) {
	o, err := r.whole(ctx)
	if err != nil {
		return 0, err
	}
	*v = Value{Encoding: o.Encoding, Elem: o.Elem, Owned: true, Data: o.Data}
	length = int64(len(o.Data))
	if o.Encoding == abi.EncodingError {
		return length, nil
	}
	if off < 0 || off > length || n < 0 {
		return length, Errno(abi.EINVAL)
	}
	v.Data = o.Data[off : off+min(n, length-off)]
	if r.h == nil {
		v.Data = append([]byte{}, v.Data...)
	}
	return length, nil
}

// ReadAt copies the payload from offset off on into p, as far as both go.
func (r *Ref) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	o, err := r.whole(ctx)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, Errno(abi.EINVAL)
	}
	d := o.Data
	return copy(p, d[min(off, int64(len(d))):]), nil
}

// whole waits for r's value. In a session it is mapped where it is large, so
// that parts of it cost no more than what is read.
func (r *Ref) whole(ctx context.Context) (*Value, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.h != nil {
		var v Value
		return &v, r.Get(ctx, &v, nil)
	}
	if r.stream != nil {
		return nil, Errno(abi.EINVAL)
	}
	if err := await(ctx, func() bool { return r.object.ready }); err != nil {
		return nil, err
	}
	v := r.object.read()
	return &v, nil
}

// ErrFreed is the failure of a Ref in a sandbox whose object was freed by it.
var ErrFreed = errors.New("the value was freed")

// Free drops the value of r's object, which must be there, for everybody.
func (r *Ref) Free() error {
	for _, p := range r.parts {
		if err := p.Free(); err != nil {
			return err
		}
	}
	switch {
	case r.parts != nil:
		return nil
	case r.err != nil:
		return r.err
	case r.h != nil:
		return Errno(abi.ENOTSUP)
	case r.stream != nil || r.actor != nil:
		return Errno(abi.EBADF)
	}
	state.Lock()
	defer state.Unlock()
	o := r.object
	switch {
	case !o.ready:
		return Errno(abi.EAGAIN)
	case o.value.Encoding != abi.EncodingError:
		o.value = encodeError(wray.Errorf(wray.CodeObjectLost, "the value, of %d bytes, was freed", len(o.value.Data)))
	}
	return nil
}

// Stat is what is known of an object.
type Stat struct {
	State      uint32
	Encoding   abi.Encoding
	Elem       abi.Elem
	Len        int64
	References int64 // 0: not known
	Away       bool
	Task       string
}

// Stat says what is known of r's object, without waiting for it.
func (r *Ref) Stat() (Stat, error) {
	switch {
	case r.err != nil:
		return Stat{}, r.err
	case r.h != nil:
		return Stat{}, Errno(abi.ENOTSUP)
	case r.stream != nil:
		return Stat{}, Errno(abi.EBADF)
	}
	state.Lock()
	defer state.Unlock()
	o := r.object
	if !o.ready {
		s := Stat{State: abi.StatePending}
		if o.task != nil {
			s.Task = o.task.name
		}
		return s, nil
	}
	s := Stat{State: abi.StateSealed, Encoding: o.value.Encoding, Elem: o.value.Elem, Len: int64(len(o.value.Data))}
	if s.Encoding == abi.EncodingError {
		s.State = abi.StateFailed
	}
	return s, nil
}

// A Builder makes one object from first byte to last.
type Builder struct {
	s     *Session // in which the object is to be, or nil
	size  int64
	data  []byte
	ended bool
}

// NewBuilder returns a builder for an object of size bytes at most.
func NewBuilder(ctx context.Context, size int64) (*Builder, error) {
	return &Builder{s: SessionOf(ctx), size: size, data: []byte{}}, ctx.Err()
}

// ErrTooLong is the failure of a Write past what the Builder was made for.
var ErrTooLong = errors.New("more is written than the object was to have")

var errEnded = errors.New("the builder was sealed or closed")

// Write appends p.
func (b *Builder) Write(p []byte) (int, error) {
	switch {
	case b.ended:
		return 0, errEnded
	case int64(len(p)) > b.size-int64(len(b.data)):
		return 0, ErrTooLong
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// Seal returns the object of what was written. The Builder has ended.
func (b *Builder) Seal(e abi.Encoding, elem abi.Elem) (*Ref, error) {
	if b.ended {
		return nil, errEnded
	}
	b.ended = true
	if b.s != nil {
		return b.s.put(context.Background(), &Value{Encoding: e, Elem: elem, Data: b.data})
	}
	return &Ref{object: &object{ready: true, value: Value{Encoding: e, Elem: elem, Owned: true, Data: b.data}}}, nil
}

// Close gives up what was not sealed.
func (b *Builder) Close() { b.ended = true }
