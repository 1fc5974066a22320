package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Network is a network of this process, whose links can be cut. Its members
// come to know what is connected to them after a while, as those who gossip do.
// In a bubble of testing/synctest that while passes at once.
type Network struct {
	detect time.Duration

	mu    sync.Mutex
	nodes map[string]*netNode // guarded by mu; by address
	cuts  map[[2]string]bool  // guarded by mu; addresses, in order
}

// NewNetwork returns a network without members. Those who are out of reach, or
// back, are noticed after detect.
func NewNetwork(detect time.Duration) *Network {
	return &Network{detect: detect, nodes: map[string]*netNode{}, cuts: map[[2]string]bool{}}
}

// netNode is a [Membership] on a Network.
type netNode struct {
	Roster
	net  *Network
	self Member // guarded by net.mu, as is all that follows
	// known are the members that this one has heard of, by address: those it may
	// hear of, when there is a way to them.
	known map[string]Member
	left  bool
	gone  bool
}

// New returns the membership of a node that knows of itself alone.
func (n *Network) New(self Member) (Membership, error) {
	if err := self.Check(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.nodes[self.Addr]; old != nil && !old.gone {
		return nil, fmt.Errorf("cluster: the address %s is in use", self.Addr)
	}
	m := &netNode{net: n, self: self, known: map[string]Member{self.Addr: self}}
	n.nodes[self.Addr] = m
	m.Heard(Peer{self, Alive})
	return m, nil
}

// Cut breaks the link between two addresses, both ways. Others may still carry
// what is told.
func (n *Network) Cut(a, b string) { n.set(a, b, true) }

// Mend makes it whole again.
func (n *Network) Mend(a, b string) { n.set(a, b, false) }

func (n *Network) set(a, b string, cut bool) {
	n.mu.Lock()
	n.cuts[link(a, b)] = cut
	n.mu.Unlock()
	n.later()
}

func link(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

// later has everybody notice what changed.
func (n *Network) later() {
	time.AfterFunc(n.detect, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.spreadLocked()
	})
}

// spreadLocked gives everybody what gossip would.
func (n *Network) spreadLocked() {
	for _, m := range n.nodes {
		if m.gone {
			continue
		}
		reach := n.reachLocked(m)
		for addr := range reach {
			for a, k := range n.nodes[addr].known {
				if old, ok := m.known[a]; !ok || old.Incarnation < k.Incarnation {
					m.known[a] = k
				}
			}
		}
		for addr, k := range m.known {
			there := n.nodes[addr]
			switch {
			case there == nil || there.self.Incarnation != k.Incarnation || there.self.Name != k.Name:
				m.Heard(Peer{k, Failed})
			case reach[addr] && there.left:
				m.known[addr] = there.self
				m.Heard(Peer{there.self, Left})
			case reach[addr] && !there.gone:
				m.known[addr] = there.self
				m.Heard(Peer{there.self, Alive})
			default:
				m.Heard(Peer{k, Failed})
			}
		}
	}
}

// reachLocked returns the addresses that m reaches, through those it knows.
func (n *Network) reachLocked(m *netNode) map[string]bool {
	reach := map[string]bool{m.self.Addr: true}
	for todo := []*netNode{m}; len(todo) > 0; {
		from := todo[0]
		todo = todo[1:]
		for addr := range from.known {
			to := n.nodes[addr]
			if to == nil || to.gone && !to.left || reach[addr] || n.cuts[link(from.self.Addr, addr)] {
				continue
			}
			reach[addr] = true
			if !to.gone {
				todo = append(todo, to)
			}
		}
	}
	return reach
}

// Join implements [Membership].
func (m *netNode) Join(ctx context.Context, addrs ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := m.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.gone {
		return ErrClosed
	}
	var why []error
	for _, addr := range addrs {
		to := n.nodes[addr]
		if to == nil || to.gone || n.cuts[link(m.self.Addr, addr)] {
			why = append(why, fmt.Errorf("%s: out of reach", addr))
			continue
		}
		m.known[addr] = to.self
		to.known[m.self.Addr] = m.self
	}
	if len(why) == len(addrs) {
		return fmt.Errorf("%w: %w", ErrNobody, errors.Join(why...))
	}
	n.later()
	return nil
}

// Update implements [Membership].
func (m *netNode) Update(self Member) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	self.Name, self.Incarnation, self.Addr = m.self.Name, m.self.Incarnation, m.self.Addr
	if err := self.Check(); err != nil {
		return err
	}
	if m.gone {
		return ErrClosed
	}
	m.self, m.known[self.Addr] = self, self
	m.Heard(Peer{self, Alive})
	m.net.later()
	return nil
}

// Leave implements [Membership].
func (m *netNode) Leave(context.Context) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if m.gone {
		return ErrClosed
	}
	m.left = true
	m.net.later()
	return nil
}

// Close implements [Membership].
func (m *netNode) Close() error {
	m.net.mu.Lock()
	gone := m.gone
	m.gone = true
	m.net.mu.Unlock()
	if !gone {
		m.net.later()
	}
	m.Roster.Close()
	return nil
}

// Addrs returns the addresses of the members that are there, in order.
func (n *Network) Addrs() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for a, m := range n.nodes {
		if !m.gone {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return out
}
