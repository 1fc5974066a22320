package worker

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/internal/gotrace"
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
	sb      *sandbox.Sandbox // nil while it sleeps; changed under out
	handles *objectstore.Handles
	client  *client            // that this is, in place of a sandbox; or nil
	memory  int64              // the limit it was made with
	windows map[uint32]*window // mapped objects by address

	driver  bool
	task    *task                    // what it runs, nil for a driver; of several calls the selected one, or nil
	last    atomic.Pointer[function] // that it ran or runs, for listings
	holder  *task                    // what the scheduler knows it by: task, or the creation of the actor that it is
	run     chan *task               // an executor's next task; closed to end it
	durable *durableCall             // that it runs, of a durable actor
	serves  bool                     // it runs the calls of an actor that takes several at once
	held    *task                    // submitted and started, and not yet given to an executor
	many    bool                     // it may go on with other tasks, see taskNext
	over    *task                    // ended by taskNext, while the guest has not returned
	between between                  // ended by taskNext, while the guest has not begun the next
	next    *task                    // started, to be run when it has; belongs to the executor

	watches    []*watch      // of objects that were not there
	live       *atomic.Int64 // how many of them are under way; replaced by drop, nil before the first
	wantsSpace bool          // waits for room in the job's queue
	// queuedIn is the epoch, plus one, in which the guest is in job.waiting; 0:
	// it is not there. Guarded by job.mu.
	queuedIn  uint64
	wantsRoom bool // waits for room in the store or in a stream
	// cancelSpace withdraws the wait for room in the store; may be nil.
	cancelSpace func() bool
	// fullFor is the epoch, plus one, in which a wait for room was given up.
	fullFor atomic.Uint64
	fetches fetches
	// reclaimed is when the guest was last asked to collect. Any goroutine.
	reclaimed atomic.Int64

	// out counts the events that are on their way: watches, room, space. Any
	// goroutine.
	out struct {
		sync.Mutex
		n int // guarded by Mutex
		// streams are those that the guest was promised a READY of.
		streams map[*objectstore.Stream]struct{} // guarded by Mutex
		epoch   uint64                           // guarded by Mutex; counts resets, so that what was asked for before one gives no event after it
	}
	refused *wray.Error     // why the last call was refused; nil where the errno says it all
	missed  []sandbox.Event // came while it slept; guarded by out
	blocked bool            // has given its CPU back
	used    bool            // has run a task since it was clean
	resumed chan struct{}   // the task has its CPU again; one at most

	ids            []wray.ID // of a submission's results, used again by the next
	work           int64     // ns of host work in this call that were not charged yet
	stdout, stderr lineWriter
	dump           gotrace.Dump // what may be the end of a Go program, held back from the output
	log            logBucket
	printing       bool // waits in print
}

// attach gives a new sandbox its guest, before any of its code runs.
func (m *module) attach(sb *sandbox.Sandbox) {
	g := &guest{w: m.job.w, job: m.job, module: m, sb: sb,
		run: make(chan *task, 1), resumed: make(chan struct{}, 1), windows: map[uint32]*window{}}
	sb.Host = g
	sb.SetHooks(g)
	g.handles = m.job.newHandles()
	m.job.enter(g)
	g.stdout = lineWriter{g: g, stream: Stdout}
	g.stderr = lineWriter{g: g, stream: Stderr}
	g.configure(m.args(), nil)
}

// newHandles returns the table of a new guest.
func (j *job) newHandles() *objectstore.Handles {
	h := objectstore.NewHandles(j.maxHandles())
	h.Clock = j.w.store.Clock()
	return h
}

// enter has the census look at g, until leave.
func (j *job) enter(g *guest) {
	j.guestsMu.Lock()
	defer j.guestsMu.Unlock()
	if j.guests == nil {
		j.guests = map[*guest]struct{}{}
	}
	j.guests[g] = struct{}{}
}

func (j *job) leave(g *guest) {
	j.guestsMu.Lock()
	defer j.guestsMu.Unlock()
	delete(j.guests, g)
}

// maxHandles bounds the handles of each guest.
func (j *job) maxHandles() int { return cmp.Or(max(j.spec.Limits.Handles, 0), DefaultHandles) }

// origin is what objects that the guest makes say of their maker: the job.
func (g *guest) origin() uint64 { return g.job.id.Seq }

// args are the arguments that the module's sandboxes see. Guests read them,
// the environment and the granted directories while they initialise, so they
// are part of the snapshot and the same for driver and tasks.
func (m *module) args() []string {
	if m == m.job.byName[""] {
		return append([]string{m.name}, m.job.spec.Args...)
	}
	return []string{m.name}
}

// DefaultHandles bounds the handles of one sandbox where a job says nothing.
const DefaultHandles = 1 << 20

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
		if g.job.mirror != nil {
			d.FS = homeFS{g}
		}
		d.FS = &narrowFS{FS: d.FS, g: g, guest: d.Guest}
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
	g.task, g.holder, g.used, g.refused = nil, nil, false, nil
	if !g.sb.Reset() {
		g.w.replaced.Add(1)
		return false
	}
	g.configure(g.module.args(), nil)
	return true
}

func (g *guest) close() {
	g.job.leave(g)
	g.flush()
	if g.sb == nil {
		for at := range g.windows {
			g.forgetWindow(at)
		}
		g.drop()
		return
	}
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
	g.unwatch()
	g.letGoAll(false)
	for at := range g.windows {
		g.unmap(at)
	}
	// As with watches: whoever waits for the end of a guest that was stopped need
	// not wait for a million handles.
	if rest := g.handles.ResetSome(manyHandles); rest != nil {
		g.job.executors.Go(rest)
	}
	g.out.Lock()
	g.out.n, g.out.epoch = 0, g.out.epoch+1
	clear(g.out.streams)
	g.out.Unlock()
	g.wantsSpace, g.wantsRoom, g.blocked = false, false, false
}

// manyWatches is how many watches are withdrawn at once: some 100 µs.
const manyWatches = 1 << 10

// manyHandles is how many handles are given back at once: some milliseconds.
const manyHandles = 1 << 13

// unwatch withdraws the guest's watches. Where it has piled up many, that is
// done aside: whoever waits for the end of a guest that was stopped need not
// wait for it. drop sees to it that none of them gives an event.
func (g *guest) unwatch() {
	watches := g.watches
	g.live = nil
	if len(watches) > manyWatches {
		g.watches = nil
		g.job.executors.Go(func() { cancelAll(watches) }) // the caller is one, or the job has not ended
		return
	}
	cancelAll(watches)
	clear(watches)
	g.watches = watches[:0]
}

func cancelAll(watches []*watch) {
	for _, w := range watches {
		w.w.Cancel()
	}
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
	live   *atomic.Int64 // the guest's when it was made
	done   atomic.Bool   // the event was sent; see ObjectReady
}

// watchObject has the guest told when o is there.
func (g *guest) watchObject(o *objectstore.Object, handle uint32) {
	if g.live == nil {
		g.live = new(atomic.Int64)
	}
	g.live.Add(1)
	w := &watch{g: g, handle: handle, object: o.ID(), epoch: g.expect(), live: g.live}
	w.w = o.Watch(w)
	if !w.done.Load() {
		if len(g.watches) >= 64 && len(g.watches) == cap(g.watches) {
			g.watches = slices.DeleteFunc(g.watches, func(w *watch) bool { return w.done.Load() })
		}
		g.watches = append(g.watches, w)
	}
}

// mayWatch refuses n more waits of a guest that has as many as it may. What it
// was told and did not read counts as well: who watches what is there has an
// event at once, and could go on for ever.
func (g *guest) mayWatch(n int) abi.Errno {
	most := g.job.maxHandles()
	have := g.watching()
	g.out.Lock()
	have += len(g.out.streams)
	g.out.Unlock()
	if g.sb != nil {
		have += g.sb.Unread()
	}
	if have+n <= most {
		return abi.Success
	}
	return g.refuse(&wray.Error{
		Code:    wray.CodeLimitExceeded,
		Message: fmt.Sprintf("the sandbox waits for %d objects, or has not read that they are there, and would for %d more", have, n),
		Limit:   &wray.Limit{Name: "watches", Value: int64(most), Flag: objectstore.HandlesFlag},
		Hint:    "watch an object once, until it is there",
	}, abi.E2BIG)
}

// watching returns how many watches are under way.
func (g *guest) watching() int {
	if g.live == nil {
		return 0
	}
	return int(g.live.Load())
}

// ObjectReady implements objectstore.Watcher.
func (w *watch) ObjectReady(*objectstore.Object) {
	w.live.Add(-1)
	w.g.event(w.epoch, abi.EventReady, w.handle)
	w.done.Store(true) // not before: a checkpoint has either the watch or its event
}

// flush passes on what the guest printed without ending the line.
func (g *guest) flush() {
	if len(g.stdout.buf)+len(g.stderr.buf) > 0 && g.sb != nil {
		g.sb.ReleaseTurn() // what follows may wait for the node
	}
	g.stdout.flush()
	g.stderr.flush()
	g.undump()
}

// name is what the guest's output is headed with: its task, "" for the driver.
func (g *guest) name() string {
	switch {
	case g.serves:
		return g.holder.label() // which call prints only the guest knows
	case g.over != nil:
		return g.over.label()
	case g.before() != nil:
		return g.between.ended.label()
	case g.task == nil:
		return ""
	}
	return g.task.label()
}

// Park implements sandbox.Hooks: a task that waits for an object gives its CPU
// back.
func (g *guest) Park(_ *sandbox.Sandbox, timed bool) {
	g.undump() // it goes on
	g.release()
	if g.holder == nil || !g.Outstanding(nil) {
		return
	}
	var on scheduler.Wait
	var objects []wray.ID
	if !timed {
		on, objects = g.waitsFor()
	}
	g.blocked = true
	a := g.holder.makes
	if a != nil {
		a.parked.Store(true)
		g.w.residents.changed()
	} else {
		g.w.places.block(1)
	}
	g.w.blocked(g.holder, on)
	if a != nil {
		g.waitsLong(a, objects)
	}
}

// waitsFor tells the scheduler what can end the guest's wait, and which objects
// it waits for, whatever else it does.
func (g *guest) waitsFor() (on scheduler.Wait, objects []wray.ID) {
	g.watches = slices.DeleteFunc(g.watches, func(w *watch) bool { return w.done.Load() })
	for _, w := range g.watches {
		on.Objects = append(on.Objects, w.object)
	}
	objects = on.Objects
	on.Space = g.wantsSpace
	if g.wantsRoom || g.printing || g.fetching() || g.serves {
		on = scheduler.Wait{} // a reader, the store or a caller decides
	}
	return on, objects
}

// Unpark implements sandbox.Hooks: the task gets its CPU again before it runs.
func (g *guest) Unpark(*sandbox.Sandbox) {
	if !g.blocked {
		return
	}
	g.blocked = false
	if a := g.holder.makes; a != nil {
		a.parked.Store(false)
		g.w.waitsNoMore(a)
	} else {
		// Only when it has its CPU again: that may be held by a started task that
		// waits for a place.
		defer g.w.places.block(-1)
	}
	g.w.unblocked(g)
}

// Outstanding implements sandbox.Hooks.
func (g *guest) Outstanding(*sandbox.Sandbox) bool {
	g.out.Lock()
	n := g.out.n
	g.out.Unlock()
	return n > 0 || g.serves && g.holder.makes.mayBeCalled()
}

// expect counts an event that is on its way. Whoever sends it passes the
// result to event or to unexpect.
func (g *guest) expect() (epoch uint64) {
	g.out.Lock()
	defer g.out.Unlock()
	g.out.n++
	return g.out.epoch
}

// epoch returns the number of resets.
func (g *guest) epoch() uint64 {
	g.out.Lock()
	defer g.out.Unlock()
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
		g.sendLocked(sandbox.Event{Kind: kind, Handle: handle})
	}
}

// sendLocked gives the guest an event, or keeps it for when the guest wakes.
func (g *guest) sendLocked(e sandbox.Event) {
	if g.client != nil {
		g.client.event(e)
		return
	}
	if g.sb == nil {
		g.missed = append(g.missed, e)
		return
	}
	g.sb.Notify(e)
}

// cancel tells the guest that t, which it runs, is canceled.
func (g *guest) cancel(t *task) {
	n := t.id.Seq
	if t.actor != nil && !g.serves {
		n = t.shownID().Seq
	}
	g.send(sandbox.Event{Kind: abi.EventCancel, Arg: n})
}

// send gives the guest an event that it did not wait for.
func (g *guest) send(e sandbox.Event) {
	g.out.Lock()
	defer g.out.Unlock()
	g.sendLocked(e)
}

// signal has a guest that waits look at what it waits for.
func (g *guest) signal() {
	g.out.Lock()
	defer g.out.Unlock()
	if g.sb != nil {
		g.sb.Signal()
	}
}

// notify gives the guest an event that it did not wait for.
func (g *guest) notify(kind, handle uint32) {
	g.send(sandbox.Event{Kind: kind, Handle: handle})
}

// lineWriter passes output on in whole lines, so that tasks do not mix within
// one.
type lineWriter struct {
	g      *guest
	stream Stream
	buf    []byte
}

const maxLine = 64 << 10

// Write never fails. It is called by the guest, which may wait in it.
func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		if len(l.buf) == 0 {
			l.out(p[:i+1], true) // whole lines pass without a copy
		} else {
			l.buf = append(l.buf, p[:i+1]...)
			l.take(true)
		}
		p = p[i+1:]
	}
	l.buf = append(l.buf, p...)
	if len(l.buf) > maxLine {
		l.take(true)
	}
	return n, nil
}

// flush passes on what is there. The guest does not run.
func (l *lineWriter) flush() { l.take(false) }

// take empties the buffer. It does so first: the guest may be stopped in out.
func (l *lineWriter) take(inCall bool) {
	if p := l.buf; len(p) > 0 {
		l.buf = p[:0]
		l.out(p, inCall)
	}
}

func (l *lineWriter) out(p []byte, inCall bool) {
	g := l.g
	if t := g.task; t != nil && t.fn.command {
		t.capture(l.stream, p)
		return
	}
	if l.stream == Stderr && g.dumps(p, inCall) {
		return
	}
	g.undump()
	g.print(l.stream, p, inCall)
}
