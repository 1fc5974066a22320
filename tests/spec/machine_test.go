package spec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/rewrite"
)

// mode is what is done to a module between the suite and the engine.
type mode struct {
	name    string
	options rewrite.Options
}

var modes = []mode{
	{"plain", rewrite.Options{}},
	{"meter", rewrite.Options{Meter: true}},
	{"snapshot", rewrite.Options{Snapshot: true}},
	{"meter+snapshot", rewrite.Options{Meter: true, Snapshot: true}},
}

// engine is one of the two engines that must agree.
type engine struct {
	name   string
	config func() wazero.RuntimeConfig
}

var engines = []engine{
	{"compiler", wazero.NewRuntimeConfigCompiler},
	{"interpreter", wazero.NewRuntimeConfigInterpreter},
}

const (
	// period is what a tick refills: short, so that the suite ticks often.
	period = 500
	// stackBytes is the stack that a call may use, as in a sandbox.
	stackBytes = 32 << 20
)

// errOverflow is what the meter's overflow import throws.
var errOverflow = errors.New("stack overflow: the meter's bound on depth")

// machine runs one script: an engine with the modules that the script has
// made, of which some are registered to be imported from.
type machine struct {
	t        testing.TB
	ctx      context.Context
	rt       wazero.Runtime
	engine   string
	options  rewrite.Options
	features api.CoreFeatures

	last       api.Module
	named      map[string]api.Module
	registered map[string]api.Module
	ticks      *int
}

func newMachine(t testing.TB, e engine, o rewrite.Options, features api.CoreFeatures, ticks *int) *machine {
	m := &machine{t: t, engine: e.name, options: o, features: features, ticks: ticks,
		named: map[string]api.Module{}, registered: map[string]api.Module{}}
	m.ctx = experimental.WithImportResolver(context.Background(), func(name string) api.Module {
		if mod, ok := m.registered[name]; ok {
			return mod
		}
		return nil
	})
	m.rt = wazero.NewRuntimeWithConfig(m.ctx, e.config().WithCoreFeatures(features).WithMemoryLimitPages(65536))
	meter := m.rt.NewHostModuleBuilder(rewrite.MeterModule)
	i64 := []api.ValueType{api.ValueTypeI64}
	meter.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
		*m.ticks++
		stack[0] = period
	}), i64, i64).Export(rewrite.Tick)
	meter.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {
		panic(errOverflow)
	}), nil, nil).Export(rewrite.Overflow)
	if _, err := meter.Instantiate(m.ctx); err != nil {
		t.Fatal(err)
	}
	spectest, err := os.ReadFile(filepath.Join(suiteDirOnce(t), "testdata/spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	// The suite's host module stands for the host, so it is not rewritten.
	if m.registered["spectest"], err = m.rt.InstantiateWithConfig(m.ctx, spectest, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) close() {
	if err := m.rt.Close(m.ctx); err != nil {
		m.t.Error(err)
	}
}

// admit holds wasm to the limits of its size and shape. The suite imports from
// modules of its own.
func admit(wasm []byte) error {
	return rewrite.Admit(wasm, rewrite.AdmitLimits{Modules: []string{"*"}})
}

// compile takes a module through all that a worker's compiler does.
func (m *machine) compile(wasm []byte) (wazero.CompiledModule, *rewrite.Artifact, error) {
	if err := admit(wasm); err != nil {
		return nil, nil, err
	}
	a, err := rewrite.Rewrite(wasm, m.options)
	if err != nil {
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != wray.CodeInvalidModule && e.Code != wray.CodeTrap {
			m.t.Errorf("a refusal that blames nobody: %v", err)
		}
		return nil, nil, err
	}
	c, err := m.rt.CompileModule(m.ctx, a.Wasm)
	if err != nil && m.features == api.CoreFeaturesV2|experimental.CoreFeaturesTailCall {
		// What is valid must not become invalid; what is not may be told by
		// the engine, before the passes or after.
		if c, before := m.rt.CompileModule(m.ctx, wasm); before == nil {
			c.Close(m.ctx)
			m.t.Errorf("valid before the passes: %v", err)
		}
	}
	return c, a, err
}

// instantiate runs a module's own start, whoever has to do it.
func (m *machine) instantiate(wasm []byte) (api.Module, error) {
	c, a, err := m.compile(wasm)
	if err != nil {
		return nil, err
	}
	mod, err := m.rt.InstantiateModule(m.ctx, c, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, err
	}
	for _, s := range a.Segments {
		mem := mod.Memory()
		if mem == nil || !mem.Write(s.Offset, s.Data) {
			return nil, fmt.Errorf("segment of %d bytes at %d is out of bounds memory access", len(s.Data), s.Offset)
		}
	}
	if a.StartExport != "" {
		m.arm(mod)
		if _, err := mod.ExportedFunction(a.StartExport).Call(m.ctx); err != nil {
			return nil, err
		}
	}
	return mod, nil
}

// arm gives mod, and what it may call into, the stack of an outermost entry.
// Whoever runs sandboxes does this too; unlike them, the suite goes on with
// instances that have trapped.
func (m *machine) arm(mod api.Module) {
	if !m.options.Meter {
		return
	}
	for _, x := range m.registered {
		armOne(x)
	}
	for _, x := range m.named {
		armOne(x)
	}
	armOne(mod)
}

// balanced holds that a call that returns gives back all the stack it took.
func (m *machine) balanced(mod api.Module) error {
	if !m.options.Meter {
		return nil
	}
	if g := mod.ExportedGlobal(rewrite.DepthExport); g != nil && g.Get() != stackBytes {
		return fmt.Errorf("the call left %d bytes of stack, of %d", int64(g.Get()), stackBytes)
	}
	return nil
}

func armOne(mod api.Module) {
	if g, ok := mod.ExportedGlobal(rewrite.DepthExport).(api.MutableGlobal); ok {
		g.Set(stackBytes)
	}
}

// module returns the instance that an action is about.
func (m *machine) module(name string) (api.Module, error) {
	mod := m.last
	if name != "" {
		mod = m.named[name]
	}
	if mod == nil {
		return nil, fmt.Errorf("there is no module %q", name)
	}
	return mod, nil
}

// do performs an action and returns the results and their types.
func (m *machine) do(a *action) ([]uint64, []api.ValueType, error) {
	mod, err := m.module(a.Module)
	if err != nil {
		return nil, nil, err
	}
	if a.Type == "get" {
		g := mod.ExportedGlobal(a.Field)
		if g == nil {
			return nil, nil, fmt.Errorf("there is no global %q", a.Field)
		}
		return []uint64{g.Get()}, []api.ValueType{g.Type()}, nil
	}
	f := mod.ExportedFunction(a.Field)
	if f == nil {
		return nil, nil, fmt.Errorf("there is no function %q", a.Field)
	}
	in, err := args(a.Args)
	if err != nil {
		return nil, nil, err
	}
	m.arm(mod)
	out, err := f.Call(m.ctx, in...)
	if err == nil {
		err = m.balanced(mod)
	}
	return out, f.Definition().ResultTypes(), err
}
