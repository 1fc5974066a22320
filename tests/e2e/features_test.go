package e2e

import (
	"os/exec"
	"testing"
)

// TestFeatures runs one program twice, in sandboxes and as a native process:
// it must say the same.
func TestFeatures(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./tests/e2e/testdata/features")
	cmd.Dir = root
	native, err := cmd.Output()
	if err != nil {
		t.Fatalf("native: %v\n%s", err, native)
	}
	r := run(t, "", "run", "./tests/e2e/testdata/features")
	if r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r.stdout != string(native) {
		t.Errorf("in sandboxes:\n%s\nnatively:\n%s", r.stdout, native)
	}
}
