// Package peertest has a network in memory for sessions, which loses, delays,
// doubles and cuts, and the suite that holds every carrier to what package peer
// promises.
package peertest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wray-project/wray/host/peer"
)

// Faults are what happens to each frame at random, as chances from 0 to 1.
type Faults struct {
	Drop, Double, Cut float64
	MaxDelay          time.Duration
}

// Network is nodes in one process. An address is a name.
type Network struct {
	mu     sync.Mutex
	rnd    *rand.Rand
	faults Faults
	nodes  map[string]func(from string, c peer.Conn)
	apart  map[[2]string]bool
	conns  map[*end]bool
}

// NewNetwork returns a network without nodes and faults.
func NewNetwork(rnd *rand.Rand) *Network {
	return &Network{rnd: rnd, nodes: map[string]func(string, peer.Conn){}, apart: map[[2]string]bool{}, conns: map[*end]bool{}}
}

// SetFaults has faults happen from now on.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Listen has connections to an address accepted, in a goroutine of their own;
// nil ends that.
func (n *Network) Listen(addr string, accept func(from string, c peer.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr] = accept
}

// Part cuts two nodes off from each other, or joins them again. What is under
// way between them is lost without either being told.
func (n *Network) Part(a, b string, apart bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart[[2]string{a, b}], n.apart[[2]string{b, a}] = apart, apart
}

// Cut ends all connections.
func (n *Network) Cut() {
	n.mu.Lock()
	var all []*end
	for c := range n.conns {
		all = append(all, c)
	}
	n.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// Carrier is the network as the node of a name sees it.
func (n *Network) Carrier(name string) peer.Carrier { return carrier{n, name} }

type carrier struct {
	n    *Network
	name string
}

var errRefused = errors.New("nobody answers")

func (c carrier) Dial(ctx context.Context, name, addr string) (peer.Conn, error) {
	n := c.n
	n.mu.Lock()
	accept := n.nodes[addr]
	apart := n.apart[[2]string{c.name, addr}]
	delay := n.delayLocked()
	n.mu.Unlock()
	if apart {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(delay)
	if accept == nil {
		return nil, errRefused
	}
	there, back := newPipe(), newPipe()
	a := &end{n: n, from: c.name, to: addr, out: there, in: back}
	b := &end{n: n, from: addr, to: c.name, out: back, in: there}
	n.mu.Lock()
	n.conns[a], n.conns[b] = true, true
	n.mu.Unlock()
	go accept(c.name, b)
	return a, nil
}

func (n *Network) delayLocked() time.Duration {
	if n.faults.MaxDelay <= 0 {
		return 0
	}
	return time.Duration(n.rnd.Int64N(int64(n.faults.MaxDelay)))
}

// end is one end of a connection.
type end struct {
	n        *Network
	from, to string
	out, in  *pipe
}

func (e *end) Send(frame []byte) error {
	n := e.n
	n.mu.Lock()
	f := n.faults
	drop := n.apart[[2]string{e.from, e.to}] || n.rnd.Float64() < f.Drop
	double, cut, delay := n.rnd.Float64() < f.Double, n.rnd.Float64() < f.Cut, n.delayLocked()
	n.mu.Unlock()
	if cut {
		e.Close()
		return io.ErrClosedPipe
	}
	if drop {
		return e.out.err()
	}
	times := 1
	if double {
		times = 2
	}
	for range times {
		if err := e.out.put(append([]byte(nil), frame...), time.Now().Add(delay)); err != nil {
			return err
		}
	}
	return nil
}

func (e *end) Recv() ([]byte, error) { return e.in.get() }

func (e *end) Close() error {
	e.in.close()
	e.out.close()
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	delete(e.n.conns, e)
	return nil
}

// pipe is one direction, in order, of few frames.
type pipe struct {
	frames chan timed
	done   chan struct{}
	once   sync.Once
}

type timed struct {
	frame []byte
	at    time.Time
}

func newPipe() *pipe { return &pipe{frames: make(chan timed, 16), done: make(chan struct{})} }

func (p *pipe) close() { p.once.Do(func() { close(p.done) }) }

func (p *pipe) err() error {
	select {
	case <-p.done:
		return io.ErrClosedPipe
	default:
		return nil
	}
}

func (p *pipe) put(frame []byte, at time.Time) error {
	if err := p.err(); err != nil {
		return err
	}
	select {
	case p.frames <- timed{frame, at}:
		return nil
	case <-p.done:
		return io.ErrClosedPipe
	}
}

func (p *pipe) get() ([]byte, error) {
	var t timed
	select {
	case t = <-p.frames:
	case <-p.done:
		return nil, io.EOF
	}
	if d := time.Until(t.at); d > 0 {
		select {
		case <-time.After(d):
		case <-p.done:
			return nil, io.EOF
		}
	}
	return t.frame, nil
}
