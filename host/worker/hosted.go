package worker

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// The other side of away.go: sandboxes of actors that belong to another worker.
// To this one such an actor is an attempt that was lent, which lasts, and which
// does not start again here; its calls come one by one from its home, which
// decides what becomes of those that the sandbox does not survive.

// makes returns the actor that an attempt which was lent here is to be.
func (m *makeBody) makes(t *task) *actor {
	a := newActor(t)
	a.hosted, a.begins = true, m.Last != nil
	a.box.Width = m.Width
	a.idle = time.Duration(m.Idle)
	a.dur.calls, a.dur.every = m.Calls, time.Duration(m.Every)
	t.flags |= abi.SpecActor
	return a
}

// tellLives tells the home that the constructor has ended well. What stands for
// the actor here is kept: it is the home that knows who refers to it.
func (a *actor) tellLives() {
	ps, l := a.job.w.peers, a.create.far.to
	a.built = true
	ps.send(l.peer, &peerMessage{Reply: &replyBody{Task: bodyOf(l.task), Attempt: l.attempt, Kind: replyLives, Load: ps.load(l.peer)}})
}

// callHere takes a call that p has lent: to an actor of p's that is here, or to
// one of this worker's. It takes over args.
func (ps *peerSet) callHere(p *peer, b *lendBody, args []arg) {
	c := b.Call
	var a *actor
	var keep *objectstore.Object
	if c.Attempt > 0 {
		ps.mu.Lock()
		if t := p.guests[attemptKey{c.Actor.id(), c.Attempt}]; t != nil {
			a = t.makes
		}
		ps.mu.Unlock()
		if a == nil { // it has ended, and p will be told
			releaseArgs(args)
			ps.send(p, &peerMessage{Reply: &replyBody{Task: b.Task, Attempt: b.Attempt, Kind: replyUnbegun, Load: ps.load(p)}})
			return
		}
	} else {
		var err *wray.Error
		if a, keep, err = ps.calledBy(p, c); err != nil {
			releaseArgs(args)
			ps.fail(p, b, err)
			return
		}
		defer keep.Release()
	}
	j, w := a.job, ps.w
	fn := a.create.fn
	if c.Flags&abi.SpecCheckpoint == 0 {
		n, e := j.lookup(b.Module, b.Func)
		if fn = j.function(n); e != abi.Success || fn == nil || fn.command || fn.module != a.create.fn.module {
			releaseArgs(args)
			ps.fail(p, b, wray.Errorf(wray.CodeUnknownFunction, "module %q has no method %q on node %s", b.Module, b.Func, w.cfg.Node))
			return
		}
	} else if b.Results != 1 || len(args) > 0 {
		releaseArgs(args)
		ps.fail(p, b, wray.Errorf(wray.CodeBadArgument, "a checkpoint has one result and no arguments"))
		return
	}
	t := &task{id: w.newID(), job: j, fn: fn, name: b.Name, flags: c.Flags, timeout: time.Duration(b.Timeout), args: args, actor: a, from: c.From,
		tries: a.tries, far: &far{to: &lentTo{peer: p, task: b.Task.id(), attempt: b.Attempt}}}
	t.letter = &scheduler.Letter[*task]{Value: t}
	if !a.hosted {
		t.from = mixed(c.From ^ uint64(p.id))
		t.attempt = 0
	}
	if a.durable && c.Key != "" {
		t.key, t.digest = c.Key, t.digestAfar()
	}
	if !ps.declares(p, b, t) {
		return
	}
	key := attemptKey{b.Task.id(), b.Attempt}
	ps.mu.Lock()
	over := p.gone || p.guests == nil || p.guests[key] != nil // or there twice
	if !over {
		p.guests[key] = t
	}
	ps.mu.Unlock()
	if over {
		t.release()
		return
	}
	if err := a.post(t); err != nil {
		a.mu.Lock()
		dead := a.dead
		a.mu.Unlock()
		// An actor that lives on has ended no call by that: home would wait for its
		// end before it looks at this one again.
		if a.hosted && dead != nil && err == error(dead) {
			t.far.end = replyUnbegun
		}
		ps.callDone(t, j.named(err, t.name, 0))
		t.release()
		return
	}
	a.poke()
}

// calledBy returns the actor of this worker that p calls, and the object that
// stands for it, with a reference.
func (ps *peerSet) calledBy(p *peer, c *callBody) (*actor, *objectstore.Object, *wray.Error) {
	id := c.Actor.id()
	ps.mu.Lock()
	g := p.granted[id]
	if g != nil {
		g.object.Retain()
	}
	ps.mu.Unlock()
	if g == nil {
		return nil, nil, wray.Errorf(wray.CodeBadArgument, "a call of an actor that node %s has no reference to", p.node)
	}
	a, _ := g.object.Attachment().(*actor)
	if a == nil {
		g.object.Release()
		return nil, nil, wray.Errorf(wray.CodeBadArgument, "a call of what is no actor")
	}
	if a.durable && c.Flags&abi.SpecStream != 0 {
		g.object.Release()
		return nil, nil, streamOfDurable
	}
	return a, g.object, nil
}

// callDone tells who lent a call how it ended. The call's results are still its
// own.
func (ps *peerSet) callDone(t *task, err *wray.Error) {
	l := t.far.to
	p := l.peer
	ps.mu.Lock()
	delete(p.guests, attemptKey{l.task, l.attempt})
	ps.mu.Unlock()
	b := &replyBody{Task: bodyOf(l.task), Attempt: l.attempt, Kind: replyDone}
	if t.far.end != 0 {
		b.Kind = t.far.end
	}
	switch {
	case err != nil && t.far.end == replyGone && t.answered():
		b.Kind, err = replyDone, nil
		fallthrough
	case err == nil:
		if cannot := resultsTravel(t.results); cannot != nil {
			b.Err = objectstore.EncodeFailure(t.job.named(cannot, t.name, l.attempt))
		} else {
			b.Results = ps.resultsFor(p, t)
		}
	default:
		b.Err = objectstore.EncodeFailure(err)
	}
	b.Load, b.Saved = ps.load(p), t.far.saved
	ps.send(p, &peerMessage{Reply: b})
}

// resultsFor returns the results of t, in a message to p that must be sent.
func (ps *peerSet) resultsFor(p *peer, t *task) (list []resultBody) {
	for _, o := range t.results {
		var r resultBody
		if i := o.Info(); i.Len >= objectstore.InlineMax && i.Encoding != abi.EncodingError {
			ref := ps.refTo(p, o)
			r.Ref = &ref
		}
		r.Value = ps.describe(p, o)
		list = append(list, r)
	}
	return list
}

// mixed spreads numbers evenly: the finalizer of splitmix64 (Steele, Lea, Flood,
// "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
func mixed(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
