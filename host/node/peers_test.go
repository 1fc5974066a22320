package node

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// FuzzNodeMessage gives a node any bytes as a message of another. Nothing of it
// reaches the worker unless it comes from where the sender is.
func FuzzNodeMessage(f *testing.F) {
	for _, m := range []nodeMessage{
		{Hello: &hello{Tenant: "local", Worker: 5}}, {Gone: &hello{Tenant: "local", Worker: 7}}, {Piece: &piece{From: 7, To: 1, Data: []byte("x")}},
		{Piece: &piece{From: 8, To: 1, More: true, Data: []byte("x")}}, {Fetch: &fetchObject{ID: 1, To: 9}},
		{Scale: &scaleState{Epoch: 1, Groups: []groupBody{{Max: 1}}}}, {Load: &loadReport{Jobs: 1}}, {Credit: &credit{From: 7, To: 1, May: 1 << 40}},
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

// TestOtherTenantsPeers: what a worker of one tenant sends to another's worker is
// dropped and counted, whatever it is, and its objects cannot be fetched; a worker
// of a tenant that is not known yet is, once that is.
func TestOtherTenantsPeers(t *testing.T) {
	n := &Node{cfg: Config{Tenant: "local"}, tenants: map[string]*tenant{}, records: map[string]control.Tenant{"a": {}, "b": {}}}
	n.peers = newPeering(n)
	p := n.peers
	defer p.close()
	p.stop() // nothing is begun
	far := peer.Node{Name: "far", Incarnation: 1}
	p.up[far] = true
	parts := map[string]*tenantPeers{}
	for i, name := range []string{"a", "b"} {
		x, err := n.tenant(name)
		if err != nil {
			t.Fatal(err)
		}
		parts[name] = x.peers
		p.mu.Lock()
		x.peers.ownLocked(&workerProcess{}, uint64(i+1))
		p.mu.Unlock()
		p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: name, Worker: uint64(i + 11)}})
	}
	a, b := parts["a"], parts["b"]
	if a.far[11] != far || b.far[12] != far || len(a.far) != 1 || len(b.far) != 1 {
		t.Fatalf("a knows %v, b knows %v", a.far, b.far)
	}
	before := len(a.events)
	// From b's worker on the other node to a's here.
	p.handleMessage(far, &nodeMessage{Piece: &piece{From: 12, To: 1, Data: []byte("x")}})
	p.handleMessage(far, &nodeMessage{Sever: &severing{From: 12, To: 1}})
	if len(a.events) != before || p.foreign != 2 {
		t.Errorf("a's worker is told %v, %d messages are counted", a.events[before:], p.foreign)
	}
	p.mu.Lock()
	if p.fetchedByLocked(1, 12, far) != nil || p.fetchedByLocked(1, 11, far) == nil || p.foreign != 3 {
		t.Errorf("b's worker may fetch objects of a's, or a's may not; %d are counted", p.foreign)
	}
	p.mu.Unlock()
	p.handleMessage(far, &nodeMessage{Piece: &piece{From: 11, To: 1, Data: []byte("x")}})
	if len(a.events) != before+1 {
		t.Error("a's own worker is not heard")
	}
	// Nor does this node's worker of one name the other's.
	if _, _, err := a.nodeOf(a.own, 12); err == nil {
		t.Error("a's worker may send to b's")
	}
	p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: "c", Worker: 13}})
	if p.foreign != 4 || p.tenants["c"] != nil {
		t.Errorf("a tenant that is not there is taken note of; %d are counted", p.foreign)
	}
	n.setRecords(map[string]control.Tenant{"a": {}, "b": {}, "c": {}})
	if c := p.tenants["c"]; c == nil || c.far[13] != far {
		t.Errorf("once it is there it is %+v", c)
	}
}
