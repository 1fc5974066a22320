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
// are too many one makes room, once it had its time; else the new one is refused.
//
// Which one: the oldest of those that have said nothing for a while, else of all. Where
// the gate is fair, and there are too many in all, it is one of the network that
// has most of them: who opens many closes his own.
type gate struct {
	most, each int
	grace      time.Duration // that each has at least; 0: nobody is refused
	fair       bool
	patience   time.Duration // for who has said nothing yet

	mu    sync.Mutex
	held  []*visitor     // guarded by mu; oldest first
	count map[string]int // guarded by mu; by address
}

// visitor is a connection at a gate.
type visitor struct {
	g     *gate
	conn  net.Conn
	from  string
	net   string
	since time.Time
	spoke bool // guarded by g.mu; it has sent something
}

func newGate(most, each int, grace time.Duration) *gate {
	return &gate{most: most, each: each, grace: grace, count: map[string]int{}}
}

// newFairGate returns a gate that is fair, and refuses nobody.
func newFairGate(most, each int) *gate {
	g := newGate(most, each, 0)
	g.fair, g.patience = true, patience
	return g
}

// enter lets c in until leave is called, which may be more than once; c may be
// closed meanwhile to make room. False: there is none, and c was closed.
func (g *gate) enter(c net.Conn) (leave func(), ok bool) {
	v, ok := g.visit(c)
	return v.leave, ok
}

// visit is enter of a connection that may say nothing.
func (g *gate) visit(c net.Conn) (v *visitor, ok bool) {
	v = &visitor{g: g, conn: c, from: source(c), net: network(c), since: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	var out *visitor
	switch {
	case g.count[v.from] >= g.each:
		out = g.oldestLocked(v.since, func(h *visitor) bool { return h.from == v.from })
	case len(g.held) >= g.most:
		of := func(*visitor) bool { return true }
		if g.fair {
			of = g.mostLocked(v.since)
		}
		out = g.oldestLocked(v.since, of)
	}
	if out != nil {
		if g.grace > 0 && v.since.Sub(out.since) < g.grace {
			c.Close()
			return v, false
		}
		out.conn.Close()
		g.leaveLocked(out)
	}
	g.held = append(g.held, v)
	g.count[v.from]++
	return v, true
}

// mostLocked picks those of the network that has most of those that are silent,
// else of all.
func (g *gate) mostLocked(now time.Time) func(*visitor) bool {
	most := ""
	for _, silent := range []bool{true, false} {
		count := map[string]int{"": 0}
		for _, h := range g.held {
			if silent && !h.silent(now) {
				continue
			}
			if count[h.net]++; count[h.net] > count[most] {
				most = h.net
			}
		}
		if most != "" {
			break
		}
	}
	return func(h *visitor) bool { return h.net == most }
}

// oldestLocked returns the oldest that is silent, else the oldest.
func (g *gate) oldestLocked(now time.Time, of func(*visitor) bool) *visitor {
	for _, silent := range []bool{true, false} {
		for _, h := range g.held {
			if of(h) && (!silent || h.silent(now)) {
				return h
			}
		}
	}
	return nil
}

// silent reports whether v could have said something, and has not. Its gate's mu
// is held.
func (v *visitor) silent(now time.Time) bool { return !v.spoke && now.Sub(v.since) >= v.g.patience }

// said takes note that the visitor has sent something.
func (v *visitor) said() {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.spoke = true
}

func (v *visitor) leave() {
	v.g.mu.Lock()
	defer v.g.mu.Unlock()
	v.g.leaveLocked(v)
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

// network is the network that an address is taken to be in: who has one address
// in it may have others.
func network(c net.Conn) string {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	a, bits := ap.Addr().Unmap(), 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return a.String()
	}
	return p.String()
}

// familiarTime is how long an address is familiar, and maxFamiliar how many are.
const (
	familiarTime = 24 * time.Hour
	maxFamiliar  = 4096
)

// lately are the addresses at which somebody has lately shown a certificate or a
// token: they have places of their own, which others elsewhere cannot take.
type lately struct {
	mu sync.Mutex
	at map[string]time.Time // guarded by mu
}

// note takes note of who is at the other end of c.
func (k *lately) note(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := source(c)
	if _, ok := k.at[from]; !ok && len(k.at) >= maxFamiliar {
		oldest := ""
		for a, t := range k.at {
			if oldest == "" || t.Before(k.at[oldest]) {
				oldest = a
			}
		}
		delete(k.at, oldest)
	}
	if k.at == nil {
		k.at = map[string]time.Time{}
	}
	k.at[from] = time.Now()
}

func (k *lately) has(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, ok := k.at[source(c)]
	return ok && time.Since(t) < familiarTime
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
