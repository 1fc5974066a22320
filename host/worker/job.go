package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// JobSpec is a program to run: a driver module, the modules submitted with it,
// and what it is granted.
type JobSpec struct {
	Name    string
	Modules []ModuleSpec // the first is the driver's
	Args    []string     // without the program's name
	Env     []string
	Dirs    []DirSpec
	Stdin   wasi.File // the driver's, may be nil
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

	mu      sync.Mutex
	actors  map[string]*actor   // guarded by mu; by name
	funcs   []*function         // guarded by mu; by the number that guests use, less one
	numbers map[function]uint32 // guarded by mu; of funcs
	waiting []queued            // guarded by mu; told when the queue has room

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
	idle    []*guest           // guarded by mu; the last is the warmest
	spare   []*sandbox.Sandbox // guarded by mu; clean, without guests
	closing bool               // guarded by mu

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
	j := &job{w: w, id: w.newID(), spec: spec, byName: map[string]*module{},
		tasks: make(chan struct{}), ended: make(chan struct{})}
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
	for i, ms := range spec.Modules {
		m := &module{job: j, name: ms.Name, declByName: map[string]uint32{}}
		var err error
		if i == 0 {
			j.byName[""] = m
		}
		if j.byName[ms.Name] != nil {
			return 0, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("two modules of the job are called %q", ms.Name),
				Hint: "give one another name: --with NAME=FILE.wasm"}
		}
		j.byName[ms.Name] = m
		m.m, err = w.engine.Load(ctx, ms.Artifact, sandbox.LoadOptions{Native: ms.Native, Attach: m.attach})
		if err != nil {
			return 0, fmt.Errorf("load module %s: %w", ms.Name, err)
		}
		j.modules = append(j.modules, m)
		if err := m.m.Prepare(ctx, j.sandboxLimits(0)); err != nil {
			return 0, prepareError(ms.Name, err)
		}
		m.prepared = true
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
	g.flush()
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
	c.Task, c.Attempt, c.Node = task, attempt, j.w.cfg.Node
	return &c
}

// end cancels what the job still runs and frees its sandboxes.
func (j *job) end() {
	j.w.step(nil, func(s *scheduler.Scheduler) { s.EndJob(j.w.now(), j.id) })
	<-j.tasks
	for _, m := range j.modules {
		m.closeIdle()
	}
	j.executors.Wait()
	for _, m := range j.modules {
		m.closeSpare()
	}
	close(j.ended)
}

// lookup finds or makes the number of a function.
func (j *job) lookup(moduleName, name string) (uint32, abi.Errno) {
	m := j.byName[moduleName]
	if m == nil {
		return 0, abi.ENOENT
	}
	f := &function{module: m, name: name}
	if name == abi.ExportStart && m.m.Command() {
		f.command = true
		f.name = m.name
	} else {
		i, ok := m.declByName[name]
		if !ok {
			return 0, abi.ENOENT
		}
		f.index = m.declared[i].index
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// Not a search: there may be 65,536 of them, and guests ask as often as they
	// like.
	n, ok := j.numbers[*f]
	if !ok {
		if j.numbers == nil {
			j.numbers = map[function]uint32{}
		}
		j.funcs = append(j.funcs, f)
		n = uint32(len(j.funcs))
		j.numbers[*f] = n
	}
	return n, abi.Success
}

// function returns the function with a number, or nil.
func (j *job) function(n uint32) *function {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n == 0 || int(n) > len(j.funcs) {
		return nil
	}
	return j.funcs[n-1]
}
