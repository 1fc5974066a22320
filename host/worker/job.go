package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// JobSpec is a program to run: a driver module, the modules submitted with it,
// and what it is granted.
type JobSpec struct {
	Name    string
	Run     uint64       // the node's number for it
	Modules []ModuleSpec // the first is the driver's
	Args    []string     // without the program's name
	Env     []string
	Dirs    []DirSpec
	Stdin   wasi.File // the driver's, may be nil
	// Fetch has the node do a step of an HTTP request; nil: none are made. It is
	// called by several goroutines.
	Fetch func(ctx context.Context, b FetchBody) (FetchReply, error)
	// Client, where it is not nil, is the socket of a native client, which then
	// is the driver; there may be no modules. Run closes it.
	Client *os.File
	Limits Limits
	// Began and Ended, where they are not nil, are called as the driver's code
	// begins, from when on the Timeout counts, and as it ends, before what the job
	// leaves behind is cleaned up.
	Began, Ended func()
	// Output takes what the job prints, in order, from one goroutine, and may
	// take its time. task is the name of the task, "" for the driver. p is
	// borrowed for the call.
	Output func(task string, s Stream, p []byte)
}

// ModuleSpec is a compiled module.
type ModuleSpec struct {
	Name     string            // what sdk.Module calls it
	Artifact *sandbox.Artifact // decoded
	Native   string            // file of compiled code
	Hash     string            // what peers ask for it by: SHA-256 of its bytes, in hexadecimal
}

// DirSpec is a granted directory.
type DirSpec struct {
	Guest    string
	ReadOnly bool
	FS       wasi.FS
}

// Limits bound a job. A zero field takes its default.
type Limits struct {
	Memory  int64         // bytes for each sandbox, unless a task asks otherwise
	Stack   int32         // bytes of native stack for each sandbox
	Files   int           // open descriptors for each sandbox
	Handles int           // handles for each sandbox; 0: DefaultHandles
	Windows int           // mapped objects for each sandbox; 0: DefaultWindows
	LogRate int64         // bytes a second that each sandbox's tasks print; 0: DefaultLogRate
	Timeout time.Duration // of the whole job
}

// Stream says where output came from.
type Stream uint8

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	Notice Stream = 3 // what wray says about the job, for its user
)

// job is a running program.
type job struct {
	w       *Worker
	id      wray.ID
	spec    JobSpec
	modules []*module          // by position in the spec
	byName  map[string]*module // by name; "" is the driver's

	executors sync.WaitGroup

	queued queue   // calls of actors that wait
	out    *output // nil where nobody reads it
	// fullTold is set when the job was told that it waits for room in the store.
	fullTold atomic.Bool
	// fetching is its HTTP requests; nil of a mirror.
	fetching *fetching
	mirror   *mirror // where it is the job of another worker
	// bound are the *functions that have run into what only this node has.
	bound sync.Map

	// opening is held while it is found out whether an earlier job has left an
	// actor, and before mu: nobody else makes one of the name meanwhile.
	opening sync.Mutex

	mu      sync.Mutex
	actors  map[string]*actor               // guarded by mu; by name
	groups  map[string]*placementGroup      // guarded by mu; by name
	funcs   map[uint32]*function            // guarded by mu; by number
	waiting []queued                        // guarded by mu; told when the queue has room
	slowed  bool                            // guarded by Worker.mu; a timer will let those submit that wait
	images  map[wray.ID]*objectstore.Object // guarded by mu; of modules at peers, by the ID there

	guestsMu sync.Mutex
	guests   map[*guest]struct{} // guarded by guestsMu; not closed, for the census

	driver atomic.Pointer[guest]
	tasks  chan struct{} // closed when the last task is done
	ended  chan struct{} // closed when everything of the job is freed
}

// queued is a guest that waits for room in the job's queue.
type queued struct {
	g     *guest
	epoch uint64
}

// module is a job's module with its idle sandboxes.
type module struct {
	job  *job
	name string
	m    *sandbox.Module

	prepared   bool              // the snapshot is taken; declared is fixed
	declared   []declared        // written during Prepare only
	declByName map[string]uint32 // name to position in declared

	mu      sync.Mutex
	image   *objectstore.Object // guarded by mu; see imageObject
	idle    []*guest            // guarded by mu; the last is the warmest
	spare   []*sandbox.Sandbox  // guarded by mu; clean, without guests
	fresh   atomic.Int64        // how long the linear memory of a new sandbox is
	closing bool                // guarded by mu

	resetting atomic.Bool // a guest is in resetEarly

	hashed sync.Once
	hash   string // set by hashed; of the content, where a durable actor is of it
}

// declared is a function that a module offers.
type declared struct {
	name  string
	index uint32
	flags uint32
}

// function is a function as the guests of a job call it.
type function struct {
	module  *module
	name    string
	index   uint32
	command bool
}

// Run runs a job to its end and returns the driver's exit code. A non-nil
// error says why there is none. Canceling ctx ends the job.
func (w *Worker) Run(ctx context.Context, spec JobSpec) (int, error) {
	w.runs.Add(1)
	defer w.ranOne()
	j := &job{w: w, id: w.newID(), spec: spec, byName: map[string]*module{},
		tasks: make(chan struct{}), ended: make(chan struct{}), fetching: newFetching()}
	defer j.fetching.close()
	if spec.Client != nil {
		defer spec.Client.Close()
	} else if len(spec.Modules) == 0 {
		return 0, errors.New("a job needs a module")
	}
	defer j.unload(context.WithoutCancel(ctx))
	if spec.Output != nil {
		j.out = newOutput(spec.Output)
		defer j.out.close()
	}
	if err := j.load(ctx); err != nil {
		return 0, err
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return 0, wray.Errorf(wray.CodeCanceled, "the worker is closing")
	}
	if err := w.sched.AddJob(w.now(), j.id); err != nil {
		w.mu.Unlock()
		return 0, err
	}
	w.jobs[j.id] = j
	w.mu.Unlock()
	defer j.end()
	if spec.Client != nil {
		return 0, j.runClient(ctx, spec.Client)
	}
	return j.runDriver(ctx)
}

// load loads the job's modules and takes their snapshots.
func (j *job) load(ctx context.Context) error {
	for i, ms := range j.spec.Modules {
		m := &module{job: j, name: ms.Name, declByName: map[string]uint32{}}
		var err error
		if i == 0 {
			j.byName[""] = m
		}
		if j.byName[ms.Name] != nil {
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("two modules of the job are called %q", ms.Name),
				Hint: "give one another name: --with NAME=FILE.wasm"}
		}
		j.byName[ms.Name] = m
		m.m, err = j.w.engine.Load(ctx, ms.Artifact, sandbox.LoadOptions{Native: ms.Native, Attach: m.attach})
		if err != nil {
			return fmt.Errorf("load module %s: %w", ms.Name, err)
		}
		j.modules = append(j.modules, m)
		if err := m.m.Prepare(ctx, j.sandboxLimits(0)); err != nil {
			return prepareError(ms.Name, err)
		}
		m.prepared = true
	}
	return nil
}

func prepareError(name string, err error) error {
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		return &wray.Error{Code: wray.CodeExit, Message: fmt.Sprintf(
			"module %s exited with %d during its initialisation", name, exit.Code), ExitCode: int(exit.Code)}
	}
	var e *wray.Error
	if errors.As(err, &e) {
		c := *e
		c.Message = fmt.Sprintf("module %s, initialisation: %s", name, e.Message)
		return &c
	}
	return fmt.Errorf("prepare module %s: %w", name, err)
}

// sandboxLimits returns the limits of a sandbox for a task that asks for
// memory bytes, 0 for the job's default.
func (j *job) sandboxLimits(memory int64) sandbox.Limits {
	l := j.spec.Limits
	if memory <= 0 {
		memory = l.Memory
	}
	return sandbox.Limits{Memory: memory, Stack: l.Stack, Files: l.Files, Init: l.Timeout}
}

// runDriver runs the driver to its end.
func (j *job) runDriver(ctx context.Context) (int, error) {
	m := j.modules[0]
	g, err := m.newGuest(0)
	if err != nil {
		return 0, err
	}
	defer g.close()
	g.driver = true
	j.driver.Store(g)
	defer j.driver.Store(nil)
	if in, ok := j.spec.Stdin.(*input); ok {
		in.onReady(g.sb.Signal)
	}
	g.configure(m.args(), j.spec.Stdin)
	if j.spec.Began != nil {
		j.spec.Began()
	}
	if j.spec.Limits.Timeout > 0 {
		g.sb.SetDeadline(j.spec.Limits.Timeout)
	}
	stop := context.AfterFunc(ctx, func() {
		g.sb.Kill(wray.Errorf(wray.CodeCanceled, "the job was canceled"))
	})
	defer stop()
	var code uint32
	if m.m.Tasks() {
		code, err = g.sb.Call(abi.OpMain, 0)
	} else {
		code, err = g.sb.Start()
	}
	if j.spec.Ended != nil {
		j.spec.Ended()
	}
	err = g.ended(err)
	var exit *sandbox.ExitError
	switch {
	case errors.As(err, &exit):
		return int(exit.Code), nil
	case err != nil && ctx.Err() != nil:
		return 0, wray.Errorf(wray.CodeCanceled, "the job was canceled")
	case err != nil:
		return 0, j.named(err, "driver", 0)
	}
	return int(code), nil
}

// unload lets the job's modules go, when their sandboxes are closed.
func (j *job) unload(ctx context.Context) {
	for _, m := range j.modules {
		m.m.Close(ctx)
	}
}

// named adds where an error happened.
func (j *job) named(err error, task string, attempt int) *wray.Error {
	var e *wray.Error
	if !errors.As(err, &e) {
		e = &wray.Error{Code: wray.CodeInternal, Message: err.Error()}
	}
	c := *e
	c.Task, c.Attempt, c.Node = task, attempt, cmp.Or(e.Node, j.w.cfg.Node) // it may have happened elsewhere
	return &c
}

// end cancels what the job still runs and frees its sandboxes.
func (j *job) end() {
	j.w.step(nil, func(s *scheduler.Scheduler) { s.EndJob(j.w.now(), j.id) })
	<-j.tasks
	j.endAtPeers()
	for _, m := range j.modules {
		m.closeIdle()
	}
	j.fetching.close() // nobody reads what comes
	j.executors.Wait()
	for _, m := range j.modules {
		m.closeSpare()
		m.forgetImage()
	}
	j.mu.Lock()
	images := j.images
	j.images = nil
	j.mu.Unlock()
	letGoAll(images)
	close(j.ended)
}

// moduleFunctions is how many numbers of functions a module has.
const moduleFunctions = 1 << 17

// lookup returns the number of a function. A program finds the same numbers in
// each of its jobs: a durable actor remembers those of an earlier one.
func (j *job) lookup(moduleName, name string) (uint32, abi.Errno) {
	m := j.byName[moduleName]
	if m == nil {
		return 0, abi.ENOENT
	}
	f := &function{module: m, name: name}
	n := uint32(moduleFunctions - 1)
	if name == abi.ExportStart && m.m.Command() {
		f.command = true
		f.name = m.name
	} else {
		i, ok := m.declByName[name]
		if !ok {
			return 0, abi.ENOENT
		}
		f.index, n = m.declared[i].index, i
	}
	n += 1 + moduleFunctions*uint32(slices.Index(j.modules, m))
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.funcs[n] == nil {
		if j.funcs == nil {
			j.funcs = map[uint32]*function{}
		}
		j.funcs[n] = f
	}
	return n, abi.Success
}

// function returns the function with a number, or nil.
func (j *job) function(n uint32) *function {
	j.mu.Lock()
	f := j.funcs[n]
	j.mu.Unlock()
	if f != nil || n == 0 {
		return f
	}
	// Perhaps one that a durable actor has looked up in another job.
	i, at := int((n-1)/moduleFunctions), (n-1)%moduleFunctions
	if i >= len(j.modules) || at >= uint32(len(j.modules[i].declared)) {
		return nil
	}
	m := j.modules[i]
	if _, e := j.lookup(m.name, m.declared[at].name); e != abi.Success {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.funcs[n]
}
