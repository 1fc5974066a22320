package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wray-project/wray"
)

var groupSeed = flag.Uint64("group-seed", 0, "seed of TestGroupCluster; 0: one is drawn")

// TestGroupCluster has four schedulers make groups, run tasks in them, die and
// come back, on a network that delays notes, and says some of them twice. What
// holds: the invariants after each event, that a group that is ready lies as its
// strategy wants it, and that in the end all that was set aside is free.
func TestGroupCluster(t *testing.T) {
	seed := *groupSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range uint64(30) {
		newGroupCluster(t, seed+i).run()
	}
}

// groupCluster is workers and what is on its way between them.
type groupCluster struct {
	t     *testing.T
	seed  uint64
	r     *rand.Rand
	now   int64
	nodes []*groupNode
	ids   uint64
	log   []string
}

type groupNode struct {
	c       *groupCluster
	id      PeerID
	name    string
	s       *Scheduler
	inbox   map[PeerID][]groupMail // from each of the others, in order
	groups  []wray.ID
	ready   map[wray.ID]bool
	ended   map[wray.ID]bool
	running map[wray.ID]*groupTask // here
	lent    map[wray.ID]int        // attempts at others
	parked  map[wray.ID]*groupTask // blocked
}

// groupTask is an attempt that runs: owner and task are zero where it is the node's own.
type groupTask struct {
	attempt int
	owner   PeerID
	task    wray.ID
	number  int
}

// groupMail is a note, or a task that is lent, or its end.
type groupMail struct {
	note    *GroupNote
	lend    *groupLend
	task    wray.ID
	attempt int
	refused bool
	err     *wray.Error
}

type groupLend struct {
	group  wray.ID
	bundle int
	res    wray.Resources
}

var clusterJob = wray.ID{Owner: 9, Seq: 9}

func newGroupCluster(t *testing.T, seed uint64) *groupCluster {
	c := &groupCluster{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 7))}
	for i := range 4 {
		c.nodes = append(c.nodes, nil)
		c.start(i)
	}
	return c
}

func (c *groupCluster) fatalf(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.log[max(0, len(c.log)-60):] {
		c.t.Log(l)
	}
	c.t.Fatalf("%s\nrepeat with: go test ./scheduler -run TestGroupCluster -group-seed %d", fmt.Sprintf(format, args...), c.seed)
}

// start makes node i anew, and has it meet the others.
func (c *groupCluster) start(i int) {
	c.ids++
	n := &groupNode{c: c, id: PeerID(100*(i+1)) + PeerID(c.ids<<16), name: string(rune('a' + i)), inbox: map[PeerID][]groupMail{}, ready: map[wray.ID]bool{}, ended: map[wray.ID]bool{},
		running: map[wray.ID]*groupTask{}, lent: map[wray.ID]int{}, parked: map[wray.ID]*groupTask{}}
	s, err := New(Config{Capacity: wray.Resources{CPU: 3 * wray.OneCPU, Memory: 100}, Node: n.name, Patience: 10_000_000_000, Custom: []wray.Custom{{Name: "x", Amount: wray.OneUnit}}})
	if err != nil {
		c.fatalf("%v", err)
	}
	n.s = s
	if err := s.AddJob(c.now, clusterJob); err != nil {
		c.fatalf("%v", err)
	}
	c.nodes[i] = n
	for k, o := range c.nodes {
		if o != nil && k != i {
			c.meet(n, o)
			c.meet(o, n)
		}
	}
}

func (c *groupCluster) meet(n, o *groupNode) {
	if err := n.s.PeerUp(c.now, o.id, Node{Name: o.name, Capacity: wray.Resources{CPU: 3 * wray.OneCPU, Memory: 100}, Custom: []wray.Custom{{Name: "x", Amount: wray.OneUnit}}}); err != nil {
		c.fatalf("%v", err)
	}
	n.act()
}

func (c *groupCluster) node(id PeerID) *groupNode {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (c *groupCluster) send(from *groupNode, to PeerID, m groupMail) {
	if o := c.node(to); o != nil {
		o.inbox[from.id] = append(o.inbox[from.id], m)
		if m.note != nil && c.r.IntN(6) == 0 {
			o.inbox[from.id] = append(o.inbox[from.id], m)
		}
	}
}

// translate is what a worker does with a note's places: 0 is whose scheduler it is.
func translate(n GroupNote, from, to PeerID) *GroupNote {
	n.At = slices.Clone(n.At)
	for i, at := range n.At {
		if at == 0 {
			at = from
		}
		if at == to {
			at = 0
		}
		n.At[i] = at
	}
	return &n
}

// act carries out what the node's scheduler decides, and checks it.
func (n *groupNode) act() {
	c := n.c
	for _, d := range n.s.Ready(nil) {
		switch d.Kind {
		case Start:
			x, _ := d.Value.(*groupTask)
			if x == nil {
				x = &groupTask{}
			}
			x.attempt = d.Attempt
			n.running[d.Task] = x
		case Stop:
			if d.Peer == 0 {
				n.finish(d.Task, &wray.Error{Code: wray.CodeCanceled})
			} else {
				c.send(n, d.Peer, groupMail{task: d.Task, attempt: d.Attempt})
			}
		case Lend:
			n.lent[d.Task] = d.Attempt
			t := n.s.tasks.get(d.Task)
			if t == nil || t.room == nil {
				continue // it was let go already
			}
			c.send(n, d.Peer, groupMail{lend: &groupLend{t.place.gang.id, t.room.index, t.res}, task: d.Task, attempt: d.Attempt})
		case Done:
			delete(n.running, d.Task)
			delete(n.parked, d.Task)
			delete(n.lent, d.Task)
			if x, _ := d.Value.(*groupTask); x != nil && x.owner != 0 {
				c.send(n, x.owner, groupMail{task: x.task, attempt: x.number, err: d.Err})
			}
		case Resume:
			n.running[d.Task] = n.parked[d.Task]
			delete(n.parked, d.Task)
		case TellGroup:
			c.send(n, d.Peer, groupMail{note: translate(*d.Note, n.id, d.Peer)})
		case GroupReady:
			n.ready[d.Task] = true
			n.layoutHolds(d.Task)
		case GroupEnded:
			n.ended[d.Task] = true
			n.groups = slices.DeleteFunc(n.groups, func(g wray.ID) bool { return g == d.Task })
		}
	}
	if err := n.s.check(); err != nil {
		c.fatalf("node %s: %v", n.name, err)
	}
	if err := n.s.checkIdle(); err != nil {
		c.fatalf("node %s: %v", n.name, err)
	}
}

func (n *groupNode) finish(id wray.ID, err *wray.Error) {
	x := n.running[id]
	if x == nil {
		x = n.parked[id]
	}
	if x == nil {
		return
	}
	delete(n.running, id)
	delete(n.parked, id)
	n.s.Finished(n.c.now, id, x.attempt, Outcome{Err: err, Retryable: err != nil && err.Code == wray.CodeWorkerDied})
	n.act()
}

// layoutHolds holds that a group that is ready lies as it should.
func (n *groupNode) layoutHolds(id wray.ID) {
	g := n.s.gangs.byID[id]
	if g == nil {
		return
	}
	at := map[PeerID]int{}
	for i := range g.bundles {
		at[g.bundles[i].at]++
		if g.bundles[i].at == Nowhere {
			n.c.fatalf("group %v is ready and bundle %d is nowhere", id, i)
		}
	}
	if g.spec.Strategy == wray.GroupStrictPack && len(at) != 1 || g.spec.Strategy == wray.GroupStrictSpread && len(at) != len(g.bundles) {
		n.c.fatalf("group %v (%v) is at %v", id, g.spec.Strategy, at)
	}
}

func (c *groupCluster) event(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf("%d: ", c.now)+fmt.Sprintf(format, args...))
}

func (c *groupCluster) newID(n *groupNode) wray.ID {
	c.ids++
	return wray.ID{Owner: uint64(n.id), Seq: c.ids}
}

func (c *groupCluster) run() {
	for range 1500 {
		c.step(c.nodes[c.r.IntN(len(c.nodes))])
	}
	// In the end nothing is kept.
	for _, n := range c.nodes {
		for _, g := range slices.Clone(n.groups) {
			n.s.RemoveGroup(c.now, g)
			n.act()
		}
	}
	for c.deliverAll() {
	}
	for round := 0; ; round++ {
		busy := false
		for _, n := range c.nodes {
			for _, id := range sortedIDs(n.running, n.parked) {
				n.finish(id, nil)
				busy = true
			}
		}
		for c.deliverAll() {
			busy = true
		}
		c.now += HoldTime
		for _, n := range c.nodes {
			n.s.Tick(c.now)
			n.act()
		}
		if !busy && round > 3 {
			break
		}
	}
	for _, n := range c.nodes {
		n.s.tasks.each(func(t *task) {
			g := t.place.gang
			c.event("%s has task %d left, %v, of group %v: over %v, state %d, bundles %+v, peer %+v", n.name, t.id.Seq, t.state, g.id, g.over, g.state, g.bundles, t.peer())
		})
		if n.s.free != n.s.config.Capacity || len(n.s.gangs.rooms) > 0 || n.s.tasks.n > 0 {
			c.fatalf("node %s has %v free of %v, %d rooms, %d tasks in the end", n.name, n.s.free, n.s.config.Capacity, len(n.s.gangs.rooms), n.s.tasks.n)
		}
		for _, m := range n.s.peers.all.list {
			if (m.peer.lent != wray.Resources{}) {
				c.fatalf("node %s counts %v at %s in the end", n.name, m.peer.lent, m.peer.node.Name)
			}
		}
	}
}

func sortedIDs(maps ...map[wray.ID]*groupTask) []wray.ID {
	var ids []wray.ID
	for _, m := range maps {
		for id := range m {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b wray.ID) int { return slices.Compare([]uint64{a.Owner, a.Seq}, []uint64{b.Owner, b.Seq}) })
	return ids
}

func (c *groupCluster) deliverAll() (some bool) {
	for _, n := range c.nodes {
		for _, o := range c.nodes {
			for len(n.inbox[o.id]) > 0 {
				n.take(o)
				some = true
			}
		}
	}
	return some
}

// take takes the next that o has sent.
func (n *groupNode) take(o *groupNode) {
	c := n.c
	m := n.inbox[o.id][0]
	n.inbox[o.id] = n.inbox[o.id][1:]
	switch {
	case m.note != nil:
		c.event("%s hears from %s: %s %v %v %v", n.name, o.name, m.note.Kind.word(), m.note.Group.Seq, m.note.Bundles, m.note.At)
		n.s.GroupNote(c.now, o.id, m.note)
	case m.lend != nil:
		l := m.lend
		x := &groupTask{owner: o.id, task: m.task, number: m.attempt}
		spec := &Spec{ID: c.newID(n), Job: clusterJob, Name: "lent", Resources: l.res, Value: x,
			Place: &Place{Home: true, Strategy: Strategy{Kind: InGroup, Group: l.group, Bundle: l.bundle}}}
		c.event("%s is lent %d of group %d by %s", n.name, m.task.Seq, l.group.Seq, o.name)
		if !n.s.GroupHasRoom(l.group, l.bundle, l.res, nil) || n.s.Submit(c.now, spec) != nil {
			c.send(n, o.id, groupMail{task: m.task, attempt: m.attempt, refused: true})
			n.act()
			return
		}
	case n.lent[m.task] == m.attempt && m.task.Owner == uint64(n.id):
		if m.refused {
			n.s.Refused(c.now, m.task, m.attempt, NoRoom, nil)
			n.s.PeerLoad(c.now, o.id, Load{}) // it says so when there is room
		} else {
			c.event("%s hears the end of %d at %s: %v", n.name, m.task.Seq, o.name, m.err)
			n.s.Finished(c.now, m.task, m.attempt, Outcome{Err: m.err, Retryable: m.err != nil && m.err.Code == wray.CodeWorkerDied})
		}
	default: // a stop
		for _, id := range sortedIDs(n.running, n.parked) {
			x := n.running[id]
			if x == nil {
				x = n.parked[id]
			}
			if x.owner == o.id && x.task == m.task && x.number == m.attempt {
				n.finish(id, &wray.Error{Code: wray.CodeCanceled})
			}
		}
	}
	n.act()
}

func (c *groupCluster) step(n *groupNode) {
	o := c.nodes[c.r.IntN(len(c.nodes))]
	switch k := c.r.IntN(40); {
	case k < 18:
		if len(n.inbox[o.id]) > 0 {
			n.take(o)
		}
	case k < 21:
		spec := &wray.GroupSpec{Strategy: wray.GroupStrategy(c.r.IntN(4))}
		for range 1 + c.r.IntN(4) {
			b := wray.Bundle{Resources: wray.Resources{CPU: wray.CPU(1+c.r.IntN(3)) * wray.OneCPU / 2, Memory: int64(c.r.IntN(30))}}
			if c.r.IntN(5) == 0 {
				b.Custom = []wray.Custom{{Name: "x", Amount: wray.OneUnit / 2}}
			}
			spec.Bundles = append(spec.Bundles, b)
		}
		if len(n.groups) > 3 {
			return
		}
		id := c.newID(n)
		n.groups = append(n.groups, id)
		c.event("%s makes group %d: %v of %d", n.name, id.Seq, spec.Strategy, len(spec.Bundles))
		if err := n.s.AddGroup(c.now, &Group{ID: id, Job: clusterJob, Spec: spec}); err != nil {
			c.fatalf("%v", err)
		}
		n.act()
	case k < 22:
		if len(n.groups) > 0 {
			g := n.groups[c.r.IntN(len(n.groups))]
			c.event("%s removes group %d", n.name, g.Seq)
			n.s.RemoveGroup(c.now, g)
			n.act()
		}
	case k < 29: // a task in a group of any node's
		if len(o.groups) == 0 {
			return
		}
		g := o.groups[c.r.IntN(len(o.groups))]
		if o != n && !n.s.ExpectGroup(c.now, g, clusterJob, o.id) {
			return
		}
		spec := &Spec{ID: c.newID(n), Job: clusterJob, Name: "t", Resources: wray.Resources{CPU: wray.OneCPU / 2}, Retries: c.r.IntN(3),
			Place: &Place{Strategy: Strategy{Kind: InGroup, Group: g, Bundle: c.r.IntN(3) - 1}}}
		c.event("%s submits %d to group %d, bundle %d", n.name, spec.ID.Seq, g.Seq, spec.Place.Bundle)
		_ = n.s.Submit(c.now, spec)
		n.act()
	case k < 34:
		if ids := sortedIDs(n.running); len(ids) > 0 {
			n.finish(ids[c.r.IntN(len(ids))], nil)
		}
	case k < 36:
		if ids := sortedIDs(n.running); len(ids) > 0 {
			id := ids[c.r.IntN(len(ids))]
			x := n.running[id]
			n.s.Blocked(c.now, id, x.attempt, Wait{})
			delete(n.running, id)
			n.parked[id] = x
			n.act()
		} else if ids := sortedIDs(n.parked); len(ids) > 0 {
			id := ids[c.r.IntN(len(ids))]
			n.s.Unblocked(c.now, id, n.parked[id].attempt)
			n.act()
		}
	case k < 38:
		c.now += c.r.Int64N(2_000_000_000)
		n.s.Tick(c.now)
		n.act()
	case k < 39:
		if n != o {
			c.event("%s does not reach %s for a moment", n.name, o.name)
			n.s.PeerUnreachable(c.now, o.id)
			n.act()
			c.meet(n, o)
		}
	default:
		if c.r.IntN(6) > 0 {
			return
		}
		c.event("%s dies", n.name)
		for i, x := range c.nodes {
			if x == n {
				for _, y := range c.nodes {
					if y != n {
						y.s.PeerDown(c.now, n.id)
						delete(y.inbox, n.id)
						for _, id := range sortedIDs(y.running, y.parked) {
							z := y.running[id]
							if z == nil {
								z = y.parked[id]
							}
							if z != nil && z.owner == n.id {
								y.finish(id, &wray.Error{Code: wray.CodeCanceled})
							}
						}
						y.act()
					}
				}
				c.start(i)
				return
			}
		}
	}
}
