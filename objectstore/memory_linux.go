package objectstore

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	descriptors "github.com/wray-project/wray/internal/fd"
)

// systemMemory makes segments of memfds.
func systemMemory() memory { return memfdMemory{} }

// Bounds of what the process may hold. A segment takes a descriptor and a
// mapping; half of the descriptors and a quarter of the mappings (the kernel's
// default, vm.max_map_count, is 65530) are left to everything else.
const maxMappings = 65530 / 4

func defaultMaxSegments() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 512
	}
	return int(min(lim.Cur/2, maxMappings))
}

// hugePage is the size from which the kernel may use huge pages.
const hugePage = 2 << 20

// memfdMemory makes each segment a memfd with one shared writable mapping, the
// store's own. Its length is sealed, so that a window never ends in a hole
// (reading past the end of a file kills the process).
type memfdMemory struct{}

func (memfdMemory) make(n int64) (mem []byte, fd int, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate("wray-object", flags|unix.MFD_NOEXEC_SEAL) // since 6.3
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("wray-object", flags)
	}
	if err != nil {
		return nil, -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // err says more
		}
	}()
	if err := unix.Ftruncate(fd, n); err != nil {
		return nil, -1, fmt.Errorf("ftruncate memfd to %d bytes: %w", n, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return nil, -1, fmt.Errorf("seal memfd: %w", err)
	}
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, -1, fmt.Errorf("map memfd of %d bytes: %w", n, err)
	}
	mem = unsafe.Slice((*byte)(p), n)
	// Advice: a kernel that does not take it is slower, not wrong.
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	if n >= hugePage {
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	}
	return mem, fd, nil
}

func (memfdMemory) free(mem []byte, fd int) {
	if err := unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem))); err != nil {
		panic("BUG: objectstore: munmap: " + err.Error())
	}
	if err := unix.Close(fd); err != nil {
		panic("BUG: objectstore: close memfd: " + err.Error())
	}
}

func (memfdMemory) write(fd int, p []byte, off int64) (done int) {
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], off+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		done += n
	}
	return done
}

func (memfdMemory) populate(mem []byte) {
	// Where the kernel cannot (before 5.14), the pages fault one by one.
	_ = unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
}

func (memfdMemory) sealWrites(fd int) {
	// Kernels before 5.1 cannot; then who gets a descriptor must be trusted
	// not to write.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL)
}

func (memfdMemory) adopt(f *os.File, n int64) (mem []byte, fd int, err error) {
	if fd, err = descriptors.Duplicate(f); err != nil {
		return nil, -1, fmt.Errorf("duplicate memfd: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // err says more
		}
	}()
	const frozen = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&frozen != frozen {
		return nil, -1, fmt.Errorf("%w: seals %#x, %v", ErrNotSealed, seals, err)
	}
	// Seals are there for good, so what follows stays true.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, -1, fmt.Errorf("adopt memfd: %w", err)
	}
	size := roundUp(n, Align)
	switch {
	case st.Size != size:
		return nil, -1, fmt.Errorf("%w: %d bytes, expected %d", ErrNotSealed, st.Size, size)
	case st.Blocks < (size+511)/512: // in units of 512 bytes, stat(2)
		return nil, -1, fmt.Errorf("%w: it has holes", ErrNotSealed)
	}
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, -1, fmt.Errorf("map memfd of %d bytes: %w", size, err)
	}
	mem = unsafe.Slice((*byte)(p), size)
	_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
	for _, b := range mem[n:] {
		if b != 0 {
			_ = unix.MunmapPtr(p, uintptr(size))
			return nil, -1, fmt.Errorf("%w: bytes after the payload", ErrNotSealed)
		}
	}
	return mem, fd, nil
}

// duplicate returns a descriptor of fd that its receiver closes.
func duplicate(fd int) (*os.File, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate memfd: %w", err)
	}
	return os.NewFile(uintptr(d), "wray-object"), nil
}

func copyToFile(p []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("wray-copy", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wray-copy")
	if err := unix.Ftruncate(fd, roundUp(int64(len(p)), Align)); err != nil || (memfdMemory{}).write(fd, p, 0) < len(p) {
		f.Close()
		return nil, fmt.Errorf("copy %d bytes into a memfd: %w", len(p), errors.Join(err, unix.ENOMEM))
	}
	return f, nil
}
