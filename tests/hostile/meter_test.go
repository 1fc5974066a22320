package hostile

import (
	"context"
	"errors"
	"slices"
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

// arena is a memory that does not move when it grows, as a sandbox's does: the
// engine's own is copied each time, which takes longer than the deadlines here.
// One instance at a time has it.
type arena struct {
	buf  []byte
	used uint64
}

func (a *arena) Allocate(uint64, uint64) experimental.LinearMemory { return a }

func (a *arena) Reallocate(size uint64) []byte {
	if size > uint64(len(a.buf)) {
		return nil
	}
	a.used = max(a.used, size)
	return a.buf[:size:size]
}

func (a *arena) Free() {
	clear(a.buf[:a.used])
	a.used = 0
}

var (
	errDeadline = errors.New("the tick found the deadline passed")
	errOverflow = errors.New("the meter found the stack used up")
)

// TestMeterStops runs every case that the meter alone must stop, with nothing
// around the engine but the meter's two imports: a tick that throws when the
// deadline has passed, and a bound on the stack.
func TestMeterStops(t *testing.T) {
	const (
		deadline = 30 * time.Millisecond
		// What a stop may take beyond the deadline on a machine that is busy
		// with other tests. The sandbox is held to less, by its benchmarks.
		patience = 500 * time.Millisecond
		period   = 1 << 20
		stack    = 32 << 20
		pages    = 4096
	)
	// The engine's WASI sleeps, and fills memory, without looking up.
	uninterruptible := []string{"host-sleep", "host-sleep-wall", "host-poll-many", "host-random", "host-stdout-vectors"}
	var worst time.Duration
	memory := &arena{buf: make([]byte, pages<<16)}
	for _, c := range Cases() {
		group, _, _ := strings.Cut(c.Name, "-")
		if c.Stage != Run || slices.Contains(uninterruptible, c.Name) ||
			!slices.Contains([]string{"loop", "recursion", "tail", "bulk", "memory", "table", "host", "trap", "known"}, group) ||
			group == "host" && c.Want != wray.CodeTimeout || c.Name == "memory-declared" || c.Name == "trap-segment" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			ctx := experimental.WithMemoryAllocator(t.Context(), memory)
			a, err := rewrite.Rewrite(c.Wasm(), passes(c.TailCalls))
			if err != nil {
				t.Fatal(err)
			}
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
				WithCoreFeatures(features(c.TailCalls)).WithMemoryLimitPages(pages))
			defer r.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			stubs(ctx, t, r)
			var end time.Time
			b := r.NewHostModuleBuilder(rewrite.MeterModule)
			i64 := []api.ValueType{api.ValueTypeI64}
			b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, s []uint64) {
				if time.Now().After(end) {
					panic(errDeadline)
				}
				s[0] = period
			}), i64, i64).Export(rewrite.Tick)
			b.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) { panic(errOverflow) }),
				nil, nil).Export(rewrite.Overflow)
			if _, err := b.Instantiate(ctx); err != nil {
				t.Fatal(err)
			}
			compiled, err := r.CompileModule(ctx, a.Wasm)
			if err != nil {
				t.Fatal(err)
			}
			mod, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithStartFunctions())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range a.Segments {
				mod.Memory().Write(s.Offset, s.Data)
			}
			enter := []string{"_start"}
			if a.StartExport != "" {
				enter = []string{a.StartExport, "_start"}
			}
			end = time.Now().Add(deadline)
			if c.Want == wray.CodeOK || c.Want == wray.CodeOutOfMemory || c.Want == wray.CodeStackOverflow {
				end = time.Now().Add(time.Minute)
			}
			for _, name := range enter {
				mod.ExportedGlobal(rewrite.DepthExport).(api.MutableGlobal).Set(stack)
				if _, err = mod.ExportedFunction(name).Call(ctx); err != nil {
					break
				}
			}
			over := time.Since(end)
			var code wray.Code
			var exit *sys.ExitError
			switch {
			case err == nil:
				if left := mod.ExportedGlobal(rewrite.DepthExport).Get(); left != stack {
					t.Errorf("it ended with %d bytes of stack, of %d", int64(left), stack)
				}
			case errors.As(err, &exit) && exit.ExitCode() == 0:
			case errors.Is(err, errDeadline):
				code = wray.CodeTimeout
				worst = max(worst, over)
				if over > patience {
					t.Errorf("stopped %v after its deadline", over)
				}
			case errors.Is(err, errOverflow):
				code = wray.CodeStackOverflow
			default:
				code = wray.CodeTrap
			}
			if c.Want == wray.CodeOutOfMemory { // the engine knows no such code
				c.Want = wray.CodeTrap
			}
			if !c.Accepts(code) {
				t.Errorf("got %v (%v), want %v", code, err, c.Want)
			}
		})
	}
	t.Logf("stopped %v after the deadline at worst", worst)
}
