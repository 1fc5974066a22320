package node

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/fd"
)

// lockSocket takes the lock of a socket, which its node holds while it lives.
func lockSocket(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := fd.TryLock(f); err != nil {
		f.Close()
		if errors.Is(err, fd.ErrLocked) {
			err = errors.New("another node listens there")
		}
		return nil, err
	}
	return f, nil
}

// checkPeer refuses clients of other users.
func checkPeer(c *net.UnixConn) error {
	var cred *unix.Ucred
	err := fd.Do(c, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return err
	}
	if int(cred.Uid) != os.Geteuid() {
		return wray.Errorf(wray.CodeDenied, "user %d is not the node's", cred.Uid)
	}
	return nil
}

// checkSocket refuses what is no unix stream socket: the worker, which may open
// none itself, is given it.
func checkSocket(f *os.File) error {
	return fd.Do(f, func(fd int) error {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return wray.Errorf(wray.CodeBadArgument, "a session needs a socket: %v", err)
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		listens, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || err2 != nil || domain != unix.AF_UNIX || kind != unix.SOCK_STREAM || listens != 0 {
			return wray.Errorf(wray.CodeBadArgument, "a session needs a connected unix stream socket")
		}
		return nil
	})
}

// dirPath returns a path of a directory that a client has opened, which is good
// until free is called.
func dirPath(f *os.File) (path string, free func(), err error) {
	d := -1
	err = fd.Do(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return wray.Errorf(wray.CodeBadArgument, "not a directory")
		}
		var err error
		d, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	return fmt.Sprintf("/proc/self/fd/%d", d), func() { unix.Close(d) }, err
}
