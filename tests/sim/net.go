package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wray-project/wray/host/cluster/liveness"
)

// network carries messages in the order they were sent. What is sent into a cut
// waits and is sent again when it is mended, as by the sessions of package peer,
// unless one of the two has died.
type network struct {
	out, in []int            // by node: how many faults cut all that it sends, or is sent
	cuts    map[[2]int32]int // by sender and receiver
	waiting map[[2]int32][]func()
}

// headquarters is the receiver that is the control state.
const headquarters = -1

func newNetwork(nodes int) network {
	return network{out: make([]int, nodes), in: make([]int, nodes), cuts: map[[2]int32]int{}, waiting: map[[2]int32][]func(){}}
}

// cut reports whether what a sends does not reach b.
func (n *network) cut(a, b int) bool {
	if n.out[a] > 0 || b >= 0 && n.in[b] > 0 {
		return true
	}
	return len(n.cuts) > 0 && n.cuts[[2]int32{int32(a), int32(b)}] > 0
}

// send has a message reach b, now or when it can.
func (w *world) send(a, b int, do func()) {
	key := [2]int32{int32(a), int32(b)}
	if w.net.cut(a, b) || len(w.net.waiting) > 0 && len(w.net.waiting[key]) > 0 {
		w.net.waiting[key] = append(w.net.waiting[key], do)
		return
	}
	w.after(latency, do)
}

// mended sends what has waited for links that are whole again.
func (w *world) mended(a, b int) {
	key := [2]int32{int32(a), int32(b)}
	if w.net.cut(a, b) {
		return
	}
	for _, do := range w.net.waiting[key] {
		w.after(latency, do)
	}
	delete(w.net.waiting, key)
}

// isolate cuts all links of a node for a while, that to the control state too.
func (w *world) isolate(a int, d int64) {
	w.net.out[a]++
	w.net.in[a]++
	w.after(d, func() {
		w.net.out[a]--
		w.net.in[a]--
		for b := range w.nodes {
			w.mended(a, b)
			w.mended(b, a)
		}
		w.nodes[a].catchUp()
	})
}

// cutOne cuts what a sends to b for a while.
func (w *world) cutOne(a, b int, d int64) {
	key := [2]int32{int32(a), int32(b)}
	w.net.cuts[key]++
	w.after(d, func() {
		if w.net.cuts[key]--; w.net.cuts[key] == 0 {
			delete(w.net.cuts, key)
		}
		w.mended(a, b)
	})
}

// control is the control state, as far as nodes are in it: their records, bound
// to leases, and who is dead. What happens to it is a log, which nodes follow.
type control struct {
	record  []uint64 // by node: the incarnation that is registered, or 0
	renewed []int64
	dead    []uint64 // up to which incarnation
	log     []change
}

// change is an entry of the log, whose revision is its place, from 1.
type change struct {
	node        int
	incarnation uint64
	what        changeKind
}

type changeKind uint8

const (
	registered changeKind = iota + 1
	lapsed
	condemned
)

func newControl(nodes int) control {
	return control{record: make([]uint64, nodes), renewed: make([]int64, nodes), dead: make([]uint64, nodes)}
}

func (c *control) append(w *world, ch change) {
	c.log = append(c.log, ch)
	for _, n := range w.nodes {
		if n.up && !n.catching {
			n.catching = true
			w.after(latency, n.catchUp)
		}
	}
}

// register makes a node's record, in place of an older incarnation's, which is
// dead then. False: the incarnation is dead.
func (c *control) register(w *world, n *node, inc uint64) bool {
	if c.dead[n.index] >= inc {
		return false
	}
	if inc > 1 && c.dead[n.index] < inc-1 {
		c.condemn(w, n.index, inc-1)
	}
	c.record[n.index], c.renewed[n.index] = inc, w.now
	c.append(w, change{n.index, inc, registered})
	w.at(w.now+ttl, func() { c.expire(w, n.index, inc) })
	return true
}

// expire ends a lease that was not renewed.
func (c *control) expire(w *world, i int, inc uint64) {
	if c.record[i] != inc {
		return
	}
	if end := c.renewed[i] + ttl; end > w.now {
		w.at(end, func() { c.expire(w, i, inc) })
		return
	}
	c.record[i] = 0
	c.append(w, change{i, inc, lapsed})
}

// condemn calls an incarnation dead.
func (c *control) condemn(w *world, i int, inc uint64) {
	c.dead[i] = inc
	w.report.Condemned++
	c.append(w, change{i, inc, condemned})
}

// propose is what a node asks for whose view says that another is dead.
func (c *control) propose(w *world, p liveness.Propose) {
	i := w.byName[p.Node]
	if c.record[i] == 0 && c.dead[i] < p.Incarnation {
		c.condemn(w, i, p.Incarnation)
	}
}

// plan draws what drivers submit, and what breaks.
func (w *world) plan() {
	rate := w.cfg.Load * float64(w.cfg.Nodes*cpus) / duration.Seconds() / meanWork // tasks of drivers a second
	mean := float64(time.Second) / rate
	arrivals := rand.New(rand.NewPCG(w.cfg.Seed, 2))
	var arrive func()
	i := 0
	arrive = func() {
		w.nodes[i%w.report.Drivers].submitRoot()
		if i++; i < w.cfg.Tasks {
			w.after(int64(arrivals.ExpFloat64()*mean), arrive)
		}
	}
	w.after(10*latency, arrive) // drivers have heard of the nodes by then
	w.calm = int64(mean * float64(w.cfg.Tasks))
	if w.cfg.Quiet {
		return
	}
	end := max(w.calm, int64(time.Second))
	draw := func() int64 { return 1 + w.rng.Int64N(end) }
	others := w.cfg.Nodes - w.report.Drivers
	for range max(2, w.cfg.Nodes/25) {
		n := w.nodes[w.report.Drivers+w.rng.IntN(others)]
		down := int64(time.Second) + w.rng.Int64N(int64(25*time.Second)) // sooner than its lease ends, or later
		closes := w.rng.IntN(2) == 0
		at := draw()
		w.calm = max(w.calm, at+down+int64(20*time.Second))
		w.at(at, func() { n.crash(down, closes) })
	}
	last := make(map[int][]int64) // blackouts of a node
	for range max(2, w.cfg.Nodes/20) {
		a, b, at := w.rng.IntN(w.cfg.Nodes), w.rng.IntN(w.cfg.Nodes), draw()
		w.calm = max(w.calm, at+blackout+int64(5*time.Second))
		// Two in a row are longer than 5 s, and so is a lease that had to be renewed in
		// between.
		if !slices.ContainsFunc(last[a], func(t int64) bool { return max(t, at)-min(t, at) < 2*ttl }) {
			last[a] = append(last[a], at)
			w.report.Blackouts++
			w.at(at, func() { w.isolate(a, blackout) })
		}
		if w.report.Blackouts++; a != b {
			w.at(at, func() { w.cutOne(a, b, blackout); w.cutOne(b, a, blackout) })
		}
	}
	for range max(1, w.cfg.Nodes/200) {
		var groups [2][]int
		for range min(20, w.cfg.Nodes/2) {
			groups[0], groups[1] = append(groups[0], w.rng.IntN(w.cfg.Nodes)), append(groups[1], w.rng.IntN(w.cfg.Nodes))
		}
		at, long := draw(), int64(time.Second)+w.rng.Int64N(int64(15*time.Second))
		w.calm = max(w.calm, at+long+int64(5*time.Second))
		w.report.Partitions++
		w.at(at, func() {
			for _, a := range groups[0] {
				for _, b := range groups[1] {
					if a != b {
						w.cutOne(a, b, long)
					}
				}
			}
		})
	}
}
