package worker

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// How a worker goes without a loss. It tells its peers that it takes nothing
// more, ends what they have lent it or gives it back, and then has them fetch
// what it alone has for them. Only then may its node go.

// Stages of a worker that goes, as its peers are told.
const (
	leaveShut  = 1 // it takes nothing more
	leaveFetch = 2 // nothing of the peer's runs there: fetch what is there alone, and say so
	leaveBye   = 3 // say that all messages until this one are read
)

// Left is what became of what a worker had for others when it went.
type Left struct {
	Ended   int64 `cbor:"1,keyasint"` // attempts that others had lent it, and that ended by themselves
	Moved   int64 `cbor:"2,keyasint"` // attempts that were given back, to be run elsewhere
	Fetched int64 `cbor:"3,keyasint"` // objects that others have fetched
	Lost    int64 `cbor:"4,keyasint"` // objects that others could not fetch, or had no time to
}

// leaving is the state of a worker that goes.
type leaving struct {
	begun   atomic.Bool
	changed chan struct{} // holds one token: something has ended, or a peer has fetched

	ended, moved atomic.Int64

	mu   sync.Mutex
	took map[scheduler.PeerID]tookBody // guarded by mu; what peers said when they had fetched
	byes map[scheduler.PeerID]bool     // guarded by mu; peers that have read all
}

// tookBody says how many objects a peer has fetched, and could not; or, with
// Bye, that it has read all.
type tookBody struct {
	Fetched int64 `cbor:"1,keyasint"`
	Lost    int64 `cbor:"2,keyasint"`
	Bye     bool  `cbor:"3,keyasint,omitempty"`
}

// note says that something may have changed for who waits.
func (l *leaving) note() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Leave has the worker take nothing more from its peers, and returns when they
// have nothing there any more. What they have lent it, and its own jobs, have
// time until bound is done; lent attempts that run then are given back, to be
// run elsewhere as if they had never begun here. Then the peers fetch what is
// here alone, as long as ctx lets them. Jobs of its own that run yet are the
// caller's to end.
func (w *Worker) Leave(ctx, bound context.Context) Left {
	ps := w.peers
	if ps == nil {
		return Left{}
	}
	l := &ps.leaving
	ps.mu.Lock()
	l.begun.Store(true)
	for _, p := range ps.peers {
		ps.send(p, &peerMessage{Leaving: leaveShut}) // under the lock, so that a new one is told once
	}
	var waiting []*lentWaiting
	for _, m := range ps.mirrors {
		for _, l := range m.waiting {
			delete(l.from.waiting, l.key())
			l.from.waits -= l.cost()
		}
		waiting = append(waiting, m.waiting...)
		m.waiting = nil
	}
	ps.mu.Unlock()
	for _, x := range waiting { // for their code
		releaseArgs(x.args)
		ps.answer(x.from, x.body, replyRefused, nil)
	}
	for w.occupied() && ctx.Err() == nil {
		select {
		case <-l.changed:
			continue
		case <-bound.Done():
		case <-ctx.Done():
		}
		ps.giveUp()
		if ps.lentTo() == 0 { // what is left goes with the node
			break
		}
		select {
		case <-l.changed:
		case <-time.After(leavePause): // a guest that is stopped ends at its next tick
		case <-ctx.Done():
		}
	}
	asked := ps.tellAll(leaveFetch)
	ps.awaitAll(ctx, asked, func(id scheduler.PeerID) bool { _, ok := l.took[id]; return ok })
	ps.awaitAll(ctx, ps.tellAll(leaveBye), func(id scheduler.PeerID) bool { return l.byes[id] })
	out := Left{Ended: l.ended.Load(), Moved: l.moved.Load()}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.took {
		out.Fetched, out.Lost = out.Fetched+t.Fetched, out.Lost+t.Lost
	}
	return out
}

// tellAll tells all peers of a stage, and returns them.
func (ps *peerSet) tellAll(stage uint8) (asked []*peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.peers {
		if p.info != nil {
			asked = append(asked, p)
			ps.send(p, &peerMessage{Leaving: stage})
		}
	}
	return asked
}

// awaitAll waits until those who were asked have answered, or are gone. done is
// called with leaving.mu held.
func (ps *peerSet) awaitAll(ctx context.Context, asked []*peer, done func(scheduler.PeerID) bool) {
	l := &ps.leaving
	for {
		ps.mu.Lock()
		l.mu.Lock()
		asked = slices.DeleteFunc(asked, func(p *peer) bool { return done(p.id) || ps.peers[p.id] != p })
		l.mu.Unlock()
		ps.mu.Unlock()
		if len(asked) == 0 {
			return
		}
		select {
		case <-l.changed:
		case <-ctx.Done():
			return
		}
	}
}

// took takes what a peer answers to a stage.
func (ps *peerSet) took(p *peer, b *tookBody) {
	l := &ps.leaving
	if !l.begun.Load() {
		return
	}
	l.mu.Lock()
	if b.Bye {
		l.byes[p.id] = true
	} else {
		l.took[p.id] = *b
	}
	l.mu.Unlock()
	l.note()
}

// leavePause is how long what was stopped has to end before it is looked again.
const leavePause = 100 * time.Millisecond

// occupied reports whether there are jobs of this worker's own, or tasks of
// others'.
func (w *Worker) occupied() bool {
	if w.runs.Load() > 0 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks.n > 0
}

// ranOne is called when a job of this worker's own has ended.
func (w *Worker) ranOne() {
	w.runs.Add(-1)
	if w.peers != nil {
		w.peers.leaving.note()
	}
}

// lentTo counts the attempts that peers have lent to this worker.
func (ps *peerSet) lentTo() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	n := 0
	for _, p := range ps.peers {
		n += len(p.guests)
	}
	return n
}

// giveUp stops the attempts of others, to give them back.
func (ps *peerSet) giveUp() {
	ps.mu.Lock()
	var list []wray.ID
	for _, p := range ps.peers {
		for _, t := range p.guests {
			if t.actor != nil && t.actor.hosted {
				continue // goes with the actor, and home says what that means
			}
			t.far.to.moved.Store(true)
			if t.actor != nil && t.actor.hosted {
				// It goes with its actor, and its home says what that means:
				// canceled by itself it would have ended with that.
				continue
			}
			list = append(list, t.id)
		}
	}
	ps.mu.Unlock()
	for _, id := range list {
		ps.w.cancelTask(id)
	}
}

// leaves takes what a peer says of its going.
func (ps *peerSet) leaves(p *peer, stage uint8) {
	w := ps.w
	w.step(nil, func(s *scheduler.Scheduler) { s.PeerLeaves(w.now(), p.id) })
	switch stage {
	case leaveShut:
		return
	case leaveBye:
		ps.send(p, &peerMessage{Took: &tookBody{Bye: true}})
		return
	}
	ps.mu.Lock()
	again := p.fetched
	p.fetched = true
	ps.mu.Unlock()
	if !again { // at most one for each peer
		w.wg.Go(func() {
			b := ps.bringHome(p)
			ps.send(p, &peerMessage{Took: &b})
		})
	}
}

// homeAtOnce is how many objects are fetched at a time of a peer that goes.
const homeAtOnce = 4

// bringHome fetches all that a peer has for this worker.
func (ps *peerSet) bringHome(p *peer) (b tookBody) {
	failed := map[wray.ID]bool{}
	for ps.ctx.Err() == nil {
		list := ps.remotes(p)
		list = slices.DeleteFunc(list, func(o *objectstore.Object) bool {
			if failed[o.ID()] {
				o.Release()
				return true
			}
			return false
		})
		if len(list) == 0 {
			return b
		}
		errs := make([]error, len(list))
		var wg sync.WaitGroup
		slots := make(chan struct{}, homeAtOnce)
		for i, o := range list {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				defer o.Release()
				ctx, cancel := context.WithTimeout(ps.ctx, ps.w.cfg.FullAfter)
				defer cancel()
				v, err := o.WaitView(ctx)
				if err == nil {
					v.Close()
				}
				if e := o.Err(); e != nil && err == nil {
					err = e
				}
				errs[i] = err
			})
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				failed[list[i].ID()] = true
				b.Lost++
			} else {
				b.Fetched++
			}
		}
	}
	return b
}

// remotes returns the objects here whose payload the peer alone has, with a
// reference each. One that nothing holds but the result of which it is the copy
// at the peer is left out: it goes with that.
func (ps *peerSet) remotes(p *peer) (list []*objectstore.Object) {
	keepers := map[*objectstore.Object]int64{} // and how many keep it
	for _, e := range ps.w.store.Census() {
		o := ps.w.store.Lookup(e.ID)
		if o == nil {
			continue
		}
		if o.Ready() {
			if r, ok := o.Source().(*remote); ok && r.peer == p {
				if r.keeps != nil {
					keepers[r.keeps]++
				}
				if o.Remote() {
					list = append(list, o)
					continue
				}
			}
		}
		o.Release()
	}
	return slices.DeleteFunc(list, func(o *objectstore.Object) bool {
		if n := keepers[o]; n > 0 && o.References() == n+1 { // ours is one
			o.Release()
			return true
		}
		return false
	})
}
