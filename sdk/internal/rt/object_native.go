//go:build !wasip1

package rt

import (
	"context"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/wasm/abi"
)

// Alloc returns n zero bytes, at an address that is a multiple of 8. In a session
// the memory becomes an object when it is put whole.
func Alloc(ctx context.Context, n int) ([]byte, error) {
	if n >= clientwire.MaxInline && SessionOf(ctx) != nil {
		if b := newBuffer(n); b != nil {
			return b, ctx.Err()
		}
	}
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

// Hold returns the payload of a session's value, which is there for as long as
// the slice is kept: ReadAt would ask for it, and map it, again after each
// collection. nil: ReadAt is as good, or the value is a failure.
func (r *Ref) Hold(ctx context.Context) ([]byte, error) {
	if r.h == nil {
		return nil, nil
	}
	v, err := r.whole(ctx)
	if err != nil || v.Encoding == abi.EncodingError {
		return nil, err
	}
	return v.Data, nil
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
		defer runtime.KeepAlive(r)
		return r.h.free()
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
		defer runtime.KeepAlive(r)
		return r.h.stat()
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

// A Builder makes one object from first byte to last. In a session a large one
// is written into the file that becomes the object.
type Builder struct {
	s     *Session // in which the object is to be, or nil
	size  int64
	n     int64    // written
	data  []byte   // where file is nil
	file  *os.File // in a session
	ended bool
}

// NewBuilder returns a builder for an object of size bytes at most.
func NewBuilder(ctx context.Context, size int64) (*Builder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b := &Builder{s: SessionOf(ctx), size: size, data: []byte{}}
	if b.s != nil && size >= clientwire.MaxInline {
		var err error
		if b.file, err = newFile(); err != nil {
			return nil, noMemory(int(size), err)
		}
	}
	return b, nil
}

// ErrTooLong is the failure of a Write past what the Builder was made for.
var ErrTooLong = errors.New("more is written than the object was to have")

var errEnded = errors.New("the builder was sealed or closed")

// Write appends p.
func (b *Builder) Write(p []byte) (int, error) {
	switch {
	case b.ended:
		return 0, errEnded
	case int64(len(p)) > b.size-b.n:
		return 0, ErrTooLong
	}
	if b.file != nil {
		if _, err := b.file.WriteAt(p, b.n); err != nil {
			return 0, noMemory(len(p), err)
		}
	} else {
		b.data = append(b.data, p...)
	}
	b.n += int64(len(p))
	return len(p), nil
}

// Seal returns the object of what was written. The Builder has ended.
func (b *Builder) Seal(e abi.Encoding, elem abi.Elem) (*Ref, error) {
	if b.ended {
		return nil, errEnded
	}
	defer b.Close()
	v := &Value{Encoding: e, Elem: elem, Data: b.data}
	switch {
	case b.s == nil:
		v.Owned = true
		return &Ref{object: &object{ready: true, value: *v}}, nil
	case b.file != nil && b.n >= clientwire.MaxInline:
		if err := seal(b.file, b.n); err != nil {
			return nil, noMemory(int(b.n), err)
		}
		return b.s.putFile(context.Background(), v, b.n, b.file)
	case b.file != nil:
		v.Data = make([]byte, b.n)
		if _, err := b.file.ReadAt(v.Data, 0); err != nil && b.n > 0 {
			return nil, err
		}
	}
	return b.s.put(context.Background(), v)
}

// Close gives up what was not sealed.
func (b *Builder) Close() {
	b.ended, b.data = true, nil
	if b.file != nil {
		b.file.Close()
		b.file = nil
	}
}
