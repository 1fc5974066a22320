// Package node is the composition root of a node: it starts the processes,
// holds what they may not (files, keys, sockets), and wires the parts
// together. It never decodes, compiles or runs guest code.
package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/host/spill/s3"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
)

// Config configures a node. The zero value is a laptop: one tenant, the whole
// machine, the user's cache directory.
type Config struct {
	Name       string         // in errors; default the host's name
	CacheDir   string         // default wray in the user's cache directory
	Tenant     string         // default "local"
	Capacity   wray.Resources // what tasks may hold; default the machine's
	Custom     []wray.Custom  // and of other resources, each name once
	Labels     []wray.Label   // what tasks may ask for by, beside what every node has; each key once
	StoreBytes int64          // the object store; default three tenths of memory
	Sandboxes  int            // of tasks at once; default worker.DefaultSandboxes
	Residents  int            // actors that have a sandbox at once; default worker.DefaultResidents
	Slots      int            // sandboxes that run at once; default the processors
	// SpillDirs take objects that the object store has no room for: directories, and
	// where these take no more, buckets (s3://BUCKET/PREFIX). Default: spill in
	// CacheDir, unless that lies in memory. NoSpill: none.
	SpillDirs  []string
	SpillS3    s3.Config // how buckets are reached; URL is not used
	SpillLimit int64     // bytes of all together; default half of what is free in directories, and defaultBucket with a bucket
	// State is the directory of durable actors; none where it is empty.
	State string
	// AllowWeak lets a worker run on a machine that cannot lock it up. It opens
	// the host to a guest that breaks out of its sandbox.
	AllowWeak bool
}

// Node is a running node.
type Node struct {
	cfg   Config
	cache *codecache.Cache
	spill []spill.Place // none: objects stay in memory
	state *statelog.Dir // nil: there are no durable actors

	jobs    atomic.Pointer[jobs.Jobs] // nil: none are submitted
	publish *publisher                // nil of a node that is alone; set by TakeJobs

	mu       sync.Mutex
	worker   *workerProcess // guarded by mu; nil before the first job and after a death
	starting *start         // guarded by mu; nil while no worker is being started
	closed   bool           // guarded by mu
	member   *member.Member // guarded by mu; nil for a node that is alone
	peers    *peering       // nil likewise; set by Join, before anything runs

	ending sync.WaitGroup // workers found dead, and questions whether one is
	grace  time.Duration  // timeoutGrace; tests set it

	modules moduleBudget
	running atomic.Int64 // jobs whose drivers run here
	places  sync.Once    // closes spill
	leaving sync.Once    // leaves the cluster
	drain   drain
}

// New returns a node. Its worker starts with the first job. Close it.
func New(cfg Config) (*Node, error) {
	if cfg.Name == "" {
		cfg.Name, _ = os.Hostname()
	}
	if cfg.Tenant == "" {
		cfg.Tenant = "local"
	}
	if cfg.CacheDir == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		cfg.CacheDir = dir
	}
	if cfg.Capacity.Memory <= 0 {
		cfg.Capacity.Memory = worker.DefaultMemory() // the worker's jail lets it ask nobody
	}
	cache, err := codecache.Open(codecache.Config{
		Root: cfg.CacheDir, Identity: sandbox.Identity(),
		Compiler: codecache.Compiler{Args: []string{child.CompilerVerb}, AllowWeak: cfg.AllowWeak},
	})
	if err != nil {
		return nil, fmt.Errorf("open the code cache: %w", err)
	}
	n := &Node{cfg: cfg, cache: cache, grace: timeoutGrace, drain: newDrain()}
	if err := n.openSpill(); err != nil {
		_ = cache.Close()
		return nil, err
	}
	if cfg.State != "" {
		if n.state, err = statelog.OpenDir(cfg.State); err != nil {
			closePlaces(n.spill)
			_ = cache.Close()
			return nil, fmt.Errorf("%s: %w", worker.StateFlag, err)
		}
	}
	return n, nil
}

// NoSpill is the directory that is none: objects stay in memory.
const NoSpill = "none"

// openSpill finds the place for objects that memory has no room for.
func (n *Node) openSpill() error {
	dirs, given := n.cfg.SpillDirs, len(n.cfg.SpillDirs) > 0
	if len(dirs) == 1 && dirs[0] == NoSpill {
		return nil
	}
	if !given {
		dirs = []string{filepath.Join(n.cfg.CacheDir, "spill")}
	}
	var places []spill.Place
	room := int64(0)
	ok := false
	defer func() {
		if !ok {
			closePlaces(places)
		}
	}()
	for _, dir := range dirs {
		if strings.HasPrefix(dir, s3.Scheme) {
			c := n.cfg.SpillS3
			c.URL = dir
			ctx, cancel := context.WithTimeout(context.Background(), bucketStart)
			b, err := s3.Open(ctx, c)
			cancel()
			if err != nil {
				return fmt.Errorf("%s %s: %w", objectstore.SpillDirFlag, dir, err)
			}
			places = append(places, b)
			room += defaultBucket
			continue
		}
		d, err := spill.OpenDir(dir)
		if err != nil {
			if !given {
				return nil // as without a disk: a full store says so
			}
			return fmt.Errorf("%s: %w", objectstore.SpillDirFlag, err)
		}
		if !given && spill.InMemory(d.Name()) {
			return nil
		}
		free, err := spill.Free(d.Name())
		if err != nil {
			free = defaultSpill
		}
		room = max(room, free/2)
		places = append(places, d)
	}
	if n.cfg.SpillLimit <= 0 {
		n.cfg.SpillLimit = room
	}
	n.spill, ok = places, true
	return nil
}

// closePlaces ends those that are more than a name.
func closePlaces(places []spill.Place) {
	for _, p := range places {
		if b, ok := p.(*s3.Bucket); ok {
			b.Close()
		}
	}
}

// bucketStart is how long a bucket may take to answer for the first time.
const bucketStart = 20 * time.Second

// defaultBucket is the room that is taken of a bucket where nothing is said.
const defaultBucket = 256 << 30

// newHost returns who keeps a new worker's objects, nil for nobody.
func (n *Node) newHost() *spill.Host {
	if len(n.spill) == 0 {
		return nil
	}
	return spill.NewHost(n.spill, n.cfg.SpillLimit)
}

// defaultSpill is the room assumed of a disk that does not tell.
const defaultSpill = 8 << 30

// CacheDir returns where compiled code is kept: $WRAY_CACHE, or wray in the
// user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("WRAY_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory: %w", err)
	}
	return filepath.Join(dir, "wray"), nil
}

// Close stops the worker and waits for it. It is idempotent.
func (n *Node) Close() error {
	jerr := errors.Join(n.stopScaling(context.Background(), false), n.closeJobs())
	n.mu.Lock()
	w := n.worker
	s := n.starting
	n.worker, n.closed = nil, true
	n.mu.Unlock()
	if s != nil {
		s.cancel()
		<-s.done
	}
	if w != nil {
		w.close()
	}
	n.ending.Wait()
	n.places.Do(func() { closePlaces(n.spill) })
	err := errors.Join(jerr, n.leave(false), n.cache.Close())
	if n.state != nil {
		err = errors.Join(err, n.state.Close())
	}
	return err
}

// Job is a program to run.
type Job struct {
	Name    string
	Modules []Module // the first is the driver's
	Args    []string
	Env     []string // key=value; nothing else is in the environment
	Dirs    []Dir
	Stdin   *os.File // may be nil
	Client  *os.File // nil, or the socket of the native client that is the driver
	Limits  worker.Limits
	// Compiled, where it is not nil, is called once the modules' bytes are no more
	// needed, which is long before the job ends.
	Compiled func()
	// Output takes what the job prints. It is called by one goroutine at a time,
	// and no more when Run has returned.
	Output func(task string, s worker.Stream, p []byte)
}

// Module is a module of a job.
type Module struct {
	Name string
	Wasm []byte
}

// Dir is a directory of the host that a job is granted.
type Dir struct {
	Host     string
	Guest    string
	ReadOnly bool
}

// Run runs a job to its end and returns its driver's exit code. An error says
// why there is none. Canceling ctx ends the job.
func (n *Node) Run(ctx context.Context, j Job) (int, error) {
	if err := n.errDraining(); err != nil {
		return 0, err
	}
	n.running.Add(1)
	defer n.running.Add(-1)
	r := &run{job: j}
	defer r.close()
	body := worker.RunBody{Name: j.Name, Args: j.Args, Env: j.Env, Memory: j.Limits.Memory,
		Stack: j.Limits.Stack, Files: j.Limits.Files, Handles: j.Limits.Handles, Windows: j.Limits.Windows, LogRate: j.Limits.LogRate, Timeout: int64(j.Limits.Timeout)}
	for _, d := range j.Dirs {
		root, err := os.OpenRoot(d.Host)
		if err != nil {
			return 0, fmt.Errorf("grant %s: %w", d.Host, err)
		}
		r.roots = append(r.roots, root)
		fs := wasi.NoSymlinks(wasi.RootFS(root))
		if d.ReadOnly {
			fs = wasi.ReadOnly(fs)
		}
		r.dirs = append(r.dirs, fs)
		body.Dirs = append(body.Dirs, worker.DirBody{Guest: d.Guest, ReadOnly: d.ReadOnly})
	}
	// The worker starts while the cache is looked through.
	type started struct {
		w   *workerProcess
		err error
	}
	ready := make(chan started, 1)
	hashes := make([]string, len(j.Modules))
	if n.peers != nil {
		var end func()
		hashes, end = n.peers.share(j.Modules)
		defer end()
	}
	go func() {
		w, err := n.startWorker(ctx)
		ready <- started{w, err}
	}()
	var files []*os.File
	var cerr error
	for i, m := range j.Modules {
		e, err := n.cache.Get(ctx, n.cfg.Tenant, m.Wasm)
		if err != nil {
			cerr = err
			break
		}
		f, err := os.Open(e.ArtifactPath)
		if err != nil {
			cerr = err
			break
		}
		r.files = append(r.files, f)
		files = append(files, f)
		body.Modules = append(body.Modules, worker.ModuleBody{Name: m.Name, Native: e.NativePath, Hash: hashes[i]})
	}
	s := <-ready
	j.Modules, r.job.Modules = slices.Clone(j.Modules), nil
	for i := range j.Modules {
		j.Modules[i].Wasm = nil // whose bytes may be many
	}
	if j.Compiled != nil {
		j.Compiled()
	}
	if cerr != nil {
		return 0, cerr
	}
	if s.err != nil {
		return 0, s.err
	}
	if j.Stdin != nil {
		body.Stdin = true
		files = append(files, j.Stdin)
	}
	if j.Client != nil {
		body.Client = true
		files = append(files, j.Client)
	}
	if err := n.errDraining(); err != nil { // it takes a while to compile
		return 0, err
	}
	body.Run = s.w.add(r)
	defer s.w.remove(body.Run)
	b, err := link.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("describe the job: %w", err)
	}
	call, overdue := n.watch(ctx, s.w, &j)
	m, err := s.w.conn.Call(call, link.Message{Kind: worker.KindRun, Body: b, Files: files})
	if late := overdue(); err != nil {
		if late != nil && ctx.Err() == nil {
			return 0, late
		}
		return 0, n.callError(ctx, s.w, err)
	}
	m.CloseFiles()
	var ran worker.RanBody
	if err := link.Unmarshal(m.Body, &ran); err != nil {
		return 0, n.died(s.w, err)
	}
	return ran.ExitCode, nil
}

// callError says why a job has no exit code.
func (n *Node) callError(ctx context.Context, w *workerProcess, err error) error {
	if ctx.Err() != nil {
		return &wray.Error{Code: wray.CodeCanceled, Message: "the job was canceled"}
	}
	if !errors.Is(err, link.ErrClosed) {
		return err
	}
	return n.died(w, err)
}

// What a worker has to end a job by itself when its timeout is over, and then to
// say that it is alive.
const (
	timeoutGrace = 10 * time.Second
	answerLimit  = 5 * time.Second
)

// errOverdue is why a call is canceled whose job's timeout is long over.
var errOverdue = errors.New("the job is overdue")

// watch returns a context for the call that runs j in w. Where j has a timeout
// and w has not ended it some time after that, the context ends, and a worker
// that says nothing at all is killed. overdue, which is to be called once the
// call is over, returns what is then to be told, else nil.
func (n *Node) watch(ctx context.Context, w *workerProcess, j *Job) (call context.Context, overdue func() error) {
	if j.Limits.Timeout <= 0 || j.Limits.Timeout > math.MaxInt64/1000 {
		return ctx, func() error { return nil }
	}
	call, cancel := context.WithCancelCause(ctx)
	// Each module's initialization has the job's timeout, too.
	limit := j.Limits.Timeout*time.Duration(1+len(j.Modules)) + n.grace
	done := make(chan struct{})
	silent := false
	timer := time.AfterFunc(limit, func() {
		defer close(done)
		cancel(errOverdue)
		asked, end := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
		defer end()
		// Not on this goroutine: a worker that reads nothing may keep the call.
		answered := make(chan error, 1)
		go func() {
			m, err := w.conn.Call(asked, link.Message{Kind: worker.KindStats})
			m.CloseFiles()
			answered <- err
		}()
		select {
		case err := <-answered:
			if err == nil {
				return
			}
			answered <- err
		case <-asked.Done():
		}
		silent = true
		w.proc.Kill() // which ends the link, and every call in it
		<-answered
	})
	return call, func() error {
		if timer.Stop() {
			cancel(nil)
			return nil
		}
		<-done
		e := &wray.Error{Code: wray.CodeTimeout, Node: n.cfg.Name,
			Message: fmt.Sprintf("the job ran longer than its timeout of %v, and its worker had not ended it %v later", j.Limits.Timeout, n.grace),
			Hint:    "its worker answers: it has been told to end the job, and other jobs go on"}
		if silent {
			e.Hint = "its worker did not answer and was killed; the next job gets a new one"
			n.drop(w)
		}
		return e
	}
}

// drop lets go of a worker that was killed.
func (n *Node) drop(w *workerProcess) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.worker == w {
		n.worker = nil
		n.ending.Go(w.close)
	}
}

// exitGrace is what a worker without a link has to end by itself, so that its
// exit can say why. One that guest code has taken over may not want to end.
const exitGrace = 2 * time.Second

// died lets go of a worker whose link has ended for err, or that sent what no
// worker sends, and says how it ended. The next job gets a new one.
func (n *Node) died(w *workerProcess, err error) error {
	n.mu.Lock()
	if n.worker == w {
		n.worker = nil
		n.ending.Add(1)
		defer n.ending.Done()
	}
	n.mu.Unlock()
	lied := errors.Is(err, link.ErrProtocol)
	if !lied {
		grace := time.NewTimer(exitGrace)
		defer grace.Stop()
		select {
		case <-w.proc.Done():
		case <-grace.C:
		}
	}
	w.close()
	e := &wray.Error{
		Code: wray.CodeWorkerDied, Node: n.cfg.Name, Message: fmt.Sprintf("the worker process %s", w.proc.Wait()),
		Trace: strings.TrimSpace(w.proc.Stderr()), Hint: "jobs that ran in it have ended, the next get a new one; run this one again, with less memory or fewer tasks if it was killed",
	}
	if lied {
		e.Message = fmt.Sprintf("the worker process was ended, as it sent what no worker sends: %v", err)
		e.Hint = "code of this job may have broken out of its sandbox: keep its modules, and do not run them again"
	}
	return e
}

// Stats returns the tasks of the running worker.
func (n *Node) Stats(ctx context.Context) (worker.StatsBody, error) {
	n.mu.Lock()
	w := n.worker
	n.mu.Unlock()
	var s worker.StatsBody
	if w == nil {
		return s, nil
	}
	m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindStats})
	if err != nil {
		return s, err
	}
	m.CloseFiles()
	return s, link.Unmarshal(m.Body, &s)
}

// Objects lists what the running worker's store holds, and who holds it.
func (n *Node) Objects(ctx context.Context, q clientwire.MemoryBody) (clientwire.Memory, error) {
	n.mu.Lock()
	w := n.worker
	n.mu.Unlock()
	var mem clientwire.Memory
	if w != nil {
		b, err := link.Marshal(q)
		if err != nil {
			return mem, err
		}
		m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindMemory, Body: b})
		if err != nil {
			return mem, err
		}
		m.CloseFiles()
		if err := link.Unmarshal(m.Body, &mem); err != nil {
			return mem, err
		}
	}
	mem.Node, mem.PID = n.cfg.Name, os.Getpid()
	return mem, nil
}

// Memory returns the bytes of memory that the worker takes, shared pages by
// their share (Pss; proc_pid_smaps(5)). Zero without a worker, and an error
// elsewhere than on Linux.
func (n *Node) Memory() (int64, error) {
	n.mu.Lock()
	w := n.worker
	n.mu.Unlock()
	if w == nil {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", w.proc.Pid()))
	if err != nil {
		return 0, fmt.Errorf("read the worker's memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("read the worker's memory: the kernel does not tell Pss")
}

// run is a job that a worker runs.
type run struct {
	job   Job
	roots []*os.Root
	dirs  []wasi.FS
	files []*os.File

	mu    sync.Mutex // held while Output runs
	ended bool       // guarded by mu; Run returns

	gate     sync.Mutex
	closing  bool           // guarded by gate; nothing more is printed
	printing sync.WaitGroup // outputs under way, whose worker may be gone
}

// lastWords is how long a worker that is gone waits, as it were, for what it
// printed last to be read. Its reader may have been stopped for good, and the
// other jobs of the worker are to be told.
const lastWords = time.Second

// print is output, but returns soon after ctx has ended; close waits for the rest.
func (r *run) print(ctx context.Context, b *worker.OutputBody) error {
	r.gate.Lock()
	if r.closing {
		r.gate.Unlock()
		return nil
	}
	done := make(chan error, 1)
	r.printing.Go(func() { done <- r.output(b) })
	r.gate.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(lastWords)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return ctx.Err()
	}
}

// output passes on what the job printed. A worker may say anything at any time:
// the lock keeps to what Job.Output promises.
func (r *run) output(b *worker.OutputBody) error {
	if b.Stream < worker.Stdout || b.Stream > worker.Notice {
		return fmt.Errorf("%w: output on stream %d", link.ErrProtocol, b.Stream)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended && r.job.Output != nil {
		r.job.Output(b.Task, b.Stream, b.Data)
	}
	return nil
}

func (r *run) close() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.gate.Lock()
	r.closing = true
	r.gate.Unlock()
	r.printing.Wait()
	for _, f := range r.files {
		f.Close()
	}
	for _, root := range r.roots {
		root.Close()
	}
}
