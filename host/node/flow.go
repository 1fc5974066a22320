package node

import (
	"log/slog"

	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// What workers say to each other waits for the worker that it is for in the
// memory of its node. A session carries what all tenants' workers say, so a node
// never waits for a worker before it takes the next message: each worker may send
// another so many bytes, and more when that has taken some, by its node's word. A
// worker that takes nothing so stops those of its tenant that send to it, and
// nobody else. What passes the bound comes of a node that does not hold to it,
// and ends all there is between the two workers.

// Bounds of what waits for a worker. Each message has eventCost beside its bytes.
const (
	eventCost = 128
	// firstWindow is what each of its peers may send it before the first word of
	// more, and a message's piece beyond.
	firstWindow = 512 << 10
	// mostWindow is the most that one may, and allWindows about what all may
	// together, where that is more than each one's firstWindow.
	mostWindow, allWindows = 4 << 20, 32 << 20
	// maxNews is how many events without bytes wait, as of peers that come and go: a
	// worker that has taken none of so many is not one any more.
	maxNews = 1 << 16
)

// flow is what has gone between the worker here and one elsewhere, in bytes since
// both know of each other.
type flow struct {
	sent, may int64 // to that, and how much it may have been sent
	got       int64 // from that
	taken     int64 // of got, what the worker here has taken
	granted   int64 // that it was allowed to send
	told      int64 // that it was told it may
}

// credit says how much a worker may have sent another, ever.
type credit struct {
	From uint64 `cbor:"1,keyasint"` // allows it
	To   uint64 `cbor:"2,keyasint"`
	May  int64  `cbor:"3,keyasint"`
}

func (k *tenantPeers) flowLocked(id uint64) *flow {
	f := k.flows[id]
	if f == nil {
		f = &flow{may: firstWindow, granted: firstWindow, told: firstWindow}
		k.flows[id] = f
	}
	return f
}

// windowLocked is what each peer may have on its way to the worker. mu is held.
func (k *tenantPeers) windowLocked() int64 {
	return min(mostWindow, max(firstWindow, allWindows/int64(max(len(k.far), 1))))
}

// sendsLocked counts a piece that the worker sends to a peer, if it may. mu is
// held.
func (k *tenantPeers) sendsLocked(id uint64, n int) bool {
	f := k.flowLocked(id)
	if f.sent >= f.may {
		return false
	}
	f.sent += int64(n) + eventCost
	return true
}

// unsentLocked takes back what sendsLocked has counted. mu is held.
func (k *tenantPeers) unsentLocked(id uint64, n int) {
	if f := k.flows[id]; f != nil {
		f.sent -= int64(n) + eventCost
	}
}

// tookLocked counts what the worker has taken of a peer, and allows that more when
// it has taken much. mu is held.
func (k *tenantPeers) tookLocked(id uint64, n int64) {
	at, ok := k.far[id]
	f := k.flows[id]
	if !ok || f == nil {
		return
	}
	f.taken += n
	if window := k.windowLocked(); f.taken+window-f.granted >= window/4 {
		f.granted = f.taken + window
		k.tellLocked(at)
	}
}

// owesLocked returns a peer on a node that is to be told that it may send more.
// mu is held.
func (k *tenantPeers) owesLocked(node peer.Node) (id uint64, f *flow) {
	for id, f := range k.flows {
		if _, over := k.severed[id]; f.told < f.granted && k.far[id] == node && !over {
			return id, f
		}
	}
	return 0, nil
}

// credited takes another node's word of how much may be sent to a worker there.
func (k *tenantPeers) credited(from peer.Node, c *credit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own == nil || c.To != k.ownID || k.far[c.From] != from {
		return
	}
	f := k.flowLocked(c.From)
	if c.May <= f.may {
		return
	}
	f.may = c.May
	k.roomLocked(from)
}

// take passes a message on to the worker.
func (k *tenantPeers) take(from peer.Node, m *piece) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, over := k.severed[m.From]; k.own == nil || m.To != k.ownID || k.far[m.From] != from || over {
		return
	}
	f := k.flowLocked(m.From)
	if f.got >= f.granted { // no node that is in order lets it
		k.foreign++
		k.severLocked(from, m.From, "it sends more than it may")
		return
	}
	f.got += int64(len(m.Data)) + eventCost
	k.eventLocked(worker.PeerEvent{Peer: m.From, What: worker.PeerSent, More: m.More, Data: m.Data})
}

// eventLocked tells the worker something, after all that was told before.
func (k *tenantPeers) eventLocked(e worker.PeerEvent) {
	if k.own == nil {
		return // a new one is told how things are
	}
	if e.What != worker.PeerSent {
		if k.news++; k.news == maxNews && k.ctx.Err() == nil {
			k.wg.Go(k.own.deaf)
		}
		if k.news >= maxNews {
			return
		}
	}
	k.events = append(k.events, e)
	k.queued += len(e.Data) + eventCost
	if len(k.events) == 1 && k.ctx.Err() == nil {
		w := k.own
		k.wg.Go(func() { k.tell(w) })
	}
}

// deaf ends a worker that takes nothing of what it is told.
func (w *workerProcess) deaf() {
	if w.t == nil { // in tests
		return
	}
	slog.Warn("a worker takes nothing of what it is told of its peers, and is ended", "tenant", w.t.name)
	w.t.dead(w, "it took nothing of what it was told", true)
	w.proc.Kill()
}

// tell gives the worker its events, until there are none.
func (k *tenantPeers) tell(w *workerProcess) {
	for {
		k.mu.Lock()
		n, size := 0, 0
		for n < len(k.events) && k.own == w && (n == 0 || size+len(k.events[n].Data) <= worker.MaxPeerBatch) && n < 1024 {
			size += len(k.events[n].Data) + eventCost
			n++
		}
		batch := k.events[:n:n]
		k.mu.Unlock()
		if n == 0 {
			return
		}
		body, err := link.Marshal(worker.PeerEventsBody{Events: batch})
		if err == nil {
			var m link.Message
			m, err = w.conn.Call(k.ctx, link.Message{Kind: worker.KindPeerEvents, Body: body})
			m.CloseFiles()
		}
		k.mu.Lock()
		if k.own != w || err != nil {
			// It is gone, or about to be: stopped clears what is left.
			k.mu.Unlock()
			return
		}
		for _, e := range batch {
			if e.What == worker.PeerSent {
				k.tookLocked(e.Peer, int64(len(e.Data))+eventCost)
			} else {
				k.news--
			}
		}
		k.events = k.events[n:]
		k.queued -= size
		none := len(k.events) == 0 // under one lock: whoever finds none begins another tell
		k.mu.Unlock()
		if none {
			return
		}
	}
}
