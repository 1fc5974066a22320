package rpc

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// gate bounds connections of which nobody knows whose they are: all, and those
// of one address, so that nobody keeps others out by opening many. Where there
// are too many the oldest makes room, once it had its time; else the new one is
// refused.
type gate struct {
	most, each int
	grace      time.Duration // that each has at least

	mu    sync.Mutex
	held  []*visitor     // guarded by mu; oldest first
	count map[string]int // guarded by mu; by address
}

// visitor is a connection at a gate.
type visitor struct {
	conn  net.Conn
	from  string
	since time.Time
}

func newGate(most, each int, grace time.Duration) *gate {
	return &gate{most: most, each: each, grace: grace, count: map[string]int{}}
}

// enter lets c in until leave is called, which may be more than once; c may be
// closed meanwhile to make room. False: there is none, and c was closed.
func (g *gate) enter(c net.Conn) (leave func(), ok bool) {
	v := &visitor{c, source(c), time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	var oldest *visitor
	switch {
	case g.count[v.from] >= g.each:
		oldest = g.held[slices.IndexFunc(g.held, func(h *visitor) bool { return h.from == v.from })]
	case len(g.held) >= g.most:
		oldest = g.held[0]
	}
	if oldest != nil {
		if v.since.Sub(oldest.since) < g.grace {
			c.Close()
			return nil, false
		}
		oldest.conn.Close()
		g.leaveLocked(oldest)
	}
	g.held = append(g.held, v)
	g.count[v.from]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.leaveLocked(v)
	}, true
}

func (g *gate) leaveLocked(v *visitor) {
	i := slices.Index(g.held, v)
	if i < 0 {
		return
	}
	g.held = slices.Delete(g.held, i, i+1)
	if g.count[v.from]--; g.count[v.from] == 0 {
		delete(g.count, v.from)
	}
}

// source is who is taken for one: an address, of IPv6 the network of 64 bits that
// one host may have all of.
func source(c net.Conn) string {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	a := ap.Addr().Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr().String()
		}
	}
	return a.String()
}

// guest is a connection that leaves a gate when it is closed.
type guest struct {
	net.Conn
	leave func()
}

func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}
