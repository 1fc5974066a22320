package node

import (
	"context"
	"errors"

	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// sessions is what the node sends with: *peer.Mesh.
type sessions interface {
	TrySend(to peer.Node, message []byte) error
	Send(ctx context.Context, to peer.Node, message []byte) error
	AwaitRoom(ctx context.Context, to peer.Node) error
}

// outbox is what another node is to be told of the worker here, which may not be
// lost: a session that has no room delays it. It says how things are, so that
// however slow the other is, little is kept. What the worker sends waits until
// the other knows of it.
type outbox struct {
	worker  uint64   // that the other was told of; 0: none
	severed []uint64 // its workers that are to be told that the worker here is down to them
	busy    bool     // a goroutine sends
}

// severing ends all there is between two workers.
type severing struct {
	From uint64 `cbor:"1,keyasint"` // is down
	To   uint64 `cbor:"2,keyasint"` // to that
	Why  string `cbor:"3,keyasint,omitempty"`
}

// tellLocked has a node told how things are here. mu is held.
func (p *peering) tellLocked(node peer.Node) {
	box := p.outboxes[node]
	if box == nil {
		box = &outbox{}
		p.outboxes[node] = box
	}
	if box.busy || p.ctx.Err() != nil {
		return
	}
	box.busy = true
	p.wg.Go(func() { p.tellNode(node, box) })
}

// tellNode tells a node until it knows how things are, or is gone.
func (p *peering) tellNode(node peer.Node, box *outbox) {
	for {
		p.mu.Lock()
		var m nodeMessage
		told := func() {}
		switch {
		case p.outboxes[node] != box || p.ctx.Err() != nil:
			p.mu.Unlock()
			return
		case box.worker != 0 && box.worker != p.ownID:
			m.Gone = &hello{p.n.cfg.Tenant, box.worker}
			told = func() { box.worker = 0 }
		case box.worker != p.ownID:
			id := p.ownID
			m.Hello = &hello{p.n.cfg.Tenant, id}
			told = func() { box.worker = id }
		case p.ownID != 0 && len(box.severed) > 0:
			to := box.severed[0]
			box.severed = box.severed[1:]
			m.Sever = &severing{From: p.ownID, To: to, Why: p.severed[to]}
		default:
			box.busy = false
			p.roomLocked(node)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		b, err := link.Marshal(&m)
		if err == nil {
			err = p.mesh.Send(p.ctx, node, b)
		}
		p.mu.Lock()
		if err != nil { // it is gone, or this node is closing
			box.busy = false
			if p.outboxes[node] == box {
				delete(p.outboxes, node)
			}
			p.mu.Unlock()
			return
		}
		told()
		p.mu.Unlock()
	}
}

// forward sends the worker's messages to one peer, as far as there is room, and
// returns how many pieces it took; what it did not take the worker sends again
// when it is told that there is room. It does not wait: it would keep the worker
// from others.
func (p *peering) forward(w *workerProcess, pieces []worker.PeerPiece) (int, error) {
	for i, x := range pieces {
		if len(x.Data) > worker.MaxPeerPiece {
			return i, errPiece(len(x.Data))
		}
		at, self, err := p.nodeOf(w, x.Peer)
		if err != nil {
			continue // the worker is told, or has been
		}
		p.mu.Lock()
		if box := p.outboxes[at]; box == nil || box.worker != self {
			p.fullLocked(at, x.Peer)
			p.tellLocked(at)
			p.mu.Unlock()
			return i, nil
		}
		p.mu.Unlock()
		m, err := link.Marshal(&nodeMessage{Piece: &piece{From: self, To: x.Peer, More: x.More, Data: x.Data}})
		if err != nil {
			return i, err
		}
		if err := p.mesh.TrySend(at, m); errors.Is(err, peer.ErrFull) {
			p.mu.Lock()
			if p.fullLocked(at, x.Peer) && p.ctx.Err() == nil {
				p.wg.Go(func() { p.awaitRoom(at) })
			}
			p.mu.Unlock()
			return i, nil
		}
		// With any other error the session is over: the worker is told.
	}
	return len(pieces), nil
}

// fullLocked notes that the worker waits to send to a peer. True: it is the first
// that waits for that node. mu is held.
func (p *peering) fullLocked(at peer.Node, id uint64) bool {
	first := p.full[at] == nil
	if first {
		p.full[at] = map[uint64]bool{}
	}
	p.full[at][id] = true
	return first
}

// roomLocked tells the worker that it may send to those on a node. mu is held.
func (p *peering) roomLocked(at peer.Node) {
	for id := range p.full[at] {
		p.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerHasRoom})
	}
	delete(p.full, at)
}

// awaitRoom waits until a session takes more.
func (p *peering) awaitRoom(at peer.Node) {
	_ = p.mesh.AwaitRoom(p.ctx, at) // an error says that it takes all, as nobody gets it
	p.mu.Lock()
	defer p.mu.Unlock()
	p.roomLocked(at)
}

// sever ends what there is between the worker and a peer, because the worker
// says so.
func (p *peering) sever(w *workerProcess, id uint64, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.far[id]
	if _, over := p.severed[id]; p.own != w || !ok || over {
		return
	}
	p.severed[id] = why
	p.tellLocked(at)
	box := p.outboxes[at]
	box.severed = append(box.severed, id)
	p.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsDown}) // if it does not know
}

// severedBy takes another node's word that a worker of its own is down to the
// one here.
func (p *peering) severedBy(from peer.Node, m *severing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, over := p.severed[m.From]; p.far[m.From] != from || m.To != p.ownID || p.own == nil || over {
		return
	}
	p.severed[m.From] = m.Why
	p.eventLocked(worker.PeerEvent{Peer: m.From, What: worker.PeerIsDown})
}
