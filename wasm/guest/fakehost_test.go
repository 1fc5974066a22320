package guest_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wray-project/wray/wasm/abi"
)

// fakeHost runs a guest over an in-memory host of wray_v1, with as much of
// docs/ABI.md as the tests of the binding need: no limits, no checks of
// pointers, one lock.
type fakeHost struct {
	tb       testing.TB
	rt       wazero.Runtime
	compiled wazero.CompiledModule
	ctx      context.Context

	mu       sync.Mutex
	declared map[string]uint32
	idle     []*sandbox
	made     int        // executors
	limit    int        // on made; 0: maxExecutors
	deaf     []*sandbox // tasks that wait for nothing while patient
	patient  bool       // tell tasks of a deadlock only after the driver's end
	free     *sync.Cond
	tasks    sync.WaitGroup
	capacity int // bytes in the store; 0: no bound
	stored   int
	waiting  []*sandbox // for SPACE
	handles  int        // held by all sandboxes
	null     bool       // answer what is measured without doing anything
}

type object struct {
	ready    bool
	encoding uint32
	meta     uint32
	data     []byte
	refs     []*object
	refcount int
	watchers []watcher
	then     []func()
	items    []*object // of a stream
	next     int
	window   int
	ended    bool
	maker    *sandbox // of a stream, while it runs
	roomless bool     // the maker waits for room
}

type watcher struct {
	sb *sandbox
	h  uint32
}

type sandbox struct {
	host    *fakeHost
	mod     api.Module
	mem     api.Memory
	call    api.Function
	ctx     context.Context
	cond    *sync.Cond
	events  []abi2
	handles map[uint32]*object
	next    uint32
	task    *task
	watches int  // events outstanding
	told    bool // of a deadlock
	exit    error
	dropped int    // with host.null
	input   []byte // with host.null
}

type abi2 struct{ kind, handle uint32 }

type task struct {
	fn      uint32
	args    []*object
	results []*object
	stream  bool
	attempt uint32
	failed  []byte
}

type sandboxKey struct{}

// memoryPages is what a guest's memory may grow to: 64 MiB.
const memoryPages = 1024

// compiled keeps the programs' machine code between the tests.
var compiled = wazero.NewCompilationCache()

var progs sync.Map // directory to *sync.Once result

// build compiles a program under testdata for wasip1.
func build(tb testing.TB, name string) []byte {
	f, _ := progs.LoadOrStore(name, sync.OnceValues(func() ([]byte, error) {
		out := filepath.Join(os.TempDir(), fmt.Sprintf("wray-guest-test-%d-%s.wasm", os.Getpid(), name))
		defer os.Remove(out)
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-o", out, "./testdata/"+name)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, msg)
		}
		return os.ReadFile(out)
	}))
	b, err := f.(func() ([]byte, error))()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func newHost(tb testing.TB, prog string) *fakeHost {
	h := &fakeHost{tb: tb, ctx: context.Background(), declared: map[string]uint32{}}
	// A memory that has its capacity from the start is not copied when it grows,
	// which under the race detector takes longer than all that the guests do.
	h.rt = wazero.NewRuntimeWithConfig(h.ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled).
		WithMemoryLimitPages(memoryPages).WithMemoryCapacityFromMax(true))
	h.free = sync.NewCond(&h.mu)
	tb.Cleanup(func() {
		h.tasks.Wait() // one that is stuck is told of its deadlock
		h.rt.Close(h.ctx)
	})
	b := h.rt.NewHostModuleBuilder(abi.WASI)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	for _, f := range h.wasi() {
		f.export(b)
	}
	if _, err := b.Instantiate(h.ctx); err != nil {
		tb.Fatal(err)
	}
	b = h.rt.NewHostModuleBuilder(abi.Module)
	for _, f := range h.imports() {
		f.export(b)
	}
	if _, err := b.Instantiate(h.ctx); err != nil {
		tb.Fatal(err)
	}
	var err error
	if h.compiled, err = h.rt.CompileModule(h.ctx, build(tb, prog)); err != nil {
		tb.Fatal(err)
	}
	return h
}

// sandbox makes an instance and warms it up.
func (h *fakeHost) sandbox(stdout, stderr io.Writer, args ...string) *sandbox {
	h.tb.Helper()
	sb := &sandbox{host: h, handles: map[uint32]*object{}, cond: sync.NewCond(&h.mu)}
	sb.ctx = context.WithValue(h.ctx, sandboxKey{}, sb)
	var err error
	sb.mod, err = h.rt.InstantiateModule(sb.ctx, h.compiled, wazero.NewModuleConfig().WithName("").
		WithArgs(append([]string{"prog"}, args...)...).WithRandSource(rand.Reader).WithSysNanotime().WithSysWalltime().
		WithStdout(stdout).WithStderr(stderr).WithStartFunctions(abi.ExportInitialize))
	if err != nil {
		h.tb.Fatal(err)
	}
	sb.mem, sb.call = sb.mod.Memory(), sb.mod.ExportedFunction(abi.ExportCall)
	if r, err := sb.run(abi.OpWarmup, 8); r != 0 || err != nil {
		h.tb.Fatalf("warm-up: %d, %v", r, err)
	}
	return sb
}

func (sb *sandbox) run(op abi.Op, arg uint64) (uint32, error) {
	r, err := sb.call.Call(sb.ctx, uint64(op), arg)
	if err != nil {
		return 0, err
	}
	return uint32(r[0]), nil
}

// drive runs the program's driver and returns what it printed.
func drive(tb testing.TB, prog string, args ...string) (stdout, stderr string, code uint32, err error) {
	tb.Helper()
	return newHost(tb, prog).drive(args...)
}

func (h *fakeHost) drive(args ...string) (stdout, stderr string, code uint32, err error) {
	var o, e bytes.Buffer
	sb := h.sandbox(&o, &e, args...)
	code, err = sb.run(abi.OpMain, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.patient = false
	for _, waits := range h.deaf {
		waits.cond.Broadcast()
	}
	return o.String(), e.String(), code, err
}

// event gives sb an event; h.mu is held.
func (sb *sandbox) event(kind, handle uint32) {
	sb.events = append(sb.events, abi2{kind, handle})
	sb.cond.Broadcast()
}

func (sb *sandbox) add(o *object) uint32 {
	sb.next++
	sb.handles[sb.next] = o
	sb.host.handles++
	o.refcount++
	return sb.next
}

func (h *fakeHost) release(o *object) {
	o.refcount--
	if o.refcount > 0 {
		return
	}
	h.stored -= len(o.data)
	for _, r := range o.refs {
		h.release(r)
	}
	for _, sb := range h.waiting {
		sb.watches--
		sb.event(abi.EventSpace, 0)
	}
	h.waiting = nil
}

func (h *fakeHost) seal(o *object, v *object) {
	if o.ready {
		return
	}
	o.encoding, o.meta, o.data, o.refs, o.ready = v.encoding, v.meta, v.data, v.refs, true
	h.stored += len(o.data)
	for _, w := range o.watchers {
		w.sb.watches--
		w.sb.event(abi.EventReady, w.h)
	}
	o.watchers = nil
	for _, f := range o.then {
		f()
	}
	o.then = nil
}

// start runs t when its arguments are there; h.mu is held.
func (h *fakeHost) start(t *task) {
	h.tasks.Add(1)
	missing := 0
	for _, a := range t.args {
		if !a.ready {
			missing++
			a.then = append(a.then, func() {
				if missing--; missing == 0 {
					go h.execute(t)
				}
			})
		}
	}
	if missing == 0 {
		go h.execute(t)
	}
}

func (h *fakeHost) execute(t *task) {
	defer h.tasks.Done()
	h.mu.Lock()
	var sb *sandbox
	for sb == nil {
		if n := len(h.idle); n > 0 {
			sb, h.idle = h.idle[n-1], h.idle[:n-1]
		} else if h.made < cmp.Or(h.limit, maxExecutors) {
			break
		} else {
			h.free.Wait()
		}
	}
	if sb == nil {
		h.made++
	}
	h.mu.Unlock()
	if sb == nil {
		sb = h.sandbox(io.Discard, os.Stderr)
	}
	sb.task, sb.exit = t, nil
	if t.stream {
		t.results[0].maker = sb
	}
	_, err := sb.run(abi.OpTask, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.idle = append(h.idle, sb)
	} else {
		h.made--
	}
	h.free.Signal()
	if t.stream {
		s := t.results[0]
		if t.failed != nil {
			s.items = append(s.items, &object{ready: true, encoding: uint32(abi.EncodingError), data: t.failed, refcount: 1})
		}
		s.ended, s.maker = true, nil
		h.wakeReaders(s)
		return
	}
	for _, r := range t.results {
		v := &object{encoding: uint32(abi.EncodingError), data: t.failed}
		if t.failed == nil {
			v.data = []byte("\xa2\x01\x01\x02\x70no result, error") // Internal
			if err != nil {
				v.data = append([]byte("\xa2\x01\x04\x02\x79\x00\x00"), err.Error()...)
				binary.BigEndian.PutUint16(v.data[5:], uint16(len(err.Error())))
			}
		}
		h.seal(r, v)
	}
}

func (h *fakeHost) wakeReaders(s *object) {
	for _, w := range s.watchers {
		w.sb.watches--
		w.sb.event(abi.EventReady, w.h)
	}
	s.watchers = nil
}
