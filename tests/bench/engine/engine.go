// Package engine measures the host's side of wray for "wray bench core": what
// the machine's memory can do, the meter's cost, restoring and keeping
// sandboxes, stopping hostile ones, and starting nodes. Guests run in the
// process that measures, where the runtime's own figures can be read, except
// where a case says that it starts a node.
package engine

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/wasm/abi"
)

// Line is the result of a case: over its rounds, in Unit.
type Line struct {
	Case   string  `json:"case"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Config says what to measure.
type Config struct {
	Rounds int           // of each case; at least 1
	Round  time.Duration // length of a round, where a case has no length of its own
	Only   string        // run the cases whose name has this part
	Guest  []byte        // a Go program on the SDK, of some 4 MB; see tests/bench/core
	Cache  string        // the nodes' cache directory
	Emit   func(Line) error
	Note   func(string)            // what a reader of the figures must know
	Past   func(name string) *Line // a case of the driver that was run before, or nil
}

// Run runs the cases in turn: those that start nodes first, while this process
// is small and has left the machine as it was.
func Run(ctx context.Context, c Config) error {
	c.Rounds = max(c.Rounds, 1)
	for _, f := range []func(context.Context, *Config) error{starts, churn, firstTouch, copies, spilling, metering, restoring, kills} {
		if err := f(ctx, &c); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// wants reports whether one of the cases is to be run.
func (c *Config) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, c.Only) })
}

// emit prints a case that is wanted.
func (c *Config) emit(name, unit string, xs []float64) error {
	if !c.wants(name) {
		return nil
	}
	return c.Emit(summary(name, unit, xs))
}

func summary(name, unit string, xs []float64) Line {
	return Line{name, unit, quantile(xs, 0.5), slices.Min(xs), slices.Max(xs)}
}

// quantile returns the smallest element that a share q of all are not above
// (the nearest-rank definition).
func quantile(xs []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// build builds a command for wasip1.
func build(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "wray-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w\n%s", pkg, err, msg)
	}
	return os.ReadFile(out)
}

// discard takes what guests print.
func discard(p []byte) (int, error) { return len(p), nil }

// attach gives a sandbox what a guest needs to begin.
func attach(sb *sandbox.Sandbox) {
	if err := sb.Configure(&wasi.Config{Args: []string{"guest"}, Stdout: discard, Stderr: discard}); err != nil {
		panic(fmt.Sprintf("BUG: %v", err)) // nothing comes from outside
	}
}

// bareHost is the guest interface without a worker behind it: enough for a
// guest to initialise itself and be restored.
func bareHost() sandbox.HostModule {
	m := worker.HostModule()
	for i := range m.Funcs {
		f := &m.Funcs[i]
		switch f.Name {
		case "version":
			f.Call = func(_ *sandbox.Sandbox, _ []byte, s []uint64) { s[0] = abi.Version }
		case "declare":
			f.Call = func(_ *sandbox.Sandbox, _ []byte, s []uint64) { s[0] = uint64(abi.Success) }
		case "event_open":
			f.Call = func(sb *sandbox.Sandbox, mem []byte, s []uint64) {
				fd, e := sb.OpenEvents()
				at := uint64(uint32(s[0]))
				if at+4 > uint64(len(mem)) {
					s[0] = uint64(abi.EFAULT)
					return
				}
				mem[at], mem[at+1], mem[at+2], mem[at+3] = byte(fd), byte(fd>>8), byte(fd>>16), byte(fd>>24)
				s[0] = uint64(e)
			}
		default:
			f.Call = func(_ *sandbox.Sandbox, _ []byte, s []uint64) { s[0] = uint64(abi.ENOSYS) }
		}
	}
	return m
}

// newEngine returns an engine of the process that measures.
func newEngine(ctx context.Context) (*sandbox.Engine, error) {
	return sandbox.NewEngine(ctx, sandbox.Config{Modules: []sandbox.HostModule{bareHost()}})
}

// load rewrites, compiles and initialises a module.
func load(ctx context.Context, e *sandbox.Engine, wasm []byte) (*sandbox.Module, error) {
	a, err := sandbox.Rewrite(wasm, sandbox.CompileOptions{Modules: []sandbox.HostModule{bareHost()}})
	if err != nil {
		return nil, err
	}
	return prepare(ctx, e, a)
}

func prepare(ctx context.Context, e *sandbox.Engine, a *sandbox.Artifact) (*sandbox.Module, error) {
	m, err := e.Load(ctx, a, sandbox.LoadOptions{Attach: attach})
	if err != nil {
		return nil, err
	}
	return m, m.Prepare(ctx, sandbox.Limits{})
}
