package isolation

import (
	"os"
	"os/exec"
	"testing"
)

// goCommand runs the go command for WASI.
func goCommand(t testing.TB, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
