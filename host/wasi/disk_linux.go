package wasi

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// diskFile is an open regular file or directory. It works on the descriptor
// itself, which keeps the offset and the append mode, with these system calls
// and no others: read, write, pread64, pwrite64, lseek, fstat, fcntl(F_GETFL,
// F_SETFL), fsync, fdatasync, ftruncate, fallocate, fadvise64, utimensat on
// the descriptor, getdents64, close.
type diskFile struct {
	f   *os.File // keeps fd open
	fd  int
	dir bool

	// A directory's entries as the kernel gave them; ents[pos:end] were not
	// handed out, and next is the cookie of ents[pos], which is the kernel's
	// d_off of the entry before it: a place to seek to, good at any time.
	ents     []byte
	pos, end int
	next     uint64
}

// newDiskFile takes f over, which was opened to append or not; it closes f
// where it is not a regular file or directory.
func newDiskFile(f *os.File, _ bool) (*diskFile, Errno) {
	d := &diskFile{f: f, fd: int(f.Fd())}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		f.Close()
		return nil, ErrnoOf(err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		d.dir = true
	default:
		f.Close()
		return nil, EACCES
	}
	return d, Success
}

func (d *diskFile) Read(p []byte) (int, Errno) {
	for {
		n, err := unix.Read(d.fd, p)
		if err != unix.EINTR {
			return max(n, 0), ErrnoOf(err)
		}
	}
}

func (d *diskFile) Write(p []byte) (int, Errno) {
	for {
		n, err := unix.Write(d.fd, p)
		if err != unix.EINTR {
			return max(n, 0), ErrnoOf(err)
		}
	}
}

func (d *diskFile) Pread(p []byte, off int64) (int, Errno) {
	for {
		n, err := unix.Pread(d.fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), ErrnoOf(err)
		}
	}
}

func (d *diskFile) Pwrite(p []byte, off int64) (int, Errno) {
	for {
		n, err := unix.Pwrite(d.fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), ErrnoOf(err)
		}
	}
}

func (d *diskFile) SeekTo(off int64, whence int) (int64, Errno) {
	n, err := unix.Seek(d.fd, off, whence)
	if err != nil {
		return 0, ErrnoOf(err)
	}
	return n, Success
}

func (d *diskFile) Stat() (Filestat, Errno) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return Filestat{}, ErrnoOf(err)
	}
	return fromStat(&st), Success
}

// SetFlags sets the append mode; the others stay as the file was opened.
func (d *diskFile) SetFlags(flags Fdflags) Errno {
	have, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
	if err != nil {
		return ErrnoOf(err)
	}
	want := have &^ unix.O_APPEND
	if flags&FdAppend != 0 {
		want |= unix.O_APPEND
	}
	if want == have {
		return Success
	}
	_, err = unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, want)
	return ErrnoOf(err)
}

func (d *diskFile) Ready() (read, write bool) { return true, true }

func (d *diskFile) Close() Errno { return ErrnoOf(d.f.Close()) }

func (d *diskFile) sync(dataOnly bool) Errno {
	for {
		var err error
		if dataOnly {
			err = unix.Fdatasync(d.fd)
		} else {
			err = unix.Fsync(d.fd)
		}
		if err != unix.EINTR {
			return ErrnoOf(err)
		}
	}
}

func (d *diskFile) truncate(size int64) Errno {
	for {
		if err := unix.Ftruncate(d.fd, size); err != unix.EINTR {
			return ErrnoOf(err)
		}
	}
}

func (d *diskFile) allocate(off, n int64) Errno {
	for {
		if err := unix.Fallocate(d.fd, 0, off, n); err != unix.EINTR {
			return ErrnoOf(err)
		}
	}
}

func (d *diskFile) advise(off, n int64, advice int) Errno {
	return ErrnoOf(unix.Fadvise(d.fd, off, n, [...]int{
		unix.FADV_NORMAL, unix.FADV_SEQUENTIAL, unix.FADV_RANDOM,
		unix.FADV_WILLNEED, unix.FADV_DONTNEED, unix.FADV_NOREUSE,
	}[advice]))
}

func (d *diskFile) setTimes(t Times) Errno {
	ts := timespecs(t)
	return ErrnoOf(unix.UtimesNanoAt(d.fd, "", ts[:], unix.AT_EMPTY_PATH))
}

func timespecs(t Times) [2]unix.Timespec {
	var ts [2]unix.Timespec
	for i, ns := range [2]int64{t.Atim, t.Mtim} {
		if ns == OmitTime {
			ts[i].Nsec = unix.UTIME_OMIT
		} else {
			ts[i] = unix.NsecToTimespec(ns)
		}
	}
	return ts
}

// Layout of struct linux_dirent64, getdents64(2).
const (
	direntOff    = 8
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// readdir fills buf with entries from cookie on, the last one cut off where
// the buffer ends, and returns how much it filled: less than len(buf) at the
// end of the directory. It yields now and then.
func (d *diskFile) readdir(buf []byte, cookie uint64, yield func()) (int, Errno) {
	const batch, batchesPerYield = 16 << 10, 16
	if d.ents == nil {
		d.ents = make([]byte, batch)
	}
	if cookie == 0 || cookie != d.next {
		if _, e := d.SeekTo(int64(cookie), SeekSet); e != Success {
			return 0, e
		}
		d.pos, d.end, d.next = 0, 0, cookie
	}
	n, batches := 0, 0
	for n < len(buf) {
		if d.pos == d.end {
			if batches++; batches%batchesPerYield == 0 {
				yield()
			}
			m, err := unix.Getdents(d.fd, d.ents)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, ErrnoOf(err)
			}
			d.pos, d.end = 0, max(m, 0)
			if d.end == 0 {
				break
			}
		}
		ent := d.ents[d.pos:d.end]
		ent = ent[:binary.NativeEndian.Uint16(ent[direntReclen:])]
		name := ent[direntName:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		ino := binary.NativeEndian.Uint64(ent)
		if string(name) == ".." {
			ino = 0 // the parent of a granted directory is none of the guest's business
		}
		next := binary.NativeEndian.Uint64(ent[direntOff:])
		full, m := putDirent(buf[n:], next, ino, fromDirentType(ent[direntType]), name)
		n += m
		if !full {
			break // it comes again, whole, when the guest asks for its cookie
		}
		d.pos += len(ent)
		d.next = next
	}
	return n, Success
}

func fromDirentType(t byte) Filetype {
	switch t {
	case unix.DT_BLK:
		return FiletypeBlockDevice
	case unix.DT_CHR:
		return FiletypeCharacterDevice
	case unix.DT_DIR:
		return FiletypeDirectory
	case unix.DT_LNK:
		return FiletypeSymlink
	case unix.DT_REG:
		return FiletypeRegular
	case unix.DT_SOCK:
		return FiletypeSocketStream
	}
	return FiletypeUnknown
}

func fromStat(st *unix.Stat_t) Filestat {
	return Filestat{
		Dev: uint64(st.Dev), Ino: st.Ino, Type: fromMode(st.Mode), Nlink: uint64(st.Nlink), Size: uint64(st.Size),
		Atim: nanos(st.Atim), Mtim: nanos(st.Mtim), Ctim: nanos(st.Ctim),
	}
}

// nanos returns a time in WASI's unsigned nanoseconds; what was before 1970 is
// shown as 1970.
func nanos(ts unix.Timespec) uint64 { return uint64(max(ts.Nano(), 0)) }

func fromMode(mode uint32) Filetype {
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return FiletypeBlockDevice
	case unix.S_IFCHR:
		return FiletypeCharacterDevice
	case unix.S_IFDIR:
		return FiletypeDirectory
	case unix.S_IFLNK:
		return FiletypeSymlink
	case unix.S_IFREG:
		return FiletypeRegular
	case unix.S_IFSOCK:
		return FiletypeSocketStream
	}
	return FiletypeUnknown
}
