// Package sandbox runs WebAssembly guests. It compiles a module once, runs its
// initialisation once, keeps the result as a snapshot, and from then on makes
// sandboxes out of the snapshot in microseconds and gives used ones back clean
// at the price of the pages they dirtied.
//
// A guest is metered: it calls the host at bounded intervals, and there it is
// cancelled, stopped at its deadline, or parked while others have their turn.
// After a trap, a kill or an exit a sandbox is never called again before it
// has been reset.
//
// The package knows wazero and nothing of jobs, tasks or clusters. What guests
// may ask of the host beyond WASI comes in as a [HostModule].
package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/rewrite"
)

// Config configures an Engine. The zero value compiles into memory and offers
// WASI alone.
type Config struct {
	// CacheDir is the directory of compiled code. An engine with one never
	// compiles: code that is not there is an error. Without one the engine
	// compiles what it loads, which is for tests.
	CacheDir string
	// Modules are the host modules offered beside WASI.
	Modules []HostModule
	// Slots is how many sandboxes run at once; the others wait for their
	// turn. Zero is one for each processor.
	Slots int
	// Slice is how long a sandbox runs while others wait. Zero is 10 ms.
	Slice time.Duration
}

// Engine holds what the sandboxes of one tenant share: the runtime, the host
// modules and the turns.
type Engine struct {
	rt       wazero.Runtime
	cache    wazero.CompilationCache
	cacheDir string // absolute; empty where the engine may compile
	gate     *gate
	maps     chan struct{} // one token for each that makes or unmaps a memory
	clock    clock

	mu      sync.Mutex
	modules map[*Module]struct{} // guarded by mu
	closed  bool                 // guarded by mu
}

// coreFeatures are the WebAssembly features guests may use. Threads and
// exception handling are off: the first opens timing attacks, the second a
// use-after-free in wazero v1.12.0.
const coreFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall

// runtimeConfig is the one place where wazero is configured: the compiler and
// the worker must agree, since the configuration is part of the identity of
// compiled code.
func runtimeConfig(cache wazero.CompilationCache) wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().
		WithCoreFeatures(coreFeatures).
		WithCloseOnContextDone(false). // the meter does this, at a twentieth of the cost
		WithDebugInfoEnabled(false).
		WithMemoryLimitPages(65536).
		WithCompilationCache(cache)
}

// NewEngine returns an engine. Close it.
func NewEngine(ctx context.Context, cfg Config) (*Engine, error) {
	var cache wazero.CompilationCache
	var err error
	dir := cfg.CacheDir
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, fmt.Errorf("open the code cache: %w", err)
		}
		if cache, err = wazero.NewCompilationCacheWithDir(cfg.CacheDir); err != nil {
			return nil, fmt.Errorf("open the code cache: %w", err)
		}
	} else {
		cache = wazero.NewCompilationCache()
	}
	e := &Engine{
		rt:       wazero.NewRuntimeWithConfig(ctx, runtimeConfig(cache)),
		cache:    cache,
		cacheDir: dir,
		gate:     newGate(cfg.Slots, cfg.Slice),
		maps:     make(chan struct{}, cmp.Or(max(cfg.Slots, 0), runtime.NumCPU())),
		clock:    newClock(),
		modules:  map[*Module]struct{}{},
	}
	for _, m := range append([]HostModule{meterModule(), wasiModule()}, cfg.Modules...) {
		if err := m.instantiate(ctx, e.rt); err != nil {
			_ = e.Close(ctx)
			return nil, err
		}
	}
	return e, nil
}

// Close closes the engine and every module. No sandbox may be running.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	modules := e.modules
	e.modules, e.closed = nil, true
	e.mu.Unlock()
	for m := range modules {
		m.close(ctx)
	}
	err := e.rt.Close(ctx)
	if cerr := e.cache.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

// Waiting returns how many sandboxes wait for their turn.
func (e *Engine) Waiting() int { return int(e.gate.waiting.Load()) }

// meterModule is what the metering pass makes guests call.
func meterModule() HostModule {
	return HostModule{Name: rewrite.MeterModule, Funcs: []HostFunc{{
		Name: rewrite.Tick, Params: "I", Results: "I", Capability: "always", MaxPayload: wasi.NoPayload, Cost: wasi.Cost{Base: 100}, Blocks: true,
		Call: func(sb *Sandbox, _ []byte, stack []uint64) { stack[0] = uint64(sb.tick(int64(stack[0]))) },
	}, {
		Name: rewrite.Overflow, Capability: "always", MaxPayload: wasi.NoPayload, Cost: wasi.Cost{Base: 20_000},
		Call: func(sb *Sandbox, _ []byte, _ []uint64) { panic(&stop{err: sb.stackOverflow()}) },
	}}}
}

// moduleConfig is how every instance is made: with real randomness, since
// wazero's default is a fixed seed (and four fifths of the cost), and with
// nothing of the host. Instances have no name: nobody can import them.
func moduleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader)
}
