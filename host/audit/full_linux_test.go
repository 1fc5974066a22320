package audit

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReserved: what the log was ready for is recorded, also where somebody fills
// the disk between that and the record; and on a full disk it is not ready.
func TestReserved(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("a disk of its own takes root: ", err)
	}
	defer unix.Unmount(disk, 0)
	l, err := Open(filepath.Join(disk, "log"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, 1)
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(b)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	write(t, l, 100)
	for err = nil; err == nil; err = l.Ready() {
		write(t, l, 1)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	write(t, l, 1) // what has its place is recorded yet
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := l.Ready(); err != nil {
		t.Errorf("where there is room again: %v", err)
	}
}
