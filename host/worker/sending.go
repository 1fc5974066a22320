package worker

import (
	"context"
	"errors"

	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/scheduler"
)

// What is sent to each peer waits in a queue of its own: one that takes nothing
// keeps nobody else waiting. The node takes what there is room for, and says when
// there is more.

// Bounds of what waits for one peer.
const (
	// maxUnsent is how many bytes may wait before the peer is lent nothing more.
	maxUnsent = 16 << 20
	// tooUnsent is how many are too many: what others ask of this worker waits
	// there too, and a peer that takes nothing of it is severed.
	tooUnsent = 4 * MaxPeerMessage
)

// sendQueue is what waits for one peer, guarded by nodePeering.mu.
type sendQueue struct {
	pieces  []PeerPiece
	bytes   int64
	sending bool // a goroutine sends
	full    bool // the node has no room
	room    bool // it has said that it has, since it was asked last
	much    bool // more than maxUnsent waited
}

// Send implements Peering.
func (p *nodePeering) Send(to scheduler.PeerID, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[to]
	if q == nil {
		q = &sendQueue{}
		p.queues[to] = q
	}
	q.bytes += int64(len(b))
	q.much = q.much || q.bytes > maxUnsent
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), MaxPeerPiece)
		q.pieces = append(q.pieces, PeerPiece{Peer: uint64(to), Data: b[:n:n], More: n < len(b)})
		b = b[n:]
	}
	p.sendLocked(to, q)
}

// Unsent implements Peering.
func (p *nodePeering) Unsent(to scheduler.PeerID) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.queues[to]; q != nil {
		return q.bytes
	}
	return 0
}

// sendLocked has a queue sent, if it can be.
func (p *nodePeering) sendLocked(to scheduler.PeerID, q *sendQueue) {
	if !q.sending && !q.full {
		q.sending = true
		go p.send(to, q) // ends when the queue is empty or full, or the link has ended
	}
}

// room has what the node did not take sent again.
func (p *nodePeering) room(to scheduler.PeerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.queues[to]; q != nil {
		q.full, q.room = false, true
		p.sendLocked(to, q)
	}
}

// forget drops what is for a peer that is gone.
func (p *nodePeering) forget(to scheduler.PeerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.queues, to)
}

// send gives a queue to the node, a batch at a time.
func (p *nodePeering) send(to scheduler.PeerID, q *sendQueue) {
	for {
		p.mu.Lock()
		n, size := 0, 0
		for n < len(q.pieces) && (n == 0 || size+len(q.pieces[n].Data) <= MaxPeerBatch) && n < 1024 {
			size += len(q.pieces[n].Data)
			n++
		}
		batch := q.pieces[:n:n]
		q.room = false
		if n == 0 || p.queues[to] != q {
			q.sending = false
			if p.queues[to] == q {
				delete(p.queues, to)
			}
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		taken, err := p.give(batch)
		if errors.Is(err, link.ErrClosed) {
			return // and so does the process
		}
		if err != nil {
			taken = n // about a peer that is gone, of which an event tells
		}
		p.mu.Lock()
		for _, x := range q.pieces[:taken] {
			q.bytes -= int64(len(x.Data))
		}
		clear(q.pieces[:taken])
		q.pieces = q.pieces[taken:]
		drained := q.much && q.bytes <= maxUnsent/2
		if drained {
			q.much = false
		}
		// Word that there is room may have come before the reply that there was none.
		full := taken < n && !q.room
		if full {
			q.full, q.sending = true, false
		}
		p.mu.Unlock()
		if drained {
			p.drained(to)
		}
		if full {
			return
		}
	}
}

// give gives pieces to the node, and returns how many it took.
func (p *nodePeering) give(batch []PeerPiece) (int, error) {
	body, err := link.Marshal(PeerSendBody{Pieces: batch})
	if err != nil {
		return 0, err
	}
	m, err := p.conn.Call(context.Background(), link.Message{Kind: KindPeerSend, Body: body})
	m.CloseFiles()
	if err != nil {
		return 0, err
	}
	var b PeerSentBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return 0, err
	}
	return min(max(b.Taken, 0), len(batch)), nil
}

// PeerHasRoom tells that little waits for a peer that was lent nothing because
// much did.
func (w *Worker) PeerHasRoom(id scheduler.PeerID) {
	w.step(nil, func(s *scheduler.Scheduler) { s.PeerAsk(w.now(), id) })
}
