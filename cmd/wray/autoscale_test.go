package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/member"
)

// TestReadGroups holds that a head which is back is one, and has the groups of the
// last time, wherever it is started.
func TestReadGroups(t *testing.T) {
	dir, at := t.TempDir(), t.TempDir()
	t.Chdir(at)
	if err := os.WriteFile("groups.yaml", []byte("groups: [{name: a, provider: local, max: 1, cpus: 1}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(path string, given bool) (*scaling, error) {
		return readGroups(path, given, &clusterOptions{name: "n", dir: dir})
	}
	has := func(path string, given, want bool) *scaling {
		t.Helper()
		s, err := read(path, given)
		if err != nil {
			t.Fatal(err)
		}
		if (s.conf != nil) != want {
			t.Errorf("--autoscale=%s, given: %v: %+v", path, given, s)
		}
		return s
	}
	fails := func(path string, given bool, says string) {
		t.Helper()
		if _, err := read(path, given); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--autoscale=%s, given: %v: %v, want %q", path, given, err, says)
		}
	}
	fails("groups.yaml", true, "for heads")
	has("", false, false)
	// It has been a head.
	control := filepath.Join(dir, member.ControlDir)
	for path, text := range map[string]string{filepath.Join(dir, auth.NodeFile): "", filepath.Join(control, etcdFile): `{"endpoints": ["127.0.0.1:1"]}`} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has("", false, false)
	if err := has("groups.yaml", true, true).remember(); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := has("", false, true).remember(); err != nil {
		t.Fatal(err)
	}
	has("", false, true)
	if err := os.Rename(filepath.Join(at, "groups.yaml"), filepath.Join(at, "other")); err != nil {
		t.Fatal(err)
	}
	fails("", false, "groups.yaml")
	if err := has("", true, false).remember(); err != nil {
		t.Fatal(err)
	}
	has("", false, false)
}
