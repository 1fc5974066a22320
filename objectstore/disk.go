package objectstore

import (
	"errors"
	"io"
	"os"
)

// ErrDiskFull says that a Disk takes no more: every place that it writes to is
// full, missing or failing, or its limit is reached.
var ErrDiskFull = errors.New("objectstore: no room on disk")

// Disk is stable storage, to which a store moves objects that memory has no
// room for. Many goroutines may call it at once. What it keeps need not
// outlive the process: a store reads only what it wrote itself, and checks
// that.
type Disk interface {
	// Create begins a batch of at most n bytes. An error that wraps ErrDiskFull
	// says why there is no place for it, for a person to read.
	Create(n int64) (Batch, error)
	// Used returns the bytes that batches take.
	Used() int64
}

// Batch is the place of several objects on a Disk. One goroutine writes to it,
// then seals it; from then on many may read. After a failed Write or Seal the
// batch is good for Remove alone, and the Disk, asked to create another,
// chooses a different place for it or fails.
type Batch interface {
	// Write appends p.
	io.Writer
	// Seal says that the batch is complete.
	Seal() error
	// ReadAt reads of a sealed batch.
	io.ReaderAt
	// Punch says that n bytes from off are not read any more, so that a Disk
	// that can gives them back. Ranges do not overlap.
	Punch(off, n int64)
	// Remove gives the batch back. Nothing is called after it.
	Remove()
}

// FileWriter is a Batch that takes bytes out of a file, which spares them the
// way through this process.
type FileWriter interface {
	// WriteFile appends the n bytes of f from off. They are read at any time until
	// Seal or Remove returns, to which f stays open and they stay as they are.
	WriteFile(f *os.File, off, n int64) error
}

// Whole is a Batch of which Punch may give nothing back, as the place where it
// is keeps or drops it as a whole.
type Whole interface {
	// Whole reports whether that is so.
	Whole() bool
}

// BulkReader is a Batch of which much should be read at once: each read takes
// its time, however short it is.
type BulkReader interface {
	// BulkRead returns how many bytes.
	BulkRead() int64
}
