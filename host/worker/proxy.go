package worker

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// Objects across workers. An object belongs to the worker that its ID names;
// elsewhere it is a proxy, an object of the same ID that is pending until the
// owner tells its value. Counts are exact without acknowledgements: the owner
// counts each reference that it sends, and the other gives back the number it
// received when its last one is gone. Whoever passes a reference on to a third
// worker keeps its own until that one has registered with the owner.

// proxy is what an object of another worker stands for here. It lives as long as
// one object does: one that is gone and comes again is another.
type proxy struct {
	set    *peerSet
	owner  *peer
	id     wray.ID
	grants int64  // received; guarded by peerSet.mu
	actor  bool   // it stands for an actor; guarded by peerSet.mu
	group  bool   // it stands for a placement group; likewise
	next   *proxy // in peerSet.gone
}

// Unreferenced implements objectstore.Attachment.
func (px *proxy) Unreferenced() {
	ps := px.set
	for {
		px.next = ps.gone.Load()
		if ps.gone.CompareAndSwap(px.next, px) {
			break
		}
	}
	select {
	case ps.wake <- struct{}{}:
	default:
	}
}

// maxReleases bounds what is given back in one message.
const maxReleases = 4096

// giveBack tells owners of proxies that have gone, until the worker ends.
func (ps *peerSet) giveBack() {
	for {
		select {
		case <-ps.ctx.Done():
			return
		case <-ps.wake:
		}
		lists := map[*peer][]grantBody{}
		ps.mu.Lock()
		for px := ps.gone.Swap(nil); px != nil; px = px.next {
			delete(px.owner.proxies, px)
			if px.grants > 0 {
				lists[px.owner] = append(lists[px.owner], grantBody{bodyOf(px.id), px.grants})
			}
		}
		ps.mu.Unlock()
		for p, list := range lists {
			for len(list) > 0 {
				n := min(len(list), maxReleases)
				ps.send(p, &peerMessage{Release: list[:n]})
				list = list[n:]
			}
		}
	}
}

// released takes back references that p was given.
func (ps *peerSet) released(p *peer, id wray.ID, n int64) error {
	ps.mu.Lock()
	g := p.granted[id]
	if g == nil || g.n < n {
		ps.mu.Unlock()
		return errors.New("it gives back references that it was not given")
	}
	g.n -= n
	if g.n == 0 {
		delete(p.granted, id)
	}
	last := g.n == 0
	ps.mu.Unlock()
	if last {
		g.object.Release()
	}
	return nil
}

// refTo returns a reference to o, which the caller has one on, that can be sent
// to p, in a message that must be sent.
func (ps *peerSet) refTo(p *peer, o *objectstore.Object) refBody {
	id := o.ID()
	r := refBody{ID: bodyOf(id)}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch a := o.Attachment().(type) {
	case *actor:
		r.Actor = true
	case *proxy:
		r.Actor, r.Group = a.actor, a.group
	case *placementGroup:
		r.Group = true
	}
	switch {
	case id.Owner == uint64(p.id):
		// It is coming home. The proxy gives back what it has after this message.
	case p.granted == nil: // gone; nobody reads the message
	case id.Owner == ps.w.owner:
		g := p.granted[id]
		if g == nil {
			o.Retain()
			g = &grant{object: o}
			p.granted[id] = g
		}
		g.n++
	default:
		p.passed++
		r.Transit = p.passed
		o.Retain()
		p.transit[r.Transit] = o
	}
	return r
}

// borrowing is a reference to a third worker's object that is not yet counted
// there. It has a reference on the proxy.
type borrowing struct {
	object *objectstore.Object
	from   *peer
	number uint64 // in from's transit
}

// keep tells who passed b's reference on that it may let go of its own.
func (ps *peerSet) keep(b borrowing) {
	ps.send(b.from, &peerMessage{Kept: []uint64{b.number}})
	b.object.Release()
}

// object returns the object that a reference from p names, with a reference
// that the caller owns. fresh: it is a proxy that is pending and was not there,
// of which p is to be asked the value.
func (ps *peerSet) object(p *peer, r refBody) (o *objectstore.Object, fresh bool) {
	id := r.ID.id()
	if id.Owner == ps.w.owner {
		if o = ps.w.store.Lookup(id); o == nil {
			return ps.lostObject(&wray.Error{Code: wray.CodeObjectLost, Message: "a reference came back to an object that is gone"}), false
		}
		return o, false
	}
	ps.mu.Lock()
	owner := ps.peerOfLocked(id.Owner)
	ps.mu.Unlock()
	if owner == nil || owner.proxies == nil {
		if r.Transit != 0 {
			ps.send(p, &peerMessage{Kept: []uint64{r.Transit}})
		}
		return ps.lostObject(&wray.Error{Code: wray.CodeOwnerDied, Message: "the worker that owned the object is gone"}), false
	}
	var px *proxy
	for o == nil {
		if o = ps.w.store.Lookup(id); o != nil {
			px, _ = o.Attachment().(*proxy)
			break
		}
		px = &proxy{set: ps, owner: owner, id: id}
		var err error
		o, err = ps.w.store.DeclareFor(id, px)
		switch {
		case err == nil:
			fresh = true
		case errors.Is(err, objectstore.ErrExists):
			runtime.Gosched() // one that is going, or another is faster
		default: // closing
			return ps.lostObject(&wray.Error{Code: wray.CodeCanceled, Message: err.Error()}), false
		}
	}
	ps.mu.Lock()
	if owner.proxies == nil { // it went meanwhile
		ps.mu.Unlock()
		_ = o.Fail(ownerDied(owner))
		if r.Transit != 0 {
			ps.send(p, &peerMessage{Kept: []uint64{r.Transit}})
		}
		return o, false
	}
	if fresh {
		owner.proxies[px] = struct{}{}
	}
	px.actor, px.group = px.actor || r.Actor, px.group || r.Group
	switch {
	case owner == p:
		px.grants++
		ps.mu.Unlock()
		return o, fresh
	case px.grants > 0: // it is registered already
		ps.mu.Unlock()
		ps.send(p, &peerMessage{Kept: []uint64{r.Transit}})
		return o, false
	}
	first := len(owner.borrows[id]) == 0
	o.Retain()
	owner.borrows[id] = append(owner.borrows[id], borrowing{o, p, r.Transit})
	ps.mu.Unlock()
	if first {
		b := bodyOf(id)
		ps.send(owner, &peerMessage{Borrow: &b})
	}
	return o, false
}

// lostObject returns an object that stands for one which cannot be had.
func (ps *peerSet) lostObject(err *wray.Error) *objectstore.Object {
	o, derr := ps.w.store.Declare(ps.w.newID())
	if derr != nil { // the store is closed, and so is everything
		panic("BUG: a peer's message after the store was closed")
	}
	_ = o.Fail(err)
	return o
}

// lendOut registers p as a borrower of an object of this worker.
func (ps *peerSet) lendOut(p *peer, id wray.ID) {
	b := bodyOf(id)
	if id.Owner != ps.w.owner {
		return
	}
	o := ps.w.store.Lookup(id)
	if o == nil {
		ps.send(p, &peerMessage{Borrowed: &grantBody{ID: b}, Value: &objectBody{b, failureBody(&wray.Error{Code: wray.CodeObjectLost,
			Message: "the object is gone"})}})
		return
	}
	ps.refTo(p, o)
	ps.send(p, &peerMessage{Borrowed: &grantBody{b, 1}})
	ps.tellWhenThere(p, o)
	o.Release()
}

// borrowed takes note that p counts this worker as a borrower.
func (ps *peerSet) borrowed(p *peer, id wray.ID, grants int64) {
	ps.mu.Lock()
	list := p.borrows[id]
	delete(p.borrows, id)
	if len(list) > 0 {
		if px, ok := list[0].object.Attachment().(*proxy); ok {
			px.grants += grants
		}
	}
	ps.mu.Unlock()
	for _, b := range list {
		ps.keep(b)
	}
}

// awaited has p told the value of an object that it has a reference to.
func (ps *peerSet) awaited(p *peer, id wray.ID) {
	ps.mu.Lock()
	g := p.granted[id]
	if g != nil {
		g.object.Retain()
	}
	ps.mu.Unlock()
	if g == nil {
		return // it has given it back, or lies
	}
	ps.tellWhenThere(p, g.object)
	g.object.Release()
}

// tellWhenThere has p told the value of an object when it is there, once however
// often it asks meanwhile.
func (ps *peerSet) tellWhenThere(p *peer, o *objectstore.Object) {
	id := o.ID()
	ps.mu.Lock()
	asked := p.awaits[id]
	p.awaits[id] = true
	ps.mu.Unlock()
	if asked {
		return
	}
	o.Watch(objectstore.WatcherFunc(func(o *objectstore.Object) {
		ps.mu.Lock()
		delete(p.awaits, id)
		ps.mu.Unlock()
		ps.send(p, &peerMessage{Value: &objectBody{bodyOf(o.ID()), ps.describe(p, o)}})
	}))
}

// describe returns what a final object is, for p, in a message that must be
// sent.
func (ps *peerSet) describe(p *peer, o *objectstore.Object) valueBody {
	info := o.Info()
	v := valueBody{Encoding: uint32(info.Encoding), Meta: info.Meta}
	if info.Refs > maxPeerRefs { // who reads it there is told
		c := cargo{refs: info.Refs}
		return failureBody(c.tooMuch("the value"))
	}
	switch {
	case info.Encoding == abi.EncodingError:
		if err := o.Err(); err != nil {
			return failureBody(err)
		}
	case info.Len < objectstore.InlineMax:
		v.Payload = o.Bytes()
	default:
		v.Away = info.Len
	}
	for _, r := range o.Refs()[:info.Refs] {
		v.Refs = append(v.Refs, ps.refTo(p, r))
	}
	return v
}

func failureBody(err *wray.Error) valueBody {
	return valueBody{Encoding: uint32(abi.EncodingError), Payload: objectstore.EncodeFailure(err)}
}

// objects returns what references from p name, each with a reference that the
// caller owns, and asks for the values of those that are new.
func (ps *peerSet) objects(p *peer, refs []refBody) []*objectstore.Object {
	if len(refs) == 0 {
		return nil
	}
	list := make([]*objectstore.Object, len(refs))
	var await []idBody
	for i, r := range refs {
		var fresh bool
		if list[i], fresh = ps.object(p, r); fresh {
			await = append(await, r.ID)
		}
	}
	if len(await) > 0 {
		ps.send(p, &peerMessage{Await: await})
	}
	return list
}

func releaseAll(list []*objectstore.Object) {
	for _, o := range list {
		o.Release()
	}
}

// value takes the value of an object that p owns and this worker awaits.
func (ps *peerSet) value(p *peer, b *objectBody) {
	refs := ps.objects(p, b.Value.Refs) // also where nobody wants it: they are counted
	defer releaseAll(refs)
	id := b.ID.id()
	if id.Owner != uint64(p.id) {
		return
	}
	if o := ps.w.store.Lookup(id); o != nil {
		ps.seal(o, &b.Value, refs, ps.sourceOf(p, id, nil), nil)
		o.Release()
	}
}

// seal gives a pending object the value that a peer told. It may have to wait
// for room: then is called when the object is final, in any goroutine; it may be
// nil.
func (ps *peerSet) seal(o *objectstore.Object, v *valueBody, refs []*objectstore.Object, from objectstore.Source, then func()) {
	if then == nil {
		then = func() {}
	}
	val := objectstore.Value{Encoding: abi.Encoding(v.Encoding), Meta: v.Meta, Payload: v.Payload, Refs: refs}
	var err error
	switch {
	case val.Encoding == abi.EncodingError:
		if from != nil {
			from.Drop()
		}
		err = o.Fail(objectstore.DecodeFailure(v.Payload))
	case v.Away > 0:
		err = o.SealAway(val, v.Away, from)
		if err != nil {
			from.Drop()
		}
	default:
		err = o.TrySeal(val)
	}
	switch {
	case err == nil, errors.Is(err, objectstore.ErrSealed):
		then()
	case errors.Is(err, objectstore.ErrFull):
		o.Retain()
		for _, r := range refs {
			r.Retain()
		}
		ps.w.wg.Go(func() {
			defer then()
			defer o.Release()
			defer releaseAll(refs)
			ctx, cancel := context.WithTimeout(ps.ctx, ps.w.cfg.FullAfter)
			defer cancel()
			rv, err := ps.w.store.WaitSpace(ctx, val.Size())
			if err == nil {
				err = rv.Seal(o, val)
			} else {
				err = ps.w.store.FullError(val.Size())
			}
			ps.mustBeFinal(o, err)
		})
	default:
		ps.mustBeFinal(o, err)
		then()
	}
}

// mustBeFinal fails an object that could not be sealed.
func (ps *peerSet) mustBeFinal(o *objectstore.Object, err error) {
	if err == nil || errors.Is(err, objectstore.ErrSealed) {
		return
	}
	var e *wray.Error
	if !errors.As(err, &e) {
		e = &wray.Error{Code: wray.CodeInternal, Message: "a value from another node: " + err.Error()}
	}
	_ = o.Fail(e)
}

// remote is a payload that a peer has.
type remote struct {
	set    *peerSet
	peer   *peer
	object wray.ID             // there
	keeps  *objectstore.Object // the proxy that keeps it there, of a result of a task of this worker; else nil

	lineage *lineage // that makes it again as result index; nil: none
	index   int
}

func (ps *peerSet) sourceOf(p *peer, id wray.ID, keeps *objectstore.Object) *remote {
	if keeps != nil {
		keeps.Retain()
	}
	return &remote{set: ps, peer: p, object: id, keeps: keeps}
}

// fetchChunk is how much of a payload is asked for at once.
const fetchChunk = 1 << 20

// Read implements objectstore.Source.
func (r *remote) Read(b []byte) error {
	for off := 0; off < len(b); {
		n := min(fetchChunk, len(b)-off)
		err := r.set.net.Fetch(r.set.ctx, r.peer.id, r.object, int64(off), b[off:off+n])
		switch {
		case err == nil:
			off += n
			continue
		case r.set.ctx.Err() != nil:
			return &wray.Error{Code: wray.CodeCanceled, Message: "the worker is closing"}
		}
		var e *wray.Error
		if errors.As(err, &e) { // its worker says that it cannot be had
			return e
		}
		r.set.mu.Lock()
		dead := r.set.peers[r.peer.id] != r.peer
		r.set.mu.Unlock()
		if dead {
			if r.keeps == nil {
				return ownerDied(r.peer)
			}
			if r.lineage != nil {
				return r.lineage.again(r.index, b)
			}
			return lostWith(r.peer)
		}
		select { // the transport lost a connection: the rest is asked for again
		case <-r.set.ctx.Done():
		case <-time.After(fetchPause):
		}
	}
	return nil
}

const fetchPause = 10 * time.Millisecond

// Drop implements objectstore.Source.
func (r *remote) Drop() {
	if r.keeps != nil {
		r.keeps.Release()
	}
	if r.lineage != nil {
		r.lineage.drop()
	}
}

// locationOf returns the peer that alone has the payload of a final object, or 0.
func locationOf(o *objectstore.Object) scheduler.PeerID {
	if r, ok := o.Source().(*remote); ok && o.Remote() {
		return r.peer.id
	}
	return 0
}
