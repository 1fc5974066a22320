package node

import (
	"maps"
	"slices"

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

// maxStrangers is how many greetings of one node are kept that are for tenants which
// nobody here has heard of. Those for tenants that there are have no such bound: a
// node has one worker of each at a time.
const maxStrangers = 1024

// greetAgain takes the greetings that were kept, as far as they are for this node
// now.
func (p *peering) greetAgain() {
	p.mu.Lock()
	list := map[peer.Node][]string{}
	for from, of := range p.unknown {
		list[from] = slices.Collect(maps.Keys(of))
	}
	p.mu.Unlock()
	for from, names := range list {
		for _, name := range names {
			p.greetKept(from, name)
		}
	}
}

// greetKept takes the greeting that a node's worker of a tenant was kept with, if
// it is for this node now.
func (p *peering) greetKept(from peer.Node, name string) {
	t, err := p.n.tenant(name)
	if err != nil || p.n.barred(name) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.unknown[from][name]; ok && h.Created == t.epoch() {
		p.meetLocked(t.peers, from, &h)
	} else if ok && h.Created < t.epoch() {
		p.dropLocked(from, name)
	}
}

// keep keeps a greeting of a worker that is not to be known here, or not yet. Its
// node does not give it again. known says that there is the tenant, if not of that
// time.
func (p *peering) keep(from peer.Node, h *hello, known bool) {
	p.mu.Lock()
	of := p.unknown[from]
	last, again := of[h.Tenant]
	if again && last.Created > h.Created || !again && !known && len(of) >= maxStrangers || len(h.Tenant) >= 100 {
		p.mu.Unlock()
		return
	}
	if of == nil {
		of = map[string]hello{}
		p.unknown[from] = of
	}
	of[h.Tenant] = *h
	p.mu.Unlock()
	p.greetKept(from, h.Tenant) // greetAgain may have been between the look that the caller had and this
}

// dropLocked forgets a greeting that was kept. mu is held.
func (p *peering) dropLocked(from peer.Node, name string) {
	of := p.unknown[from]
	if delete(of, name); len(of) == 0 {
		delete(p.unknown, from)
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
	p.mu.Lock()
	if err == nil && t.epoch() == h.Created && !barred {
		defer p.mu.Unlock()
		p.meetLocked(t.peers, from, h)
		return
	}
	if !barred { // others need not know that nothing of the tenant is here
		p.foreign++
	}
	p.mu.Unlock()
	if old := err == nil && h.Created < t.epoch(); !old {
		p.keep(from, h, err == nil)
	}
}

// meetLocked takes a greeting of a worker of the tenant k. mu is held.
func (p *peering) meetLocked(k *tenantPeers, from peer.Node, h *hello) {
	if last, ok := p.unknown[from][h.Tenant]; ok && last.Created <= h.Created {
		p.dropLocked(from, h.Tenant)
	}
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
		delete(k.coming, from)
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
	if p.unknown[from][h.Tenant].Worker == h.Worker {
		p.dropLocked(from, h.Tenant)
	}
	for _, k := range p.tenants {
		if at, ok := k.far[h.Worker]; ok && at == from {
			k.downLocked(h.Worker)
		}
	}
	p.mu.Unlock()
	p.announce(from) // as before, where the node stays
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
