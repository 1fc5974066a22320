package statelog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/wray-project/wray/host/statelog"
)

// BenchmarkCommit commits 2 KB, what a small actor is, to a real disk; beside
// it the same bytes are written and synced with nothing else.
func BenchmarkCommit(b *testing.B) {
	payload := make([]byte, 2<<10)
	b.Run("log", func(b *testing.B) {
		d, err := statelog.OpenDir(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		files, err := d.Open("bench")
		if err != nil {
			b.Fatal(err)
		}
		l, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		for b.Loop() {
			if err := l.Commit(statelog.Change{Payload: payload}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write and sync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.Write(payload); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestDir opens and locks.
func TestDir(t *testing.T) {
	path := t.TempDir()
	d, err := statelog.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := statelog.OpenDir(path); err == nil {
		t.Error("two have one directory")
	}
	files, err := d.Open("../../a name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("../../a name"); err == nil {
		t.Error("an actor's files are opened twice")
	}
	if err := d.Remove("../../a name", false); err == nil {
		t.Error("somebody else's files are removed")
	}
	for _, f := range files {
		rel, err := filepath.Rel(path, f.Name())
		if info, serr := f.Stat(); err != nil || serr != nil || filepath.Dir(rel) != "actors" || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), err, serr)
		}
		f.Close()
	}
	if err := d.Remove("../../a name", true); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(path, "actors")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, name := range []string{"", fmt.Sprint(make([]byte, 2000))} {
		if _, err := d.Open(name); err == nil {
			t.Errorf("a name of %d bytes", len(name))
		}
	}
	// A link in the place of a file is not followed.
	files, err = d.Open("linked")
	if err != nil {
		t.Fatal(err)
	}
	at := files[0].Name()
	files[0].Close()
	files[1].Close()
	d.Release("linked")
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", at); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("linked"); err == nil {
		t.Error("a link is followed")
	}
	// Nobody has what could not be opened.
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	if files, err = d.Open("linked"); err != nil {
		t.Errorf("after an open that failed: %v", err)
	} else {
		files[0].Close()
		files[1].Close()
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if d, err = statelog.OpenDir(path); err != nil {
		t.Errorf("after it was closed: %v", err)
	} else {
		d.Close()
	}
}
