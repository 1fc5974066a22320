package hostile

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/rewrite"
)

func TestCorpus(t *testing.T) {
	seen := map[string]bool{}
	count := map[Stage]int{}
	for _, c := range Cases() {
		if seen[c.Name] {
			t.Errorf("two cases are called %s", c.Name)
		}
		seen[c.Name] = true
		count[c.Stage]++
		if c.Doc == "" || c.Wasm == nil {
			t.Errorf("%s: no doc or no module", c.Name)
		}
		if c.Stage != Run && c.Want == wray.CodeOK {
			t.Errorf("%s: nothing refuses it", c.Name)
		}
		if a, b := c.Wasm(), c.Wasm(); !bytes.Equal(a, b) {
			t.Errorf("%s: two builds differ", c.Name)
		}
	}
	t.Logf("%d cases: %d for admit, %d for compile, %d for run", len(seen), count[Admit], count[Compile], count[Run])
	if len(seen) < 60 {
		t.Errorf("only %d cases", len(seen))
	}
}

// TestAdmit holds that what is malformed or too large is refused at once,
// and for nothing: the memory that the refusal takes does not follow what the
// module claims.
func TestAdmit(t *testing.T) {
	for _, c := range Cases() {
		if c.Stage != Admit {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			wasm := c.Wasm()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			err := rewrite.Admit(wasm, rewrite.AdmitLimits{})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			var e *wray.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a refusal: %s", err, c.Doc)
			}
			if !c.Accepts(e.Code) {
				t.Errorf("got %v, want %v", e, c.Want)
			}
			if e.Hint == "" || !strings.Contains(e.Message, "byte") && !strings.Contains(e.Message, "text") {
				t.Errorf("%+v does not say where, or what to do", e)
			}
			if (e.Code == wray.CodeLimitExceeded) != (e.Limit != nil) {
				t.Errorf("%v: limit %v", e, e.Limit)
			}
			// A refusal costs the admitter itself, its message, and four
			// bytes for each function and type that is there.
			if alloc := after.TotalAlloc - before.TotalAlloc; alloc > 32<<10+4*uint64(len(wasm)) {
				t.Errorf("%d bytes allocated for a module of %d bytes", alloc, len(wasm))
			}
			// The walker runs at hundreds of megabytes a second; the bound
			// leaves room for the race detector, and a busy machine has
			// several tries.
			limit := 100*time.Millisecond + time.Duration(len(wasm))*100
			for try := 1; took > limit && try < 8; try++ {
				start := time.Now()
				_ = rewrite.Admit(wasm, rewrite.AdmitLimits{})
				took = min(took, time.Since(start))
			}
			if took > limit {
				t.Errorf("took %v for %d bytes", took, len(wasm))
			}
		})
	}
}

func features(tail bool) api.CoreFeatures {
	if tail {
		return api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall
	}
	return api.CoreFeaturesV2
}

// passes are what a worker's compiler runs.
func passes(tail bool) rewrite.Options {
	return rewrite.Options{Meter: true, Snapshot: true, TailCalls: tail}
}

// TestCompile holds that cases for the compiler are its to refuse: Admit lets
// them pass. What only costs time is left to TestBombs.
func TestCompile(t *testing.T) {
	ctx := t.Context()
	for _, c := range Cases() {
		if c.Stage != Compile {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			wasm := c.Wasm()
			if err := rewrite.Admit(wasm, rewrite.AdmitLimits{}); err != nil {
				t.Fatalf("it is a case for Admit: %v", err)
			}
			if c.Want == wray.CodeLimitExceeded {
				return
			}
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features(true)))
			defer r.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			a, err := rewrite.Rewrite(wasm, passes(true))
			if err == nil && strings.HasPrefix(c.Name, "import-") {
				_, err = r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions())
			} else if err == nil {
				_, err = r.CompileModule(ctx, a.Wasm)
			}
			if err == nil {
				t.Errorf("passes and engine take it: %s", c.Doc)
			}
		})
	}
}

// TestRunCasesAreValid holds that nothing but the sandbox can stop a case for
// the sandbox: Admit and the engine take it.
func TestRunCasesAreValid(t *testing.T) {
	ctx := t.Context()
	for _, c := range Cases() {
		if c.Stage != Run {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			wasm := c.Wasm()
			if err := rewrite.Admit(wasm, rewrite.AdmitLimits{}); err != nil {
				t.Fatal(err)
			}
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features(c.TailCalls)))
			defer r.Close(ctx)
			m, err := r.CompileModule(ctx, wasm)
			if err != nil {
				t.Fatal(err)
			}
			a, err := rewrite.Rewrite(wasm, passes(c.TailCalls))
			if err != nil {
				if e := new(wray.Error); !errors.As(err, &e) || !c.Accepts(e.Code) {
					t.Errorf("the passes refuse it: %v", err)
				}
			} else if _, err := r.CompileModule(ctx, a.Wasm); err != nil {
				t.Errorf("invalid after the passes: %v", err)
			}
			if f := m.ExportedFunctions(); f["_start"] == nil && f["wray_call"] == nil {
				t.Error("it exports neither _start nor wray_call")
			}
			if _, ok := m.ExportedMemories()["memory"]; !ok {
				t.Error("it does not export its memory")
			}
		})
	}
}

// TestRunCasesDoAsTheySay runs the cases that wazero alone can stop, so that a
// slip of the assembler does not make a case harmless.
func TestRunCasesDoAsTheySay(t *testing.T) {
	const patience = 50 * time.Millisecond
	for _, c := range Cases() {
		if c.Stage != Run {
			continue
		}
		group, _, _ := strings.Cut(c.Name, "-")
		switch {
		case c.Name == "garbage-fd_filestat_set_times": // wazero 1.12.0's own function panics
			continue
		case group == "loop", group == "trap", group == "exit", group == "path", group == "garbage", group == "known":
		case group == "recursion" && c.Want != wray.CodeTimeout: // wazero does not stop fib
		case c.Name == "host-clock", c.Name == "host-yield", c.Name == "memory-grow-on", c.Name == "table-grow-on":
		case c.Name == "memory-grow", c.Name == "memory-grow-touch":
		default:
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			ctx := t.Context()
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true).WithMemoryLimitPages(256))
			defer r.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			stubs(ctx, t, r)
			m, err := r.CompileModule(ctx, c.Wasm())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if c.Want != wray.CodeTimeout {
				ctx = t.Context()
			}
			_, err = r.InstantiateModule(ctx, m, wazero.NewModuleConfig())
			code, exit := wray.CodeOK, 0
			var e *sys.ExitError
			switch {
			case err == nil:
			case errors.As(err, &e) && e.ExitCode() == sys.ExitCodeDeadlineExceeded:
				code = wray.CodeTimeout
			case errors.As(err, &e):
				if exit = int(int32(e.ExitCode())); exit != 0 {
					code = wray.CodeExit
				}
			case strings.Contains(err.Error(), "stack overflow"):
				code = wray.CodeStackOverflow
			default:
				code = wray.CodeTrap
			}
			if c.Want == wray.CodeOutOfMemory { // wazero has no such code
				c.Want = wray.CodeTrap
			}
			if !c.Accepts(code) || exit != c.Exit {
				t.Errorf("got %v with exit code %d (%v), want %v with %d", code, exit, err, c.Want, c.Exit)
			}
		})
	}
}

// stubs gives r the functions of wray_v1, each of which answers ENOSYS.
func stubs(ctx context.Context, t *testing.T, r wazero.Runtime) {
	b := r.NewHostModuleBuilder("wray_v1")
	for _, f := range wrayFunctions {
		var params []api.ValueType
		for _, c := range f.params {
			params = append(params, map[rune]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64}[c])
		}
		b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) { stack[0] = 52 }),
			params, []api.ValueType{api.ValueTypeI32}).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
}
