package liveness

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestProperties runs clusters through random kills, cuts and outages of the
// control state, in time steps, and holds what must be true of all of them:
//
//   - what is dead never acts, in its own eyes, and never is alive again;
//   - nobody is called dead while the control state is down, nor within a lease
//     of the proposer's seeing it back;
//   - a cut between two nodes kills nobody;
//   - who is silent is unreachable within the silence and two steps;
//   - when all is well again, the killed are dead and the others alive, soon,
//     in everybody's view.
func TestProperties(t *testing.T) {
	seed := rand.Uint64()
	if v := os.Getenv("WRAY_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	t.Logf("seed %d; WRAY_SEED=%d does it again", seed, seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	deaths := 0
	for run := range 40 {
		w := newWorld(rnd, 2+rnd.IntN(5))
		if err := w.live(); err != nil {
			t.Fatalf("seed %d, run %d, at %v: %v\n%s", seed, run, w.now, err, w.story())
		}
		deaths += len(w.tombs)
	}
	if deaths < 20 {
		t.Errorf("%d deaths in all: nothing was tried", deaths)
	}
}

const (
	unit  = 100 * time.Millisecond
	lease = DefaultTTL
)

// event is a change of the control state, which each node reads in order.
type event struct {
	kind string // register, lapse, condemn
	node int
	inc  uint64
}

type world struct {
	rnd   *rand.Rand
	now   time.Duration
	nodes []*node
	log   []event
	down  bool // the control state has no quorum
	ends  map[int]time.Duration
	tombs map[string]bool
	cut   map[[2]int]bool // from, to
	noise []string
}

type node struct {
	id       int
	inc      uint64
	killed   bool
	noStore  bool // cannot reach the control state
	read     int  // events
	view     *View
	self     *Self
	sawUp    time.Duration // since when the store answers, or negative
	lastBeat map[int]time.Duration
}

func (w *world) say(format string, args ...any) {
	w.noise = append(w.noise, fmt.Sprintf("%v: ", w.now)+fmt.Sprintf(format, args...))
}

func (w *world) story() (out string) {
	for _, s := range w.noise[max(0, len(w.noise)-60):] {
		out += s + "\n"
	}
	return out
}

func name(id int) string { return fmt.Sprint("n", id) }

func newWorld(rnd *rand.Rand, n int) *world {
	w := &world{rnd: rnd, ends: map[int]time.Duration{}, tombs: map[string]bool{}, cut: map[[2]int]bool{}}
	for i := range n {
		w.nodes = append(w.nodes, &node{id: i})
		w.boot(w.nodes[i])
	}
	return w
}

// boot starts the next incarnation of a node. It registers as soon as its old
// record is gone.
func (w *world) boot(n *node) {
	n.inc++
	n.killed, n.self = false, nil
	n.view, n.sawUp, n.read = NewView(Config{}, w.now), -1, 0
	n.lastBeat = map[int]time.Duration{}
	w.say("boot n%d#%d", n.id, n.inc)
}

func (w *world) live() error {
	for range 600 {
		switch w.rnd.IntN(60) {
		case 0:
			n := w.nodes[w.rnd.IntN(len(w.nodes))]
			if !n.killed {
				n.killed = true
				w.say("kill n%d", n.id)
			} else {
				w.boot(n)
			}
		case 1:
			w.down = !w.down
			w.say("control down: %v", w.down)
			if !w.down {
				// As etcd's: each lease has its full time again.
				for id := range w.ends {
					w.ends[id] = w.now + lease
				}
			}
		case 2:
			n := w.nodes[w.rnd.IntN(len(w.nodes))]
			n.noStore = !n.noStore
			w.say("n%d without control: %v", n.id, n.noStore)
		case 3, 4, 5:
			a, b := w.rnd.IntN(len(w.nodes)), w.rnd.IntN(len(w.nodes))
			w.cut[[2]int{a, b}] = !w.cut[[2]int{a, b}]
		}
		if err := w.step(); err != nil {
			return err
		}
	}
	// All is well again.
	w.say("peace")
	if w.down {
		w.down = false
		for id := range w.ends {
			w.ends[id] = w.now + lease
		}
	}
	clear(w.cut)
	for _, n := range w.nodes {
		n.noStore = false
	}
	for range int((3*lease + 5*time.Second) / unit) {
		if err := w.step(); err != nil {
			return err
		}
	}
	for _, n := range w.nodes {
		if n.killed {
			continue
		}
		if n.self == nil || !n.self.MayAct(w.now) {
			return fmt.Errorf("n%d#%d may not act, with all well", n.id, n.inc)
		}
		for _, o := range w.nodes {
			want := Alive
			if o.killed {
				want = Dead
			}
			if s, inc := n.view.Status(name(o.id)); s != want && !(o.killed && s == 0) || !o.killed && inc != o.inc {
				return fmt.Errorf("n%d has n%d#%d for %v, it is #%d and %v", n.id, o.id, inc, s, o.inc, want)
			}
		}
	}
	return nil
}

func (w *world) step() error {
	w.now += unit
	if !w.down {
		for id, end := range w.ends {
			if w.now >= end {
				delete(w.ends, id)
				w.commit("lapse", id, w.holder(id))
			}
		}
	}
	for _, n := range w.nodes {
		if err := w.act(n); err != nil {
			return err
		}
	}
	for _, n := range w.nodes {
		// A node acts by what it believes; one that is dead must not.
		if n.self != nil && !n.killed && n.self.MayAct(w.now) && w.tombs[tomb(n.id, n.inc)] {
			return fmt.Errorf("n%d#%d is dead and acts", n.id, n.inc)
		}
	}
	return nil
}

// holder is the incarnation that registered last.
func (w *world) holder(id int) uint64 {
	for _, e := range slices.Backward(w.log) {
		if e.kind == "register" && e.node == id {
			return e.inc
		}
	}
	return 0
}

func tomb(id int, inc uint64) string { return fmt.Sprint(id, "#", inc) }

func (w *world) commit(kind string, id int, inc uint64) {
	w.log = append(w.log, event{kind, id, inc})
	w.say("%s n%d#%d", kind, id, inc)
}

// act is what a node does in one step, in this order: hear from the store,
// renew, hear from others, tick.
func (w *world) act(n *node) error {
	if n.killed {
		return nil
	}
	reaches := !w.down && !n.noStore
	switch {
	case reaches && n.sawUp < 0:
		n.sawUp = w.now
		n.view.ControlUp(w.now)
	case !reaches && n.sawUp >= 0:
		n.sawUp = -1
		n.view.ControlDown(w.now)
	}
	if reaches {
		if err := w.renew(n); err != nil {
			return err
		}
		for ; n.read < len(w.log); n.read++ {
			e := w.log[n.read]
			var ds []Decision
			switch e.kind {
			case "register":
				ds = n.view.Registered(w.now, name(e.node), e.inc)
			case "lapse":
				ds = n.view.Lapsed(w.now, name(e.node), e.inc, int64(n.read+1))
			case "condemn":
				ds = n.view.Condemned(w.now, name(e.node), e.inc)
			}
			if err := w.decided(n, ds); err != nil {
				return err
			}
		}
	}
	for _, o := range w.nodes {
		if !o.killed && !w.cut[[2]int{o.id, n.id}] && !w.cut[[2]int{n.id, o.id}] {
			n.lastBeat[o.id] = w.now
			if err := w.decided(n, n.view.Reply(w.now, name(o.id), o.inc)); err != nil {
				return err
			}
		}
	}
	if err := w.decided(n, n.view.Tick(w.now)); err != nil {
		return err
	}
	for _, o := range w.nodes {
		s, inc := n.view.Status(name(o.id))
		if s == Alive && inc == o.inc && w.now-n.lastBeat[o.id] > DefaultSilence+2*unit && n.lastBeat[o.id] > 0 {
			return fmt.Errorf("n%d has not heard of n%d#%d since %v and has it for alive", n.id, o.id, inc, n.lastBeat[o.id])
		}
	}
	return nil
}

func (w *world) renew(n *node) error {
	_, leased := w.ends[n.id]
	mine := leased && w.holder(n.id) == n.inc
	switch {
	case w.tombs[tomb(n.id, n.inc)]:
		if n.self != nil {
			n.self.Condemned()
		}
		w.boot(n)
	case mine:
		if w.now%(2*time.Second) == 0 || n.self == nil {
			w.ends[n.id] = w.now + lease
			if n.self == nil {
				n.self = NewSelf(Config{}, 0, w.now)
			}
			n.self.Renewed(w.now)
		}
	case !leased:
		if n.self != nil {
			n.self.Lapsed()
		}
		w.ends[n.id] = w.now + lease
		w.commit("register", n.id, n.inc)
		n.self = NewSelf(Config{}, 0, w.now)
	}
	return nil
}

func (w *world) decided(n *node, ds []Decision) error {
	for _, d := range ds {
		switch d := d.(type) {
		case Propose:
			var id int
			fmt.Sscanf(d.Node, "n%d", &id)
			if n.sawUp < 0 || w.now-n.sawUp < lease {
				return fmt.Errorf("n%d proposes that %s#%d is dead, and has seen the control state since %v", n.id, d.Node, d.Incarnation, n.sawUp)
			}
			if _, leased := w.ends[id]; leased || w.tombs[tomb(id, d.Incarnation)] || w.holder(id) != d.Incarnation {
				continue // the commit's conditions do not hold
			}
			w.tombs[tomb(id, d.Incarnation)] = true
			w.commit("condemn", id, d.Incarnation)
		case Change:
			if d.To == Alive {
				var id int
				fmt.Sscanf(d.Node, "n%d", &id)
				n.lastBeat[id] = w.now // known from now on, heard or not
			}
			if d.To == Alive && n.read >= len(w.log) && w.tombs[d.Node[1:]+"#"+fmt.Sprint(d.Incarnation)] {
				return fmt.Errorf("n%d has %s#%d for alive, which is dead", n.id, d.Node, d.Incarnation)
			}
		}
	}
	return nil
}

// BenchmarkReply is an answer of a node and the question when something is to be
// done next, which a directory asks after each: its price must not depend on how
// many nodes there are.
func BenchmarkReply(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 2000} {
		b.Run(fmt.Sprint("nodes=", n), func(b *testing.B) {
			v := NewView(Config{}, 0)
			v.ControlUp(0)
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprint("n", i)
				v.Registered(0, names[i], 1)
			}
			var now time.Duration
			for i := 0; b.Loop(); i++ {
				now += time.Microsecond
				v.Reply(now, names[i%n], 1)
				v.Tick(now)
				if _, ok := v.Next(); !ok {
					b.Fatal("nothing is to be done")
				}
			}
		})
	}
}
