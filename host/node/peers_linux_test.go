package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/peer/peertest"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// fakeNode is the part of a node that carries what workers say, with a worker
// that the test plays.
type fakeNode struct {
	t    testing.TB
	self peer.Node
	p    *tenantPeers
	mesh *peer.Mesh
	w    *workerProcess
	conn *link.Conn // the worker's end

	mu     sync.Mutex
	change *sync.Cond
	events []worker.PeerEvent                       // guarded by mu; that the worker was told
	blocks bool                                     // guarded by mu; the worker takes nothing
	serves func(link.Message) (link.Message, error) // guarded by mu; what the node asks for; nil: it does not answer
}

func newFakeNetwork() *peertest.Network { return peertest.NewNetwork(rand.New(rand.NewPCG(1, 2))) }

func newFakeNode(t testing.TB, net *peertest.Network, name string, worker uint64) *fakeNode {
	f := &fakeNode{t: t, self: peer.Node{Name: name, Incarnation: 1}, p: newTestPeers()}
	f.change = sync.NewCond(&f.mu)
	f.mesh = peer.NewMesh(peer.Config{Window: peer.MaxMessage}, f.self, net.Carrier(name), f.p, nil)
	net.Listen(name, func(from string, c peer.Conn) { f.mesh.Accept(from, c) })
	f.p.mesh = f.mesh
	close(f.p.ready)
	f.start(worker)
	t.Cleanup(func() {
		f.block(false)
		f.p.close()
		f.mesh.Close()
		f.w.conn.Close()
		f.conn.Close()
	})
	return f
}

// start gives the node another worker.
func (f *fakeNode) start(id uint64) {
	conn, file, err := link.Pair(worker.LinkOptions())
	if err != nil {
		f.t.Fatal(err)
	}
	end, err := link.FromFile(file, worker.LinkOptions())
	if err != nil {
		f.t.Fatal(err)
	}
	w := &workerProcess{conn: conn, peers: f.p}
	go conn.Serve(f.t.Context(), func(ctx context.Context, m link.Message) (link.Message, error) { return f.p.handle(ctx, w, m) })
	go end.Serve(f.t.Context(), func(ctx context.Context, m link.Message) (link.Message, error) {
		if m.Kind != worker.KindPeerEvents {
			f.mu.Lock()
			serves := f.serves
			f.mu.Unlock()
			if serves != nil {
				return serves(m)
			}
			<-ctx.Done() // a reader that does not answer
			return link.Message{}, ctx.Err()
		}
		var b worker.PeerEventsBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return link.Message{}, err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for f.blocks {
			f.change.Wait()
		}
		f.events = append(f.events, b.Events...)
		f.change.Broadcast()
		return link.Message{}, nil
	})
	f.w, f.conn = w, end
	f.p.started(w, id)
}

func (f *fakeNode) block(blocks bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocks = blocks
	f.change.Broadcast()
}

// await waits until the worker was told something that ok finds among all.
func (f *fakeNode) await(what string, ok func([]worker.PeerEvent) bool) {
	f.t.Helper()
	late := time.AfterFunc(time.Minute, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.t.Errorf("node %s: no %s: %d events", f.self.Name, what, len(f.events))
		f.events = nil
		f.change.Broadcast()
	})
	defer late.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !ok(f.events) && !f.t.Failed() {
		f.change.Wait()
	}
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// awaitEvent waits for one event about a peer.
func (f *fakeNode) awaitEvent(id uint64, what worker.PeerEventKind) {
	f.t.Helper()
	f.await(fmt.Sprintf("event %d of %d", what, id), func(list []worker.PeerEvent) bool {
		return slices.ContainsFunc(list, func(e worker.PeerEvent) bool { return e.Peer == id && e.What == what })
	})
}

// send sends pieces to a peer, and returns how many were taken.
func (f *fakeNode) send(to uint64, data ...[]byte) int {
	f.t.Helper()
	var b worker.PeerSendBody
	for _, d := range data {
		b.Pieces = append(b.Pieces, worker.PeerPiece{Peer: to, Data: d})
	}
	var sent worker.PeerSentBody
	if err := f.call(worker.KindPeerSend, b, &sent); err != nil {
		f.t.Fatal(err)
	}
	return sent.Taken
}

func (f *fakeNode) call(kind link.Kind, body, reply any) error {
	b, err := link.Marshal(body)
	if err != nil {
		return err
	}
	m, err := f.conn.Call(f.t.Context(), link.Message{Kind: kind, Body: b})
	if err != nil || reply == nil {
		return err
	}
	return link.Unmarshal(m.Body, reply)
}

// meet has nodes know and reach each other.
func meet(nodes ...*fakeNode) {
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.mesh.Learn(b.self, b.self.Name)
				a.mesh.Connect(b.self.Name)
			}
		}
	}
}

// fill sends to a peer that takes nothing until there is no room.
func (f *fakeNode) fill(to uint64) (pieces int) {
	for b := make([]byte, worker.MaxPeerPiece); ; pieces++ {
		b[0] = byte(pieces)
		if f.send(to, b) == 0 {
			return pieces
		}
	}
}

// cram fills the session with a node whose handler waits, until there is no room
// for the shortest message.
func (f *fakeNode) cram(to peer.Node) {
	f.t.Helper()
	for _, n := range []int{worker.MaxPeerPiece, 32 << 10, 1 << 10, 0} {
		m, err := link.Marshal(&nodeMessage{Fetched: &fetched{Data: make([]byte, n)}})
		if err != nil {
			f.t.Fatal(err)
		}
		for err == nil {
			err = f.mesh.TrySend(to, m)
		}
		if !errors.Is(err, peer.ErrFull) {
			f.t.Fatal(err)
		}
	}
}

// A worker that takes nothing keeps its own peers waiting, and no others; what
// waited goes on where it stopped.
func TestSlowPeer(t *testing.T) {
	net := newFakeNetwork()
	a, b, c := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2), newFakeNode(t, net, "c", 3)
	meet(a, b, c)
	a.awaitEvent(2, worker.PeerIsUp)
	a.awaitEvent(3, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	c.awaitEvent(1, worker.PeerIsUp)
	b.block(true)
	n := a.fill(2)
	if n*worker.MaxPeerPiece > 64<<20 {
		t.Errorf("%d MiB wait for a worker that takes nothing", n)
	}
	if a.send(3, []byte("hello")) != 1 {
		t.Error("a full window to one peer stops another")
	}
	c.awaitEvent(1, worker.PeerSent)
	b.block(false)
	a.awaitEvent(2, worker.PeerHasRoom)
	for a.send(2, []byte{byte(n)}) == 0 { // the room that there was may have gone to others
		t.Fatal("there was room, and is none")
	}
	b.await("message of 1", func(list []worker.PeerEvent) bool {
		i := 0
		for _, e := range list {
			if e.What == worker.PeerSent {
				if e.Data[0] != byte(i) {
					t.Errorf("message %d came as number %d", e.Data[0], i)
				}
				i++
			}
		}
		return i == n+1
	})
}

// A worker is told of nodes that are there and have no worker yet, so that what only
// those could hold waits for them, and of those that go again.
func TestNodesCome(t *testing.T) {
	a := newFakeNode(t, newFakeNetwork(), "a", 1)
	b := peer.Node{Name: "b", Incarnation: 1}
	told := func(what worker.PeerEventKind) {
		t.Helper()
		a.await(fmt.Sprintf("event %d of b", what), func(list []worker.PeerEvent) bool {
			return slices.ContainsFunc(list, func(e worker.PeerEvent) bool { return e.Node == "b" && e.What == what })
		})
	}
	a.p.Change(b, peer.Up, "")
	told(worker.PeerComes)
	a.mu.Lock()
	a.events = nil
	a.mu.Unlock()
	a.p.stopped(a.w)
	a.start(2)
	told(worker.PeerComes) // so is one that starts later
	a.p.Change(b, peer.Down, "")
	told(worker.PeerComesNot)
}

// Word of workers that come and go is not lost where the window is full.
func TestGreetingsWait(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	b.p.mu.Lock() // its node does nothing for now
	a.cram(b.self)
	old, end := a.w, a.conn
	a.p.stopped(old)
	old.conn.Close()
	end.Close()
	a.start(7)
	if a.send(2, []byte("early")) != 0 {
		t.Error("a message was sent before its sender was announced")
	}
	b.p.mu.Unlock()
	b.awaitEvent(1, worker.PeerIsDown)
	b.awaitEvent(7, worker.PeerIsUp)
	a.awaitEvent(2, worker.PeerHasRoom)
	if a.send(2, []byte("late")) != 1 {
		t.Error("no room after word that there is")
	}
	b.awaitEvent(7, worker.PeerSent)
}

// Two workers of which one has severed the other are down to each other, until
// one of them is another.
func TestSevered(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	if err := a.call(worker.KindPeerSever, worker.PeerSeverBody{Peer: 2, Why: "nonsense"}, nil); err != nil {
		t.Fatal(err)
	}
	a.awaitEvent(2, worker.PeerIsDown)
	b.awaitEvent(1, worker.PeerIsDown)
	a.send(2, []byte("still"))
	b.send(1, []byte("still"))
	var e *wray.Error
	if err := b.call(worker.KindPeerFetch, worker.PeerFetchBody{Peer: 1, Len: 1}, nil); !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
		t.Errorf("a fetch from a peer that is severed: %v", err)
	}
	old, end := b.w, b.conn
	b.p.stopped(old)
	old.conn.Close()
	end.Close()
	b.start(5)
	a.awaitEvent(5, worker.PeerIsUp)
	if a.send(5, []byte("anew")) != 1 {
		t.Error("no room")
	}
	b.awaitEvent(1, worker.PeerSent)
	for _, f := range []*fakeNode{a, b} {
		f.mu.Lock()
		for _, x := range f.events {
			if string(x.Data) == "still" {
				t.Errorf("node %s passed on a message of a peer that is severed", f.self.Name)
			}
		}
		f.mu.Unlock()
	}
}

// A fetch that is not answered, and a transfer of which nothing comes, end.
func TestNoAnswer(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	a.p.patience = 50 * time.Millisecond
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	var e *wray.Error
	if err := a.call(worker.KindPeerFetch, worker.PeerFetchBody{Peer: 2, Len: 1}, nil); !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
		t.Errorf("a fetch that nobody answers: %v", err)
	}
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	m := &moduleBuffer{budget: &moduleBudget{}}
	if err := a.p.transfer(t.Context(), b.self, m, hang); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a transfer of which nothing comes: %v", err)
	}
	a.p.patience = time.Hour
	begun := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- a.p.transfer(t.Context(), b.self, m, func(ctx context.Context) error { close(begun); return hang(ctx) })
	}()
	<-begun
	a.mesh.Dead(b.self, "killed")
	if err := <-ended; !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
		t.Errorf("a transfer from a node that has died: %v", err)
	}
	if err := a.p.transfer(t.Context(), b.self, m, hang); !errors.As(err, &e) || e.Code != wray.CodeWorkerDied {
		t.Errorf("a transfer from a node that is dead: %v", err)
	}
}

// A peer whose node does not hold to what it may send is severed, also where its
// messages have no bytes, and no more than that is kept of it.
func TestEmptyMessages(t *testing.T) {
	p := newTestPeers()
	p.stop() // nothing is told
	p.ownLocked(&workerProcess{}, 1)
	from := peer.Node{Name: "b", Incarnation: 1}
	p.far[2] = from
	for range 1 << 20 {
		p.take(from, &piece{From: 2, To: 1})
	}
	if _, over := p.severed[2]; !over || p.queued > firstWindow+3*eventCost || len(p.events) > firstWindow/eventCost+2 {
		t.Errorf("severed: %v; %d messages wait, counted as %d bytes", over, len(p.events), p.queued)
	}
}

// The bytes of a module that comes from another node count among the node's.
func TestModuleBudget(t *testing.T) {
	var budget moduleBudget
	if err := budget.take(maxJobBytes); err != nil {
		t.Fatal(err)
	}
	if err := budget.take(maxNodeBytes - maxJobBytes - 10); err != nil {
		t.Fatal(err)
	}
	m := &moduleBuffer{budget: &budget}
	if _, err := m.Write(make([]byte, 10)); err != nil || !bytes.Equal(m.Bytes(), make([]byte, 10)) {
		t.Error(err)
	}
	var e *wray.Error
	if _, err := m.Write([]byte{1}); !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded {
		t.Errorf("past the budget: %v", err)
	}
	m.giveBack()
	m.giveBack()
	if err := budget.take(10); err != nil || budget.take(1) == nil {
		t.Errorf("after what came was given back: %v", err)
	}
}

// Who sends modules over the network leaves room for others, however much is on
// its way.
func TestModuleBudgetOfOne(t *testing.T) {
	var b moduleBudget
	wants := func(what string, err error, name string) {
		t.Helper()
		var e *wray.Error
		if !errors.As(err, &e) || e.Limit == nil || e.Limit.Name != name {
			t.Errorf("%s: %v, want the limit %q", what, err, name)
		}
	}
	for range 4 {
		if err := b.takeFor("operator a", maxJobBytes/4); err != nil {
			t.Fatal(err)
		}
	}
	wants("a takes more", b.takeFor("operator a", 1), "module bytes of who submits")
	if err := b.takeFor("operator b", maxJobBytes); err != nil {
		t.Errorf("b, beside a: %v", err)
	}
	wants("c, beside both", b.takeFor("operator c", 1), "module bytes of a node")
	b.giveFor("operator a", maxJobBytes/4)
	if err := b.takeFor("operator c", maxJobBytes/4); err != nil {
		t.Errorf("c, after a gave back: %v", err)
	}
	b.giveFor("operator a", 3*maxJobBytes/4)
	b.giveFor("operator b", maxJobBytes)
	b.giveFor("operator c", maxJobBytes/4)
	wants("too much at once", b.takeFor("operator a", maxJobBytes+1), "module bytes of a job")
	if len(b.by) != 0 || b.used != 0 {
		t.Errorf("when all is given back, %v and %d are taken", b.by, b.used)
	}
}

// Events that come just when none is left are told once, and in order.
func TestToldOnce(t *testing.T) {
	f := newFakeNode(t, newFakeNetwork(), "a", 1)
	const n = 200
	for i := range uint64(n) {
		f.p.mu.Lock()
		for len(f.p.events) > 0 {
			f.p.mu.Unlock()
			runtime.Gosched()
			f.p.mu.Lock()
		}
		f.p.eventLocked(worker.PeerEvent{Peer: i + 2, What: worker.PeerSent})
		f.p.mu.Unlock()
	}
	f.await("last event", func(list []worker.PeerEvent) bool {
		if len(list) < n {
			return false
		}
		for i, e := range list {
			if e.Peer != uint64(i+2) {
				t.Fatalf("event %d is told as number %d", e.Peer-2, i)
			}
		}
		return len(list) == n
	})
}

// secondTenant gives nodes another tenant, with a worker each that takes what
// comes, and returns what has come for that of the second, by its own words.
func secondTenant(t *testing.T, a, b *fakeNode) (send func(data []byte) int, came func() int) {
	for _, f := range []*fakeNode{a, b} {
		f.p.n.setRecords(map[string]control.Tenant{"b": {}})
	}
	var mu sync.Mutex
	n := 0
	arrived := sync.NewCond(&mu)
	part := func(f *fakeNode, id uint64) *workerProcess {
		x, err := f.p.n.tenant("b")
		if err != nil {
			t.Fatal(err)
		}
		conn, file, err := link.Pair(worker.LinkOptions())
		if err != nil {
			t.Fatal(err)
		}
		end, err := link.FromFile(file, worker.LinkOptions())
		if err != nil {
			t.Fatal(err)
		}
		w := &workerProcess{conn: conn, peers: x.peers}
		go conn.Serve(t.Context(), func(ctx context.Context, m link.Message) (link.Message, error) { return x.peers.handle(ctx, w, m) })
		go end.Serve(t.Context(), func(_ context.Context, m link.Message) (link.Message, error) {
			var e worker.PeerEventsBody
			if err := link.Unmarshal(m.Body, &e); err != nil {
				return link.Message{}, err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range e.Events {
				if e.What == worker.PeerSent {
					n++
				}
			}
			arrived.Broadcast()
			return link.Message{}, nil
		})
		t.Cleanup(func() { conn.Close(); end.Close() })
		x.peers.started(w, id)
		return w
	}
	from := part(a, 101)
	part(b, 102)
	send = func(data []byte) int {
		for { // until the two know each other
			taken, err := from.peers.forward(from, []worker.PeerPiece{{Peer: 102, Data: data}})
			if err != nil {
				t.Fatal(err)
			}
			from.peers.mu.Lock()
			_, met := from.peers.far[102]
			from.peers.mu.Unlock()
			if met {
				return taken
			}
			runtime.Gosched()
		}
	}
	came = func() int {
		mu.Lock()
		defer mu.Unlock()
		for n == 0 && t.Context().Err() == nil {
			arrived.Wait()
		}
		return n
	}
	return send, came
}

// A worker that takes nothing of what is sent to it stops its own tenant's
// workers that send to it, and no other tenant's, whose messages go over the same
// session; and little is kept of what waits for it.
func TestStuckWorkerOfOtherTenant(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	send, came := secondTenant(t, a, b)
	b.block(true)
	if n := a.fill(2); n*worker.MaxPeerPiece > firstWindow+2*worker.MaxPeerPiece {
		t.Errorf("%d MiB wait for a worker that takes nothing", n)
	}
	late := time.AfterFunc(time.Minute, func() { panic("what another tenant sends does not come") })
	defer late.Stop()
	for send([]byte("hello")) == 0 {
		runtime.Gosched() // its node has not been told of the sender yet
	}
	came()
	b.p.mu.Lock()
	if b.p.queued > firstWindow+2*worker.MaxPeerPiece {
		t.Errorf("%d bytes wait", b.p.queued)
	}
	b.p.mu.Unlock()
	b.block(false)
	a.awaitEvent(2, worker.PeerHasRoom)
}

// A node that does not hold to what a worker here may be sent ends what there is
// between the two workers, and no more.
func TestOversent(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	send, came := secondTenant(t, a, b)
	b.block(true)
	for range 4 { // two are more than it may
		m, err := link.Marshal(&nodeMessage{Piece: &piece{From: 1, To: 2, Data: make([]byte, worker.MaxPeerPiece)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.mesh.Send(t.Context(), b.self, m); err != nil {
			t.Fatal(err)
		}
	}
	a.awaitEvent(2, worker.PeerIsDown)
	b.block(false)
	b.awaitEvent(1, worker.PeerIsDown)
	for send([]byte("hello")) == 0 {
		runtime.Gosched()
	}
	came()
}

// What is sent goes on for however long the one that it is for takes it.
func TestCreditGoesOn(t *testing.T) {
	net := newFakeNetwork()
	a, b := newFakeNode(t, net, "a", 1), newFakeNode(t, net, "b", 2)
	meet(a, b)
	a.awaitEvent(2, worker.PeerIsUp)
	b.awaitEvent(1, worker.PeerIsUp)
	const n = 200
	data := make([]byte, 64<<10)
	for i := range n {
		data[0] = byte(i)
		for a.send(2, data) == 0 {
			runtime.Gosched()
		}
	}
	b.await("last message", func(list []worker.PeerEvent) bool {
		i := 0
		for _, e := range list {
			if e.What == worker.PeerSent {
				if e.Data[0] != byte(i) {
					t.Fatalf("message %d came as number %d", e.Data[0], i)
				}
				i++
			}
		}
		return i == n
	})
}
