package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Peering is how a worker reaches the workers of its tenant on other nodes: its
// node implements it, and calls [Worker.PeerUp] and its like. A worker
// incarnation is named by [Worker.PeerID].
//
// Messages are not to be repeated: a reference that is told twice is counted
// twice. That each comes once, in order, or the peer is down, is what sessions
// are for (package peer, whose tests lose, delay, double and cut).
type Peering interface {
	// Send takes a message for a peer. It arrives exactly once, after all that
	// were sent before, as long as neither worker dies. Send does not block, and
	// takes over p.
	Send(to scheduler.PeerID, p []byte)

	// Unsent is how many bytes wait to be sent to a peer.
	Unsent(to scheduler.PeerID) int64

	// Fetch fills p with the bytes from off on of the payload of an object that a
	// peer has, by its [Worker.ReadObject]. It waits, also while the peer does
	// not answer, until that is down.
	Fetch(ctx context.Context, from scheduler.PeerID, object wray.ID, off int64, p []byte) error

	// Fill has the first n bytes of f, memory of this worker with all its pages,
	// made the payload of an object that a peer has. When it returns nobody writes
	// to f any more. An error says that it could not be done in this way; Fetch
	// tells what is wrong, if anything is.
	Fill(from scheduler.PeerID, object wray.ID, f *os.File, n int64) error

	// Module has the code of a module, which the peer knows by its hash, here.
	Module(ctx context.Context, from scheduler.PeerID, name, hash string) (ModuleSpec, error)

	// Sever ends all there is with a peer, for good: the peer is told, after what
	// was sent to it or in place of that, that this worker is down. It does not
	// block.
	Sever(peer scheduler.PeerID, why string)
}

// peerSet is what a worker knows of the others. Its lock is taken after
// Worker.mu, where both are, and not held while references are given back or
// the scheduler is told something.
type peerSet struct {
	w   *Worker
	net Peering
	ctx context.Context // ends with the worker

	mu      sync.Mutex
	peers   map[scheduler.PeerID]*peer // guarded by mu
	mirrors map[wray.ID]*mirror        // guarded by mu; jobs of others
	closed  bool                       // guarded by mu
	taking  sync.WaitGroup             // messages that are being taken; added to under mu, until closed

	calls map[wray.ID]*flight  // guarded by mu; that are at a peer
	asks  map[uint64]*question // guarded by mu; that guests wait for answers to
	asked uint64               // guarded by mu; the last number in asks

	lent    map[wray.ID]*task // guarded by Worker.mu; whose attempt is at a peer
	lineage atomic.Int64      // bytes kept to run tasks again
	owes    atomic.Bool       // somebody is to be told when there is room

	leaving leaving // of this worker

	gone atomic.Pointer[proxy] // without references, to be given back
	wake chan struct{}         // holds one token while there are such
}

// peer is a worker elsewhere. Its fields are guarded by peerSet.mu.
type peer struct {
	id   scheduler.PeerID
	node string
	up   bool
	info *scheduler.Node // what it has; nil before its Hello

	jobs    map[wray.ID]bool               // announced to it; false: to be announced again
	granted map[wray.ID]*grant             // objects of this worker that it has references to
	transit map[uint64]*objectstore.Object // of others, passed on to it, until it is known to their owners
	passed  uint64                         // the last number in transit
	proxies map[*proxy]struct{}            // of its objects, here
	borrows map[wray.ID][]borrowing        // asked of it
	guests  map[attemptKey]*task           // that it has lent to this worker
	waiting map[attemptKey]*lentWaiting    // likewise; their job's code is not here yet
	holds   wray.Resources                 // what guests have asked for
	custom  map[string]wray.Amount         // likewise
	room    bool                           // it was refused, and is to be told when there is room
	printed map[wray.ID]chan struct{}      // of mirrors: output that it has not taken
	fetched bool                           // it goes, and what it has is being fetched
	prints  map[wray.ID]bool               // jobs of which it has printed, and not been asked for more
	awaits  map[wray.ID]bool               // objects whose values it is to be told when they are there
	waits   int64                          // bytes of waiting, about
	gone    bool                           // buried
	ending  int                            // attempts that have ended there, and whose results are being sealed
	down    func()                         // what is left to do when ending is 0 again; nil: it lives
}

// grant is an object that a peer was given references to: n, all counted by
// one reference of the store.
type grant struct {
	object *objectstore.Object
	n      int64
}

// attemptKey names an attempt of a task by its owner's ID.
type attemptKey struct {
	task    wray.ID
	attempt int
}

func newPeerSet(ctx context.Context, w *Worker, net Peering) *peerSet {
	ps := &peerSet{w: w, net: net, ctx: ctx, peers: map[scheduler.PeerID]*peer{}, mirrors: map[wray.ID]*mirror{},
		lent: map[wray.ID]*task{}, calls: map[wray.ID]*flight{}, asks: map[uint64]*question{}, wake: make(chan struct{}, 1),
		leaving: leaving{changed: make(chan struct{}, 1), took: map[scheduler.PeerID]tookBody{}, byes: map[scheduler.PeerID]bool{}}}
	w.wg.Go(ps.giveBack)
	return ps
}

// PeerID names this incarnation of the worker to its peers.
func (w *Worker) PeerID() scheduler.PeerID { return scheduler.PeerID(w.owner) }

// PeerUp tells that the worker id of the same tenant, on a node of that name, is
// there, or answers again. The two greet each other.
func (w *Worker) PeerUp(id scheduler.PeerID, node string) {
	ps := w.peers
	ps.mu.Lock()
	if ps.closed || id == w.PeerID() || id == 0 {
		ps.mu.Unlock()
		return
	}
	p := ps.peers[id]
	first := p == nil
	if first {
		p = &peer{id: id, node: node, jobs: map[wray.ID]bool{}, granted: map[wray.ID]*grant{}, transit: map[uint64]*objectstore.Object{},
			proxies: map[*proxy]struct{}{}, borrows: map[wray.ID][]borrowing{}, guests: map[attemptKey]*task{}, waiting: map[attemptKey]*lentWaiting{},
			prints: map[wray.ID]bool{}, awaits: map[wray.ID]bool{},
			custom: map[string]wray.Amount{}, printed: map[wray.ID]chan struct{}{}}
		ps.peers[id] = p
	}
	p.up = true
	info := p.info
	leaving := ps.leaving.begun.Load()
	ps.mu.Unlock()
	switch {
	case first:
		c := &w.cfg
		b := &helloBody{CPU: int64(c.Capacity.CPU), Memory: c.Capacity.Memory, Custom: CustomBodies(c.Custom), Labels: LabelBodies(c.Labels)}
		ps.send(p, &peerMessage{Hello: b})
		if leaving {
			ps.send(p, &peerMessage{Leaving: leaveShut})
		}
	case info != nil:
		w.step(nil, func(s *scheduler.Scheduler) { _ = s.PeerUp(w.now(), id, *info) }) // it was taken before
	}
}

// PeerComes tells that a node is there whose worker is yet to start: what it has is
// not known, and a task that no other node could hold waits for it, for a while.
func (w *Worker) PeerComes(node string) {
	w.step(nil, func(s *scheduler.Scheduler) { s.Coming(w.now(), node) })
}

// PeerComesNot tells that a node which was to come is gone, or goes.
func (w *Worker) PeerComesNot(node string) {
	w.step(nil, func(s *scheduler.Scheduler) { s.ComesNot(w.now(), node) })
}

// PeerUnreachable tells that a peer does not answer. What it runs goes on.
func (w *Worker) PeerUnreachable(id scheduler.PeerID) {
	ps := w.peers
	ps.mu.Lock()
	p := ps.peers[id]
	known := p != nil && p.info != nil
	if p != nil {
		p.up = false
	}
	ps.mu.Unlock()
	if known {
		w.step(nil, func(s *scheduler.Scheduler) { s.PeerUnreachable(w.now(), id) })
	}
}

// PeerDown tells that a peer is gone for good. What it ran is run elsewhere,
// what it owned is lost, and what it held is given back.
func (w *Worker) PeerDown(id scheduler.PeerID) {
	ps := w.peers
	ps.mu.Lock()
	p := ps.peers[id]
	if p == nil {
		ps.mu.Unlock()
		return
	}
	delete(ps.peers, id)
	known := p.info != nil
	// An attempt whose end has come is not run again: its results are not to be
	// mixed with those of another.
	wait := p.ending > 0
	if wait {
		p.down = func() { ps.down(p, known) }
	}
	ps.mu.Unlock()
	switch {
	case !wait:
		ps.down(p, known)
	case known:
		w.step(nil, func(s *scheduler.Scheduler) { s.PeerUnreachable(w.now(), id) }) // it is lent no more
	}
}

// endingDone tells that the end of an attempt at p was taken.
func (ps *peerSet) endingDone(p *peer) {
	ps.mu.Lock()
	p.ending--
	var down func()
	if p.ending == 0 {
		down, p.down = p.down, nil
	}
	ps.mu.Unlock()
	if down != nil {
		down()
	}
}

// down ends what there is with p, which nobody finds any more.
func (ps *peerSet) down(p *peer, known bool) {
	w := ps.w
	ps.leavePeer(p)
	if known {
		w.mu.Lock()
		for id, t := range ps.lent {
			if t.far.lend != nil && t.far.lend.peer == p.id {
				delete(ps.lent, id)
			}
		}
		w.mu.Unlock()
		w.step(nil, func(s *scheduler.Scheduler) { s.PeerDown(w.now(), p.id) })
	}
	ps.bury(p)
	ps.leaving.note()
}

// bury gives back all that there was with a peer, which nobody finds any more.
func (ps *peerSet) bury(p *peer) {
	ps.mu.Lock()
	var held []*objectstore.Object
	for _, g := range p.granted {
		held = append(held, g.object)
	}
	for _, o := range p.transit {
		held = append(held, o)
	}
	var kept []borrowing
	for _, list := range p.borrows {
		kept = append(kept, list...)
	}
	lost := make([]wray.ID, 0, len(p.proxies))
	for px := range p.proxies {
		lost = append(lost, px.id)
	}
	var guests []wray.ID
	for _, t := range p.guests {
		guests = append(guests, t.id)
	}
	var mirrors []*mirror
	for _, m := range ps.mirrors {
		if m.owner == p || m.from[p] {
			mirrors = append(mirrors, m)
		}
	}
	for _, c := range p.printed {
		close(c)
	}
	var asked []*lentWaiting
	for _, l := range p.waiting {
		if l.mirror.forget(l) {
			asked = append(asked, l)
		}
	}
	for _, m := range ps.mirrors {
		m.unannounce(p)
	}
	p.gone = true
	p.granted, p.transit, p.borrows, p.proxies, p.printed, p.waiting = nil, nil, nil, nil, nil, nil
	ps.mu.Unlock()
	for _, l := range asked {
		releaseArgs(l.args)
	}
	for _, o := range held {
		o.Release()
	}
	for _, b := range kept {
		ps.keep(b)
	}
	for _, id := range lost {
		// One that is being given back need not be told.
		if o := ps.w.store.Lookup(id); o != nil {
			_ = o.Fail(ownerDied(p)) // a value that is there stays
			o.Release()
		}
	}
	for _, id := range guests {
		ps.w.cancelTask(id)
	}
	for _, m := range mirrors {
		m.ended(p, true)
	}
}

func ownerDied(p *peer) *wray.Error {
	return &wray.Error{Code: wray.CodeOwnerDied, Node: p.node, Message: fmt.Sprintf("node %s, which owned the object, is gone", p.node),
		Hint: "have the task that reads it made again, or keep the value where its readers are"}
}

// close ends what runs here for others, and refuses more.
func (ps *peerSet) close() {
	ps.mu.Lock()
	ps.closed = true
	var list []*peer
	for _, p := range ps.peers {
		list = append(list, p)
	}
	ps.mu.Unlock()
	for _, p := range list {
		ps.w.PeerDown(p.id)
	}
	ps.taking.Wait()
}

// send encodes a message and gives it to the node.
func (ps *peerSet) send(p *peer, m *peerMessage) {
	b, err := link.Marshal(m)
	if err == nil && len(b) > MaxPeerMessage {
		err = fmt.Errorf("a message of %d bytes", len(b))
	}
	if err != nil { // cargo has seen to it that there is no such message
		ps.net.Sever(p.id, "it cannot be told something: "+err.Error())
		go ps.w.PeerDown(p.id)
		return
	}
	if ps.net.Unsent(p.id)+int64(len(b)) > tooUnsent {
		ps.net.Sever(p.id, "it takes nothing of what is sent to it")
		go ps.w.PeerDown(p.id)
		return
	}
	ps.net.Send(p.id, b)
}

// PeerMessage takes a message of a peer. The caller gives it those of one peer
// in order, one at a time, after PeerUp and not after PeerDown. An error says
// that the peer speaks nonsense; it has been severed.
func (w *Worker) PeerMessage(from scheduler.PeerID, b []byte) error {
	ps := w.peers
	ps.mu.Lock()
	p := ps.peers[from]
	if p == nil || ps.closed {
		ps.mu.Unlock()
		return nil // of one that is gone
	}
	ps.taking.Add(1)
	ps.mu.Unlock()
	defer ps.taking.Done()
	m, err := decodePeer(b)
	if err == nil {
		err = ps.take(p, m)
	}
	if err != nil {
		ps.net.Sever(p.id, err.Error())
		w.PeerDown(p.id)
		return fmt.Errorf("worker %x on node %s: %w", uint64(p.id), p.node, err)
	}
	return nil
}

func (ps *peerSet) take(p *peer, m *peerMessage) error {
	w := ps.w
	if h := m.Hello; h != nil {
		if err := ps.hello(p, h); err != nil {
			return err
		}
	}
	if l := m.Load; l != nil {
		w.step(nil, func(s *scheduler.Scheduler) { s.PeerLoad(w.now(), p.id, l.load()) })
	}
	if m.Job != nil {
		ps.mirror(p, m.Job)
	}
	if m.Lend != nil {
		if err := ps.lentHere(p, m.Lend); err != nil {
			return err
		}
	}
	if m.Saved != nil {
		if err := ps.saved(p, m.Saved); err != nil {
			return err
		}
	}
	if m.Reply != nil {
		if err := ps.reply(p, m.Reply); err != nil {
			return err
		}
	}
	if s := m.Stop; s != nil {
		ps.stopped(p, attemptKey{s.Task.id(), s.Attempt}, wray.Code(s.Code))
	}
	if m.EndJob != nil {
		ps.mu.Lock()
		mi := ps.mirrors[m.EndJob.id()]
		ps.mu.Unlock()
		if mi != nil {
			mi.ended(p, false)
		}
	}
	if m.Output != nil {
		if err := ps.printedFrom(p, m.Output); err != nil {
			return err
		}
	}
	if m.Printed != nil {
		ps.mu.Lock()
		if c := p.printed[m.Printed.id()]; c != nil {
			close(c)
			delete(p.printed, m.Printed.id())
		}
		ps.mu.Unlock()
	}
	if m.Value != nil {
		ps.value(p, m.Value)
	}
	for _, id := range m.Await {
		ps.awaited(p, id.id())
	}
	if m.Borrow != nil {
		ps.lendOut(p, m.Borrow.id())
	}
	if m.Borrowed != nil {
		ps.borrowed(p, m.Borrowed.ID.id(), m.Borrowed.Grants)
	}
	for _, n := range m.Kept {
		ps.mu.Lock()
		o := p.transit[n]
		delete(p.transit, n)
		ps.mu.Unlock()
		if o != nil {
			o.Release()
		}
	}
	for _, g := range m.Release {
		if err := ps.released(p, g.ID.id(), g.Grants); err != nil {
			return err
		}
	}
	if m.Group != nil {
		if err := ps.groupNote(p, m.Group); err != nil {
			return err
		}
	}
	if m.Ask != nil {
		ps.askedBy(p, m.Ask)
	}
	if m.Answer != nil {
		ps.answered(p, m.Answer)
	}
	if m.Leaving != 0 {
		ps.leaves(p, m.Leaving)
	}
	if m.Took != nil {
		ps.took(p, m.Took)
	}
	if m.Cancel != nil {
		if id := makerOf(m.Cancel.id()); id.Owner == w.owner {
			w.cancelTask(id)
		}
	}
	return nil
}

func (ps *peerSet) hello(p *peer, h *helloBody) error {
	n := scheduler.Node{Name: p.node, Capacity: wray.Resources{CPU: wray.CPU(h.CPU), Memory: h.Memory}, Custom: customOf(h.Custom), Labels: labelsOf(h.Labels)}
	w := ps.w
	ps.mu.Lock()
	twice := p.info != nil
	ps.mu.Unlock()
	if twice {
		return errors.New("it greets again")
	}
	var err error
	w.step(nil, func(s *scheduler.Scheduler) {
		if err = s.PeerUp(w.now(), p.id, n); err != nil {
			return
		}
		ps.mu.Lock()
		defer ps.mu.Unlock()
		p.info = &n
		if !p.up {
			s.PeerUnreachable(w.now(), p.id)
		}
	})
	return err
}

// load is what this worker tells p that it holds for others.
func (ps *peerSet) load(p *peer) loadBody {
	ps.w.mu.Lock()
	held, groups := ps.w.sched.Held(), ps.w.sched.HeldFor(p.id)
	ps.w.mu.Unlock()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	own := p.holds.Add(groups.Held)
	b := loadBody{CPU: int64(held.Held.CPU - own.CPU), Memory: held.Held.Memory - own.Memory}
	for _, c := range held.Custom {
		n := c.Amount - p.custom[c.Name]
		for _, g := range groups.Custom {
			if g.Name == c.Name {
				n -= g.Amount
			}
		}
		if n > 0 {
			b.Custom = append(b.Custom, CustomBody{c.Name, int64(n)})
		}
	}
	return b
}

// tellRoom tells those who were refused that it may be worth asking again.
func (ps *peerSet) tellRoom() {
	if !ps.owes.Swap(false) {
		return
	}
	ps.mu.Lock()
	var list []*peer
	for _, p := range ps.peers {
		if p.room {
			p.room = false
			list = append(list, p)
		}
	}
	ps.mu.Unlock()
	for _, p := range list {
		b := ps.load(p)
		ps.send(p, &peerMessage{Load: &b})
	}
}

// ReadObject fills p with the bytes from off on of the payload of an object of
// this worker, for a peer: see [Peering].
func (w *Worker) ReadObject(ctx context.Context, object wray.ID, off int64, p []byte) error {
	o, v, err := w.viewObject(ctx, object)
	if err != nil {
		return err
	}
	defer o.Release()
	defer v.Close()
	b := v.Bytes()
	if off < 0 || off > int64(len(b)) || int64(len(p)) > int64(len(b))-off {
		return wray.Errorf(wray.CodeBadArgument, "bytes %d to %d of an object of %d", off, off+int64(len(p)), len(b))
	}
	copy(p, b[off:])
	return nil
}

// viewObject returns an object for a peer, with its payload, waiting for that
// where it is on disk. The caller closes the view and releases the object.
func (w *Worker) viewObject(ctx context.Context, object wray.ID) (*objectstore.Object, objectstore.View, error) {
	o := w.store.Lookup(object)
	if o == nil || !o.Ready() {
		if o != nil {
			o.Release()
		}
		return nil, objectstore.View{}, &wray.Error{Code: wray.CodeObjectLost, Message: fmt.Sprintf("node %s has no object %v", w.cfg.Node, object)}
	}
	v, err := o.WaitView(ctx)
	if err != nil {
		o.Release()
		return nil, v, err
	}
	if err := o.Err(); err != nil {
		v.Close()
		o.Release()
		return nil, objectstore.View{}, err
	}
	return o, v, nil
}

// peerOf returns the peer of an ID's owner, or nil.
func (ps *peerSet) peerOfLocked(owner uint64) *peer { return ps.peers[scheduler.PeerID(owner)] }

// Peers returns the nodes of the peers that answer, by name.
func (w *Worker) Peers() []string {
	if w.peers == nil {
		return nil
	}
	w.peers.mu.Lock()
	defer w.peers.mu.Unlock()
	var list []string
	for _, p := range w.peers.peers {
		if p.up && p.info != nil {
			list = append(list, p.node)
		}
	}
	slices.Sort(list)
	return list
}
