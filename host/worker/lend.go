package worker

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// The owner's side of attempts that run on another node. The worker that a task
// was submitted on owns it: its results, its retries. It lends attempts, one at
// a time, each to a peer that runs it at once or refuses.

// far is what is known of a task that has to do with other nodes.
type far struct {
	custom []wray.Custom // that it asks for
	lend   *lend         // its attempt, while that is at a peer; guarded by Worker.mu
	to     *lentTo       // what it stands for, where a peer has lent it
	root   *task         // the lent task that it came of, itself included
	call   *farCall      // of an actor of another worker's, or nil
	saved  uint64        // of a call that was lent here: the checkpoint that has what it did
	end    replyKind     // of a call that was lent here, and did not end well: how; 0 for replyDone
}

// lend is an attempt at a peer, guarded by Worker.mu.
type lend struct {
	peer    scheduler.PeerID
	attempt int
	sent    bool
	stop    wray.Code // asked for before it was sent
}

// lending is what it takes to lend an attempt, kept while the task may end.
type lending struct {
	task *task
	lend *lend
	args []arg               // with a reference each
	last *objectstore.Object // the checkpoint that an actor begins from, with a reference; nil: none

	group   *objectstore.Object // likewise, or nil
	bundle  int
	results int
}

// lendLocked notes that an attempt of t goes to a peer. w.mu is held.
func (w *Worker) lendLocked(t *task, d *scheduler.Decision) *lending {
	if t.far == nil {
		t.far = &far{}
	}
	t.far.lend = &lend{peer: d.Peer, attempt: d.Attempt}
	w.peers.lent[t.id] = t
	if t.makes != nil {
		t.makes.goAwayLocked(d)
	}
	l := &lending{task: t, lend: t.far.lend, args: slices.Clone(t.args), results: len(t.results)}
	for _, a := range l.args {
		if a.object != nil {
			a.object.Retain()
		}
	}
	if t.group != nil {
		t.group.Retain()
		l.group, l.bundle = t.group, d.Bundle
	}
	if t.makes != nil {
		l.last = t.makes.retainAway()
	}
	return l
}

// send tells the peer to run the attempt.
func (l *lending) send() {
	t, w := l.task, l.task.job.w
	ps := w.peers
	defer func() {
		for _, a := range l.args {
			if a.object != nil {
				a.object.Release()
			}
		}
		if l.group != nil {
			l.group.Release()
		}
		if l.last != nil {
			l.last.Release()
		}
	}()
	if a := t.makes; a != nil && a.dur.last != nil { // no attempt is under way
		go w.staysHome(l, scheduler.OnlyHere, errHasOwn)
		return
	}
	all := l.args
	if l.last != nil {
		all = append(slices.Clone(all), arg{object: l.last})
	}
	if err := argsTravel(l.task.fn, all); err != nil {
		go w.staysHome(l, scheduler.OnlyHere, err) // which may lend the next, that cannot be lent either
		return
	}
	if ps.net.Unsent(l.lend.peer) > maxUnsent { // PeerHasRoom follows
		go w.noRoom(l)
		return
	}
	ps.mu.Lock()
	p := ps.peers[l.lend.peer]
	if p == nil { // it is going down, which ends the attempt
		ps.mu.Unlock()
		return
	}
	if !p.jobs[t.job.id] {
		p.jobs[t.job.id] = true
		ps.send(p, &peerMessage{Job: t.job.body()}) // under the lock, as no attempt may come before it
	}
	ps.mu.Unlock()
	b := &lendBody{Job: bodyOf(t.job.id), Task: bodyOf(t.id), Attempt: l.lend.attempt, Name: asText(t.name),
		Module: t.fn.module.name, Func: t.fn.name, CPU: int64(t.resources.CPU), Memory: t.memory, Custom: CustomBodies(t.far.custom),
		Flags: t.flags & lentFlags, Timeout: int64(t.timeout), Results: l.results}
	if t.fn.command {
		b.Func = abi.ExportStart
	}
	if t.makes != nil {
		b.Make, b.Results = t.makes.makeBody(), 1
		if l.last != nil {
			x := ps.argFor(p, arg{object: l.last})
			b.Make.Last = &x
		}
	}
	for _, a := range l.args {
		b.Args = append(b.Args, ps.argFor(p, a))
	}
	if l.group != nil {
		r := ps.refTo(p, l.group)
		b.Group, b.Bundle = &r, l.bundle
	}
	ps.send(p, &peerMessage{Lend: b})
	w.mu.Lock()
	l.lend.sent = true
	stop := l.lend.stop
	w.mu.Unlock()
	if stop != 0 {
		w.stopLent(t.id, l.lend, stop)
	}
}

// noRoom takes an attempt back for which there is no room on the way. What waits
// there may have gone since that was seen, and PeerHasRoom have come: it is asked
// again after the scheduler was told, so that the peer is not passed over until
// it happens to speak.
func (w *Worker) noRoom(l *lending) {
	w.staysHome(l, scheduler.NoRoom, nil)
	if w.peers.net.Unsent(l.lend.peer) <= maxUnsent {
		w.PeerHasRoom(l.lend.peer)
	}
}

// staysHome takes an attempt back that is not sent.
func (w *Worker) staysHome(l *lending, why scheduler.Refusal, err *wray.Error) {
	w.mu.Lock()
	t := l.task
	taken := t.far.lend == l.lend
	if taken {
		t.far.lend = nil
		delete(w.peers.lent, t.id)
		w.sched.Refused(w.now(), t.id, l.lend.attempt, why, err)
		if t.makes != nil {
			t.makes.comeBackLocked()
		}
	}
	w.actLocked(nil, nil)
	if taken && t.makes != nil {
		t.makes.cancelEnded()
	}
}

// asText is a name that is for people alone, as it travels.
func asText(name string) string { return strings.ToValidUTF8(name, "?") }

// lentFlags are those of a task that matter where it runs.
const lentFlags = abi.SpecFresh | abi.SpecInGroup | abi.SpecCapture

func (ps *peerSet) argFor(p *peer, a arg) argBody {
	o := a.object
	if o == nil {
		return argBody{Value: valueBody{Encoding: uint32(a.encoding), Meta: a.meta, Payload: a.payload}}
	}
	if a.later { // of a call: the value follows
		r := ps.refTo(p, o)
		return argBody{Ref: &r}
	}
	if info := o.Info(); info.Refs == 0 && info.Len < inlineArg && info.Encoding != abi.EncodingError {
		return argBody{Value: ps.describe(p, o)} // to the guest the same, without an object
	}
	r := ps.refTo(p, o)
	return argBody{Value: ps.describe(p, o), Ref: &r}
}

// stopLent tells the peer to end an attempt.
func (w *Worker) stopLent(id wray.ID, l *lend, code wray.Code) {
	w.peers.mu.Lock()
	p := w.peers.peers[l.peer]
	w.peers.mu.Unlock()
	if p != nil {
		w.peers.send(p, &peerMessage{Stop: &stopBody{bodyOf(id), l.attempt, uint32(code)}})
	}
}

// reply takes the end of an attempt that p ran.
func (ps *peerSet) reply(p *peer, b *replyBody) error {
	w := ps.w
	// The references count whatever becomes of the reply.
	results := make([]result, len(b.Results))
	for i := range b.Results {
		results[i] = ps.result(p, &b.Results[i])
	}
	letGo := func() {
		for i := range results {
			results[i].letGo()
		}
	}
	id := b.Task.id()
	ps.mu.Lock()
	if ps.peers[p.id] != p && p.down == nil { // its attempts are run elsewhere already
		ps.mu.Unlock()
		letGo()
		return nil
	}
	p.ending++
	ps.mu.Unlock()
	sealing := false
	defer func() {
		if !sealing {
			ps.endingDone(p)
		}
	}()
	ps.mu.Lock()
	f := ps.calls[id]
	if f != nil && (f.peer != p || f.attempt != b.Attempt) {
		f = nil
	}
	if f != nil {
		delete(ps.calls, id)
	}
	ps.mu.Unlock()
	if f != nil {
		w.step(nil, func(s *scheduler.Scheduler) { s.PeerLoad(w.now(), p.id, b.Load.load()) })
		ps.callReply(p, f, b, results)
		return nil
	}
	w.mu.Lock()
	t := ps.lent[id]
	if t == nil || t.far.lend == nil || t.far.lend.peer != p.id || t.far.lend.attempt != b.Attempt {
		w.sched.PeerLoad(w.now(), p.id, b.Load.load())
		w.actLocked(nil, nil)
		letGo()
		return nil // of one that is over
	}
	if t.makes != nil {
		ps.actorReply(p, t, b)
		letGo()
		return nil
	}
	delete(ps.lent, id)
	t.far.lend = nil
	objects := slices.Clone(t.results)
	for _, o := range objects {
		o.Retain()
	}
	if b.Kind != replyDone { // what is of actors makes no sense here, and is a refusal
		w.sched.PeerLoad(w.now(), p.id, b.Load.load())
		told := ps.refusedLocked(p, t, b)
		w.actLocked(nil, nil)
		told()
		releaseAll(objects)
		letGo()
		return nil
	}
	var kept *lineage
	for i := range results {
		// The references of a value are those of its first making.
		if r := &results[i]; r.away() && len(r.refs) == 0 && len(b.Err) == 0 && i < len(objects) {
			if kept == nil {
				if kept = ps.lineageOf(t, len(objects)); kept == nil {
					break
				}
			}
			kept.refs++
			r.lineage, r.index = kept, i
		}
	}
	w.mu.Unlock()
	var failure *wray.Error
	switch {
	case len(b.Err) > 0:
		failure = objectstore.DecodeFailure(b.Err)
	case len(results) != len(objects):
		failure = &wray.Error{Code: wray.CodeInternal, Node: p.node, Task: t.name, Attempt: b.Attempt,
			Message: "node " + p.node + " gave another number of results than were asked for"}
	}
	ended := func() {
		defer ps.endingDone(p)
		defer releaseAll(objects)
		defer letGo()
		w.mu.Lock()
		w.sched.PeerLoad(w.now(), p.id, b.Load.load())
		w.sched.Finished(w.now(), id, b.Attempt, scheduler.Outcome{Err: failure, Retryable: failure != nil && t.retryable(failure)})
		w.actLocked(nil, nil)
	}
	sealing = true
	// Each result is sealed before the end is told, as those of one that ran here.
	ps.sealResults(p, b, objects, results, failure, ended)
	return nil
}

// refusedLocked takes the refusal of t's attempt, and returns what is to be
// called when Worker.mu, which is held, is free.
func (ps *peerSet) refusedLocked(p *peer, t *task, b *replyBody) (told func()) {
	w := ps.w
	why, told := scheduler.NoRoom, func() {}
	var cause *wray.Error
	if len(b.Err) > 0 {
		cause = objectstore.DecodeFailure(b.Err)
	}
	switch b.Kind {
	case replyHome:
		why = scheduler.OnlyHere
		t.job.bound.Store(t.fn, true)
	case replyAbsent:
		why = scheduler.NotNow
		ps.mu.Lock()
		first := p.jobs[t.job.id]
		if first {
			p.jobs[t.job.id] = false // announced again, when it is asked again
		}
		ps.mu.Unlock()
		if out := t.job.out; first && cause != nil && out != nil {
			told = func() {
				out.put("", Notice, fmt.Appendf(nil, "node %s cannot run tasks of this job for now, and is asked again later: %v\n", p.node, cause))
			}
		}
	}
	w.sched.Refused(w.now(), t.id, b.Attempt, why, cause)
	return told
}

// sealResults seals them one after the other, and calls then.
func (ps *peerSet) sealResults(p *peer, b *replyBody, objects []*objectstore.Object, results []result, failure *wray.Error, then func()) {
	if failure != nil || len(objects) == 0 {
		then()
		return
	}
	r := &results[0]
	var from objectstore.Source
	if r.away() {
		at := ps.sourceOf(p, r.object.ID(), r.object)
		at.lineage, at.index = r.lineage, r.index
		r.lineage = nil // the source's now
		from = at
	}
	ps.seal(objects[0], r.value, r.refs, from, func() { ps.sealResults(p, b, objects[1:], results[1:], nil, then) })
}

// result is what came for one result of a task.
type result struct {
	value  *valueBody
	refs   []*objectstore.Object
	object *objectstore.Object // the proxy of what stays at the peer, or nil

	lineage *lineage // what makes it again, until its source has that
	index   int
}

// away reports whether the payload stays at the peer.
func (r *result) away() bool { return r.object != nil && r.value.Away > 0 }

func (r *result) letGo() {
	releaseAll(r.refs)
	if r.lineage != nil {
		r.lineage.drop()
	}
	if r.object != nil {
		r.object.Release()
	}
}

func (ps *peerSet) result(p *peer, b *resultBody) result {
	r := result{value: &b.Value, refs: ps.objects(p, b.Value.Refs)}
	if b.Ref != nil {
		r.object, _ = ps.object(p, *b.Ref)
		if id := b.Ref.ID.id(); id.Owner == uint64(p.id) && b.Value.Away > 0 {
			ps.seal(r.object, &b.Value, r.refs, ps.sourceOf(p, id, nil), nil)
		}
	}
	return r
}

// body is what peers are told of a job.
func (j *job) body() *jobBody {
	l := &j.spec.Limits
	b := &jobBody{ID: bodyOf(j.id), Name: j.spec.Name, Args: j.spec.Args, Env: j.spec.Env, Output: j.out != nil,
		Limits: jobLimits{Memory: l.Memory, Stack: l.Stack, Files: l.Files, Handles: max(l.Handles, 0), Windows: max(l.Windows, 0), LogRate: l.LogRate}}
	for i, m := range j.modules {
		hash := j.spec.Modules[i].Hash
		if hash == "" {
			hash = m.program()
		}
		b.Modules = append(b.Modules, jobModule{m.name, hash})
	}
	for _, d := range j.spec.Dirs {
		b.Dirs = append(b.Dirs, DirBody{d.Guest, d.ReadOnly})
	}
	return b
}

// endAtPeers ends the job's mirrors.
func (j *job) endAtPeers() {
	ps := j.w.peers
	if ps == nil {
		return
	}
	b := bodyOf(j.id)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.peers {
		if _, announced := p.jobs[j.id]; announced {
			delete(p.jobs, j.id)
			ps.send(p, &peerMessage{EndJob: &b})
		}
	}
}

// home is the place of what cannot be lent.
var home = &scheduler.Place{Home: true}

// placeOf says where t may run, and where its arguments are.
func (j *job) placeOf(t *task) *scheduler.Place {
	strategy := strategyOf(t)
	_, bound := j.bound.Load(t.fn)
	switch {
	case bound, t.only != nil, t.stream != nil, t.makes != nil && !j.mayLeave(t.makes):
		if t.place == nil && t.group == nil {
			return home
		}
		return &scheduler.Place{Strategy: strategy, Home: true}
	}
	var near []scheduler.Near
	for i := range t.args {
		o := t.args[i].object
		if o == nil || !o.Ready() {
			continue
		}
		if at := locationOf(o); at != 0 {
			near = append(near, scheduler.Near{Peer: at, Bytes: o.Info().Len})
		} else if n := o.Info().Len; n >= objectstore.InlineMax {
			near = append(near, scheduler.Near{Bytes: n})
		}
	}
	if !slices.ContainsFunc(near, func(n scheduler.Near) bool { return n.Peer != 0 }) {
		near = nil
	}
	if near == nil && t.place == nil && t.group == nil {
		return nil
	}
	return &scheduler.Place{Strategy: strategy, Near: near}
}

// printedFrom takes what tasks of a job of this worker printed at p, and asks
// for more when there is room. Who does not wait to be asked is refused.
func (ps *peerSet) printedFrom(p *peer, b *printedBody) error {
	w, id := ps.w, b.Job.id()
	w.mu.Lock()
	j := w.jobs[id]
	w.mu.Unlock()
	if j == nil || j.out == nil || j.mirror != nil {
		ps.send(p, &peerMessage{Printed: &b.Job})
		return nil
	}
	ps.mu.Lock()
	early := p.prints[id]
	p.prints[id] = true
	ps.mu.Unlock()
	if early {
		return errors.New("it prints before it is asked for more")
	}
	next := func() {
		ps.mu.Lock()
		delete(p.prints, id)
		ps.mu.Unlock()
		ps.send(p, &peerMessage{Printed: &b.Job})
	}
	j.out.put(b.Task, b.Stream, b.Data)
	j.out.whenRoom(next)
	return nil
}

// stopLentLocked returns what is to be told to stop the attempt of t at a peer,
// or nil: it is told when it was sent. w.mu is held.
func (t *task) stopLentLocked(code wray.Code) any {
	l := t.far.lend
	switch {
	case l == nil: // its end has come, and is being taken
		return nil
	case !l.sent:
		l.stop = code
		return nil
	}
	return l
}

// shown returns the ID of the task, and the number of the attempt, that the
// guest sees: the owner's.
func (t *task) shown() (wray.ID, int) {
	if t.hosted() {
		return t.far.to.task, t.far.to.attempt
	}
	return t.id, t.attempt
}

// shownID is the ID that shown returns. It may be asked for while the attempt
// begins.
func (t *task) shownID() wray.ID {
	if t.hosted() {
		return t.far.to.task
	}
	return t.id
}

// hosted reports whether the task stands for one of another owner's.
func (t *task) hosted() bool {
	return t.far != nil && t.far.to != nil && (t.actor == nil || t.actor.hosted)
}

// cancel asks the owner of an object to cancel the task that makes it.
func (ps *peerSet) cancel(object wray.ID) {
	ps.mu.Lock()
	p := ps.peerOfLocked(object.Owner)
	ps.mu.Unlock()
	if p != nil {
		b := bodyOf(object)
		ps.send(p, &peerMessage{Cancel: &b})
	}
}
