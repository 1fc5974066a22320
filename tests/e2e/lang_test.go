package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const wasiC = "clang lld wasi-libc libclang-rt-dev-wasm32"

// guestInC builds a C guest as docs/LANGUAGES.md has it.
func guestInC(t *testing.T, out, source string) string {
	t.Helper()
	return foreign(t, out, wasiC, "clang", "--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Wextra", "-Werror",
		"-I", "wasm/guest/c", source)
}

// TestActorsInC has a Go driver use everything of wray.h, with more actors than
// may have sandboxes at once, so that they sleep and wake.
func TestActorsInC(t *testing.T) {
	module := guestInC(t, "guest.wasm", "tests/e2e/testdata/lang/c/guest.c")
	r := run(t, "", "run", "./tests/e2e/testdata/lang", "--max-resident-actors", "4", "--with", module)
	if r.code != 0 || !strings.HasSuffix(r.stdout, "all right\n") || !strings.Contains(r.stdout, "(nothing) nothing of 2\n") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	t.Run("driver", func(t *testing.T) {
		if r := run(t, "", "run", module); r.code != 3 || r.stdout != "counted to 11\n" {
			t.Errorf("%+v", r)
		}
	})
}

func TestExampleActorC(t *testing.T) {
	module := guestInC(t, "tally.wasm", "examples/actor-c/c/tally.c")
	r := run(t, "", "run", "./examples/actor-c", "--with", module)
	for _, want := range []string{"crc32: cbf43926\n", "words: 10\n", "UserError: tergiversation has 14 letters, the most are 12\n",
		"be: 2 different words: 8 to: 2\n"} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Fatalf("want %q, have exit %d\n%s%s", want, r.code, r.stdout, r.stderr)
		}
	}
}

func TestExampleActorRust(t *testing.T) {
	module := foreign(t, "rolling.wasm", "rustc libstd-rust-dev-wasm32 lld",
		rustc(), "--edition", "2021", "--target", "wasm32-wasi", "--crate-type", "cdylib", "-O", "-C", "strip=debuginfo",
		"examples/actor-rust/rolling.rs")
	r := run(t, "", "run", "./examples/actor-rust", "--with", module)
	want := "mean: 1\nmean: 1.5\nmean: 3\nmean: 39999.5 of 20000\nrefused: "
	if r.code != 0 || !strings.HasPrefix(r.stdout, want) || !strings.Contains(r.stdout, "UserError: the mean of no numbers") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// TestReaderInC gives wray.h's reader of CBOR, built for this machine with the
// sanitizers of addresses and of undefined behaviour, bytes from outside: random
// ones, and good ones with mistakes. What it takes to be an item is written
// again, and must read as the same.
func TestReaderInC(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "reader")
	cmd := exec.Command("gcc", "-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
		"-I", "wasm/guest/c", "-o", bin, "tests/e2e/testdata/lang/reader/reader.c")
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(b), "reader.c:") || strings.Contains(string(b), "wray.h:") {
			t.Fatalf("%v\n%s", err, b)
		}
		t.Skipf("SKIP: it needs gcc with its sanitizers: apt-get install -y gcc libc6-dev\n%v\n%s", err, b)
	}
	seed := rand.Uint64()
	out, err := exec.CommandContext(t.Context(), bin, fmt.Sprint(seed), "20000").CombinedOutput()
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, out)
	}
}

// rustc is Debian's, which has the standard library for WASI; one from
// elsewhere, earlier in the path, has it only where somebody asked for it.
func rustc() string {
	const debians = "/usr/bin/rustc"
	if _, err := os.Stat(debians); err == nil {
		return debians
	}
	return "rustc"
}
