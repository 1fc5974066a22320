package worker

import (
	"context"
	"sync"
	"testing"

	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/scheduler"
)

// A peer for which the node has no room keeps nobody else waiting. What waits
// for it is counted, goes on in its order, and is dropped with it.
func TestSendQueues(t *testing.T) {
	node, conn := ends(t)
	var mu sync.Mutex
	full := true // guarded by mu; peer 1
	came := make(chan PeerPiece, 1000)
	asked := make(chan struct{}, 1000) // for peer 1, in vain
	go node.Serve(t.Context(), func(_ context.Context, m link.Message) (link.Message, error) {
		var b PeerSendBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		taken := 0
		for i, x := range b.Pieces {
			if x.Peer == 1 && full && i > 0 {
				asked <- struct{}{}
				break
			}
			came <- x
			taken++
		}
		return reply(PeerSentBody{Taken: taken})
	})
	go conn.Serve(t.Context(), func(context.Context, link.Message) (link.Message, error) { return link.Message{}, nil })
	drained := make(chan scheduler.PeerID, 10)
	p := &nodePeering{conn: conn, queues: map[scheduler.PeerID]*sendQueue{}, drained: func(id scheduler.PeerID) { drained <- id }}

	// One message in pieces, of which the node takes the first of each batch.
	size := maxUnsent + 3*MaxPeerPiece/2
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i >> 20)
	}
	p.Send(1, b)
	<-asked
	if got := p.Unsent(1); got < maxUnsent || got > int64(size) {
		t.Errorf("%d bytes wait, of %d", got, size)
	}
	p.Send(2, []byte("hello"))
	var got []byte
	for x := range came {
		if x.Peer == 2 {
			break
		}
		got = append(got, x.Data...)
	}
	if n := len(asked); n > 0 {
		t.Errorf("the node was asked %d times more, and had not said that it has room", n)
	}
	mu.Lock()
	full = false
	mu.Unlock()
	p.room(1)
	for len(got) < size {
		x := <-came
		got = append(got, x.Data...)
		if x.More != (len(got) < size) {
			t.Errorf("after %d of %d bytes more: %v", len(got), size, x.More)
		}
	}
	for i, c := range got {
		if c != byte(i>>20) {
			t.Fatalf("byte %d is %d", i, c)
		}
	}
	if id := <-drained; id != 1 {
		t.Errorf("peer %d drained", id)
	}

	mu.Lock()
	full = true
	mu.Unlock()
	p.Send(1, b)
	<-asked
	p.forget(1)
	if n := p.Unsent(1); n != 0 {
		t.Errorf("%d bytes wait for a peer that is gone", n)
	}
}
