package worker

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/wray-project/wray/internal/link"
)

// KindRetire asks whether the worker has anything to do, and has one that has
// nothing take nothing more of its peers.
const KindRetire link.Kind = 34 // node: request RetireBody, reply RetiredBody

// RetireBody asks.
type RetireBody struct {
	// Leave has a worker that is idle go: its node gives it no job from before it
	// asks, and ends it when it has answered.
	Leave  bool  `cbor:"1,keyasint,omitempty"`
	Within int64 `cbor:"2,keyasint,omitempty"` // ns that peers have to hear of it
}

// RetiredBody answers.
type RetiredBody struct {
	Idle bool   `cbor:"1,keyasint,omitempty"` // with Leave: it has left
	Seen uint64 `cbor:"2,keyasint"`           // of the worker's deeds: where it is as it was, there was none
}

// Idle reports whether nothing would be lost with the worker: it runs no job,
// mirrors none of a peer's, and no object is here that somebody refers to. Sandboxes
// that are kept warm are a job's, and gone with it. deeds grows with whatever the
// worker does for anybody.
func (w *Worker) Idle() (idle bool, deeds uint64) {
	deeds = w.seq.Load()
	if !w.emptyStore() {
		return false, deeds
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peers != nil {
		w.peers.mu.Lock()
		defer w.peers.mu.Unlock()
	}
	return w.idleLocked(), deeds
}

// emptyStore reports whether no object is left: of what peers were given, or have
// given, there is always one.
func (w *Worker) emptyStore() bool {
	st := w.store.Stats()
	return st.Objects == 0 && st.Windows == 0 && st.Waiting == 0
}

// idleLocked is Idle but for objects. w.mu and peerSet.mu are held.
func (w *Worker) idleLocked() bool {
	if w.closed || w.runs.Load() > 0 || w.tasks.n > 0 || len(w.jobs) > 0 || len(w.lingering) > 0 {
		return false
	}
	ps := w.peers
	if ps == nil {
		return true
	}
	if len(ps.mirrors) > 0 || len(ps.calls) > 0 || len(ps.asks) > 0 {
		return false
	}
	for _, p := range ps.peers {
		if !p.up || p.info == nil || p.ending > 0 || len(p.granted)+len(p.transit)+len(p.proxies)+len(p.borrows)+len(p.guests)+len(p.waiting) > 0 {
			return false // of one that is not reached it is not known what it has sent
		}
	}
	return true
}

// Retire has a worker leave that is idle, and reports whether it does. From the
// moment that it is found to be idle it refuses what peers lend it, and they lend
// that elsewhere. It returns when they know, or ctx has ended.
func (w *Worker) Retire(ctx context.Context) bool {
	if !w.emptyStore() {
		return false
	}
	w.mu.Lock()
	ps := w.peers
	if ps == nil {
		defer w.mu.Unlock()
		return ctx.Err() == nil && w.idleLocked()
	}
	ps.mu.Lock()
	idle := ctx.Err() == nil && w.idleLocked()
	if idle {
		ps.leaving.begun.Store(true) // under both locks: what a peer lends is taken before, and seen, or refused
	}
	ps.mu.Unlock()
	w.mu.Unlock()
	if idle {
		w.Leave(ctx, ctx)
	}
	return idle
}

// retire answers KindRetire.
func (s *server) retire(ctx context.Context, w *Worker, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b RetireBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	out := RetiredBody{}
	out.Idle, out.Seen = w.Idle()
	out.Idle = out.Idle && s.loans.none()
	switch {
	case !out.Idle:
	case b.Leave:
		ctx, cancel := context.WithTimeout(ctx, time.Duration(b.Within))
		defer cancel()
		out.Idle = w.Retire(ctx)
	case s.freed.Swap(out.Seen) != out.Seen:
		debug.FreeOSMemory() // what its last job left is of no use until the next
	}
	return reply(out)
}
