// Package testenv is what tests of several packages need of the place where they
// run.
package testenv

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Inputs has the go command run a test again when something below the module's
// root has changed. It keeps results by the files that a test opens itself, and
// does not see what a build reads that the test starts.
func Inputs(t testing.TB) {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) || root == filepath.Dir(root) {
			t.Fatalf("no module around the test: %v", err)
		}
		root = filepath.Dir(root)
	}
	// To read a directory is to depend on the names, sizes and times in it.
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "docs") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
