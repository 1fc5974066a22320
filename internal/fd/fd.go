// Package fd works on the descriptors of files and sockets that stay Go's.
//
// Their Fd method makes a file blocking, and does not keep it open: what is
// here does neither.
package fd

import "errors"

// ErrLocked means that another process, or another open of the file, holds its
// lock.
var ErrLocked = errors.New("locked by another process")

// ErrNotMemory means that a file is no memfd.
var ErrNotMemory = errors.New("a file that is no memory")
