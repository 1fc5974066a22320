// Package liveness decides which nodes of a cluster are alive, unreachable or
// dead, from what one node sees: replies, connections that close, and the
// records of the control state. It is a state machine: time and events come as
// calls, what is to be done comes back, and it keeps no clock and does no I/O.
// Gossip is no event of it: it says whom to talk to, and not who lives.
//
// Unreachable is one node's opinion, quickly formed and quickly given up: it
// sends no new work there. Dead is the cluster's decision, for ever, and the
// same for all: a node's lease lapsed, somebody put that into the control state
// (see [Propose]), and everybody reads it there. From then on what the node did
// is done again elsewhere. An incarnation that is dead never comes back; the
// node does, with the next one.
//
// [Self] is the other side: what a node may still do that cannot renew its own
// lease. It stops before others may call it dead.
package liveness

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Defaults of [Config].
const (
	DefaultSilence = 2 * time.Second
	DefaultTTL     = 8 * time.Second
)

// Config says how long is long. The zero value has the defaults.
type Config struct {
	Silence time.Duration // without a reply, until a node is unreachable
	TTL     time.Duration // of a node's lease
}

func (c Config) withDefaults() Config {
	if c.Silence <= 0 {
		c.Silence = DefaultSilence
	}
	if c.TTL <= 0 {
		c.TTL = DefaultTTL
	}
	return c
}

// Status is what is thought of a node.
type Status uint8

// The statuses. Alive and Unreachable follow each other; Dead is the last.
const (
	Alive Status = iota + 1
	Unreachable
	Dead
)

// String returns the status in lower case.
func (s Status) String() string {
	switch s {
	case Alive:
		return "alive"
	case Unreachable:
		return "unreachable"
	case Dead:
		return "dead"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Decision is something to do, or to tell: a [Change] or a [Propose].
type Decision interface{ decision() }

// Change tells that a node's status is another now.
type Change struct {
	Node        string
	Incarnation uint64
	To          Status
	Why         string
}

// Propose asks for a commit to the control state: that the node is dead, on the
// condition that its record is still absent and it was not called dead before.
// When it is done it comes back as the event Condemned, to all nodes; when it is
// refused, or its end is unknown, it is proposed again with a later Tick.
type Propose struct {
	Node        string
	Incarnation uint64
	// Lapsed is the revision at which the lease went.
	Lapsed int64
}

func (Change) decision()  {}
func (Propose) decision() {}

// View is what one node thinks of the others. The zero time of its calls may be
// any, as long as it never goes back. It is not safe for concurrent use. What a
// call costs does not grow with the number of nodes, but with that of those
// about whom something is decided, or whose lease has lapsed.
type View struct {
	cfg   Config
	nodes map[string]*peer
	// heard has those that are alive, who was heard first in front: the ends of a
	// ring, as in package container/list.
	heard peer
	// lapsed has those whose lease has lapsed and who are not dead, by name.
	lapsed map[string]*peer
	// up says that the control state answers, and since when.
	up      bool
	upSince time.Duration
	now     time.Duration
}

// peer is one incarnation of a node.
type peer struct {
	name        string
	next, prev  *peer // in View.heard; nil where it is not alive
	incarnation uint64
	status      Status
	heard       time.Duration // the last reply
	leased      bool
	lapsed      int64         // the revision at which the lease went, while it is not leased
	proposed    time.Duration // the last time, or negative
}

// NewView returns a view of nobody, from a node whose control state is not yet
// up.
func NewView(c Config, now time.Duration) *View {
	v := &View{cfg: c.withDefaults(), nodes: map[string]*peer{}, lapsed: map[string]*peer{}, now: now}
	v.heard.next, v.heard.prev = &v.heard, &v.heard
	return v
}

// set gives p a status.
func (v *View) set(p *peer, to Status) {
	p.status = to
	if p.next != nil {
		p.prev.next, p.next.prev = p.next, p.prev
		p.next, p.prev = nil, nil
	}
	switch to {
	case Alive:
		p.heard = v.now
		p.prev, p.next = v.heard.prev, &v.heard
		p.prev.next, p.next.prev = p, p
	case Dead:
		v.lease(p, 0)
		p.leased = false
	}
}

// lease takes note that p's record is there, or of the revision at which it
// went.
func (v *View) lease(p *peer, lapsed int64) {
	p.leased, p.lapsed = lapsed == 0, lapsed
	if p.leased {
		delete(v.lapsed, p.name)
	} else {
		v.lapsed[p.name] = p
	}
}

// Status returns what is thought of a node, and its incarnation; zero of one
// that is not known.
func (v *View) Status(node string) (Status, uint64) {
	p := v.nodes[node]
	if p == nil {
		return 0, 0
	}
	return p.status, p.incarnation
}

// Registered says that a node's record is in the control state, bound to a
// lease: a new node, a new incarnation, or one whose lease had lapsed and who
// was not called dead for it.
func (v *View) Registered(now time.Duration, node string, incarnation uint64) []Decision {
	v.advance(now)
	p := v.nodes[node]
	switch {
	case p == nil || incarnation > p.incarnation:
		var out []Decision
		if p != nil && p.status != Dead {
			out = append(out, Change{node, p.incarnation, Dead, fmt.Sprintf("it is back as incarnation %d", incarnation)})
		}
		if p != nil {
			v.set(p, Dead)
		}
		p = &peer{name: node, incarnation: incarnation, leased: true, proposed: -1}
		v.nodes[node] = p
		v.set(p, Alive)
		return append(out, Change{node, incarnation, Alive, "it registered"})
	case incarnation < p.incarnation || p.status == Dead:
		return nil // late
	}
	v.lease(p, 0)
	p.proposed = -1
	return nil
}

// Lapsed says that a node's record went, at a revision of the control state.
func (v *View) Lapsed(now time.Duration, node string, incarnation uint64, revision int64) []Decision {
	v.advance(now)
	p := v.nodes[node]
	if p == nil || p.incarnation != incarnation || p.status == Dead {
		return nil
	}
	v.lease(p, revision)
	return v.due(nil, node, p)
}

// Condemned says that a node was called dead in the control state.
func (v *View) Condemned(now time.Duration, node string, incarnation uint64) []Decision {
	v.advance(now)
	p := v.nodes[node]
	switch {
	case p != nil && (p.incarnation > incarnation || p.incarnation == incarnation && p.status == Dead):
		return nil
	case p == nil || p.incarnation < incarnation:
		// Not seen alive: it must not be from now on.
		if p != nil {
			v.set(p, Dead)
		}
		p = &peer{name: node, incarnation: incarnation, proposed: -1}
		v.nodes[node] = p
	}
	v.set(p, Dead)
	return []Decision{Change{node, incarnation, Dead, "its lease lapsed"}}
}

// Reply says that a node answered, or sent something of its own.
func (v *View) Reply(now time.Duration, node string, incarnation uint64) []Decision {
	v.advance(now)
	p := v.nodes[node]
	if p == nil || p.incarnation != incarnation || p.status == Dead {
		return nil // who is dead may still talk: nobody listens
	}
	was := p.status
	v.set(p, Alive)
	if was == Unreachable {
		return []Decision{Change{node, incarnation, Alive, "it answers again"}}
	}
	return nil
}

// Closed says that the connection to a node closed: its process is gone, or
// somebody in between is.
func (v *View) Closed(now time.Duration, node string, incarnation uint64) []Decision {
	v.advance(now)
	p := v.nodes[node]
	if p == nil || p.incarnation != incarnation || p.status != Alive {
		return nil
	}
	v.set(p, Unreachable)
	return []Decision{Change{node, incarnation, Unreachable, "its connection closed"}}
}

// ControlDown says that the control state does not answer. Until ControlUp, and
// for one lease after, nobody is proposed to be dead: who could not renew in the
// meantime has that long to do it.
func (v *View) ControlDown(now time.Duration) {
	v.advance(now)
	v.up = false
}

// ControlUp says that the control state answers.
func (v *View) ControlUp(now time.Duration) {
	v.advance(now)
	if !v.up {
		v.up, v.upSince = true, now
	}
}

// Tick says that time has passed. It is to be called several times per Silence,
// or at Next.
func (v *View) Tick(now time.Duration) []Decision {
	v.advance(now)
	var late []*peer
	for p := v.heard.next; p != &v.heard && now-p.heard >= v.cfg.Silence; p = p.next {
		late = append(late, p)
	}
	for _, p := range v.lapsed {
		if p.status != Alive || now-p.heard < v.cfg.Silence {
			late = append(late, p)
		}
	}
	slices.SortFunc(late, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	var out []Decision
	for _, p := range late {
		if p.status == Alive && now-p.heard >= v.cfg.Silence {
			v.set(p, Unreachable)
			out = append(out, Change{p.name, p.incarnation, Unreachable, fmt.Sprintf("no reply for %v", now-p.heard)})
		}
		out = v.due(out, p.name, p)
	}
	return out
}

// Next returns when Tick has something to do, if nothing happens before.
func (v *View) Next() (at time.Duration, ok bool) {
	consider := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if p := v.heard.next; p != &v.heard {
		consider(p.heard + v.cfg.Silence)
	}
	for _, p := range v.lapsed {
		if t, wants := v.dueAt(p); wants {
			consider(t)
		}
	}
	return max(at, v.now), ok
}

// Forget drops a node that is dead and will be asked for no more.
func (v *View) Forget(node string) {
	if p := v.nodes[node]; p != nil && p.status == Dead {
		delete(v.nodes, node)
	}
}

// dueAt is when p is to be proposed.
func (v *View) dueAt(p *peer) (time.Duration, bool) {
	if !v.up || p.status == Dead || p.leased || p.lapsed == 0 {
		return 0, false
	}
	at := v.upSince + v.cfg.TTL
	if p.proposed >= 0 {
		at = max(at, p.proposed+v.cfg.Silence)
	}
	return at, true
}

// due proposes p if that is to be done now.
func (v *View) due(out []Decision, node string, p *peer) []Decision {
	if at, ok := v.dueAt(p); !ok || v.now < at {
		return out
	}
	p.proposed = v.now
	return append(out, Propose{node, p.incarnation, p.lapsed})
}

func (v *View) advance(now time.Duration) {
	if now < v.now {
		panic(fmt.Sprintf("BUG: time went back from %v to %v", v.now, now))
	}
	v.now = now
}

func (v *View) names() []string {
	names := make([]string, 0, len(v.nodes))
	for n := range v.nodes {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// String lists the nodes and what is thought of them, for people.
func (v *View) String() string {
	var b strings.Builder
	for _, n := range v.names() {
		p := v.nodes[n]
		fmt.Fprintf(&b, "%s#%d %v", n, p.incarnation, p.status)
		if p.status != Dead && !p.leased {
			fmt.Fprintf(&b, ", lease lapsed at %d", p.lapsed)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
