package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/fd"
	"github.com/wray-project/wray/internal/link"
)

// tenant is what a node has of one tenant: the worker in which its programs run,
// the directory of its durable actors, its workers on other nodes. Nothing of it
// is shared with another tenant but the node itself.
type tenant struct {
	n       *Node
	name    string
	created int64        // tells it from another that had the name
	peers   *tenantPeers // nil of a node that is alone

	gone     bool             // guarded by n.mu; it was removed
	stale    bool             // guarded by n.mu; the worker, or the one that starts, is to be replaced when it has nothing to do: it has another quota than the tenant, or is of no use to others
	worker   *workerProcess   // guarded by n.mu; nil before the first job and after a death
	starting *start           // guarded by n.mu; nil while no worker is being started
	retiring chan struct{}    // guarded by n.mu; closed when it is known whether the worker goes; nil: it is not asked
	past     worker.StatsBody // guarded by n.mu; of workers that were given up

	ending   sync.WaitGroup // workers found dead, and questions whether one is
	watchers sync.WaitGroup // who wait for workers to end, and replace them
	restarts atomic.Int64   // workers that have died
	young    int            // guarded by n.mu; of them, the last ones that died young
	suspects suspects
	running  atomic.Int64 // jobs whose drivers run here
	fds      *fd.Share    // descriptors of this process; may be nil

	logs   byteRate
	egress tenantEgress

	stateMu sync.Mutex
	state   *statelog.Dir // guarded by stateMu; nil: not opened yet, or there are no durable actors

	given   *workerProcess // guarded by scaling.asking; that was told promises, of version givenAt
	givenAt uint64
}

// tenant returns what the node has of a tenant, empty for its own.
func (n *Node) tenant(name string) (*tenant, error) {
	if name == "" {
		name = n.cfg.Tenant
	}
	if err := control.CheckTenant(name); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.recordLocked(name); !ok {
		return nil, noTenant(name)
	}
	t := n.tenants[name]
	if t == nil {
		t = &tenant{n: n, name: name, created: n.records[name].Created, fds: n.fds.Share("tenant " + name)}
		if n.peers != nil {
			t.peers = n.peers.of(t)
		}
		n.tenants[name] = t
	}
	return t, nil
}

// epoch tells the tenant from others that had its name, on all nodes alike. That of
// those who run the cluster is always the same.
func (t *tenant) epoch() int64 {
	if t.name == t.n.cfg.Tenant {
		return 0
	}
	return t.created
}

// code names the tenant's directory of the code cache, which no other tenant has
// had.
func (t *tenant) code() string {
	if t.name == t.n.cfg.Tenant {
		return t.name
	}
	return fmt.Sprintf("%s@%x", t.name, t.created)
}

// worker returns the running worker of a tenant, nil where there is none.
func (n *Node) worker(tenant string) (*workerProcess, error) {
	t, err := n.tenant(tenant)
	if err != nil {
		return nil, err
	}
	return t.current(), nil
}

// allTenants returns the tenants that the node has anything of, by name.
func (n *Node) allTenants() []*tenant {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []*tenant
	for _, name := range slices.Sorted(maps.Keys(n.tenants)) {
		list = append(list, n.tenants[name])
	}
	return list
}

// current returns the tenant's worker, nil where none runs.
func (t *tenant) current() *workerProcess {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	return t.worker
}

// end stops the worker of a node that is closed, and waits for it.
func (t *tenant) end() {
	t.n.mu.Lock()
	w, s, r := t.worker, t.starting, t.retiring
	t.worker = nil
	t.n.mu.Unlock()
	if s != nil {
		s.cancel()
		<-s.done
	}
	if w != nil {
		w.end()
	}
	if r != nil {
		<-r // the end of its worker answers it
	}
	t.watchers.Wait()
	t.ending.Wait()
}

// openState opens the directory of the tenant's durable actors; nil where the
// node has none. The node's own tenant has the directory that the node was given,
// others have theirs in it.
func (t *tenant) openState() (*statelog.Dir, error) {
	if t.n.cfg.State == "" {
		return nil, nil
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	if t.state != nil {
		return t.state, nil
	}
	dir := t.n.cfg.State
	if t.name != t.n.cfg.Tenant {
		dir = filepath.Join(dir, "tenants")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("%s: %w", worker.StateFlag, err)
		}
		dir = filepath.Join(dir, t.code()) // no other tenant has had it
	}
	d, err := statelog.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", worker.StateFlag, err)
	}
	t.state = d
	return d, nil
}

// removeState removes what the tenant's durable actors are.
func (t *tenant) removeState() error {
	d, err := t.openState()
	if d == nil {
		return err
	}
	return errors.Join(t.closeState(), os.RemoveAll(d.Path()))
}

// endedLocked is why the tenant gets no worker any more. n.mu is held.
func (t *tenant) endedLocked() error {
	switch {
	case t.n.closed:
		return wray.Errorf(wray.CodeCanceled, "the node is closing")
	case t.gone:
		return noTenant(t.name)
	}
	return nil
}

// byteRate is what a tenant may print, or send and receive, now: a bucket of bytes that a second fills.
// A message may be larger than that: what it takes too much the next ones wait for.
type byteRate struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
	left float64   // guarded by mu; bytes, or less than none
}

// take takes n bytes, and returns how long to wait before they are passed on.
func (l *byteRate) take(now time.Time, n int, rate int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := float64(rate)
	if l.last.IsZero() {
		l.left = full
	} else {
		l.left = min(full, l.left+now.Sub(l.last).Seconds()*full)
	}
	l.last = now
	l.left -= float64(n)
	if l.left >= 0 {
		return 0
	}
	return time.Duration(-l.left / full * float64(time.Second))
}

// slowDown waits until the tenant may print n bytes more, by its quota.
func (t *tenant) slowDown(ctx context.Context, n int) error {
	if t == nil {
		return nil
	}
	return t.logs.wait(ctx, n, t.record().Quota.LogRate)
}

// wait waits until n bytes more may pass. A rate of 0 bounds nothing.
func (l *byteRate) wait(ctx context.Context, n int, rate int64) error {
	if rate <= 0 {
		return nil
	}
	wait := time.NewTimer(l.take(time.Now(), n, rate))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tenant) closeState() error {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	if t.state == nil {
		return nil
	}
	return t.state.Close()
}

// callError says why a job has no exit code.
func (t *tenant) callError(ctx context.Context, w *workerProcess, err error) error {
	if ctx.Err() != nil {
		return &wray.Error{Code: wray.CodeCanceled, Message: "the job was canceled"}
	}
	if !errors.Is(err, link.ErrClosed) {
		return err
	}
	return t.died(w, err)
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
func (t *tenant) watch(ctx context.Context, w *workerProcess, j *Job) (call context.Context, overdue func() error) {
	if j.Limits.Timeout <= 0 || j.Limits.Timeout > math.MaxInt64/1000 {
		return ctx, func() error { return nil }
	}
	call, cancel := context.WithCancelCause(ctx)
	// Each module's initialization has the job's timeout, too.
	n := t.n
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
			t.dead(w, "it did not answer and was killed", true)
			t.drop(w)
		}
		return e
	}
}

// drop lets go of a worker that was killed.
func (t *tenant) drop(w *workerProcess) {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	if t.worker == w {
		t.worker = nil
		t.ending.Go(w.close)
	}
}

// exitGrace is what a worker without a link has to end by itself, so that its
// exit can say why. One that guest code has taken over may not want to end.
const exitGrace = 2 * time.Second

// died lets go of a worker whose link has ended for err, or that sent what no
// worker sends, and says how it ended. The next job gets a new one.
func (t *tenant) died(w *workerProcess, err error) error {
	n := t.n
	n.mu.Lock()
	if t.worker == w {
		t.worker = nil
		t.ending.Add(1)
		defer t.ending.Done()
	}
	n.mu.Unlock()
	lied := errors.Is(err, link.ErrProtocol)
	if lied {
		t.dead(w, fmt.Sprintf("it was ended, as it sent what no worker sends: %v", err), true)
	} else {
		t.await(w)
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

// Stats returns the tasks of a tenant's running worker, with those that workers
// had which were given up.
func (n *Node) Stats(ctx context.Context, tenant string) (worker.StatsBody, error) {
	t, err := n.tenant(tenant)
	if err != nil {
		return worker.StatsBody{}, err
	}
	n.mu.Lock()
	w, past := t.worker, t.past
	n.mu.Unlock()
	var s worker.StatsBody
	if w != nil {
		if s, err = w.stats(ctx); err != nil {
			return s, err
		}
	}
	s.Finished, s.Failed, s.Retried = s.Finished+past.Finished, s.Failed+past.Failed, s.Retried+past.Retried
	return s, nil
}

func (w *workerProcess) stats(ctx context.Context) (s worker.StatsBody, err error) {
	m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindStats})
	if err != nil {
		return s, err
	}
	m.CloseFiles()
	return s, link.Unmarshal(m.Body, &s)
}

// Objects lists what the store of a tenant's running worker holds, and who holds
// it.
func (n *Node) Objects(ctx context.Context, tenant string, q clientwire.MemoryBody) (clientwire.Memory, error) {
	w, err := n.worker(tenant)
	var mem clientwire.Memory
	if err != nil {
		return mem, err
	}
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

// Memory returns the bytes of memory that a tenant's worker takes, shared pages
// by their share (Pss; proc_pid_smaps(5)). Zero without a worker, and an error
// elsewhere than on Linux.
func (n *Node) Memory(tenant string) (int64, error) {
	w, err := n.worker(tenant)
	if w == nil {
		return 0, err
	}
	return w.memory()
}

func (w *workerProcess) memory() (int64, error) {
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
