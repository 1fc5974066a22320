//go:build !linux

package fd

import (
	"errors"
	"syscall"
)

// Memory returns errors.ErrUnsupported: there are no memfds here.
func Memory(syscall.Conn) (size, pages int64, err error) { return 0, 0, errors.ErrUnsupported }
