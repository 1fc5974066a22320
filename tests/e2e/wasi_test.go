package e2e

import (
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreign builds a program of another language. packages are Debian's, which
// make test installs where it can.
func foreign(t *testing.T, out, packages string, command ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), out)
	cmd := exec.Command(command[0], append(command[1:], "-o", file)...)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIP: it needs a compiler for WASI: apt-get install -y --no-install-recommends %s\n%s: %v\n%s",
			packages, strings.Join(command, " "), err, b)
	}
	return file
}

// TestC runs examples/wasi-c.
func TestC(t *testing.T) {
	module := foreign(t, "crc.wasm", wasiC,
		"clang", "--target=wasm32-wasi", "-O2", "examples/wasi-c/crc.c")
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(crc32.ChecksumIEEE(text))
	if r := run(t, string(text), "run", "--env", "CRC_FORMAT=dec", module); r.code != 0 || !strings.HasPrefix(r.stdout, want+" ") {
		t.Errorf("standard input: %+v, want %s", r, want)
	}
	if r := run(t, "", "run", "--env", "CRC_FORMAT=dec", "--dir", root+":/in:ro", module, "--", "/in/README.md"); r.code != 0 || !strings.HasPrefix(r.stdout, want+" ") {
		t.Errorf("a file: %+v, want %s", r, want)
	}
	if r := run(t, "", "run", module, "--", "/in/README.md"); r.code == 0 || r.stdout != "" || r.stderr == "" {
		t.Errorf("a file that was not granted: %+v", r)
	}
}

// TestRust runs examples/wasi-rust.
func TestRust(t *testing.T) {
	module := foreign(t, "freq.wasm", "rustc libstd-rust-dev-wasm32 lld",
		rustc(), "--target", "wasm32-wasi", "-O", "examples/wasi-rust/freq.rs")
	if r := run(t, "hello world\n", "run", "--env", "FREQ_TOP=2", module); r.code != 0 || r.stdout != "3 l\n2 o\n" {
		t.Errorf("standard input: %+v", r)
	}
	if r := run(t, "", "run", "--env", "FREQ_TOP=x", module); r.code != 2 || !strings.Contains(r.stderr, "FREQ_TOP") {
		t.Errorf("bad variable: %+v", r)
	}
	if r := run(t, "", "run", module, "--", "/etc/passwd"); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "/etc/passwd") {
		t.Errorf("a file that was not granted: %+v", r)
	}
}
