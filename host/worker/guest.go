package worker

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// guest is the worker's side of one sandbox: what its handles mean, what it
// runs, and where its output goes. It belongs to the goroutine that runs the
// sandbox, except where a field says otherwise.
type guest struct {
	w       *Worker
	job     *job
	module  *module
	sb      *sandbox.Sandbox
	handles *objectstore.Handles
	memory  int64              // the limit it was made with
	windows map[uint32]*window // mapped objects by address

	driver bool
	task   *task      // what it runs, nil for a driver
	run    chan *task // an executor's next task; closed to end it
	held   *task      // submitted and started, and not yet given to an executor

	watches    []*watch // of objects that were not there
	wantsSpace bool     // waits for room in the job's queue
	wantsRoom  bool     // waits for room in the store or in a stream
	// cancelSpace withdraws the wait for room in the store; may be nil.
	cancelSpace func() bool
	// reclaimed is when the guest was last asked to collect. Any goroutine.
	reclaimed atomic.Int64

	// out counts the events that are on their way: watches, room, space. Any
	// goroutine.
	out struct {
		sync.Mutex
		n     int    // guarded by Mutex
		epoch uint64 // guarded by Mutex; counts resets, so that what was asked for before one gives no event after it
	}
	blocked bool          // has given its CPU back
	used    bool          // has run a task since it was clean
	resumed chan struct{} // the task has its CPU again; one at most

	stdout, stderr lineWriter
}

// attach gives a new sandbox its guest, before any of its code runs.
func (m *module) attach(sb *sandbox.Sandbox) {
	g := &guest{w: m.job.w, job: m.job, module: m, sb: sb,
		run: make(chan *task, 1), resumed: make(chan struct{}, 1), windows: map[uint32]*window{}}
	sb.Host = g
	sb.SetHooks(g)
	g.handles = objectstore.NewHandles(maxHandles)
	g.stdout = lineWriter{g: g, stream: Stdout}
	g.stderr = lineWriter{g: g, stream: Stderr}
	g.configure(m.args(), nil)
}

// args are the arguments that the module's sandboxes see. Guests read them,
// the environment and the granted directories while they initialise, so they
// are part of the snapshot and the same for driver and tasks.
func (m *module) args() []string {
	if m == m.job.byName[""] {
		return append([]string{m.name}, m.job.spec.Args...)
	}
	return []string{m.name}
}

// maxHandles bounds the handles of one sandbox.
const maxHandles = 1 << 20

// newGuest makes a sandbox of the module, with memory bytes at most or the
// job's default for 0.
func (m *module) newGuest(memory int64) (*guest, error) {
	l := m.job.sandboxLimits(memory)
	sb, err := m.m.New(l)
	if err != nil {
		return nil, prepareError(m.name, err)
	}
	g := sb.Host.(*guest)
	g.memory = memory
	return g, nil
}

// configure sets what the guest's next calls see.
func (g *guest) configure(args []string, stdin wasi.File, env ...string) {
	c := wasi.Config{Args: args, Env: append(slices.Clone(g.job.spec.Env), env...), Stdin: stdin,
		Stdout: g.stdout.Write, Stderr: g.stderr.Write}
	for _, d := range g.job.spec.Dirs {
		c.Dirs = append(c.Dirs, wasi.Dir{GuestPath: d.Guest, ReadOnly: d.ReadOnly, FS: d.FS})
	}
	if err := g.sb.Configure(&c); err != nil {
		// What came in from outside was checked when the job was made.
		panic(fmt.Sprintf("BUG: %v", err))
	}
}

// reset gives the sandbox back clean, or reports that it cannot be.
func (g *guest) reset() bool {
	g.drop()
	g.task, g.used = nil, false
	if !g.sb.Reset() {
		g.w.replaced.Add(1)
		return false
	}
	g.configure(g.module.args(), nil)
	return true
}

func (g *guest) close() {
	g.flush()
	g.drop()
	g.sb.Close()
}

// drop gives back the guest's handles, windows and watches.
func (g *guest) drop() {
	g.release()
	if g.cancelSpace != nil {
		g.cancelSpace()
		g.cancelSpace = nil
	}
	for _, w := range g.watches {
		w.w.Cancel()
	}
	clear(g.watches)
	g.watches = g.watches[:0]
	for at := range g.windows {
		g.unmap(at)
	}
	g.handles.Reset()
	g.out.Lock()
	g.out.n, g.out.epoch = 0, g.out.epoch+1
	g.out.Unlock()
	g.wantsSpace, g.wantsRoom, g.blocked = false, false, false
}

// endTask forgets what the last task waited for, before the next one.
func (g *guest) endTask() {
	g.release()
	g.task = nil
	g.sb.SetDeadline(0)
}

// watch is a guest's wait for an object. It gives at most one event.
type watch struct {
	g      *guest
	handle uint32
	epoch  uint64
	object wray.ID
	w      *objectstore.Watch
	done   atomic.Bool // the event was sent
}

// watchObject has the guest told when o is there.
func (g *guest) watchObject(o *objectstore.Object, handle uint32) {
	w := &watch{g: g, handle: handle, object: o.ID(), epoch: g.expect()}
	w.w = o.Watch(w)
	if !w.done.Load() {
		if len(g.watches) >= 64 && len(g.watches) == cap(g.watches) {
			g.watches = slices.DeleteFunc(g.watches, func(w *watch) bool { return w.done.Load() })
		}
		g.watches = append(g.watches, w)
	}
}

// ObjectReady implements objectstore.Watcher.
func (w *watch) ObjectReady(*objectstore.Object) {
	w.done.Store(true)
	w.g.event(w.epoch, abi.EventReady, w.handle)
}

// flush passes on what the guest printed without ending the line.
func (g *guest) flush() {
	g.stdout.flush()
	g.stderr.flush()
}

// name is what the guest's output is headed with: its task, "" for the driver.
func (g *guest) name() string {
	if g.task == nil {
		return ""
	}
	return g.task.label()
}

// Park implements sandbox.Hooks: a task that waits for an object gives its CPU
// back.
func (g *guest) Park(_ *sandbox.Sandbox, timed bool) {
	g.release()
	if g.task == nil || !g.Outstanding(nil) {
		return
	}
	var on scheduler.Wait
	if !timed {
		on = g.waitsFor()
	}
	g.blocked = true
	g.w.blocked(g.task, on)
}

// waitsFor tells the scheduler what can end the guest's wait.
func (g *guest) waitsFor() (on scheduler.Wait) {
	g.watches = slices.DeleteFunc(g.watches, func(w *watch) bool { return w.done.Load() })
	for _, w := range g.watches {
		on.Objects = append(on.Objects, w.object)
	}
	on.Space = g.wantsSpace
	if g.wantsRoom {
		on = scheduler.Wait{} // a reader or the store decides
	}
	return on
}

// Unpark implements sandbox.Hooks: the task gets its CPU again before it runs.
func (g *guest) Unpark(*sandbox.Sandbox) {
	if !g.blocked {
		return
	}
	g.blocked = false
	g.w.unblocked(g)
}

// Outstanding implements sandbox.Hooks.
func (g *guest) Outstanding(*sandbox.Sandbox) bool {
	g.out.Lock()
	defer g.out.Unlock()
	return g.out.n > 0
}

// expect counts an event that is on its way. Whoever sends it passes the
// result to event or to unexpect.
func (g *guest) expect() (epoch uint64) {
	g.out.Lock()
	defer g.out.Unlock()
	g.out.n++
	return g.out.epoch
}

// unexpect takes back an expect whose event does not come, and reports whether
// the guest is still the one that expected it.
func (g *guest) unexpect(epoch uint64) bool {
	g.out.Lock()
	defer g.out.Unlock()
	if g.out.epoch != epoch {
		return false
	}
	g.out.n--
	return true
}

// event gives the guest an event that it expects.
func (g *guest) event(epoch uint64, kind, handle uint32) {
	g.out.Lock()
	defer g.out.Unlock()
	if g.out.epoch == epoch {
		g.out.n--
		g.notify(kind, handle)
	}
}

// notify gives the guest an event that it did not wait for.
func (g *guest) notify(kind, handle uint32) {
	g.sb.Notify(sandbox.Event{Kind: kind, Handle: handle})
}

// lineWriter passes output on in whole lines, so that tasks do not mix within
// one.
type lineWriter struct {
	g      *guest
	stream Stream
	buf    []byte
}

const maxLine = 64 << 10

// Write never fails. A guest that prints fast waits here until the node has
// taken what it printed.
func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	if len(l.buf) == 0 {
		// Whole lines pass without a copy.
		if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
			l.out(p[:i+1])
			p = p[i+1:]
		}
		l.buf = append(l.buf, p...)
	} else {
		if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
			l.buf = append(l.buf, p[:i+1]...)
			l.out(l.buf)
			l.buf, p = l.buf[:0], p[i+1:]
		}
		l.buf = append(l.buf, p...)
	}
	if len(l.buf) > maxLine {
		l.flush()
	}
	return n, nil
}

func (l *lineWriter) flush() {
	if len(l.buf) > 0 {
		l.out(l.buf)
		l.buf = l.buf[:0]
	}
}

func (l *lineWriter) out(p []byte) {
	g := l.g
	if t := g.task; t != nil && t.fn.command {
		t.capture(l.stream, p)
		return
	}
	if g.job.spec.Output != nil {
		g.job.spec.Output(g.name(), l.stream, p)
	}
}
