package scheduler

import (
	"slices"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
)

// StrategyKind says which nodes a task goes to first.
type StrategyKind uint8

// The kinds of strategies.
const (
	// Here: the node of the worker that submits, as long as it has room; then
	// another. The default.
	Here StrategyKind = iota

	// Spread: the less busy of two nodes drawn out of all.
	Spread

	// OnNode: the node called Strategy.Node. With Soft, another while that is
	// not there or has no room.
	OnNode

	// InGroup: where the bundle Strategy.Bundle of Strategy.Group is. It goes with
	// nothing else.
	InGroup
)

// Strategy says where a task is to run. The zero Strategy is the default.
type Strategy struct {
	Kind   StrategyKind
	Node   string
	Soft   bool
	Group  wray.ID
	Bundle int             // wray.AnyBundle: whichever has room
	Where  []wray.Selector // all of which the node's labels must match, whatever the kind
}

// StrategyOf returns the strategy of a placement; nil is the default.
func StrategyOf(p *wray.Placement) Strategy {
	if p.IsZero() {
		return Strategy{}
	}
	st := Strategy{Where: p.Where}
	switch {
	case p.Node != "":
		st.Kind, st.Node, st.Soft = OnNode, p.Node, p.Soft
	case p.Spread:
		st.Kind = Spread
	}
	return st
}

// Place is where a task may run, and is better run.
type Place struct {
	Strategy
	Home bool   // on this node alone
	Near []Near // where its arguments are, as far as they are there
}

// Near says how many bytes of a task's arguments are at a worker.
type Near struct {
	Peer  PeerID // 0: this one
	Bytes int64
}

// MoveBytes is how many bytes of arguments more a peer must have than this
// node for a task to go there though there is room here: what takes longer to
// move than a task takes to be lent, some milliseconds.
const MoveBytes = 1 << 20

// maxNear bounds the peers that a task keeps note of.
const maxNear = 4

// placement is where a task may run, other than by default. There is one for
// all tasks alive that have the same, so that placements are compared by their
// address.
type placement struct {
	Strategy
	home  bool // on this node alone
	key   string
	tasks int   // alive that have it
	here  bool  // this node is allowed
	gang  *gang // of InGroup
}

// away is what is known of a task that may run elsewhere. Few have it.
type away struct {
	near  []Near // where its arguments are
	peer  *peer  // that it is lent to
	draws uint32 // of peers, so far
}

// awayOf returns t's away, made where there is none.
func (t *task) awayOf() *away {
	if t.away == nil {
		t.away = &away{}
	}
	return t.away
}

// peer returns the peer that t is lent to, or nil.
func (t *task) peer() *peer {
	if t.away == nil {
		return nil
	}
	return t.away.peer
}

// home reports whether t may run on this node alone.
func (t *task) home() bool { return t.place != nil && t.place.home }

// allows reports whether a task of strategy l may run on a node. nil is the
// default strategy.
func (l *placement) allows(n *Node) bool {
	return l == nil || n.has(l.Where) && (l.Kind != OnNode || l.Soft || l.Node == n.Name)
}

// picky reports whether a strategy keeps a task off this node, and lets it run
// on others.
func (l *placement) picky() bool { return l != nil && !l.here && !l.home }

// losePatience has tasks that are queued, and that no node could ever hold now
// that one is gone, wait from now on as long as one that comes then. was is that
// node as it was: who waits for another has lost nothing, and goes on as before,
// so that peers that come and go make nobody wait for ever.
func (s *Scheduler) losePatience(was *peer) {
	if s.config.Patience == 0 {
		return
	}
	lost := func(t *task) bool {
		return t.yonder() && was.couldHold(t.res, t.claim.all(), t.place) && !s.hope(t.res, t.claim.all(), t.place)
	}
	for _, j := range s.active {
		for _, q := range j.queues { // each of one shape, so that one answer holds for all
			if q.first == nil || !lost(q.first) {
				continue
			}
			for t := q.first; t != nil; t = t.next {
				s.beginPatience(t)
			}
		}
		answers := map[shape]bool{}
		for t := j.abroad.first; t != nil; t = t.next {
			answer, known := answers[t.shape()]
			if !known {
				answer = lost(t)
				answers[t.shape()] = answer
			}
			if answer {
				s.beginPatience(t)
			}
		}
	}
}

// beginPatience has t, queued, wait for a node that is not there, from now on.
func (s *Scheduler) beginPatience(t *task) {
	s.stopTimer(t)
	s.setTimer(t, s.config.Patience)
}

// bePatient begins t's patience, which has just been queued, where it needs any.
func (s *Scheduler) bePatient(t *task) {
	if s.config.Patience > 0 && t.yonder() && !s.hope(t.res, t.claim.all(), t.place) {
		s.beginPatience(t)
	}
}

// placementFor returns the placement of a strategy, not counted yet, or nil for
// the default. Who does not use it after all calls leavePlacement.
func (s *Scheduler) placementFor(st *Strategy, home bool) *placement {
	if st.Kind == Here && len(st.Where) == 0 && !home {
		return nil
	}
	var key strings.Builder
	key.WriteByte('0' + byte(st.Kind))
	if home {
		key.WriteByte('h')
	}
	if st.Soft {
		key.WriteByte('s')
	}
	if st.Kind == InGroup {
		key.WriteString(st.Group.String())
		key.WriteString(strconv.Itoa(st.Bundle))
	}
	key.WriteString(strconv.Quote(st.Node))
	where := slices.Clone(st.Where)
	slices.SortFunc(where, func(a, b wray.Selector) int { return strings.Compare(a.String(), b.String()) })
	for _, w := range where {
		key.WriteString(strconv.Quote(w.String()))
	}
	l := s.placements[key.String()]
	if l == nil {
		l = &placement{Strategy: *st, home: home, key: key.String()}
		l.Where = where
		l.here = l.allows(&s.node)
		if st.Kind == InGroup {
			l.gang = s.gangs.byID[st.Group]
		}
		if s.placements == nil {
			s.placements = map[string]*placement{}
		}
		s.placements[l.key] = l
	}
	return l
}

// put gives t its placement, which may be nil, and what is known of its
// arguments.
func (s *Scheduler) put(t *task, place *placement, near []Near) {
	if t.place = place; place != nil {
		place.tasks++
	}
	for _, n := range near {
		t.located(n)
	}
}

// keepHome has t run on this node alone from now on.
func (s *Scheduler) keepHome(t *task) {
	old := t.place
	var st Strategy
	if old != nil {
		st = old.Strategy
	}
	l := s.placementFor(&st, true)
	if old.in() != nil {
		l.gang = old.gang // which may be no more
	}
	s.put(t, l, nil)
	if old != nil {
		old.tasks--
		s.leavePlacement(old)
	}
}

// leavePlacement forgets l where no task has it.
func (s *Scheduler) leavePlacement(l *placement) {
	if l != nil && l.tasks == 0 {
		delete(s.placements, l.key)
	}
}

// rosterFor returns the shortest list that has every peer which could hold a
// task.
func (s *Scheduler) rosterFor(wants []want, place *placement) *roster {
	ps := &s.peers
	best := &ps.all
	if place != nil {
		for _, w := range place.Where {
			if w.Not { // most have what they are to have
				continue
			}
			l := Label{Key: w.Key} // those that have any value
			if len(w.Values) == 1 {
				l.Value = w.Values[0]
			}
			r := ps.labeled[l]
			if r == nil {
				return &none
			}
			if len(r.list) < len(best.list) {
				best = r
			}
		}
	}
	for _, w := range wants {
		r := ps.holders[w.resource]
		if r == nil {
			return &none
		}
		if len(r.list) < len(best.list) {
			best = r
		}
	}
	return best
}

// none is the list of nobody; nothing is added to it.
var none roster

// elsewhere reports whether some peer could ever hold a task. It is asked about
// tasks that this node cannot hold, and looks until it finds one.
func (s *Scheduler) elsewhere(res wray.Resources, wants []want, place *placement) bool {
	if len(s.peers.all.list) == 0 {
		return false
	}
	if place != nil && place.Kind == OnNode && !place.Soft {
		p := s.peers.byName[place.Node]
		return p != nil && p.couldHold(res, wants, place)
	}
	for _, m := range s.rosterFor(wants, place).list {
		if m.peer.couldHold(res, wants, place) {
			return true
		}
	}
	return false
}

// abroad reports whether t, queued, may yet run on another node, one that is
// promised among them, so that what this one lacks need not keep it for ever. Of
// one that cannot run here it is taken that a node will come which can hold it.
func (s *Scheduler) abroad(t *task) bool {
	return !t.here || !t.home() && s.hope(t.res, t.claim.all(), t.place)
}

// prefer returns a peer to lend t to in preference to running it here, where
// it fits; nil: here.
func (s *Scheduler) prefer(t *task) *peer {
	if len(s.peers.all.list) == 0 || t.home() {
		return nil
	}
	if p := s.nearest(t); p != nil {
		return p
	}
	if t.place == nil {
		return nil
	}
	switch t.place.Kind {
	case OnNode:
		if t.place.Node != s.node.Name {
			return s.named(t)
		}
	case Spread:
		r := s.rosterFor(t.claim.all(), t.place)
		n := uint64(r.open)
		if n == 0 {
			return nil
		}
		h := t.draw()
		i, k := h%(n+1), h>>32%n // two of the open ones and this node, which is number n
		if k >= i {
			k++
		}
		return s.calmer(t, r, i, k)
	}
	return nil
}

// calmer returns the less busy of the members i and k of a roster that take t;
// the number of the open ones stands for this node, and nil, too.
func (s *Scheduler) calmer(t *task, r *roster, i, k uint64) *peer {
	var best *peer
	bestFree, here := -1.0, false
	for _, x := range [2]uint64{i, k} {
		if x == uint64(r.open) {
			if f := part(s.free, s.config.Capacity); f > bestFree {
				best, bestFree, here = nil, f, true
			}
		} else if p := r.list[x].peer; p.takes(t, s.now) {
			if f := part(p.free(), p.node.Capacity); f > bestFree {
				best, bestFree, here = p, f, false
			}
		}
	}
	if here {
		return nil
	}
	return best
}

// part is how much of a node's CPU is free.
func part(free, capacity wray.Resources) float64 {
	return float64(max(free.CPU, 0)) / float64(max(capacity.CPU, 1))
}

// nearest returns the peer that has the most of t's arguments, where that is
// reason enough to run t there, and it takes t.
func (s *Scheduler) nearest(t *task) *peer {
	var here, most int64
	if t.away == nil {
		return nil
	}
	var best *peer
	for _, n := range t.away.near {
		if n.Peer == 0 {
			here = n.Bytes
		} else if p := s.peers.byID[n.Peer]; n.Bytes > most && p != nil && p.takes(t, s.now) {
			best, most = p, n.Bytes
		}
	}
	if most-here < MoveBytes {
		return nil
	}
	return best
}

// named returns the node that t asks for by name, if it takes t.
func (s *Scheduler) named(t *task) *peer {
	if p := s.peers.byName[t.place.Node]; p != nil && p.takes(t, s.now) {
		return p
	}
	return nil
}

// maxProbes bounds the peers that are looked at for one task in one Ready.
const maxProbes = 8

// candidate returns a peer to lend t to, which does not fit here: the nearest
// to its arguments, or the less busy of two that were drawn and take it. Where
// the draws miss, others are drawn, maxProbes at most.
func (s *Scheduler) candidate(t *task) *peer {
	if p := s.nearest(t); p != nil {
		return p
	}
	if t.place != nil && t.place.Kind == OnNode {
		if p := s.named(t); p != nil || !t.place.Soft {
			return p
		}
	}
	r := s.rosterFor(t.claim.all(), t.place)
	n := uint64(r.open)
	if t.res.CPU == 0 {
		n = uint64(len(r.list)) // those without free CPU, too
	}
	if n == 0 {
		return nil
	}
	if n <= maxProbes {
		var best *peer
		for i, at := uint64(0), t.draw(); i < n; i++ {
			p := r.list[(at+i)%n].peer
			if !p.takes(t, s.now) {
				continue
			}
			if best != nil {
				if part(p.free(), p.node.Capacity) > part(best.free(), best.node.Capacity) {
					best = p
				}
				break // the second
			}
			best = p
		}
		return best
	}
	for range maxProbes / 2 {
		h := t.draw()
		a, b := r.list[h%n].peer, r.list[h>>32%n].peer
		takesA, takesB := a.takes(t, s.now), b.takes(t, s.now)
		switch {
		case takesA && takesB && part(b.free(), b.node.Capacity) > part(a.free(), a.node.Capacity):
			return b
		case takesA:
			return a
		case takesB:
			return b
		}
	}
	s.missed = true
	return nil
}

// draw returns the next of a sequence of numbers that looks random and depends
// on the task alone: splitmix64 (Steele, Lea, Flood, "Fast Splittable
// Pseudorandom Number Generators", OOPSLA 2014) of its ID and of how often it
// has drawn.
func (t *task) draw() uint64 {
	a := t.awayOf()
	a.draws++
	z := t.id.Owner + t.id.Seq*0x9e3779b97f4a7c15 + uint64(a.draws)*0xd1342543de82ef95
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// lendOut lends what does not fit here: of the jobs the one served first, of
// its tasks the oldest at the head of a queue. It looks at a bounded number of
// heads, so that full peers do not cost more than full queues do. True: it has
// lent the task that others were held back for, so that they may run here now.
func (s *Scheduler) lendOut() bool {
	s.round++
	s.missed = false
	for misses := 0; misses < maxMisses && len(s.active) > 0; {
		var t *task
		var share float64
		for _, j := range s.active {
			head := s.lendable(j)
			if head == nil || j.ending {
				continue
			}
			if sh := s.share(j); t == nil || before(j, sh, t.job, share) {
				t, share = head, sh
			}
		}
		if t == nil {
			break
		}
		if p := s.candidate(t); p != nil {
			starved := s.starvation.task == t
			s.lend(t, p)
			if starved {
				return true
			}
		} else {
			misses++
			t.queue.round = s.round
		}
	}
	s.lendAgain = 0
	if s.missed { // somebody may have room who was not drawn
		s.lendAgain = addSaturated(s.now, redraw)
	}
	for _, j := range s.active {
		if at := j.forgives(s.now); at > 0 && (s.lendAgain == 0 || at < s.lendAgain) {
			s.lendAgain = at
		}
	}
	return false
}

const (
	maxMisses = 16
	redraw    = 5_000_000 // nanoseconds until those are drawn again who missed
)

// lendable returns the oldest of j's tasks that are at the head of a queue, may
// be lent, and were not tried in vain in this round.
func (s *Scheduler) lendable(j *job) *task {
	var oldest *task
	consider := func(q *queue) {
		if t := q.first; t != nil && q.round != s.round && !t.home() && (oldest == nil || t.turn < oldest.turn) {
			oldest = t
		}
	}
	for _, q := range j.queues {
		consider(q)
	}
	consider(&j.overflow)
	consider(&j.abroad)
	return oldest
}

// located adds to what t knows of where its arguments are.
func (t *task) located(n Near) {
	a := t.awayOf()
	for i := range a.near {
		if a.near[i].Peer == n.Peer {
			a.near[i].Bytes = addSaturated(a.near[i].Bytes, n.Bytes)
			return
		}
	}
	if len(a.near) < maxNear {
		a.near = append(a.near, n)
		return
	}
	least := 0
	for i := range a.near {
		if a.near[i].Bytes < a.near[least].Bytes {
			least = i
		}
	}
	if n.Bytes > a.near[least].Bytes {
		a.near[least] = n
	}
}

// ObjectAt is ObjectReady of an object with bytes of payload that are at a
// peer: tasks that need it are drawn there.
func (s *Scheduler) ObjectAt(now int64, id wray.ID, at PeerID, bytes int64) {
	if o := s.objects.get(id); o != nil && bytes > 0 {
		for e := o.first; e != nil; e = e.next {
			if e.task.state == waiting {
				e.task.located(Near{at, bytes})
			}
		}
	}
	s.ObjectReady(now, id)
}
