// Package worker is one tenant on one node: it ties the sandbox engine, the
// scheduler and the object store together and serves the guests' imports.
//
// A job's driver and its tasks live in the same worker, so a task never
// crosses a process. What lies outside, files and output, is asked of the node
// through the link that [Serve] reads.
package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Config configures a Worker.
type Config struct {
	Node        string           // the node's name, for errors
	CacheDir    string           // compiled code; empty: compile here (tests)
	Capacity    wray.Resources   // what tasks may hold; zero fields: the machine's
	Custom      []wray.Custom    // and of other resources, each name once
	StoreBytes  int64            // the object store's capacity
	Disk        objectstore.Disk // takes what the store has no room for; nil: there is none. Closed by its owner
	State       StateDir         // keeps what durable actors are; nil: there are none
	Drain       time.Duration    // how long an actor's calls have to end for a checkpoint, where it takes several at once; 0: DefaultDrain
	FullAfter   time.Duration    // how long a full store waits before it refuses; 0: DefaultFullAfter
	Slots       int              // sandboxes that run at once; 0: one for each processor
	Sandboxes   int              // of tasks at once; 0: DefaultSandboxes
	States      int64            // bytes of states of actors that sleep that are kept in memory, the others on Disk; 0: a share of Capacity
	Residents   int              // actors that have a sandbox at once; 0: DefaultResidents
	Windows     int              // mapped objects of all sandboxes; 0: what the kernel's limit allows
	Tenant      string           // whose it is, for errors
	Quota       wray.Quota       // what it may have, of what is enforced here
	Peering     Peering          // reaches the tenant's workers on other nodes; nil: there are none
	Labels      []scheduler.Label
	WarmSandbox int // idle sandboxes kept for each module; 0: 4 for each slot
}

// Worker runs jobs.
type Worker struct {
	cfg Config
	// limited is whether the quota bounds what is submitted.
	limited bool
	engine  *sandbox.Engine
	store   *objectstore.Store
	owner   uint64
	seq     atomic.Uint64
	// replaced counts sandboxes that could not be given back clean, as they had
	// grown past their snapshot.
	replaced atomic.Int64
	start    time.Time

	wg     sync.WaitGroup // executors and the ticker
	cancel context.CancelFunc

	// mu guards the scheduler and the tasks. It is held for microseconds, never
	// across a call into a guest or the store's callbacks.
	mu       sync.Mutex
	sched    *scheduler.Scheduler // guarded by mu
	tasks    taskList             // guarded by mu; not finished
	rate     submitRate           // guarded by mu
	jobs     map[wray.ID]*job     // guarded by mu
	closed   bool                 // guarded by mu
	nextTick int64                // guarded by mu; when the ticker wakes, 0 for not
	wakeTick chan struct{}        // tells the ticker of an earlier deadline

	// durableMu guards who waits for whom, of all durable actors. Nothing is locked
	// under it.
	durableMu sync.Mutex

	windows    atomic.Int64 // of all sandboxes
	maxWindows int64

	room       rooms
	hostWaits  atomic.Int64 // for payloads to come back, in tasks that run
	calls      callTable    // calls of actors that are not done
	circles    circles      // of actors that wait for each other
	residents  *residents
	begins     chan struct{} // one token for each actor that is given a sandbox
	places     *places
	fetchSlots chan struct{}                  // one token for each HTTP request under way
	idleGroups atomic.Pointer[placementGroup] // that nobody refers to any more, to be removed
	stash      *stash
	collector  collector
	asleep     atomic.Int64 // actors that sleep
	undrained  atomic.Int64 // see Stats

	peers *peerSet     // nil where there are none, ever
	runs  atomic.Int64 // calls of Run

	lingering map[*client]struct{} // guarded by mu; clients after their session
}

// DefaultResidents is how many actors have a sandbox at once where nothing is
// said, and memory is no closer bound (residentBudget). A process may have 65,530 mappings (vm.max_map_count), and a sandbox
// takes two and more.
const DefaultResidents = 16_000

// New returns a worker. Close it.
func New(ctx context.Context, cfg Config) (*Worker, error) {
	if cfg.Slots <= 0 {
		cfg.Slots = runtime.NumCPU()
	}
	if cfg.Capacity.CPU <= 0 {
		cfg.Capacity.CPU = wray.CPUs(float64(cfg.Slots))
	}
	if cfg.Capacity.Memory <= 0 {
		cfg.Capacity.Memory = DefaultMemory()
	}
	if cfg.StoreBytes <= 0 {
		cfg.StoreBytes = DefaultStore(cfg.Capacity.Memory)
	}
	if cfg.WarmSandbox <= 0 {
		cfg.WarmSandbox = 4 * cfg.Slots
	}
	if cfg.FullAfter <= 0 {
		cfg.FullAfter = DefaultFullAfter
	}
	if cfg.Sandboxes <= 0 {
		cfg.Sandboxes = DefaultSandboxes
	}
	cfg.bound()
	budget := residentBudget(cfg.Capacity.Memory, cfg.Residents)
	if cfg.Residents <= 0 {
		cfg.Residents = DefaultResidents
	}
	if cfg.Drain <= 0 {
		cfg.Drain = DefaultDrain
	}
	if cfg.States <= 0 {
		cfg.States = defaultStates(cfg.Capacity.Memory)
	}
	if cfg.Windows <= 0 {
		cfg.Windows = Mappings() / mappingsPerSlot
	}
	w := &Worker{cfg: cfg, start: time.Now(), residents: newResidents(cfg.Residents, budget), begins: make(chan struct{}, 2*cmp.Or(max(cfg.Slots, 0), runtime.NumCPU())), places: newPlaces(cfg.Sandboxes), fetchSlots: make(chan struct{}, MaxFetches), maxWindows: int64(cfg.Windows),
		jobs: map[wray.ID]*job{}, wakeTick: make(chan struct{}, 1)}
	q := &cfg.Quota
	w.limited = q.Actors > 0 || q.Tasks > 0 || q.SubmitRate > 0
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("draw the worker's identity: %w", err)
	}
	w.owner = binary.LittleEndian.Uint64(seed[:])
	var err error
	if w.engine, err = sandbox.NewEngine(ctx, sandbox.Config{
		CacheDir: cfg.CacheDir, Modules: []sandbox.HostModule{HostModule()}, Slots: cfg.Slots,
	}); err != nil {
		return nil, err
	}
	if w.store, err = objectstore.New(objectstore.Config{Capacity: cfg.StoreBytes, OnPressure: w.onPressure, Disk: cfg.Disk,
		MaxObjects: cfg.Quota.Objects, ErrObjects: cfg.Quota.Exceeded(cfg.Tenant, "objects")}); err != nil {
		_ = w.engine.Close(ctx)
		return nil, err
	}
	sc := scheduler.Config{Capacity: cfg.Capacity, Quota: cfg.allowed(), Custom: cfg.Custom, Node: cfg.Node, Labels: cfg.Labels}
	if d := cfg.Quota.Depth; d > 0 && d < scheduler.DefaultMaxDepth {
		sc.MaxDepth = int(d)
	}
	if cfg.Peering != nil {
		sc.Patience = int64(patience)
	}
	if w.sched, err = scheduler.New(sc); err != nil {
		_ = w.store.Close()
		_ = w.engine.Close(ctx)
		return nil, err
	}
	w.stash = newStash(cfg.Disk, cfg.States, &w.collector, w.wg.Go)
	w.residents.full, w.residents.collector = w.stash.full, &w.collector
	tctx, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	w.room.w, w.room.ctx = w, tctx
	if cfg.Peering != nil {
		w.peers = newPeerSet(tctx, w, cfg.Peering)
	}
	w.wg.Add(1)
	go w.tickLoop(tctx)
	return w, nil
}

// idStep is the distance between the IDs of two tasks: a task's results have
// the numbers in between, so that an object names its maker.
const idStep = 1 << 12

// newID returns an ID that nothing else has, of a task or an object that no
// task makes.
func (w *Worker) newID() wray.ID { return wray.ID{Owner: w.owner, Seq: w.seq.Add(idStep)} }

// resultID returns the ID of a task's result.
func resultID(task wray.ID, index int) wray.ID {
	return wray.ID{Owner: task.Owner, Seq: task.Seq + 1 + uint64(index)}
}

// makerOf returns the task that makes an object, or the zero ID.
func makerOf(object wray.ID) wray.ID {
	if object.Seq%idStep == 0 {
		return wray.ID{}
	}
	return wray.ID{Owner: object.Owner, Seq: object.Seq &^ (idStep - 1)}
}

// now is the worker's monotonic time in nanoseconds.
func (w *Worker) now() int64 {
	now := int64(time.Since(w.start))
	w.store.Clock().Set(uint32(now / int64(time.Second)))
	return now
}

// Close ends every job, waits for what runs, and frees everything. It is
// idempotent.
func (w *Worker) Close(ctx context.Context) error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	jobs := make([]*job, 0, len(w.jobs))
	for _, j := range w.jobs {
		jobs = append(jobs, j)
	}
	w.mu.Unlock()
	for _, j := range jobs {
		if g := j.driver.Load(); g != nil {
			g.kill(wray.Errorf(wray.CodeCanceled, "the worker is closing"))
		}
	}
	if w.peers != nil {
		w.peers.close()
	}
	for _, j := range jobs {
		<-j.ended
	}
	w.mu.Lock()
	for c := range w.lingering {
		c.conn.Close()
	}
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
	err := w.store.Close()
	if cerr := w.engine.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

// Stats is a picture of the worker.
type Stats struct {
	Tasks scheduler.Stats
	Store objectstore.Stats
	// Replaced counts the used sandboxes that were closed because a reset could
	// not give them back clean: nearly always because they had grown.
	Replaced int64
	// Resident and Asleep count the actors with a sandbox and without.
	Resident int
	Asleep   int64
	// AsleepBytes is what states of actors that sleep, and checkpoints, take of
	// memory, and AsleepOnDisk what those take that were moved to disk.
	AsleepBytes, AsleepOnDisk int64
	// Undrained counts the times that an actor with several calls under way took no
	// checkpoint since they did not end.
	Undrained int64
}

// Stats returns the worker's figures.
func (w *Worker) Stats() Stats {
	w.mu.Lock()
	s := w.sched.Stats(w.now())
	w.mu.Unlock()
	memory, disk := w.stash.figures()
	return Stats{Tasks: s, Store: w.store.Stats(), Replaced: w.replaced.Load(),
		Resident: w.residents.count(), Asleep: w.asleep.Load(), AsleepBytes: memory, AsleepOnDisk: disk, Undrained: w.undrained.Load()}
}

// DefaultStore is the capacity of the object store where nothing is said and
// tasks may hold so much memory.
func DefaultStore(memory int64) int64 { return memory * 3 / 10 }

// fallbackMemory is the memory assumed of a machine that does not tell.
const fallbackMemory = 4 << 30
