package worker

import (
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// hostedActor is an actor of peer 7's at a worker that 7 has greeted and hears
// nothing more of.
func hostedActor(t *testing.T) (w *Worker, p *peer, a *actor, call *lendBody) {
	t.Helper()
	h := newJobs(t, tinyGuest(), func(c *Config) { c.Peering = &deaf{} })
	w = h.w
	w.PeerUp(7, "b")
	p = w.peers.peers[7]
	tell(t, w, &peerMessage{Hello: &helloBody{CPU: 20_000, Memory: 1 << 30}})
	driver, stop := h.start(t)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	j := driver.module.job
	n, e := j.lookup("tiny", "f")
	if e != 0 {
		t.Fatal(e)
	}
	create := &task{id: w.newID(), job: j, fn: j.function(n), name: "a", far: &far{to: &lentTo{peer: p, task: wray.ID{Owner: 7, Seq: 4096}, attempt: 1}}}
	a = newActor(create)
	a.hosted, create.makes = true, a
	key := attemptKey{create.far.to.task, 1}
	w.peers.mu.Lock()
	p.guests[key] = create
	w.peers.mu.Unlock()
	t.Cleanup(func() {
		a.ended(nil)
		w.peers.mu.Lock()
		delete(p.guests, key)
		w.peers.mu.Unlock()
	})
	return w, p, a, &lendBody{Job: bodyOf(j.id), Task: idBody{7, 8192}, Attempt: 1, Name: "f", Module: "tiny", Func: "f", Results: 1,
		Call: &callBody{Actor: bodyOf(create.far.to.task), Attempt: 1, From: 1}}
}

// replied is the last reply that the worker sent, or nil.
func replied(t *testing.T, w *Worker) (last *replyBody) {
	t.Helper()
	d := w.peers.net.(*deaf)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.sent {
		if m, err := decodePeer(b); err != nil {
			t.Fatal(err)
		} else if m.Reply != nil {
			last = m.Reply
		}
	}
	d.sent = nil
	return last
}

// A call that a hosted actor does not take has ended, where the actor lives on:
// its home would wait for the end of the attempt if it were told that the call
// has not begun.
func TestHostedCallRefused(t *testing.T) {
	w, p, a, call := hostedActor(t)
	o, err := w.store.Declare(w.newID())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Fail(wray.Errorf(wray.CodeObjectLost, "it is gone")); err != nil {
		t.Fatal(err)
	}
	w.peers.callHere(p, call, []arg{{object: o}})
	if r := replied(t, w); r == nil || r.Kind != replyDone || len(r.Err) == 0 {
		t.Errorf("of a call whose argument failed is told %+v", r)
	}
	a.ended(nil)
	w.peers.callHere(p, call, nil)
	if r := replied(t, w); r == nil || r.Kind != replyUnbegun {
		t.Errorf("of a call of an actor that is gone is told %+v", r)
	}
}

// A worker that goes does not cancel what waits for a hosted actor: it ends with
// the actor, as not begun.
func TestHostedCallGivenUp(t *testing.T) {
	w, p, a, call := hostedActor(t)
	w.peers.callHere(p, call, nil)
	w.peers.giveUp()
	if r := replied(t, w); r != nil {
		t.Errorf("of a call that waits is told %+v", r)
	}
	a.ended(nil)
	if r := replied(t, w); r == nil || r.Kind != replyUnbegun {
		t.Errorf("of a call that waited when the actor ended is told %+v", r)
	}
}

// Calls of a peer that is gone are not taken.
func TestHostedCallOfGone(t *testing.T) {
	w, p, a, call := hostedActor(t)
	w.peers.mu.Lock()
	p.gone = true
	w.peers.mu.Unlock()
	w.peers.callHere(p, call, nil)
	w.peers.mu.Lock()
	p.gone = false
	w.peers.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.box.Len(); n != 0 {
		t.Errorf("%d calls wait", n)
	}
}

// An attempt that is taken back before it was sent is not away, and one that
// goes away is the restart that was asked for before it.
func TestAwayBegins(t *testing.T) {
	w, _ := deafWorker(t)
	create := &task{id: w.newID(), job: &job{w: w}, name: "a"}
	a := newActor(create)
	create.makes = a
	a.ending = wray.Errorf(wray.CodeActorDied, "the actor was killed")
	lend := func() *lending {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.lendLocked(create, &scheduler.Decision{Peer: 7, Attempt: 1})
	}
	l := lend()
	if a.away.Load() == nil || a.ending != nil {
		t.Errorf("away %v, ending %v", a.away.Load(), a.ending)
	}
	w.staysHome(l, scheduler.NoRoom, nil)
	if a.away.Load() != nil {
		t.Error("an attempt that was not sent is away")
	}
	a.end(wray.Errorf(wray.CodeActorDied, "the actor was killed"), true)
	w.staysHome(lend(), scheduler.NoRoom, nil)
	if a.ending == nil {
		t.Error("an actor that was killed begins again")
	}
}

// What a call did whose checkpoint is lost with its peer is lost: the answer that
// came behind it is not given.
func TestLostWithCheckpoint(t *testing.T) {
	w, _ := deafWorker(t)
	p := &peer{id: 7, node: "b"} // which is gone
	j := &job{w: w}
	create := &task{id: w.newID(), job: j, name: "a"}
	a := newActor(create)
	create.makes = a
	call := &task{id: w.newID(), job: j, name: "f", actor: a, attempt: 1}
	call.letter = &scheduler.Letter[*task]{Value: call}
	o, err := w.declare(call, 0)
	if err != nil {
		t.Fatal(err)
	}
	o.Retain()
	defer o.Release()
	call.results = append(call.results, o)
	w.calls.add(call)
	a.box.Post(call.letter, 1, 0)
	a.box.Next()
	f := &flight{task: call, peer: p, attempt: 1, actor: a}
	aw := &awayActor{peer: 7, attempt: 1, lives: true, out: map[wray.ID]*flight{call.id: f}}
	f.away = aw
	a.away.Store(aw)
	last, err := w.store.Declare(w.newID())
	if err != nil {
		t.Fatal(err)
	}
	_ = last.Fail(ownerDied(p))
	a.takeHome(aw, p, 1, last)
	value := valueBody{Encoding: uint32(abi.EncodingCBOR), Payload: []byte{1}}
	w.peers.callReply(p, f, &replyBody{Kind: replyDone, Saved: 1}, []result{{value: &value}})
	if o.Ready() {
		t.Errorf("the call was answered: %v", o.Err())
	}
	a.leaveAway(aw, wray.Errorf(wray.CodeWorkerDied, "it is gone"))
	if !o.Ready() || o.Err() == nil || o.Err().Code != wray.CodeActorDied {
		t.Error("the call has not failed")
	}
}

// A call that was canceled while what became of it was not known is not run
// again when its actor's attempt has ended.
func TestCanceledAway(t *testing.T) {
	w, _ := deafWorker(t)
	j := &job{w: w}
	create := &task{id: w.newID(), job: j, name: "a", restarts: scheduler.Forever}
	a := newActor(create)
	create.makes = a
	call := &task{id: w.newID(), job: j, name: "f", actor: a, tries: -1, attempt: 1}
	call.letter = &scheduler.Letter[*task]{Value: call}
	o, err := w.declare(call, 0)
	if err != nil {
		t.Fatal(err)
	}
	o.Retain()
	defer o.Release()
	call.results = append(call.results, o)
	w.calls.add(call)
	a.box.Post(call.letter, 1, 0)
	a.box.Next()
	aw := &awayActor{peer: 7, attempt: 1, back: []*flight{{task: call, attempt: 1}}}
	a.away.Store(aw)
	a.box.Ahead = aheadCalls
	a.cancel(call)
	a.leaveAway(aw, wray.Errorf(wray.CodeWorkerDied, "it is gone"))
	if a.box.Ahead != 0 {
		t.Errorf("%d calls may go ahead of an actor that is nowhere", a.box.Ahead)
	}
	if !o.Ready() {
		t.Fatalf("the call has not ended, %d wait", a.box.Len())
	}
	if err := o.Err(); err == nil || err.Code != wray.CodeCanceled || a.box.Len()+a.box.Out() != 0 {
		t.Errorf("the call ended with %v, %d wait", err, a.box.Len())
	}
}
