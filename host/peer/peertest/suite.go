package peertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/host/peer"
)

// Env is a network on which nodes run.
type Env interface {
	// Start runs an incarnation of a node, and returns its sessions and its
	// address. The test closes what it returns, before another incarnation is
	// started.
	Start(t *testing.T, c peer.Config, self peer.Node, h peer.Handler) (*peer.Mesh, string)
	// Cut ends all connections.
	Cut()
}

// Harness makes the networks that Run tests.
type Harness struct {
	New    func(t *testing.T) Env
	Bubble bool // run each test in a synctest bubble
}

// fast has short times, so that real ones pass soon.
var fast = peer.Config{Beat: 50 * time.Millisecond, Silence: 400 * time.Millisecond}

// Recorder is a handler that keeps what it is told.
type Recorder struct {
	mu      sync.Mutex
	got     map[peer.Node][]string
	events  []string
	changed chan struct{}
	block   chan struct{} // while not nil, Receive waits for its end
}

// NewRecorder returns one that was told nothing.
func NewRecorder() *Recorder {
	return &Recorder{got: map[peer.Node][]string{}, changed: make(chan struct{})}
}

func (r *Recorder) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Receive implements peer.Handler.
func (r *Recorder) Receive(from peer.Node, messages [][]byte) {
	r.mu.Lock()
	block := r.block
	r.mu.Unlock()
	if block != nil {
		<-block
	}
	r.note(func() {
		for _, m := range messages {
			r.got[from] = append(r.got[from], string(m))
		}
	})
}

// Change implements peer.Handler.
func (r *Recorder) Change(node peer.Node, to peer.Status, why string) {
	r.note(func() { r.events = append(r.events, fmt.Sprintf("%v %v", node, to)) })
}

// Wait waits until ok is true of what was received and of the events.
func (r *Recorder) Wait(t *testing.T, what string, ok func(got map[peer.Node][]string, events []string) bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		done, changed := ok(r.got, r.events), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			r.mu.Lock()
			defer r.mu.Unlock()
			n := map[peer.Node]int{}
			for k, v := range r.got {
				n[k] = len(v)
			}
			t.Fatalf("%s: not within 20 s: received %v, events %v", what, n, r.events)
		}
	}
}

// event is true once want was told, whatever came after it.
func event(want string) func(map[peer.Node][]string, []string) bool {
	return func(_ map[peer.Node][]string, events []string) bool {
		return slices.Contains(events, want)
	}
}

func count(from peer.Node, n int) func(map[peer.Node][]string, []string) bool {
	return func(got map[peer.Node][]string, _ []string) bool { return len(got[from]) >= n }
}

var tests = []struct {
	name string
	test func(t *testing.T, e Env)
}{
	{"Order", testOrder},
	{"Cuts", testCuts},
	{"Both", testBoth},
	{"Sizes", testSizes},
	{"BackPressure", testBackPressure},
	{"NewIncarnation", testNewIncarnation},
	{"Dead", testDead},
	{"Unknown", testUnknown},
}

// Run holds a carrier to the contract.
func Run(t *testing.T, h Harness) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			if h.Bubble {
				synctest.Test(t, func(t *testing.T) { c.test(t, h.New(t)) })
			} else {
				c.test(t, h.New(t))
			}
		})
	}
}

var (
	a1 = peer.Node{Name: "a", Incarnation: 1}
	b1 = peer.Node{Name: "b", Incarnation: 1}
	b2 = peer.Node{Name: "b", Incarnation: 2}
)

// pair starts two nodes that know each other.
func pair(t *testing.T, e Env, c peer.Config) (ma, mb *peer.Mesh, ra, rb *Recorder) {
	ra, rb = NewRecorder(), NewRecorder()
	ma, addrA := e.Start(t, c, a1, ra)
	mb, addrB := e.Start(t, c, b1, rb)
	ma.Learn(b1, addrB)
	mb.Learn(a1, addrA)
	return ma, mb, ra, rb
}

func number(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

// checkOrder holds that got is the numbers from 0, each once.
func checkOrder(t *testing.T, r *Recorder, from peer.Node, n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got[from]) != n {
		t.Errorf("%d messages from %v, %d were sent", len(r.got[from]), from, n)
	}
	for i, m := range r.got[from] {
		if got := binary.BigEndian.Uint32([]byte(m)); int(got) != i {
			t.Fatalf("message %d from %v is number %d", i, from, got)
		}
	}
}

func send(t *testing.T, m *peer.Mesh, to peer.Node, i int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Send(ctx, to, number(i)); err != nil {
		t.Fatalf("message %d: %v", i, err)
	}
}

func testOrder(t *testing.T, e Env) {
	ma, mb, _, rb := pair(t, e, fast)
	defer mb.Close()
	defer ma.Close()
	const n = 5000
	for i := range n {
		send(t, ma, b1, i)
	}
	rb.Wait(t, "all arrive", count(a1, n))
	checkOrder(t, rb, a1, n)
}

func testCuts(t *testing.T, e Env) {
	ma, mb, _, rb := pair(t, e, fast)
	defer mb.Close()
	defer ma.Close()
	const n = 3000
	for i := range n {
		send(t, ma, b1, i)
		if i%500 == 499 {
			rb.Wait(t, "some arrive", count(a1, i-400))
			e.Cut()
		}
	}
	rb.Wait(t, "all arrive", count(a1, n))
	checkOrder(t, rb, a1, n)
}

// testBoth has both connect at once, and send to each other.
func testBoth(t *testing.T, e Env) {
	ma, mb, ra, rb := pair(t, e, fast)
	defer mb.Close()
	defer ma.Close()
	const n = 1000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			send(t, ma, b1, i)
		}
	})
	wg.Go(func() {
		for i := range n {
			send(t, mb, a1, i)
		}
	})
	wg.Wait()
	ra.Wait(t, "all arrive at a", count(b1, n))
	rb.Wait(t, "all arrive at b", count(a1, n))
	checkOrder(t, ra, b1, n)
	checkOrder(t, rb, a1, n)
}

func testSizes(t *testing.T, e Env) {
	ma, mb, _, rb := pair(t, e, fast)
	defer mb.Close()
	defer ma.Close()
	sizes := []int{0, 1, 100, 127, 128, 1 << 17, peer.MaxMessage, 3, peer.MaxMessage - 1, 0}
	for _, n := range sizes {
		if err := ma.Send(context.Background(), b1, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ma.TrySend(b1, make([]byte, peer.MaxMessage+1)); !errors.Is(err, peer.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	rb.Wait(t, "all arrive", count(a1, len(sizes)))
	rb.mu.Lock()
	defer rb.mu.Unlock()
	for i, n := range sizes {
		if got := len(rb.got[a1][i]); got != n {
			t.Errorf("message %d has %d bytes, %d were sent", i, got, n)
		}
	}
}

// testBackPressure holds that a handler which does not return stops whoever
// sends, within the window, and nobody else.
func testBackPressure(t *testing.T, e Env) {
	c := fast
	c.Messages = 64
	ma, mb, ra, rb := pair(t, e, c)
	defer mb.Close()
	defer ma.Close()
	block := make(chan struct{})
	rb.mu.Lock()
	rb.block = block
	rb.mu.Unlock()
	n := 0
	for ; ; n++ {
		if err := ma.TrySend(b1, number(n)); errors.Is(err, peer.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n > 64 {
			t.Fatalf("%d messages were taken, the window has 64", n)
		}
	}
	if n != 64 {
		t.Errorf("full after %d messages", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*fast.Silence)
	defer cancel()
	if err := ma.Send(ctx, b1, number(n)); !errors.Is(err, peer.ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sent into a full window: %v", err)
	}
	// The other way is free, though the acknowledgements of a are late.
	for i := range 200 {
		send(t, mb, a1, i)
	}
	ra.Wait(t, "the other way", count(b1, 200))
	rb.mu.Lock()
	rb.block = nil
	rb.mu.Unlock()
	close(block)
	for ; n < 500; n++ {
		send(t, ma, b1, n)
	}
	rb.Wait(t, "all arrive", count(a1, n))
	checkOrder(t, rb, a1, n)
	rb.mu.Lock()
	defer rb.mu.Unlock()
	for _, s := range rb.events {
		if s != "a#1 up" {
			t.Errorf("a handler that waited made the session %s", s)
		}
	}
}

func testNewIncarnation(t *testing.T, e Env) {
	ma, mb, ra, rb := pair(t, e, fast)
	defer ma.Close()
	for i := range 10 {
		send(t, ma, b1, i)
		send(t, mb, a1, i)
	}
	rb.Wait(t, "they arrive", count(a1, 10))
	ra.Wait(t, "they arrive", count(b1, 10))
	mb.Close()
	ra.Wait(t, "b is unreachable", event("b#1 unreachable"))
	for i := range 5 { // lost with the incarnation they are for
		send(t, ma, b1, 10+i)
	}
	rb = NewRecorder()
	mb, addr := e.Start(t, fast, b2, rb)
	defer mb.Close()
	ma.Learn(b2, addr)
	ra.Wait(t, "the session ends", event("b#1 down"))
	if err := ma.TrySend(b1, number(0)); !errors.Is(err, peer.ErrGone) {
		t.Errorf("send to an incarnation that is over: %v", err)
	}
	for i := range 10 {
		send(t, ma, b2, i)
	}
	rb.Wait(t, "they arrive", count(a1, 10))
	checkOrder(t, rb, a1, 10)
	ra.Wait(t, "b is up", event("b#2 up"))
	ra.mu.Lock()
	defer ra.mu.Unlock()
	if got := fmt.Sprint(ra.events); got != "[b#1 up b#1 unreachable b#1 down b#2 up]" {
		t.Errorf("events: %s", got)
	}
}

// testDead holds that a node which is called dead, and lives, is not heard.
func testDead(t *testing.T, e Env) {
	ma, mb, ra, rb := pair(t, e, fast)
	defer mb.Close()
	defer ma.Close()
	send(t, ma, b1, 0)
	rb.Wait(t, "it arrives", count(a1, 1))
	ma.Dead(b1, "its lease lapsed")
	ra.Wait(t, "it is down", event("b#1 down"))
	rb.Wait(t, "b sees that", event("a#1 unreachable"))
	if err := ma.TrySend(b1, number(0)); !errors.Is(err, peer.ErrGone) {
		t.Errorf("send to a dead node: %v", err)
	}
	send(t, mb, a1, 0)
	time.Sleep(3 * fast.Silence) // b tries to connect meanwhile
	ra.mu.Lock()
	defer ra.mu.Unlock()
	if len(ra.got[b1]) > 0 || len(ra.events) != 2 {
		t.Errorf("heard from a dead node: %v, %v", ra.got, ra.events)
	}
}

// testUnknown holds that a node which was told nothing learns who speaks.
func testUnknown(t *testing.T, e Env) {
	ra, rb := NewRecorder(), NewRecorder()
	ma, _ := e.Start(t, fast, a1, ra)
	defer ma.Close()
	mb, addrB := e.Start(t, fast, b2, rb)
	defer mb.Close()
	if err := mb.TrySend(a1, number(0)); !errors.Is(err, peer.ErrGone) {
		t.Errorf("send to an unknown node: %v", err)
	}
	ma.Learn(b1, addrB) // it is another by now
	send(t, ma, b1, 0)
	ra.Wait(t, "a learns", event("b#2 up"))
	rb.Wait(t, "b learns", event("a#1 up"))
	send(t, mb, a1, 0)
	send(t, ma, b2, 0)
	ra.Wait(t, "it arrives", count(b2, 1))
	rb.Wait(t, "it arrives", count(a1, 1))
	checkOrder(t, rb, a1, 1)
}
