// Package conformance runs what others have written to test runtimes, or to test
// programs, in sandboxes of a real node: the tests of Go's standard library and
// the official suite of WASI.
//
// By default a part runs that takes seconds; make conformance runs all of it.
package conformance

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

var full = flag.Bool("conformance.full", false, "run all, which takes half an hour")

// TestMain lets the test binary be the node's worker and compiler processes.
func TestMain(m *testing.M) {
	if code, ok := child.Run(os.Args); ok {
		os.Exit(code)
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

// ended is how a command in a sandbox ended.
type ended struct {
	code        int
	err         error
	out, stderr string
	took        time.Duration
}

// command runs a program to its end in a sandbox.
func command(t testing.TB, n *node.Node, j node.Job) ended {
	t.Helper()
	var mu sync.Mutex
	var out, stderr bytes.Buffer
	j.Output = func(_ string, s worker.Stream, p []byte) {
		mu.Lock()
		defer mu.Unlock()
		if s == worker.Stdout {
			out.Write(p)
		} else {
			stderr.Write(p)
		}
	}
	begin := time.Now()
	code, err := n.Run(t.Context(), j)
	mu.Lock()
	defer mu.Unlock()
	return ended{code, err, out.String(), stderr.String(), time.Since(begin)}
}

// tail is the end of what a program said.
func tail(s string) string {
	const most = 3000
	if len(s) > most {
		s = "… " + s[len(s)-most:]
	}
	return s
}

// goCommand runs the go command for WASI, in a directory.
func goCommand(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
