package wasi

import "io"

// File is an open file that is not on disk: a stream made by the host, such
// as standard input or a queue of events. Its methods are called on the
// sandbox's goroutine, never at the same time. Slices are guest memory and
// must not be kept.
type File interface {
	// Stat returns the file's attributes. The type FiletypeCharacterDevice
	// would make C libraries take it for a terminal.
	Stat() (Filestat, Errno)
	// Read fills p and returns how much it read; 0 and Success is the end.
	// EAGAIN: nothing yet, and Ready will tell. The System then returns EAGAIN
	// to a guest that asked for non-blocking mode, and else waits.
	Read(p []byte) (int, Errno)
	// Write takes up to len(p) bytes; EAGAIN as in Read.
	Write(p []byte) (int, Errno)
	// Pread and Pwrite work at an offset; ESPIPE for a stream.
	Pread(p []byte, off int64) (int, Errno)
	Pwrite(p []byte, off int64) (int, Errno)
	// SeekTo moves the offset of Read and Write; ESPIPE for a stream.
	SeekTo(off int64, whence int) (int64, Errno)
	// SetFlags is told of the flags the guest sets, and may refuse.
	SetFlags(Fdflags) Errno
	// Ready reports whether Read and Write would not return EAGAIN.
	Ready() (read, write bool)
	Close() Errno
}

// Stream answers what a stream has no use for; embed it in a File and write
// the rest. It is always ready, empty, and takes non-blocking mode.
type Stream struct{}

// Stat tells that the file is of no known type.
func (Stream) Stat() (Filestat, Errno) { return Filestat{Nlink: 1}, Success }

// Read returns the end of the file.
func (Stream) Read([]byte) (int, Errno) { return 0, Success }

// Write returns EBADF.
func (Stream) Write([]byte) (int, Errno) { return 0, EBADF }

// Pread returns ESPIPE.
func (Stream) Pread([]byte, int64) (int, Errno) { return 0, ESPIPE }

// Pwrite returns ESPIPE.
func (Stream) Pwrite([]byte, int64) (int, Errno) { return 0, ESPIPE }

// SeekTo returns ESPIPE.
func (Stream) SeekTo(int64, int) (int64, Errno) { return 0, ESPIPE }

// SetFlags accepts everything.
func (Stream) SetFlags(Fdflags) Errno { return Success }

// Ready returns true for both.
func (Stream) Ready() (read, write bool) { return true, true }

// Close does nothing.
func (Stream) Close() Errno { return Success }

var empty File = Stream{}

// sink is standard output or error.
type sink struct {
	Stream
	write func(p []byte) (int, error)
}

func (o *sink) Write(p []byte) (int, Errno) {
	if o.write == nil {
		return len(p), Success
	}
	n, err := o.write(p)
	if n > 0 || err == nil {
		return n, Success // what was taken counts; a lasting error comes again
	}
	return 0, ErrnoOf(err)
}

// NewReader returns a File for standard input that reads r, which may block
// the sandbox's goroutine, and is closed if it is an io.Closer.
func NewReader(r io.Reader) File { return &reader{r: r} }

type reader struct {
	Stream
	r io.Reader
}

func (r *reader) Read(p []byte) (int, Errno) {
	for {
		n, err := r.r.Read(p)
		switch {
		case n > 0:
			return n, Success // an error comes again
		case err == io.EOF:
			return 0, Success
		case err != nil:
			return 0, ErrnoOf(err)
		}
	}
}

func (r *reader) Close() Errno {
	if c, ok := r.r.(io.Closer); ok {
		return ErrnoOf(c.Close())
	}
	return Success
}

// NewBytes returns a File for standard input that holds b. It can be seeked.
func NewBytes(b []byte) File { return &bytesFile{b: b} }

type bytesFile struct {
	Stream
	b   []byte
	off int64
}

func (f *bytesFile) Stat() (Filestat, Errno) {
	return Filestat{Nlink: 1, Size: uint64(len(f.b))}, Success
}

func (f *bytesFile) Read(p []byte) (int, Errno) {
	n, e := f.Pread(p, f.off)
	f.off += int64(n)
	return n, e
}

func (f *bytesFile) Pread(p []byte, off int64) (int, Errno) {
	if off < 0 {
		return 0, EINVAL
	}
	if off >= int64(len(f.b)) {
		return 0, Success
	}
	return copy(p, f.b[off:]), Success
}

func (f *bytesFile) SeekTo(off int64, whence int) (int64, Errno) {
	var from int64
	switch whence {
	case SeekSet:
	case SeekCur:
		from = f.off
	case SeekEnd:
		from = int64(len(f.b))
	default:
		return 0, EINVAL
	}
	to := from + off
	if to < 0 || (off > 0 && to < from) {
		return 0, EINVAL
	}
	f.off = to
	return to, Success
}
