package wasi

import (
	"encoding/binary"
	"math"
)

// transfer is what fd_read, fd_write, fd_pread and fd_pwrite have in common.
type transfer struct {
	write bool
	at    bool // at off, not at the file's own offset
	off   int64
}

func fdRead(s *System, mem memory, a []uint64) Errno {
	return s.transfer(mem, transfer{}, a[0], uint32(a[1]), uint32(a[2]), uint32(a[3]))
}

func fdWrite(s *System, mem memory, a []uint64) Errno {
	return s.transfer(mem, transfer{write: true}, a[0], uint32(a[1]), uint32(a[2]), uint32(a[3]))
}

func fdPread(s *System, mem memory, a []uint64) Errno {
	if a[3] > math.MaxInt64 {
		return EINVAL
	}
	return s.transfer(mem, transfer{at: true, off: int64(a[3])}, a[0], uint32(a[1]), uint32(a[2]), uint32(a[4]))
}

func fdPwrite(s *System, mem memory, a []uint64) Errno {
	if a[3] > math.MaxInt64 {
		return EINVAL
	}
	t := transfer{write: true, at: true, off: int64(a[3])}
	return s.transfer(mem, t, a[0], uint32(a[1]), uint32(a[2]), uint32(a[4]))
}

const sizeIovec = 8

// transfer moves bytes between a file and the buffers listed at iovs, and
// writes how many at out. It stops at the first short one, at MaxReadWrite,
// and, once something has moved, at an error, which then comes with the next
// call.
func (s *System) transfer(mem memory, t transfer, fd uint64, iovs, count, out uint32) Errno {
	sl, e := s.transferable(fd, t)
	if e != Success {
		return e
	}
	if count > maxIovs {
		return EINVAL
	}
	if !mem.has(iovs, uint64(count)*sizeIovec) || !mem.has(out, sizePtr) {
		return EFAULT
	}
	total := 0
	budget := s.cfg.Limits.MaxReadWrite
	for i := uint32(0); i < count && budget > 0; i++ {
		iov := mem[iovs+i*sizeIovec:]
		buf, ok := mem.slice(binary.LittleEndian.Uint32(iov), uint64(binary.LittleEndian.Uint32(iov[4:])))
		if !ok {
			e = EFAULT
			break
		}
		if len(buf) == 0 {
			continue
		}
		buf = buf[:min(len(buf), budget)]
		var n int
		n, e = t.once(sl.file, buf)
		for e == EAGAIN && total == 0 && sl.flags&FdNonblock == 0 {
			if e = s.await(sl.file, t.write); e != Success {
				return e
			}
			// The guest may have run, and closed the descriptor.
			if sl, e = s.transferable(fd, t); e != Success {
				return e
			}
			n, e = t.once(sl.file, buf)
		}
		if e != Success {
			break
		}
		if n < 0 || n > len(buf) {
			panic("BUG: wasi: a file moved more than it was asked to")
		}
		total += n
		budget -= n
		t.off += int64(n)
		if n < len(buf) {
			break
		}
	}
	if e != Success && total == 0 {
		return e
	}
	s.moved += uint64(total)
	mem.put32(out, uint32(total))
	return Success
}

// transferable returns the slot of a descriptor that t can be done on; its
// file is not nil.
func (s *System) transferable(fd uint64, t transfer) (*slot, Errno) {
	sl, e := s.get(fd)
	if e != Success {
		return nil, e
	}
	need := RightFdRead
	if t.write {
		need = RightFdWrite
	}
	switch {
	case sl.dir && t.write:
		return nil, EBADF
	case sl.dir:
		return nil, EISDIR
	case sl.base&need == 0:
		return nil, EBADF
	}
	return sl, Success
}

func (t *transfer) once(f File, p []byte) (int, Errno) {
	switch {
	case t.at && t.write:
		return f.Pwrite(p, t.off)
	case t.at:
		return f.Pread(p, t.off)
	case t.write:
		return f.Write(p)
	default:
		return f.Read(p)
	}
}
