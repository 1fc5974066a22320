package worker

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/fd"
)

// pollWaiter waits in epoll(7), beside Go's own poller: that needs files in
// non-blocking mode, which a terminal shares with the user's shell.
type pollWaiter struct{ epoll, event int }

func newWaiter(f *os.File) (waiter, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for input: %w", err)
	}
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("wait for input: %w", err)
	}
	w := &pollWaiter{epoll: ep, event: ev}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, ev, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	if err == nil {
		err = w.add(f)
	}
	if err != nil {
		w.close()
		if errors.Is(err, unix.EPERM) { // a file on disk: never waits
			return noWaiter{}, nil
		}
		return nil, fmt.Errorf("wait for input: %w", err)
	}
	return w, nil
}

func (w *pollWaiter) add(f *os.File) error {
	return fd.Do(f, func(fd int) error {
		return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	})
}

func (w *pollWaiter) wait() bool {
	var events [2]unix.EpollEvent
	for {
		// unix.EpollWait is another call on amd64, which the jail does not allow.
		n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&events)), uintptr(len(events)), ^uintptr(0), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return true // the read says what is wrong
		}
		for _, ev := range events[:n] {
			if ev.Fd == -1 {
				return false
			}
		}
		return true
	}
}

func (w *pollWaiter) stop() {
	one := [8]byte{1, 0, 0, 0, 0, 0, 0, 1} // not zero in either byte order
	_, _ = unix.Write(w.event, one[:])     // fails only where it was written before
}

func (w *pollWaiter) close() {
	unix.Close(w.event)
	unix.Close(w.epoll)
}

// noWaiter is for files that are always ready.
type noWaiter struct{}

func (noWaiter) wait() bool { return true }
func (noWaiter) stop()      {}
func (noWaiter) close()     {}
