package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wray-project/wray/tests/bench/kernels"
)

// buildGuest compiles a package of testdata for wasip1.
func buildGuest(t testing.TB, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".wasm")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/"+name)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", name, err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ticker is a host for metered modules: it counts ticks and the longest time
// between two.
type ticker struct {
	period   int64
	ticks    int64
	overflow int64
	next     func() int64  // gives the next value in place of period
	stop     int64         // panic at this many ticks; 0 never
	last     time.Duration // cpuTime at the last tick
	longest  time.Duration
	timed    bool
}

type stopped struct{ why string }

func (s stopped) Error() string { return s.why }

// provide adds the host module that metered guests import.
func (tk *ticker) provide(t testing.TB, rt wazero.Runtime) {
	t.Helper()
	if tk.period == 0 {
		tk.period = DefaultPeriod
	}
	_, err := rt.NewHostModuleBuilder(MeterModule).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		tk.ticks++
		if tk.timed {
			now := cpuTime()
			tk.longest = max(tk.longest, now-tk.last)
			tk.last = now
		}
		if tk.stop > 0 && tk.ticks >= tk.stop {
			panic(stopped{"out of time"})
		}
		if int64(stack[0]) >= 0 {
			panic("tick with something left")
		}
		stack[0] = uint64(tk.period)
		if tk.next != nil {
			stack[0] = uint64(tk.next())
		}
	}), []api.ValueType{api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).Export(Tick).
		NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {
		tk.overflow++
		panic(stopped{"stack overflow"})
	}), nil, nil).Export(Overflow).
		Instantiate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}

// wasiGuest is a compiled command module.
type wasiGuest struct {
	rt       wazero.Runtime
	compiled wazero.CompiledModule
	tick     *ticker
}

func newWASIGuest(t testing.TB, wasm []byte) *wasiGuest {
	t.Helper()
	ctx := context.Background()
	g := &wasiGuest{rt: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false)), tick: &ticker{}}
	t.Cleanup(func() { g.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, g.rt)
	g.tick.provide(t, g.rt)
	var err error
	if g.compiled, err = g.rt.CompileModule(ctx, wasm); err != nil {
		t.Fatal(err)
	}
	return g
}

// run instantiates the guest, calls _start and returns its output and the
// processor time that _start took.
func (g *wasiGuest) run(t testing.TB, args ...string) (string, time.Duration) {
	t.Helper()
	ctx := context.Background()
	var out bytes.Buffer
	mod, err := g.rt.InstantiateModule(ctx, g.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithArgs(append([]string{"guest"}, args...)...).WithStdout(&out).WithStderr(&out).
		WithSysNanotime().WithSysWalltime())
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close(ctx)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := cpuTime()
	_, err = mod.ExportedFunction("_start").Call(ctx)
	d := cpuTime() - start
	if code, ok := exitCode(err); err != nil && (!ok || code != 0) {
		t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return out.String(), d
}

// TestMeterOverhead measures real Go code with and without the meter, in turns,
// and holds it to the target. It runs with WRAY_BENCH=1 alone: a busy machine
// would fail it.
func TestMeterOverhead(t *testing.T) {
	if os.Getenv("WRAY_BENCH") == "" {
		t.Skip("SKIP: set WRAY_BENCH=1 to measure")
	}
	rounds := 25
	if n, err := strconv.Atoi(os.Getenv("WRAY_BENCH")); err == nil && n > 1 {
		rounds = n
	}
	plain := buildGuest(t, "kernels")
	start := time.Now()
	a, err := Rewrite(plain, Options{Meter: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("rewrote %d bytes to %d in %v", len(plain), len(a.Wasm), time.Since(start).Round(time.Millisecond))
	start = time.Now()
	before := newWASIGuest(t, plain)
	compiled := time.Since(start)
	start = time.Now()
	after := newWASIGuest(t, a.Wasm)
	t.Logf("compiled in %v, metered in %v", compiled.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))

	table := "\nkernel        plain    metered  ratio   best  between ticks\n"
	logSum, worst, n := 0.0, 0.0, 0
	only := os.Getenv("WRAY_KERNELS")
	for _, k := range kernels.All() {
		if only != "" && !strings.Contains(only, k.Name) {
			continue
		}
		var b, m, ratios []float64
		args := []string{k.Name, strconv.Itoa(k.Times)}
		var every time.Duration
		for range rounds {
			o1, d1 := before.run(t, args...)
			after.tick.ticks = 0
			o2, d2 := after.run(t, args...)
			if o1 != o2 {
				t.Fatalf("%s: %q and %q", k.Name, o1, o2)
			}
			every = d2 / time.Duration(max(after.tick.ticks, 1))
			b, m, ratios = append(b, ms(d1)), append(m, ms(d2)), append(ratios, float64(d2)/float64(d1))
		}
		ratio := median(ratios)
		mark := ""
		if k.Extra {
			mark = "  (beside the target)"
		} else {
			logSum += math.Log(ratio)
			worst = max(worst, ratio)
			n++
		}
		table += fmt.Sprintf("%-10s %6.1f ms  %6.1f ms  %5.3f  %5.3f  %v%s\n", k.Name, median(b), median(m), ratio, slices.Min(m)/slices.Min(b), every.Round(100*time.Nanosecond), mark)
	}
	mean := math.Exp(logSum / float64(n))
	t.Logf("%sgeometric mean %.3f, worst %.3f", table, mean, worst)
	if mean > 1.15 || worst > 1.7 {
		t.Errorf("the target is a mean of 1.15 and a worst of 1.7")
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return x[len(x)/2]
}

// exitCode returns the code of a guest that called proc_exit.
func exitCode(err error) (uint32, bool) {
	var e *sys.ExitError
	if errors.As(err, &e) {
		return e.ExitCode(), true
	}
	return 0, false
}
