package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/child"
	"github.com/wray-project/wray/host/jail"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/spill"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
)

// workerProcess is a tenant's worker, as the node sees it.
type workerProcess struct {
	t      *tenant // nil in tests
	proc   *jail.Process
	conn   *link.Conn
	jail   string
	spill  *spill.Host   // may be nil; its own
	state  *stateFiles   // may be nil
	served chan struct{} // closed when the link has ended
	peers  *tenantPeers  // nil of a node that is alone
	peerID uint64        // names it to its peers

	group   *jail.Cgroup // nil where none can be made
	closing sync.Once    // of close

	began    time.Time
	wanted   atomic.Bool   // somebody ends it
	death    sync.Once     // of dead
	look     chan struct{} // has watchIdle look now; takes one
	expelled bool          // guarded by n.mu; it is to go, as its tenant may not be here
	parted   bool          // guarded by peering.mu; its peers were told that it is gone

	mu   sync.Mutex
	runs map[uint64]*run // guarded by mu
	last uint64          // guarded by mu

	added func() // nil, or a test's, called when a job has its number
}

// start is a worker being started. Whoever needs one waits for it.
type start struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the rest is set
	w      *workerProcess
	err    error
}

// startWorker returns the tenant's worker and starts it when there is none.
// Nothing is locked while it starts: it may take its time, or never answer.
func (t *tenant) startWorker(ctx context.Context) (*workerProcess, error) {
	n := t.n
	n.mu.Lock()
	for t.retiring != nil {
		done := t.retiring
		n.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, wray.Errorf(wray.CodeCanceled, "the job was canceled while a worker started")
		}
		n.mu.Lock()
	}
	if err := t.endedLocked(); err != nil {
		n.mu.Unlock()
		return nil, err
	}
	if w := t.worker; w != nil {
		select {
		case <-w.conn.Done():
			t.worker = nil // it died between two jobs
			t.ending.Go(w.close)
		default:
			n.mu.Unlock()
			return w, nil
		}
	}
	if err := n.barredLocked(t.name); err != nil {
		n.mu.Unlock()
		return nil, err
	}
	s := t.starting
	if s == nil {
		// The start is all jobs' that wait for it, so none of them cancels it.
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
		s = &start{cancel: cancel, done: make(chan struct{})}
		t.starting, t.stale = s, false // it gets the quota that holds now
		go t.finishStart(sctx, s)
	}
	n.mu.Unlock()
	select {
	case <-s.done:
		return s.w, s.err
	case <-ctx.Done():
		return nil, wray.Errorf(wray.CodeCanceled, "the job was canceled while a worker started")
	}
}

// startLimit is how long a worker may take to answer its first message.
const startLimit = 30 * time.Second

// finishStart starts a worker for s. Close waits for it.
func (t *tenant) finishStart(ctx context.Context, s *start) {
	n := t.n
	defer close(s.done)
	defer s.cancel()
	if n.cfg.State != "" {
		t.ending.Wait() // who is dead may have durable actors open until its process is gone
	}
	w, err := t.spawnWorker(ctx)
	if err == nil {
		n.mu.Lock()
		if err = t.endedLocked(); err == nil {
			t.worker = w
		}
		barred := n.barredLocked(t.name) // since it was begun
		n.mu.Unlock()
		if err != nil {
			w.end()
		} else if barred != nil {
			defer t.expel()
		}
	}
	if s.err = err; err == nil {
		s.w = w
		if t.peers != nil {
			t.peers.started(w, w.peerID)
		}
		t.watchers.Go(func() { t.mourn(w) })
		t.watchers.Go(func() { t.watchIdle(w) })
	}
	// Not before: end, which waits for a start, is not to miss what it began.
	n.mu.Lock()
	t.starting = nil
	n.mu.Unlock()
}

// spawnWorker starts a worker process.
func (t *tenant) spawnWorker(ctx context.Context) (*workerProcess, error) {
	n := t.n
	dir, err := n.cache.Dir(t.code())
	if err != nil {
		return nil, err
	}
	state, err := t.openState()
	if err != nil {
		return nil, err
	}
	if err := sandbox.InitCache(ctx, dir); err != nil {
		return nil, err
	}
	conn, end, err := link.Pair(t.linkOptions())
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	args := []string{child.WorkerVerb, dir}
	if n.cfg.AllowWeak {
		args = append(args, "weak")
	}
	group, noGroup := jail.NewCgroup(fmt.Sprintf("worker-%d", spawned.Add(1)), t.cgroupLimits())
	if noGroup != nil {
		group = nil // the jail holds without it, and doctor says so
	}
	proc, err := jail.Spawn(jail.Config{Args: args, Files: []*os.File{end}, MaxProcs: runtime.NumCPU() + 1, Cgroup: group})
	end.Close()
	if err != nil {
		conn.Close()
		closeGroup(group)
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	w := &workerProcess{t: t, peers: t.peers, spill: t.newHost(), state: newStateFiles(state, t.name, func() wray.Quota { return t.record().Quota }), proc: proc, conn: conn, group: group, served: make(chan struct{}), runs: map[uint64]*run{}, began: time.Now(), look: make(chan struct{}, 1)}
	go func() {
		defer close(w.served)
		_ = conn.Serve(context.Background(), w.handle) // the reason is in conn.Err
	}()
	b, err := link.Marshal(worker.StartBody{
		Spills: w.spill != nil, State: state != nil, Peers: t.peers != nil,
		Node: n.cfg.Name, Tenant: t.name, Quota: t.record().Quota, CacheDir: dir, Labels: worker.LabelBodies(wray.NodeLabels(n.cfg.Name, n.cfg.Labels)), CPU: int64(n.cfg.Capacity.CPU), Memory: n.cfg.Capacity.Memory, Custom: worker.CustomBodies(n.cfg.Custom),
		StoreBytes: n.cfg.StoreBytes, Slots: n.cfg.Slots, Residents: n.cfg.Residents, Sandboxes: n.cfg.Sandboxes,
	})
	if err == nil {
		var m link.Message
		if m, err = conn.Call(ctx, link.Message{Kind: worker.KindStart, Body: b}); err == nil {
			m.CloseFiles()
			var s worker.StartedBody
			err = link.Unmarshal(m.Body, &s)
			w.jail, w.peerID = s.Jail, s.Peer
		}
	}
	if err == nil {
		w.weigh(t)
		w.state.watch(func(why error) {
			t.dead(w, fmt.Sprintf("it was ended: %v", why), false)
			w.proc.Kill()
		})
	}
	if err != nil {
		w.close()
		if msg := proc.Stderr(); msg != "" {
			err = fmt.Errorf("%w\n%s", err, msg)
		}
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	return w, nil
}

// end is close of a worker that has done nothing wrong.
func (w *workerProcess) end() {
	w.wanted.Store(true)
	w.close()
}

// close ends the process and waits for it. The process goes first: whatever the
// node's handlers still do for it, it does nothing more. Whoever calls it finds
// all given back when it returns.
func (w *workerProcess) close() {
	w.closing.Do(func() {
		w.proc.Kill()
		w.conn.Close()
		if w.peers != nil {
			w.peers.stopped(w)
		}
		<-w.served
		w.proc.Wait()
		if w.spill != nil {
			w.spill.Close()
		}
		w.state.close()
		closeGroup(w.group)
	})
}

// add gives a job its number.
func (w *workerProcess) add(r *run) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.runs[w.last] = r
	if w.added != nil {
		w.added()
	}
	return w.last
}

func (w *workerProcess) remove(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.runs, n)
}

func (w *workerProcess) get(n uint64) *run {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[n]
}

// handle serves what the worker asks for. The worker may have been taken over
// by a guest: every field is checked here or by whom it is handed to.
func (w *workerProcess) handle(ctx context.Context, m link.Message) (link.Message, error) {
	if m.Kind == worker.KindSpill {
		return w.handleSpill(ctx, m)
	}
	if m.Kind != worker.KindPeerFill {
		if err := noFiles(m); err != nil { // before anything that may take its time
			return link.Message{}, err
		}
	}
	defer m.CloseFiles()
	switch m.Kind {
	case worker.KindPeerSend, worker.KindPeerFetch, worker.KindPeerModule, worker.KindPeerSever, worker.KindPeerFill:
		if w.peers != nil {
			return w.peers.handle(ctx, w, m)
		}
	case worker.KindOutput:
		var b worker.OutputBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		if r := w.get(b.Run); r != nil {
			if err := w.t.slowDown(ctx, len(b.Data)); err != nil {
				return link.Message{}, err
			}
			return link.Message{}, r.print(ctx, &b)
		}
		return link.Message{}, nil // of a job that was canceled
	case worker.KindFS:
		var b worker.FSBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		r := w.get(b.Run)
		if r == nil || b.Dir < 0 || b.Dir >= len(r.dirs) {
			return link.Message{}, wray.Errorf(wray.CodeDenied, "no such directory is granted")
		}
		reply, f := worker.ServeFS(r.dirs[b.Dir], b)
		out := link.Message{}
		if f != nil {
			out.Files = []*os.File{f}
		}
		var err error
		out.Body, err = link.Marshal(reply)
		return out, err
	case worker.KindFetch:
		return w.fetch(ctx, m)
	case worker.KindState:
		var b worker.StateBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		return w.state.do(b)
	}
	return link.Message{}, fmt.Errorf("%w: unknown message %d", link.ErrProtocol, m.Kind)
}

// handleSpill serves what the worker asks of those who keep its objects.
func (w *workerProcess) handleSpill(ctx context.Context, m link.Message) (out link.Message, err error) {
	if w.spill == nil {
		m.CloseFiles()
		return out, wray.Errorf(wray.CodeDenied, "no directory takes objects")
	}
	var r spill.Request
	if err := link.Unmarshal(m.Body, &r); err != nil {
		m.CloseFiles()
		return out, err
	}
	reply, f, err := w.spill.Serve(ctx, r, m.Files)
	if errors.Is(err, objectstore.ErrDiskFull) { // perhaps for several reasons: one has the hint
		e := &wray.Error{Code: wray.CodeStoreFull, Message: err.Error()}
		if why := (*wray.Error)(nil); errors.As(err, &why) {
			e.Hint, e.Limit = why.Hint, why.Limit
		}
		return out, e
	}
	if err != nil {
		return out, err
	}
	if f != nil {
		out.Files = []*os.File{f}
	}
	out.Body, err = link.Marshal(reply)
	return out, err
}
