package worker

import (
	"context"
	"fmt"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// tinyGuest is a module that speaks wray_v1 and does nothing: _initialize
// declares the function "f", wray_call returns 0. Its memory is one page.
func tinyGuest() []byte {
	section := func(id byte, body string) string { return string([]byte{id, byte(len(body))}) + body }
	name := func(s string) string { return string([]byte{byte(len(s))}) + s }
	return []byte("\x00asm\x01\x00\x00\x00" +
		section(1, "\x03"+
			"\x60\x04\x7f\x7f\x7f\x7f\x01\x7f"+ // 0: (i32 i32 i32 i32) -> i32
			"\x60\x00\x00"+ // 1: ()
			"\x60\x02\x7f\x7f\x01\x7f") + // 2: (i32 i32) -> i32
		section(2, "\x01"+name(abi.Module)+name("declare")+"\x00\x00") +
		section(3, "\x02\x01\x02") +
		section(5, "\x01\x00\x01") +
		section(7, "\x03"+name("memory")+"\x02\x00"+name("_initialize")+"\x00\x01"+name("wray_call")+"\x00\x02") +
		section(10, "\x02"+
			"\x0d\x00\x41\x00\x41\x01\x41\x07\x41\x00\x10\x00\x1a\x0b"+ // declare(0, 1, 7, 0)
			"\x04\x00\x41\x00\x0b") +
		section(11, "\x01\x00\x41\x00\x0b\x01f"))
}

// jobs makes jobs of one module, without drivers that run.
type jobs struct {
	w   *Worker
	m   *sandbox.Module
	now *module // whose guests the next sandboxes are
}

// newJobs returns a worker that has loaded the module. set changes its
// configuration.
func newJobs(t testing.TB, wasm []byte, set ...func(*Config)) *jobs {
	t.Helper()
	ctx := context.Background()
	cfg := Config{Node: "test", StoreBytes: 64 << 20, Slots: 1, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 30}}
	for _, f := range set {
		f(&cfg)
	}
	w, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &jobs{w: w}
	t.Cleanup(func() {
		if h.m != nil {
			h.m.Close(ctx)
		}
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	a, err := sandbox.Rewrite(wasm, sandbox.CompileOptions{Modules: []sandbox.HostModule{HostModule()}})
	if err != nil {
		t.Fatal(err)
	}
	if h.m, err = w.engine.Load(ctx, a, sandbox.LoadOptions{Attach: func(sb *sandbox.Sandbox) { h.now.attach(sb) }}); err != nil {
		t.Fatal(err)
	}
	return h
}

// start begins a job as Worker.Run does, and returns its driver, which runs
// only what the test calls. stop ends the job, waits for its tasks, and says
// what it has left behind.
func (h *jobs) start(t testing.TB) (driver *guest, stop func() error) {
	t.Helper()
	w := h.w
	j := &job{w: w, id: w.newID(), byName: map[string]*module{}, tasks: make(chan struct{}), ended: make(chan struct{}), fetching: newFetching()}
	m := &module{job: j, name: "tiny", m: h.m, declByName: map[string]uint32{}}
	j.byName[""], j.byName["tiny"] = m, m
	j.modules = []*module{m}
	if h.now == nil {
		h.now = m
		if err := h.m.Prepare(context.Background(), j.sandboxLimits(0)); err != nil {
			t.Fatal(err)
		}
	} else {
		m.declared, m.declByName = h.now.declared, h.now.declByName
	}
	m.prepared = true
	h.now = m
	w.mu.Lock()
	err := w.sched.AddJob(w.now(), j.id)
	if err == nil {
		w.jobs[j.id] = j
	}
	w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.newGuest(0)
	if err != nil {
		t.Fatal(err)
	}
	g.driver = true
	j.driver.Store(g)
	return g, func() error {
		j.driver.Store(nil)
		g.close()
		j.end()
		w.mu.Lock()
		tasks, st := w.tasks.n, w.store.Stats()
		var sched scheduler.Stats = w.sched.Stats(w.now())
		w.mu.Unlock()
		if tasks != 0 || st.Objects != 0 || st.Used != 0 || st.Windows != 0 || sched.Running != 0 || sched.Waiting != 0 {
			return fmt.Errorf("left behind: %d tasks, store %+v, scheduler %+v", tasks, st, sched)
		}
		return nil
	}
}

// call calls an import of wray_v1 as the guest's code would.
func (g *guest) call(name string, params ...uint64) abi.Errno {
	for _, f := range HostModule().Funcs {
		if f.Name == name {
			stack := append(params, 0)
			f.Call(g.sb, g.sb.Memory(), stack)
			return abi.Errno(stack[0])
		}
	}
	panic("no import " + name)
}
