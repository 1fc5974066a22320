//go:build unix

package fd

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Do calls f with the descriptor of c, which stays open meanwhile, and returns
// f's error as it is, or why there is no descriptor.
func Do(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err // f was not called
	}
	return ferr
}

// Limit returns how many descriptors this process may have, 0 where that is not
// known. Go has raised it to what the process may raise it to.
func Limit() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return int(min(uint64(r.Cur), 1<<30))
}

// Duplicate returns another descriptor of what c has open, which the caller
// closes. Programs that this one starts do not get it.
func Duplicate(c syscall.Conn) (fd int, err error) {
	fd = -1
	err = Do(c, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return fd, err
}

// TryLock takes the lock of f, which ends with f, or returns ErrLocked. It does
// not wait.
func TryLock(f *os.File) error {
	for {
		switch err := Do(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		default:
			return err
		}
	}
}
