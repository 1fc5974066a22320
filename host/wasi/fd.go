package wasi

import "math"

func fdClose(s *System, _ memory, a []uint64) Errno {
	sl, e := s.get(a[0])
	if e != Success {
		return e
	}
	return s.release(sl)
}

// fdRenumber moves a descriptor over another open one, which is closed.
func fdRenumber(s *System, _ memory, a []uint64) Errno {
	from, e := s.get(a[0])
	if e != Success {
		return e
	}
	to, e := s.get(a[1])
	if e != Success {
		return e
	}
	if from == to {
		return Success
	}
	s.release(to) // as dup2 does, it drops the errno of this
	*to = *from
	*from = slot{}
	return Success
}

func fdSeek(s *System, mem memory, a []uint64) Errno {
	need := RightFdSeek
	if a[1] == 0 && uint32(a[2]) == SeekCur {
		need = 0
	}
	return s.seek(mem, a[0], int64(a[1]), uint32(a[2]), uint32(a[3]), need)
}

func fdTell(s *System, mem memory, a []uint64) Errno {
	return s.seek(mem, a[0], 0, SeekCur, uint32(a[1]), 0)
}

func (s *System) seek(mem memory, fd uint64, off int64, whence, out uint32, need Rights) Errno {
	sl, e := s.get(fd)
	switch {
	case e != Success:
		return e
	case sl.dir:
		return EISDIR
	case whence > SeekEnd:
		return EINVAL
	case !mem.has(out, sizeTime):
		return EFAULT
	}
	if sl.disk == nil {
		need = 0 // streams have no such right, and say ESPIPE themselves
	} else if need == 0 && sl.base&(RightFdSeek|RightFdTell) == 0 {
		need = RightFdTell
	}
	if need&^sl.base != 0 {
		return ENOTCAPABLE
	}
	to, e := sl.file.SeekTo(off, int(whence))
	if e != Success {
		return e
	}
	mem.put64(out, uint64(to))
	return Success
}

func fdSync(s *System, _ memory, a []uint64) Errno {
	return s.sync(a[0], RightFdSync, false)
}

func fdDatasync(s *System, _ memory, a []uint64) Errno {
	return s.sync(a[0], RightFdDatasync, true)
}

func (s *System) sync(fd uint64, need Rights, dataOnly bool) Errno {
	sl, e := s.get(fd)
	if e != Success {
		return e
	}
	if sl.disk == nil && !sl.dir {
		return EINVAL // as fsync(2) on a pipe
	}
	if sl.base&(need|RightFdSync) == 0 { // the right to sync includes data
		return ENOTCAPABLE
	}
	d, e := s.onDisk(sl, EINVAL)
	if e != Success {
		return e
	}
	return d.sync(dataOnly)
}

func fdAdvise(s *System, _ memory, a []uint64) Errno {
	off, n, advice := a[1], a[2], uint32(a[3])
	sl, e := s.get(a[0])
	switch {
	case e != Success:
		return e
	case sl.dir:
		return EBADF
	case sl.disk == nil:
		return ESPIPE
	case sl.base&RightFdAdvise == 0:
		return ENOTCAPABLE
	case advice > 5 || off > math.MaxInt64 || n > math.MaxInt64:
		return EINVAL
	}
	return sl.disk.advise(int64(off), int64(n), int(advice))
}

func fdAllocate(s *System, _ memory, a []uint64) Errno {
	off, n := a[1], a[2]
	sl, e := s.writable(a[0], RightFdAllocate)
	switch {
	case e != Success:
		return e
	case n == 0 || off > math.MaxInt64 || n > math.MaxInt64:
		return EINVAL
	case off+n > math.MaxInt64 || n > uint64(s.cfg.Limits.MaxAllocate):
		return EFBIG
	}
	return sl.disk.allocate(int64(off), int64(n))
}

func fdFilestatSetSize(s *System, _ memory, a []uint64) Errno {
	sl, e := s.writable(a[0], RightFdFilestatSetSize)
	if e != Success {
		return e
	}
	if a[1] > math.MaxInt64 {
		return EINVAL
	}
	return sl.disk.truncate(int64(a[1]))
}

// writable returns the slot of a regular file on disk whose size may be
// changed.
func (s *System) writable(fd uint64, need Rights) (*slot, Errno) {
	sl, e := s.get(fd)
	switch {
	case e != Success:
		return nil, e
	case sl.dir:
		return nil, EBADF
	case sl.disk == nil:
		return nil, EINVAL
	case sl.ro:
		return nil, EROFS
	case sl.base&RightFdWrite == 0:
		return nil, EINVAL // as ftruncate(2) on a file open for reading
	case sl.base&need == 0:
		return nil, ENOTCAPABLE
	}
	return sl, Success
}

func fdFilestatGet(s *System, mem memory, a []uint64) Errno {
	out := uint32(a[1])
	sl, e := s.getWith(a[0], RightFdFilestatGet)
	if e != Success {
		return e
	}
	if !mem.has(out, sizeFilestat) {
		return EFAULT
	}
	st, e := s.stat(sl)
	if e != Success {
		return e
	}
	mem.putFilestat(out, &st)
	return Success
}

func (s *System) stat(sl *slot) (Filestat, Errno) {
	if sl.disk == nil && !sl.dir {
		return sl.file.Stat()
	}
	d, e := s.onDisk(sl, EBADF)
	if e != Success {
		return Filestat{}, e
	}
	return d.Stat()
}

func fdFilestatSetTimes(s *System, _ memory, a []uint64) Errno {
	sl, e := s.getWith(a[0], RightFdFilestatSetTimes)
	if e != Success {
		return e
	}
	t, e := s.times(a[1], a[2], uint32(a[3]))
	if e != Success {
		return e
	}
	if sl.ro {
		return EROFS
	}
	d, e := s.onDisk(sl, EINVAL)
	if e != Success {
		return e
	}
	return d.setTimes(t)
}

// times returns the times that a guest asks for.
func (s *System) times(atim, mtim uint64, flags uint32) (Times, Errno) {
	one := func(t uint64, set, now bool) (int64, Errno) {
		switch {
		case set && now:
			return 0, EINVAL
		case now:
			return s.wall(), Success
		case !set:
			return OmitTime, Success
		case t > math.MaxInt64:
			return 0, EINVAL
		}
		return int64(t), Success
	}
	if flags&^(fstAtim|fstAtimNow|fstMtim|fstMtimNow) != 0 {
		return Times{}, EINVAL
	}
	at, e := one(atim, flags&fstAtim != 0, flags&fstAtimNow != 0)
	if e != Success {
		return Times{}, e
	}
	mt, e := one(mtim, flags&fstMtim != 0, flags&fstMtimNow != 0)
	return Times{Atim: at, Mtim: mt}, e
}
