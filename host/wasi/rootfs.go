package wasi

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// rootFS is the FS of an os.Root. Resolution of paths, and the promise that
// none leads out of the tree, are os.Root's (go1.26.5 or later, which closed
// an escape by symbolic link and trailing slash, GO-2026-4970).
type rootFS struct {
	root *os.Root

	// escapes is the error that os.Root returns, and does not export, for a
	// path that leads out of it.
	escapes error
}

// RootFS returns the FS of root, which stays the caller's to close. It is for
// the process that may open files.
func RootFS(root *os.Root) FS {
	r := &rootFS{root: root}
	_, err := root.Stat("..")
	var pe *fs.PathError
	if errors.As(err, &pe) {
		r.escapes = pe.Err
	}
	return r
}

func (r *rootFS) errno(err error) Errno {
	if err == nil {
		return Success
	}
	if r.escapes != nil && errors.Is(err, r.escapes) {
		return EPERM
	}
	return ErrnoOf(err)
}

// regular returns f if it is a regular file or a directory, and not one that the
// kernel makes up.
func (r *rootFS) regular(f *os.File, err error) (*os.File, Errno) {
	if err != nil {
		return nil, r.errno(err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, r.errno(err)
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() || ofKernel(f) {
		f.Close()
		return nil, EACCES
	}
	return f, Success
}

// openMode returns the flags for os.OpenFile that every system has.
func openMode(flags OpenFlags) int {
	mode := os.O_RDONLY
	switch {
	case flags&OpenWrite == 0 && flags&OpenTrunc != 0:
		mode = os.O_RDWR // to cut it, the file must be open for writing
	case flags&(OpenRead|OpenWrite) == OpenRead|OpenWrite:
		mode = os.O_RDWR
	case flags&OpenWrite != 0:
		mode = os.O_WRONLY
	}
	for _, m := range [...]struct {
		flag OpenFlags
		mode int
	}{
		{OpenAppend, os.O_APPEND}, {OpenCreate, os.O_CREATE}, {OpenExcl, os.O_EXCL},
		{OpenTrunc, os.O_TRUNC}, {OpenSync, os.O_SYNC}, {OpenDsync, os.O_SYNC},
	} {
		if flags&m.flag != 0 {
			mode |= m.mode
		}
	}
	return mode
}

// asTime returns a time as Root.Chtimes wants it: zero leaves it as it is.
func asTime(ns int64) time.Time {
	if ns == OmitTime {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
