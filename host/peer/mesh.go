package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Carrier makes connections.
type Carrier interface {
	// Dial connects to the node of that name, and to no other, at its address.
	Dial(ctx context.Context, name, addr string) (Conn, error)
}

// Conn carries frames, both ways, in order, until it is closed at either end or
// lost. Send and Recv may be called at the same time, each by one goroutine;
// Close by any, and it ends them.
type Conn interface {
	// Send borrows the frame until it returns.
	Send(frame []byte) error
	// Recv returns a frame, which belongs to the caller.
	Recv() ([]byte, error)
	Close() error
}

// Handler is who uses the sessions. The calls about one peer come one at a time
// and in order: Up before its first message, Down after its last. A call that
// takes long holds up that peer's messages, and through the window whoever sends
// them; it must not wait for a Send to the same peer.
type Handler interface {
	// Receive takes messages, and owns them.
	Receive(from Node, messages [][]byte)
	// Change tells how the session with a node is now.
	Change(node Node, to Status, why string)
}

// Mesh holds the sessions of a node with all others.
type Mesh struct {
	cfg     Config
	self    Node
	carrier Carrier
	handler Handler
	heard   func(Node)
	start   time.Time
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wait    sync.WaitGroup

	mu    sync.Mutex
	peers map[string]*link // guarded by mu
	done  bool             // guarded by mu
}

// link is one peer. Mesh.mu comes after its lock.
type link struct {
	mesh *Mesh
	name string

	mu       sync.Mutex
	m        *Machine             // guarded by mu
	addr     string               // guarded by mu
	conns    map[ConnID]*liveConn // guarded by mu
	lastConn ConnID               // guarded by mu
	queue    []Action             // guarded by mu; Deliver and Change, for the handler
	backlog  int                  // guarded by mu; what queue, and what the handler has of it, costs
	drained  chan struct{}        // guarded by mu; closed when backlog gets smaller; nil when nobody waits
	room     chan struct{}        // guarded by mu; closed when there may be room, or no session; nil when nobody waits
	told     time.Duration        // guarded by mu; when heard was called
	wakeAt   time.Duration        // guarded by mu; until when keepTime sleeps
	queued   chan struct{}        // of capacity 1
	poke     chan struct{}        // of capacity 1: the time of Next is before wakeAt
}

type liveConn struct {
	Conn
	id     ConnID
	wake   chan struct{} // of capacity 1: a frame may be due
	closed chan struct{}
	once   sync.Once
}

func (c *liveConn) close() {
	c.once.Do(func() {
		close(c.closed)
		c.Close()
	})
}

// NewMesh returns the sessions of a node. heard, which may be nil, is told about
// twice in each beat that a node is heard, from any goroutine, and must not wait.
func NewMesh(c Config, self Node, carrier Carrier, h Handler, heard func(Node)) *Mesh {
	if heard == nil {
		heard = func(Node) {}
	}
	m := &Mesh{cfg: c.withDefaults(), self: self, carrier: carrier, handler: h, heard: heard, start: time.Now(), peers: map[string]*link{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends all connections and waits for the handler. Peers see an unreachable
// node. It may be called more than once, but not by the handler.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.done = true
	m.cancel()
	peers := m.peers
	m.mu.Unlock()
	for _, l := range peers {
		l.mu.Lock()
		for _, c := range l.conns {
			c.close()
		}
		l.freeLocked()
		l.mu.Unlock()
	}
	m.wait.Wait()
	return nil
}

func (m *Mesh) now() time.Duration { return time.Since(m.start) }

// link returns the peer of a name, and makes it, or nil after Close.
func (m *Mesh) link(name string) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.peers[name]
	if l == nil && !m.done {
		l = &link{mesh: m, name: name, m: NewMachine(m.cfg, m.self, name), conns: map[ConnID]*liveConn{},
			queued: make(chan struct{}, 1), poke: make(chan struct{}, 1)}
		m.peers[name] = l
		m.wait.Go(l.deliver)
		m.wait.Go(l.keepTime)
	}
	return l
}

// Learn tells where a node is. An incarnation that is newer ends the session
// with the last.
func (m *Mesh) Learn(node Node, addr string) {
	m.with(node.Name, func(l *link) []Action {
		l.addr = addr
		return l.m.Learn(m.now(), node.Incarnation)
	})
}

// Connect has a connection with a node made and kept, though nothing is sent to
// it, so that it is known whether it lives.
func (m *Mesh) Connect(name string) {
	m.with(name, func(l *link) []Action { return l.m.Connect(m.now()) })
}

// Dead tells that an incarnation is dead, for ever.
func (m *Mesh) Dead(node Node, why string) {
	m.with(node.Name, func(l *link) []Action { return l.m.Dead(m.now(), node.Incarnation, why) })
}

func (m *Mesh) with(name string, f func(l *link) []Action) {
	l := m.link(name)
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doLocked(f(l))
}

// TrySend sends a message, which belongs to the session from then on, or returns
// ErrFull, ErrGone, ErrTooLarge or ErrClosed. Without an error it arrives, unless
// the session ends.
func (m *Mesh) TrySend(to Node, message []byte) error {
	_, err := m.send(to, message, false)
	return err
}

// Send is TrySend, but waits while the window is full.
func (m *Mesh) Send(ctx context.Context, to Node, message []byte) error {
	for {
		room, err := m.send(to, message, true)
		if !errors.Is(err, ErrFull) {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("send to node %v: %w: %w", to, ErrFull, ctx.Err())
		}
	}
}

// AwaitRoom waits until a quarter of the window is free. Others may take it
// before the caller does.
func (m *Mesh) AwaitRoom(ctx context.Context, to Node) error {
	for {
		l := m.link(to.Name)
		if l == nil || m.ctx.Err() != nil {
			return ErrClosed
		}
		l.mu.Lock()
		if l.m.node() != to {
			l.mu.Unlock()
			return fmt.Errorf("node %v: %w", to, ErrGone)
		}
		if l.m.Room(m.cfg.Window / 4) {
			l.mu.Unlock()
			return nil
		}
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("send to node %v: %w: %w", to, ErrFull, ctx.Err())
		}
	}
}

func (m *Mesh) send(to Node, message []byte, wait bool) (room <-chan struct{}, err error) {
	l := m.link(to.Name)
	if l == nil || m.ctx.Err() != nil {
		return nil, ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out, err := l.m.Send(m.now(), to.Incarnation, message)
	l.doLocked(out)
	if err == ErrFull && wait {
		if l.room == nil {
			l.room = make(chan struct{})
		}
		return l.room, err
	}
	return nil, err
}

// freeLocked wakes who waits for room.
func (l *link) freeLocked() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// doLocked does what the machine decided, and wakes whoever has something to do.
func (l *link) doLocked(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Dial:
			l.mesh.goIfOpen(l.dial)
		case Cut:
			c := l.conns[a.Conn]
			if c == nil {
				continue
			}
			if a.Last == nil {
				c.close()
				continue
			}
			// Nobody else sends over a connection that was refused.
			l.mesh.goIfOpen(func() {
				timer := time.AfterFunc(l.mesh.cfg.Silence, c.close)
				defer timer.Stop()
				c.Send(a.Last)
				// The peer closes it when it has read that.
				select {
				case <-c.closed:
				case <-time.After(l.mesh.cfg.Silence):
					c.close()
				}
			})
		case Misfit:
			slog.Error("a node does not fit this one, and has nothing to do with it", "node", l.name, "why", a.Why)
		case Change:
			if a.To == Down {
				l.freeLocked()
			}
			l.queueLocked(a)
		default:
			l.queueLocked(a)
		}
	}
	if c := l.conns[l.m.Conn()]; c != nil && l.m.Due(l.mesh.now()) {
		signal(c.wake)
	}
	if at, ok := l.m.Next(); ok && at < l.wakeAt {
		signal(l.poke)
	}
}

// costs is what an action of the queue counts in the backlog.
func costs(a Action) int {
	n := 256
	if d, ok := a.(Deliver); ok {
		for _, b := range d.Messages {
			n += len(b) + 64
		}
	}
	return n
}

func (l *link) queueLocked(a Action) {
	l.queue = append(l.queue, a)
	l.backlog += costs(a)
	signal(l.queued)
}

// crowded returns what to wait for where more waits for the handler than two
// sessions' windows hold: a node that comes as one incarnation after the other
// has a new window each time. l.mu is held.
func (l *link) crowdedLocked() <-chan struct{} {
	if l.backlog <= 2*(l.mesh.cfg.Window+64*l.mesh.cfg.Messages) {
		return nil
	}
	if l.drained == nil {
		l.drained = make(chan struct{})
	}
	return l.drained
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// goIfOpen starts a goroutine that Close waits for.
func (m *Mesh) goIfOpen(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.done {
		m.wait.Go(f)
	}
}

// deliver calls the handler.
func (l *link) deliver() {
	for {
		select {
		case <-l.queued:
		case <-l.mesh.ctx.Done():
			return
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, a := range queue {
			if l.mesh.ctx.Err() != nil {
				return
			}
			switch a := a.(type) {
			case Change:
				l.mesh.handler.Change(a.Node, a.To, a.Why)
			case Deliver:
				size := 0
				for _, b := range a.Messages {
					size += len(b)
				}
				l.mesh.handler.Receive(a.From, a.Messages)
				l.mu.Lock()
				l.m.Consumed(a.From, len(a.Messages), size)
				l.doLocked(nil)
				l.mu.Unlock()
			}
			l.mu.Lock()
			l.backlog -= costs(a)
			if l.drained != nil {
				close(l.drained)
				l.drained = nil
			}
			l.mu.Unlock()
		}
	}
}

// keepTime calls Tick.
func (l *link) keepTime() {
	least := l.mesh.cfg.Beat / 4
	timer := time.NewTimer(least)
	defer timer.Stop()
	for ticked := true; ; {
		l.mu.Lock()
		now := l.mesh.now()
		at, ok := l.m.Next()
		if !ok {
			at = now + time.Hour // or until it is poked
		}
		// A connection that takes no frame must not keep this loop busy, nor
		// pokes put a tick off.
		if at = max(at, now+least); ticked || at < l.wakeAt {
			l.wakeAt = at
		}
		timer.Reset(l.wakeAt - now)
		l.mu.Unlock()
		select {
		case <-timer.C:
			l.mu.Lock()
			l.doLocked(l.m.Tick(l.mesh.now()))
			l.mu.Unlock()
			ticked = true
		case <-l.poke:
			ticked = false
		case <-l.mesh.ctx.Done():
			return
		}
	}
}

func (l *link) dial() {
	l.mu.Lock()
	addr := l.addr
	l.mu.Unlock()
	var c Conn
	err := errors.New("its address is not known")
	if addr != "" {
		ctx, cancel := context.WithTimeout(l.mesh.ctx, 2*l.mesh.cfg.Silence)
		c, err = l.mesh.carrier.Dial(ctx, l.name, addr)
		cancel()
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.doLocked(l.m.DialFailed(l.mesh.now()))
		return
	}
	l.serve(c, true)
}

// Accept serves a connection that the node of that name made, until it ends.
// Whoever calls has verified the name.
func (m *Mesh) Accept(name string, c Conn) error {
	l := m.link(name)
	if l == nil {
		c.Close()
		return ErrClosed
	}
	m.mu.Lock()
	if m.done {
		m.mu.Unlock()
		c.Close()
		return ErrClosed
	}
	m.wait.Add(1)
	m.mu.Unlock()
	defer m.wait.Done()
	return l.serve(c, false)
}

// serve reads a connection until it ends.
func (l *link) serve(conn Conn, dialed bool) error {
	c := &liveConn{Conn: conn, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	defer c.close()
	l.mu.Lock()
	if l.mesh.ctx.Err() != nil {
		l.mu.Unlock()
		return ErrClosed
	}
	l.lastConn++
	c.id = l.lastConn
	l.conns[c.id] = c
	l.doLocked(l.m.Opened(l.mesh.now(), c.id, dialed))
	l.mu.Unlock()
	if !dialed {
		// One that does not say who it is is closed.
		timer := time.AfterFunc(l.mesh.cfg.Silence, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.m.Conn() != c.id {
				c.close()
			}
		})
		defer timer.Stop()
	}
	var writer sync.WaitGroup
	writer.Go(func() { l.write(c) })
	defer writer.Wait()
	defer c.close()
	for {
		frame, err := c.Recv()
		l.mu.Lock()
		for crowded := l.crowdedLocked(); crowded != nil && err == nil; crowded = l.crowdedLocked() {
			l.mu.Unlock()
			select {
			case <-crowded:
			case <-c.closed:
				err = errors.New("it was closed")
			case <-l.mesh.ctx.Done():
				err = ErrClosed
			}
			l.mu.Lock()
		}
		now := l.mesh.now()
		if err != nil {
			delete(l.conns, c.id)
			l.doLocked(l.m.Closed(now, c.id, fmt.Sprintf("the connection was lost: %v", err)))
			l.mu.Unlock()
			return err
		}
		l.doLocked(l.m.Receive(now, c.id, frame))
		if l.room != nil && l.m.Room(0) {
			l.freeLocked()
		}
		var heard Node
		if l.m.Conn() == c.id && l.m.up && now-l.told >= l.mesh.cfg.Beat/2 {
			heard, l.told = l.m.node(), now
		}
		l.mu.Unlock()
		if heard.Name != "" {
			l.mesh.heard(heard)
		}
	}
}

// write sends frames while they are due.
func (l *link) write(c *liveConn) {
	var buf []byte
	for {
		select {
		case <-c.wake:
		case <-c.closed:
			return
		}
		for {
			l.mu.Lock()
			now := l.mesh.now()
			if l.m.Conn() != c.id || !l.m.Due(now) {
				l.mu.Unlock()
				break
			}
			buf = l.m.Frame(now, buf[:0])
			l.mu.Unlock()
			if err := c.Send(buf); err != nil {
				c.close() // the reader sees it
				return
			}
			if cap(buf) > 2*frameTarget {
				buf = nil
			}
		}
	}
}
