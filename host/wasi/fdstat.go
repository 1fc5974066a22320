package wasi

import "encoding/binary"

func (s *System) filetype(sl *slot) (Filetype, Errno) {
	switch {
	case sl.dir:
		return FiletypeDirectory, Success
	case sl.disk != nil:
		return FiletypeRegular, Success
	}
	st, e := sl.file.Stat()
	return st.Type, e
}

func fdFdstatGet(s *System, mem memory, a []uint64) Errno {
	out := uint32(a[1])
	sl, e := s.get(a[0])
	if e != Success {
		return e
	}
	if !mem.has(out, sizeFdstat) {
		return EFAULT
	}
	typ, e := s.filetype(sl)
	if e != Success {
		return e
	}
	b := mem[out:][:sizeFdstat]
	clear(b)
	b[0] = byte(typ)
	binary.LittleEndian.PutUint16(b[2:], uint16(sl.flags))
	binary.LittleEndian.PutUint64(b[8:], uint64(sl.base))
	binary.LittleEndian.PutUint64(b[16:], uint64(sl.inherit))
	return Success
}

// fdFdstatSetFlags changes the append and non-blocking modes. Synchronous
// writing is settled when a file is opened: that flag may be repeated, not
// changed.
func fdFdstatSetFlags(s *System, _ memory, a []uint64) Errno {
	flags := Fdflags(a[1])
	if uint32(a[1])&^uint32(fdflagsAll) != 0 {
		return EINVAL
	}
	sl, e := s.getWith(a[0], RightFdFdstatSetFlags)
	if e != Success {
		return e
	}
	const fixed = FdSync | FdDsync | FdRsync
	if added := flags &^ sl.flags; added&fixed != 0 {
		return ENOTSUP
	}
	if !sl.dir {
		if e := sl.file.SetFlags(flags); e != Success {
			return e
		}
	}
	// Those that were set at opening stay, as in Linux.
	sl.flags = flags | sl.flags&fixed
	return Success
}

func fdFdstatSetRights(s *System, _ memory, a []uint64) Errno {
	base, inherit := Rights(a[1]), Rights(a[2])
	sl, e := s.get(a[0])
	if e != Success {
		return e
	}
	if base&^sl.base != 0 || inherit&^sl.inherit != 0 {
		return ENOTCAPABLE
	}
	sl.base, sl.inherit = base, inherit
	return Success
}

// preopened returns the directory that was granted as fd. EBADF for any other
// descriptor is what ends a guest's search for preopened ones.
func (s *System) preopened(fd uint64) (*Dir, Errno) {
	sl, e := s.get(fd)
	if e != Success {
		return nil, e
	}
	if !sl.preopen {
		return nil, EBADF
	}
	return &s.cfg.Dirs[sl.mount], Success
}

func fdPrestatGet(s *System, mem memory, a []uint64) Errno {
	out := uint32(a[1])
	d, e := s.preopened(a[0])
	if e != Success {
		return e
	}
	if !mem.has(out, sizePrestat) {
		return EFAULT
	}
	mem.put32(out, 0) // a directory, the only kind there is
	mem.put32(out+4, uint32(len(d.GuestPath)))
	return Success
}

func fdPrestatDirName(s *System, mem memory, a []uint64) Errno {
	p, n := uint32(a[1]), uint64(uint32(a[2]))
	d, e := s.preopened(a[0])
	if e != Success {
		return e
	}
	if n < uint64(len(d.GuestPath)) {
		return ENAMETOOLONG
	}
	b, ok := mem.slice(p, uint64(len(d.GuestPath)))
	if !ok {
		return EFAULT
	}
	s.moved += uint64(copy(b, d.GuestPath))
	return Success
}

const sizeDirent = 24

// putDirent writes an entry of a directory to buf, as much as fits, and
// returns whether all did and how much.
func putDirent(buf []byte, next, ino uint64, typ Filetype, name []byte) (full bool, n int) {
	var h [sizeDirent]byte
	binary.LittleEndian.PutUint64(h[0:], next)
	binary.LittleEndian.PutUint64(h[8:], ino)
	binary.LittleEndian.PutUint32(h[16:], uint32(len(name)))
	h[20] = byte(typ)
	n = copy(buf, h[:])
	n += copy(buf[n:], name)
	return n == sizeDirent+len(name), n
}

func fdReaddir(s *System, mem memory, a []uint64) Errno {
	sl, e := s.get(a[0])
	switch {
	case e != Success:
		return e
	case !sl.dir:
		return EBADF // not ENOTDIR: C libraries expect what other hosts say
	case sl.base&RightFdReaddir == 0:
		return ENOTCAPABLE
	}
	buf, ok := mem.slice(uint32(a[1]), uint64(uint32(a[2])))
	if !ok || !mem.has(uint32(a[4]), sizePtr) {
		return EFAULT
	}
	d, e := s.onDisk(sl, EBADF)
	if e != Success {
		return e
	}
	n, e := d.readdir(buf, a[3], s.yield)
	if e != Success {
		return e
	}
	s.moved += uint64(n)
	mem.put32(uint32(a[4]), uint32(n))
	return Success
}
