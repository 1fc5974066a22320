package wasi_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/host/wasi"
)

// TestSpecialFiles holds that what is neither file nor directory is refused,
// and that asking does not wait for the other end of a pipe.
func TestSpecialFiles(t *testing.T) {
	m, dir := onDir(t)
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string][3]wasi.Errno{
		"pipe": {wasi.EACCES, wasi.ENXIO, wasi.EACCES}, "sock": {wasi.ENXIO, wasi.ENXIO, wasi.ENXIO},
	} {
		for _, lookup := range []uint64{0, follow} {
			for i, rights := range []uint64{readRight, writeRight, rw} {
				if _, e := m.open(3, path, lookup, 0, rights, 0); e != want[i] {
					t.Errorf("open %s for %d: %v, want %v", path, rights, e, want[i])
				}
			}
		}
	}
	if typ, _, e := m.stat(3, "sock", 0); e != 0 || typ != wasi.FiletypeSocketStream {
		t.Errorf("stat: type %d, %v", typ, e)
	}
}

// TestKernelFiles grants /proc and /sys, as --dir / does, and opens what is there:
// the memory of the process that opens, which is the node, is a regular file.
func TestKernelFiles(t *testing.T) {
	for _, dir := range []string{"/", "/proc", "/sys"} {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f := wasi.NoSymlinks(wasi.RootFS(root))
		pid := strconv.Itoa(os.Getpid())
		for _, path := range []string{"version", "kmsg", pid, pid + "/mem", pid + "/environ", pid + "/maps", "kernel/mm/transparent_hugepage/enabled"} {
			if dir == "/" {
				path = "proc/" + path
			}
			file, e := f.Open(path, wasi.OpenRead)
			if e == wasi.Success {
				file.Close()
				t.Errorf("%s in %s was opened", path, dir)
			}
		}
	}
}
