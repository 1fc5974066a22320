package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a connected unix stream socket in Go's poller.
//
// A stream, not SOCK_SEQPACKET: a packet must fit the socket buffer (208 KiB by
// default), a stream carries any length and pushes back byte by byte.
type socket struct {
	file    *os.File
	raw     syscall.RawConn
	timeout time.Duration // for one write to make progress

	buf []byte // of the reader
	oob []byte // of the reader
}

// Pair returns one end of a new link and, for a child process, the other end as
// a file to pass to it. The caller closes child once it is passed on, and both
// processes open their end with the same Options.
func Pair(opt Options) (parent *Conn, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a link: %w", os.NewSyscallError("socketpair", err))
	}
	child = os.NewFile(uintptr(fds[1]), "link")
	parent, err = FromFile(os.NewFile(uintptr(fds[0]), "link"), opt)
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return parent, child, nil
}

// FromFile makes a Conn of a unix stream socket, such as the child's end of
// Pair. It closes file in any case. It makes no system call that the jail of a
// worker forbids, so a child enters its jail first.
func FromFile(file *os.File, opt Options) (*Conn, error) {
	opt.ensureDefaults()
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("opening a link: %w", err)
	}
	// A descriptor of our own, since File.Fd would switch to blocking mode.
	fd, operr := -1, error(nil)
	err = raw.Control(func(old uintptr) {
		var st unix.Stat_t
		if operr = unix.Fstat(int(old), &st); operr != nil {
			return
		}
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			operr = fmt.Errorf("file of mode %#o, want a socket", st.Mode)
			return
		}
		if fd, operr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3); operr != nil {
			return
		}
		operr = unix.SetNonblock(fd, true)
	})
	if err = errors.Join(err, operr); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("opening a link: %w", err)
	}
	s := &socket{
		file:    os.NewFile(uintptr(fd), "link"),
		timeout: opt.WriteTimeout,
		buf:     make([]byte, 64<<10),
		// Room for more than the limit, so that a peer that passes it is told
		// from one whose message was cut by the kernel.
		oob: make([]byte, unix.CmsgSpace(4*(maxFilesLimit+1))),
	}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("opening a link: %w", err)
	}
	return newConn(s, opt), nil
}

func (s *socket) read() ([]byte, []*os.File, error) {
	var n, oobn, flags int
	var operr error
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, operr = unix.Recvmsg(int(fd), s.buf, s.oob, unix.MSG_CMSG_CLOEXEC)
			if operr != unix.EINTR {
				return operr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = operr
	}
	if err != nil {
		// A peer that died with bytes of ours unread resets the socket: to the
		// reader that is the end.
		if errors.Is(err, unix.ECONNRESET) {
			return nil, nil, io.EOF
		}
		return nil, nil, fmt.Errorf("reading a link: %w", err)
	}
	var files []*os.File
	if oobn > 0 {
		if files, err = receivedFiles(s.oob[:oobn]); err != nil {
			return nil, nil, err
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		for _, f := range files {
			f.Close()
		}
		if len(files) > maxFilesLimit {
			return nil, nil, protocolError("more than %d descriptors at once", maxFilesLimit)
		}
		return s.buf[:n], nil, errNoRoom // the kernel had no number left for the next one
	}
	if n == 0 && len(files) == 0 {
		return nil, nil, io.EOF
	}
	return s.buf[:n], files, nil
}

// receivedFiles wraps the descriptors of control messages.
func receivedFiles(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, protocolError("control message: %v", err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // of another type: nothing to close
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "link-received"))
		}
	}
	return files, nil
}

func (s *socket) write(head, body []byte, files []*os.File) error {
	if len(files) == 0 {
		return s.send(head, body, nil)
	}
	fds := make([]int, 0, len(files))
	return withFds(files, fds, func(fds []int) error { return s.send(head, body, unix.UnixRights(fds...)) })
}

// withFds calls f with the descriptors of files appended to fds. They stay open
// while f runs, whoever closes a file meanwhile. (File.Fd promises neither
// that, nor to leave the file's mode alone.)
func withFds(files []*os.File, fds []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = withFds(files[1:], append(fds, int(fd)), f) })
	if err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	return ferr
}

func (s *socket) send(head, body, oob []byte) error {
	bufs := [][]byte{head, body}
	deadline := false
	var operr error
	err := s.raw.Write(func(fd uintptr) bool {
		for len(bufs) > 0 {
			var n int
			n, operr = unix.SendmsgBuffers(int(fd), bufs, oob, nil, unix.MSG_NOSIGNAL)
			switch operr {
			case nil:
				oob = nil // went with the first byte
				bufs = advance(bufs, n)
				continue
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				// Full: wait, but not for ever. Progress starts a new wait.
				deadline = true
				s.file.SetWriteDeadline(time.Now().Add(s.timeout))
				return false
			}
			return true
		}
		return true
	})
	if err == nil {
		err = operr
	}
	if deadline && err == nil {
		err = s.file.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the peer has read nothing for %v", s.timeout)
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return io.EOF
	}
	return fmt.Errorf("writing a link: %w", err)
}

// advance drops the first n bytes of bufs, and buffers that are empty.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if len(bufs) > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

func (s *socket) close() { s.file.Close() }
