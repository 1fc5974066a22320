package spill

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/fd"
)

// unnamed opens a file that never has a name, where the file system can.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR):
		return brief(dir)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// reading opens f once more, for reading alone.
func reading(f *os.File) (r *os.File, err error) {
	err = fd.Do(f, func(fd int) (err error) {
		r, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	return r, err
}

// again duplicates f.
func again(f *os.File) (*os.File, error) {
	n, err := fd.Duplicate(f)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}

// checkMemory reports whether f is a memfd, which is all that a store writes
// from: reading it neither waits nor has effects.
func checkMemory(f *os.File) error {
	_, _, err := fd.Memory(f)
	return err
}

// allocate takes n bytes of the disk for f, where the file system can.
func allocate(f *os.File, n int64) error {
	err := fd.Do(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take %d bytes: %w", n, err)
	}
	return nil
}

// allocated returns the bytes of the disk that f takes.
func allocated(f *os.File) (n int64) {
	err := fd.Do(f, func(fd int) error {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		n = st.Blocks * 512 // whatever the file system's blocks are: stat(2)
		return err
	})
	if err != nil {
		return 1 << 62
	}
	return n
}

// punch gives the pages of a range back.
func punch(f *os.File, off, n int64) error {
	return fd.Do(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// pipes are kept for the next transfer. A pipe is what splice moves pages
// through, more of them at once than the 64 KiB of sendfile.
var pipes = make(chan *pipe, 4)

type pipe struct{ r, w int }

func takePipe() *pipe {
	select {
	case p := <-pipes:
		return p
	default:
		return newPipe()
	}
}

func (p *pipe) giveBack() {
	select {
	case pipes <- p:
	default:
		p.close()
	}
}

const pipeSize = 1 << 20

func newPipe() *pipe {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil
	}
	// Whoever has many pipes may be refused; then it stays short.
	_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{p[0], p[1]}
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// transfer writes n bytes of src from off to dst at at. The pages are handed to
// the kernel's writing code as they are: this process does not map them.
func transfer(dst *os.File, at int64, src *os.File, off, n int64) error {
	p := takePipe()
	if p == nil {
		return copyRange(dst, at, src, off, n)
	}
	clean := false // nothing is in the pipe
	defer func() {
		if clean {
			p.giveBack()
		} else {
			p.close()
		}
	}()
	err := fd.Do(dst, func(to int) error {
		return fd.Do(src, func(from int) error {
			for n > 0 {
				clean = true
				k, err := unix.Splice(from, &off, p.w, nil, int(min(n, pipeSize)), 0)
				if errors.Is(err, unix.EINTR) {
					continue
				}
				if err != nil {
					return err
				}
				if k == 0 {
					return errShort
				}
				clean = false
				n -= k
				for k > 0 {
					m, err := unix.Splice(p.r, nil, to, &at, int(k), 0)
					if errors.Is(err, unix.EINTR) {
						continue
					}
					if err != nil {
						off, n = off-k, n+k
						return err
					}
					k -= m
				}
			}
			clean = true
			return nil
		})
	})
	if errors.Is(err, unix.EINVAL) { // a file system that cannot
		return copyRange(dst, at, src, off, n)
	}
	return err
}

// InMemory reports whether dir, which exists, lies in memory: what is moved
// there is not moved out of it.
func InMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// Free returns the bytes that are free where dir is.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free room in %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
