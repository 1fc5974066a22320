package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/wray-project/wray"
)

// This file is what the model and its caller know of other nodes.

type modelPeer struct {
	id          PeerID
	node        Node
	load        Load
	unreachable bool
	shut        bool

	avoided map[*modelJob]*modelAvoided // by whom
}

// modelAvoided says until when, and how long this time.
type modelAvoided struct{ until, pause int64 }

func (m *model) peer(id PeerID) *modelPeer {
	for _, p := range m.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (t *modelTask) peerID() PeerID {
	if t.peer == nil {
		return 0
	}
	return t.peer.id
}

// holdsAt reports whether a node with nothing else to do can hold a task.
func holdsAt(p *Spec, n *Node) bool {
	if st := p.Place; st != nil {
		for _, l := range st.Where {
			if !l.Matches(n.Labels) {
				return false
			}
		}
		if st.Kind == OnNode && !st.Soft && st.Node != n.Name {
			return false
		}
	}
	for _, c := range p.Custom {
		if c.Amount > customOf(n.Custom, c.Name) {
			return false
		}
	}
	return p.Resources.CPU <= n.Capacity.CPU && p.Resources.Memory <= n.Capacity.Memory
}

func (m *model) here(p *Spec) bool {
	return holdsAt(p, &Node{Name: m.config.Node, Capacity: m.config.Capacity, Custom: m.config.Custom, Labels: m.config.Labels})
}

func (m *model) elsewhere(p *Spec) bool {
	return !isHome(p) && slices.ContainsFunc(m.peers, func(q *modelPeer) bool { return holdsAt(p, &q.node) })
}

// hope reports whether another node, or one that is promised, could hold a task.
func (m *model) hope(p *Spec) bool {
	return m.elsewhere(p) || !isHome(p) && slices.ContainsFunc(m.promised, func(n Node) bool { return holdsAt(p, &n) })
}

// awaits reports whether a task waits for a node where none could ever hold it.
func (m *model) awaits(p *Spec) bool {
	return m.config.Patience > 0 && !isHome(p) && !m.here(p)
}

// takes reports whether a peer has room for t, as far as it has said.
func (m *model) takes(p *modelPeer, t *modelTask) bool {
	if p.unreachable || p.shut || isHome(&t.Spec) || !holdsAt(&t.Spec, &p.node) {
		return false
	}
	if a := p.avoided[t.job]; a != nil && a.until > m.now {
		return false
	}
	free := p.node.Capacity.Sub(p.load.Held)
	for _, l := range m.tasks {
		if l.peer == p {
			free = free.Sub(l.Resources)
		}
	}
	for _, c := range t.Custom {
		have := customOf(p.node.Custom, c.Name) - customOf(p.load.Custom, c.Name)
		for _, l := range m.tasks {
			if l.peer == p {
				have -= customOf(l.Custom, c.Name)
			}
		}
		if c.Amount > have && c.Amount > 0 {
			return false
		}
	}
	return t.Resources.Fits(free)
}

// diverts reports whether t may go to p though it fits here.
func (m *model) diverts(t *modelTask, p *modelPeer) bool {
	st := t.Place
	if st == nil {
		return false
	}
	if st.Kind == Spread || st.Kind == OnNode && st.Node == p.node.Name {
		return true
	}
	var here, there int64
	for _, n := range st.Near {
		switch n.Peer {
		case 0:
			here += n.Bytes
		case p.id:
			there += n.Bytes
		}
	}
	return there-here >= MoveBytes
}

func (m *model) lend(t *modelTask, p *modelPeer) {
	m.begin(t, lent)
	m.lends++
	t.peer, t.lentAs = p, m.lends
	m.emit(Decision{Kind: Lend, Task: t.ID, Attempt: t.attempt, Job: t.job.id, Peer: p.id})
}

// mustLend holds that nothing waits here that a peer would take, but behind
// others of its kind.
func (m *model) mustLend() error {
	heads := map[string]*modelTask{}
	for _, t := range m.tasks {
		if t.state == queued {
			key := fmt.Sprintf("%v %v %+v %v %v %v", t.job.id, t.Resources, strategyOf(t), customKey(t.Custom), t.inner, isHome(&t.Spec))
			if h := heads[key]; h == nil || t.turn < h.turn {
				heads[key] = t
			}
		}
	}
	if len(heads) >= maxMisses {
		return nil
	}
	for _, t := range heads {
		for _, p := range m.peers {
			if m.takes(p, t) {
				return fmt.Errorf("%v is queued, and %+v would take it", t.ID, p)
			}
		}
	}
	return nil
}

func isHome(p *Spec) bool { return p.Place != nil && p.Place.Home }

func strategyOf(t *modelTask) Strategy {
	if t.Place == nil {
		return Strategy{}
	}
	return t.Place.Strategy
}

func customKey(list []wray.Custom) string {
	list = slices.DeleteFunc(slices.Clone(list), func(c wray.Custom) bool { return c.Amount == 0 })
	slices.SortFunc(list, func(a, b wray.Custom) int { return cmp.Compare(a.Name, b.Name) })
	return fmt.Sprint(list)
}

// lentTo returns what is lent to p, in order.
func (m *model) lentTo(p *modelPeer) []*modelTask {
	var list []*modelTask
	for _, t := range m.tasks {
		if t.peer == p {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *modelTask) int { return cmp.Compare(a.lentAs, b.lentAs) })
	return list
}

func (m *model) peerUnreachable(p *modelPeer) {
	p.unreachable = true
	for _, t := range m.lentTo(p) {
		if t.stop == wray.CodeCanceled && t.doom == 0 {
			m.condemn(t, wray.CodeCanceled)
		}
	}
	m.settle()
}

func (m *model) peerDown(p *modelPeer) {
	p.unreachable = false
	for list := m.lentTo(p); len(list) > 0; list = m.lentTo(p) {
		t := list[0]
		t.deadline = 0
		m.endAttempt(t, Outcome{Err: &wray.Error{Code: wray.CodeWorkerDied}, Retryable: true})
	}
	m.peers = slices.DeleteFunc(m.peers, func(q *modelPeer) bool { return q == p })
	m.settle()
}

func (m *model) refused(t *modelTask, why Refusal) {
	p, home := t.peer, why == OnlyHere
	p.shut = p.shut || why == NoRoom
	if why == NotNow {
		if p.avoided == nil {
			p.avoided = map[*modelJob]*modelAvoided{}
		}
		if a := p.avoided[t.job]; a == nil {
			p.avoided[t.job] = &modelAvoided{m.now + 1e9, 1e9}
		} else if a.until <= m.now {
			a.pause = min(2*a.pause, 60e9)
			a.until = m.now + a.pause
		}
	}
	if home {
		if t.Place == nil {
			t.Place = &Place{}
		}
		t.Place.Home = true
	}
	t.deadline = 0
	switch {
	case t.stop == wray.CodeCanceled:
		m.finish(t, wray.CodeCanceled)
	case home && !m.here(&t.Spec):
		m.finish(t, wray.CodeUnschedulable)
	default:
		t.state, t.peer, t.stop = queued, nil, wray.CodeOK
		t.attempt--
	}
	m.settle()
}

var peerNodes = []Node{
	{Name: "n0", Capacity: wray.Resources{CPU: 2 * wray.OneCPU, Memory: 50}},
	{Name: "n1", Capacity: wray.Resources{CPU: 5 * wray.OneCPU, Memory: 100}, Custom: []wray.Custom{{Name: "x", Amount: 6}, {Name: "other", Amount: 1}}, Labels: []Label{{Key: "zone", Value: "west"}, {Key: "disk", Value: "ssd"}}},
	{Name: "n2", Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 200}, Custom: []wray.Custom{{Name: "b", Amount: 10}}, Labels: []Label{{Key: "zone", Value: "east"}}},
}

func (w *world) peerUp(id PeerID, n Node) {
	w.event("peer %d up: %+v", id, n)
	if err := w.s.PeerUp(w.now, id, n); err != nil {
		w.fatalf("%v", err)
	}
	for _, old := range w.m.peers {
		if old.node.Name == n.Name && old.id != id {
			w.m.peerDown(old)
			break
		}
	}
	p := w.m.peer(id)
	if p == nil {
		p = &modelPeer{id: id}
		w.m.peers = append(w.m.peers, p)
	}
	// A resource that it no longer has is not held of it either.
	p.load.Custom = nil
	p.node, p.unreachable, p.shut = n, false, false
}

func (w *world) peerEvent() {
	kind := w.pick(12)
	if len(w.m.peers) == 0 || kind == 0 && len(w.m.peers) < 5 {
		w.ids++
		w.peerUp(PeerID(w.ids), peerNodes[w.pick(len(peerNodes))])
		return
	}
	p := w.m.peers[w.pick(min(len(w.m.peers), 256))]
	switch kind {
	case 1:
		w.peerUp(p.id, peerNodes[w.pick(len(peerNodes))])
	case 2, 3, 4:
		p.load = Load{Held: wray.Resources{CPU: []wray.CPU{0, 5000, wray.OneCPU}[w.pick(3)], Memory: []int64{0, 10}[w.pick(2)]}}
		if w.oneIn(3) {
			p.load.Custom = []wray.Custom{{Name: "x", Amount: 2}, {Name: "b", Amount: 1}}
		}
		p.shut = false
		w.event("load of peer %d: %+v", p.id, p.load)
		w.s.PeerLoad(w.now, p.id, p.load)
	case 5:
		w.event("peer %d unreachable", p.id)
		w.s.PeerUnreachable(w.now, p.id)
		w.m.peerUnreachable(p)
	case 7:
		w.promise(w.pick(1 << len(peerNodes)))
	case 6:
		w.event("peer %d down", p.id)
		w.s.PeerDown(w.now, p.id)
		w.m.peerDown(p)
	default:
		if t := w.task(isLent); t != nil {
			why := []Refusal{NoRoom, NotNow, OnlyHere}[w.pick(3)]
			w.event("refuse %v #%d %v", t.ID, t.attempt, why)
			w.s.Refused(w.now, t.ID, t.attempt, why, nil)
			w.m.refused(t, why)
		}
	}
}

// promise promises those of peerNodes whose bits are set, where tasks are patient.
func (w *world) promise(which int) {
	if w.m.config.Patience == 0 {
		return
	}
	var list []Promise
	w.m.promised = nil
	for i, n := range peerNodes {
		if which&(1<<i) != 0 {
			n.Name = "" // of which there may be any number
			list = append(list, Promise{n})
			w.m.promised = append(w.m.promised, n)
		}
	}
	w.event("promise %+v", list)
	if err := w.s.Promised(w.now, list); err != nil {
		w.fatalf("%v", err)
	}
	w.m.settle()
}

// place chooses where a task is to run.
func (w *world) place(p *Spec) {
	if w.oneIn(2) {
		return
	}
	st := &Place{Home: w.oneIn(4)}
	p.Place = st
	if w.oneIn(3) {
		st.Kind = StrategyKind(w.pick(3))
	}
	if st.Kind == OnNode {
		st.Node, st.Soft = []string{"here", "n0", "n1", "n2", "n3"}[w.pick(5)], w.oneIn(2)
	}
	if w.oneIn(4) {
		st.Where = []wray.Selector{{Key: "zone", Values: [][]string{{"west"}, {"east"}, {"east", "west"}, nil}[w.pick(4)], Not: w.oneIn(3)}}
	}
	if w.oneIn(3) && len(w.m.peers) > 0 {
		st.Near = []Near{{w.m.peers[w.pick(len(w.m.peers))].id, MoveBytes}, {0, int64(w.pick(2))}}
	}
}

// allPeers has every task find a node that can hold it.
func (w *world) allPeers() {
	for len(w.m.peers) > 0 {
		p := w.m.peers[0]
		w.event("peer %d down", p.id)
		w.s.PeerDown(w.now, p.id)
		w.m.peerDown(p)
		w.compare()
	}
	for _, n := range []string{"n0", "n1", "n2", "n3"} {
		w.ids++
		w.peerUp(PeerID(w.ids), Node{Name: n, Capacity: wray.Resources{CPU: 100 * wray.OneCPU, Memory: 10_000},
			Custom: []wray.Custom{{Name: "x", Amount: 60}, {Name: "b", Amount: 60}, {Name: "other", Amount: 60}},
			Labels: []Label{{Key: "zone", Value: "west"}, {Key: "zone2", Value: "x"}}})
	}
	w.ids++
	w.peerUp(PeerID(w.ids), Node{Name: "n4", Capacity: wray.Resources{CPU: 100 * wray.OneCPU, Memory: 10_000},
		Custom: []wray.Custom{{Name: "x", Amount: 60}, {Name: "b", Amount: 60}, {Name: "other", Amount: 60}},
		Labels: []Label{{Key: "zone", Value: "east"}}})
	for _, t := range slices.Clone(w.m.tasks) {
		// A node may have had a name and a label that now no one has together.
		if !t.state.started() && w.m.task(t.ID) != nil && !w.m.here(&t.Spec) && !w.m.elsewhere(&t.Spec) {
			w.event("cancel %v, which nobody can hold", t.ID)
			w.s.Cancel(w.now, t.ID, true)
			w.m.cancel(t, true)
			w.m.settle()
		}
	}
	w.compare()
}

// BenchmarkPlacement is the life of a task that does not fit here, with so many
// peers to lend it to: its price must not depend on how many.
func BenchmarkPlacement(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 2000} {
		for _, c := range []struct {
			name string
			st   *Place
			busy bool // nine of ten peers are full
		}{
			{"free", nil, false},
			{"busy", nil, true},
			{"spread", &Place{Strategy: Strategy{Kind: Spread}}, false},
			{"labels", &Place{Strategy: Strategy{Where: []wray.Selector{{Key: "half", Values: []string{"1"}}}}}, false},
		} {
			b.Run(fmt.Sprintf("peers=%d,%s", n, c.name), func(b *testing.B) {
				s, jobs := benchScheduler(b, 1)
				for i := range n {
					id := PeerID(i + 1)
					node := Node{Name: fmt.Sprint("n", i), Capacity: wray.Resources{CPU: 4 * wray.OneCPU, Memory: 1 << 30},
						Labels: []Label{{Key: "half", Value: fmt.Sprint(i % 2)}}}
					if err := s.PeerUp(0, id, node); err != nil {
						b.Fatal(err)
					}
					if c.busy && i%10 != 0 {
						s.PeerLoad(0, id, Load{Held: wray.Resources{CPU: 4 * wray.OneCPU}})
					}
				}
				for i := range 2 {
					if err := s.Submit(0, &Spec{ID: wray.ID{Owner: 1, Seq: uint64(i + 1)}, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU}}); err != nil {
						b.Fatal(err)
					}
				}
				ready := s.Ready(nil)
				results := make([]wray.ID, 1)
				var seq uint64
				for b.Loop() {
					seq++
					id := wray.ID{Owner: 2, Seq: seq}
					results[0] = wray.ID{Owner: 3, Seq: seq}
					spec := Spec{ID: id, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}, Results: results, Place: c.st}
					if err := s.Submit(0, &spec); err != nil {
						b.Fatal(err)
					}
					if ready = s.Ready(ready[:0]); len(ready) != 1 || ready[0].Kind != Lend {
						b.Fatalf("%+v", ready)
					}
					s.Finished(0, id, 1, Outcome{})
					ready = s.Ready(ready[:0])
				}
			})
		}
	}
}

// Peers that come and go with names of resources that nobody else has do not use
// up what names there may be. One that a task waits for is kept.
func TestResourceNames(t *testing.T) {
	s, err := New(Config{Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 100}, Node: "here", Custom: []wray.Custom{{Name: "own", Amount: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	job := wray.ID{Owner: 1, Seq: 1}
	if err := s.AddJob(0, job); err != nil {
		t.Fatal(err)
	}
	node := Node{Name: "liar", Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 100}}
	for i := range MaxPeers/wray.MaxCustom + 10 {
		node.Custom = nil
		for k := range wray.MaxCustom {
			node.Custom = append(node.Custom, wray.Custom{Name: fmt.Sprintf("r%d.%d", i, k), Amount: 1})
		}
		if err := s.PeerUp(0, 7, node); err != nil {
			t.Fatalf("the %d. time: %v", i+1, err)
		}
		if i == 0 {
			if err := s.Submit(0, &Spec{ID: wray.ID{Owner: 1, Seq: 2}, Job: job, Name: "t", Resources: wray.Resources{CPU: 5 * wray.OneCPU}, Custom: node.Custom[3:4]}); err == nil {
				t.Fatal("a task that nobody can hold was taken")
			}
			if err := s.Submit(0, &Spec{ID: wray.ID{Owner: 1, Seq: 2}, Job: job, Name: "t", Resources: wray.Resources{CPU: wray.OneCPU}, Custom: node.Custom[3:4]}); err != nil {
				t.Fatal(err)
			}
			s.PeerUnreachable(0, 7)
		}
		s.Ready(nil)
	}
	if n := len(s.custom); n > MaxPeers+1 {
		t.Errorf("%d resources are known", n)
	}
	s.PeerDown(0, 7)
	node.Custom = []wray.Custom{{Name: "r0.3", Amount: 1}, {Name: "own", Amount: 1}}
	if err := s.PeerUp(0, 8, node); err != nil {
		t.Fatal(err)
	}
	if acts := s.Ready(nil); len(acts) != 1 || acts[0].Kind != Lend || acts[0].Peer != 8 {
		t.Errorf("%+v, want that the task is lent", acts)
	}
}

// A peer that says a label twice is refused: it would stand in one list twice.
func TestPeerLabelTwice(t *testing.T) {
	s, err := New(Config{Capacity: wray.Resources{CPU: wray.CPUs(1), Memory: 1}})
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Name: "n", Capacity: wray.Resources{CPU: wray.CPUs(1), Memory: 1}, Labels: []Label{{Key: "zone", Value: "a"}, {Key: "zone", Value: "a"}}}
	if err := s.PeerUp(0, 7, n); err == nil {
		t.Error("a label that is said twice was taken")
	}
	s.PeerDown(0, 7)
}

// TestNewNames names resources that nobody has until there is no room for more, and
// holds that two new ones of one task are two, also when others make room for them.
func TestNewNames(t *testing.T) {
	s, err := New(Config{Node: "a", Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1}, Patience: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	job := wray.ID{Owner: 2, Seq: 1}
	if err := s.AddJob(0, job); err != nil {
		t.Fatal(err)
	}
	var seq uint64
	submit := func(names ...string) (wray.ID, error) {
		seq++
		spec := Spec{ID: wray.ID{Owner: 1, Seq: seq}, Job: job}
		for _, n := range names {
			spec.Custom = append(spec.Custom, wray.Custom{Name: n, Amount: wray.OneUnit})
		}
		err := s.Submit(0, &spec)
		return spec.ID, err
	}
	var there []wray.ID
	for {
		id, err := submit(fmt.Sprintf("r%d", seq))
		if err != nil {
			break
		}
		if there = append(there, id); len(there) > MaxPeers {
			t.Fatalf("%d names are taken", len(there))
		}
	}
	end := func(n int) {
		for _, id := range there[:n] {
			s.Cancel(0, id, false)
		}
		there = there[n:]
		s.Ready(nil)
	}
	end(1)
	if id, err := submit("x", "y"); err == nil {
		t.Errorf("there is room for one, and two are taken: %v", s.tasks.get(id).claim.wants)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
	end(1)
	id, err := submit("x", "y")
	if err != nil {
		t.Fatalf("there is room for two: %v", err)
	}
	if w := s.tasks.get(id).claim.wants; len(w) != 2 || w[0].resource == w[1].resource {
		t.Errorf("its wants are %v", w)
	}
	if len(there) > maxNamed {
		t.Errorf("tasks alone have named %d resources, want %d at most", len(there), maxNamed)
	}
}
