package spec

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray/wasm/rewrite"
)

var (
	randomModules = flag.Int("random.modules", 12, "random modules that engines and passes must agree on")
	randomSeed    = flag.Uint64("random.seed", 0, "seed of the first of them; 0 draws one")
)

// TestRandomModules has binaryen make valid modules from random bytes, and holds
// that the interpreter, the compiler, and the compiler behind all passes get the
// same from each: what its functions return or whether they trap, what they say
// on the way, and what is in memory in the end. make conformance has it make 2,000.
func TestRandomModules(t *testing.T) {
	tool, err := exec.LookPath("wasm-opt")
	if err != nil {
		t.Skip("SKIP: it needs wasm-opt: apt-get install -y --no-install-recommends binaryen")
	}
	seed := *randomSeed
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	t.Logf("seeds %d to %d", seed, seed+uint64(*randomModules)-1)
	dir := t.TempDir()
	calls, trapped, differ := 0, 0, 0
	for i := range *randomModules {
		seed := seed + uint64(i)
		wasm := randomModule(t, tool, dir, seed)
		var want []string
		for _, r := range []struct {
			engine engine
			mode   mode
		}{{engines[1], modes[0]}, {engines[0], modes[0]}, {engines[0], modes[3]}} {
			got := trace(t, r.engine, r.mode.options, wasm)
			if want == nil {
				want = got
				calls += len(got)
				for _, line := range got {
					if strings.Contains(line, " trap") {
						trapped++
					}
				}
			} else if !slices.Equal(got, want) {
				differ++
				t.Errorf("seed %d: %s with %s differs from the interpreter (-random.seed %d -random.modules 1 repeats it):\n%s", seed, r.engine.name, r.mode.name, seed, difference(want, got))
			}
		}
	}
	t.Logf("%d modules, %d lines of what they did, %d traps, %d differences", *randomModules, calls, trapped, differ)
	if calls < 5**randomModules {
		t.Error("the modules do too little to compare")
	}
}

// randomModule makes the module of a seed. What the engines need not agree on is
// left out: bits of NaNs, and vectors, which the host's functions cannot take.
// memory.init of a segment that has been put in at the start traps, as the
// specification has it and the passes do; the engine alone does not drop such
// segments, so --memory-packing, which makes a trap of it, keeps that out.
func randomModule(t *testing.T, tool, dir string, seed uint64) []byte {
	t.Helper()
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	random := rand.NewChaCha8(key)
	bytes := make([]byte, 1000+random.Uint64()%9000)
	_, _ = random.Read(bytes)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out.wasm")
	if err := os.WriteFile(in, bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tool, in, "-ttf", "--denan", "--memory-packing", "-o", out, "--enable-bulk-memory", "--enable-sign-ext",
		"--enable-mutable-globals", "--enable-nontrapping-float-to-int", "--enable-multivalue")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("seed %d: wasm-opt: %v\n%s", seed, err, b)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// trace calls what a module exports, in order, with numbers for parameters, and
// returns what was seen.
func trace(t *testing.T, e engine, o rewrite.Options, wasm []byte) (lines []string) {
	t.Helper()
	var ticks int
	m := newMachine(t, e, o, api.CoreFeaturesV2, &ticks)
	defer m.close()
	support := m.rt.NewHostModuleBuilder("fuzzing-support")
	for name, param := range map[string]api.ValueType{"log-i32": api.ValueTypeI32, "log-i64": api.ValueTypeI64, "log-f32": api.ValueTypeF32, "log-f64": api.ValueTypeF64} {
		support.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			lines = append(lines, fmt.Sprintf("  %s %x", name, narrow(param, stack[0])))
		}), []api.ValueType{param}, nil).Export(name)
	}
	if _, err := support.Instantiate(m.ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := m.instantiate(wasm)
	if err != nil {
		t.Fatalf("binaryen's module is refused: %v", err)
	}
	// Modules bound their loops themselves, until that is called.
	limit := mod.ExportedFunction("hangLimitInitializer")
	var names []string
	for name := range compiled(t, m, wasm).ExportedFunctions() {
		if name != "hangLimitInitializer" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if limit != nil {
			m.arm(mod)
			if _, err := limit.Call(m.ctx); err != nil {
				t.Fatal(err)
			}
		}
		f := mod.ExportedFunction(name)
		params := make([]uint64, len(f.Definition().ParamTypes()))
		for i := range params {
			params[i] = uint64(i) * 0x01010101
		}
		m.arm(mod)
		out, err := f.Call(m.ctx, params...)
		if err != nil {
			lines = append(lines, name+" trap: "+strings.SplitN(err.Error(), "\n", 2)[0])
			continue
		}
		if err := m.balanced(mod); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i, typ := range f.Definition().ResultTypes() {
			out[i] = narrow(typ, out[i])
		}
		lines = append(lines, fmt.Sprintf("%s %x", name, out))
	}
	if mem := mod.Memory(); mem != nil {
		b, _ := mem.Read(0, mem.Size())
		h := uint64(14695981039346656037) // FNV-1a
		for _, c := range b {
			h = (h ^ uint64(c)) * 1099511628211
		}
		lines = append(lines, fmt.Sprintf("memory of %d bytes %x", mem.Size(), h))
	}
	return lines
}

// narrow leaves the bits of a value that are the value's: engines leave in the
// others what they like.
func narrow(typ api.ValueType, v uint64) uint64 {
	if typ == api.ValueTypeI32 || typ == api.ValueTypeF32 {
		return uint64(uint32(v))
	}
	return v
}

// compiled is the module as it was before the passes, which export more.
func compiled(t *testing.T, m *machine, wasm []byte) wazero.CompiledModule {
	t.Helper()
	c, err := m.rt.CompileModule(m.ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// difference is the first line that differs, with what went before.
func difference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		at := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "(nothing)"
		}
		if at(want) != at(got) {
			return fmt.Sprintf("line %d: interpreter %q, other %q", i, at(want), at(got))
		}
	}
	return "none"
}
