package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/rpc"
)

// peering carries what the workers of one tenant on several nodes say to each
// other. To the nodes it is bytes, from one worker to another; a node passes on
// only what comes from the node where the sender is.
type peering struct {
	n     *Node
	ready chan struct{}  // closed when member is set, or will not be
	m     *member.Member // nil where the node did not join
	mesh  sessions       // of m; nil likewise
	ctx   context.Context
	stop  context.CancelFunc

	scale *scaling
	bulk  *bulkData

	patience time.Duration // with a fetch, and with a transfer of which nothing comes

	wg sync.WaitGroup // fetches for others, the worker's start, and tell

	mu      sync.Mutex
	room    *sync.Cond           // of mu: queued got smaller, or own another
	up      map[peer.Node]bool   // guarded by mu, as is all that follows; sessions, and whether they answer
	far     map[uint64]peer.Node // where the workers of others are, by their number
	own     *workerProcess       // this node's; nil while there is none
	ownID   uint64               // names it to the others
	events  []worker.PeerEvent   // for own
	queued  int                  // bytes of events
	fetches map[uint64]fetching  // for own, from others
	last    uint64               // fetch
	modules map[[32]byte]*module // of the jobs that run here
	served  map[peer.Node]int    // fetches for others, that are under way

	outboxes map[peer.Node]*outbox         // nodes that are up, or were
	full     map[peer.Node]map[uint64]bool // peers that the worker waits to send to
	severed  map[uint64]string             // peers that have nothing to do with own any more, and why
	lives    map[peer.Node]*life           // nodes that are not down
}

// fetching is a fetch that is under way.
type fetching struct {
	from peer.Node
	done chan fetched // takes one
}

// module is the bytes of a module that others may ask for.
type module struct {
	wasm []byte
	jobs int
}

// maxServed is how many fetches of one node are served at once: more than its
// worker may have under way.
const maxServed = 512

// maxQueued is how many bytes of events wait for the worker, before the node
// that sends them is made to wait. Each has eventCost beside its data.
const (
	maxQueued = 16 << 20
	eventCost = 128
)

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
}

type hello struct {
	Tenant string `cbor:"1,keyasint"`
	Worker uint64 `cbor:"2,keyasint"`
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
}

type fetched struct {
	ID   uint64      `cbor:"1,keyasint"`
	Data []byte      `cbor:"2,keyasint"`
	Err  *wray.Error `cbor:"3,keyasint,omitempty"`
}

func newPeering(n *Node) *peering {
	p := &peering{n: n, patience: time.Minute, ready: make(chan struct{}), up: map[peer.Node]bool{}, far: map[uint64]peer.Node{},
		fetches: map[uint64]fetching{}, modules: map[[32]byte]*module{}, served: map[peer.Node]int{},
		outboxes: map[peer.Node]*outbox{}, full: map[peer.Node]map[uint64]bool{}, severed: map[uint64]string{}, lives: map[peer.Node]*life{}}
	p.room = sync.NewCond(&p.mu)
	p.scale = &scaling{n: n, isHead: func(from peer.Node) bool {
		if p.m == nil {
			return false
		}
		e, ok := p.m.Nodes().Node(from.Name)
		return ok && e.Node.Head && e.Node.Incarnation == from.Incarnation
	}}
	p.bulk = newBulkData(p)
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// joined says that the node is in the cluster; nil that it is not.
func (p *peering) joined(m *member.Member) {
	if p.m = m; m != nil {
		p.mesh = m.Mesh()
	}
	close(p.ready)
}

// close ends what is under way, and waits for it.
func (p *peering) close() {
	p.stop()
	p.mu.Lock()
	p.room.Broadcast()
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
	p.mu.Lock()
	defer p.mu.Unlock()
	what := worker.PeerIsUnreachable
	switch to {
	case peer.Up:
		what = worker.PeerIsUp
		p.up[node] = true
		p.bornLocked(node)
		p.tellLocked(node)
	case peer.Down:
		what = worker.PeerIsDown
		delete(p.up, node)
		delete(p.outboxes, node)
		p.diedLocked(node)
	default:
		p.up[node] = false
	}
	for id, at := range p.far {
		if at != node {
			continue
		}
		if _, over := p.severed[id]; !over {
			p.eventLocked(worker.PeerEvent{Peer: id, What: what, Node: node.Name})
		}
		if to == peer.Down {
			delete(p.far, id)
			delete(p.severed, id)
		}
	}
	if to == peer.Down {
		for id, f := range p.fetches {
			if f.from == node {
				p.fetchedLocked(id, fetched{Err: goneFor(node)})
			}
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

// handleMessage takes a message of another node, which speaks for its own worker
// alone.
func (p *peering) handleMessage(from peer.Node, m *nodeMessage) {
	if m.Fetch == nil && m.Fetched == nil && m.Scale == nil && m.Load == nil {
		p.awaitWorker()
	}
	switch {
	case m.Hello != nil:
		p.greeted(from, m.Hello)
	case m.Gone != nil:
		p.mu.Lock()
		if p.far[m.Gone.Worker] == from {
			p.downLocked(m.Gone.Worker)
		}
		p.mu.Unlock()
	case m.Piece != nil:
		p.take(from, m.Piece)
	case m.Fetch != nil:
		p.serveFetch(from, m.Fetch)
	case m.Scale != nil:
		p.scale.hear(p, from, m.Scale)
	case m.Load != nil:
		p.scale.take(from, m.Load)
	case m.Sever != nil:
		p.severedBy(from, m.Sever)
	case m.Fetched != nil:
		p.mu.Lock()
		if f, ok := p.fetches[m.Fetched.ID]; ok && f.from == from {
			p.fetchedLocked(m.Fetched.ID, *m.Fetched)
		}
		p.mu.Unlock()
	}
}

// greeted takes note of a worker of the tenant's on another node. Where there is
// none here one is started: it may be of use to the other.
func (p *peering) greeted(from peer.Node, h *hello) {
	if h.Tenant != p.n.cfg.Tenant || h.Worker == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.far[h.Worker]; known || h.Worker == p.ownID {
		return // or somebody gives another's number for his own
	}
	for id, at := range p.far {
		if at == from {
			p.downLocked(id)
		}
	}
	p.far[h.Worker] = from
	p.eventLocked(worker.PeerEvent{Peer: h.Worker, What: worker.PeerIsUp, Node: from.Name})
	if p.own == nil && p.ctx.Err() == nil && !p.n.draining() {
		p.wg.Go(func() { _, _ = p.n.startWorker(p.ctx) }) // who needs it for a job is told why it does not start
	}
}

func (p *peering) downLocked(id uint64) {
	delete(p.far, id)
	if _, over := p.severed[id]; over {
		delete(p.severed, id)
		return // the worker knows
	}
	p.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsDown})
}

// awaitWorker waits while much waits for the worker, and with that keeps the node
// waiting whose message is next.
func (p *peering) awaitWorker() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.queued > maxQueued && p.own != nil && p.ctx.Err() == nil {
		p.room.Wait()
	}
}

// take passes a message on to the worker.
func (p *peering) take(from peer.Node, m *piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, over := p.severed[m.From]; p.own == nil || m.To != p.ownID || p.far[m.From] != from || over {
		return
	}
	p.eventLocked(worker.PeerEvent{Peer: m.From, What: worker.PeerSent, More: m.More, Data: m.Data})
}

// eventLocked tells the worker something, after all that was told before.
func (p *peering) eventLocked(e worker.PeerEvent) {
	if p.own == nil {
		return // a new one is told how things are
	}
	p.events = append(p.events, e)
	p.queued += len(e.Data) + eventCost
	if len(p.events) == 1 && p.ctx.Err() == nil {
		w := p.own
		p.wg.Go(func() { p.tell(w) })
	}
}

// tell gives the worker its events, until there are none.
func (p *peering) tell(w *workerProcess) {
	for {
		p.mu.Lock()
		n, size := 0, 0
		for n < len(p.events) && p.own == w && (n == 0 || size+len(p.events[n].Data) <= worker.MaxPeerBatch) && n < 1024 {
			size += len(p.events[n].Data) + eventCost
			n++
		}
		batch := p.events[:n:n]
		p.mu.Unlock()
		if n == 0 {
			return
		}
		body, err := link.Marshal(worker.PeerEventsBody{Events: batch})
		if err == nil {
			var m link.Message
			m, err = w.conn.Call(p.ctx, link.Message{Kind: worker.KindPeerEvents, Body: body})
			m.CloseFiles()
		}
		p.mu.Lock()
		if p.own != w || err != nil {
			// It is gone, or about to be: stopped clears what is left.
			p.mu.Unlock()
			return
		}
		p.events = p.events[n:]
		p.queued -= size
		p.room.Broadcast()
		none := len(p.events) == 0 // under one lock: whoever finds none begins another tell
		p.mu.Unlock()
		if none {
			return
		}
	}
}

// started says that this node has a worker now, and what it is called.
func (p *peering) started(w *workerProcess, id uint64) {
	<-p.ready
	if p.mesh == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ownLocked(w, id)
	for id, node := range p.far {
		p.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsUp, Node: node.Name})
		if !p.up[node] {
			p.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsUnreachable})
		}
	}
	for node := range p.up {
		p.tellLocked(node)
	}
}

// ownLocked notes that the node has another worker; nil and 0: none. mu is held.
func (p *peering) ownLocked(w *workerProcess, id uint64) {
	p.own, p.ownID, p.events, p.queued = w, id, nil, 0
	clear(p.severed)
	clear(p.full)
	for _, box := range p.outboxes {
		box.severed = nil
	}
	p.room.Broadcast()
}

// stopped says that a worker of this node is no more.
func (p *peering) stopped(w *workerProcess) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own != w {
		return
	}
	p.ownLocked(nil, 0)
	for node := range p.up {
		p.tellLocked(node)
	}
	for id := range p.fetches {
		p.fetchedLocked(id, fetched{Err: wray.Errorf(wray.CodeWorkerDied, "the worker that asked is gone")})
	}
}

// again starts a worker in place of one that was lost, for the others that may
// lend to it, after a moment: one that dies at once is no use.
func (p *peering) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own != nil || len(p.far) == 0 || p.ctx.Err() != nil || p.n.draining() {
		return
	}
	p.wg.Go(func() {
		select {
		case <-time.After(time.Second):
			_, _ = p.n.startWorker(p.ctx)
		case <-p.ctx.Done():
		}
	})
}

// handle serves what this node's worker asks for. What it says of itself is not
// believed: only the node knows which worker it is.
func (p *peering) handle(ctx context.Context, w *workerProcess, m link.Message) (link.Message, error) {
	<-p.ready
	if p.mesh == nil {
		return link.Message{}, errAlone
	}
	switch m.Kind {
	case worker.KindPeerSend:
		var b worker.PeerSendBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		n, err := p.forward(w, b.Pieces)
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
		p.sever(w, b.Peer, b.Why)
		return link.Message{}, nil
	case worker.KindPeerFetch:
		var b worker.PeerFetchBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		data, err := p.fetch(ctx, w, b)
		return link.Message{Body: data}, err
	case worker.KindPeerFill:
		var b worker.PeerFetchBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		return link.Message{}, p.bulk.fill(ctx, w, b, m.Files)
	case worker.KindPeerModule:
		var b worker.PeerModuleBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		return p.module(ctx, w, &b)
	}
	return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
}

// nodeOf returns where a peer of the worker's is.
func (p *peering) nodeOf(w *workerProcess, id uint64) (at peer.Node, self uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.far[id]
	if _, over := p.severed[id]; p.own != w || !ok || over {
		return at, 0, wray.Errorf(wray.CodeWorkerDied, "the worker %x is not there, or not any more", id)
	}
	return at, p.ownID, nil
}

// fetch has another node read an object of its worker.
func (p *peering) fetch(ctx context.Context, w *workerProcess, b worker.PeerFetchBody) ([]byte, error) {
	if b.Len < 0 || b.Len > worker.MaxPeerFetch {
		return nil, fmt.Errorf("%w: a fetch of %d bytes", link.ErrProtocol, b.Len)
	}
	at, _, err := p.nodeOf(w, b.Peer)
	if err != nil {
		return nil, err
	}
	f := fetching{from: at, done: make(chan fetched, 1)}
	p.mu.Lock()
	p.last++
	id := p.last
	p.fetches[id] = f
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.fetches, id)
		p.mu.Unlock()
	}()
	m, err := link.Marshal(&nodeMessage{Fetch: &fetchObject{ID: id, To: b.Peer, What: worker.PeerFetchBody{Owner: b.Owner, Seq: b.Seq, Off: b.Off, Len: b.Len}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	late := wray.Errorf(wray.CodeWorkerDied, "node %s has not answered for %v", at.Name, p.patience)
	if err := p.mesh.Send(ctx, at, m); err != nil {
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
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
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
	w := p.readsLocked(f.To, func(at peer.Node) bool { return at == from })
	if p.ctx.Err() != nil || p.served[from] >= maxServed {
		return // no node has so many under way: its worker may not. It asks again
	}
	p.served[from]++
	p.wg.Go(func() {
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.served[from]--; p.served[from] == 0 {
				delete(p.served, from)
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
// objects, else nil: only who has a worker of the tenant does. mu is held.
func (p *peering) readsLocked(to uint64, isFrom func(peer.Node) bool) *workerProcess {
	if p.own == nil || to != p.ownID {
		return nil
	}
	for id, at := range p.far {
		if _, over := p.severed[id]; !over && isFrom(at) {
			return p.own
		}
	}
	return nil
}

// share lets other nodes ask for a job's modules, until the result is called.
func (p *peering) share(mods []Module) (hashes []string, end func()) {
	var sums [][32]byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range mods {
		sum := sha256.Sum256(m.Wasm)
		sums, hashes = append(sums, sum), append(hashes, hex.EncodeToString(sum[:]))
		if p.modules[sum] == nil {
			p.modules[sum] = &module{wasm: m.Wasm}
		}
		p.modules[sum].jobs++
	}
	return hashes, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, sum := range sums {
			if m := p.modules[sum]; m.jobs > 1 {
				m.jobs--
			} else {
				delete(p.modules, sum)
			}
		}
	}
}

// blob is the Blob of rpc.Options.
func (p *peering) blob(_ context.Context, _ auth.Identity, sum [32]byte) (rpc.Blob, int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.modules[sum]
	if m == nil {
		return nil, 0, fs.ErrNotExist
	}
	return inMemory{bytes.NewReader(m.wasm)}, int64(len(m.wasm)), nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// module gets a module from the node of a peer, and has it compiled here.
func (p *peering) module(ctx context.Context, w *workerProcess, b *worker.PeerModuleBody) (link.Message, error) {
	at, _, err := p.nodeOf(w, b.Peer)
	if err != nil {
		return link.Message{}, err
	}
	var sum [32]byte
	if n, err := hex.Decode(sum[:], []byte(b.Hash)); err != nil || n != len(sum) {
		return link.Message{}, fmt.Errorf("%w: the hash %.80q", link.ErrProtocol, b.Hash)
	}
	e, ok := p.m.Nodes().Node(at.Name)
	if !ok {
		return link.Message{}, fmt.Errorf("node %s is not known", at.Name)
	}
	c, err := rpc.NewClient(p.m.Guard(), at.Name, e.Node.Addr)
	if err != nil {
		return link.Message{}, err
	}
	defer c.Close()
	wasm := &moduleBuffer{budget: &p.n.modules}
	defer wasm.giveBack()
	if err := p.transfer(ctx, at, wasm, func(ctx context.Context) error {
		_, err := c.Blob(ctx, sum, maxModuleBytes, wasm)
		return err
	}); err != nil {
		return link.Message{}, err
	}
	entry, err := p.n.cache.Get(ctx, p.n.cfg.Tenant, wasm.Bytes())
	if err != nil {
		return link.Message{}, err
	}
	f, err := os.Open(entry.ArtifactPath)
	if err != nil {
		return link.Message{}, err
	}
	body, err := link.Marshal(worker.ModuleBody{Native: entry.NativePath, Hash: b.Hash})
	return link.Message{Body: body, Files: []*os.File{f}}, err
}
