package worker

import (
	"context"
	"errors"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// What becomes of a checkpoint that was taken at a peer: it is made this worker's
// own, and an actor begins from it.

// saved takes a peer's word of a checkpoint.
func (ps *peerSet) saved(p *peer, b *savedBody) error {
	o := ps.args(p, &lendBody{Args: []argBody{b.State}})[0].object
	w := ps.w
	w.mu.Lock()
	t := ps.lent[b.Task.id()]
	if t == nil || t.makes == nil || t.far.lend == nil || t.far.lend.peer != p.id || t.far.lend.attempt != b.Attempt {
		w.mu.Unlock()
		o.Release()
		return nil
	}
	w.mu.Unlock()
	a := t.makes
	aw := a.away.Load()
	if aw == nil || aw.attempt != b.Attempt {
		o.Release()
		return nil
	}
	a.mu.Lock()
	// A checkpoint has at least one call that none had before, or was asked for by one.
	many := len(aw.told) > 2*(aheadCalls+max(a.box.Width, 1))
	a.mu.Unlock()
	if many {
		o.Release()
		return errors.New("it tells of checkpoints, and of no calls")
	}
	a.inTurn(aw, true, func() { a.takeHome(aw, p, b.N, o) })
	return nil
}

// inTurn calls f after what was told before, which may take its time: a checkpoint
// that is taken home. slow: so may f.
func (a *actor) inTurn(aw *awayActor, slow bool, f func()) {
	a.mu.Lock()
	if !slow && !aw.busy {
		a.mu.Unlock()
		f()
		return
	}
	aw.told = append(aw.told, f)
	begin := !aw.busy
	aw.busy = true
	a.mu.Unlock()
	if !begin {
		return
	}
	a.job.w.wg.Go(func() {
		for {
			a.mu.Lock()
			if len(aw.told) == 0 {
				aw.busy = false
				a.mu.Unlock()
				return
			}
			f := aw.told[0]
			aw.told = aw.told[1:]
			a.mu.Unlock()
			f()
		}
	})
}

// takeHome makes the checkpoint o, number n of the attempt, what the actor begins
// from. It takes over the reference to o.
func (a *actor) takeHome(aw *awayActor, p *peer, n uint64, o *objectstore.Object) {
	w := a.job.w
	defer o.Release()
	m := &movedIn{set: w.peers, from: p, job: a.job, of: map[wray.ID]*objectstore.Object{}}
	a.mu.Lock()
	m.had, aw.moved = aw.moved, nil
	a.mu.Unlock()
	var mine *objectstore.Object
	var err error
	gone := false
	for again := true; again; {
		ctx, cancel := context.WithTimeout(w.peers.ctx, w.cfg.FullAfter)
		mine, err = m.checkpoint(ctx, o)
		w.peers.mu.Lock()
		gone = w.peers.peers[p.id] != p
		again = err != nil && ctx.Err() != nil && w.peers.ctx.Err() == nil && !gone && !p.up // it comes, or the peer is dead
		w.peers.mu.Unlock()
		cancel()
	}
	a.mu.Lock()
	// What the attempt did since is lost with the peer: no answer of it is given.
	aw.lost = aw.lost || err != nil && gone
	if a.away.Load() != aw || aw.lost {
		if a.away.Load() == aw { // until leavePeer comes
			aw.moved, m.had = m.had, nil
		}
		a.mu.Unlock()
		m.release()
		letGoAll(m.had)
		if err == nil {
			mine.Release()
		}
		return
	}
	if err != nil {
		aw.unsaved, aw.moved = a.create.asError(err), m.had
		say := !a.dur.failing
		a.dur.failing = true
		a.mu.Unlock()
		m.release()
		if say {
			a.say("no checkpoint: %v", err)
		}
		return
	}
	d := &a.dur
	last := d.away
	d.away, aw.moved, aw.saved, d.failing = mine, m.of, n, false
	d.unsaved = 0
	clear(d.since)
	a.mu.Unlock()
	if last != nil {
		last.Release()
	}
	letGoAll(m.had)
}

func letGoAll(of map[wray.ID]*objectstore.Object) {
	for _, o := range of {
		o.Release()
	}
}

// countAway counts a call that a peer has answered, unless the checkpoint number
// saved has what it did, and returns why a call that asked for that has failed. a.mu
// is held.
func (a *actor) countAway(aw *awayActor, t *task, saved uint64) *wray.Error {
	lacks := saved > aw.saved
	switch {
	case t.flags&abi.SpecCheckpoint != 0:
		if lacks {
			return aw.unsaved
		}
		return nil
	case saved != 0 && !lacks, saved == 0 && !a.saves():
		return nil
	}
	d := &a.dur
	if d.since == nil {
		d.since = map[uint64]int{}
	}
	d.unsaved++
	d.since[t.from]++
	return nil
}

// movedIn makes a peer's objects this worker's own.
type movedIn struct {
	set  *peerSet
	from *peer
	job  *job
	had  map[wray.ID]*objectstore.Object // by the ID that they have at the peer: those of the checkpoint before
	of   map[wray.ID]*objectstore.Object // likewise, of this one; with a reference each
	want map[wray.ID]bool                // have values there
}

func (m *movedIn) release() { letGoAll(m.of) }

// checkpoint returns the checkpoint o as this worker's own, with a reference.
func (m *movedIn) checkpoint(ctx context.Context, o *objectstore.Object) (*objectstore.Object, error) {
	if err := final(ctx, o); err != nil {
		return nil, err
	}
	v, err := o.WaitView(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if err := o.Err(); err != nil {
		return nil, err
	}
	refs := o.Refs()[:o.Info().Refs]
	s, err := readSavedAway(v.Bytes(), len(refs))
	if err != nil {
		return nil, err
	}
	m.want = map[wray.ID]bool{}
	for _, r := range refs[:s.There] {
		m.want[r.ID()] = true
	}
	val := objectstore.Value{Encoding: abi.EncodingRaw, Payload: v.Bytes()}
	defer func() { releaseAll(val.Refs) }()
	for i, r := range refs {
		var mine *objectstore.Object
		if i == 0 {
			mine, err = m.image(ctx, r)
		} else {
			mine, err = m.object(ctx, r, 0)
		}
		if err != nil {
			return nil, err
		}
		val.Refs = append(val.Refs, mine)
	}
	return m.put(ctx, val)
}

// image is object for the image of a module, which many actors have in common.
func (m *movedIn) image(ctx context.Context, o *objectstore.Object) (*objectstore.Object, error) {
	j := m.job
	j.mu.Lock()
	have := j.images[o.ID()]
	if have != nil {
		have.Retain()
	}
	j.mu.Unlock()
	if have != nil {
		return have, nil
	}
	mine, err := m.object(ctx, o, 0)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.images == nil {
		j.images = map[wray.ID]*objectstore.Object{}
	}
	if j.images[o.ID()] == nil {
		j.images[o.ID()] = mine
		mine.Retain()
	}
	return mine, nil
}

// object returns what stands for o here when its owner is gone, with a reference:
// what the peer owns is copied, other objects are themselves. A result that is
// still to come at the peer is itself, too, and is lost with that.
func (m *movedIn) object(ctx context.Context, o *objectstore.Object, depth int) (*objectstore.Object, error) {
	id := o.ID()
	if id.Owner != uint64(m.from.id) || !m.want[id] {
		o.Retain()
		return o, nil
	}
	if depth > maxDepth {
		return nil, errBadRecord
	}
	mine := m.of[id]
	if mine == nil {
		mine = m.had[id]
		if mine != nil {
			mine.Retain()
			m.of[id] = mine
		}
	}
	if mine != nil {
		mine.Retain()
		return mine, nil
	}
	mine, err := m.copy(ctx, o, depth)
	if err != nil {
		return nil, err
	}
	mine.SetOrigin(m.job.id.Seq)
	mine.Retain()
	m.of[id] = mine
	return mine, nil
}

func (m *movedIn) copy(ctx context.Context, o *objectstore.Object, depth int) (*objectstore.Object, error) {
	w := m.set.w
	if err := final(ctx, o); err != nil {
		return nil, err
	}
	v, err := o.WaitView(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if e := o.Err(); e != nil {
		m.set.mu.Lock()
		gone := m.set.peers[m.from.id] != m.from
		m.set.mu.Unlock()
		if gone {
			return nil, e
		}
		mine, err := w.store.Declare(w.newID())
		if err == nil {
			_ = mine.Fail(e)
		}
		return mine, err
	}
	info := o.Info()
	if info.Refs == 0 && info.Len >= objectstore.InlineMax {
		mine, err := w.store.Declare(w.newID())
		if err != nil {
			return nil, err
		}
		if err := mine.SealAs(o); err != nil {
			mine.Release()
			return nil, err
		}
		return mine, nil
	}
	val := objectstore.Value{Encoding: info.Encoding, Meta: info.Meta, Payload: v.Bytes()}
	defer func() { releaseAll(val.Refs) }()
	for _, r := range o.Refs()[:info.Refs] {
		mine, err := m.object(ctx, r, depth+1)
		if err != nil {
			return nil, err
		}
		val.Refs = append(val.Refs, mine)
	}
	return m.put(ctx, val)
}

func (m *movedIn) put(ctx context.Context, val objectstore.Value) (*objectstore.Object, error) {
	w := m.set.w
	room, err := w.store.WaitSpace(ctx, val.Size())
	if err != nil {
		if ctx.Err() != nil {
			err = w.store.FullError(val.Size())
		}
		return nil, err
	}
	o, err := room.Put(w.newID(), val)
	if err == nil {
		o.SetOrigin(m.job.id.Seq)
	}
	return o, err
}

// final waits until o has a value, or a failure.
func final(ctx context.Context, o *objectstore.Object) error {
	if o.Ready() {
		return nil
	}
	there := make(chan struct{})
	o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { close(there) }))
	select {
	case <-there:
		return nil
	case <-ctx.Done():
		return &wray.Error{Code: wray.CodeTimeout, Message: "what a checkpoint refers to does not come"}
	}
}

// retainAway returns the checkpoint that was taken at a peer, with a reference, or
// nil.
func (a *actor) retainAway() *objectstore.Object {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dur.away != nil {
		a.dur.away.Retain()
	}
	return a.dur.away
}

// forgetAway lets go of the checkpoint that was taken at a peer.
func (a *actor) forgetAway() {
	a.mu.Lock()
	o := a.dur.away
	a.dur.away = nil
	a.mu.Unlock()
	if o != nil {
		o.Release()
	}
}

// awayCheckpoint returns the checkpoint of another node that the actor is to
// begin from, or nil. No attempt is at a peer that could change it.
func (a *actor) awayCheckpoint() *objectstore.Object {
	if a.begins {
		return a.create.args[len(a.create.args)-1].object
	}
	return a.dur.away
}

// moveIn makes the actor's guest, which is new and has a clean sandbox, what the
// checkpoint o says. On an error the guest is to be closed.
func (a *actor) moveIn(o *objectstore.Object) error {
	g, w := a.guest, a.job.w
	ctx, cancel := context.WithTimeout(w.peers.ctx, w.cfg.FullAfter)
	defer cancel()
	view := func(o *objectstore.Object) (v objectstore.View, err error) {
		if err = final(ctx, o); err != nil {
			return v, err
		}
		if v, err = o.WaitView(ctx); err != nil {
			return v, err
		}
		if e := o.Err(); e != nil {
			v.Close()
			return v, e
		}
		return v, nil
	}
	v, err := view(o)
	if err != nil {
		return err
	}
	defer v.Close()
	refs := o.Refs()[:o.Info().Refs]
	s, err := readSavedAway(v.Bytes(), len(refs))
	if err != nil {
		return err
	}
	state, err := sandbox.DecodeState(s.State)
	if err != nil {
		return err
	}
	iv, err := view(refs[0])
	if err != nil {
		return err
	}
	image, err := sandbox.DecodeImage(iv.Bytes(), state)
	iv.Close()
	if err != nil {
		return err
	}
	if err := g.sb.Lay(image, state); err != nil {
		return err
	}
	g.handles.Reset()
	for _, h := range s.Handles {
		r := refs[h.Ref]
		if h.Ref == 0 {
			if r, err = w.store.Declare(w.newID()); err != nil {
				return err
			}
			_ = r.Fail(a.job.named(&wray.Error{Code: wray.CodeObjectLost, Message: "a stream that an actor had did not go to another node with it"}, a.create.name, 0))
		} else {
			r.Retain()
		}
		if err := g.handles.Set(h.Handle, r); err != nil {
			r.Release()
			return err
		}
	}
	for _, sw := range s.Windows {
		r := refs[sw.Ref]
		v, err := view(r) // it stays in memory until it is pinned
		if err != nil {
			return err
		}
		pin, err := r.Pin()
		v.Close()
		if err != nil {
			return err
		}
		if err := g.showAgain(&window{len: sw.Len, off: sw.Off, pin: pin, of: r.ID()}, sw.At); err != nil {
			return err
		}
	}
	return g.goOn(state, s.Watches, s.Wants)
}
