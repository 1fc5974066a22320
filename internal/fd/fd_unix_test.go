//go:build unix

package fd

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTryLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first, second := open(), open()
	if err := TryLock(first); err != nil {
		t.Fatal(err)
	}
	if err := TryLock(second); !errors.Is(err, ErrLocked) {
		t.Errorf("a lock that another open file has: %v", err)
	}
	first.Close()
	if err := TryLock(second); err != nil {
		t.Errorf("a lock whose file was closed: %v", err)
	}
	if err := TryLock(first); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("lock of a closed file: %v", err)
	}
}

func TestDo(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := Do(f, func(int) error { return unix.EPERM }); err != unix.EPERM {
		t.Errorf("the error of what was done: %#v", err)
	}
	f.Close()
	if err := Do(f, func(int) error { t.Error("called without a descriptor"); return nil }); err == nil {
		t.Error("no error for a file that is closed")
	}
}

func TestDuplicate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	own, err := Duplicate(w)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(own), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: programs that this one starts would get it", flags, err)
	}
	w.Close()
	d := os.NewFile(uintptr(own), "duplicate")
	if _, err := d.WriteString("still open"); err != nil {
		t.Error(err)
	}
	d.Close()
	if p, err := io.ReadAll(r); string(p) != "still open" || err != nil {
		t.Errorf("read %q, %v", p, err)
	}
	if own, err := Duplicate(w); err == nil || own != -1 {
		t.Errorf("the descriptor of a closed file is %d, %v", own, err)
	}
}
