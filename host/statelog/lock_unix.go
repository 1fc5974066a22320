//go:build unix

package statelog

import (
	"errors"
	"os"
	"syscall"
)

// noFollow has a link in the place of a file be an error.
const noFollow = syscall.O_NOFOLLOW

func flock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
