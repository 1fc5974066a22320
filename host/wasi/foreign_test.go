package wasi_test

import (
	"encoding/json"
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
		t.Skip("WASI_TESTSUITE names no checkout of wasi-testsuite")
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

var _ = exec.Command
