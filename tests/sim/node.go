package sim

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/scheduler"
)

const alive = liveness.Alive

// node is a machine with one worker. What it knows is lost when it crashes.
type node struct {
	w      *world
	index  int
	name   string
	driver bool // it has a driver, and never crashes

	up          bool
	incarnation uint64
	s           *scheduler.Scheduler
	view        *liveness.View
	self        *liveness.Self
	next        uint64 // the last ID
	tickAt      int64

	seen     int  // of the log of the control state
	catching bool // it is about to read it

	peers  []peer             // by node
	open   map[wray.ID]*task  // of this worker's own, not done
	runs   map[wray.ID]*run   // attempts under way here
	guests map[guestKey]*task // attempts of others
	jobs   map[wray.ID]bool   // known to the scheduler
	room   []scheduler.PeerID // who was refused, and is to be told when there is room
	last   *task              // the last that the driver submitted
}

// peer is what a worker keeps of another.
type peer struct {
	id    scheduler.PeerID // of its last incarnation that was up; 0: none
	holds wray.Resources   // what attempts of its have asked for here
	gpus  wray.Amount
}

// guestKey names an attempt by its owner's ID.
type guestKey struct {
	task    wray.ID
	attempt int
}

// work is what a task is: what is sent along with an attempt.
type work struct {
	long   int64 // that it computes
	nested int   // tasks that it submits and waits for
	gpu    bool
	zone   bool
	spread bool
}

// task is a task in one scheduler.
type task struct {
	id     wray.ID
	work   work
	result wray.ID
	parent *run     // that submitted it, in which attempt
	owner  peerRef  // who lent it; zero where it is this worker's own
	key    guestKey // of the owner's
}

// peerRef is an incarnation of a node's worker.
type peerRef struct {
	node        int
	incarnation uint64
}

func (p peerRef) id() scheduler.PeerID {
	return scheduler.PeerID(p.incarnation*maxNodes + uint64(p.node) + 1)
}

func refOf(id scheduler.PeerID) peerRef {
	return peerRef{int((id - 1) % maxNodes), uint64(id-1) / maxNodes}
}

func (n *node) ref() peerRef { return peerRef{n.index, n.incarnation} }

// run is an attempt under way.
type run struct {
	task    *task
	attempt int
	missing int  // nested tasks that are not done
	blocked bool // it waits for them
	over    bool
}

var gpu = []wray.Custom{{Name: "gpu", Amount: wray.Amount(wray.OneCPU)}}

// meanWork is how much a driver's task takes, in durations, with what it submits.
const meanWork = 1.2

var oneCPU = wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}

// offers is what a node has.
func (n *node) offers() scheduler.Node {
	o := scheduler.Node{Name: n.name, Capacity: wray.Resources{CPU: cpus * wray.OneCPU, Memory: 64 << 20}}
	if n.index%8 == 1 {
		o.Custom = []wray.Custom{{Name: "gpu", Amount: 2 * wray.Amount(wray.OneCPU)}}
	}
	if n.index%4 == 1 {
		o.Labels = []scheduler.Label{{Key: "zone", Value: "west"}}
	}
	return o
}

// boot starts an incarnation, which is registered.
func (n *node) boot(inc uint64) {
	w, o := n.w, n.offers()
	s, err := scheduler.New(scheduler.Config{Capacity: o.Capacity, Custom: o.Custom, Node: o.Name, Labels: o.Labels})
	if err != nil {
		w.fail("%v", err)
		return
	}
	n.up, n.incarnation, n.s, n.next, n.tickAt = true, inc, s, 0, 0
	n.view = liveness.NewView(liveness.Config{}, time.Duration(w.now))
	n.self = liveness.NewSelf(liveness.Config{}, 0, time.Duration(w.now))
	n.peers = make([]peer, w.cfg.Nodes)
	n.open, n.runs, n.guests = map[wray.ID]*task{}, map[wray.ID]*run{}, map[guestKey]*task{}
	n.jobs, n.room, n.last = map[wray.ID]bool{}, nil, nil
	n.view.ControlUp(time.Duration(w.now))
	n.seen, n.catching = 0, true // it reads what there is
	w.after(latency, n.catchUp)
	w.after(w.rng.Int64N(heartbeat), func() { n.hear(inc) })
	w.after(renewal, func() { n.renew(inc) })
}

// crash ends the incarnation, and starts the next one later. Where its kernel
// lives on, the connections of its peers close.
func (n *node) crash(down int64, closes bool) {
	if !n.up {
		return
	}
	w, old := n.w, n.ref()
	w.report.Crashes++
	n.up = false
	n.s, n.view, n.peers, n.open, n.runs, n.guests = nil, nil, nil, nil, nil, nil
	if closes {
		for _, o := range w.nodes {
			if o.up && !w.net.cut(n.index, o.index) {
				w.after(latency, func() {
					if o.up {
						o.decide(o.view.Closed(time.Duration(w.now), n.name, old.incarnation))
					}
				})
			}
		}
	}
	w.after(down, func() { n.start(old.incarnation + 1) })
}

// start registers an incarnation as soon as the control state is in reach.
func (n *node) start(inc uint64) {
	if n.w.net.cut(n.index, headquarters) || n.w.net.in[n.index] > 0 {
		n.w.after(ttl/4, func() { n.start(inc) })
		return
	}
	n.w.ctl.register(n.w, n, inc)
	n.boot(inc)
}

// renew keeps the lease.
func (n *node) renew(inc uint64) {
	w := n.w
	if !n.up || n.incarnation != inc {
		return
	}
	now := time.Duration(w.now)
	switch c := &w.ctl; {
	case w.net.cut(n.index, headquarters) || w.net.in[n.index] > 0:
		n.view.ControlDown(now)
	case c.record[n.index] == inc:
		c.renewed[n.index] = w.now
		n.self.Renewed(now)
		n.view.ControlUp(now)
	case !c.register(w, n, inc):
		w.fail("node %s, which lives, was called dead", n.name)
	}
	if !n.self.MayAct(now) && w.net.out[n.index] == 0 {
		w.fail("node %s may not act, though its lease holds", n.name)
	}
	w.after(renewal, func() { n.renew(inc) })
}

// catchUp reads what happened in the control state.
func (n *node) catchUp() {
	w := n.w
	n.catching = false
	if !n.up || w.net.cut(n.index, headquarters) || w.net.in[n.index] > 0 {
		return // once more when that is mended
	}
	now := time.Duration(w.now)
	for ; n.seen < len(w.ctl.log); n.seen++ {
		ch := w.ctl.log[n.seen]
		if ch.node == n.index {
			continue
		}
		name := w.nodes[ch.node].name
		switch ch.what {
		case registered:
			n.decide(n.view.Registered(now, name, ch.incarnation))
		case lapsed:
			n.decide(n.view.Lapsed(now, name, ch.incarnation, int64(n.seen+1)))
		case condemned:
			n.decide(n.view.Condemned(now, name, ch.incarnation))
		}
	}
}

// hear is half a second of messages from all others, and of time.
func (n *node) hear(inc uint64) {
	w := n.w
	if !n.up || n.incarnation != inc {
		return
	}
	now := time.Duration(w.now)
	for _, o := range w.nodes {
		if o != n && o.up && !w.net.cut(o.index, n.index) {
			n.decide(n.view.Reply(now, o.name, o.incarnation))
		}
	}
	n.decide(n.view.Tick(now))
	w.after(heartbeat, func() { n.hear(inc) })
}

// decide carries out what the view has decided.
func (n *node) decide(list []liveness.Decision) {
	w := n.w
	for _, d := range list {
		switch d := d.(type) {
		case liveness.Propose:
			w.after(latency, func() {
				if n.up && !w.net.cut(n.index, headquarters) {
					w.ctl.propose(w, d)
				}
			})
		case liveness.Change:
			i := w.byName[d.Node]
			p := &n.peers[i]
			id := peerRef{i, d.Incarnation}.id()
			switch d.To {
			case liveness.Alive:
				if p.id != id {
					*p = peer{id: id}
				}
				n.step(func(s *scheduler.Scheduler) {
					if err := s.PeerUp(w.now, id, w.nodes[i].offers()); err != nil {
						w.fail("%v", err)
					}
				})
			case liveness.Unreachable:
				w.report.Unreachable++
				n.step(func(s *scheduler.Scheduler) { s.PeerUnreachable(w.now, id) })
			case liveness.Dead:
				n.bury(p, id)
			}
		}
	}
}

// bury ends what was with a peer that is dead.
func (n *node) bury(p *peer, id scheduler.PeerID) {
	if p.id != id {
		return
	}
	n.step(func(s *scheduler.Scheduler) { s.PeerDown(n.w.now, id) })
	var list []*task // in the order of IDs, since the order of maps differs
	for _, t := range n.guests {
		if t.owner.id() == id {
			list = append(list, t)
		}
	}
	sortTasks(list)
	for _, t := range list {
		n.step(func(s *scheduler.Scheduler) { s.Cancel(n.w.now, t.id, true) })
	}
	*p = peer{}
}
