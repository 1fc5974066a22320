package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

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

// TestFullUnread: a log whose disk takes nothing more, and which is on it as it is
// known, is not read again, however often it is tried whether it can be written.
func TestFullUnread(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	dir := t.TempDir()
	l := open(t, dir, Options{Now: c.Now})
	write(t, l, 2)
	// A file that cannot grow is as one on a full disk.
	real := l.f
	fill := func() *os.File {
		t.Helper()
		fd, err := unix.MemfdCreate("full", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		full := os.NewFile(uintptr(fd), fmt.Sprint("/proc/self/fd/", fd))
		t.Cleanup(func() { full.Close() })
		was, err := os.ReadFile(real.Name())
		if err == nil {
			_, err = full.Write(was)
		}
		if err == nil {
			_, err = unix.FcntlInt(full.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
		}
		if err != nil {
			t.Fatal(err)
		}
		l.f = full
		return full
	}
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	full := fill()
	done, denied := Event{Who: "a", Action: "x", Decision: Allowed}, Event{Who: "b", Action: "y", Decision: Denied}
	for range 20 {
		if l.Write(done) == nil || l.Write(denied) == nil || l.Ready() == nil {
			t.Fatal("it is recorded on a full disk")
		}
		if l.f != full || l.sure != 0 {
			t.Fatal("the log is read again, or thought to have a place that was given back")
		}
		c.move(mendEvery)
	}
	l.f = real // there is room
	write(t, l, 1)
	if l.f != real {
		t.Error("the log is read again where it is as it is known")
	}
	// Where another file has its place, that is gone on with.
	fill()
	if l.Write(done) == nil || !l.whole {
		t.Fatal("it is recorded on a full disk, or is not known as it is there")
	}
	l.f = real
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(real.Name(), away); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(away)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(real.Name(), was, 0o600); err != nil {
		t.Fatal(err)
	}
	c.move(mendEvery)
	write(t, l, 1)
	if after, err := os.ReadFile(away); err != nil || len(after) != len(was) {
		t.Errorf("it is recorded in a file that is away: %v", err)
	}
}
