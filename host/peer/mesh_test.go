package peer_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/peer/peertest"
	"github.com/wray-project/wray/internal/rpc"
)

// twin is a network in memory.
type twin struct{ *peertest.Network }

func newTwin(t *testing.T) peertest.Env {
	return twin{peertest.NewNetwork(rand.New(rand.NewPCG(1, 2)))}
}

func (w twin) Start(t *testing.T, c peer.Config, self peer.Node, h peer.Handler) (*peer.Mesh, string) {
	m := peer.NewMesh(c, self, w.Carrier(self.Name), h, nil)
	w.Listen(self.Name, func(from string, c peer.Conn) { m.Accept(from, c) })
	return m, self.Name
}

func TestTwin(t *testing.T) {
	peertest.Run(t, peertest.Harness{New: newTwin, Bubble: true})
}

// TestTwinFaults is the same, over a network that loses, delays, doubles and
// cuts.
func TestTwinFaults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	peertest.Run(t, peertest.Harness{Bubble: true, New: func(t *testing.T) peertest.Env {
		n := peertest.NewNetwork(rand.New(rand.NewPCG(seed, 0)))
		n.SetFaults(peertest.Faults{Double: 0.2, MaxDelay: 5 * time.Millisecond})
		return twin{n}
	}})
}

// cluster is nodes that speak gRPC over loopback, each with a port.
type cluster struct {
	t     testing.TB
	store control.Store
	reg   *auth.Registrar
	creds map[string]*auth.Credentials

	mu    sync.Mutex
	conns []net.Conn
}

func newCluster(t testing.TB) *cluster {
	a, err := auth.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w := &cluster{t: t, store: control.NewMemory(control.MemoryOptions{}), creds: map[string]*auth.Credentials{}}
	w.reg = &auth.Registrar{Authority: a, Store: w.store}
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *cluster) guard(name string) *auth.Guard {
	w.t.Helper()
	cred := w.creds[name]
	if cred == nil {
		e, err := auth.Enroll(w.t.TempDir(), w.reg.Authority.Cluster(), name)
		if err != nil {
			w.t.Fatal(err)
		}
		g, err := w.reg.Admit(context.Background(), e.Request)
		if err != nil {
			w.t.Fatal(err)
		}
		if cred, err = e.Finish(g, w.reg.Authority.Trust, time.Now()); err != nil {
			w.t.Fatal(err)
		}
		w.creds[name] = cred
	}
	g, err := auth.NewGuard(context.Background(), cred, w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { g.Close() })
	return g
}

func (w *cluster) start(c peer.Config, self peer.Node, h peer.Handler) (*peer.Mesh, string) {
	w.t.Helper()
	g := w.guard(self.Name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	m := peer.NewMesh(c, self, peer.NewCarrier(g), h, nil)
	s := rpc.Serve(&tap{l, w}, rpc.Options{Guard: g, Session: m.Serve})
	w.t.Cleanup(func() { s.Close() })
	return m, l.Addr().String()
}

func (w *cluster) Start(t *testing.T, c peer.Config, self peer.Node, h peer.Handler) (*peer.Mesh, string) {
	return w.start(c, self, h)
}

type tap struct {
	net.Listener
	w *cluster
}

func (l *tap) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.w.conns = append(l.w.conns, c)
	}
	return c, err
}

func (w *cluster) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func TestCarrier(t *testing.T) {
	peertest.Run(t, peertest.Harness{New: func(t *testing.T) peertest.Env { return newCluster(t) }})
}

// echo sends back what it receives.
type echo struct {
	mesh *peer.Mesh
	mu   sync.Mutex
}

func (e *echo) Receive(from peer.Node, messages [][]byte) {
	e.mu.Lock()
	m := e.mesh
	e.mu.Unlock()
	for _, b := range messages {
		m.TrySend(from, b)
	}
}

func (e *echo) Change(peer.Node, peer.Status, string) {}

// sink counts.
type sink struct {
	mu   sync.Mutex
	n    int
	want int
	done chan struct{}
}

func (s *sink) Receive(_ peer.Node, messages [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n += len(messages)
	if s.n >= s.want && s.done != nil {
		close(s.done)
		s.done = nil
	}
}

func (s *sink) await(n int) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = s.n + n
	s.done = make(chan struct{})
	return s.done
}

func (s *sink) Change(peer.Node, peer.Status, string) {}

// BenchmarkRoundTrip is one message and its answer, over TLS on loopback, in one
// process.
func BenchmarkRoundTrip(b *testing.B) {
	w := newCluster(b)
	na, nb := peer.Node{Name: "a", Incarnation: 1}, peer.Node{Name: "b", Incarnation: 1}
	s, e := &sink{}, &echo{}
	ma, _ := w.start(peer.Config{}, na, s)
	defer ma.Close()
	mb, addr := w.start(peer.Config{}, nb, e)
	defer mb.Close()
	e.mu.Lock()
	e.mesh = mb
	e.mu.Unlock()
	ma.Learn(nb, addr)
	m := make([]byte, 64)
	done := s.await(1)
	ma.TrySend(nb, m)
	<-done
	for b.Loop() {
		done := s.await(1)
		ma.TrySend(nb, m)
		<-done
	}
}

// BenchmarkStream is messages one way, as fast as the window lets them.
func BenchmarkStream(b *testing.B) {
	w := newCluster(b)
	na, nb := peer.Node{Name: "a", Incarnation: 1}, peer.Node{Name: "b", Incarnation: 1}
	s := &sink{}
	ma, _ := w.start(peer.Config{}, na, &sink{})
	defer ma.Close()
	mb, addr := w.start(peer.Config{}, nb, s)
	defer mb.Close()
	ma.Learn(nb, addr)
	m := make([]byte, 128)
	done := s.await(1)
	ma.TrySend(nb, m)
	<-done
	b.ResetTimer()
	done = s.await(b.N)
	for range b.N {
		if err := ma.Send(context.Background(), nb, m); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
