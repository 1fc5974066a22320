package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linearMemory is the memory of one sandbox: a reservation of address space
// as large as the sandbox may grow, with a snapshot image mapped private and
// copy-on-write over its beginning. Untouched pages cost nothing.
//
// Every page is readable and writable at all times: a fault under guest code
// would end the process. Nothing is unmapped before release, which the owner
// calls when no guest code can run in it any more; wazero's own Free does
// nothing.
//
// One goroutine at a time uses a linearMemory: the one that runs the guest, or
// the owner between calls.
type linearMemory struct {
	base   unsafe.Pointer // start of the reservation
	length uint64         // bytes reserved
	limit  uint64         // bytes the guest may grow to, <= length
	size   uint64         // bytes the guest has
	denied bool           // a growth was refused since the last reset
	holes  []span         // of the image: windows were laid over them since the last reset
	resets uint8          // since all pages were given back
	dirty  []region       // what the guest had written to when the process had had so many
	faults int64          // page faults; 0: not known
	image  *image         // nil for the template
	keep   *keep          // of checkpoints, laid in the place of image; the owner of the state closes it
}

const pageSize = 4096

// newLinearMemory reserves limit bytes, rounded up to wasm pages.
func newLinearMemory(limit uint64, img *image) (*linearMemory, error) {
	length := (limit + wasmPage - 1) &^ (wasmPage - 1)
	if length == 0 {
		length = wasmPage
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of linear memory: %w", length, err)
	}
	m := &linearMemory{base: base, length: length, limit: limit, image: img}
	if err := m.mapImage(); err != nil {
		_ = unix.MunmapPtr(base, uintptr(length))
		return nil, err
	}
	return m, nil
}

// mapImage lays the snapshot over the beginning of the reservation.
func (m *linearMemory) mapImage() error {
	if m.image == nil || m.image.size == 0 {
		return nil
	}
	if err := m.window(m.image.fd, 0, 0, m.image.size); err != nil {
		return fmt.Errorf("map the snapshot: %w", err)
	}
	m.holes = m.holes[:0]
	return nil
}

// Reallocate implements experimental.LinearMemory. It never moves the memory.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.denied = true
		return nil
	}
	m.size = size
	return unsafe.Slice((*byte)(m.base), m.length)[:size:size]
}

// Free implements experimental.LinearMemory. wazero calls it when a module
// closes, which may be while a call still runs: see release.
func (m *linearMemory) Free() {}

// bytes returns the guest's memory. The slice is valid until release.
func (m *linearMemory) bytes() []byte {
	return unsafe.Slice((*byte)(m.base), m.length)[:m.size:m.size]
}

// reset makes every page that the guest dirtied what it was: pages of the image
// show the image again, those above are zero. The cost follows the dirtied
// pages. Few of them are copied back and stay; many are given back.
func (m *linearMemory) reset() error {
	m.denied = false
	if m.keep != nil {
		return errors.New("the snapshot is no longer under the memory")
	}
	if m.size == 0 {
		return nil
	}
	if len(m.holes) > 0 {
		if err := m.mapImage(); err != nil {
			return err
		}
	}
	if m.resets++; m.resets < resetsKept && m.copyBack() {
		return nil
	}
	m.resets, m.faults = 0, 0
	if err := unix.Madvise(unsafe.Slice((*byte)(m.base), m.size), unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("reset linear memory: %w", err)
	}
	return nil
}

const (
	// copyRegions and copyPages bound what is copied back. Above, giving pages
	// back costs less, and holds less memory.
	copyRegions = 256
	copyPages   = 512
	// resetsKept is how many resets in a row keep pages: one that was dirtied
	// once is copied at each, until all are given back.
	resetsKept = 64
)

type regions [copyRegions]region

// regionPool lends room for a scan. It is no stack variable, since the kernel
// writes to an address that Go does not see.
var regionPool = sync.Pool{New: func() any { return new(regions) }}

// copyBack undoes what the guest wrote, page by page. It reports false, having
// changed nothing, where there is too much or it cannot be told.
func (m *linearMemory) copyBack() bool {
	if m.image == nil || m.size != m.image.size || !m.findDirty() {
		return false
	}
	mem, base := m.bytes(), uint64(uintptr(m.base))
	for _, d := range m.dirty {
		copy(mem[d.start-base:d.end-base], m.image.view[d.start-base:])
	}
	return true
}

// findDirty sets dirty, and reports false where there is too much of it or it
// cannot be told. A page becomes the guest's own by a page fault, so where the
// process has had none since the last look, another would see the same.
func (m *linearMemory) findDirty() bool {
	fd := pagemap()
	if fd < 0 {
		return false
	}
	faults := pageFaults() // before the scan, which may miss what comes while it runs
	if faults != 0 && faults == m.faults {
		return true
	}
	m.faults = 0
	r := regionPool.Get().(*regions)
	defer regionPool.Put(r)
	n, err := scanDirty(fd, m.base, m.size, r[:])
	if err != nil || n == len(r) {
		return false
	}
	pages := uint64(0)
	for _, d := range r[:n] {
		pages += (d.end - d.start) / pageSize
	}
	if pages > copyPages {
		return false
	}
	m.dirty, m.faults = append(m.dirty[:0], r[:n]...), faults
	return true
}

// window maps n bytes of fd from offset, private and copy-on-write, over the
// guest's memory at address at. The caller has checked bounds and alignment
// and keeps its bytes unchanged until unwindow.
func (m *linearMemory) window(fd int, offset int64, at, n uint64) error {
	m.tear(at, n)
	_, err := unix.MmapPtr(fd, offset, unsafe.Add(m.base, at), uintptr(n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// lend maps the shared mapping mem once more, over the guest's memory at
// address at: both see what either writes. It works for files that can no
// longer be mapped for writing, too (mremap(2): an old length of 0).
func (m *linearMemory) lend(mem []byte, at uint64) error {
	m.tear(at, uint64(len(mem)))
	_, err := unix.MremapPtr(unsafe.Pointer(unsafe.SliceData(mem)), 0, unsafe.Add(m.base, at), uintptr(len(mem)),
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	return err
}

// tear notes that the image is no longer whole. Windows come again where
// others were, so the list stays short; spans that touch become one, so that it
// does for a guest that wants it long, too.
func (m *linearMemory) tear(at, n uint64) {
	m.faults = 0
	if m.keep == nil && (m.image == nil || at >= m.image.size) || m.keep != nil && at >= m.keep.size {
		return
	}
	end := at + n
	for _, h := range m.holes {
		if at >= h.at && end <= h.at+h.n {
			return
		}
	}
	rest := m.holes[:0]
	for _, h := range m.holes {
		if h.at > end || h.at+h.n < at {
			rest = append(rest, h)
			continue
		}
		at, end = min(at, h.at), max(end, h.at+h.n)
	}
	m.holes = append(rest, span{at, end - at})
}

// holesNow returns where the image is gone, in order.
func (m *linearMemory) holesNow() []span {
	holes := append([]span(nil), m.holes...)
	slices.SortFunc(holes, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	return holes
}

// changed calls f for ranges of whole pages, in order, that together hold
// every page of the guest's which is not as mapped.
func (m *linearMemory) changed(f func(from, to uint64)) error {
	fd := pagemap()
	if fd < 0 {
		f(0, m.size)
		return nil
	}
	r := regionPool.Get().(*regions)
	defer regionPool.Put(r)
	base := uint64(uintptr(m.base))
	for at := uint64(0); at < m.size; {
		n, err := scanDirty(fd, unsafe.Add(m.base, at), m.size-at, r[:])
		if err != nil {
			return err
		}
		for _, d := range r[:n] {
			f(d.start-base, d.end-base)
		}
		if n < len(r) {
			return nil
		}
		at = r[n-1].end - base
	}
	return nil
}

// sparse reports whether at most so many pages of the range are mapped. It
// stops looking when it has seen more.
func (m *linearMemory) sparse(at, n, pages uint64) bool {
	fd := pagemap()
	if fd < 0 {
		return false
	}
	r := regionPool.Get().(*regions)
	defer regionPool.Put(r)
	k, err := scanPresent(fd, unsafe.Add(m.base, at), n, pages+1, r[:])
	if err != nil || k == len(r) {
		return false
	}
	found := uint64(0)
	for _, d := range r[:k] {
		found += (d.end - d.start) / pageSize
	}
	return found <= pages
}

// unwindow puts fresh zero pages over a window.
func (m *linearMemory) unwindow(at, n uint64) error {
	m.tear(at, n)
	_, err := unix.MmapPtr(-1, 0, unsafe.Add(m.base, at), uintptr(n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}

// release unmaps the memory. No guest code may run in it, now or later.
func (m *linearMemory) release() error {
	if m.base == nil {
		return nil
	}
	err := unix.MunmapPtr(m.base, uintptr(m.length))
	m.base, m.length, m.size = nil, 0, 0
	return err
}

// image is a snapshot of linear memory in a sealed memfd.
type image struct {
	file *os.File
	fd   int    // file's, kept since asking for it costs
	view []byte // the image, for reading
	size uint64
}

// newImage copies mem into a sealed memfd. Pages of zeros stay holes.
func newImage(mem []byte) (*image, error) {
	fd, err := unix.MemfdCreate("wray-snapshot", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create the snapshot: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wray-snapshot")
	size := uint64(len(mem)+pageSize-1) &^ (pageSize - 1)
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("size the snapshot: %w", err)
	}
	for start := 0; start < len(mem); {
		end := min(start+pageSize, len(mem))
		if isZero(mem[start:end]) {
			start = end
			continue
		}
		for end < len(mem) && !isZero(mem[end:min(end+pageSize, len(mem))]) {
			end = min(end+pageSize, len(mem))
		}
		if _, err := f.WriteAt(mem[start:end], int64(start)); err != nil {
			f.Close()
			return nil, fmt.Errorf("write the snapshot: %w", err)
		}
		start = end
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal the snapshot: %w", err)
	}
	img := &image{file: f, fd: fd, size: size}
	if size > 0 {
		if img.view, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
			f.Close()
			return nil, fmt.Errorf("map the snapshot: %w", err)
		}
	}
	return img, nil
}

// page returns the image's page at an offset, nil past its end.
func (i *image) page(at uint64) []byte {
	if at >= i.size {
		return nil
	}
	return i.view[at : at+pageSize]
}

// all returns the image's bytes, which are its own.
func (i *image) all() []byte { return i.view[:i.size] }

// close frees the image. No sandbox made from it is left.
func (i *image) close() error {
	if i.view != nil {
		_ = unix.Munmap(i.view)
		i.view = nil
	}
	return i.file.Close()
}
