package spill

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
)

// host returns a host of directories, closed with the test.
func host(t *testing.T, limit int64, dirs ...string) *Host {
	t.Helper()
	var places []Place
	for _, dir := range dirs {
		d, err := OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, d)
	}
	if limit == 0 {
		limit = 1 << 40
	}
	h := NewHost(places, limit)
	t.Cleanup(h.Close)
	return h
}

func disk(t *testing.T, limit int64, dirs ...string) *Disk {
	t.Helper()
	return NewDisk(host(t, limit, dirs...).Call)
}

func TestDirs(t *testing.T) {
	dir := t.TempDir()
	storetest.RunDisk(t, func(t *testing.T, limit int64) objectstore.Disk { return disk(t, limit, dir) })
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files with names: %v, %v", left, err)
	}
}

func write(t *testing.T, d *Disk, n int) (objectstore.Batch, error) {
	t.Helper()
	b, err := d.Create(int64(n))
	if err != nil {
		return nil, err
	}
	if _, err := b.Write(make([]byte, n)); err != nil {
		b.Remove()
		return nil, err
	}
	if err := b.Seal(); err != nil {
		b.Remove()
		return nil, err
	}
	return b, nil
}

// TestNextDirectory: a directory that is gone, or full, is left out, and the
// error of the last names them all.
// Batches take descriptors of a share, whose end is an error that names them, and
// which come back: with a batch, and with the host of a worker that is dead.
func TestDescriptorsOfBatches(t *testing.T) {
	b := fd.NewBudget(8)
	h := host(t, 1<<20, t.TempDir()).Holding(b.Share("tenant x"))
	var last uint64
	for range 4 {
		r, f, err := h.Serve(t.Context(), Request{Op: OpCreate, N: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		last = r.Batch
	}
	_, _, err := h.Serve(t.Context(), Request{Op: OpCreate, N: 1}, nil)
	if !errors.Is(err, objectstore.ErrDiskFull) || !errors.Is(err, wray.ErrLimitExceeded) || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("the fifth batch: %v", err)
	}
	if _, _, err := h.Serve(t.Context(), Request{Op: OpRemove, Batch: last}, nil); err != nil {
		t.Error(err)
	}
	if b.Used() != 3 {
		t.Errorf("%d are held by 3 batches", b.Used())
	}
	h.Close()
	if b.Used() != 0 {
		t.Errorf("%d are held when the worker is dead", b.Used())
	}
}

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

// fullPlace takes batches, and then none of their bytes.
type fullPlace struct{ *Dir }

func (p fullPlace) Create(n int64) (Pen, error) {
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0) // every write fails with ENOSPC
	return &filePen{dir: p.path, file: f}, err
}

// TestFailedWrite: a write that fails sends the next batch elsewhere.
func TestFailedWrite(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full here")
	}
	h := host(t, 0, t.TempDir(), t.TempDir())
	h.places[1] = fullPlace{h.places[1].(*Dir)} // the first to be taken
	d := NewDisk(h.Call)
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
	if d.Used() != 0 || h.Used() != 0 {
		t.Errorf("%d bytes are taken by nothing, %d where they are kept", d.Used(), h.Used())
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
