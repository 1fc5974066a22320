package rewrite

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// instance is a module that runs, with what it told its host.
type instance struct {
	mod   api.Module
	trace []uint64
	tick  *ticker
	a     *Artifact // nil for an original
}

// startInstance instantiates a module that generate made, in a runtime of its
// own. ticks, if not nil, gives the next values of the counter.
func startInstance(t testing.TB, config wazero.RuntimeConfig, wasm []byte, a *Artifact, ticks func() int64) *instance {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(features).WithMemoryLimitPages(64))
	t.Cleanup(func() { rt.Close(ctx) })
	in := &instance{a: a, tick: &ticker{next: ticks}}
	_, err := rt.NewHostModuleBuilder("env").NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) { in.trace = append(in.trace, stack[0]&0xffffffff) }),
			[]api.ValueType{api.ValueTypeI32}, nil).Export("log").Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in.tick.provide(t, rt)
	if in.mod, err = rt.Instantiate(ctx, wasm); err != nil {
		t.Fatalf("instantiate: %v", err)
	}
	if a != nil {
		for _, seg := range a.Segments {
			in.mod.Memory().Write(seg.Offset, seg.Data)
		}
		if a.StartExport != "" {
			if _, err := in.mod.ExportedFunction(a.StartExport).Call(ctx); err != nil {
				t.Fatalf("start: %v", err)
			}
		}
	}
	return in
}

// call calls an export with a budget and returns all that can be seen of it.
func (in *instance) call(name string, args []uint64) string {
	in.trace = in.trace[:0]
	in.mod.ExportedGlobal("budget").(api.MutableGlobal).Set(genBudget)
	f := in.mod.ExportedFunction(name)
	for len(args) < slots(f.Definition().ParamTypes()) {
		args = append(args, uint64(len(args)))
	}
	res, err := f.Call(context.Background(), args[:slots(f.Definition().ParamTypes())]...)
	var what string
	if err != nil {
		what, _, _ = strings.Cut(err.Error(), "\n")
		if errors.As(err, new(stopped)) {
			what = "stopped by the host"
		}
	} else {
		for i, t := range f.Definition().ResultTypes() {
			if t == api.ValueTypeI32 { // the upper half means nothing
				if slots(f.Definition().ResultTypes()) == len(f.Definition().ResultTypes()) {
					res[i] &= 0xffffffff
				}
			}
		}
		what = fmt.Sprint(res)
	}
	mem, _ := in.mod.Memory().Read(0, in.mod.Memory().Size())
	h := fnv.New64a()
	h.Write(mem)
	return fmt.Sprintf("%s, host saw %d, %d bytes hash to %x, budget %d", what, in.trace, len(mem), h.Sum64(),
		in.mod.ExportedGlobal("budget").Get())
}

func slots(types []api.ValueType) int {
	n := len(types)
	for _, t := range types {
		if t == api.ValueType(v128) {
			n++
		}
	}
	return n
}

var differOptions = []Options{
	{TailCalls: true},
	{TailCalls: true, Snapshot: true},
	{TailCalls: true, Meter: true},
	{TailCalls: true, Meter: true, Snapshot: true},
}

// differ runs a generated module and what the passes make of it, side by side.
func differ(t *testing.T, data []byte, config func() wazero.RuntimeConfig) (calls, trapped int) {
	b := generate(data)
	original := b.encode()
	plain := startInstance(t, config(), original, nil, nil)
	var others []*instance
	for i, o := range differOptions {
		a, err := Rewrite(original, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		// Ticks at all kinds of distances, most of them short.
		rng := rand.New(rand.NewPCG(uint64(i), uint64(len(data))))
		others = append(others, startInstance(t, config(), a.Wasm, a, func() int64 { return rng.Int64N(1 << rng.IntN(14)) }))
	}
	for i := range len(b.bodies) {
		name := "f" + strconv.Itoa(i)
		args := []uint64{uint64(i), 1 << 40}
		want := plain.call(name, args)
		calls++
		if strings.HasPrefix(want, "wasm error") {
			trapped++
		}
		for k, in := range others {
			if differOptions[k].Meter {
				in.mod.ExportedGlobal(DepthExport).(api.MutableGlobal).Set(DefaultDepth)
			}
			if got := in.call(name, args); got != want {
				t.Fatalf("%+v: %s:\n got %s\nwant %s", differOptions[k], name, got, want)
			}
			if !differOptions[k].Meter || strings.HasPrefix(want, "wasm error") {
				continue
			}
			if left := in.mod.ExportedGlobal(DepthExport).Get(); left != DefaultDepth {
				t.Fatalf("%s: depth is %d after it returned, not %d", name, int64(left), DefaultDepth)
			}
		}
	}
	return calls, trapped
}

// TestDiffer compares random modules with their rewritten forms under both
// engines. WRAY_SEEDS is how many, WRAY_SEED the first.
func TestDiffer(t *testing.T) {
	n, first := 150, uint64(time.Now().UnixNano())
	if s := os.Getenv("WRAY_SEEDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("WRAY_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
	}
	// Once a tail call through a table, made a plain one, kept its depth.
	seeds := []uint64{1795644921326534647}
	for i := range uint64(n) {
		seeds = append(seeds, first+i)
	}
	calls, trapped := 0, 0
	for _, seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, 50+rng.IntN(1500))
		for k := range data {
			data[k] = byte(rng.Uint32())
		}
		for name, config := range engines {
			t.Run(fmt.Sprintf("seed %d %s", seed, name), func(t *testing.T) {
				c, tr := differ(t, data, config)
				calls, trapped = calls+c, trapped+tr
			})
		}
		if t.Failed() {
			t.Fatalf("again with WRAY_SEED=%d WRAY_SEEDS=1", seed)
		}
	}
	t.Logf("%d calls, %d trapped, seeds from %d", calls, trapped, first)
}
