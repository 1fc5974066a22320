//go:build !linux

package wasi

import (
	"io"
	"io/fs"
	"os"
	"sort"
)

// diskFile is an open regular file or directory, by means of package os
// alone. Times of an open file cannot be set and its append mode cannot be
// changed; both are ENOTSUP.
type diskFile struct {
	f       *os.File
	dir     bool
	appends bool

	// A directory's entries as of the last reading from the start. A cookie is
	// an index, 2 more for "." and "..".
	ents []fs.DirEntry
}

// newDiskFile takes f over, which was opened to append or not; it closes f
// where it is not a regular file or directory.
func newDiskFile(f *os.File, appends bool) (*diskFile, Errno) {
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, ErrnoOf(err)
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		f.Close()
		return nil, EACCES
	}
	return &diskFile{f: f, dir: fi.IsDir(), appends: appends}, Success
}

// count makes the end of a file, which package os reports as an error, a
// count of 0.
func count(n int, err error) (int, Errno) {
	if n > 0 || err == io.EOF {
		return n, Success
	}
	return 0, ErrnoOf(err)
}

func (d *diskFile) Read(p []byte) (int, Errno)              { return count(d.f.Read(p)) }
func (d *diskFile) Write(p []byte) (int, Errno)             { return count(d.f.Write(p)) }
func (d *diskFile) Pread(p []byte, off int64) (int, Errno)  { return count(d.f.ReadAt(p, off)) }
func (d *diskFile) Pwrite(p []byte, off int64) (int, Errno) { return count(d.f.WriteAt(p, off)) }
func (d *diskFile) Ready() (read, write bool)               { return true, true }
func (d *diskFile) Close() Errno                            { return ErrnoOf(d.f.Close()) }
func (d *diskFile) sync(dataOnly bool) Errno                { return ErrnoOf(d.f.Sync()) }
func (d *diskFile) truncate(size int64) Errno               { return ErrnoOf(d.f.Truncate(size)) }
func (d *diskFile) advise(off, n int64, advice int) Errno   { return Success }
func (d *diskFile) setTimes(Times) Errno                    { return ENOTSUP }
func (d *diskFile) SeekTo(off int64, whence int) (int64, Errno) {
	n, err := d.f.Seek(off, whence)
	return n, ErrnoOf(err)
}

func (d *diskFile) Stat() (Filestat, Errno) {
	fi, err := d.f.Stat()
	if err != nil {
		return Filestat{}, ErrnoOf(err)
	}
	return fromFileInfo(fi), Success
}

// SetFlags keeps the append mode as the file was opened.
func (d *diskFile) SetFlags(flags Fdflags) Errno {
	if (flags&FdAppend != 0) != d.appends {
		return ENOTSUP
	}
	return Success
}

// allocate makes the file at least off+n long; it does not reserve space.
func (d *diskFile) allocate(off, n int64) Errno {
	st, e := d.Stat()
	if e != Success || uint64(off+n) <= st.Size {
		return e
	}
	return d.truncate(off + n)
}

func (d *diskFile) readdir(buf []byte, cookie uint64, _ func()) (int, Errno) {
	if cookie == 0 {
		if _, err := d.f.Seek(0, io.SeekStart); err != nil {
			return 0, ErrnoOf(err)
		}
		ents, err := d.f.ReadDir(-1)
		if err != nil {
			return 0, ErrnoOf(err)
		}
		sort.Slice(ents, func(i, j int) bool { return ents[i].Name() < ents[j].Name() })
		d.ents = ents
	}
	n := 0
	for i := cookie; i < uint64(len(d.ents))+2 && n < len(buf); i++ {
		name, typ := ".", FiletypeDirectory
		switch {
		case i == 1:
			name = ".."
		case i >= 2:
			name, typ = d.ents[i-2].Name(), fromFileMode(d.ents[i-2].Type())
		}
		full, m := putDirent(buf[n:], i+1, 0, typ, []byte(name))
		n += m
		if !full {
			break
		}
	}
	return n, Success
}

func fromFileInfo(fi fs.FileInfo) Filestat {
	t := uint64(max(fi.ModTime().UnixNano(), 0))
	return Filestat{
		Type: fromFileMode(fi.Mode()), Nlink: 1, Size: uint64(max(fi.Size(), 0)), Atim: t, Mtim: t, Ctim: t,
	}
}

func fromFileMode(m fs.FileMode) Filetype {
	switch m.Type() {
	case 0:
		return FiletypeRegular
	case fs.ModeDir:
		return FiletypeDirectory
	case fs.ModeSymlink:
		return FiletypeSymlink
	case fs.ModeSocket:
		return FiletypeSocketStream
	case fs.ModeDevice:
		return FiletypeBlockDevice
	case fs.ModeDevice | fs.ModeCharDevice:
		return FiletypeCharacterDevice
	}
	return FiletypeUnknown
}
