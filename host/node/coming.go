package node

import (
	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
)

// A worker is told of nodes that are there and may yet have a worker of its tenant:
// one starts as soon as such a node hears of this node's. What only those could hold
// waits for them, for a while. So it is told as well when one is not to be waited
// for any more: it leaves the cluster, or the tenant is kept off it.

// announce tells the workers here what has become of some nodes, of all that are
// there where none is named. It is called after whatever may change it, without
// locks: it looks at the records with n.mu held, and then has mu.
func (p *peering) announce(nodes ...peer.Node) {
	p.announcing.Lock() // so that who looks last has the last word
	defer p.announcing.Unlock()
	cordons := p.n.cordons()
	p.mu.Lock()
	defer p.mu.Unlock()
	if nodes == nil {
		for node := range p.up {
			nodes = append(nodes, node)
		}
	}
	for _, k := range p.tenants {
		if k.own == nil {
			continue // a new one is told how things are
		}
		met := map[peer.Node]bool{}
		for _, at := range k.far {
			met[at] = true
		}
		for _, node := range nodes {
			if _, there := p.up[node]; there && !met[node] {
				k.comesLocked(node, cordons)
			}
		}
	}
}

// comesLocked tells the worker of a node that is there, and of which it knows no
// worker, if it does not know. mu is held.
func (k *tenantPeers) comesLocked(node peer.Node, cordons map[string]control.Tenant) {
	comes := true
	if k.entry != nil {
		if e, ok := k.entry(node.Name); ok && e.Node.Incarnation == node.Incarnation {
			comes = !e.Node.Draining && barredBy(k.t.name, cordons, labelList(e.Node.Labels)) == ""
		}
	}
	switch {
	case comes == k.coming[node]:
	case comes:
		k.coming[node] = true
		k.eventLocked(worker.PeerEvent{What: worker.PeerComes, Node: node.Name})
	default:
		delete(k.coming, node)
		k.eventLocked(worker.PeerEvent{What: worker.PeerComesNot, Node: node.Name})
	}
}

// follow announces what the directory says of nodes, until the node closes.
func (p *peering) follow(d *directory.Directory) {
	w := d.Watch()
	defer w.Close()
	for {
		entries, err := w.Next(p.ctx)
		if err != nil {
			return // the node closes, or has left
		}
		nodes := make([]peer.Node, 0, len(entries))
		for _, e := range entries {
			nodes = append(nodes, peer.Node{Name: e.Name, Incarnation: e.Node.Incarnation})
		}
		p.announce(nodes...)
	}
}

// cordons are the records of tenants that are kept to nodes, or keep others off.
func (n *Node) cordons() map[string]control.Tenant {
	n.mu.Lock()
	all := n.records // it is not changed, but exchanged
	n.mu.Unlock()
	some := map[string]control.Tenant{}
	for name, r := range all {
		if len(r.Nodes) > 0 || r.Exclusive {
			some[name] = r
		}
	}
	return some
}

func labelList(labels map[string]string) []wray.Label {
	list := make([]wray.Label, 0, len(labels))
	for k, v := range labels {
		list = append(list, wray.Label{Key: k, Value: v})
	}
	return list
}
