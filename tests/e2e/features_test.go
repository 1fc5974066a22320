package e2e

import (
	"os/exec"
	"testing"
)

// TestFeatures runs programs twice, in sandboxes and as a native process: they
// must say the same.
func TestFeatures(t *testing.T) { sameInBoth(t, "./tests/e2e/testdata/features") }

// TestObjects does so with one that makes and reads large values.
func TestObjects(t *testing.T) { sameInBoth(t, "./tests/e2e/testdata/objects") }

// TestActors does so with one that uses actors.
func TestActors(t *testing.T) { sameInBoth(t, "-race", "./tests/e2e/testdata/actors") }

// sameInBoth runs a program, the last of args, which are those of go run.
func sameInBoth(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run"}, args...)...)
	cmd.Dir = root
	native, err := cmd.Output()
	if err != nil {
		t.Fatalf("native: %v\n%s", err, native)
	}
	r := run(t, "", "run", args[len(args)-1])
	if r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r.stdout != string(native) {
		t.Errorf("in sandboxes:\n%s\nnatively:\n%s", r.stdout, native)
	}
}
