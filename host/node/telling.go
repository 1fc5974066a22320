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
	awake   bool     // with that
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
func (k *tenantPeers) tellLocked(node peer.Node) {
	box := k.outboxes[node]
	if box == nil {
		box = &outbox{}
		k.outboxes[node] = box
	}
	if box.busy || k.ctx.Err() != nil {
		return
	}
	box.busy = true
	k.wg.Go(func() { k.tellNode(node, box) })
}

// tellNode tells a node until it knows how things are, or is gone.
func (k *tenantPeers) tellNode(node peer.Node, box *outbox) {
	for {
		k.mu.Lock()
		var m nodeMessage
		told := func() {}
		switch {
		case k.outboxes[node] != box || k.ctx.Err() != nil:
			k.mu.Unlock()
			return
		case box.worker != 0 && box.worker != k.ownID:
			m.Gone = &hello{Tenant: k.t.name, Worker: box.worker}
			told = func() { box.worker = 0 }
		case box.worker != k.ownID, k.ownID != 0 && box.awake != k.awake:
			id, awake := k.ownID, k.awake
			m.Hello = &hello{Tenant: k.t.name, Worker: id, Created: k.t.epoch(), Awake: awake}
			told = func() { box.worker, box.awake = id, awake }
		case k.ownID != 0 && len(box.severed) > 0:
			to := box.severed[0]
			box.severed = box.severed[1:]
			m.Sever = &severing{From: k.ownID, To: to, Why: k.severed[to]}
		default:
			id, f := k.owesLocked(node)
			if k.ownID == 0 || f == nil {
				box.busy = false
				k.roomLocked(node)
				k.mu.Unlock()
				return
			}
			m.Credit = &credit{From: k.ownID, To: id, May: f.granted}
			f.told = f.granted
		}
		k.mu.Unlock()
		b, err := link.Marshal(&m)
		if err == nil {
			err = k.mesh.Send(k.ctx, node, b)
		}
		k.mu.Lock()
		if err != nil { // it is gone, or this node is closing
			box.busy = false
			if k.outboxes[node] == box {
				delete(k.outboxes, node)
			}
			k.mu.Unlock()
			return
		}
		told()
		k.mu.Unlock()
	}
}

// forward sends the worker's messages to one peer, as far as there is room, and
// returns how many pieces it took; what it did not take the worker sends again
// when it is told that there is room. It does not wait: it would keep the worker
// from others.
func (k *tenantPeers) forward(w *workerProcess, pieces []worker.PeerPiece) (int, error) {
	for i, x := range pieces {
		if len(x.Data) > worker.MaxPeerPiece {
			return i, errPiece(len(x.Data))
		}
		at, self, err := k.nodeOf(w, x.Peer)
		if err != nil {
			continue // the worker is told, or has been
		}
		k.mu.Lock()
		if box := k.outboxes[at]; box == nil || box.worker != self {
			k.waitLocked(at, x.Peer)
			k.tellLocked(at)
			k.mu.Unlock()
			return i, nil
		}
		if !k.sendsLocked(x.Peer, len(x.Data)) { // it takes none for now, and its node says when it does
			k.waitLocked(at, x.Peer)
			k.mu.Unlock()
			return i, nil
		}
		k.mu.Unlock()
		m, err := link.Marshal(&nodeMessage{Piece: &piece{From: self, To: x.Peer, More: x.More, Data: x.Data}})
		if err != nil {
			return i, err
		}
		if err := k.mesh.TrySend(at, m); errors.Is(err, peer.ErrFull) {
			k.mu.Lock()
			k.unsentLocked(x.Peer, len(x.Data))
			k.waitLocked(at, x.Peer)
			if !k.awaits[at] && k.ctx.Err() == nil {
				k.awaits[at] = true
				k.wg.Go(func() { k.awaitRoom(at) })
			}
			k.mu.Unlock()
			return i, nil
		}
		// With any other error the session is over: the worker is told.
	}
	return len(pieces), nil
}

// waitLocked notes that the worker waits to send to a peer. mu is held.
func (k *tenantPeers) waitLocked(at peer.Node, id uint64) {
	if k.full[at] == nil {
		k.full[at] = map[uint64]bool{}
	}
	k.full[at][id] = true
}

// roomLocked tells the worker that it may send to those on a node. mu is held.
func (k *tenantPeers) roomLocked(at peer.Node) {
	for id := range k.full[at] {
		k.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerHasRoom})
	}
	delete(k.full, at)
}

// awaitRoom waits until a session takes more.
func (k *tenantPeers) awaitRoom(at peer.Node) {
	_ = k.mesh.AwaitRoom(k.ctx, at) // an error says that it takes all, as nobody gets it
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.awaits, at)
	k.roomLocked(at)
}

// sever ends what there is between the worker and a peer, because the worker
// says so.
func (k *tenantPeers) sever(w *workerProcess, id uint64, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.far[id]
	if _, over := k.severed[id]; k.own != w || !ok || over {
		return
	}
	k.severLocked(at, id, why)
}

// severLocked is sever of a peer that is known. mu is held.
func (k *tenantPeers) severLocked(at peer.Node, id uint64, why string) {
	k.severed[id] = why
	k.tellLocked(at)
	box := k.outboxes[at]
	box.severed = append(box.severed, id)
	k.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsDown}) // if it does not know
}

// severedBy takes another node's word that a worker of its own is down to the
// one here.
func (k *tenantPeers) severedBy(from peer.Node, m *severing) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, over := k.severed[m.From]; k.far[m.From] != from || m.To != k.ownID || k.own == nil || over {
		return
	}
	k.severed[m.From] = m.Why
	k.eventLocked(worker.PeerEvent{Peer: m.From, What: worker.PeerIsDown})
}
