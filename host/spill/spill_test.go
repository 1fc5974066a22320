package spill

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
)

func disk(t *testing.T, limit int64, dirs ...string) *Dirs {
	t.Helper()
	o, err := NewOpener(dirs)
	if err != nil {
		t.Fatal(err)
	}
	if limit == 0 {
		limit = 1 << 40
	}
	return NewDirs(o.Dirs(), limit, o.Open)
}

func TestDirs(t *testing.T) {
	dir := t.TempDir()
	storetest.RunDisk(t, func(t *testing.T, limit int64) objectstore.Disk { return disk(t, limit, dir) })
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files with names: %v, %v", left, err)
	}
}

func write(t *testing.T, d *Dirs, n int) (objectstore.Batch, error) {
	t.Helper()
	b, err := d.Create(int64(n))
	if err != nil {
		return nil, err
	}
	if _, err := b.Write(make([]byte, n)); err != nil {
		b.Remove()
		return nil, err
	}
	return b, b.Seal()
}

// TestNextDirectory: a directory that is gone, or full, is left out, and the
// error of the last names them all.
func TestNextDirectory(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	d := disk(t, 0, a, b)
	var have []objectstore.Batch
	for range 4 {
		x, err := write(t, d, 1000)
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, x)
	}
	if err := os.RemoveAll(a); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		x, err := write(t, d, 1000)
		if err != nil {
			t.Fatalf("with a directory left: %v", err)
		}
		have = append(have, x)
	}
	if err := os.RemoveAll(b); err != nil {
		t.Fatal(err)
	}
	_, err := write(t, d, 1000)
	if !errors.Is(err, objectstore.ErrDiskFull) || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Errorf("without a directory: %v", err)
	}
	for _, x := range have {
		x.Remove()
	}
}

// TestFailedWrite: a write that fails sends the next batch elsewhere.
func TestFailedWrite(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	o, err := NewOpener([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDirs(o.Dirs(), 1<<30, func(dir int) (*os.File, error) {
		if dir == 0 { // every write to it fails with ENOSPC
			return os.OpenFile("/dev/full", os.O_RDWR, 0)
		}
		return o.Open(dir)
	})
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full here")
	}
	if _, err := write(t, d, 1000); err == nil {
		t.Fatal("a full disk took a batch")
	}
	for range 3 {
		x, err := write(t, d, 1000)
		if err != nil {
			t.Fatal(err)
		}
		x.Remove()
	}
	if d.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing", d.Used())
	}
}

// TestSweep: what a process that died has left goes, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for name, size := range map[string]int{prefix + "1": 0, prefix + "2": 1, "other": 0} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, prefix+"3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	disk(t, 0, dir)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%d files are left, %v: expected all but the old empty one", len(left), err)
	}
}
