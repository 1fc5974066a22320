package wasi

import "strings"

// change returns the place of a path that is to be changed, on a grant that
// may be.
func (s *System) change(mem memory, fd uint64, p, n uint32, need Rights) (place, Errno) {
	at, e := s.resolve(mem, fd, p, n, need)
	if e == Success && at.dir.ReadOnly {
		return at, EROFS
	}
	return at, e
}

// mustBeDir returns Success if what path names, link or not, is a directory.
func (at *place) mustBeDir() Errno {
	st, e := at.dir.FS.Stat(at.path, false)
	if e == Success && st.Type != FiletypeDirectory {
		return ENOTDIR
	}
	return e
}

func pathOpen(s *System, mem memory, a []uint64) Errno {
	lookup, oflags, fdflags := uint32(a[1]), uint32(a[4]), Fdflags(a[7])
	base, out := Rights(a[5]), uint32(a[8])

	need := RightPathOpen
	if oflags&oflagCreat != 0 {
		need |= RightPathCreateFile
	}
	if oflags&oflagTrunc != 0 {
		need |= RightPathFilestatSetSize
	}
	at, e := s.resolve(mem, a[0], uint32(a[2]), uint32(a[3]), need)
	if e != Success {
		return e
	}
	parent, _ := s.get(a[0])
	switch {
	case lookup&^lookupFollow != 0 || oflags&^(oflagCreat|oflagDirectory|oflagExcl|oflagTrunc) != 0,
		uint32(a[7])&^uint32(fdflagsAll) != 0,
		oflags&oflagDirectory != 0 && oflags&(oflagCreat|oflagTrunc) != 0:
		return EINVAL
	case oflags&oflagCreat != 0 && at.slash:
		return EISDIR
	case !mem.has(out, sizePtr):
		return EFAULT
	}

	// WASI's rights were given up by those who made it, and what programs ask
	// for here varies: so a descriptor gets what its parent passes on, except
	// to read or write where that was not asked for. Taking rights away with
	// fd_fdstat_set_rights works as specified.
	asked := base & (RightFdRead | RightFdWrite)
	if asked&^parent.inherit != 0 {
		return ENOTCAPABLE
	}
	flags := openFlags(oflags, fdflags, asked)
	if lookup&lookupFollow == 0 && !at.slash {
		flags |= OpenNoFollow
	}
	if at.slash {
		flags |= OpenDirectory
	}
	if at.dir.ReadOnly && flags&openWrites&^OpenAppend != 0 {
		return EROFS
	}

	inherit := parent.inherit
	if s.opened >= s.cfg.Limits.MaxFiles {
		return EMFILE
	}
	fd, sl := s.alloc()
	if sl == nil {
		return EMFILE
	}
	f, e := at.dir.FS.Open(at.path, flags)
	if e != Success {
		return e
	}
	d, e := newDiskFile(f, flags&OpenAppend != 0)
	if e != Success {
		return e
	}
	*sl = slot{
		used: true, guest: true, mount: at.mount, ro: at.dir.ReadOnly,
		flags: fdflags, inherit: inherit, dir: d.dir, disk: d,
	}
	if d.dir {
		sl.base = rightsDir & inherit
		sl.path = at.path
	} else {
		sl.file = d
		sl.base = rightsFile & inherit
		sl.inherit = 0
		if asked&RightFdRead == 0 {
			sl.base &^= rightsRead
		}
		if asked&RightFdWrite == 0 {
			sl.base &^= rightsWrite
		}
	}
	s.opened++
	mem.put32(out, fd)
	return Success
}

func openFlags(oflags uint32, fdflags Fdflags, asked Rights) (f OpenFlags) {
	set := func(on bool, flag OpenFlags) {
		if on {
			f |= flag
		}
	}
	set(asked&RightFdRead != 0, OpenRead)
	set(asked&RightFdWrite != 0, OpenWrite)
	set(oflags&oflagCreat != 0, OpenCreate)
	set(oflags&oflagDirectory != 0, OpenDirectory)
	set(oflags&oflagExcl != 0, OpenExcl)
	set(oflags&oflagTrunc != 0, OpenTrunc)
	set(fdflags&FdAppend != 0, OpenAppend)
	set(fdflags&(FdSync|FdRsync) != 0, OpenSync)
	set(fdflags&FdDsync != 0, OpenDsync)
	return f
}

func pathFilestatGet(s *System, mem memory, a []uint64) Errno {
	lookup, out := uint32(a[1]), uint32(a[4])
	at, e := s.resolve(mem, a[0], uint32(a[2]), uint32(a[3]), RightPathFilestatGet)
	if e != Success {
		return e
	}
	if lookup&^lookupFollow != 0 {
		return EINVAL
	}
	if !mem.has(out, sizeFilestat) {
		return EFAULT
	}
	st, e := at.dir.FS.Stat(at.path, lookup&lookupFollow != 0 || at.slash)
	if e != Success {
		return e
	}
	if at.slash && st.Type != FiletypeDirectory {
		return ENOTDIR
	}
	mem.putFilestat(out, &st)
	return Success
}

func pathFilestatSetTimes(s *System, mem memory, a []uint64) Errno {
	lookup := uint32(a[1])
	at, e := s.change(mem, a[0], uint32(a[2]), uint32(a[3]), RightPathFilestatSetTimes)
	if e != Success {
		return e
	}
	if lookup&^lookupFollow != 0 {
		return EINVAL
	}
	t, e := s.times(a[4], a[5], uint32(a[6]))
	if e != Success {
		return e
	}
	if at.slash {
		st, e := at.dir.FS.Stat(at.path, true)
		if e != Success {
			return e
		}
		if st.Type != FiletypeDirectory {
			return ENOTDIR
		}
	}
	return at.dir.FS.SetTimes(at.path, t, lookup&lookupFollow != 0 || at.slash)
}

func pathCreateDirectory(s *System, mem memory, a []uint64) Errno {
	at, e := s.change(mem, a[0], uint32(a[1]), uint32(a[2]), RightPathCreateDirectory)
	if e != Success {
		return e
	}
	if at.dot {
		return EEXIST
	}
	return at.dir.FS.Mkdir(at.path)
}

func pathRemoveDirectory(s *System, mem memory, a []uint64) Errno {
	at, e := s.change(mem, a[0], uint32(a[1]), uint32(a[2]), RightPathRemoveDirectory)
	if e != Success {
		return e
	}
	if at.dot {
		return EINVAL
	}
	return at.dir.FS.Rmdir(at.path)
}

func pathUnlinkFile(s *System, mem memory, a []uint64) Errno {
	at, e := s.change(mem, a[0], uint32(a[1]), uint32(a[2]), RightPathUnlinkFile)
	if e != Success {
		return e
	}
	if at.dot {
		return EISDIR
	}
	if at.slash {
		if e := at.mustBeDir(); e != Success {
			return e
		}
		return EISDIR
	}
	return at.dir.FS.Unlink(at.path)
}

func pathRename(s *System, mem memory, a []uint64) Errno {
	from, e := s.change(mem, a[0], uint32(a[1]), uint32(a[2]), RightPathRenameSource)
	if e != Success {
		return e
	}
	to, e := s.change(mem, a[3], uint32(a[4]), uint32(a[5]), RightPathRenameTarget)
	if e != Success {
		return e
	}
	if from.dot || to.dot {
		return EBUSY
	}
	if from.mount != to.mount {
		return EXDEV
	}
	if from.slash || to.slash {
		if e := from.mustBeDir(); e != Success {
			return e
		}
	}
	if e := from.dir.FS.Rename(from.path, to.path); e != Success {
		return e
	}
	s.renamed(from.mount, from.path, to.path)
	return Success
}

// renamed lets the descriptors of directories follow a renaming by the guest
// itself, since they are paths.
func (s *System) renamed(mount int, from, to string) {
	for i := range s.fds {
		sl := &s.fds[i]
		if !sl.used || !sl.dir || sl.mount != mount || !strings.HasPrefix(sl.path, from) {
			continue
		}
		if rest := sl.path[len(from):]; rest == "" || rest[0] == '/' {
			sl.path = to + rest
		}
	}
}

func pathLink(s *System, mem memory, a []uint64) Errno {
	from, e := s.change(mem, a[0], uint32(a[2]), uint32(a[3]), RightPathLinkSource)
	if e != Success {
		return e
	}
	to, e := s.change(mem, a[4], uint32(a[5]), uint32(a[6]), RightPathLinkTarget)
	if e != Success {
		return e
	}
	if uint32(a[1]) != 0 { // a link that is followed could change under way
		return EINVAL
	}
	if from.slash {
		if e := from.mustBeDir(); e != Success {
			return e
		}
		return EPERM // no links to directories
	}
	if e := to.cannotEndInSlash(); e != Success {
		return e
	}
	if from.mount != to.mount {
		return EXDEV
	}
	return from.dir.FS.Link(from.path, to.path)
}

// cannotEndInSlash returns the errno for a path that is to name a new file,
// and not a directory, but ends in a slash or a dot.
func (at *place) cannotEndInSlash() Errno {
	if !at.slash {
		return Success
	}
	if e := at.mustBeDir(); e != Success {
		return e // ENOENT or ENOTDIR
	}
	return EEXIST
}

func pathSymlink(s *System, mem memory, a []uint64) Errno {
	at, e := s.change(mem, a[2], uint32(a[3]), uint32(a[4]), RightPathSymlink)
	if e != Success {
		return e
	}
	target, ok := mem.slice(uint32(a[0]), uint64(uint32(a[1])))
	switch {
	case !ok:
		return EFAULT
	case len(target) == 0:
		return ENOENT
	case len(target) > MaxPath:
		return ENAMETOOLONG
	}
	s.moved += uint64(len(target))
	name := string(target)
	switch {
	case strings.IndexByte(name, 0) >= 0:
		return EINVAL
	case !at.dir.Symlinks || !staysInside(at.path, name):
		return EPERM
	}
	if e := at.cannotEndInSlash(); e != Success {
		return e
	}
	return at.dir.FS.Symlink(name, at.path)
}

func pathReadlink(s *System, mem memory, a []uint64) Errno {
	out := uint32(a[5])
	at, e := s.resolve(mem, a[0], uint32(a[1]), uint32(a[2]), RightPathReadlink)
	if e != Success {
		return e
	}
	buf, ok := mem.slice(uint32(a[3]), uint64(uint32(a[4])))
	if !ok || !mem.has(out, sizePtr) {
		return EFAULT
	}
	if at.slash { // what it names is no link any more, or no directory
		if _, e := at.dir.FS.Stat(at.path, true); e != Success {
			return e
		}
		return EINVAL
	}
	target, e := at.dir.FS.Readlink(at.path)
	if e != Success {
		return e
	}
	n := copy(buf, target) // cut off where the buffer ends, as in POSIX
	s.moved += uint64(n)
	mem.put32(out, uint32(n))
	return Success
}
