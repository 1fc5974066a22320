//go:build !linux

package wasi

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Here every operation is one of os.Root's. Where it has none that does not
// follow a symbolic link, or that tells a file from a directory, the file is
// looked at first; one who changes it in between makes the operation act on
// another file of the same tree.

func (r *rootFS) lstat(p string) (fs.FileInfo, Errno) {
	fi, err := r.root.Lstat(filepath.FromSlash(p))
	return fi, r.errno(err)
}

func (r *rootFS) Open(p string, flags OpenFlags) (*os.File, Errno) {
	fi, e := r.lstat(p)
	switch {
	case e == ENOENT && flags&OpenCreate != 0:
	case e != Success:
		return nil, e
	case fi.Mode().Type() == fs.ModeSymlink:
		if flags&OpenNoFollow != 0 {
			return nil, ELOOP
		}
		if fi, err := r.root.Stat(filepath.FromSlash(p)); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
			return nil, EACCES
		}
	case !fi.IsDir() && !fi.Mode().IsRegular():
		return nil, EACCES // opening a pipe would wait for its other end
	}
	f, e := r.regular(r.root.OpenFile(filepath.FromSlash(p), openMode(flags), 0o666))
	if e == Success && flags&OpenDirectory != 0 {
		if fi, err := f.Stat(); err != nil || !fi.IsDir() {
			f.Close()
			return nil, ENOTDIR
		}
	}
	return f, e
}

func (r *rootFS) Stat(p string, follow bool) (Filestat, Errno) {
	stat := r.root.Lstat
	if follow {
		stat = r.root.Stat
	}
	fi, err := stat(filepath.FromSlash(p))
	if err != nil {
		return Filestat{}, r.errno(err)
	}
	return fromFileInfo(fi), Success
}

func (r *rootFS) SetTimes(p string, t Times, follow bool) Errno {
	if !follow {
		fi, e := r.lstat(p)
		if e != Success {
			return e
		}
		if fi.Mode().Type() == fs.ModeSymlink {
			return ENOTSUP
		}
	}
	return r.errno(r.root.Chtimes(filepath.FromSlash(p), asTime(t.Atim), asTime(t.Mtim)))
}

func (r *rootFS) Mkdir(p string) Errno {
	return r.errno(r.root.Mkdir(filepath.FromSlash(p), 0o777))
}

func (r *rootFS) Unlink(p string) Errno {
	fi, e := r.lstat(p)
	if e != Success {
		return e
	}
	if fi.IsDir() {
		return EISDIR
	}
	return r.errno(r.root.Remove(filepath.FromSlash(p)))
}

func (r *rootFS) Rmdir(p string) Errno {
	fi, e := r.lstat(p)
	if e != Success {
		return e
	}
	if !fi.IsDir() {
		return ENOTDIR
	}
	return r.errno(r.root.Remove(filepath.FromSlash(p)))
}

func (r *rootFS) Rename(from, to string) Errno {
	return r.errno(r.root.Rename(filepath.FromSlash(from), filepath.FromSlash(to)))
}

func (r *rootFS) Link(from, to string) Errno {
	return r.errno(r.root.Link(filepath.FromSlash(from), filepath.FromSlash(to)))
}

func (r *rootFS) Symlink(target, p string) Errno {
	if !staysInside(p, target) {
		return EPERM
	}
	return r.errno(r.root.Symlink(filepath.FromSlash(target), filepath.FromSlash(p)))
}

func (r *rootFS) Readlink(p string) (string, Errno) {
	target, err := r.root.Readlink(filepath.FromSlash(p))
	return filepath.ToSlash(target), r.errno(err)
}
