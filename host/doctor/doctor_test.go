package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestRun(t *testing.T) {
	checks := Run(t.Context(), Options{CacheDir: filepath.Join(t.TempDir(), "cache")})
	seen := map[string]bool{}
	for _, c := range checks {
		t.Logf("%-18s %-4s %s", c.Name, c.Status, c.Detail)
		if seen[c.Name] {
			t.Errorf("%s: twice", c.Name)
		}
		seen[c.Name] = true
		switch c.Status {
		case OK:
			if c.Remedy != "" {
				t.Errorf("%s: nothing is wrong, but the remedy is %q", c.Name, c.Remedy)
			}
		case Warn, Fail:
			if c.Remedy == "" {
				t.Errorf("%s: %s without a remedy", c.Name, c.Status)
			}
		default:
			t.Errorf("%s: status %q", c.Name, c.Status)
		}
		if c.Detail == "" {
			t.Errorf("%s: no detail", c.Name)
		}
		if _, err := json.Marshal(c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	want := []string{"cpus", "go", "cache directory", "gpu"}
	if runtime.GOOS == "linux" {
		want = append(want, "kernel", "memfd", "landlock", "seccomp", "namespaces", "cgroups",
			"vm.max_map_count", "open files", "memory", "huge pages", "populate")
	}
	for _, name := range want {
		if !seen[name] {
			t.Errorf("no check %q", name)
		}
	}
}

func TestFailed(t *testing.T) {
	if Failed([]Check{{Status: OK}, {Status: Warn}}) {
		t.Error("a warning counts as a failure")
	}
	if !Failed([]Check{{Status: OK}, {Status: Fail}}) {
		t.Error("a failure is not seen")
	}
}

func TestGoToolchainMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if c := goToolchain(t.Context()); c.Status != Warn || c.Remedy == "" {
		t.Errorf("%+v", c)
	}
}

func TestMinorVersion(t *testing.T) {
	for v, want := range map[string]int{"go1.26": 26, "go1.26.1": 26, "go1.9rc1": 9, "devel": -1, "go1.x": -1, "": -1} {
		got, known := minorVersion(v)
		if !known {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", v, got, want)
		}
	}
}

func TestCacheDir(t *testing.T) {
	dir := t.TempDir()
	t.Run("made private", func(t *testing.T) {
		d := filepath.Join(dir, "a", "b")
		if c := cacheDir(d); c.Status != OK {
			t.Errorf("%+v", c)
		}
		left, err := os.ReadDir(d)
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	t.Run("open to others", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("SKIP: file modes are not kept on Windows")
		}
		d := filepath.Join(dir, "open")
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if c := cacheDir(d); c.Status != Warn {
			t.Errorf("%+v", c)
		}
	})
	t.Run("not a directory", func(t *testing.T) {
		f := filepath.Join(dir, "file")
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if c := cacheDir(f); c.Status != Fail {
			t.Errorf("%+v", c)
		}
	})
}

func TestGPUs(t *testing.T) {
	dev := t.TempDir()
	if c := gpus(dev); c.Status != OK || c.Detail != "no device nodes of GPUs" {
		t.Errorf("%+v", c)
	}
	if err := os.WriteFile(filepath.Join(dev, "nvidia0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := gpus(dev); c.Status != OK || c.Detail != filepath.Join(dev, "nvidia0") {
		t.Errorf("%+v", c)
	}
}
