package local

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func names(t *testing.T, p *Provider) (list []string) {
	t.Helper()
	all, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		list = append(list, x.Name)
	}
	slices.Sort(list)
	return list
}

func await(t *testing.T, p *Provider, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got := names(t, p)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %v, want %v", got, want)
		}
	}
}

// TestProvider starts processes, stops them, gives their names to others, and
// leaves nothing behind.
func TestProvider(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nodes")
	if err := os.MkdirAll(filepath.Join(dir, "left-by-another"), 0o700); err != nil {
		t.Fatal(err)
	}
	var refuse error
	script := "sleep 1000"
	p, err := New(Config{Prefix: "g", Dir: dir, Drain: time.Minute, Command: func(context.Context, string, string) (*exec.Cmd, error) {
		return exec.Command("sh", "-c", "exec "+script), refuse
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(false)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if err := p.Start(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-0", "g-1", "g-2")
	if err := p.Stop(t.Context(), []string{"g-1", "nobody"}); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-0", "g-2")
	script = "true" // one that ends by itself
	if err := p.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-0", "g-2")
	// One that does not go when it is told is killed when it is told again.
	trapped := filepath.Join(t.TempDir(), "trapped")
	script = `sh -c 'trap "" TERM; touch "$0"; while :; do sleep 0.1; done' ` + trapped
	if err := p.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-0", "g-1", "g-2")
	for {
		if _, err := os.Stat(trapped); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.cfg.Drain = 0
	for range 2 {
		if err := p.Stop(t.Context(), []string{"g-1"}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, p, "g-0", "g-2")
	p.cfg.Drain = time.Minute
	refuse = errors.New("no token")
	if err := p.Start(t.Context(), 1); !errors.Is(err, refuse) {
		t.Errorf("a start that fails: %v", err)
	}
	if err := p.Close(true); err != nil {
		t.Fatal(err)
	}
	if got := names(t, p); len(got) > 0 {
		t.Errorf("%v are left", got)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
	if err := errors.Join(p.Close(true), p.Close(false)); err != nil {
		t.Error(err)
	}
	refuse = nil
	if err := p.Start(t.Context(), 1); err == nil {
		t.Error("it starts what nobody would end")
	}
}

// TestOrphans has a node go on whose provider is not there any more, as after a
// kill: another provider leaves what it has, and its name, until it has ended.
func TestOrphans(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nodes")
	command := func(context.Context, string, string) (*exec.Cmd, error) { return exec.Command("sleep", "1000"), nil }
	cfg := Config{Prefix: "g", Dir: dir, Drain: time.Minute, Command: command}
	old, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close(false)
	if err := old.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	// What dies with a process are its descriptors.
	old.mu.Lock()
	for _, x := range old.procs {
		x.log.Close()
	}
	first := old.procs["g-0"]
	old.mu.Unlock()
	kept := filepath.Join(dir, "g-0", "keys")
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), os.Mkdir(filepath.Join(dir, "g-7"), 0o700)); err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(false)
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("what a node has that runs: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "g-7")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a node has left: %v", err)
	}
	if err := p.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-2")
	if err := old.Stop(t.Context(), []string{"g-0"}); err != nil {
		t.Fatal(err)
	}
	<-first.ended
	if err := p.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	await(t, p, "g-0", "g-2")
	if err := p.Close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "g-1", logFile)); err != nil {
		t.Errorf("what a node has that runs: %v", err)
	}
	if err := old.Close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
}
