package worker

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
)

// ownDir is a directory of states in the process that uses it.
type ownDir struct{ *statelog.Dir }

func (d ownDir) Remove(name string) error { return d.Dir.Remove(name, true) }

// runDurable runs the program durable in a worker of its own, as a node does
// that is started anew each time, and returns what it printed.
func runDurable(t *testing.T, guest compiled, dir string, args ...string) (string, error) {
	t.Helper()
	if dir == "" {
		return runDurableIn(t, guest, nil, nil, args...)
	}
	d, err := statelog.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return runDurableIn(t, guest, ownDir{d}, nil, args...)
}

// runDurableIn is runDurable with any directory. printed, unless it is nil, is
// given what the program prints as it does.
func runDurableIn(t *testing.T, guest compiled, state StateDir, printed func([]byte), args ...string) (string, error) {
	t.Helper()
	ctx := context.Background()
	cfg := Config{State: state, CacheDir: guest.cache, Slots: 2, Residents: 2, Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}}
	w, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	var mu sync.Mutex
	var said strings.Builder // guarded by mu
	code, err := w.Run(ctx, JobSpec{Name: "durable", Args: args, Modules: []ModuleSpec{guest.module},
		Output: func(_ string, _ Stream, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			said.Write(p)
			if printed != nil {
				printed(p)
			}
		}})
	mu.Lock()
	defer mu.Unlock()
	if err != nil || code != 0 {
		t.Logf("%v: exit %d, %v\n%s", args, code, err, said.String())
		if err == nil {
			err = wray.Errorf(wray.CodeExit, "exit %d", code)
		}
	}
	st := w.Stats()
	if st.Store.Objects != 0 || st.Store.Used != 0 || st.Store.Windows != 0 || st.AsleepBytes != 0 {
		t.Errorf("%v left behind: store %+v, %d bytes of states", args, st.Store, st.AsleepBytes)
	}
	return said.String(), err
}

// TestDurable has a durable actor go on in one worker where it was in another.
func TestDurable(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "durable")
	dir := t.TempDir()
	const kept = "a small value, inside, 38246529 of 300000, lost "
	for _, step := range []struct{ args, want string }{
		{"add 3", "1\n2\n3\n"},
		{"add 2 keep check add 1", "4\n5\n" + kept + "false\n6\n"},
		{"check add 1", kept + "true\n7\n"},
		{"add 1 check", "8\n" + kept + "true\n"},
		// What ends the sandbox undoes its call, and no other.
		{"exit add 1 spin add 1 exit", "exit true\n9\nspin true\n10\nexit true\n"},
		// A panic is the call's error, and what it had changed stays changed.
		{"add 1 panic add 1", "11\npanic false\n1012\n"},
		{"add 1", "1013\n"},
		{"add 1 kill", "1014\n"},
		{"add 1", "1\n"},
	} {
		got, err := runDurable(t, guest, dir, strings.Fields(step.args)...)
		if err != nil || got != step.want {
			t.Fatalf("%s: %q, %v\nwant %q", step.args, got, err, step.want)
		}
	}
	if entries, err := os.ReadDir(dir + "/actors"); err != nil || len(entries) != 2 {
		t.Errorf("files: %v, %v", entries, err)
	}
}

// TestDurableRefused makes durable actors that cannot be.
func TestDurableRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "durable")
	if got, err := runDurable(t, guest, ""); err == nil || !strings.Contains(got, "--state DIR") {
		t.Errorf("without a directory: %v\n%s", err, got)
	}
	dir := t.TempDir()
	for what, want := range map[string]string{"bare": "no name", "wide": "MaxConcurrency", "nested": "<nil>"} {
		if got, err := runDurable(t, guest, dir, what); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v\n%s", what, err, got)
		}
	}
	another, other := guest, *guest.module.Artifact
	another.module.Artifact = &other
	if got, err := runDurable(t, guest, dir, "deep", "add", "1"); err != nil || got != "500 false false\n2000 true true\n1\n" {
		t.Errorf("values in values: %v\n%s", err, got)
	}
	other.Data = append(other.Data[:len(other.Data):len(other.Data)], other.Data[0])
	if got, err := runDurable(t, another, dir); err == nil || !strings.Contains(got, "another program") {
		t.Errorf("another program: %v\n%s", err, got)
	}
	if got, err := runDurable(t, guest, dir, "add", "1"); err != nil || got != "2\n" {
		t.Errorf("after all that: %v\n%s", err, got)
	}
}

// TestDurableOfAnother kills a durable actor whose files another job has: they
// stay that job's.
func TestDurableOfAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest, path := compileGuest(t, "durable"), t.TempDir()
	if got, err := runDurable(t, guest, path, "add", "1"); err != nil || got != "1\n" {
		t.Fatalf("%v\n%s", err, got)
	}
	d, err := statelog.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := d.Open("the tally")
	if err != nil {
		t.Fatal(err)
	}
	got, err := runDurableIn(t, guest, ownDir{d}, nil, "kill")
	if err != nil || !strings.Contains(got, "not removed") {
		t.Errorf("killed: %v\n%s", err, got)
	}
	files[0].Close()
	files[1].Close()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if got, err := runDurable(t, guest, path, "add", "1"); err != nil || got != "2\n" {
		t.Errorf("after somebody else was killed: %v\n%s", err, got)
	}
}

// TestDurableLarge has a call change a byte of a large actor: that is about what
// is written, and all of it is there in another worker.
func TestDurableLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest, dir := compileGuest(t, "durable"), t.TempDir()
	size := func() (n int64) {
		entries, err := os.ReadDir(dir + "/actors")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			n += info.Size()
		}
		return n
	}
	const big = 8 << 20
	first, err := runDurable(t, guest, dir, "fill", fmt.Sprint(big), "touch", "5")
	if err != nil {
		t.Fatal(err)
	}
	before := size()
	if before < big {
		t.Fatalf("a state of %d bytes takes %d", big, before)
	}
	var sum int
	if _, err := fmt.Sscan(first, &sum, &sum); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		got, err := runDurable(t, guest, dir, "touch", fmt.Sprint(i<<20), "add", "3")
		if err != nil {
			t.Fatal(err)
		}
		var now int
		if _, err := fmt.Sscan(got, &now); err != nil || now != sum+1 && now != sum-255 {
			t.Fatalf("round %d: the sum is %d, %v, and was %d", i, now, err, sum)
		}
		sum = now
	}
	if n := size() - before; n > 32*(256<<10) {
		t.Errorf("32 calls wrote %d bytes", n)
	} else {
		t.Logf("32 calls wrote %d bytes, of a state of %d", n, before)
	}
}

// badDir is a directory of states on a disk that fails when it is told to.
type badDir struct {
	StateDir
	mu     sync.Mutex
	opened int
	files  [2]*os.File // opened last
	first  bool        // what is opened first cannot be written to
	full   bool        // nothing can be opened
}

func (d *badDir) Open(name string) ([2]*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return [2]*os.File{}, fmt.Errorf("open: %w", syscall.ENOSPC)
	}
	files, err := d.StateDir.Open(name)
	if d.opened++; err == nil && d.first && d.opened == 1 {
		for i, f := range files {
			if files[i], err = os.Open(f.Name()); err != nil {
				return files, err
			}
			f.Close()
		}
	}
	d.files = files
	return files, err
}

// TestDurableDiskFails has durable actors on disks that take nothing: who makes
// one is told; one that is there waits until it can go on, and says so.
func TestDurableDiskFails(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "durable")
	open := func() *badDir {
		d, err := statelog.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return &badDir{StateDir: ownDir{d}}
	}
	cannot := open()
	cannot.first = true
	if got, err := runDurableIn(t, guest, cannot, nil, "add", "1"); err == nil || !strings.Contains(got, "cannot be put on record") || !strings.Contains(got, "--state") {
		t.Errorf("a log that takes nothing: %v\n%s", err, got)
	}
	if got, err := runDurableIn(t, guest, cannot, nil, "add", "1"); err != nil || got != "1\n" {
		t.Errorf("and later: %v\n%s", err, got)
	}
	full := open()
	full.full = true
	if got, err := runDurableIn(t, guest, full, nil, "add", "1"); err == nil || !strings.Contains(got, "make room on the disk of --state") {
		t.Errorf("a full disk: %v\n%s", err, got)
	}

	// The disk fails in a call, and is full until the actor has said that it waits.
	fails := open()
	said := ""
	got, err := runDurableIn(t, guest, fails, func(p []byte) {
		fails.mu.Lock()
		defer fails.mu.Unlock()
		switch text := string(p); {
		case text == "1\n":
			fails.full = true
			fails.files[0].Close()
			fails.files[1].Close()
		case strings.Contains(text, "is tried again"):
			said = text
			fails.full = false
		}
	}, "add", "1", "fails", "add", "1")
	if err != nil || !strings.Contains(got, "not added true\n") {
		t.Errorf("a disk that fails in a call: %v\n%s", err, got)
	}
	if strings.Count(got, "is tried again") != 1 || !strings.Contains(said, "make room on the disk of --state") {
		t.Errorf("what was said of it: %q, in all\n%s", said, got)
	}
}
