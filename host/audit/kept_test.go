package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestCut cuts logs off in front and at the end, empties, renames and writes them
// anew.
func TestCut(t *testing.T) {
	write := func(who string) (dir string, names []string) {
		dir = t.TempDir()
		l, err := Open(dir, Options{File: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			if err := l.Write(Event{Who: who, Action: fmt.Sprint("x", i), Decision: Allowed}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if names, err = files(dir); err != nil || len(names) != 6 {
			t.Fatalf("%d files, %v", len(names), err)
		}
		// Records 1 to 3 in one file, 4 to 6 in another.
		for _, at := range []int{0, 3} {
			var b []byte
			for _, n := range names[at : at+3] {
				one, err := os.ReadFile(filepath.Join(dir, n))
				if err == nil {
					b = append(b, one...)
					err = os.Remove(filepath.Join(dir, n))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, names[at]), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir, []string{filepath.Join(dir, names[0]), filepath.Join(dir, names[3])}
	}
	whole, _ := write("ann")
	v, err := Verify(whole)
	if err != nil || v.Last != 6 {
		t.Fatalf("%+v, %v", v, err)
	}
	cut := func(path string, from, to int) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Join(bytes.SplitAfter(b, []byte("\n"))[from:to], nil), 0o600)
	}
	for _, c := range []struct {
		what       string
		do         func(names []string) error
		seen, kept bool // without a hash that was kept, and with one
	}{
		{"nothing is done to", func([]string) error { return nil }, false, false},
		{"its first record is gone from", func(n []string) error { return cut(n[0], 1, 3) }, true, true},
		{"the first record of a later file is gone from", func(n []string) error { return cut(n[1], 1, 3) }, true, true},
		{"the first file is emptied in", func(n []string) error { return os.Truncate(n[0], 0) }, true, true},
		{"the first file is gone, and the next renamed, in", func(n []string) error { return os.Rename(n[1], n[0]) }, true, true},
		{"all but the name of the last file is gone in", func(n []string) error { return errors.Join(os.Remove(n[0]), os.Truncate(n[1], 0)) }, true, true},
		{"its last record is gone from", func(n []string) error { return cut(n[1], 0, 2) }, false, true},
		{"all records are gone from", func(n []string) error { return errors.Join(os.Remove(n[1]), os.Truncate(n[0], 0)) }, false, true},
	} {
		dir, names := write("ann")
		v, err := Verify(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(names); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir); (err != nil) != c.seen {
			t.Errorf("%s a log: %v", c.what, err)
		}
		if _, err := VerifyKept(dir, v.Last, v.Hash); (err != nil) != c.kept {
			t.Errorf("%s a log, of which a hash was kept: %v", c.what, err)
		}
	}
	// Another log that holds together is not the one of the hash; of a file that is
	// elsewhere the next has the last one's hash.
	other, names := write("eve")
	if _, err := VerifyKept(other, v.Last, v.Hash); !errors.Is(err, errBroken) {
		t.Errorf("a log that was written anew: %v", err)
	}
	first, err := Verify(names[0])
	if err == nil {
		err = os.Remove(names[0])
	}
	if err == nil {
		_, err = VerifyKept(other, first.Last, first.Hash)
	}
	if err != nil {
		t.Errorf("the rest of a log whose first file was moved: %v", err)
	}
}
