package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// A worker that has nothing to do is given up, in order, and started again by
// what needs it: a job, here or on another node. The worker alone knows whether
// it has something to do, as tasks that others lent it, or objects that they
// refer to. While it is asked jobs of its tenant wait; it has answered in
// milliseconds.

// DefaultWorkerIdle is how long a worker that has nothing to do is kept where
// nothing is said.
const DefaultWorkerIdle = 5 * time.Minute

const (
	// looks is how often within that time it is asked.
	looks = 4
	// staleLook is how often one is asked whose tenant has another quota.
	staleLook = time.Second
	// lookLimit is how long it may take to answer, and leaveLimit how long peers
	// have to hear that it goes.
	lookLimit, leaveLimit = 10 * time.Second, 2 * time.Second
)

// begins counts a job whose driver is to run here. Other nodes are to have
// workers of the tenant from then on.
func (t *tenant) begins() {
	t.running.Add(1)
	if t.peers != nil {
		t.peers.setAwake()
	}
}

// ran counts that a job's driver has ended.
func (t *tenant) ran() {
	if t.running.Add(-1) == 0 {
		t.refresh()
	}
}

// requota has the tenant's quota, which has changed, hold: what the node enforces
// at once, the rest with the next worker, which it gets when this one is idle.
func (t *tenant) requota() {
	t.n.mu.Lock()
	t.stale = t.worker != nil || t.starting != nil
	t.n.mu.Unlock()
	t.refresh()
}

// refresh has a worker that has an old quota go, if it has nothing to do. Jobs
// that come while it is asked wait for its answer.
func (t *tenant) refresh() {
	t.n.mu.Lock()
	w, stale := t.worker, t.stale
	t.n.mu.Unlock()
	if !stale || w == nil {
		return
	}
	if done := t.beginRetire(w); done != nil {
		t.ending.Go(func() { t.retire(w, done) })
	}
}

// watchIdle gives a worker up that does nothing for long. It returns when the
// worker's link has ended.
func (t *tenant) watchIdle(w *workerProcess) {
	var seen uint64
	var since time.Time // when it was first found idle, as it is now; zero: it was not
	for {
		wait := time.NewTimer(t.lookAfter())
		select {
		case <-w.served:
			wait.Stop()
			return
		case <-w.look:
			wait.Stop()
		case <-wait.C:
		}
		t.n.mu.Lock()
		stale := t.stale && t.worker == w
		t.n.mu.Unlock()
		if stale {
			t.refresh()
			continue
		}
		if t.n.cfg.WorkerIdle < 0 {
			continue
		}
		if t.running.Load() > 0 {
			since = time.Time{}
			continue
		}
		idle, deeds, err := w.idle(worker.RetireBody{}, lookLimit)
		switch {
		case err != nil: // it is asked again, if it lives
			since = time.Time{}
		case !idle, since.IsZero(), deeds != seen:
			since, seen = time.Time{}, deeds
			if idle {
				since = time.Now()
			}
		case time.Since(since) < t.n.cfg.WorkerIdle:
		case t.peers != nil && t.peers.needed(func() bool { return t.running.Load() > 0 }): // it may be of use to them
		default:
			if done := t.beginRetire(w); done != nil {
				t.retire(w, done)
			}
		}
	}
}

func (t *tenant) lookAfter() time.Duration {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	d := t.n.cfg.WorkerIdle / looks
	if d <= 0 || t.stale {
		d = staleLook
	}
	return d
}

// idle asks the worker whether it has anything to do.
func (w *workerProcess) idle(b worker.RetireBody, limit time.Duration) (bool, uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	body, err := link.Marshal(b)
	if err != nil {
		return false, 0, err
	}
	m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindRetire, Body: body})
	if err != nil {
		return false, 0, err
	}
	m.CloseFiles()
	var r worker.RetiredBody
	err = link.Unmarshal(m.Body, &r)
	return r.Idle, r.Seen, err
}

// beginRetire has jobs wait until it is known whether the worker goes; nil: one
// is there, or it is no matter any more. retire is to be called with the result.
func (t *tenant) beginRetire(w *workerProcess) chan struct{} {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	if t.worker != w || t.retiring != nil || t.starting != nil || t.running.Load() > 0 || t.endedLocked() != nil {
		return nil
	}
	t.retiring = make(chan struct{})
	return t.retiring
}

// retire ends the worker if it has nothing to do, and closes done.
func (t *tenant) retire(w *workerProcess, done chan struct{}) {
	n := t.n
	goes, _, err := w.idle(worker.RetireBody{Leave: true, Within: int64(leaveLimit)}, lookLimit)
	var past worker.StatsBody
	if goes {
		ctx, cancel := context.WithTimeout(context.Background(), lookLimit)
		past, err = w.stats(ctx)
		cancel()
	}
	n.mu.Lock()
	mine := goes && t.worker == w
	if err != nil && t.worker == w {
		t.stale = true // it may have left its peers since, and is of no use to them then
	}
	if mine {
		t.worker, t.stale = nil, false
		t.past.Finished, t.past.Failed, t.past.Retried = t.past.Finished+past.Finished, t.past.Failed+past.Failed, t.past.Retried+past.Retried
	}
	n.mu.Unlock()
	if goes {
		w.end() // before another is started, which has its durable actors, and its name to peers
	} else if err != nil {
		slog.Warn("a worker does not say whether it has anything to do", "tenant", t.name, "err", err)
	}
	n.mu.Lock()
	t.retiring = nil
	n.mu.Unlock()
	close(done)
	if goes && t.peers != nil {
		t.peers.startForOthers() // who came meanwhile, or where the quota was why
	}
}
