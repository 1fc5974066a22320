package wasi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray/host/wasi"
)

// exitError is how a guest of these tests ends.
type exitError struct{ code uint32 }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// sleeper is a Poller for guests on goroutines of their own. wake ends a wait.
type sleeper struct {
	start time.Time
	wake  chan struct{}
	waits int
	seen  []wasi.Interest // of the last wait
}

func newSleeper() *sleeper {
	return &sleeper{start: time.Now(), wake: make(chan struct{}, 1)}
}

func (p *sleeper) now() int64 { return int64(time.Since(p.start)) + 1e9 }

func (p *sleeper) Wait(deadline int64, files []wasi.Interest) wasi.Errno {
	p.waits++
	p.seen = append(p.seen[:0], files...)
	var timer <-chan time.Time
	if deadline >= 0 {
		timer = time.After(time.Duration(deadline - p.now()))
	}
	select {
	case <-timer:
	case <-p.wake:
	}
	return wasi.Success
}

// config returns a Config with real clocks and nothing granted.
func config() (*wasi.Config, *sleeper) {
	p := newSleeper()
	return &wasi.Config{
		Random:    func(b []byte) { rand.Read(b) },
		WallClock: func() int64 { return time.Now().UnixNano() },
		MonoClock: p.now,
		Poller:    p,
		Exit:      func(code uint32) { panic(&exitError{code}) },
	}, p
}

// grant returns a Dir for a directory of the host.
func grant(t testing.TB, guestPath, dir string) wasi.Dir {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return wasi.Dir{GuestPath: guestPath, FS: wasi.RootFS(root), Symlinks: true}
}

type systemKey struct{}

// engine is one wazero runtime with the functions registered as a host
// registers them.
var engine = sync.OnceValue(func() wazero.Runtime {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig())
	b := r.NewHostModuleBuilder(wasi.ModuleName)
	for _, f := range wasi.Functions() {
		call := f.Call
		fn := api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			mem, _ := mod.Memory().Read(0, mod.Memory().Size())
			call(ctx.Value(systemKey{}).(*wasi.System), mem, stack)
		})
		var params, results []api.ValueType
		for _, p := range f.Params {
			if p == 'I' {
				params = append(params, api.ValueTypeI64)
			} else {
				params = append(params, api.ValueTypeI32)
			}
		}
		if f.Result {
			results = []api.ValueType{api.ValueTypeI32}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(fn, params, results).Export(f.Name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		panic(err)
	}
	return r
})

// compile compiles a guest.
func compile(t testing.TB, wasm []byte) wazero.CompiledModule {
	t.Helper()
	mod, err := engine().CompileModule(context.Background(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mod.Close(context.Background()) })
	return mod
}

// run runs a command to its end and returns its exit code.
func run(t testing.TB, mod wazero.CompiledModule, sys *wasi.System) uint32 {
	t.Helper()
	ctx := context.WithValue(context.Background(), systemKey{}, sys)
	inst, err := engine().InstantiateModule(ctx, mod,
		wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader))
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close(ctx)
	_, err = inst.ExportedFunction("_start").Call(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	}
	t.Errorf("the guest ended with: %v", err)
	return 255
}

// command runs a command with what cfg grants and returns what it wrote.
func command(t testing.TB, mod wazero.CompiledModule, cfg *wasi.Config) (code uint32, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cfg.Stdout, cfg.Stderr = out.Write, errs.Write
	var sys wasi.System
	if err := sys.Reset(cfg); err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	code = run(t, mod, &sys)
	return code, out.String(), errs.String()
}

// build builds a Go package for wasip1.
func build(t testing.TB, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command("go", append(args[:1:1], append([]string{"-o", out}, args[1:]...)...)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}
