package worker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/sandbox"
)

// TestNeverCompiles gives a worker with a code cache jobs whose compiled code
// is missing, has another name, or is another module's: it refuses them and
// leaves the cache as it was. What is not in the cache is the node's to have
// made.
func TestNeverCompiles(t *testing.T) {
	ctx := context.Background()
	out, cache := t.TempDir(), t.TempDir()
	options := sandbox.CompileOptions{Modules: []sandbox.HostModule{HostModule()}}
	if err := sandbox.Compile(ctx, tinyGuest(), out, options); err != nil {
		t.Fatal(err)
	}
	a, err := sandbox.Rewrite(tinyGuest(), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.InitCache(ctx, cache); err != nil {
		t.Fatal(err)
	}
	w, err := New(ctx, Config{CacheDir: cache, Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	run := func(native string) (int, error) {
		return w.Run(ctx, JobSpec{Name: "tiny", Modules: []ModuleSpec{{Name: "tiny", Artifact: a, Native: native}}})
	}
	empty := tree(t, cache)
	for _, native := range []string{"", filepath.Join(cache, "missing"), cache} {
		if code, err := run(native); err == nil {
			t.Errorf("a job with the code %q ran and gave %d", native, code)
		}
		if now := tree(t, cache); now != empty {
			t.Fatalf("with the code %q the cache became\n%s", native, now)
		}
	}

	// With the code in its place the same job runs, and makes nothing either.
	entries, err := filepath.Glob(filepath.Join(out, sandbox.NativeDir, "*", "*"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("compiled code: %v, %v", entries, err)
	}
	dirs, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("cache directories: %v, %v", dirs, err)
	}
	native := filepath.Join(dirs[0], filepath.Base(entries[0]))
	code, err := os.ReadFile(entries[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{filepath.Join(dirs[0], strings.Repeat("0", 64)), filepath.Join(cache, filepath.Base(native))} {
		if err := os.WriteFile(other, code, 0o600); err != nil {
			t.Fatal(err)
		}
		before := tree(t, cache)
		if code, err := run(other); err == nil {
			t.Errorf("a job with its code under the name %s ran and gave %d", other, code)
		}
		if now := tree(t, cache); now != before {
			t.Fatalf("the cache became\n%s", now)
		}
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(native, code, 0o600); err != nil {
		t.Fatal(err)
	}
	full := tree(t, cache)
	if code, err := run(native); err != nil || code != 0 {
		t.Errorf("with its code in place the job gave %d, %v", code, err)
	}
	if now := tree(t, cache); now != full {
		t.Errorf("the cache became\n%s", now)
	}
}

// tree lists the files of a directory and what lies below.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(path + " " + fi.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
