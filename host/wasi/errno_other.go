//go:build !unix

package wasi

import (
	"errors"
	"syscall"
)

// systemErrno returns the errno of a system call's error, for the few that
// package fs has no name for. Windows and others give their own numbers to
// most failures; ErrnoOf sorts those by the errors of package fs.
func systemErrno(err error) (Errno, bool) {
	for _, p := range []struct {
		err error
		e   Errno
	}{
		{syscall.ENOTDIR, ENOTDIR}, {syscall.EISDIR, EISDIR}, {syscall.EINVAL, EINVAL},
		{syscall.ENAMETOOLONG, ENAMETOOLONG}, {syscall.EAGAIN, EAGAIN}, {syscall.EPERM, EPERM},
	} {
		if errors.Is(err, p.err) {
			return p.e, true
		}
	}
	return 0, false
}
