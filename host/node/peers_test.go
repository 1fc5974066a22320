package node

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// FuzzNodeMessage gives a node any bytes as a message of another. Nothing of it
// reaches the worker unless it comes from where the sender is.
func FuzzNodeMessage(f *testing.F) {
	for _, m := range []nodeMessage{
		{Hello: &hello{"local", 5}}, {Gone: &hello{"local", 7}}, {Piece: &piece{From: 7, To: 1, Data: []byte("x")}},
		{Piece: &piece{From: 8, To: 1, More: true, Data: []byte("x")}}, {Fetch: &fetchObject{ID: 1, To: 9}},
		{Scale: &scaleState{Epoch: 1, Groups: []groupBody{{Max: 1}}}}, {Load: &loadReport{Jobs: 1}},
		{Fetched: &fetched{ID: 1, Data: []byte("x"), Err: &wray.Error{Code: wray.CodeObjectLost}}},
	} {
		b, err := link.Marshal(&m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, other := peer.Node{Name: "a", Incarnation: 1}, peer.Node{Name: "b", Incarnation: 1}
		p := newTestPeers()
		p.stop() // nothing is begun
		p.ownLocked(&workerProcess{}, 1)
		p.far[7], p.far[8] = a, other
		f := fetching{from: other, done: make(chan fetched, 1)}
		p.fetches[1] = f
		p.take(a, &piece{From: 8, To: 1, Data: []byte("forged")})
		if len(p.events) != 0 {
			t.Fatal("a node spoke for another's worker")
		}
		p.m = nil
		var m nodeMessage
		if err := link.Unmarshal(b, &m); err != nil {
			if !errors.Is(err, link.ErrProtocol) {
				t.Errorf("an untyped error: %v", err)
			}
			return
		}
		p.handleMessage(a, &m)
		if _, known := p.scale.known(); known {
			t.Errorf("node a, which is no head, says that it leads: %+v", m)
		}
		if p.far[8] != other {
			t.Errorf("%+v of node a took the worker of node b", m)
		}
		for _, e := range p.events {
			if e.Peer == 8 || e.What == worker.PeerSent && (e.Peer != 7 || !bytes.Equal(e.Data, m.Piece.Data)) {
				t.Errorf("%+v of node a gave the worker %+v", m, e)
			}
		}
		select {
		case r := <-f.done:
			t.Errorf("node a answered what node b was asked: %+v", r)
		default:
		}
	})
}

// newTestPeers is the peers of a tenant of a node in no cluster.
func newTestPeers() *tenantPeers {
	n := &Node{cfg: Config{Tenant: "local"}, tenants: map[string]*tenant{}}
	n.peers = newPeering(n)
	t, err := n.tenant("")
	if err != nil {
		panic(err)
	}
	return t.peers
}
