package sandbox

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file finds the pages of a private mapping that the guest has written
// to, by the ioctl PAGEMAP_SCAN (Linux 6.7; Documentation/admin-guide/mm/
// pagemap.rst). To copy a few of them back from the image costs a fraction of
// what it costs to unmap them all: the pages stay mapped, so the next task
// meets no page faults, and no other processor has to flush its TLB.

// scanArg is struct pm_scan_arg.
type scanArg struct {
	size             uint64
	flags            uint64
	start, end       uint64
	walkEnd          uint64
	vec, vecLen      uint64
	maxPages         uint64
	categoryInverted uint64
	categoryMask     uint64
	categoryAnyOf    uint64
	returnMask       uint64
}

// region is struct page_region: addresses of bytes.
type region struct{ start, end, categories uint64 }

const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
)

// pagemap is the process's own page map, or -1 where it cannot be scanned.
var pagemap = sync.OnceValue(func() int {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return -1
	}
	defer f.Close()
	// Kept for the life of the process, out of reach of f's finalizer.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	page := make([]byte, 1)
	var one [1]region
	if _, err := scanDirty(fd, unsafe.Pointer(unsafe.SliceData(page)), 1, one[:]); err != nil {
		_ = unix.Close(fd)
		return -1
	}
	return fd
})

// pageFaults is how many page faults the process has had, all threads taken
// together; 0 where that is not known. What a thread did before it handed a
// memory on is counted when the next one asks.
func pageFaults() int64 {
	var u unix.Rusage
	if !faultsCounted() || unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Minflt + u.Majflt
}

// faultsCounted reports whether the system counts a fault by which a page
// becomes the process's own.
var faultsCounted = sync.OnceValue(func() bool {
	mem, err := unix.Mmap(-1, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer unix.Munmap(mem)
	var before, after unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &before) != nil {
		return false
	}
	mem[0] = 1
	return unix.Getrusage(unix.RUSAGE_SELF, &after) == nil && after.Minflt+after.Majflt > before.Minflt+before.Majflt
})

// Prepare opens what sandboxes of this process need and what it may not open
// once it is jailed. It returns the descriptors to keep.
func Prepare() (keep []int) {
	if fd := pagemap(); fd >= 0 {
		keep = append(keep, fd)
	}
	return keep
}

// scanDirty finds the pages among the n bytes at base that are the process's
// own, and not the file's that is mapped there. It returns how many regions it
// wrote; as many as there is room for mean that there may be more.
func scanDirty(fd int, base unsafe.Pointer, n uint64, out []region) (int, error) {
	return scan(fd, base, n, out, scanArg{categoryInverted: pageIsFile, categoryMask: pageIsFile})
}

// scanPresent finds the pages among the n bytes at base that the process has
// mapped, whosever they are. It stops when it has found most of them.
func scanPresent(fd int, base unsafe.Pointer, n, most uint64, out []region) (int, error) {
	return scan(fd, base, n, out, scanArg{maxPages: most})
}

// scan finds the pages that are there, in memory or swapped out, and of which
// holds what arg says.
func scan(fd int, base unsafe.Pointer, n uint64, out []region, arg scanArg) (int, error) {
	arg.size = uint64(unsafe.Sizeof(arg))
	arg.start = uint64(uintptr(base)) &^ (pageSize - 1)
	arg.end = (uint64(uintptr(base)) + n + pageSize - 1) &^ (pageSize - 1)
	arg.vec, arg.vecLen = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(out)))), uint64(len(out))
	arg.categoryAnyOf = pageIsPresent | pageIsSwapped
	arg.returnMask = pageIsPresent
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&arg)))
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}
