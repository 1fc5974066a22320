package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
	"github.com/wray-project/wray/wasm/rewrite"
)

// Module is a compiled module together with the snapshot that its sandboxes
// start from.
type Module struct {
	engine   *Engine
	compiled wazero.CompiledModule
	meta     Meta
	data     []rewrite.Segment
	attach   func(*Sandbox) // gives a new sandbox its host side, may be nil

	// Set by Prepare, read-only afterwards. snap is nil where the module cannot
	// be reset from memory and globals: then every sandbox is initialised anew.
	snap *snapshot

	imageOnce   sync.Once
	imageSum    [sha256.Size]byte // set by imageOnce
	imagePacked []byte            // likewise

	mu   sync.Mutex
	live int // guarded by mu; sandboxes that are not closed
}

// snapshot is the state after initialisation that sandboxes start from.
type snapshot struct {
	image   *image
	pages   uint32 // of linear memory
	globals []uint64
	mono    int64 // the guest's monotonic clock
	events  bool  // the guest holds its event descriptor
	stdin   wasi.Fdflags
}

// LoadOptions says how a module's sandboxes are made.
type LoadOptions struct {
	// Native is the file of compiled code to load, in an engine with a cache
	// directory. It is an error when another would be loaded.
	Native string
	// Attach is called for each new sandbox before any guest code runs in it.
	Attach func(*Sandbox)
}

// Load loads a module. Prepare it before making sandboxes.
func (e *Engine) Load(ctx context.Context, a *Artifact, o LoadOptions) (*Module, error) {
	var c wazero.CompiledModule
	var err error
	if e.cacheDir == "" {
		if c, err = e.rt.CompileModule(ctx, a.Wasm); err != nil {
			return nil, invalid(err)
		}
	} else {
		if err := e.checkEntry(o.Native, a.Wasm); err != nil {
			return nil, err
		}
		if c, err = e.loadOnly(ctx, a.Wasm); err != nil {
			return nil, fmt.Errorf("load compiled code: %w", err)
		}
	}
	m := &Module{engine: e, compiled: c, meta: a.Meta, data: a.Data, attach: o.Attach}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		_ = c.Close(ctx)
		return nil, errors.New("the engine is closed")
	}
	e.modules[m] = struct{}{}
	return m, nil
}

// Command reports whether the module is a plain command, with _start and
// without wray_call.
func (m *Module) Command() bool {
	return slices.Contains(m.meta.Exports, abi.ExportStart) && !m.Tasks()
}

// Tasks reports whether the module speaks wray_v1.
func (m *Module) Tasks() bool { return slices.Contains(m.meta.Exports, abi.ExportCall) }

// Resettable reports whether used sandboxes can be given back clean, and if
// not, why.
func (m *Module) Resettable() (bool, string) { return m.meta.Resettable, m.meta.NotResettable }

// Close unloads the module. Its sandboxes are closed. It is idempotent.
func (m *Module) Close(ctx context.Context) {
	e := m.engine
	e.mu.Lock()
	_, loaded := e.modules[m]
	delete(e.modules, m)
	e.mu.Unlock()
	if loaded {
		m.close(ctx)
	}
}

func (m *Module) close(ctx context.Context) {
	m.mu.Lock()
	live := m.live
	m.mu.Unlock()
	if live != 0 {
		panic(fmt.Sprintf("BUG: module closed with %d live sandboxes", live))
	}
	if m.snap != nil {
		_ = m.snap.image.close()
	}
	_ = m.compiled.Close(ctx)
}

// Prepare runs the module's initialisation once, under the given limits and
// until ctx ends, and takes the snapshot. It returns the template sandbox's
// error.
func (m *Module) Prepare(ctx context.Context, l Limits) error {
	sb, err := m.initialise(ctx, l)
	if err != nil {
		return err
	}
	defer sb.Close()
	if !m.meta.Resettable {
		return nil
	}
	s := &snapshot{globals: make([]uint64, len(sb.globals)), mono: sb.monotonic(), events: sb.eventsOpen, stdin: sb.stdinFlags}
	for i, g := range sb.globals {
		s.globals[i] = g.Get()
	}
	mem := sb.mem.bytes()
	s.pages = uint32(len(mem) / wasmPage)
	if s.image, err = newImage(mem); err != nil {
		return err
	}
	m.snap = s
	return nil
}

// initialise makes a sandbox without a snapshot: an instance, its data, its
// start function, _initialize and the warm-up.
func (m *Module) initialise(ctx context.Context, l Limits) (*Sandbox, error) {
	sb, err := m.instantiate(l, nil)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		sb.Kill(wray.Errorf(wray.CodeCanceled, "canceled while the module was initialised"))
	})
	defer stop()
	run := func(f api.Function, params ...uint64) error {
		sb.SetDeadline(sb.limits.Init)
		_, err := sb.run(f, params...)
		if errors.Is(err, wray.ErrTimeout) {
			err = &wray.Error{Code: wray.CodeTimeout, Message: "did not end in time",
				Limit: &wray.Limit{Name: "initialisation", Value: sb.limits.Init.Milliseconds(), Unit: "ms"},
				Hint:  "do long work in the driver or in tasks, not while the module is initialised"}
		}
		if err != nil {
			sb.Close()
		}
		return err
	}
	mem := sb.mem.bytes()
	for _, s := range m.data {
		if uint64(s.Offset)+uint64(len(s.Data)) > uint64(len(mem)) {
			sb.Close()
			return nil, &wray.Error{Code: wray.CodeInvalidModule, Message: fmt.Sprintf(
				"a data segment at %d of %d bytes lies outside the memory of %d bytes", s.Offset, len(s.Data), len(mem))}
		}
		copy(mem[s.Offset:], s.Data)
	}
	sb.initialising = true
	defer func() { sb.initialising = false }()
	if m.meta.StartExport != "" {
		if err := run(sb.inst.ExportedFunction(m.meta.StartExport)); err != nil {
			return nil, fmt.Errorf("start function: %w", err)
		}
	}
	if slices.Contains(m.meta.Exports, abi.ExportInitialize) {
		if err := run(sb.inst.ExportedFunction(abi.ExportInitialize)); err != nil {
			return nil, fmt.Errorf("_initialize: %w", err)
		}
	}
	if m.Tasks() {
		sb.initialising = false
		if err := run(sb.call, uint64(abi.OpWarmup), uint64(sb.limits.HeapReserve>>20)); err != nil {
			return nil, fmt.Errorf("warm-up: %w", err)
		}
	}
	sb.stdinFlags = sb.wasi.StdinFlags()
	return sb, nil
}

// New makes a sandbox: from the snapshot where there is one.
func (m *Module) New(l Limits) (*Sandbox, error) {
	if m.snap == nil {
		return m.initialise(context.Background(), l)
	}
	sb, err := m.instantiate(l, m.snap)
	if err != nil {
		return nil, err
	}
	sb.toSnapshot()
	return sb, nil
}

// startPages returns how many pages a sandbox of s has from its start.
func startPages(s *snapshot) uint64 {
	if s == nil {
		return 0
	}
	return uint64(s.pages)
}

// instantiate makes an instance over a memory of its own.
func (m *Module) instantiate(l Limits, s *snapshot) (*Sandbox, error) {
	l = l.withDefaults()
	var img *image
	if s != nil {
		img = s.image
	}
	if m.meta.HasMemory && uint64(m.meta.MemoryMin)*wasmPage > uint64(l.Memory) || s != nil && uint64(s.pages)*wasmPage > uint64(l.Memory) {
		return nil, &wray.Error{
			Code: wray.CodeOutOfMemory, Message: "the module starts with more memory than the limit",
			Limit: l.memoryLimit(),
			Hint: fmt.Sprintf("it starts with %d KiB; give it more than that, and a Go program at least 32MiB",
				max(uint64(m.meta.MemoryMin), startPages(s))*wasmPage>>10),
		}
	}
	// That, and instantiation, is work of the kernel, which no meter counts. Guests
	// that have sandboxes made by the thousand keep as many processors busy with it
	// as may run guests, and the others wait for them as for each other.
	m.engine.maps <- struct{}{}
	mem, err := newLinearMemory(uint64(l.Memory), img)
	if err != nil {
		<-m.engine.maps
		return nil, err
	}
	sb := &Sandbox{module: m, engine: m.engine, mem: mem, limits: l, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	ctx := experimental.WithMemoryAllocator(context.Background(), handOver{mem})
	sb.inst, err = m.engine.rt.InstantiateModule(ctx, m.compiled, moduleConfig())
	<-m.engine.maps
	if err != nil {
		_ = mem.release()
		return nil, invalid(err)
	}
	if s != nil {
		sb.stdinFlags = s.stdin
		if have := mem.size / wasmPage; have < uint64(s.pages) {
			sb.inst.Memory().Grow(s.pages - uint32(have))
		}
	}
	sb.bind()
	m.mu.Lock()
	m.live++
	m.mu.Unlock()
	if m.attach != nil {
		m.attach(sb)
	}
	return sb, nil
}

// bind looks up what the host calls and reads of the instance, once.
func (sb *Sandbox) bind() {
	if sb.module.Tasks() {
		sb.call = sb.inst.ExportedFunction(abi.ExportCall)
	}
	global := func(name string) api.MutableGlobal {
		g, _ := sb.inst.ExportedGlobal(name).(api.MutableGlobal)
		return g
	}
	sb.fuel, sb.depth = global(rewrite.FuelExport), global(rewrite.DepthExport)
	sb.globals = make([]api.MutableGlobal, len(sb.module.meta.Globals))
	for i, name := range sb.module.meta.Globals {
		sb.globals[i] = global(name)
	}
}
