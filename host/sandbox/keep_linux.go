package sandbox

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keep is the file of a sandbox's checkpoints: all of its memory, less what
// lies under windows.
type keep struct {
	file *os.File
	fd   int
	size uint64
}

func (k *keep) close() error {
	err := k.file.Close()
	if err == nil {
		keeps.Add(-1)
	}
	return err
}

// keeps is how many keeps there are. Each is a descriptor as long as the actor
// lives, asleep too.
var keeps atomic.Int64

// maxKeeps bounds them: an eighth of the descriptors. Checkpoints of those that
// come later are differences, which may be on disk.
var maxKeeps = sync.OnceValue(func() int64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 128
	}
	return int64(min(lim.Cur, 1<<20) / 8)
})

// mayKeep reports whether there may be one more keep, about.
func mayKeep() bool { return keeps.Load() < maxKeeps() }

// begin makes a keep of what the memory holds, and lays it under.
func (m *linearMemory) begin(windows []Base) error {
	if pagemap() < 0 {
		return errors.ErrUnsupported // which pages were written to cannot be told
	}
	if keeps.Add(1) > maxKeeps() {
		keeps.Add(-1)
		return errors.ErrUnsupported
	}
	fd, err := unix.MemfdCreate("wray-checkpoint", unix.MFD_CLOEXEC)
	if err != nil {
		keeps.Add(-1)
		return err
	}
	k := &keep{file: os.NewFile(uintptr(fd), "wray-checkpoint"), fd: fd, size: m.size}
	all := without([]span{{0, m.size}}, windows)
	err = unix.Ftruncate(fd, int64(m.size))
	for i := 0; err == nil && i < len(all); i++ {
		err = k.writeNonzero(m.bytes(), all[i])
	}
	for i := 0; err == nil && i < len(all); i++ {
		// From here on the memory is the same, whatever of it is mapped.
		err = m.lay(k, all[i])
	}
	if err != nil {
		_ = k.close() // what is mapped of it stays
		return err
	}
	m.keep = k
	m.tornBy(windows)
	return nil
}

// writeNonzero writes a range of mem to a file that has only zeros there.
func (k *keep) writeNonzero(mem []byte, s span) error {
	for at, end := s.at, s.at+s.n; at < end; {
		if isZero(mem[at : at+pageSize]) {
			at += pageSize
			continue
		}
		to := at + pageSize
		for to < end && !isZero(mem[to:to+pageSize]) {
			to += pageSize
		}
		if err := writeAll(k.fd, mem[at:to], int64(at)); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// writeAll is pwrite(2) until all is written.
func writeAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// lay maps a range of the keep over the same range of memory.
func (m *linearMemory) lay(k *keep, s span) error {
	_, err := unix.MmapPtr(k.fd, int64(s.at), unsafe.Add(m.base, s.at), uintptr(s.n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// layKeep lays a keep under memory that has no windows yet.
func (m *linearMemory) layKeep(k *keep) error {
	if k.size > m.length {
		return errBadDiff
	}
	if err := m.lay(k, span{0, k.size}); err != nil {
		return err
	}
	m.keep, m.holes = k, m.holes[:0]
	return nil
}

// tornBy sets holes to what windows lie over.
func (m *linearMemory) tornBy(windows []Base) {
	m.holes = m.holes[:0]
	for i := range windows {
		m.holes = append(m.holes, span{windows[i].At, windows[i].Len})
	}
}

// joinDropped is how many pages between two that are given back are given back
// as well: that they are mapped anew costs less than another call.
const joinDropped = 16

// advance writes to the keep what changed since the last checkpoint, and lays
// it under again where it was gone.
func (m *linearMemory) advance(windows []Base) error {
	k := m.keep
	// Where the keep is not mapped, all is new. The memory beyond its end is.
	gone := m.holes
	if m.size > k.size {
		gone = append(append([]span(nil), gone...), span{k.size, m.size - k.size})
	}
	gone = without(gone, windows)
	var own []span
	err := m.changed(func(from, to uint64) {
		for at := from; at < to; {
			if w := inWindow(windows, at); w != nil {
				at = w.At + w.Len
				continue
			}
			end := to
			for i := range windows {
				if w := &windows[i]; w.At > at {
					end = min(end, w.At)
				}
			}
			own = append(own, span{at, end - at})
			at = end
		}
	})
	if err != nil {
		return fmt.Errorf("find what the guest changed: %w", err)
	}
	// First the room, so that what follows cannot fail for want of it.
	if m.size > k.size {
		if err := unix.Ftruncate(k.fd, int64(m.size)); err != nil {
			return fmt.Errorf("lengthen the file of checkpoints: %w", err)
		}
	}
	for _, s := range own {
		if err := unix.Fallocate(k.fd, unix.FALLOC_FL_KEEP_SIZE, int64(s.at), int64(s.n)); err != nil {
			return fmt.Errorf("find room for the checkpoint: %w", err)
		}
	}
	mem := m.bytes()
	for _, s := range gone {
		if s.at >= k.size {
			continue // nothing was there
		}
		if err := unix.Fallocate(k.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(s.at), int64(s.n)); err != nil {
			return fmt.Errorf("%w: %v", ErrTorn, err)
		}
	}
	for _, s := range own {
		if err := writeAll(k.fd, mem[s.at:s.at+s.n], int64(s.at)); err != nil {
			return fmt.Errorf("%w: %v", ErrTorn, err)
		}
	}
	k.size = max(k.size, m.size)
	for _, s := range gone {
		if err := m.lay(k, s); err != nil {
			return fmt.Errorf("%w: %v", ErrTorn, err)
		}
	}
	m.tornBy(windows)
	return m.drop(own, windows)
}

// drop gives back pages that are the same in the keep.
func (m *linearMemory) drop(own []span, windows []Base) error {
	for i := 0; i < len(own); {
		s := own[i]
		for i++; i < len(own); i++ {
			gap := span{s.at + s.n, own[i].at - s.at - s.n}
			if gap.n > joinDropped*pageSize || len(without([]span{gap}, windows)) != 1 && gap.n > 0 {
				break
			}
			s.n = own[i].at + own[i].n - s.at
		}
		// A page that stays is written again at the next checkpoint: no harm.
		if err := unix.Madvise(unsafe.Slice((*byte)(m.base), m.length)[s.at:s.at+s.n], unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("%w: give pages back: %v", ErrTorn, err)
		}
	}
	return nil
}
