// Package node is the composition root of a node: it starts the processes,
// holds what they may not (files, keys, sockets), and wires the parts
// together. It never decodes, compiles or runs guest code.
package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/host/spill/s3"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/signature"
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
	// Tenants are the tenants beside its own of a node that is alone. In a cluster
	// the control state has them.
	Tenants map[string]control.Tenant
	// State is the directory of durable actors; none where it is empty.
	State string
	// Trust are those of whom one must have signed a module before it is compiled,
	// and TrustOf the same of a tenant's, in place of Trust. Nobody: anybody's module
	// is, signed or not.
	Trust   []signature.Signer
	TrustOf map[string][]signature.Signer
	// WorkerIdle is how long a tenant's worker that has nothing to do is kept; 0:
	// DefaultWorkerIdle, less than 0: as long as the node lives.
	WorkerIdle time.Duration
	// EgressPrivate are networks that are not public and that jobs of the node's own
	// tenant may ask all the same, as wray.Policy.Private has them, where the control
	// state has no policy of it.
	EgressPrivate []string
	// AllowWeak lets a worker run on a machine that cannot lock it up. It opens
	// the host to a guest that breaks out of its sandbox.
	AllowWeak bool
}

// Node is a running node.
type Node struct {
	cfg   Config
	cache *codecache.Cache
	spill []spill.Place // none: objects stay in memory

	jobs    atomic.Pointer[jobs.Jobs] // nil: none are submitted
	publish *publisher                // nil of a node that is alone; set by TakeJobs

	auditLog *audit.Log // nil: nothing is recorded

	mu       sync.Mutex
	tenants  map[string]*tenant          // guarded by mu, as are their workers
	records  map[string]control.Tenant   // guarded by mu; of the tenants that there are. A map is never changed
	followed bool                        // guarded by mu; records are what the control state has
	seen     control.Revision            // guarded by mu; all commits until this one are in records
	early    map[string]control.Revision // guarded by mu; of records, those that were asked for: commits after seen
	closed   bool                        // guarded by mu
	member   *member.Member              // guarded by mu; nil for a node that is alone
	peers    *peering                    // nil likewise; set by Join, before anything runs

	grace  time.Duration   // timeoutGrace; tests set it
	living context.Context // ends when the node is closed
	die    func()
	ends   sync.WaitGroup // of tenants that were removed
	fds    *fd.Budget     // descriptors that tenants may hold; nil: as many as they like
	spills *spill.Budget  // what objects of all tenants may take of spill; nil where there is none

	modules moduleBudget
	places  sync.Once // closes spill
	leaving sync.Once // leaves the cluster
	drain   drain
}

// New returns a node. A tenant's worker starts with its first job. Close it.
func New(cfg Config) (*Node, error) {
	if cfg.Name == "" {
		cfg.Name, _ = os.Hostname()
	}
	if cfg.Tenant == "" {
		cfg.Tenant = "local"
	}
	if cfg.WorkerIdle == 0 {
		cfg.WorkerIdle = DefaultWorkerIdle
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
	n := &Node{cfg: cfg, cache: cache, grace: timeoutGrace, drain: newDrain(), fds: newDescriptors(fd.Limit()), tenants: map[string]*tenant{}, records: maps.Clone(cfg.Tenants), early: map[string]control.Revision{}}
	n.living, n.die = context.WithCancel(context.Background())
	if err := n.openSpill(); err != nil {
		_ = cache.Close()
		return nil, err
	}
	// Whether its own tenant's state can be had is known at once.
	t, err := n.tenant("")
	if err == nil {
		_, err = t.openState()
	}
	if err != nil {
		closePlaces(n.spill)
		_ = cache.Close()
		return nil, err
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
	n.spills = spill.NewBudget(n.cfg.SpillLimit)
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

// newHost returns who keeps the objects of a new worker of the tenant, nil for
// nobody.
func (t *tenant) newHost() *spill.Host {
	n := t.n
	if len(n.spill) == 0 {
		return nil
	}
	q := t.record().Quota
	return spill.NewHost(n.spill, n.cfg.SpillLimit).Within(n.spills, q.SpillBytes, q.Exceeded(t.name, "spill-bytes")).Holding(t.fds)
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

// Close stops the workers and waits for them. It is idempotent.
func (n *Node) Close() error {
	jerr := errors.Join(n.stopScaling(context.Background(), false), n.closeJobs())
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.die()
	all := n.allTenants()
	var ends sync.WaitGroup
	for _, t := range all {
		ends.Go(t.end)
	}
	ends.Wait()
	n.ends.Wait()
	n.places.Do(func() { closePlaces(n.spill) })
	err := errors.Join(jerr, n.leave(false), n.cache.Close())
	for _, t := range all {
		err = errors.Join(err, t.closeState())
	}
	return err
}

// dying is closed when the node is being closed.
func (n *Node) dying() <-chan struct{} {
	if n.living == nil { // in tests
		return nil
	}
	return n.living.Done()
}

// Job is a program to run.
type Job struct {
	Name    string
	Tenant  string   // whose it is; default the node's
	Modules []Module // the first is the driver's
	Args    []string
	Env     []string // key=value; nothing else is in the environment
	Dirs    []Dir
	Egress  []string // servers that it may ask over HTTP, as wray.ParseEgress reads them
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
	t, err := n.admit(ctx, j.Tenant)
	if err != nil {
		return 0, err
	}
	r := &run{job: j}
	if r.egress, err = t.grants(&j); err != nil {
		return 0, err
	}
	t.begins()
	defer t.ran()
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
	if t.peers != nil {
		var end func()
		hashes, end = t.peers.share(j.Modules)
		defer end()
	}
	go func() {
		w, err := t.startWorker(ctx)
		ready <- started{w, err}
	}()
	var files []*os.File
	var cerr error
	for i, m := range j.Modules {
		var e codecache.Entry
		err := n.cfg.admits(t.name, m.Wasm)
		if err == nil {
			e, err = n.cache.Get(ctx, t.code(), m.Wasm)
		}
		n.admitted(t.name, m.Name, m.Wasm, err)
		if err == nil {
			r.modules = append(r.modules, moduleSum{e.Module, m.Name})
			err = t.suspects.check(t.name, r.modules[i])
		}
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
	call, overdue := t.watch(ctx, s.w, &j)
	m, err := s.w.conn.Call(call, link.Message{Kind: worker.KindRun, Body: b, Files: files})
	if late := overdue(); err != nil {
		if late != nil && ctx.Err() == nil {
			return 0, late
		}
		return 0, t.callError(ctx, s.w, err)
	}
	m.CloseFiles()
	var ran worker.RanBody
	if err := link.Unmarshal(m.Body, &ran); err != nil {
		return 0, t.died(s.w, err)
	}
	return ran.ExitCode, nil
}

// run is a job that a worker runs.
type run struct {
	job     Job
	modules []moduleSum
	roots   []*os.Root
	dirs    []wasi.FS
	files   []*os.File
	egress  []wray.EgressRule
	fetches fetches

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
	r.fetches.close()
	for _, f := range r.files {
		f.Close()
	}
	for _, root := range r.roots {
		root.Close()
	}
}
