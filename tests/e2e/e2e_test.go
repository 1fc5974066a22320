// Package e2e runs the program as a user does: the wray command, built from
// source, with its real processes.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/internal/testenv"
)

var (
	wray string // the program
	root string // the module's source
)

func TestMain(m *testing.M) { os.Exit(setUp(m)) }

func setUp(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wray-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if root, err = filepath.Abs("../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	wray = filepath.Join(dir, "wray")
	build := exec.Command("go", "build", "-o", wray, "./cmd/wray")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build ./cmd/wray: %v\n%s", err, out)
		return 1
	}
	os.Setenv("WRAY_CACHE", filepath.Join(dir, "cache"))
	os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	return m.Run()
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// inputs are those of the program that TestMain has built.
var inputs sync.Once

// patience is how long a command may take before a test gives up on it.
const patience = 3 * time.Minute

// run runs wray in the module's root.
func run(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	inputs.Do(func() { testenv.Inputs(t) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, wray, args...)
	cmd.Dir = root
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("wray %s did not end in %v\n%s", strings.Join(args, " "), patience, errs.String())
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// goroot is where the Go installation is.
func goroot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
