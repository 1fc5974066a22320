package node

import (
	"fmt"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
)

// TestKeptGreetings: no greeting of a tenant that there is goes lost while the node
// is not for it: not the last of many, nor what changed of one, nor one that comes
// just when the node is for it again. Of tenants that nobody has heard of each node
// has so many kept.
func TestKeptGreetings(t *testing.T) {
	off, on := map[string]control.Tenant{}, map[string]control.Tenant{}
	const tenants = maxStrangers + 10
	for i := range tenants {
		off[fmt.Sprint("t", i)], on[fmt.Sprint("t", i)] = control.Tenant{Nodes: []string{"pool=y"}}, control.Tenant{}
	}
	n := bareNode(t, off)
	p := n.peers
	defer p.close()
	p.stop() // nothing is begun
	far, other := peer.Node{Name: "far", Incarnation: 1}, peer.Node{Name: "other", Incarnation: 1}
	for i := range 2 * maxStrangers {
		p.handleMessage(other, &nodeMessage{Hello: &hello{Tenant: fmt.Sprint("nobody", i), Worker: 1}})
	}
	if got := len(p.unknown[other]); got != maxStrangers {
		t.Errorf("%d greetings for tenants that there are not are kept", got)
	}
	for i := range tenants {
		p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: fmt.Sprint("t", i), Worker: uint64(10 + i)}})
	}
	p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: "t0", Worker: 10, Awake: true}})
	p.handleMessage(far, &nodeMessage{Gone: &hello{Tenant: "t1", Worker: 11}})
	n.setRecords(on)
	for i := range tenants {
		x, err := n.tenant(fmt.Sprint("t", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := x.peers.far[uint64(10+i)]; ok == (i == 1) || x.peers.awakeFar[uint64(10+i)] != (i == 0) {
			t.Fatalf("tenant %s has %v on other nodes, awake %v", x.name, x.peers.far, x.peers.awakeFar)
		}
	}
	if len(p.unknown[far]) != 0 {
		t.Errorf("kept are yet %v", p.unknown[far])
	}
	// The node was found not to be for it, and is before the greeting is kept.
	p.keep(far, &hello{Tenant: "t1", Worker: 12345}, true)
	if x, _ := n.tenant("t1"); x.peers.far[12345] != far {
		t.Error("a greeting is lost that came as the records changed")
	}
	p.change(other, peer.Down)
	if len(p.unknown) != 0 {
		t.Errorf("of a node that is gone %d greetings are kept", len(p.unknown[other]))
	}
}

// TestNodesThatComeNot: a worker is told of nodes that may have a worker of its
// tenant, and when that changes: one is drained, or the tenant is kept off it.
func TestNodesThatComeNot(t *testing.T) {
	n := bareNode(t, map[string]control.Tenant{"a": {}, "b": {Nodes: []string{"pool=b"}, Exclusive: true}})
	p := n.peers
	defer p.close()
	p.stop() // nothing is begun
	nodes := map[string]directory.Entry{
		"x": {Name: "x", Node: directory.Node{Incarnation: 1, Labels: map[string]string{"pool": "b"}}},
		"y": {Name: "y", Node: directory.Node{Incarnation: 1}},
	}
	p.entry = func(name string) (directory.Entry, bool) { e, ok := nodes[name]; return e, ok }
	a, err := n.tenant("a")
	if err != nil {
		t.Fatal(err)
	}
	k := a.peers
	k.ownLocked(&workerProcess{}, 1)
	told := func(why string, want ...worker.PeerEvent) {
		t.Helper()
		got := fmt.Sprint(k.events)
		if k.events = nil; got != fmt.Sprint(want) && len(want)+len(got) > len("[]") {
			t.Errorf("%s: it is told %s, want %v", why, got, want)
		}
	}
	x, y := peer.Node{Name: "x", Incarnation: 1}, peer.Node{Name: "y", Incarnation: 1}
	for _, node := range []peer.Node{x, y} {
		p.change(node, peer.Up)
		p.announce(node)
	}
	comes, not := func(name string) worker.PeerEvent { return worker.PeerEvent{What: worker.PeerComes, Node: name} }, func(name string) worker.PeerEvent {
		return worker.PeerEvent{What: worker.PeerComesNot, Node: name}
	}
	told("x is another tenant's", comes("y"))
	n.setRecords(map[string]control.Tenant{"a": {}, "b": {Nodes: []string{"pool=b"}}})
	told("x is everybody's", comes("x"))
	n.setRecords(map[string]control.Tenant{"a": {Quota: wray.Quota{Tasks: 9}}, "b": {}})
	told("nothing has changed of that")
	e := nodes["y"]
	e.Node.Draining = true
	nodes["y"] = e
	p.announce(y)
	told("y is drained", not("y"))
	n.setRecords(map[string]control.Tenant{"a": {Nodes: []string{"pool=c"}}, "b": {}})
	told("a is kept off x", not("x"))
}
