package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// Element is a number of fixed width, whose slices travel as their bytes.
type Element interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Make is make([]T, n) for large results: in a sandbox the slice lies in the
// object store's memory. The first time that it is put, returned, yielded or
// given to a task, whole or at least half of it from its first element on, that
// memory becomes the object, and nothing is copied. To the program it looks as
// with any slice: what it writes afterwards changes nothing but its own. In a
// session with a node ([Connect]) it is so when the slice is put whole.
//
// It waits while the store is full.
func Make[T Element](ctx context.Context, n int) ([]T, error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if n < 0 || n > (1<<40)/size {
		return nil, wray.Errorf(wray.CodeBadArgument, "a slice of %d elements of %d bytes cannot be", n, size)
	}
	b, err := rt.Alloc(ctx, n*size)
	if err != nil {
		return nil, local("make", err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// ReadRange waits for the value and returns up to n of its elements from off
// on: fewer at its end. It reads values that are larger than a sandbox's memory
// part by part.
func ReadRange[T Element](ctx context.Context, r Ref[[]T], off int64, n int) ([]T, error) {
	if r.p == nil {
		return nil, errZeroRef
	}
	var zero T
	size := int64(unsafe.Sizeof(zero))
	if off < 0 || n < 0 || off > (1<<62)/size || int64(n) > (1<<62)/size {
		return nil, wray.Errorf(wray.CodeBadArgument, "a range of %d elements from %d on cannot be", n, off)
	}
	var v rt.Value
	length, err := r.p.Range(ctx, off*size, int64(n)*size, &v)
	if err != nil {
		var errno rt.Errno
		if errors.As(err, &errno) && abi.Errno(errno) == abi.EINVAL && off*size > length {
			return nil, wray.Errorf(wray.CodeBadArgument, "the range begins at element %d of a value of %d", off, length/size)
		}
		return nil, local("read", err)
	}
	var out []T
	err = decode(&v, &out)
	return out, err
}

// Reader reads a value of bytes that may be larger than a sandbox's memory, as
// an [io.SectionReader] reads what it stands on.
type Reader struct {
	*io.SectionReader
}

type readerAt struct {
	ctx  context.Context
	p    *rt.Ref
	held []byte // the value, where it is at hand for as long as it is held; else nil
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	var n int
	var err error
	if r.held == nil {
		n, err = r.p.ReadAt(r.ctx, p, off)
	} else if err = r.ctx.Err(); err == nil && off < int64(len(r.held)) {
		n = copy(p, r.held[off:])
	}
	if err != nil {
		return n, local("read", err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// NewReader waits for the value and returns a Reader of it. Reads end with ctx. In
// a session with a node ([Connect]) the value stays in memory, where it is read
// from, for as long as the Reader is in use.
func NewReader(ctx context.Context, r Ref[[]byte]) (*Reader, error) {
	if r.p == nil {
		return nil, errZeroRef
	}
	var v rt.Value
	length, err := r.p.Range(ctx, 0, 0, &v)
	if err != nil {
		return nil, local("read", err)
	}
	defer v.Release()
	switch v.Encoding {
	case abi.EncodingError:
		return nil, decodeFailure(v.Data)
	case abi.EncodingRaw, abi.EncodingNumeric, abi.EncodingArrow:
		held, err := r.p.Hold(ctx)
		if err != nil {
			return nil, local("read", err)
		}
		return &Reader{io.NewSectionReader(readerAt{ctx, r.p, held}, 0, length)}, nil
	}
	return nil, mismatch[[]byte](&v)
}

// Builder makes a value of bytes from first to last, in the object store's
// memory and not the sandbox's, so that it may be larger than that. It is an
// io.Writer for one goroutine, and ends with Seal or Close.
type Builder struct {
	b    *rt.Builder
	size int64
}

// NewBuilder returns a Builder for a value of at most size bytes, all of which
// count as taken in the object store from now on. It waits while that is full.
func NewBuilder(ctx context.Context, size int64) (*Builder, error) {
	if size < 0 || size > abi.MaxPayload {
		return nil, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("a value of %d bytes cannot be: values have 0 to %d", size, int64(abi.MaxPayload)),
			Hint: "give sdk.NewBuilder the most that the value can have"}
	}
	b, err := rt.NewBuilder(ctx, size)
	if err != nil {
		return nil, local("build", err)
	}
	return &Builder{b: b, size: size}, nil
}

// Write appends p, whole or not at all.
func (b *Builder) Write(p []byte) (int, error) {
	n, err := b.b.Write(p)
	if errors.Is(err, rt.ErrTooLong) {
		err = &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("more is written than the %d bytes that the builder is for", b.size),
			Hint: "give sdk.NewBuilder the most that the value can have"}
	}
	return n, local("write", err)
}

// Seal returns a reference to what was written.
func (b *Builder) Seal() (Ref[[]byte], error) {
	r, err := b.b.Seal(abi.EncodingRaw, 0)
	if err != nil {
		return Ref[[]byte]{}, local("seal", err)
	}
	return Ref[[]byte]{r}, nil
}

// Close gives up a value that was not sealed. After Seal it does nothing.
func (b *Builder) Close() error {
	b.b.Close()
	return nil
}

// Free drops values now, whoever has references to them, wherever they are:
// who reads one afterwards gets an error that matches wray.ErrObjectLost. Slices
// that were got before stay as they are. A value is dropped without Free when
// nobody has a reference any more; Free is for who knows that sooner. It is an
// error to free a value that is not there yet: cancel its task instead.
func Free[R AnyRef](refs ...R) error {
	for i, r := range refs {
		p := r.ref()
		if p == nil {
			return errZeroRef
		}
		err := p.Free()
		var errno rt.Errno
		if errors.As(err, &errno) {
			switch abi.Errno(errno) {
			case abi.EAGAIN:
				return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("free: value %d is not there yet", i),
					Hint: "wait for it, or cancel the task that makes it"}
			case abi.EBADF:
				return wray.Errorf(wray.CodeBadArgument, "free: reference %d is one to no value", i)
			}
		}
		if err != nil && !errors.Is(err, rt.ErrFreed) {
			return local("free", err)
		}
	}
	return nil
}

// ObjectInfo is what is known of a value without reading it.
type ObjectInfo struct {
	Ready      bool   // it is there, or failed
	Failed     bool   // its task failed, or it is lost, or freed; it is Ready then too, and Get says why
	Encoding   string // how it is written, such as "CBOR"; "" while it is not there
	Size       int64  // bytes
	References int64  // to it, in all sandboxes, arguments and values; 0: not known
	OnDisk     bool   // it was moved out of memory
	Task       string // that makes it, while it is not there
}

// Info says what is known of the value behind r. It does not wait.
func Info(r AnyRef) (ObjectInfo, error) {
	p := r.ref()
	if p == nil {
		return ObjectInfo{}, errZeroRef
	}
	s, err := waitsFor(p).Stat()
	if err != nil {
		return ObjectInfo{}, local("info", err)
	}
	i := ObjectInfo{Ready: s.State != abi.StatePending, Failed: s.State == abi.StateFailed, Size: s.Len,
		References: s.References, OnDisk: s.Away, Task: s.Task}
	if i.Ready {
		i.Task = ""
		i.Encoding = encodingName(&rt.Value{Encoding: s.Encoding, Elem: s.Elem})
	}
	return i, nil
}
