package worker

import (
	"cmp"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// An actor that lives on another node. All that is decided of it is decided
// here, at its job's home, where its mailbox is: an attempt of it is lent as a
// task's is, and each call that the mailbox gives out is lent to where the
// attempt is, some ahead of their turn. The peer has the sandbox and nothing else
// (hosted.go). Who calls from a third node calls here (faraway.go).

// awayActor is an attempt of an actor at a peer. Its fields are guarded by
// actor.mu, except those that are not changed.
type awayActor struct {
	peer    scheduler.PeerID
	attempt int

	lives bool  // the constructor has ended well: calls may go
	ends  bool  // nobody can call any more, and the peer was told
	order int   // calls sent
	bytes int64 // of those that are there, about
	back  []*flight
	out   map[wray.ID]*flight // calls that are there; nil before the first

	// The peer has said that the attempt is over, and why. It has not said yet what
	// became of out, which crossed that.
	over    bool
	failure *wray.Error

	told    []func()                        // what the peer has told, while busy
	busy    bool                            // it is being dealt with, in order; see inTurn
	lost    bool                            // with a checkpoint that the peer, which is gone, has told of
	saved   uint64                          // the last checkpoint that is here
	unsaved *wray.Error                     // why the last that is not is not
	moved   map[wray.ID]*objectstore.Object // see movedIn
}

// Bounds of what is sent to an actor ahead of its turn: calls, and the bytes of
// all calls that are there when one more is sent.
const (
	aheadCalls = 256
	aheadBytes = 1 << 20
)

// flight is a call that was sent to a peer, in peerSet.calls until its end came.
type flight struct {
	task    *task
	peer    *peer
	attempt int
	actor   *actor     // that it was sent to the sandbox of, or nil: to its home
	away    *awayActor // of actor
	order   int        // among those sent
	bytes   int64      // of its message, about
	begun   bool       // of what came back: it may have
	err     *wray.Error
}

// goAwayLocked notes that an attempt of the actor goes to a peer. Worker.mu is
// held.
func (a *actor) goAwayLocked(d *scheduler.Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.final {
		a.ending = nil // asked for between attempts: this one is the restart
	}
	a.away.Store(&awayActor{peer: d.Peer, attempt: d.Attempt})
}

// comeBackLocked notes that an attempt which went to a peer did not begin there.
// Whoever calls the actor asks where it is, so this comes before it may begin
// elsewhere. Worker.mu is held.
func (a *actor) comeBackLocked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away.Store(nil)
}

// cancelEnded has an actor that was ended while its attempt was on its way to a
// peer, and did not begin there, not begin anywhere.
func (a *actor) cancelEnded() {
	a.mu.Lock()
	final := a.final
	a.mu.Unlock()
	if final {
		a.job.w.cancelTask(a.create.id)
	}
}

// makeBody returns what a peer must know to make the actor.
func (a *actor) makeBody() *makeBody {
	return &makeBody{Width: a.box.Width, Idle: int64(a.idle), Calls: a.dur.calls, Every: int64(a.dur.every)}
}

// stopAway has the peer end the attempt.
func (a *actor) stopAway() {
	w, t := a.job.w, a.create
	w.mu.Lock()
	var l *lend
	if t.far != nil && t.far.lend != nil {
		l, _ = t.stopLentLocked(wray.CodeCanceled).(*lend)
	}
	w.mu.Unlock()
	if l != nil {
		w.stopLent(t.id, l, wray.CodeCanceled)
	}
}

// actorReply takes what p says of an attempt of the actor that t makes, which it
// has. Worker.mu is held, and released.
func (ps *peerSet) actorReply(p *peer, t *task, b *replyBody) {
	w, a := ps.w, t.makes
	aw := a.away.Load()
	w.sched.PeerLoad(w.now(), p.id, b.Load.load())
	if b.Kind == replyLives {
		if aw == nil {
			w.actLocked(nil, nil)
			return
		}
		o := a.takeNameLocked() // once the lock is free the actor may end
		w.actLocked(nil, nil)
		a.livesAway(aw, o)
		return
	}
	lives := false
	if aw != nil {
		a.mu.Lock()
		lives = aw.lives
		a.mu.Unlock()
	}
	if !lives {
		delete(ps.lent, t.id)
		t.far.lend = nil
	}
	if !lives && (b.Kind == replyRefused || b.Kind == replyHome || b.Kind == replyAbsent) {
		told := ps.refusedLocked(p, t, b)
		a.comeBackLocked()
		w.actLocked(nil, nil)
		told()
		a.cancelEnded()
		return
	}
	w.actLocked(nil, nil)
	var failure *wray.Error
	switch {
	case len(b.Err) > 0:
		failure = objectstore.DecodeFailure(b.Err)
	case b.Kind != replyDone:
		failure = &wray.Error{Code: wray.CodeActorDied, Node: p.node, Message: "node " + p.node + " has given the actor up"}
	}
	if lives {
		a.inTurn(aw, false, func() {
			a.mu.Lock()
			wait := len(aw.out) > 0 || aw.lost
			aw.over, aw.failure = true, failure
			a.mu.Unlock()
			if !wait {
				a.overAway(aw)
			}
		})
		return
	}
	a.closeAway(aw, failure)
}

// overAway ends the attempt, which the peer has said is over, when it has also
// said what became of the calls that were there.
func (a *actor) overAway(aw *awayActor) {
	w, t := a.job.w, a.create
	w.mu.Lock()
	if w.peers.lent[t.id] == t && t.far.lend != nil && t.far.lend.attempt == aw.attempt {
		delete(w.peers.lent, t.id)
		t.far.lend = nil
	}
	w.mu.Unlock()
	a.closeAway(aw, aw.failure)
}

// takeNameLocked returns the object that names the actor, with a reference that
// is the caller's, or nil where it is published. The creation has none left of
// its own then, unless the actor is detached. Worker.mu is held, and the creation
// is not over.
func (a *actor) takeNameLocked() *objectstore.Object {
	t := a.create
	if a.built || len(t.results) == 0 {
		return nil
	}
	o := t.results[0]
	if t.flags&abi.SpecDetached != 0 {
		o.Retain()
	} else {
		t.results, t.one[0] = nil, nil
	}
	return o
}

// livesAway takes note that the attempt's constructor has ended well. It takes
// over the reference to o, which names the actor, or is nil where that was
// published before.
func (a *actor) livesAway(aw *awayActor, o *objectstore.Object) {
	if o != nil {
		defer o.Release()
		if err := o.TrySeal(objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte{0xa0}}); err != nil {
			failure := a.create.asError(err)
			_ = o.Fail(failure) // one that has failed stays so
			a.end(failure, true)
			return
		}
		a.built = true
		w := a.job.w
		w.step(nil, func(s *scheduler.Scheduler) { s.ObjectReady(w.now(), o.ID()) })
	}
	a.mu.Lock()
	a.landLocked(aw)
	a.mu.Unlock()
	a.pump(aw)
}

// landLocked has calls go to the attempt.
func (a *actor) landLocked(aw *awayActor) {
	aw.lives = true
	a.answered = 0
	if a.away.Load() == aw && a.sendsAhead() {
		a.box.Ahead = aheadCalls
	}
}

// sendsAhead reports whether calls may go to a peer before their turn. When that
// dies nobody knows which of them had begun. All count as begun then, so they are
// to be ones that may be run again, or are to fail in any case.
func (a *actor) sendsAhead() bool { return a.tries != 0 || !a.create.mayRestart() }

// nextLocked returns the call that is to be sent now, or nil.
func (a *actor) nextLocked(aw *awayActor) *task {
	if a.box.Out() >= max(a.box.Width, 1) && (aw.bytes >= aheadBytes || a.job.w.peers.net.Unsent(aw.peer) > maxUnsent) {
		return nil // the end of a call that is out looks again
	}
	if l := a.box.Next(); l != nil {
		return l.Value
	}
	return nil
}

// pump sends the calls that may run, and ends an actor that nobody can call.
func (a *actor) pump(aw *awayActor) {
	ps := a.job.w.peers
	type loss struct {
		call *task
		err  *wray.Error
	}
	var losses []loss
	a.mu.Lock()
	if a.away.Load() != aw || !aw.lives || aw.ends || aw.over || a.ending != nil {
		a.mu.Unlock()
		return
	}
	for c := a.nextLocked(aw); c != nil; c = a.nextLocked(aw) {
		err := notAway(c)
		if err == nil {
			err = a.lossOf(c)
		}
		if err != nil {
			losses = append(losses, loss{c, err})
			continue
		}
		if err := argsTravel(c.fn, c.args); err != nil {
			losses = append(losses, loss{c, err})
			continue
		}
		c.canceled = false
		c.attempt++
		a.calls.Add(1)
		aw.order++
		// Under the lock, as the order in which calls are sent is theirs.
		f := &flight{task: c, attempt: c.attempt, actor: a, away: aw, order: aw.order, bytes: sentBytes(c)}
		aw.bytes += f.bytes
		if aw.out == nil {
			aw.out = map[wray.ID]*flight{}
		}
		aw.out[c.id] = f
		ps.sendCall(f, aw.peer)
	}
	over := a.unreferenced.Load() && a.box.Len() == 0 && a.box.Out() == 0
	aw.ends = over
	a.mu.Unlock()
	for _, l := range losses {
		a.complete(l.call, l.err)
	}
	switch {
	case over:
		a.stopAway()
	case len(losses) > 0:
		a.pump(aw)
	}
}

// notAway refuses a call that an actor cannot answer where it is not at home:
// a stream, whose items do not travel.
func notAway(c *task) *wray.Error {
	if c.stream != nil {
		return &wray.Error{Code: wray.CodeDenied, Message: "the actor is not on the node of its job, and a stream does not come from there",
			Hint: "have the actor on the node of its job with sdk.OnNode, or return a list"}
	}
	return nil
}

// sentBytes returns about how long the message of a call is.
func sentBytes(t *task) int64 {
	n := t.bytes()
	for i := range t.args {
		if o := t.args[i].object; o != nil {
			if size := o.Info().Len; size < objectstore.InlineMax {
				n += size
			}
		}
	}
	return n
}

// sendCall sends a call to where the actor is. It takes no lock but peerSet.mu.
// Where the peer is gone the call is too, as soon as that is dealt with.
func (ps *peerSet) sendCall(f *flight, to scheduler.PeerID) {
	t := f.task
	ps.mu.Lock()
	p := ps.peers[to]
	f.peer = p
	ps.calls[t.id] = f
	ps.mu.Unlock()
	if p == nil {
		return
	}
	b := &lendBody{Job: bodyOf(t.job.id), Task: bodyOf(t.id), Attempt: f.attempt, Name: asText(t.name),
		Module: t.fn.module.name, Func: t.fn.name, Timeout: int64(t.timeout), Results: len(t.results),
		Call: &callBody{Actor: bodyOf(f.actor.create.id), Attempt: f.away.attempt, From: t.from, Flags: t.flags & callFlags}}
	for _, a := range t.args {
		b.Args = append(b.Args, ps.argFor(p, a))
	}
	ps.send(p, &peerMessage{Lend: b})
}

// callReply takes the end of a call that p has run, or has had run.
func (ps *peerSet) callReply(p *peer, f *flight, b *replyBody, results []result) {
	if a := f.actor; a != nil {
		a.inTurn(f.away, false, func() { ps.callReplied(p, f, b, results) })
		return
	}
	ps.callReplied(p, f, b, results)
}

func (ps *peerSet) callReplied(p *peer, f *flight, b *replyBody, results []result) {
	t := f.task
	var failure *wray.Error
	switch {
	case len(b.Err) > 0:
		failure = objectstore.DecodeFailure(b.Err)
	case b.Kind == replyDone && len(results) != len(t.results):
		failure = &wray.Error{Code: wray.CodeInternal, Node: p.node, Message: "node " + p.node + " gave another number of results than were asked for"}
	case b.Kind != replyDone:
		failure = &wray.Error{Code: wray.CodeActorDied, Node: p.node, Message: "the actor is gone from node " + p.node}
	}
	letGo := func() {
		for i := range results {
			results[i].letGo()
		}
	}
	a := f.actor
	over := func() {}
	if a != nil {
		aw := f.away
		a.mu.Lock()
		there := aw.out[t.id] == f && !aw.lost
		if there {
			delete(aw.out, t.id)
			aw.bytes -= f.bytes
			if aw.over && len(aw.out) == 0 {
				over = func() { a.overAway(aw) }
			}
			switch {
			case b.Kind != replyDone: // what becomes of it is seen when the attempt has ended
				f.begun, f.err = b.Kind == replyGone, failure
				aw.back = append(aw.back, f)
			case failure != nil && failure.Attempt == 0 && len(b.Err) > 0:
				t.attempt-- // it had not begun
			default:
				if err := a.countAway(aw, t, b.Saved); err != nil {
					failure = err
				}
			}
		}
		a.mu.Unlock()
		if !there || b.Kind != replyDone {
			letGo()
			over()
			return
		}
	}
	objects := slices.Clone(t.results)
	for _, o := range objects {
		o.Retain()
	}
	ps.sealResults(p, b, objects, results, failure, func() {
		defer releaseAll(objects)
		defer letGo()
		bytes := t.bytes()
		if a == nil {
			ps.called(t, failure)
			return
		}
		a.mu.Lock()
		a.box.Done()
		if failure == nil && a.away.Load() == f.away {
			a.answered++
		}
		a.mu.Unlock()
		a.job.takeQueued(bytes)
		a.settle(t, failure)
		a.poke()
	})
	over()
}

// closeAway ends the attempt, of which the peer says that it has ended.
func (a *actor) closeAway(aw *awayActor, failure *wray.Error) {
	a.mu.Lock()
	if aw != nil && aw.ends && a.ending == nil {
		failure = nil
	}
	a.mu.Unlock()
	restart, why := a.leaveAway(aw, failure)
	a.finish(why, restart)
}

// leaveAway deals with the calls of an attempt that has ended at a peer, of
// which failure is known: those that may be run again go back to the mailbox. It
// returns whether the attempt was ended to begin again, and why it was.
func (a *actor) leaveAway(aw *awayActor, failure *wray.Error) (restart bool, why *wray.Error) {
	ps := a.job.w.peers
	var calls []*flight
	a.mu.Lock()
	if aw != nil {
		calls = aw.back
		for _, f := range aw.out {
			f.begun = true // for all that is known
			calls = append(calls, f)
		}
		aw.back, aw.out = nil, nil
	}
	if len(calls) > 0 {
		ps.mu.Lock()
		for _, f := range calls {
			if ps.calls[f.task.id] == f {
				delete(ps.calls, f.task.id)
			}
		}
		ps.mu.Unlock()
	}
	if a.ending != nil {
		failure = a.ending
		if !a.final {
			a.ending, restart = nil, true
		}
	}
	var moved map[wray.ID]*objectstore.Object
	if a.away.CompareAndSwap(aw, nil) {
		a.box.Ahead = 0
		if aw != nil {
			moved, aw.moved = aw.moved, nil
		}
	}
	slices.SortFunc(calls, func(x, y *flight) int { return cmp.Compare(y.order, x.order) })
	restarts := !a.final && a.create.mayRestart()
	var ended []*flight
	var canceled []*task
	for _, f := range calls { // the last first
		t := f.task
		if !f.begun {
			t.attempt--
		} else if !restarts || t.answered() || t.tries >= 0 && t.attempt > t.tries {
			a.box.Done()
			ended = append(ended, f)
			continue
		}
		if t.canceled {
			a.box.Done()
			canceled = append(canceled, t)
			continue
		}
		a.box.PutBack(t.letter, t.from)
	}
	a.mu.Unlock()
	letGoAll(moved)
	for _, t := range canceled {
		a.job.takeQueued(t.bytes())
		a.settle(t, wray.Errorf(wray.CodeCanceled, "the call was canceled"))
	}
	slices.Reverse(ended)
	for _, f := range ended {
		err, what := f.err, "the actor ended while this call was under way"
		if err == nil {
			err = failure
		} else if a.box.Width <= 1 {
			what = "the actor ended in this call"
		}
		if err == nil {
			err = wray.Errorf(wray.CodeInternal, "the sandbox was stopped")
		}
		a.job.takeQueued(f.task.bytes())
		a.settle(f.task, a.died(f.task, what, err, restarts))
	}
	a.losing(nil)
	return restart, failure
}

// noteCanceled has a call that is at a peer, or of which the peer has said that it
// did not end, not be run again when the attempt has ended.
func (a *actor) noteCanceled(t *task) {
	a.mu.Lock()
	defer a.mu.Unlock()
	aw := a.away.Load()
	if aw == nil {
		return
	}
	if aw.out[t.id] != nil || slices.ContainsFunc(aw.back, func(f *flight) bool { return f.task == t }) {
		t.canceled = true
	}
}

// cancelAway asks the peer to end a call that was sent there. False: none was.
func (w *Worker) cancelAway(t *task) bool {
	ps := w.peers
	if ps == nil {
		return false
	}
	ps.mu.Lock()
	f := ps.calls[t.id]
	ps.mu.Unlock()
	if f == nil || f.peer == nil {
		return false
	}
	ps.send(f.peer, &peerMessage{Stop: &stopBody{bodyOf(t.id), f.attempt, uint32(wray.CodeCanceled)}})
	return true
}

// leavePeer deals with the actors that lived at p, which is gone, before the
// scheduler has them begin elsewhere, and with the calls that p was to run or to
// have run.
func (ps *peerSet) leavePeer(p *peer) {
	w := ps.w
	w.mu.Lock()
	var actors []*actor
	for _, t := range ps.lent {
		if t.makes != nil && t.far.lend != nil && t.far.lend.peer == p.id {
			actors = append(actors, t.makes)
		}
	}
	w.mu.Unlock()
	for _, a := range actors {
		aw := a.away.Load()
		if aw == nil || aw.peer != p.id {
			continue
		}
		a.mu.Lock()
		over := aw.ends
		a.mu.Unlock()
		a.leaveAway(aw, &wray.Error{Code: wray.CodeWorkerDied, Node: p.node, Message: "node " + p.node + ", where the actor was, is gone"})
		a.mu.Lock()
		over = over || a.final
		a.mu.Unlock()
		if over { // or it would begin again
			w.cancelTask(a.create.id)
		}
	}
	var calls []*task
	ps.mu.Lock()
	for id, f := range ps.calls {
		if f.peer == p && f.actor == nil {
			calls = append(calls, f.task)
			delete(ps.calls, id)
		}
	}
	ps.mu.Unlock()
	for _, t := range calls {
		ps.called(t, actorsHomeDied(p.node))
	}
}

// mayLeave reports whether the actor may live on other nodes.
func (j *job) mayLeave(a *actor) bool {
	// What is on stable storage is on this node's. Files of granted directories
	// are, too, and an actor is not run again where it opens one.
	return !a.durable && len(j.spec.Dirs) == 0
}
