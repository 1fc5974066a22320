package sandbox

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSparse asks how many pages of a range are mapped: of memory nobody
// touched, touched in a row, touched here and there, and of a window that was
// read or written.
func TestSparse(t *testing.T) {
	if pagemap() < 0 {
		t.Skip("the system does not tell which pages are mapped")
	}
	const size, few = 256 << 20, 64
	m, err := newLinearMemory(size, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.release()
	// The kernel would map 512 pages at the first touch of one.
	if err := unix.Madvise(m.Reallocate(size), unix.MADV_NOHUGEPAGE); err != nil {
		t.Log(err)
	}
	mem := m.bytes()
	check := func(what string, at, n uint64, want bool) {
		t.Helper()
		if got := m.sparse(at, n, few); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("untouched", 0, size, true)
	for i := range few {
		mem[i*pageSize] = 1
	}
	check("as many as allowed, in a row", 0, size, true)
	mem[few*pageSize] = 1
	check("one more", 0, size, false)
	check("beside them", size/2, size/2, true)
	check("the last of them and what follows", few*pageSize, size/2, true)
	if err := m.unwindow(0, size/2); err != nil {
		t.Fatal(err)
	}
	check("given back", 0, size, true)
	for i := range few + 1 {
		mem[size/2+i*(1<<20)] = 1
	}
	check("one more than allowed, each alone", 0, size, false)
	if err := m.unwindow(size/2, size/2); err != nil {
		t.Fatal(err)
	}
	for i := range len(regions{}) + 1 {
		mem[i*2*pageSize] = 1
	}
	if m.sparse(0, size, size/pageSize) {
		t.Error("more regions than there is room for, and said to be known")
	}

	fd, err := unix.MemfdCreate("wray-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if err := m.window(fd, 0, 0, size); err != nil {
		t.Fatal(err)
	}
	check("a window nobody looked at", 0, size, true)
	sum := byte(0)
	for i := range 2 * few {
		sum += mem[i*pageSize]
	}
	check("a window that was read", 0, size, sum != 0)
	for i := range few + 1 {
		mem[size/2+i*pageSize] = 1
	}
	check("a window that was written to", size/2, size/2, false)
}
