package worker

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// Actors as guests have them that are not on the node of their job. A handle of
// an actor is there a reference to an object of the home's; a call is sent there,
// and comes back as an attempt does that was lent. To make an actor, to find one
// by its name, and to end one, the guest asks the home, and waits.

// farCall is what a call of an actor of another worker has in place of an actor.
type farCall struct {
	actor wray.ID // the object that stands for it
	key   string
}

// farActorOf returns the object of another worker's actor that a handle stands
// for, or nil.
func (g *guest) farActorOf(h uint32) *objectstore.Object {
	o, ok := g.handles.Object(h)
	if !ok || g.w.peers == nil {
		return nil
	}
	px, _ := o.Attachment().(*proxy)
	if px == nil {
		return nil
	}
	g.w.peers.mu.Lock()
	defer g.w.peers.mu.Unlock()
	if !px.actor {
		return nil
	}
	return o
}

// readFarCall reads what a struct task_spec says of a call of the actor o, which
// is another worker's.
func (g *guest) readFarCall(t *task, o *objectstore.Object) abi.Errno {
	if t.flags&actorFlags != 0 || t.fn.command {
		return abi.EINVAL
	}
	if t.flags&abi.SpecStream != 0 {
		return g.notHere("a stream of an actor was asked for")
	}
	t.far = &far{call: &farCall{actor: o.ID()}}
	if g.holder != nil {
		t.from = g.holder.id.Seq
	}
	return abi.Success
}

// callFar sends the call t to where its actor belongs. On an errno t has been
// released.
func (g *guest) callFar(t *task, out []byte) abi.Errno {
	w, j := g.w, g.job
	ps, c := w.peers, t.far.call
	if err := argsTravel(t.fn, t.args, c.key); err != nil {
		return g.notTaken(t, out, err)
	}
	if err := j.queued.add(t.bytes()); err != nil {
		return g.notTaken(t, out, err)
	}
	t.attempt = 1
	ps.mu.Lock()
	p := ps.peerOfLocked(c.actor.Owner)
	ps.mu.Unlock()
	if p == nil {
		j.takeQueued(t.bytes())
		return g.notTaken(t, out, actorsHomeDied(""))
	}
	b := &lendBody{Job: bodyOf(j.id), Task: bodyOf(t.id), Attempt: 1, Name: asText(t.name), Module: t.fn.module.name, Func: t.fn.name,
		Timeout: int64(t.timeout), Results: len(t.results),
		Call: &callBody{Actor: bodyOf(c.actor), From: t.from, Flags: t.flags & callFlags, Key: c.key}}
	for _, a := range t.args {
		b.Args = append(b.Args, ps.argFor(p, a))
	}
	w.calls.add(t)
	ps.mu.Lock()
	there := ps.peerOfLocked(c.actor.Owner) == p
	if there { // from here on the call may end at any time
		ps.calls[t.id] = &flight{task: t, peer: p, attempt: 1}
	}
	ps.mu.Unlock()
	if !there {
		ps.called(t, actorsHomeDied(p.node))
		return abi.Success
	}
	ps.send(p, &peerMessage{Lend: b})
	return abi.Success
}

// called ends a call that this worker has sent to an actor's home.
func (ps *peerSet) called(t *task, err *wray.Error) {
	ps.w.calls.remove(t)
	t.job.takeQueued(t.bytes())
	if err != nil {
		t.fail(t.job.named(err, t.name, t.attempt))
	}
	t.release()
}

// actorsHomeDied is the failure of a call whose actor went with its job's node.
func actorsHomeDied(node string) *wray.Error {
	return &wray.Error{Code: wray.CodeActorDied, Node: node, Message: "the node that the actor's job belongs to is gone"}
}

// notHere is the end of what cannot be done here: a lent task is run again on
// the node of its job; an actor, which cannot be, is told.
func (g *guest) notHere(what string) abi.Errno {
	if h := g.holder; h == nil || h.far != nil && h.far.root != nil && h.far.root.makes == nil {
		g.goHome(what)
	}
	return g.refuse(&wray.Error{Code: wray.CodeDenied, Message: what + ", by an actor that is not on the node of its job, or by its task",
		Hint: "do so in the driver, or in a task that it submits"}, abi.EPERM)
}

// question is what a guest waits for an answer to.
type question struct {
	g      *guest
	answer atomic.Pointer[verdict]
}

// verdict is what the home said. It has a reference on object.
type verdict struct {
	object *objectstore.Object // may be nil
	err    *wray.Error
}

// ask asks the home of the guest's job, and waits for its answer. What the
// answer refers to is the caller's.
func (g *guest) ask(b *askBody) *verdict {
	ps, home := g.w.peers, g.job.mirror.owner
	if g.holder == nil { // it initialises
		g.goHome("an actor was asked for")
	}
	q := &question{g: g}
	ps.mu.Lock()
	ps.asked++
	b.N, b.Job = ps.asked, bodyOf(g.job.id)
	ps.asks[b.N] = q
	ps.mu.Unlock()
	ps.send(home, &peerMessage{Ask: b})
	done := false
	defer func() {
		if !done { // the guest was stopped
			ps.mu.Lock()
			delete(ps.asks, b.N)
			ps.mu.Unlock()
			if a := q.answer.Load(); a != nil && a.object != nil {
				a.object.Release()
			}
		}
	}()
	g.standBy(-1, func() bool { return q.answer.Load() != nil })
	done = true
	return q.answer.Load()
}

// answered gives a guest the answer that p has sent.
func (ps *peerSet) answered(p *peer, b *answerBody) {
	a := &verdict{}
	if b.Ref != nil {
		a.object = ps.objects(p, []refBody{*b.Ref})[0]
	}
	if len(b.Err) > 0 {
		a.err = objectstore.DecodeFailure(b.Err)
	}
	ps.mu.Lock()
	q := ps.asks[b.N]
	if q != nil && q.g.job.mirror.owner != p {
		q = nil
	}
	if q != nil {
		delete(ps.asks, b.N)
		q.answer.Store(a) // under the lock, as who gives up looks for it then
	}
	ps.mu.Unlock()
	switch {
	case q != nil:
		q.g.signal()
	case a.object != nil:
		a.object.Release()
	}
}

// give gives a guest what was answered; none is the errno where there is nothing.
func (a *verdict) give(g *guest, out []byte, none abi.Errno) abi.Errno {
	switch {
	case a.err != nil:
		return g.refuse(a.err, abi.EPERM)
	case a.object == nil:
		return none
	}
	return g.give(a.object, out)
}

// makeAtHome has the home of the job make the actor of t, which is released.
func (g *guest) makeAtHome(t *task, spec *scheduler.Spec, out []byte) abi.Errno {
	ps, home := g.w.peers, g.job.mirror.owner
	if err := argsTravel(t.fn, t.args, append(t.retryOn, t.name)...); err != nil {
		t.release()
		return g.refuse(err, abi.EINVAL)
	}
	m := t.makes.makeBody()
	m.Flags, m.Restarts, m.Tries, m.RetryOn = t.flags&makeFlags, t.restarts, t.makes.tries, t.retryOn
	m.Place = t.place.Append(nil)
	if n := t.makes.maxPending; n < 1<<30 {
		m.MaxPending = n
	}
	b := &lendBody{Job: bodyOf(g.job.id), Task: bodyOf(t.id), Attempt: 1, Name: t.name, Module: t.fn.module.name, Func: t.fn.name,
		CPU: int64(t.resources.CPU), Memory: t.memory, Custom: CustomBodies(spec.Custom), Timeout: int64(t.timeout), Results: 1, Make: m}
	for _, a := range t.args {
		b.Args = append(b.Args, ps.argFor(home, a))
	}
	if t.group != nil {
		r := ps.refTo(home, t.group)
		b.Group, b.Bundle = &r, t.bundle
	}
	defer t.release()
	return g.ask(&askBody{Make: b}).give(g, out, abi.EIO)
}

// askedBy answers what a guest at p asks.
func (ps *peerSet) askedBy(p *peer, b *askBody) {
	w := ps.w
	var args []arg
	if b.Make != nil {
		args = ps.withGroup(p, b.Make, ps.args(p, b.Make))
	}
	w.mu.Lock()
	j := w.jobs[b.Job.id()]
	w.mu.Unlock()
	switch {
	case j == nil || j.mirror != nil:
		releaseArgs(args)
		ps.tell(p, b.N, nil, wray.Errorf(wray.CodeCanceled, "the job has ended"))
	case b.Find != nil:
		w.wg.Go(func() { // it may have to read what an earlier job left
			o, err := j.findActor(*b.Find)
			ps.tell(p, b.N, o, err)
		})
	case b.Kill != nil && ps.killedBy(p, b.Kill.Actor.id()):
		ps.tell(p, b.N, nil, nil)
	case b.Kill != nil:
		a, keep, err := ps.calledBy(p, &callBody{Actor: b.Kill.Actor})
		if err == nil {
			a.kill(b.Kill.Restart)
			keep.Release()
		}
		ps.tell(p, b.N, nil, err)
	default:
		o, err := ps.makeHere(j, b.Make, args)
		ps.tell(p, b.N, o, err)
	}
}

// tell answers the question n of a guest at p. It takes over the reference on o,
// which may be nil: there is none.
func (ps *peerSet) tell(p *peer, n uint64, o *objectstore.Object, err *wray.Error) {
	b := &answerBody{N: n}
	if err != nil {
		b.Err = objectstore.EncodeFailure(err)
	}
	if o != nil {
		ref := ps.refTo(p, o)
		b.Ref = &ref
	}
	ps.send(p, &peerMessage{Answer: b})
	if o != nil {
		o.Release()
	}
}

// makeHere makes an actor of j that a guest elsewhere asks for, and returns the
// object that stands for it, with a reference. It takes over args.
func (ps *peerSet) makeHere(j *job, b *lendBody, args []arg) (*objectstore.Object, *wray.Error) {
	w, m := ps.w, b.Make
	n, e := j.lookup(b.Module, b.Func)
	f := j.function(n)
	if e != abi.Success || f == nil || f.command {
		releaseArgs(args)
		return nil, wray.Errorf(wray.CodeUnknownFunction, "module %q has no actor %q", b.Module, b.Func)
	}
	t := &task{id: w.newID(), job: j, fn: f, name: b.Name, flags: abi.SpecActor | m.Flags, memory: b.Memory, restarts: m.Restarts,
		resources: wray.Resources{CPU: wray.CPU(b.CPU), Memory: b.Memory}, timeout: time.Duration(b.Timeout), retryOn: m.RetryOn, args: args}
	t.takeGroup(b)
	if len(m.Place) > 0 {
		t.place, _ = wray.ParsePlacement(string(m.Place)) // which check has read
	}
	a := newActor(t)
	t.makes = a
	a.tries, a.box.Width, a.idle, a.custom = m.Tries, m.Width, time.Duration(m.Idle), customOf(b.Custom)
	a.dur.calls, a.dur.every = m.Calls, time.Duration(m.Every)
	if m.MaxPending > 0 {
		a.maxPending = m.MaxPending
	}
	if a.custom != nil {
		t.far = &far{custom: a.custom}
	}
	if m.Flags&abi.SpecNamed != 0 {
		if have := j.takeName(t); have != nil {
			t.release()
			if m.Flags&abi.SpecGetIfExists != 0 {
				return have, nil
			}
			have.Release()
			// The handle says what is wrong, as it does at home.
			o, err := w.store.Declare(w.newID())
			if err != nil {
				return nil, t.asError(err)
			}
			_ = o.Fail(j.named(nameTaken(t.name), t.name, 0))
			return o, nil
		}
	}
	o, err := w.declare(t, 0)
	if err != nil {
		a.unname()
		t.release()
		return nil, t.asError(err)
	}
	t.results = append(t.one[:0], o)
	o.Retain()
	spec := scheduler.Spec{ID: t.id, Job: j.id, Name: t.name, Resources: t.resources, Custom: a.custom, Retries: m.Restarts,
		Timeout: b.Timeout, Results: []wray.ID{o.ID()}, Bytes: t.bytes(), Place: j.placeOf(t)}
	if err := w.submit(nil, t, &spec); err != nil {
		typed := j.named(err, t.name, 0)
		a.ended(typed)
		t.fail(typed)
		t.release()
	}
	return o, nil
}

// findActor returns the actor called name, with a reference, or nil.
func (j *job) findActor(name string) (*objectstore.Object, *wray.Error) {
	if o := j.namedObject(name); o != nil || strings.HasPrefix(name, abi.GroupName) {
		return o, nil
	}
	return j.durableActor(name)
}
