package wasi_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

var goPackages = flag.String("gostd", "io/fs,path/filepath,bufio,os", "packages of Go's library whose own tests to run as guests")
var goRun = flag.String("gostd.run", "", "-test.run for them")

// TestGoStandardLibrary runs the tests of packages of Go's library, built for
// wasip1, with GOROOT granted read-only and a directory for temporary files.
func TestGoStandardLibrary(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("SKIP: it builds and compiles large test binaries, which takes minutes under the race detector")
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	goroot := strings.TrimSpace(string(out))
	for _, pkg := range strings.Split(*goPackages, ",") {
		t.Run(pkg, func(t *testing.T) {
			mod := compile(t, build(t, "test", "-c", pkg))
			cfg, _ := config()
			src := grant(t, goroot, goroot)
			src.ReadOnly = true
			root := t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "tmp"), 0o777); err != nil {
				t.Fatal(err)
			}
			cfg.Dirs = []wasi.Dir{grant(t, "/", root), src}
			cfg.Args = []string{filepath.Base(pkg) + ".test", "-test.short", "-test.v", "-test.run=" + *goRun,
				"-test.skip=DevNull"} // no device is ever granted
			cfg.Env = []string{
				"PWD=" + filepath.Join(goroot, "src", filepath.FromSlash(pkg)),
				"GOROOT=" + goroot, "TMPDIR=/tmp", "HOME=/tmp",
			}
			cfg.Limits.MaxFiles = 4096 // the tests of os close some files only when they are collected
			cfg.Resolution = 1
			code, stdout, stderr := command(t, mod, cfg)
			count := func(s string) int { return strings.Count(stdout, "\n"+s) }
			t.Logf("%s: %d passed, %d skipped, %d failed (top level)", pkg,
				count("--- PASS"), count("--- SKIP"), count("--- FAIL"))
			if code != 0 {
				t.Errorf("exit code %d\n%s\n%s", code, failures(stdout), stderr)
			}
		})
	}
}

// failures returns what the tests that failed have printed.
func failures(out string) string {
	var b, test strings.Builder
	for line := range strings.Lines(out) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "=== RUN") || strings.HasPrefix(trimmed, "=== CONT") {
			test.Reset()
		}
		test.WriteString(line)
		if strings.HasPrefix(trimmed, "--- ") || strings.HasPrefix(trimmed, "panic: ") || strings.HasPrefix(trimmed, "fatal ") {
			if !strings.HasPrefix(trimmed, "--- PASS") && !strings.HasPrefix(trimmed, "--- SKIP") {
				b.WriteString(test.String())
			}
			test.Reset()
		}
	}
	return b.String()
}
