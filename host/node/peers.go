package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// peering carries what the workers of a tenant on several nodes say to each
// other. To the nodes it is bytes, from one worker to another; a node passes on
// only what comes from the node where the sender is, and to workers of the
// sender's tenant alone.
type peering struct {
	n     *Node
	ready chan struct{}                             // closed when member is set, or will not be
	m     *member.Member                            // nil where the node did not join
	mesh  sessions                                  // of m; nil likewise
	entry func(name string) (directory.Entry, bool) // of the cluster's nodes; nil likewise

	announcing sync.Mutex // held while workers are told of nodes that come; before mu, and before n.mu

	ctx  context.Context
	stop context.CancelFunc

	scale *scaling
	bulk  *bulkData

	patience time.Duration // with a fetch, and with a transfer of which nothing comes

	wg sync.WaitGroup // fetches for others, workers' starts, and tell

	mu      sync.Mutex
	up      map[peer.Node]bool             // guarded by mu, as is all that follows; sessions, and whether they answer
	tenants map[string]*tenantPeers        // by name
	own     map[uint64]*tenantPeers        // that have a worker here, by its number
	unknown map[peer.Node]map[string]hello // greetings of nodes, by tenant, that are kept: for tenants that are not known here, or not yet
	foreign int64                          // messages that were for workers of another tenant than the sender's
	fetches map[uint64]fetching            // for workers here, from others
	last    uint64                         // fetch
	modules map[[32]byte]*module           // of the jobs that run here
	served  map[serving]int                // fetches for others, that are under way
	lives   map[peer.Node]*life            // nodes that are not down
}

// tenantPeers is a tenant's part in it: its worker here, and those elsewhere.
type tenantPeers struct {
	*peering
	t *tenant

	far      map[uint64]peer.Node // guarded by peering.mu, as is all that follows; where the workers of others are, by their number
	awakeFar map[uint64]bool      // of far, those on whose nodes jobs of the tenant run
	flows    map[uint64]*flow     // between own and those in far
	awake    bool                 // jobs of the tenant run here, as others are told
	own      *workerProcess       // this node's; nil while there is none
	ownID    uint64               // names it to the others
	coming   map[peer.Node]bool   // nodes that own was told of which have no worker yet
	events   []worker.PeerEvent   // for own
	queued   int                  // bytes of events
	news     int                  // events without bytes

	outboxes map[peer.Node]*outbox         // nodes that are up, or were
	full     map[peer.Node]map[uint64]bool // peers that the worker waits to send to
	fills    chan struct{}                 // slots of transfers from all nodes
	head     []byte                        // of the tenant's modules here; nil: not drawn yet
	awaits   map[peer.Node]bool            // nodes of which awaitRoom waits for the session
	severed  map[uint64]string             // peers that have nothing to do with own any more, and why
}

// fetching is a fetch that is under way.
type fetching struct {
	by   *workerProcess
	from peer.Node
	done chan fetched // takes one
}

// maxServed is how many fetches of one node for one tenant are served at once:
// more than its worker may have under way.
const maxServed = 512

// serving is who fetches, and of whom.
type serving struct {
	from peer.Node
	of   *tenantPeers
}

// nodeMessage is what two nodes say to each other. One of its fields is set.
type nodeMessage struct {
	Hello   *hello       `cbor:"1,keyasint,omitempty"` // this is the worker here
	Gone    *hello       `cbor:"2,keyasint,omitempty"` // the worker is no more
	Piece   *piece       `cbor:"3,keyasint,omitempty"`
	Fetch   *fetchObject `cbor:"4,keyasint,omitempty"`
	Fetched *fetched     `cbor:"5,keyasint,omitempty"`
	Sever   *severing    `cbor:"6,keyasint,omitempty"` // a worker there is down to the one here
	Scale   *scaleState  `cbor:"7,keyasint,omitempty"` // of who leads the scaling
	Load    *loadReport  `cbor:"8,keyasint,omitempty"` // to who leads it
	Credit  *credit      `cbor:"9,keyasint,omitempty"` // a worker there takes more of the one here
}

// piece is a part of a message from one worker to another.
type piece struct {
	From uint64 `cbor:"1,keyasint"`
	To   uint64 `cbor:"2,keyasint"`
	More bool   `cbor:"3,keyasint,omitempty"`
	Data []byte `cbor:"4,keyasint"`
}

type fetchObject struct {
	ID   uint64               `cbor:"1,keyasint"`
	To   uint64               `cbor:"2,keyasint"`
	What worker.PeerFetchBody `cbor:"3,keyasint"`
	From uint64               `cbor:"4,keyasint"` // the worker that wants it
}

type fetched struct {
	ID   uint64      `cbor:"1,keyasint"`
	Data []byte      `cbor:"2,keyasint"`
	Err  *wray.Error `cbor:"3,keyasint,omitempty"`
}

func newPeering(n *Node) *peering {
	p := &peering{n: n, patience: time.Minute, ready: make(chan struct{}), up: map[peer.Node]bool{}, tenants: map[string]*tenantPeers{}, own: map[uint64]*tenantPeers{}, unknown: map[peer.Node]map[string]hello{},
		fetches: map[uint64]fetching{}, modules: map[[32]byte]*module{}, served: map[serving]int{}, lives: map[peer.Node]*life{}}
	p.scale = &scaling{n: n, isHead: func(from peer.Node) bool {
		if p.entry == nil {
			return false
		}
		e, ok := p.entry(from.Name)
		return ok && e.Node.Head && e.Node.Incarnation == from.Incarnation
	}}
	p.bulk = newBulkData(p)
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// of returns a tenant's part, which it makes.
func (p *peering) of(t *tenant) *tenantPeers {
	k := &tenantPeers{peering: p, t: t, fills: make(chan struct{}, bulkOfOne), far: map[uint64]peer.Node{}, awakeFar: map[uint64]bool{}, flows: map[uint64]*flow{}, outboxes: map[peer.Node]*outbox{}, full: map[peer.Node]map[uint64]bool{}, awaits: map[peer.Node]bool{}, coming: map[peer.Node]bool{}, severed: map[uint64]string{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tenants[t.name] = k
	return k
}

// joined says that the node is in the cluster; nil that it is not.
func (p *peering) joined(m *member.Member) {
	if p.m = m; m != nil {
		p.mesh = m.Mesh()
		p.mu.Lock()
		p.entry = m.Nodes().Node
		if p.ctx.Err() == nil {
			p.wg.Go(func() { p.follow(m.Nodes()) })
		}
		p.mu.Unlock()
	}
	close(p.ready)
}

// close ends what is under way, and waits for it.
func (p *peering) close() {
	p.stop()
	p.mu.Lock() // who had it has looked at ctx, and added to wg, before that ended
	clear(p.unknown)
	p.mu.Unlock()
	p.bulk.client.Close()
	p.wg.Wait()
}

// Change implements peer.Handler.
func (p *peering) Change(node peer.Node, to peer.Status, _ string) {
	<-p.ready
	if p.mesh == nil {
		return
	}
	p.change(node, to)
	if to == peer.Up {
		p.announce(node)
	}
}

func (p *peering) change(node peer.Node, to peer.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch to {
	case peer.Up:
		p.up[node] = true
		p.bornLocked(node)
	case peer.Down:
		delete(p.up, node)
		delete(p.unknown, node)
		p.diedLocked(node)
	default:
		p.up[node] = false
	}
	for _, k := range p.tenants {
		k.changeLocked(node, to)
	}
	if to == peer.Down {
		for id, f := range p.fetches {
			if f.from == node {
				p.fetchedLocked(id, fetched{Err: goneFor(node)})
			}
		}
	}
}

// changeLocked tells the worker what has become of a node. mu is held.
func (k *tenantPeers) changeLocked(node peer.Node, to peer.Status) {
	what := worker.PeerIsUnreachable
	switch to {
	case peer.Up:
		what = worker.PeerIsUp
		k.tellLocked(node)
	case peer.Down:
		what = worker.PeerIsDown
		delete(k.outboxes, node)
		delete(k.coming, node)
		k.eventLocked(worker.PeerEvent{What: worker.PeerComesNot, Node: node.Name})
	}
	for id, at := range k.far {
		if at != node {
			continue
		}
		if _, over := k.severed[id]; !over {
			k.eventLocked(worker.PeerEvent{Peer: id, What: what, Node: node.Name})
		}
		if to == peer.Down {
			k.forgetFarLocked(id)
			delete(k.severed, id)
		}
	}
}

func goneFor(node peer.Node) *wray.Error {
	return &wray.Error{Code: wray.CodeWorkerDied, Node: node.Name, Message: fmt.Sprintf("node %s is gone", node.Name)}
}

// Receive implements peer.Handler.
func (p *peering) Receive(from peer.Node, messages [][]byte) {
	<-p.ready
	if p.mesh == nil {
		return
	}
	for _, b := range messages {
		var m nodeMessage
		if err := link.Unmarshal(b, &m); err != nil {
			continue // of another version: what it is about goes unanswered there
		}
		p.handleMessage(from, &m)
	}
}

// handleMessage takes a message of another node, which speaks for its own workers
// alone.
func (p *peering) handleMessage(from peer.Node, m *nodeMessage) {
	switch {
	case m.Hello != nil:
		p.greeted(from, m.Hello)
	case m.Gone != nil:
		p.gone(from, m.Gone)
	case m.Piece != nil:
		if k := p.ownerOf(m.Piece.To, m.Piece.From, from); k != nil {
			k.take(from, m.Piece)
		}
	case m.Credit != nil:
		if k := p.ownerOf(m.Credit.To, m.Credit.From, from); k != nil {
			k.credited(from, m.Credit)
		}
	case m.Fetch != nil:
		p.serveFetch(from, m.Fetch)
	case m.Scale != nil:
		p.scale.hear(p, from, m.Scale)
	case m.Load != nil:
		p.scale.take(from, m.Load)
	case m.Sever != nil:
		if k := p.ownerOf(m.Sever.To, m.Sever.From, from); k != nil {
			k.severedBy(from, m.Sever)
		}
	case m.Fetched != nil:
		p.mu.Lock()
		if f, ok := p.fetches[m.Fetched.ID]; ok && f.from == from {
			p.fetchedLocked(m.Fetched.ID, *m.Fetched)
		}
		p.mu.Unlock()
	}
}

// ownerOf is the tenant of a worker here that a worker on another node has a
// message for, nil where that is none of the same tenant.
func (p *peering) ownerOf(to, sender uint64, from peer.Node) *tenantPeers {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ownerOfLocked(to, sender, from)
}

func (p *peering) ownerOfLocked(to, sender uint64, from peer.Node) *tenantPeers {
	k := p.own[to]
	if k == nil {
		return nil // it was, a moment ago
	}
	if at, ok := k.far[sender]; ok && at == from {
		return k
	}
	for _, other := range p.tenants {
		if at, ok := other.far[sender]; ok && at == from && other != k {
			p.foreign++ // no node that is in order sends it
		}
	}
	return nil
}

// started says that this node has a worker now, and what it is called.
func (k *tenantPeers) started(w *workerProcess, id uint64) {
	select {
	case <-k.ready:
	case <-k.n.dying(): // before it has joined
		return
	}
	if k.mesh == nil {
		return
	}
	if k.startsAs(w, id) {
		k.announce()
	}
}

// startsAs tells the worker and other nodes of each other. It reports false of one
// that was ended meanwhile.
func (k *tenantPeers) startsAs(w *workerProcess, id uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.parted {
		return false
	}
	k.ownLocked(w, id)
	for id, node := range k.far {
		k.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsUp, Node: node.Name})
		if !k.up[node] {
			k.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsUnreachable})
		}
	}
	for node := range k.up {
		k.tellLocked(node)
	}
	return true
}

// ownLocked notes that the node has another worker; nil and 0: none. mu is held.
func (k *tenantPeers) ownLocked(w *workerProcess, id uint64) {
	delete(k.peering.own, k.ownID)
	if w != nil {
		k.peering.own[id] = k
	}
	k.own, k.ownID, k.events, k.queued, k.news = w, id, nil, 0, 0
	clear(k.coming)
	clear(k.flows)
	clear(k.severed)
	clear(k.full)
	for _, box := range k.outboxes {
		box.severed = nil
	}
}

// stopped says that a worker of this node is no more.
func (k *tenantPeers) stopped(w *workerProcess) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.parted = true
	if k.own != w {
		return
	}
	k.ownLocked(nil, 0)
	for node := range k.up {
		k.tellLocked(node)
	}
	for id, f := range k.fetches {
		if f.by != w {
			continue
		}
		k.fetchedLocked(id, fetched{Err: wray.Errorf(wray.CodeWorkerDied, "the worker that asked is gone")})
	}
}

// handle serves what this node's worker asks for. What it says of itself is not
// believed: only the node knows which worker it is.
func (k *tenantPeers) handle(ctx context.Context, w *workerProcess, m link.Message) (link.Message, error) {
	<-k.ready
	if k.mesh == nil {
		return link.Message{}, errAlone
	}
	switch m.Kind {
	case worker.KindPeerSend:
		var b worker.PeerSendBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		n, err := k.forward(w, b.Pieces)
		if err != nil {
			return link.Message{}, err
		}
		body, err := link.Marshal(worker.PeerSentBody{Taken: n})
		return link.Message{Body: body}, err
	case worker.KindPeerSever:
		var b worker.PeerSeverBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		k.sever(w, b.Peer, b.Why)
		return link.Message{}, nil
	case worker.KindPeerFetch:
		var b worker.PeerFetchBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		data, err := k.fetch(ctx, w, b)
		return link.Message{Body: data}, err
	case worker.KindPeerFill:
		var b worker.PeerFetchBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		return link.Message{}, k.bulk.fill(ctx, k, w, b, m.Files)
	case worker.KindPeerModule:
		var b worker.PeerModuleBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		return k.module(ctx, w, &b)
	}
	return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
}

// nodeOf returns where a peer of the worker's is.
func (k *tenantPeers) nodeOf(w *workerProcess, id uint64) (at peer.Node, self uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.far[id]
	if _, over := k.severed[id]; k.own != w || !ok || over {
		return at, 0, wray.Errorf(wray.CodeWorkerDied, "the worker %x is not there, or not any more", id)
	}
	return at, k.ownID, nil
}

// fetch has another node read an object of its worker.
func (k *tenantPeers) fetch(ctx context.Context, w *workerProcess, b worker.PeerFetchBody) ([]byte, error) {
	if b.Len < 0 || b.Len > worker.MaxPeerFetch {
		return nil, fmt.Errorf("%w: a fetch of %d bytes", link.ErrProtocol, b.Len)
	}
	at, self, err := k.nodeOf(w, b.Peer)
	if err != nil {
		return nil, err
	}
	f := fetching{by: w, from: at, done: make(chan fetched, 1)}
	k.mu.Lock()
	k.last++
	id := k.last
	k.fetches[id] = f
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.fetches, id)
		k.mu.Unlock()
	}()
	m, err := link.Marshal(&nodeMessage{Fetch: &fetchObject{ID: id, From: self, To: b.Peer, What: worker.PeerFetchBody{Owner: b.Owner, Seq: b.Seq, Off: b.Off, Len: b.Len}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, k.patience)
	defer cancel()
	late := wray.Errorf(wray.CodeWorkerDied, "node %s has not answered for %v", at.Name, k.patience)
	if err := k.mesh.Send(ctx, at, m); err != nil {
		return nil, wray.Errorf(wray.CodeWorkerDied, "%v", err)
	}
	select {
	case r := <-f.done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Data, nil
	case <-ctx.Done():
		return nil, late // or nobody asks any more
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	}
}

func (p *peering) fetchedLocked(id uint64, r fetched) {
	if f, ok := p.fetches[id]; ok {
		delete(p.fetches, id)
		f.done <- r // takes one
	}
}

// serveFetch has this node's worker read an object for another.
func (p *peering) serveFetch(from peer.Node, f *fetchObject) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.fetchedByLocked(f.To, f.From, from)
	who := serving{from, p.own[f.To]}
	if p.ctx.Err() != nil || p.served[who] >= maxServed {
		return // no node has so many under way: its worker may not. It asks again
	}
	p.served[who]++
	p.wg.Go(func() {
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.served[who]--; p.served[who] == 0 {
				delete(p.served, who)
			}
		}()
		out := &fetched{ID: f.ID}
		if w == nil {
			out.Err = wray.Errorf(wray.CodeWorkerDied, "the worker that had the object is gone")
		} else if body, err := link.Marshal(f.What); err != nil {
			out.Err = wray.Errorf(wray.CodeObjectLost, "%v", err)
		} else if m, err := w.conn.Call(p.ctx, link.Message{Kind: worker.KindPeerRead, Body: body}); err != nil {
			if !errors.As(err, &out.Err) {
				out.Err = wray.Errorf(wray.CodeWorkerDied, "%v", err)
			}
		} else {
			m.CloseFiles()
			out.Data = m.Body
		}
		if b, err := link.Marshal(&nodeMessage{Fetched: out}); err == nil {
			_ = p.mesh.Send(p.ctx, from, b) // who is gone asks no more
		}
	})
}

// readsLocked returns the worker of that number here, if a node may read its
// objects, else nil: only who has a worker of the same tenant does. mu is held.
func (p *peering) readsLocked(to uint64, isFrom func(peer.Node) bool) *workerProcess {
	k := p.own[to]
	if k == nil {
		return nil
	}
	for id, at := range k.far {
		if _, over := k.severed[id]; !over && isFrom(at) {
			return k.own
		}
	}
	return nil
}

// fetchedByLocked is readsLocked for one worker on another node. mu is held.
func (p *peering) fetchedByLocked(to, reader uint64, from peer.Node) *workerProcess {
	k := p.ownerOfLocked(to, reader, from)
	if k == nil {
		return nil
	}
	if _, over := k.severed[reader]; over {
		return nil
	}
	return k.own
}
