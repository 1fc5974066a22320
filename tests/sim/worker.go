package sim

import (
	"cmp"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/scheduler"
)

// This file is what package worker does with the scheduler's decisions, and
// what workers say to each other.

func sortTasks(list []*task) {
	slices.SortFunc(list, func(a, b *task) int { return cmp.Compare(a.id.Seq, b.id.Seq) })
}

func (n *node) newID() wray.ID {
	n.next++
	return wray.ID{Owner: uint64(n.ref().id()), Seq: n.next}
}

// step tells the scheduler something and carries out what it decides.
func (n *node) step(tell func(*scheduler.Scheduler)) {
	w := n.w
	w.report.Steps++
	timed := w.cfg.Clock != nil && w.report.Steps%16 == 0
	list := w.decision // of no other step: act steps again only when it is done with it
	w.decision = nil
	if timed {
		begin := w.cfg.Clock()
		tell(n.s)
		list = n.s.Ready(list[:0])
		w.spent += w.cfg.Clock() - begin
		w.timed++
	} else {
		tell(n.s)
		list = n.s.Ready(list[:0])
	}
	for i := range list {
		n.act(&list[i])
	}
	if len(list) > 0 {
		n.tellRoom()
	}
	clear(list)
	w.decision = list
	if at, ok := n.s.NextDeadline(); ok && (n.tickAt == 0 || at < n.tickAt) {
		n.tickAt = at
		inc := n.incarnation
		w.at(max(at, w.now), func() {
			if n.up && n.incarnation == inc && n.tickAt == at {
				n.tickAt = 0
				n.step(func(s *scheduler.Scheduler) { s.Tick(w.now) })
			}
		})
	}
}

func (n *node) act(d *scheduler.Decision) {
	w := n.w
	t, _ := d.Value.(*task)
	switch d.Kind {
	case scheduler.Start:
		if n.runs[d.Task] != nil {
			w.fail("task %v was started on node %s while it runs", d.Task, n.name)
		}
		n.begin(t, d.Attempt)
	case scheduler.Resume:
		r := n.runs[d.Task]
		if r == nil || !r.blocked || r.missing > 0 {
			w.fail("task %v was resumed on node %s, which waits for nothing, or waits yet", d.Task, n.name)
			return
		}
		r.blocked = false
		n.compute(r)
	case scheduler.Stop:
		inc := n.incarnation
		if d.Peer != 0 {
			to, key := refOf(d.Peer), guestKey{d.Task, d.Attempt}
			n.send(to, func(o *node, _ *peer) {
				if g := o.guests[key]; g != nil {
					o.step(func(s *scheduler.Scheduler) { s.Cancel(w.now, g.id, true) })
				}
			})
			return
		}
		code := d.Code
		w.after(1, func() {
			if r := n.runs[d.Task]; n.up && n.incarnation == inc && r != nil {
				n.end(r, &wray.Error{Code: code})
			}
		})
	case scheduler.Lend:
		n.lend(t, d.Attempt, refOf(d.Peer))
	case scheduler.Done:
		n.done(t, d.Err)
	case scheduler.Space, scheduler.JobEnded:
		w.fail("node %s: an unexpected decision %v", n.name, d.Kind)
	}
}

// submitRoot is a driver that submits a task.
func (n *node) submitRoot() {
	r := n.w.rng
	k := work{long: 1 + int64(r.ExpFloat64()*float64(duration))}
	few := len(n.w.nodes) < 40 // all that have one may be dead at once
	switch r.IntN(50) {
	case 0:
		k.gpu = !few
	case 1:
		k.zone = !few
	case 2, 3, 4, 5, 6:
		k.spread = true
	case 7, 8, 9, 10, 11:
		k.nested = 1 + r.IntN(3)
	}
	n.submit(&task{work: k}, nil, r.IntN(10) == 0)
}

// submit gives a task of this worker's to its scheduler. With follow it needs
// the result of one that was submitted before.
func (n *node) submit(t *task, parent *run, follow bool) {
	w := n.w
	t.id, t.result, t.parent = n.newID(), n.newID(), parent
	job := wray.ID{Owner: uint64(n.ref().id()), Seq: 1 << 60}
	if parent != nil && parent.task.owner.incarnation != 0 {
		job = wray.ID{Owner: uint64(parent.task.owner.id()), Seq: 1 << 60} // of the one who lent it
	}
	spec := specOf(t, job)
	spec.Retries = scheduler.Forever
	if parent != nil {
		spec.Parent, spec.ParentAttempt = parent.task.id, parent.attempt
	}
	if need := n.last; follow && need != nil && n.open[need.id] != nil {
		spec.Deps = []wray.ID{need.result}
	}
	if parent == nil {
		n.last = t
	}
	n.open[t.id] = t
	n.step(func(s *scheduler.Scheduler) {
		n.know(job)
		if err := s.Submit(w.now, spec); err != nil {
			w.fail("node %s: submit: %v", n.name, err)
		}
	})
}

func specOf(t *task, job wray.ID) *scheduler.Spec {
	spec := &scheduler.Spec{ID: t.id, Job: job, Resources: oneCPU, Results: []wray.ID{t.result}, Value: t}
	if t.work.gpu {
		spec.Custom = gpu
	}
	switch {
	case t.work.zone:
		spec.Place = &scheduler.Place{Strategy: scheduler.Strategy{Where: []wray.Selector{{Key: "zone", Values: []string{"west"}}}}}
	case t.work.spread:
		spec.Place = &scheduler.Place{Strategy: scheduler.Strategy{Kind: scheduler.Spread}}
	}
	return spec
}

// know has the scheduler know a job.
func (n *node) know(job wray.ID) {
	if n.jobs[job] {
		return
	}
	n.jobs[job] = true
	if err := n.s.AddJob(n.w.now, job); err != nil {
		n.w.fail("%v", err)
	}
}

// begin runs an attempt: it submits what it submits, waits for that, and
// computes.
func (n *node) begin(t *task, attempt int) {
	r := &run{task: t, attempt: attempt, missing: t.work.nested}
	n.runs[t.id] = r
	if t.work.nested == 0 {
		n.compute(r)
		return
	}
	inc := n.incarnation
	n.w.after(1, func() {
		if !n.up || n.incarnation != inc || r.over {
			return
		}
		var results []wray.ID
		for range t.work.nested {
			c := &task{work: work{long: t.work.long/2 + 1}}
			n.submit(c, r, false)
			if n.open[c.id] != nil {
				results = append(results, c.result)
			}
		}
		if r.over || r.missing == 0 {
			if !r.over {
				n.compute(r)
			}
			return
		}
		r.blocked = true
		n.step(func(s *scheduler.Scheduler) {
			s.Blocked(n.w.now, t.id, attempt, scheduler.Wait{Objects: results, All: true})
		})
	})
}

// compute ends an attempt when it has computed.
func (n *node) compute(r *run) {
	inc := n.incarnation
	n.w.after(r.task.work.long, func() {
		if n.up && n.incarnation == inc && !r.over {
			n.end(r, nil)
		}
	})
}

func (n *node) end(r *run, err *wray.Error) {
	r.over = true
	delete(n.runs, r.task.id)
	n.step(func(s *scheduler.Scheduler) {
		s.Finished(n.w.now, r.task.id, r.attempt, scheduler.Outcome{Err: err})
	})
}

// done takes the end of a task, of a driver, of a task here, or of another
// worker.
func (n *node) done(t *task, err *wray.Error) {
	w := n.w
	if t.owner.incarnation != 0 {
		n.reply(t, err)
		return
	}
	if n.open[t.id] != t {
		w.fail("task %v of node %s is done a second time", t.id, n.name)
		return
	}
	delete(n.open, t.id)
	switch p := t.parent; {
	case p == nil:
		if err != nil {
			w.fail("task %v of the driver of node %s failed: %v", t.id, n.name, err)
		}
		w.report.Roots++
		w.left--
	case err != nil:
		if err.Code != wray.CodeCanceled || !p.over {
			w.fail("task %v of node %s, whose parent goes on, failed: %v", t.id, n.name, err)
		}
		w.report.Canceled++
	default:
		w.report.Nested++
		if p.missing--; p.missing == 0 && p.blocked && !p.over {
			inc := n.incarnation
			w.after(1, func() {
				if n.up && n.incarnation == inc && !p.over {
					n.step(func(s *scheduler.Scheduler) { s.Unblocked(w.now, p.task.id, p.attempt) })
				}
			})
		}
	}
}

// send has the worker to, if it is that incarnation yet, take a message, with
// what it keeps of this one. It takes none of one that it knows to be dead, and
// those of one that it does not know yet when it does.
func (n *node) send(to peerRef, take func(o *node, from *peer)) {
	w, me := n.w, n.ref()
	var arrive func()
	arrive = func() {
		o := w.nodes[to.node]
		if !o.up || o.incarnation != to.incarnation {
			return
		}
		p := &o.peers[me.node]
		st, inc := o.view.Status(w.nodes[me.node].name)
		switch {
		case p.id == me.id():
			take(o, p)
		case inc < me.incarnation || inc == me.incarnation && st != liveness.Dead:
			w.after(latency, arrive)
		}
	}
	w.send(n.index, to.node, arrive)
}

// lend sends an attempt to a peer, which runs it at once or refuses.
func (n *node) lend(t *task, attempt int, to peerRef) {
	w, me := n.w, n.ref()
	w.report.Lent++
	job := wray.ID{Owner: uint64(me.id()), Seq: 1 << 60}
	key, k := guestKey{t.id, attempt}, t.work
	n.send(to, func(o *node, p *peer) {
		g := &task{id: o.newID(), result: o.newID(), work: k, owner: me, key: key}
		spec := specOf(g, job)
		spec.Place = &scheduler.Place{Home: true}
		if o.guests[key] != nil {
			w.fail("attempt %v came to node %s twice", key, o.name)
		}
		if !o.s.HasRoom(spec.Resources, spec.Custom) {
			w.report.Refused++
			o.room = append(o.room, me.id())
			load := o.load(p)
			o.send(me, func(n *node, _ *peer) {
				n.step(func(s *scheduler.Scheduler) {
					s.PeerLoad(w.now, to.id(), load)
					s.Refused(w.now, key.task, key.attempt, scheduler.NoRoom, nil)
				})
			})
			if o.s.Held().Held == (wray.Resources{}) {
				o.tellRoom()
			}
			return
		}
		o.guests[key] = g
		p.hold(spec, 1)
		o.step(func(s *scheduler.Scheduler) {
			o.know(job)
			if err := s.Submit(w.now, spec); err != nil {
				w.fail("node %s: what was lent to it: %v", o.name, err)
			}
		})
	})
}

func (p *peer) hold(spec *scheduler.Spec, sign int64) {
	p.holds.CPU += wray.CPU(sign) * spec.Resources.CPU
	p.holds.Memory += sign * spec.Resources.Memory
	if len(spec.Custom) > 0 {
		p.gpus += wray.Amount(sign) * spec.Custom[0].Amount
	}
}

// load is what this worker tells p that it holds for others.
func (n *node) load(p *peer) scheduler.Load {
	l := n.s.Held()
	l.Held = l.Held.Sub(p.holds)
	if len(l.Custom) > 0 {
		if l.Custom[0].Amount -= p.gpus; l.Custom[0].Amount <= 0 {
			l.Custom = nil
		}
	}
	return l
}

// reply tells the owner how an attempt ended that ran here.
func (n *node) reply(g *task, err *wray.Error) {
	w, me := n.w, n.ref()
	if n.guests[g.key] != g {
		w.fail("an attempt of %v on node %s is done a second time", g.key, n.name)
	}
	delete(n.guests, g.key)
	p := &n.peers[g.owner.node]
	if p.id != g.owner.id() {
		return // it is dead
	}
	p.hold(specOf(g, wray.ID{}), -1)
	load, key := n.load(p), g.key
	n.send(g.owner, func(o *node, _ *peer) {
		t, _ := o.s.Value(key.task).(*task)
		o.step(func(s *scheduler.Scheduler) {
			s.PeerLoad(w.now, me.id(), load)
			if t != nil {
				s.Finished(w.now, key.task, key.attempt, scheduler.Outcome{Err: err, Retryable: err != nil})
			}
		})
	})
}

// tellRoom tells those who were refused that it may be worth asking again.
func (n *node) tellRoom() {
	list := n.room
	n.room = nil
	me := n.ref()
	seen := map[scheduler.PeerID]bool{}
	for _, id := range list {
		p := &n.peers[refOf(id).node]
		if p.id != id || seen[id] {
			continue
		}
		seen[id] = true
		load := n.load(p)
		n.send(refOf(id), func(o *node, _ *peer) {
			o.step(func(s *scheduler.Scheduler) { s.PeerLoad(n.w.now, me.id(), load) })
		})
	}
}
