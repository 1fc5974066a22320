package e2e

import (
	"os"
	"testing"
)

// TestSpill: a program that keeps four times what the object store holds, and
// every reference to it, reads all of it, and leaves no file behind.
func TestSpill(t *testing.T) {
	dir := t.TempDir()
	r := run(t, "", "run", "--object-store-memory", "64MiB", "--spill-dir", dir, "--spill-limit", "1GiB", "./tests/e2e/testdata/spill", "--", "64")
	if r.code != 0 || r.stdout != "64 blocks are as they were made\n" {
		t.Errorf("exit %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("files with names: %v, %v", left, err)
	}
}
