package wasi

import (
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Operations that must not follow a symbolic link at the end, or must tell a
// file from a directory, are done in two steps: os.Root opens the parent, and
// one system call acts on its entry, by a name without a slash. Such a call
// cannot leave the parent, whatever is renamed at the same time.

// isDot reports whether the last element of p is "." or "..", which no
// directory has as an entry of its own.
func isDot(p string) bool {
	base := path.Base(p)
	return base == "." || base == ".."
}

// at calls f with the descriptor of the directory that holds p, and the name
// of p in it. The last element of p is not "." or "..".
func (r *rootFS) at(p string, f func(dirfd int, name string) error) Errno {
	if isDot(p) {
		return EINVAL
	}
	// Not path.Dir: it would take "link/.." for nothing.
	dir, name := ".", p
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		dir, name = p[:i], p[i+1:]
	}
	parent, err := r.root.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return r.errno(err)
	}
	defer parent.Close()
	for {
		if err := f(int(parent.Fd()), name); err != unix.EINTR {
			return r.errno(err)
		}
	}
}

// at2 is at for two paths.
func (r *rootFS) at2(p, q string, f func(pfd int, pname string, qfd int, qname string) error) Errno {
	var inner Errno
	e := r.at(p, func(pfd int, pname string) error {
		inner = r.at(q, func(qfd int, qname string) error { return f(pfd, pname, qfd, qname) })
		return nil
	})
	if e != Success {
		return e
	}
	return inner
}

func (r *rootFS) Open(p string, flags OpenFlags) (*os.File, Errno) {
	mode := openMode(flags)
	if flags&OpenDirectory != 0 {
		mode |= unix.O_DIRECTORY
	}
	if flags&OpenDsync != 0 && flags&OpenSync == 0 {
		mode = mode&^unix.O_SYNC | unix.O_DSYNC
	}
	// Without O_NONBLOCK, opening a pipe would wait for its other end.
	mode |= unix.O_NONBLOCK
	if flags&OpenNoFollow == 0 || isDot(p) {
		return r.regular(r.root.OpenFile(p, mode, 0o666))
	}
	var file *os.File
	e := r.at(p, func(dirfd int, name string) error {
		fd, err := unix.Openat(dirfd, name, mode|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	if e != Success {
		return nil, e
	}
	return r.regular(file, nil)
}

func (r *rootFS) Stat(p string, follow bool) (Filestat, Errno) {
	if follow || isDot(p) {
		fi, err := r.root.Stat(p)
		if err != nil {
			return Filestat{}, r.errno(err)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return Filestat{}, EIO
		}
		return Filestat{
			Dev: uint64(st.Dev), Ino: st.Ino, Type: fromMode(st.Mode), Nlink: uint64(st.Nlink), Size: uint64(st.Size),
			Atim: nanos(unix.Timespec(st.Atim)), Mtim: nanos(unix.Timespec(st.Mtim)), Ctim: nanos(unix.Timespec(st.Ctim)),
		}, Success
	}
	var st unix.Stat_t
	e := r.at(p, func(dirfd int, name string) error {
		return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if e != Success {
		return Filestat{}, e
	}
	return fromStat(&st), Success
}

func (r *rootFS) SetTimes(p string, t Times, follow bool) Errno {
	if follow || isDot(p) {
		return r.errno(r.root.Chtimes(p, asTime(t.Atim), asTime(t.Mtim)))
	}
	ts := timespecs(t)
	return r.at(p, func(dirfd int, name string) error {
		return unix.UtimesNanoAt(dirfd, name, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (r *rootFS) Mkdir(p string) Errno {
	return r.at(p, func(dirfd int, name string) error { return unix.Mkdirat(dirfd, name, 0o777) })
}

func (r *rootFS) Unlink(p string) Errno {
	return r.at(p, func(dirfd int, name string) error { return unix.Unlinkat(dirfd, name, 0) })
}

func (r *rootFS) Rmdir(p string) Errno {
	return r.at(p, func(dirfd int, name string) error { return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR) })
}

func (r *rootFS) Rename(from, to string) Errno { return r.at2(from, to, unix.Renameat) }

func (r *rootFS) Link(from, to string) Errno {
	return r.at2(from, to, func(ffd int, fname string, tfd int, tname string) error {
		return unix.Linkat(ffd, fname, tfd, tname, 0)
	})
}

func (r *rootFS) Symlink(target, p string) Errno {
	if !staysInside(p, target) {
		return EPERM
	}
	return r.at(p, func(dirfd int, name string) error { return unix.Symlinkat(target, dirfd, name) })
}

func (r *rootFS) Readlink(p string) (string, Errno) {
	buf := make([]byte, MaxPath)
	n := 0
	e := r.at(p, func(dirfd int, name string) (err error) {
		n, err = unix.Readlinkat(dirfd, name, buf)
		return err
	})
	if e != Success {
		return "", e
	}
	return string(buf[:n]), Success
}
