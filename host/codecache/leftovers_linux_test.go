package codecache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLeftovers installs what a compiler that a module has taken over could leave
// in its directory. Nothing but two plain files is taken, each with one name, and
// nothing of another unit changes. Empty directories are let go with the rest.
func TestLeftovers(t *testing.T) {
	c := openCache(t, noCompiler(testConfig(t.TempDir())))
	dir, err := c.Dir("tenant")
	if err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("another unit's"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := "wazero-v1/" + strings.Repeat("a", 64)
	good := func(out string) error {
		native := filepath.Join(out, nativeDir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(native), 0o700), os.WriteFile(native, []byte("code"), 0o600),
			os.WriteFile(filepath.Join(out, artifactFile), []byte("artifact"), 0o600))
	}
	again := func(out, rel string, make func(path string) error) error {
		path := filepath.Join(out, rel)
		return errors.Join(good(out), os.RemoveAll(path), make(path))
	}
	for _, tc := range []struct {
		name string
		do   func(out string) error
	}{
		{"the directory of code is a link", func(out string) error {
			return again(out, nativeDir, func(p string) error { return os.Symlink(dir, p) })
		}},
		{"the engine's directory is a link", func(out string) error {
			return again(out, nativeDir+"/wazero-v1", func(p string) error { return os.Symlink(dir, p) })
		}},
		{"the code is a link", func(out string) error {
			return again(out, nativeDir+"/"+name, func(p string) error { return os.Symlink(victim, p) })
		}},
		{"the artifact is a link", func(out string) error {
			return again(out, artifactFile, func(p string) error { return os.Symlink(victim, p) })
		}},
		{"the artifact is another's file", func(out string) error {
			return again(out, artifactFile, func(p string) error { return os.Link(victim, p) })
		}},
		{"code and artifact are one file", func(out string) error {
			return again(out, artifactFile, func(p string) error { return os.Link(filepath.Join(out, nativeDir, name), p) })
		}},
		{"the artifact is a pipe", func(out string) error {
			return again(out, artifactFile, func(p string) error { return syscall.Mkfifo(p, 0o600) })
		}},
		{"the artifact is a directory", func(out string) error {
			return again(out, artifactFile, func(p string) error { return os.Mkdir(p, 0o700) })
		}},
		{"the code is a hole", func(out string) error {
			return errors.Join(good(out), os.Truncate(filepath.Join(out, nativeDir, name), maxNative+1))
		}},
		{"many files", func(out string) error {
			err := good(out)
			for i := 0; i < 20_000 && err == nil; i++ {
				err = os.WriteFile(filepath.Join(out, nativeDir, fmt.Sprint(i)), nil, 0o600)
			}
			return err
		}},
		{"deep directories", func(out string) error {
			return errors.Join(good(out), os.MkdirAll(filepath.Join(out, nativeDir, strings.Repeat("d/", 1500)), 0o700))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out := filepath.Join(dir, "compile-1")
			if err := os.Mkdir(out, 0o700); err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(out)
			if err := tc.do(out); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			e, err := c.install(c.unit("tenant", dir, []byte(tc.name)), out)
			t.Logf("%+v, %v, after %v", e, err, time.Since(began))
			if err == nil && tc.name != "deep directories" {
				t.Errorf("was taken: %+v", e)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "another unit's" {
				t.Fatalf("the other unit's file is %q, %v", b, err)
			}
		})
	}
}
