package peer_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/peer/peertest"
)

// TestProperties runs three nodes over a network that loses, delays, doubles,
// cuts and parts, has them start again and call each other dead, and holds what
// must be true of every session:
//
//   - what one incarnation sent to another arrives in order, each once, and
//     nothing else does;
//   - nothing comes from an incarnation before Up and after Down, and Down comes
//     once;
//   - when all is well again, everything arrives that was sent between the
//     incarnations that are there.
func TestProperties(t *testing.T) {
	seed := rand.Uint64()
	if v := os.Getenv("WRAY_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("seed %d; WRAY_SEED=%d begins with it again", seed, seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	tried := 0
	for run := range 25 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, rnd)
			defer w.close()
			if err := w.live(); err != nil {
				t.Fatalf("seed %d, run %d: %v", seed, run, err)
			}
			for _, n := range w.nodes {
				tried += n.received
			}
		})
	}
	if tried < 5000 {
		t.Errorf("%d messages in all: nothing was tried", tried)
	}
}

type world struct {
	t     *testing.T
	rnd   *rand.Rand
	net   *peertest.Network
	nodes []*node
	sent  map[[2]peer.Node]int // between incarnations
}

// node is one incarnation, and its handler.
type node struct {
	w    *world
	self peer.Node
	mesh *peer.Mesh

	mu       sync.Mutex
	got      map[peer.Node]int // messages of each incarnation
	status   map[peer.Node]peer.Status
	received int
	err      error
}

func (n *node) Receive(from peer.Node, messages [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.status[from]; s == 0 || s == peer.Down {
		n.err = errors.Join(n.err, fmt.Errorf("%v received from %v, which is %v", n.self, from, s))
	}
	for _, m := range messages {
		var to, number uint64
		to, number = binary.BigEndian.Uint64(m), binary.BigEndian.Uint64(m[8:])
		if to != n.self.Incarnation || number != uint64(n.got[from]) {
			n.err = errors.Join(n.err, fmt.Errorf("%v received of %v: number %d for #%d, after %d", n.self, from, number, to, n.got[from]))
		}
		n.got[from]++
		n.received++
	}
}

func (n *node) Change(of peer.Node, to peer.Status, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if was := n.status[of]; was == peer.Down || was == to || was == 0 && to == peer.Unreachable {
		n.err = errors.Join(n.err, fmt.Errorf("%v has %v for %v after %v: %s", n.self, of, to, was, why))
	}
	n.status[of] = to
}

func newWorld(t *testing.T, rnd *rand.Rand) *world {
	w := &world{t: t, rnd: rnd, net: peertest.NewNetwork(rand.New(rand.NewPCG(rnd.Uint64(), 0))), sent: map[[2]peer.Node]int{}}
	for i := range 3 {
		w.nodes = append(w.nodes, nil)
		w.boot(i, 1)
	}
	w.tell()
	return w
}

func (w *world) boot(i int, incarnation uint64) {
	n := &node{w: w, self: peer.Node{Name: string(rune('a' + i)), Incarnation: incarnation},
		got: map[peer.Node]int{}, status: map[peer.Node]peer.Status{}}
	c := peer.Config{Messages: 32}
	n.mesh = peer.NewMesh(c, n.self, w.net.Carrier(n.self.Name), n, nil)
	w.net.Listen(n.self.Name, func(from string, c peer.Conn) { n.mesh.Accept(from, c) })
	w.nodes[i] = n
}

// tell has all learn of all, as membership would.
func (w *world) tell() {
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			if n != o {
				n.mesh.Learn(o.self, o.self.Name)
			}
		}
	}
}

func (w *world) close() {
	for _, n := range w.nodes {
		w.net.Listen(n.self.Name, nil)
		n.mesh.Close()
	}
	w.net.Cut()
}

func (w *world) check() error {
	var err error
	for _, n := range w.nodes {
		n.mu.Lock()
		err = errors.Join(err, n.err)
		n.mu.Unlock()
	}
	return err
}

func (w *world) send(n, o *node) {
	k := [2]peer.Node{n.self, o.self}
	m := binary.BigEndian.AppendUint64(nil, o.self.Incarnation)
	m = binary.BigEndian.AppendUint64(m, uint64(w.sent[k]))
	switch err := n.mesh.TrySend(o.self, m); {
	case err == nil:
		w.sent[k]++
	case !errors.Is(err, peer.ErrFull) && !errors.Is(err, peer.ErrGone):
		w.t.Errorf("%v to %v: %v", n.self, o.self, err)
	}
}

func (w *world) live() error {
	f := func() float64 { return w.rnd.Float64() * 0.05 }
	w.net.SetFaults(peertest.Faults{Drop: f(), Double: f(), Cut: f() / 4, MaxDelay: time.Duration(w.rnd.Int64N(int64(50 * time.Millisecond)))})
	for range 400 {
		i, k := w.rnd.IntN(3), w.rnd.IntN(3)
		n, o := w.nodes[i], w.nodes[k]
		if n == o {
			continue
		}
		switch w.rnd.IntN(40) {
		case 0:
			w.net.Part(n.self.Name, o.self.Name, true)
		case 1, 2:
			w.net.Part(n.self.Name, o.self.Name, false)
		case 3:
			w.net.Cut()
		case 4:
			if w.rnd.IntN(3) == 0 {
				w.net.Listen(n.self.Name, nil)
				n.mesh.Close()
				if err := w.check(); err != nil {
					return err
				}
				w.boot(i, n.self.Incarnation+1)
				if w.rnd.IntN(2) == 0 {
					for _, p := range w.nodes {
						p.mesh.Dead(n.self, "test")
					}
				}
				if w.rnd.IntN(2) == 0 {
					w.tell()
				}
				// The new one is to be spoken to, also by who knows it by its
				// own greeting alone.
				w.nodes[i].mesh.Learn(o.self, o.self.Name)
			}
		case 5:
			time.Sleep(time.Duration(w.rnd.Int64N(int64(3 * time.Second))))
		case 6:
			time.Sleep(time.Duration(w.rnd.Int64N(int64(100 * time.Millisecond))))
		default:
			for range w.rnd.IntN(8) {
				w.send(n, o)
			}
		}
	}
	// All is well again.
	w.net.SetFaults(peertest.Faults{})
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			w.net.Part(n.self.Name, o.self.Name, false)
		}
	}
	w.tell()
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			if n != o {
				n.mesh.Connect(o.self.Name)
			}
		}
	}
	time.Sleep(20 * time.Second)
	synctest.Wait()
	for _, n := range w.nodes {
		for _, o := range w.nodes {
			if n == o {
				continue
			}
			o.mu.Lock()
			got, status := o.got[n.self], o.status[n.self]
			o.mu.Unlock()
			if want := w.sent[[2]peer.Node{n.self, o.self}]; got != want || status != peer.Up {
				return fmt.Errorf("%v has %d of %d messages from %v, which is %v", o.self, got, want, n.self, status)
			}
		}
	}
	return w.check()
}
