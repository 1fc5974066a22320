package objectstore_test

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
)

// TestMemfd holds the form of Linux to the contract, and then counts what the
// process has left of it.
func TestMemfd(t *testing.T) {
	files, maps := countFiles(t), countMappings(t)
	storetest.Run(t, storetest.Suite{Map: mapPrivate})
	if n := countFiles(t); n != files {
		t.Errorf("%d descriptors of memfds before, %d after", files, n)
	}
	if n := countMappings(t); n != maps {
		t.Errorf("%d mappings of memfds before, %d after", maps, n)
	}
}

// TestMemfdSpill holds the form of Linux to what it owes with a Disk.
func TestMemfdSpill(t *testing.T) { storetest.RunSpill(t, storetest.Suite{Map: mapPrivate}) }

// TestFewSegmentsSpill is the same where most large payloads live in the heap.
func TestFewSegmentsSpill(t *testing.T) {
	storetest.RunSpill(t, storetest.Suite{Config: objectstore.Config{MaxSegments: 3}})
}

// mapPrivate lays a window over a reserved range, as a sandbox does.
func mapPrivate(t testing.TB, w *objectstore.Window) ([]byte, func()) {
	t.Helper()
	n := uintptr(w.MapLen())
	p, err := unix.MmapPtr(-1, 0, nil, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	_, err = unix.MmapPtr(w.FD(), 0, p, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*byte)(p), n), func() {
		if err := unix.MunmapPtr(p, n); err != nil {
			t.Error(err)
		}
	}
}

func countFiles(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && bytes.Contains([]byte(name), []byte("wray-object")) {
			n++
		}
	}
	return n
}

func countMappings(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("wray-object"))
}
