package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is nodes that all want one object of a source, as host/node wires them.
type crowd struct {
	t      *testing.T
	data   []byte
	reads  atomic.Int64 // bytes that were read of the source
	source *Holder
	refers Referrals
	nodes  map[string]*member
	wait   sync.WaitGroup
}

type member struct {
	c      *crowd
	holder *Holder
	client *Client
	mu     sync.Mutex
	relay  *Relay // guarded by mu
	dest   place
	reads  atomic.Int64
	dead   atomic.Bool // gives nothing
}

// origin is the source's object.
type origin struct {
	*bytes.Reader
	n *atomic.Int64
}

func (o origin) ReadAt(p []byte, off int64) (int, error) {
	o.n.Add(int64(len(p)))
	return o.Reader.ReadAt(p, off)
}
func (origin) Close() error { return nil }

// relayed is what a member gives: its relay, and after it the whole.
type relayed struct {
	*Relay
	m *member
}

func (r relayed) ReadAt(p []byte, off int64) (int, error) {
	if r.m.dead.Load() {
		return 0, errors.New("it is dead")
	}
	r.m.reads.Add(int64(len(p)))
	return r.Relay.ReadAt(p, off)
}
func (relayed) Close() error { return nil }

func newCrowd(t *testing.T, size, n int) *crowd {
	c := &crowd{t: t, data: make([]byte, size), nodes: map[string]*member{}}
	t.Cleanup(c.wait.Wait) // after the clients have closed
	r := rand.NewChaCha8([32]byte{9})
	_, _ = r.Read(c.data)
	c.source = NewHolder(64<<20, func(context.Context, string, []byte) (Object, error) {
		return origin{bytes.NewReader(c.data), &c.reads}, nil
	})
	c.source.Refer = func(from string, name []byte, _ int64, without []string) ([]string, error) {
		return c.refers.Refer(time.Now(), from, name, without), nil
	}
	for i := range n {
		m := &member{c: c, dest: place{make([]byte, size)}}
		name := fmt.Sprintf("n%d", i)
		m.holder = NewHolder(64<<20, func(context.Context, string, []byte) (Object, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.relay == nil {
				return nil, errors.New("not here")
			}
			if err := m.relay.Await(context.Background(), 0, 0); err != nil {
				return nil, err
			}
			return relayed{m.relay, m}, nil
		})
		m.client = NewClient(64<<20, func(ctx context.Context, to string) (net.Conn, error) { return c.dial(ctx, name, to) })
		t.Cleanup(func() { m.client.Close() })
		c.nodes[name] = m
	}
	return c
}

func (c *crowd) dial(ctx context.Context, from, to string) (net.Conn, error) {
	h := c.source
	if to != "source" {
		h = c.nodes[to].holder
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	there, err := l.Accept()
	if err != nil {
		return nil, err
	}
	c.wait.Go(func() {
		defer there.Close()
		_ = h.Serve(context.Background(), there, from)
	})
	return here, nil
}

// fetch is what a node does to have the object.
func (m *member) fetch(ctx context.Context) error {
	name := []byte("it")
	t, err := NewTransfer(name, 0, int64(len(m.c.data)), m.dest)
	if err != nil {
		return err
	}
	relay := NewRelay(t, bytes.NewReader(m.dest.b))
	m.mu.Lock()
	m.relay = relay
	m.mu.Unlock()
	return m.client.RunReferred(ctx, t, "source")
}

func (c *crowd) check(m *member, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Error(err)
	} else if !bytes.Equal(m.dest.b, c.data) {
		c.t.Error("other bytes came than were sent")
	}
}

// TestCrowd has eight nodes fetch one object at one time: it leaves the source
// about once, and each node about once.
func TestCrowd(t *testing.T) {
	const size = 24 << 20
	c := newCrowd(t, size, 8)
	var wait sync.WaitGroup
	for _, m := range c.nodes {
		wait.Go(func() { c.check(m, m.fetch(t.Context())) })
	}
	wait.Wait()
	if got := float64(c.reads.Load()) / size; got > 1.3 {
		t.Errorf("the source gave %.2f copies", got)
	}
	for name, m := range c.nodes {
		if got := float64(m.reads.Load()) / size; got > 2.5 {
			t.Errorf("node %s gave %.2f copies", name, got)
		}
	}
}

// TestCrowdLosses has nodes fetch an object while half of them give nothing: who
// was sent to them goes to others, or to the source.
func TestCrowdLosses(t *testing.T) {
	c := newCrowd(t, 16<<20, 8)
	i := 0
	for _, m := range c.nodes {
		m.dead.Store(i%2 == 0)
		i++
	}
	var wait sync.WaitGroup
	for _, m := range c.nodes {
		wait.Go(func() { c.check(m, m.fetch(t.Context())) })
	}
	wait.Wait()
}

// TestRelayOver has a node's transfer fail while another waits for it: the other
// is told, and goes to the source.
func TestRelayOver(t *testing.T) {
	c := newCrowd(t, 16<<20, 2)
	first, second := c.nodes["n0"], c.nodes["n1"]
	tr, err := NewTransfer([]byte("it"), 0, int64(len(c.data)), first.dest)
	if err != nil {
		t.Fatal(err)
	}
	first.relay = NewRelay(tr, bytes.NewReader(first.dest.b))
	c.refers.Refer(time.Now(), "n0", []byte("it"), nil) // n0 has asked, and fetches nothing
	done := make(chan error, 1)
	go func() { done <- second.fetch(t.Context()) }()
	for { // until who serves the second waits for the first's chunks
		tr.mu.Lock()
		waits := tr.news != nil
		tr.mu.Unlock()
		if waits {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it was fetched without the first: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	told := make(chan error, 1)
	go func() { told <- first.relay.Await(context.Background(), 0, 1) }()
	first.relay.Close()
	if err := <-told; !errors.Is(err, ErrOver) {
		t.Errorf("who waits at a relay that is over: %v", err)
	}
	c.check(second, <-done)
	if _, err := first.relay.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrOver) {
		t.Errorf("a relay that is over gives %v", err)
	}
}

// TestReferrals holds, for random questions, that no two nodes can wait for each
// other: each is sent to such as asked before it did.
func TestReferrals(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var refers Referrals
	now := time.Unix(0, 0)
	first := map[string]int{} // when a node asked first since it was last dropped
	for i := range 20_000 {
		node := fmt.Sprint("n", r.IntN(40))
		now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		var without []string
		if r.IntN(10) == 0 {
			without = []string{fmt.Sprint("n", r.IntN(40))}
		}
		to := refers.Refer(now, node, []byte("it"), without)
		listed := map[string]int{}
		for j, f := range refers.of["it"].nodes {
			listed[f.node] = j
		}
		at, ok := listed[node]
		if !ok || len(to) > referMost {
			t.Fatalf("step %d: %s is not listed, or sent to %v", i, node, to)
		}
		for name := range first {
			if _, still := listed[name]; !still {
				delete(first, name)
			}
		}
		if _, known := first[node]; !known {
			first[node] = i
		}
		for _, other := range to {
			j, ok := listed[other]
			if !ok || j >= at || first[other] >= first[node] || slices.Contains(without, other) {
				t.Fatalf("step %d: %s is sent to %s, of %v", i, node, other, refers.of["it"].nodes)
			}
		}
	}
	for i := range 3 * referObjects {
		refers.Refer(now, "n", fmt.Append(nil, i), nil)
	}
	if n := len(refers.of); n > referObjects {
		t.Errorf("%d objects are remembered", n)
	}
	refers.Forget("n")
	for name, w := range refers.of {
		if slices.ContainsFunc(w.nodes, func(f fetcher) bool { return f.node == "n" }) {
			t.Fatalf("a node that was forgotten is still sent to, for %s", name)
		}
	}
}

func FuzzReadNodes(f *testing.F) {
	f.Add([]byte{1, 'a', 2, 'b', 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes, err := readNodes(b)
		if err != nil {
			return
		}
		var again []byte
		for _, n := range nodes {
			again = append(append(again, byte(len(n))), n...)
		}
		if !bytes.Equal(again, b) || len(nodes) > maxReferred {
			t.Fatalf("%q was read as %q", b, nodes)
		}
	})
}
