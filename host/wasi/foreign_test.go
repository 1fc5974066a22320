package wasi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

// TestSuite runs the WebAssembly community's wasi-testsuite, prebuilt, where
// WASI_TESTSUITE names a checkout of its branch prod/testsuite-base.
func TestSuite(t *testing.T) {
	dir := os.Getenv("WASI_TESTSUITE")
	if dir == "" {
		t.Skip("SKIP: WASI_TESTSUITE names no checkout of wasi-testsuite")
	}
	files, err := filepath.Glob(filepath.Join(dir, "tests", "*", "testsuite", "wasm32-wasip1", "*.wasm"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(file))))+"/"+filepath.Base(file), func(t *testing.T) {
			var spec struct {
				Args     []string
				Env      map[string]string
				Root     string
				ExitCode uint32 `json:"exit_code"`
				Stdout   *string
			}
			if b, err := os.ReadFile(strings.TrimSuffix(file, ".wasm") + ".json"); err == nil {
				if err := json.Unmarshal(b, &spec); err != nil {
					t.Fatal(err)
				}
			}
			wasm, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, _ := config()
			cfg.Args = append([]string{filepath.Base(file)}, spec.Args...)
			for _, k := range slices.Sorted(maps.Keys(spec.Env)) {
				cfg.Env = append(cfg.Env, k+"="+spec.Env[k])
			}
			if spec.Root != "" {
				root := t.TempDir()
				if err := os.CopyFS(root, os.DirFS(filepath.Join(filepath.Dir(file), spec.Root))); err != nil {
					t.Fatal(err)
				}
				cfg.Dirs = []wasi.Dir{grant(t, "/", root)}
			}
			code, out, errs := command(t, compile(t, wasm), cfg)
			if code != spec.ExitCode || spec.Stdout != nil && out != *spec.Stdout {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, spec.ExitCode, out, errs)
			}
		})
	}
}

// TestToolchains runs commands that other toolchains made (Rust, Zig, C with
// wasi-libc, TinyGo), which the module of wazero carries.
func TestToolchains(t *testing.T) {
	b, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	testdata := filepath.Join(strings.TrimSpace(string(b)), "imports", "wasi_snapshot_preview1", "testdata")
	dir := t.TempDir()
	tree(t, dir, "dir/-", "dir/a-/", "dir/ab-/", "empty/")
	var tons []string
	for i := range 1000 {
		tons = append(tons, fmt.Sprintf("./%d", i))
		tree(t, dir, fmt.Sprintf("tons/%d", i))
	}
	slices.Sort(tons)
	for _, name := range []string{"cargo-wasi", "zig-cc", "zig", "tinygo"} {
		t.Run(name, func(t *testing.T) {
			wasm, err := os.ReadFile(filepath.Join(testdata, name, "wasi.wasm"))
			if err != nil {
				t.Skipf("SKIP: %v", err)
			}
			mod := compile(t, wasm)
			do := func(root string, change func(*wasi.Config), args ...string) (lines []string) {
				t.Helper()
				cfg, _ := config()
				cfg.Args = append([]string{"wasi"}, args...)
				d := grant(t, "/", filepath.Join(dir, root))
				d.ReadOnly = args[0] == "ls"
				cfg.Dirs = []wasi.Dir{d}
				if change != nil {
					change(cfg)
				}
				code, out, errs := command(t, mod, cfg)
				if code != 0 {
					t.Errorf("%v: exit code %d: %s", args, code, errs)
				}
				for line := range strings.Lines(out + errs) {
					if line != "./.\n" && line != "./..\n" { // some list these, some do not
						lines = append(lines, strings.TrimSuffix(line, "\n"))
					}
				}
				return lines
			}
			sorted := func(lines []string) []string {
				slices.Sort(lines)
				return lines
			}
			same := func(what string, got []string, want ...string) {
				t.Helper()
				if !slices.Equal(got, want) {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			same("ls", sorted(do("dir", nil, "ls", ".")), "./-", "./a-", "./ab-")
			same("ls of nothing", do("dir", nil, "ls", "./a-"))
			same("ls of a file", do("dir", nil, "ls", "-"), "ENOTDIR")
			same("ls of much", sorted(do("tons", nil, "ls", ".")), tons...)
			if name != "tinygo" { // its directories cannot be read twice
				same("ls twice", sorted(do("dir", nil, "ls", ".", "repeat")), "./-", "./-", "./a-", "./a-", "./ab-", "./ab-")
			}
			same("stat", do("dir", nil, "stat"), "stdin isatty: false", "stdout isatty: false", "stderr isatty: false", "/ isatty: false")
			switch name {
			case "zig":
				same("preopen", do("dir", nil, "preopen"), "0: stdin", "1: stdout", "2: stderr", "3: /")
			case "zig-cc":
				same("sleep", do("dir", nil, "sleepmillis", "30"), "OK")
				same("poll, ready", do("dir", nil, "poll", "10"), "STDIN")
				same("poll, not ready", do("dir", func(c *wasi.Config) { c.Stdin = &queue{} }, "poll", "0", "30"), "NOINPUT")
				same("O_RDONLY", do("empty", nil, "open-rdonly"), "OK")
				same("O_WRONLY", do("empty", nil, "open-wronly"), "OK")
			}
		})
	}
}
