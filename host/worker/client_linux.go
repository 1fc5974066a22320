package worker

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dupFile returns f under a descriptor of its own.
func dupFile(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	fd, operr := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, operr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || operr != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", errors.Join(err, operr))
	}
	return os.NewFile(uintptr(fd), "client-value"), nil
}
