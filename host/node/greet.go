package node

import (
	"maps"

	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
)

// hello is a worker of a tenant on the node that says so.
type hello struct {
	Tenant string `cbor:"1,keyasint"`
	Worker uint64 `cbor:"2,keyasint"`
	// Created tells the tenant from others that had its name: see tenant.epoch.
	Created int64 `cbor:"3,keyasint,omitempty"`
	// Awake: a job of the tenant's runs there, or did a moment ago, which workers on
	// other nodes may be of use to.
	Awake bool `cbor:"4,keyasint,omitempty"`
}

// stranger is a worker of a tenant that is not known here, or not yet.
type stranger struct {
	from   peer.Node
	worker uint64
}

const maxStrangers = 1024

// greetAgain takes the greetings for tenants that were not known.
func (p *peering) greetAgain() {
	p.mu.Lock()
	list := p.unknown
	p.unknown = map[stranger]hello{}
	there := maps.Clone(p.up)
	p.mu.Unlock()
	for s, h := range list {
		if _, ok := there[s.from]; ok {
			p.greeted(s.from, &h)
		}
	}
}

// forget drops a tenant that was removed, whose worker has ended.
func (p *peering) forget(k *tenantPeers) {
	p.bulk.forgetTenant(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tenants[k.t.name] == k {
		delete(p.tenants, k.t.name)
	}
}

// greeted takes note of a tenant's worker on another node. Where a job of the
// tenant's runs there, and the tenant has no worker here, one is started.
func (p *peering) greeted(from peer.Node, h *hello) {
	if h.Worker == 0 {
		return
	}
	t, err := p.n.tenant(h.Tenant)
	barred := p.n.barred(h.Tenant)
	if err != nil || t.epoch() != h.Created || barred {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !barred { // others need not know that nothing of the tenant is here
			p.foreign++
		}
		if old := err == nil && h.Created < t.epoch(); !old && len(p.unknown) < maxStrangers && len(h.Tenant) < 100 {
			p.unknown[stranger{from, h.Worker}] = *h
		}
		return
	}
	k := t.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	at, known := k.far[h.Worker]
	switch {
	case p.own[h.Worker] != nil, known && at != from:
		return // somebody gives another's number for his own
	case !known:
		for id, at := range k.far {
			if at == from {
				k.downLocked(id)
			}
		}
		k.far[h.Worker] = from
		k.eventLocked(worker.PeerEvent{Peer: h.Worker, What: worker.PeerIsUp, Node: from.Name})
	}
	if delete(k.awakeFar, h.Worker); h.Awake {
		k.awakeFar[h.Worker] = true
		k.startForOthersLocked()
	}
}

// gone takes note that a worker on another node is no more.
func (p *peering) gone(from peer.Node, h *hello) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unknown, stranger{from, h.Worker})
	for _, k := range p.tenants {
		if at, ok := k.far[h.Worker]; ok && at == from {
			k.downLocked(h.Worker)
			k.comesLocked(from) // as it did, where the node stays
		}
	}
}

func (k *tenantPeers) downLocked(id uint64) {
	k.forgetFarLocked(id)
	if _, over := k.severed[id]; over {
		delete(k.severed, id)
		return // the worker knows
	}
	k.eventLocked(worker.PeerEvent{Peer: id, What: worker.PeerIsDown})
}

// forgetFarLocked forgets a worker elsewhere. mu is held.
func (k *tenantPeers) forgetFarLocked(id uint64) {
	delete(k.far, id)
	delete(k.awakeFar, id)
	delete(k.flows, id)
}

// startForOthersLocked starts a worker where jobs on other nodes may use one and
// there is none. mu is held.
func (k *tenantPeers) startForOthersLocked() {
	if k.own == nil && len(k.awakeFar) > 0 && k.ctx.Err() == nil && !k.n.draining() {
		k.wg.Go(func() { _, _ = k.t.startWorker(k.ctx) }) // who needs it for a job is told why it does not start
	}
}

// startForOthers is startForOthersLocked after a worker was given up.
func (k *tenantPeers) startForOthers() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.startForOthersLocked()
}

// setAwake tells the other nodes that jobs of the tenant run here, if they do not
// know.
func (k *tenantPeers) setAwake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.awake {
		k.awake = true
		k.tellAllLocked()
	}
}

// needed reports whether a worker that is idle may be of use to jobs on other
// nodes. They are told that there are none here, where running says so.
func (k *tenantPeers) needed(running func() bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if running() { // who begins one says afterwards that it is awake
		return true
	}
	if k.awake {
		k.awake = false
		k.tellAllLocked()
	}
	return len(k.awakeFar) > 0
}

// tellAllLocked has all nodes told how things are here. mu is held.
func (k *tenantPeers) tellAllLocked() {
	if k.own == nil {
		return // they are told when there is one
	}
	for node := range k.up {
		k.tellLocked(node)
	}
}
