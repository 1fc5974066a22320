package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/host/cluster/clustertest"
	"github.com/wray-project/wray/host/cluster/gossip"
	"github.com/wray-project/wray/internal/testenv"
)

// probe is short, so that who does not answer is noticed soon.
const probe = 200 * time.Millisecond

var key = bytes.Repeat([]byte{7}, gossip.KeySize)

// loopback is the real network of this machine, with links that can be cut.
type loopback struct {
	mu   sync.Mutex
	cuts map[[2]string]bool // guarded by mu
	half map[string]int     // the packets of those that lose every other one, guarded by mu
}

func (w *loopback) Settle() time.Duration { return 12 * probe }
func (w *loopback) Cut(a, b string)       { w.set(a, b, true) }
func (w *loopback) Mend(a, b string)      { w.set(a, b, false) }

func (w *loopback) set(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]string{a, b}], w.cuts[[2]string{b, a}] = cut, cut
}

func (w *loopback) cut(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cuts[[2]string{a, b}]
}

// loses tells whether a packet that is sent now is one that is lost.
func (w *loopback) loses(from string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, some := w.half[from]
	if some {
		w.half[from] = n + 1
	}
	return n%2 == 1
}

func (w *loopback) New(t *testing.T, m cluster.Member, at string) cluster.Membership {
	o, addr := w.options(t, at)
	m.Addr = addr
	g, err := gossip.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// options listens on both ports of an address.
func (w *loopback) options(t *testing.T, at string) (gossip.Options, string) {
	if at == "" {
		at = "127.0.0.1:0"
	}
	for range 16 {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			l.Close()
			continue // another's
		}
		return gossip.Options{Keys: [][]byte{key}, Packets: &lossy{p, addr, w}, Streams: l, Probe: probe,
			Dial: func(ctx context.Context, to string) (net.Conn, error) {
				if w.cut(addr, to) {
					return nil, errors.New("the link is cut")
				}
				var d net.Dialer
				return d.DialContext(ctx, "tcp", to)
			}}, addr
	}
	t.Fatal("no port is free for both TCP and UDP")
	panic("not reached")
}

// lossy drops what goes over links that are cut.
type lossy struct {
	net.PacketConn
	addr string
	w    *loopback
}

func (p *lossy) WriteTo(b []byte, to net.Addr) (int, error) {
	if p.w.cut(p.addr, to.String()) || p.w.loses(p.addr) {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

func TestGossip(t *testing.T) {
	clustertest.Test(t, func(*testing.T) clustertest.World { return &loopback{cuts: map[[2]string]bool{}} })
}

// listen starts a node whose links are whole.
func listen(t *testing.T, name string, keys ...[]byte) *gossip.Gossip {
	t.Helper()
	g, err := open(t, cluster.Member{Name: name, Incarnation: 1}, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func open(t *testing.T, m cluster.Member, keys ...[]byte) (*gossip.Gossip, error) {
	t.Helper()
	return openOn(t, &loopback{}, m, keys...)
}

func openOn(t *testing.T, w *loopback, m cluster.Member, keys ...[]byte) (*gossip.Gossip, error) {
	t.Helper()
	o, at := w.options(t, "")
	o.Keys, m.Addr = keys, at
	g, err := gossip.New(m, o)
	if err != nil {
		_, _ = o.Packets.Close(), o.Streams.Close()
		return nil, err
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, nil
}

func addr(g *gossip.Gossip) string {
	p := g.Peers()
	return p[0].Addr
}

// await waits until g knows a member.
func await(t *testing.T, g *gossip.Gossip, want cluster.Member) {
	t.Helper()
	w := g.Watch()
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		peers, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %+v: %v; known are %v", want, err, g.Peers())
		}
		for _, p := range peers {
			if p.Member == want && p.Status == cluster.Alive {
				return
			}
		}
	}
}

// A stranger that has no key of the cluster's is not heard, and hears nothing.
func TestStranger(t *testing.T) {
	other := bytes.Repeat([]byte{8}, gossip.KeySize)
	a, stranger := listen(t, "a", key), listen(t, "stranger", other)
	for _, way := range [][2]*gossip.Gossip{{stranger, a}, {a, stranger}} {
		if err := way[0].Join(t.Context(), addr(way[1])); !errors.Is(err, cluster.ErrNobody) {
			t.Errorf("join across keys: %v, want ErrNobody", err)
		}
	}
	for _, g := range []*gossip.Gossip{a, stranger} {
		if p := g.Peers(); len(p) != 1 {
			t.Errorf("knows %v, want itself alone", p)
		}
	}
	for what, keys := range map[string][][]byte{"none": nil, "a short one": {{1, 2, 3}}} {
		if _, err := open(t, cluster.Member{Name: "a", Incarnation: 1}, keys...); err == nil {
			t.Errorf("started with keys: %s", what)
		}
	}
}

// Garbage on both ports changes nothing.
func TestGarbage(t *testing.T) {
	a, b := listen(t, "a", key), listen(t, "b", key)
	c, err := net.Dial("udp", addr(a))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 300 {
		if _, err := c.Write(bytes.Repeat([]byte{byte(n)}, n*7+1)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		s, err := net.Dial("tcp", addr(a))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(bytes.Repeat([]byte{byte(n), 0xff}, 100))
		s.Close()
	}
	if err := b.Join(t.Context(), addr(a)); err != nil {
		t.Fatal(err)
	}
	await(t, a, b.Peers()[0].Member)
}

// TestBar20 has two hundred strangers try to join, with a key of their own each or
// with none, and twenty thousand packets of junk come, while two members hold
// together and change their key.
func TestBar20(t *testing.T) {
	testenv.NeedBars(t)
	a, b := listen(t, "a", key), listen(t, "b", key)
	if err := b.Join(t.Context(), addr(a)); err != nil {
		t.Fatal(err)
	}
	await(t, a, b.Peers()[0].Member)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)})
	joined, tried := 0, 0
	for range 100 {
		other := make([]byte, gossip.KeySize)
		_, _ = random.Read(other)
		stranger := listen(t, "stranger", other)
		tried += 2
		if err := stranger.Join(t.Context(), addr(a)); err == nil || len(stranger.Peers()) != 1 {
			joined++
		}
		// Without a key there is no node to join with: what it would say is said
		// as plain bytes.
		c, err := net.Dial("tcp", addr(a))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("\x07\x00\x00\x00\x00\x83\xa5Nodes\x01\xa9UserState\x00\xa4Join\xc3"))
		c.Close()
		_ = stranger.Close()
	}
	c, err := net.Dial("udp", addr(a))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	junk := make([]byte, 1400)
	for n := range 20_000 {
		_, _ = random.Read(junk)
		_, _ = c.Write(junk[:1+n%len(junk)])
	}
	if err := a.Rotate(t.Context(), bytes.Repeat([]byte{9}, gossip.KeySize)); err != nil {
		t.Errorf("a change of the key meanwhile: %v", err)
	}
	lost := 0
	for _, g := range []*gossip.Gossip{a, b} {
		alive := 0
		for _, p := range g.Peers() {
			if p.Status == cluster.Alive {
				alive++
			}
		}
		if alive != 2 || len(g.Peers()) != 2 {
			lost++
			t.Errorf("knows %v", g.Peers())
		}
	}
	testenv.Bar(t, 20, joined, fmt.Sprintf("of %d strangers joined, with a key of their own or none", tried), joined == 0)
	testenv.Bar(t, 20, lost, "members lost after 20,000 packets of junk and a change of the key", lost == 0)
}

// After a rotation the old key opens nothing, also where every other packet of
// a node's is lost, its answers among them.
func TestRotate(t *testing.T) {
	a := listen(t, "a", key)
	w := &loopback{half: map[string]int{}}
	b, err := openOn(t, w, cluster.Member{Name: "b", Incarnation: 1}, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Join(t.Context(), addr(a)); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.half[addr(b)] = 0
	w.mu.Unlock()
	next := bytes.Repeat([]byte{9}, gossip.KeySize)
	if err := a.Rotate(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	late, fresh := listen(t, "late", key), listen(t, "fresh", next)
	if err := late.Join(t.Context(), addr(b)); !errors.Is(err, cluster.ErrNobody) {
		t.Errorf("join with the old key: %v, want ErrNobody", err)
	}
	if err := fresh.Join(t.Context(), addr(b)); err != nil {
		t.Errorf("join with the new key: %v", err)
	}
	if err := a.Rotate(t.Context(), next[:5]); err == nil {
		t.Error("rotated to a short key")
	}
}

// All that a member says of itself at most has room in what serf carries.
func TestLongest(t *testing.T) {
	m := cluster.Member{Name: fmt.Sprintf("%0*d", cluster.MaxName, 1), Incarnation: 1<<64 - 1,
		Version: fmt.Sprintf("%0*d", cluster.MaxVersion, 1), Meta: fmt.Sprintf("%0*d", cluster.MaxMeta, 1), Head: true, Draining: true}
	g, err := open(t, m, key)
	if err != nil {
		t.Fatal(err)
	}
	b := listen(t, "b", key)
	if err := b.Join(t.Context(), addr(g)); err != nil {
		t.Fatal(err)
	}
	m.Addr = addr(g)
	await(t, b, m)
}
