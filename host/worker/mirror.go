package worker

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// The other side of lending: jobs of other workers, and attempts that they have
// lent to this one. To the scheduler here a lent attempt is a task without
// retries, which is taken only if it starts at once.

// mirror is a job of another worker here. It begins with the first attempt that
// is lent, by its owner or by one that has a mirror itself, and ends when all
// who lent any have said so, or its owner dies.
type mirror struct {
	job    *job
	owner  *peer
	cancel context.CancelFunc // of what loads it

	// Guarded by peerSet.mu.
	state   mirrorState
	from    map[*peer]bool // who lends attempts of it, and has not said that it ends
	next    []announcement // came while it was ending, one of each peer at most
	waiting []*lentWaiting // came while it was loaded
	err     *wray.Error    // why it could not be loaded
}

type mirrorState uint8

const (
	mirrorLoading mirrorState = iota
	mirrorReady
	mirrorHome   // it cannot run here
	mirrorFailed // it could not be loaded
	mirrorEnded
)

// announcement is a job that p will lend attempts of.
type announcement struct {
	from *peer
	body *jobBody
}

// lentWaiting is an attempt that waits for its job's code. It is in its peer's
// waiting until it is given to the scheduler, so that a Stop finds it.
type lentWaiting struct {
	mirror  *mirror
	from    *peer
	body    *lendBody
	args    []arg
	stopped bool // while it was admitted; guarded by peerSet.mu
}

// cost is about how many bytes it keeps here.
func (l *lentWaiting) cost() int64 {
	n := int64(1 << 10)
	for i := range l.body.Args {
		v := &l.body.Args[i].Value
		n += int64(valueBytes + len(v.Payload) + refBytes*len(v.Refs))
	}
	return n
}

func (l *lentWaiting) key() attemptKey { return attemptKey{l.body.Task.id(), l.body.Attempt} }

// forget takes l out of those that wait. False: it is being admitted.
// peerSet.mu is held.
func (m *mirror) forget(l *lentWaiting) bool {
	n := len(m.waiting)
	m.waiting = slices.DeleteFunc(m.waiting, func(w *lentWaiting) bool { return w == l })
	if len(m.waiting) == n {
		return false
	}
	l.from.waits -= l.cost()
	return true
}

// unannounce forgets that p announced the job while it was ending, or had failed. peerSet.mu is
// held.
func (m *mirror) unannounce(p *peer) {
	m.next = slices.DeleteFunc(m.next, func(a announcement) bool { return a.from == p })
}

// maxMirrors bounds the jobs of others that are here at once.
const maxMirrors = 1000

// Bounds of what one peer may have here.
const (
	maxWaiting      = 4096     // attempts that wait for their job's code
	maxWaitingBytes = 64 << 20 // of their arguments
	maxOwned        = 256      // of its jobs
)

// mirror begins a job of p's.
func (ps *peerSet) mirror(p *peer, b *jobBody) {
	w := ps.w
	id := b.ID.id()
	ps.mu.Lock()
	owner := ps.peerOfLocked(id.Owner)
	if m := ps.mirrors[id]; m != nil {
		if m.state != mirrorEnded && m.state != mirrorFailed {
			m.from[p] = true
		} else {
			m.unannounce(p)
			m.next = append(m.next, announcement{p, b})
		}
		ps.mu.Unlock()
		return
	}
	ps.mu.Unlock()
	if owner == nil {
		return // this worker's, or of one that it does not reach: what is lent goes back
	}
	ctx, cancel := context.WithCancel(ps.ctx)
	l := Limits{Memory: b.Limits.Memory, Stack: b.Limits.Stack, Files: b.Limits.Files, Handles: b.Limits.Handles,
		Windows: b.Limits.Windows, LogRate: b.Limits.LogRate}
	j := &job{w: w, id: id, spec: JobSpec{Name: b.Name, Args: b.Args, Env: b.Env, Limits: l}, byName: map[string]*module{},
		tasks: make(chan struct{}), ended: make(chan struct{})}
	for _, d := range b.Dirs {
		j.spec.Dirs = append(j.spec.Dirs, DirSpec{Guest: d.Guest, ReadOnly: d.ReadOnly})
	}
	m := &mirror{job: j, owner: owner, cancel: cancel, from: map[*peer]bool{p: true}}
	j.mirror = m
	ps.mu.Lock()
	owned := 0
	for _, o := range ps.mirrors {
		if o.owner == owner {
			owned++
		}
	}
	if ps.closed || ps.mirrors[id] != nil || len(ps.mirrors) >= maxMirrors || owned >= maxOwned {
		ps.mu.Unlock()
		cancel()
		return
	}
	ps.mirrors[id] = m
	ps.mu.Unlock()
	w.wg.Go(func() { m.live(ctx, b) })
}

// live loads the job, and cleans up when it has ended.
func (m *mirror) live(ctx context.Context, b *jobBody) {
	j, w := m.job, m.job.w
	ps := w.peers
	defer m.cancel()
	defer j.unload(context.WithoutCancel(ctx))
	err := m.load(ctx, b)
	if err == nil {
		w.mu.Lock()
		if err = w.sched.AddJob(w.now(), j.id); err == nil {
			w.jobs[j.id] = j
		}
		w.mu.Unlock()
	}
	loaded := err == nil
	ps.mu.Lock()
	switch {
	case m.state != mirrorLoading: // ended, or it was found that it runs at home alone
	case loaded:
		m.state = mirrorReady
	default:
		// Who announces it again has it loaded again, when what it printed is taken.
		m.state, m.err = mirrorFailed, j.named(err, "", 0)
	}
	failed := m.state == mirrorFailed
	waiting := m.waiting
	m.waiting = nil
	for _, l := range waiting {
		l.from.waits -= l.cost()
	}
	ps.mu.Unlock()
	for _, l := range waiting {
		ps.admit(l.from, m, j, l.body, l.args, l)
	}
	ps.owes.Store(true)
	ps.tellRoom() // those who were refused while another mirror ended
	if failed {
		m.cancel()
	}
	<-ctx.Done() // end was called, or the worker closes
	if loaded {
		j.end()
	} else {
		close(j.ended)
	}
	if j.out != nil {
		j.out.close()
	}
	ps.mu.Lock()
	if ps.mirrors[j.id] == m {
		delete(ps.mirrors, j.id)
	}
	next := m.next
	ps.mu.Unlock()
	for _, a := range next {
		ps.mirror(a.from, a.body)
	}
}

func (m *mirror) load(ctx context.Context, b *jobBody) error {
	j, ps := m.job, m.job.w.peers
	for _, jm := range b.Modules {
		ms, err := ps.net.Module(ctx, m.owner.id, jm.Name, jm.Hash)
		if err != nil {
			return err
		}
		ms.Name = jm.Name
		j.spec.Modules = append(j.spec.Modules, ms)
	}
	if b.Output {
		j.out = newOutput(m.print)
	}
	return j.load(ctx)
}

// print sends what a task prints to the job's owner, and returns when that has
// taken it.
func (m *mirror) print(task string, s Stream, p []byte) {
	ps, id := m.job.w.peers, m.job.id
	taken := make(chan struct{})
	ps.mu.Lock()
	if m.owner.printed == nil {
		ps.mu.Unlock()
		return
	}
	m.owner.printed[id] = taken
	ps.mu.Unlock()
	ps.send(m.owner, &peerMessage{Output: &printedBody{bodyOf(id), asText(task), s, p}})
	select {
	case <-taken:
	case <-ps.ctx.Done(): // the worker ends; else it waits though the job has ended: the owner takes one at a time
	}
}

// ended tells that p lends no more of the job. The last ends the mirror, in its
// own time, and so does its owner's death.
func (m *mirror) ended(p *peer, dead bool) {
	ps := m.job.w.peers
	ps.mu.Lock()
	if m.state == mirrorEnded || m.state == mirrorFailed {
		m.unannounce(p)
	}
	delete(m.from, p)
	last := len(m.from) == 0 || dead && p == m.owner
	if last {
		m.state = mirrorEnded
	}
	ps.mu.Unlock()
	if last {
		m.cancel()
	}
}

// lentTo is an attempt that a peer has lent to this worker: what the task here
// stands for.
type lentTo struct {
	peer    *peer
	task    wray.ID // the owner's
	attempt int
	home    atomic.Bool // it, or what it submitted, needs the node of its job
	moved   atomic.Bool // it is given back, as this worker leaves
}

// lentHere takes an attempt of p's: it is run, refused, or waits for its code.
func (ps *peerSet) lentHere(p *peer, b *lendBody) error {
	args := ps.withGroup(p, b, ps.args(p, b)) // now, as what comes home is kept by the message alone
	if b.Call != nil {
		ps.callHere(p, b, args)
		return nil
	}
	ps.mu.Lock()
	m := ps.mirrors[b.Job.id()]
	if m != nil && m.state == mirrorLoading && !ps.leaving.begun.Load() && p.waiting != nil && len(p.waiting) < maxWaiting {
		l := &lentWaiting{mirror: m, from: p, body: b, args: args}
		if p.waiting[l.key()] == nil && p.waits+l.cost() <= maxWaitingBytes {
			p.waiting[l.key()] = l
			p.waits += l.cost()
			m.waiting = append(m.waiting, l)
			ps.mu.Unlock()
			return nil
		}
	}
	ps.mu.Unlock()
	if m != nil {
		ps.admit(p, m, m.job, b, args, nil)
		return nil
	}
	// One of this worker's own jobs may come back.
	ps.w.mu.Lock()
	j := ps.w.jobs[b.Job.id()]
	ps.w.mu.Unlock()
	if j == nil {
		releaseArgs(args)
		ps.answer(p, b, replyAbsent, nil)
		return nil
	}
	ps.admit(p, nil, j, b, args, nil)
	return nil
}

// stopped takes p's word that an attempt is to end. Its deadline does not end one
// that waits for its code: its time begins when it runs, and is told to it.
func (ps *peerSet) stopped(p *peer, key attemptKey, code wray.Code) {
	ps.mu.Lock()
	t, l := p.guests[key], p.waiting[key]
	waits := false
	if l != nil && code != wray.CodeTimeout {
		if waits = l.mirror.forget(l); waits {
			delete(p.waiting, key)
		} else {
			l.stopped = true
		}
	}
	ps.mu.Unlock()
	switch {
	case waits:
		releaseArgs(l.args)
		ps.fail(p, l.body, wray.Errorf(wray.CodeCanceled, "it was stopped before it began"))
	case t != nil:
		ps.w.cancelTask(t.id)
	}
}

func releaseArgs(args []arg) {
	for _, a := range args {
		if a.object != nil {
			a.object.Release()
		}
	}
}

// args returns a lent task's arguments, and the checkpoint that an actor begins
// from behind them, with a reference each.
func (ps *peerSet) args(p *peer, b *lendBody) []arg {
	list := b.Args
	if b.Make != nil && b.Make.Last != nil {
		list = append(slices.Clone(list), *b.Make.Last)
	}
	args := make([]arg, len(list))
	for i := range list {
		a := &list[i]
		if a.Ref != nil && a.Value.Encoding == 0 {
			args[i] = arg{object: ps.objects(p, []refBody{*a.Ref})[0]}
			continue
		}
		if a.Ref == nil {
			args[i] = arg{encoding: abi.Encoding(a.Value.Encoding), meta: a.Value.Meta, payload: a.Value.Payload}
			continue
		}
		refs := ps.objects(p, a.Value.Refs)
		o, _ := ps.object(p, *a.Ref)
		// The value of a third worker's object comes from the sender as well: its
		// payload, where it is away, is read from its owner.
		if id := a.Ref.ID.id(); id.Owner != ps.w.owner && !o.Ready() {
			from := p
			ps.mu.Lock()
			if owner := ps.peerOfLocked(id.Owner); owner != nil {
				from = owner
			}
			ps.mu.Unlock()
			ps.seal(o, &a.Value, refs, ps.sourceOf(from, id, nil), nil)
		}
		releaseAll(refs)
		args[i] = arg{object: o}
	}
	return args
}

// admit starts an attempt of j that p has lent, or answers why not. m is j's
// mirror, or nil where j is this worker's own; l is what has waited for it, or
// nil. It takes over args.
func (ps *peerSet) admit(p *peer, m *mirror, j *job, b *lendBody, args []arg, l *lentWaiting) {
	w := ps.w
	ps.mu.Lock()
	state, closed := mirrorReady, ps.closed
	var cause *wray.Error
	if m != nil {
		state, cause = m.state, m.err
	}
	gone, stopped := p.gone, l != nil && l.stopped
	ps.mu.Unlock()
	defer func() {
		if l == nil {
			return
		}
		ps.mu.Lock()
		delete(p.waiting, l.key())
		t := p.guests[l.key()]
		stopped := l.stopped
		ps.mu.Unlock()
		if stopped && t != nil { // meanwhile
			w.cancelTask(t.id)
		}
	}()
	kind := replyKind(0)
	switch {
	case gone:
		releaseArgs(args)
		return
	case stopped:
		releaseArgs(args)
		ps.fail(p, b, wray.Errorf(wray.CodeCanceled, "it was stopped before it began"))
		return
	case state == mirrorHome:
		kind = replyHome
	case state == mirrorFailed:
		kind = replyAbsent
	case state != mirrorReady || closed:
		kind = replyRefused
	}
	if kind != 0 {
		releaseArgs(args)
		ps.answer(p, b, kind, cause)
		return
	}
	n, e := j.lookup(b.Module, b.Func)
	if e != abi.Success {
		releaseArgs(args)
		ps.fail(p, b, wray.Errorf(wray.CodeUnknownFunction, "module %q has no function %q on node %s", b.Module, b.Func, w.cfg.Node))
		return
	}
	t := &task{id: w.newID(), job: j, fn: j.function(n), name: b.Name, flags: b.Flags & lentFlags, memory: b.Memory,
		resources: wray.Resources{CPU: wray.CPU(b.CPU), Memory: b.Memory}, timeout: time.Duration(b.Timeout),
		args: args, far: &far{custom: customOf(b.Custom), to: &lentTo{peer: p, task: b.Task.id(), attempt: b.Attempt}}}
	t.far.root = t
	t.takeGroup(b)
	if b.Make != nil {
		t.makes = b.Make.makes(t)
	}
	spec := scheduler.Spec{ID: t.id, Job: j.id, Name: t.name, Resources: t.resources, Custom: t.far.custom, Timeout: b.Timeout, Place: home}
	if b.Group != nil {
		spec.Place = &scheduler.Place{Home: true, Strategy: scheduler.Strategy{Kind: scheduler.InGroup, Group: b.Group.ID.id(), Bundle: b.Bundle}}
	}
	if !ps.declares(p, b, t) {
		return
	}
	for _, o := range t.results {
		spec.Results = append(spec.Results, o.ID())
	}
	for _, a := range t.args {
		if o := a.object; o != nil && o.Ready() && o.Err() != nil {
			err := o.Err()
			t.release()
			ps.fail(p, b, err)
			return
		}
	}
	ps.mu.Lock()
	key := attemptKey{b.Task.id(), b.Attempt}
	twice := p.guests[key] != nil
	gone = p.gone
	if !twice && !gone {
		p.guests[key] = t
		ps.holdLocked(p, t, 1)
	}
	ps.mu.Unlock()
	switch {
	case gone:
		t.release()
		return
	case twice:
		t.release()
		ps.answer(p, b, replyRefused, nil)
		return
	}
	err := w.submitLent(t, &spec)
	if err == nil {
		return
	}
	ps.mu.Lock()
	delete(p.guests, key)
	ps.holdLocked(p, t, -1)
	ps.mu.Unlock()
	t.release()
	ps.answer(p, b, replyRefused, nil)
}

// declares makes the results of t, which stands for b. False: it could not, and t
// is released and p told.
func (ps *peerSet) declares(p *peer, b *lendBody, t *task) bool {
	for i := range b.Results {
		o, err := ps.w.declare(t, i)
		if err != nil {
			t.release()
			ps.fail(p, b, wray.Errorf(wray.CodeInternal, "%v", err))
			return false
		}
		t.results = append(t.results, o)
	}
	return true
}

// holdLocked counts what p's attempt asks for; sign is 1 or -1.
func (ps *peerSet) holdLocked(p *peer, t *task, sign int64) {
	if t.flags&abi.SpecInGroup != 0 {
		return // it holds its bundle's
	}
	p.holds.CPU += wray.CPU(sign) * t.resources.CPU
	p.holds.Memory += sign * t.resources.Memory
	for _, c := range t.far.custom {
		p.custom[c.Name] += wray.Amount(sign) * c.Amount
	}
}

// submitLent gives a lent attempt to the scheduler, if that can start it now.
func (w *Worker) submitLent(t *task, spec *scheduler.Spec) error {
	w.mu.Lock()
	room := false
	if st := &spec.Place.Strategy; st.Kind == scheduler.InGroup {
		room = w.sched.GroupHasRoom(st.Group, st.Bundle, t.resources, t.far.custom)
	} else {
		room = w.sched.HasRoom(t.resources, t.far.custom)
	}
	if w.closed || w.peers.leaving.begun.Load() || !room {
		w.mu.Unlock()
		return scheduler.ErrQueueFull
	}
	// What is not there yet comes: an argument that waits for room in the store.
	for i := range t.args {
		if o := t.args[i].object; o != nil && !o.Ready() {
			spec.Deps = append(spec.Deps, o.ID())
		}
	}
	spec.Value = t
	if err := w.sched.Submit(w.now(), spec); err != nil {
		w.mu.Unlock()
		return err
	}
	w.tasks.add(t)
	var objects []*objectstore.Object
	if len(spec.Deps) > 0 {
		for i := range t.args {
			if o := t.args[i].object; o != nil {
				o.Retain()
				objects = append(objects, o)
			}
		}
	}
	w.actLocked(nil, nil)
	for _, o := range objects {
		o.Watch(objectstore.WatcherFunc(w.objectReady))
		o.Release()
	}
	return nil
}

// answer refuses an attempt, or sends it home; err, which may be nil, says why.
func (ps *peerSet) answer(p *peer, b *lendBody, kind replyKind, err *wray.Error) {
	if kind == replyRefused {
		ps.mu.Lock()
		p.room = true
		ps.mu.Unlock()
		ps.owes.Store(true)
	}
	r := &replyBody{Task: b.Task, Attempt: b.Attempt, Kind: kind, Load: ps.load(p)}
	if err != nil {
		r.Err = objectstore.EncodeFailure(err)
	}
	ps.send(p, &peerMessage{Reply: r})
	if kind == replyRefused {
		ps.w.mu.Lock()
		idle := ps.w.sched.Held().Held == wray.Resources{}
		ps.w.mu.Unlock()
		if idle { // nothing will end that could tell
			ps.tellRoom()
		}
	}
}

func (ps *peerSet) fail(p *peer, b *lendBody, err *wray.Error) {
	ps.send(p, &peerMessage{Reply: &replyBody{Task: b.Task, Attempt: b.Attempt, Kind: replyDone, Err: objectstore.EncodeFailure(err), Load: ps.load(p)}})
}

// sendLast sends p the end of something of j, after what that has printed: else
// the job may end before its output has come.
func (ps *peerSet) sendLast(j *job, p *peer, m *peerMessage) {
	if j.mirror == nil || j.out == nil {
		ps.send(p, m)
		return
	}
	j.out.whenRead(func() { ps.send(p, m) })
}

// lentDone tells the owner how an attempt ended that ran here. The task's
// results are still its own.
func (w *Worker) lentDone(t *task, err *wray.Error) {
	ps, l := w.peers, t.far.to
	p := l.peer
	ps.mu.Lock()
	delete(p.guests, attemptKey{l.task, l.attempt})
	ps.holdLocked(p, t, -1)
	ps.mu.Unlock()
	b := &replyBody{Task: bodyOf(l.task), Attempt: l.attempt, Kind: replyDone}
	var cannot *wray.Error
	if err == nil && !l.home.Load() {
		cannot = resultsTravel(t.results)
	}
	switch {
	case l.home.Load():
		b.Kind = replyHome
	case err != nil && l.moved.Load():
		b.Kind = replyRefused
		ps.leaving.moved.Add(1)
	case cannot != nil:
		cannot.Node = w.cfg.Node
		b.Kind, b.Err = replyHome, objectstore.EncodeFailure(cannot)
	case err != nil:
		b.Err = objectstore.EncodeFailure(t.job.named(err, t.name, l.attempt))
	case t.makes == nil:
		b.Results = ps.resultsFor(p, t)
	}
	b.Load = ps.load(p)
	ps.sendLast(t.job, p, &peerMessage{Reply: b})
	if t.actor == nil && ps.leaving.begun.Load() && b.Kind != replyRefused {
		ps.leaving.ended.Add(1)
	}
}

// goHome ends a guest's attempt that needs what only the node of its job has:
// the attempt that was lent is run there, and lent no more.
func (g *guest) goHome(what string) {
	m := g.job.mirror
	if t := g.holder; t != nil && t.far != nil && t.far.root != nil {
		root := t.far.root
		root.far.to.home.Store(true)
		if root != t {
			g.w.cancelTask(root.id)
		}
	} else { // it initialises: no task of the job can run here
		g.w.peers.mu.Lock()
		if m.state == mirrorLoading {
			m.state = mirrorHome
		}
		g.w.peers.mu.Unlock()
	}
	panic(sandbox.Stop(&wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("%s: only on the node of its job", what)}))
}

// homeFS is a granted directory where the job is not: who touches it goes home.
type homeFS struct{ g *guest }

const dirTouched = "a granted directory was used"

func (h homeFS) Open(string, wasi.OpenFlags) (*os.File, wasi.Errno) {
	h.g.goHome(dirTouched)
	return nil, wasi.EACCES
}

func (h homeFS) Stat(string, bool) (wasi.Filestat, wasi.Errno) {
	h.g.goHome(dirTouched)
	return wasi.Filestat{}, wasi.EACCES
}

func (h homeFS) Readlink(string) (string, wasi.Errno) { return "", h.touch() }

func (h homeFS) SetTimes(string, wasi.Times, bool) wasi.Errno { return h.touch() }
func (h homeFS) Mkdir(string) wasi.Errno                      { return h.touch() }
func (h homeFS) Unlink(string) wasi.Errno                     { return h.touch() }
func (h homeFS) Rmdir(string) wasi.Errno                      { return h.touch() }
func (h homeFS) Rename(string, string) wasi.Errno             { return h.touch() }
func (h homeFS) Link(string, string) wasi.Errno               { return h.touch() }
func (h homeFS) Symlink(string, string) wasi.Errno            { return h.touch() }

func (h homeFS) touch() wasi.Errno {
	h.g.goHome(dirTouched)
	return wasi.EACCES
}
