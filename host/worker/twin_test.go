package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// twin is a network in memory: it carries the messages of workers, each pair's
// in order and once, later than they were sent, and cuts and kills.
type twin struct {
	t      testing.TB
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	module ModuleSpec
	delay  func() time.Duration // of a message, and of all behind it; nil: none
	late   time.Duration        // that each message takes, however many are under way

	filled atomic.Int64 // payloads that went into memory of the other's

	mu      sync.Mutex
	freed   *sync.Cond
	ends    map[scheduler.PeerID]*twinEnd
	wires   map[[2]scheduler.PeerID]*twinWire
	sent    int // messages so far
	severed []string
	when    func(n int) // told the number of each message, under mu; may be nil
}

// twinEnd is a worker on its node.
type twinEnd struct {
	net  *twin
	node string
	w    *Worker
	load func(context.Context) (ModuleSpec, error) // in place of Module; may be nil
	dead bool                                      // guarded by twin.mu
	// full says that much waits for these, so often; guarded by twin.mu.
	full map[scheduler.PeerID]int
}

// twinWire carries messages one way.
type twinWire struct {
	queue []twinMessage // guarded by twin.mu, as is all
	cut   bool
	over  bool
}

// twinMessage is a message under way, which arrives at due, if not later.
type twinMessage struct {
	p   []byte
	due time.Time // zero: at once
}

func newTwin(t testing.TB, module ModuleSpec) *twin {
	ctx, cancel := context.WithCancel(context.Background())
	n := &twin{t: t, ctx: ctx, cancel: cancel, module: module, ends: map[scheduler.PeerID]*twinEnd{}, wires: map[[2]scheduler.PeerID]*twinWire{}}
	n.freed = sync.NewCond(&n.mu)
	return n
}

// join starts a worker on a node and connects it with all others.
func (n *twin) join(node string, cfg Config) *twinEnd {
	n.t.Helper()
	e := &twinEnd{net: n, node: node}
	cfg.Node, cfg.Peering = node, e
	w, err := New(n.ctx, cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	e.w = w
	n.mu.Lock()
	var others []*twinEnd
	for _, o := range n.ends {
		if !o.dead {
			others = append(others, o)
			n.wire(e, o)
			n.wire(o, e)
		}
	}
	n.ends[w.PeerID()] = e
	n.mu.Unlock()
	for _, o := range others {
		w.PeerUp(o.w.PeerID(), o.node)
		o.w.PeerUp(w.PeerID(), node)
		n.mu.Lock()
		for _, pair := range [][2]scheduler.PeerID{{w.PeerID(), o.w.PeerID()}, {o.w.PeerID(), w.PeerID()}} {
			n.wires[pair].cut = false
		}
		n.freed.Broadcast()
		n.mu.Unlock()
	}
	return e
}

// wire starts what carries messages from one to another. mu is held.
func (n *twin) wire(from, to *twinEnd) {
	id := from.w.PeerID()
	wire := &twinWire{cut: true} // until both know of each other
	n.wires[[2]scheduler.PeerID{id, to.w.PeerID()}] = wire
	n.wg.Go(func() {
		for {
			n.mu.Lock()
			for !wire.over && n.ctx.Err() == nil && (len(wire.queue) == 0 || wire.cut) {
				n.freed.Wait()
			}
			if wire.over || n.ctx.Err() != nil {
				n.mu.Unlock()
				return
			}
			m := wire.queue[0]
			wire.queue = wire.queue[1:]
			n.mu.Unlock()
			if n.delay != nil {
				time.Sleep(n.delay())
			}
			if !m.due.IsZero() {
				time.Sleep(time.Until(m.due))
			}
			n.mu.Lock()
			over := wire.over
			n.mu.Unlock()
			if over {
				return
			}
			if err := to.w.PeerMessage(id, m.p); err != nil {
				n.t.Errorf("%s: %v", to.node, err)
			}
		}
	})
}

// Send implements Peering.
func (e *twinEnd) Send(to scheduler.PeerID, p []byte) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if wire := e.net.wires[[2]scheduler.PeerID{e.w.PeerID(), to}]; wire != nil && !wire.over {
		m := twinMessage{p: p}
		if e.net.late > 0 {
			m.due = time.Now().Add(e.net.late)
		}
		wire.queue = append(wire.queue, m)
		if e.net.sent++; e.net.when != nil {
			e.net.when(e.net.sent)
		}
		e.net.freed.Broadcast()
	}
}

// Fetch implements Peering.
func (e *twinEnd) Fetch(ctx context.Context, from scheduler.PeerID, object wray.ID, off int64, p []byte) error {
	n := e.net
	n.mu.Lock()
	o := n.ends[from]
	wire := n.wires[[2]scheduler.PeerID{from, e.w.PeerID()}]
	for wire != nil && wire.cut && !wire.over {
		n.freed.Wait()
	}
	gone := wire == nil || wire.over || o.dead
	n.mu.Unlock()
	if gone {
		return errors.New("no connection")
	}
	return o.w.ReadObject(ctx, object, off, p)
}

// Fill implements Peering.
func (e *twinEnd) Fill(from scheduler.PeerID, object wray.ID, f *os.File, size int64) error {
	n := e.net
	n.mu.Lock()
	o := n.ends[from]
	wire := n.wires[[2]scheduler.PeerID{from, e.w.PeerID()}]
	no := wire == nil || wire.over || wire.cut || o.dead
	n.mu.Unlock()
	if no {
		return errors.New("no connection")
	}
	lent, length, end, err := o.w.LendObject(n.ctx, object)
	if err != nil {
		return err
	}
	defer end()
	defer lent.Close()
	if length != size {
		return fmt.Errorf("a payload of %d bytes, where %d are wanted", length, size)
	}
	n.filled.Add(1)
	_, err = io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(lent, 0, size))
	return err
}

// Unsent implements Peering.
func (e *twinEnd) Unsent(to scheduler.PeerID) int64 {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if e.full[to] > 0 {
		e.full[to]--
		return maxUnsent + 1
	}
	n := int64(0)
	if wire := e.net.wires[[2]scheduler.PeerID{e.w.PeerID(), to}]; wire != nil {
		for _, m := range wire.queue {
			n += int64(len(m.p))
		}
	}
	return n
}

// Sever implements Peering.
func (e *twinEnd) Sever(peer scheduler.PeerID, why string) {
	n, self := e.net, e.w.PeerID()
	n.mu.Lock()
	o := n.ends[peer]
	for _, pair := range [][2]scheduler.PeerID{{self, peer}, {peer, self}} {
		if wire := n.wires[pair]; wire != nil {
			wire.over, wire.queue = true, nil
		}
	}
	n.severed = append(n.severed, fmt.Sprintf("%s from %s: %s", e.node, o.node, why))
	n.freed.Broadcast()
	n.mu.Unlock()
	n.wg.Go(func() { o.w.PeerDown(self) })
}

// Module implements Peering.
func (e *twinEnd) Module(ctx context.Context, from scheduler.PeerID, name, hash string) (ModuleSpec, error) {
	if e.load != nil {
		return e.load(ctx)
	}
	return e.net.module, nil
}

// cut has two nodes not reach each other, or again.
func (n *twin) cut(a, b *twinEnd, cut bool) {
	n.mu.Lock()
	for _, pair := range [][2]scheduler.PeerID{{a.w.PeerID(), b.w.PeerID()}, {b.w.PeerID(), a.w.PeerID()}} {
		if wire := n.wires[pair]; wire != nil {
			wire.cut = cut
		}
	}
	n.freed.Broadcast()
	n.mu.Unlock()
	if cut {
		a.w.PeerUnreachable(b.w.PeerID())
		b.w.PeerUnreachable(a.w.PeerID())
	} else {
		a.w.PeerUp(b.w.PeerID(), b.node)
		b.w.PeerUp(a.w.PeerID(), a.node)
	}
}

// kill has a node be dead to all others, and closes its worker.
func (n *twin) kill(e *twinEnd) {
	id := e.w.PeerID()
	n.mu.Lock()
	e.dead = true
	var others []*twinEnd
	for pair, wire := range n.wires {
		if pair[0] == id || pair[1] == id {
			wire.over = true
			wire.queue = nil
		}
	}
	for _, o := range n.ends {
		if o != e && !o.dead {
			others = append(others, o)
		}
	}
	n.freed.Broadcast()
	n.mu.Unlock()
	for _, o := range others {
		o.w.PeerDown(id)
	}
	if err := e.w.Close(context.Background()); err != nil {
		n.t.Errorf("close %s: %v", e.node, err)
	}
}

// close closes all workers and the network.
func (n *twin) close() {
	n.mu.Lock()
	var alive []*twinEnd
	for _, e := range n.ends {
		if !e.dead {
			alive = append(alive, e)
		}
	}
	n.mu.Unlock()
	for _, e := range alive {
		n.kill(e)
	}
	n.cancel()
	n.mu.Lock()
	n.freed.Broadcast()
	n.mu.Unlock()
	n.wg.Wait()
}

// randomDelay is of up to most, mostly none.
func randomDelay(seed uint64, most time.Duration) func() time.Duration {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 7))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(4) > 0 {
			return 0
		}
		return time.Duration(r.Int64N(int64(most)))
	}
}

// leftAt says what is left at a worker that has nothing to do.
func (e *twinEnd) leftAt(objects int) error {
	s := e.w.Stats()
	ps := e.w.peers
	ps.mu.Lock()
	granted, transit, proxies, borrows, guests := 0, 0, 0, 0, 0
	for _, p := range ps.peers {
		granted += len(p.granted)
		transit += len(p.transit)
		proxies += len(p.proxies)
		borrows += len(p.borrows)
		guests += len(p.guests)
	}
	calls := len(ps.calls) + len(ps.asks)
	ps.mu.Unlock()
	if s.Store.Objects > objects || granted > objects || transit+borrows+guests+calls > 0 || proxies > objects || s.Tasks.Lent > 0 {
		return fmt.Errorf("left at %s: store %+v; %d objects granted, %d passed on, %d proxies, %d asked for, %d guests, %d calls; tasks %+v",
			e.node, s.Store, granted, transit, proxies, borrows, guests, calls, s.Tasks)
	}
	return nil
}
