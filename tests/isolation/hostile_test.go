// Package isolation holds every claim that no guest can crash, stall or read
// outside its tenant: it runs the hostile corpus through the real node,
// compiler and worker processes.
package isolation

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/tests/hostile"
)

// TestMain lets the test binary be the node's worker and compiler processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case child.WorkerVerb:
			os.Exit(child.RunWorker(os.Args[2:]))
		case child.CompilerVerb:
			os.Exit(child.RunCompiler(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// newNode returns a node with a cache of its own.
func newNode(t testing.TB) *node.Node {
	t.Helper()
	n, err := node.New(node.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// deadline is what a hostile module may run for.
const deadline = 200 * time.Millisecond

// TestHostile runs every module of the corpus. Each must end as its case says,
// in the same worker process as all the others: none may end it.
func TestHostile(t *testing.T) {
	n := newNode(t)
	grant := t.TempDir()
	secret := filepath.Join(filepath.Dir(grant), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var over []time.Duration
	for _, c := range hostile.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			deadline := deadline
			if c.Want != wray.CodeTimeout {
				deadline *= 50 // it ends by itself, which takes its time on a busy machine
			}
			begin := time.Now()
			code, err := n.Run(t.Context(), node.Job{
				Name: c.Name, Modules: []node.Module{{Name: c.Name, Wasm: c.Wasm()}},
				Dirs:   []node.Dir{{Host: grant, Guest: "/grant"}},
				Limits: worker.Limits{Memory: 256 << 20, Timeout: deadline},
			})
			if errors.Is(err, wray.ErrTimeout) {
				over = append(over, time.Since(begin)-deadline)
			}
			check(t, &c, code, err)
		})
	}
	sort.Slice(over, func(i, j int) bool { return over[i] < over[j] })
	if len(over) > 0 {
		t.Logf("%d deadlines: whole run less deadline, median %v, max %v", len(over), over[len(over)/2], over[len(over)-1])
	}
	requireAlive(t, n)
}

// check compares how a run ended with what its case wants.
func check(t *testing.T, c *hostile.Case, exit int, err error) {
	t.Helper()
	got := wray.CodeOK
	var e *wray.Error
	switch {
	case errors.As(err, &e):
		got = e.Code
		if e.Message == "" {
			t.Errorf("the error has no message: %v", err)
		}
	case err != nil:
		t.Fatalf("an error without a code: %v", err)
	case exit == hostile.Escaped:
		t.Fatalf("the module got what it must not get: %s", c.Doc)
	case exit != 0:
		got = wray.CodeExit
		if c.Want == wray.CodeExit && uint32(exit) != uint32(c.Exit) {
			t.Errorf("exit code %d, want %d", exit, c.Exit)
		}
	}
	if got == wray.CodeDeadlock && c.Name == "host-sleep-wall" {
		return // a wait until the clock's end is a wait for nothing
	}
	if !c.Accepts(got) {
		t.Errorf("ended with %v (exit %d, %v), want %v: %s", got, exit, err, c.Want, c.Doc)
	}
}

// requireAlive fails unless the node still runs a good module.
func requireAlive(t *testing.T, n *node.Node) {
	t.Helper()
	var out bytes.Buffer
	code, err := n.Run(context.Background(), node.Job{
		Name: "good", Modules: []node.Module{{Name: "good", Wasm: goodModule(t)}},
		Output: func(_ string, _ worker.Stream, p []byte) { out.Write(p) },
	})
	if err != nil || code != 0 || out.String() != "alive\n" {
		t.Fatalf("after all that, a good module gave %d, %v, %q", code, err, out.String())
	}
}
