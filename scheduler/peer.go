package scheduler

import (
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

// PeerID names an incarnation of a worker of this tenant on another node, as
// the Owner of its IDs does. 0 is this worker.
type PeerID uint64

// Label is a word about a node that tasks may ask for.
type Label = wray.Label

// Node is what a worker has, as its peers are told.
type Node struct {
	Name     string
	Capacity wray.Resources
	Custom   []wray.Custom // each name once
	Labels   []Label       // each key once
}

// Bounds of what a peer may say of itself.
const (
	MaxPeers  = 10_000
	MaxLabels = wray.MaxLabels
)

// peer is a worker elsewhere, to which attempts are lent. What it has free is
// an estimate: its capacity, less what was lent there, less what it last said
// that it holds for others. So what is on its way there is always counted, and
// nothing is counted twice.
type peer struct {
	id          PeerID
	node        Node
	unreachable bool // nothing new goes there
	leaving     bool // likewise, and for good: it ends what it has, and goes
	shut        bool // it refused, and has not spoken since

	others wray.Resources // what it holds for others, as it last said
	lent   wray.Resources // to it, by this worker
	custom []account      // by resource

	tasks queue  // lent to it, in the order of their lending
	spots []spot // where it is in the lists
}

// account is a peer's custom resource.
type account struct {
	resource       int // position in Scheduler.custom
	capacity       wray.Amount
	others, loaned wray.Amount
}

// free is what p has, by the estimate. It may be negative.
func (p *peer) free() wray.Resources {
	free := p.node.Capacity.Sub(p.others).Sub(p.lent)
	return wray.Resources{CPU: min(free.CPU, p.node.Capacity.CPU), Memory: min(free.Memory, p.node.Capacity.Memory)}
}

// account returns p's account of a resource, or nil.
func (p *peer) account(resource int) *account {
	for i := range p.custom {
		if p.custom[i].resource == resource {
			return &p.custom[i]
		}
	}
	return nil
}

// open reports whether it is worth asking p at all.
func (p *peer) open() bool { return !p.unreachable && !p.leaving && !p.shut && p.free().CPU > 0 }

// has reports whether n's labels are what all of where means.
func (n *Node) has(where []wray.Selector) bool {
	for i := range where {
		if !where[i].Matches(n.Labels) {
			return false
		}
	}
	return true
}

// couldHold reports whether p, with nothing else to do, could hold a task.
func (p *peer) couldHold(res wray.Resources, wants []want, place *placement) bool {
	if p.leaving || !res.Fits(p.node.Capacity) || !place.allows(&p.node) {
		return false
	}
	for _, w := range wants {
		if a := p.account(w.resource); a == nil || w.amount > a.capacity {
			return false
		}
	}
	return true
}

// takes reports whether p can hold t now, by the estimate.
func (p *peer) takes(t *task, now int64) bool {
	if p.unreachable || p.leaving || p.shut || !t.res.Fits(p.free()) || !t.place.allows(&p.node) || t.job.avoids(p.id, now) {
		return false
	}
	if t.claim != nil {
		for _, w := range t.claim.wants {
			if a := p.account(w.resource); a == nil || w.amount > a.capacity-a.others-a.loaned {
				return false
			}
		}
	}
	return true
}

// loan counts what t holds at p; sign is 1 when it is lent, -1 when that ends.
func (p *peer) loan(t *task, sign int64) {
	p.lent.CPU += wray.CPU(sign) * t.res.CPU
	p.lent.Memory += sign * t.res.Memory
	if t.claim != nil {
		for _, w := range t.claim.wants {
			if a := p.account(w.resource); a != nil {
				a.loaned += wray.Amount(sign) * w.amount
			}
		}
	}
}

// roster is a list of peers, those that are open first, so that two of them
// are drawn in the same time however many there are.
type roster struct {
	list []member
	open int // those before it are open
}

// member is a peer in a roster; spot is the roster's place in peer.spots.
type member struct {
	peer *peer
	spot int
}

// spot is a peer's place in a roster.
type spot struct {
	roster *roster
	at     int
}

func (r *roster) add(p *peer) {
	r.list = append(r.list, member{p, len(p.spots)})
	p.spots = append(p.spots, spot{r, len(r.list) - 1})
	if p.open() {
		r.swap(len(r.list)-1, r.open)
		r.open++
	}
}

func (r *roster) swap(i, k int) {
	r.list[i], r.list[k] = r.list[k], r.list[i]
	for _, at := range [2]int{i, k} {
		m := r.list[at]
		m.peer.spots[m.spot].at = at
	}
}

// sort puts the member at a place where it belongs.
func (r *roster) sort(at int) {
	switch open := r.list[at].peer.open(); {
	case open && at >= r.open:
		r.swap(at, r.open)
		r.open++
	case !open && at < r.open:
		r.open--
		r.swap(at, r.open)
	}
}

// remove takes out the member at a place. Its peer's spots are the caller's.
func (r *roster) remove(at int) {
	if at < r.open {
		r.open--
		r.swap(at, r.open)
		at = r.open
	}
	last := len(r.list) - 1
	r.swap(at, last)
	r.list[last] = member{}
	r.list = r.list[:last]
}

// resort puts p where it belongs, after what it has free has changed.
func (p *peer) resort() {
	for _, s := range p.spots {
		s.roster.sort(s.at)
	}
}

// peers is what the machine knows of other nodes.
type peers struct {
	all      roster
	byID     map[PeerID]*peer
	byName   map[string]*peer  // of the node
	labeled  map[Label]*roster // that have a label; with an empty value, one of the key
	holders  map[int]*roster   // of a custom resource
	resource map[string]int    // positions in Scheduler.custom that peers alone have
	spare    []int             // positions there that nobody has
	vain     bool              // there was nothing to forget, and nothing has come or gone since
}

// enlist enters p, whose node is set.
func (s *Scheduler) enlist(p *peer) {
	ps := &s.peers
	p.custom = p.custom[:0]
	for _, c := range p.node.Custom {
		p.custom = append(p.custom, account{resource: s.resourceOf(c.Name), capacity: c.Amount})
	}
	for t := p.tasks.first; t != nil; t = t.next { // lent before p came back with another node
		if t.claim != nil && t.room == nil {
			for _, w := range t.claim.wants {
				if a := p.account(w.resource); a != nil {
					a.loaned += w.amount
				}
			}
		}
	}
	for _, g := range s.gangs.order { // likewise
		for i := range g.bundles {
			if r := g.bundles[i].room; r != nil && r.peer == p {
				for _, c := range r.custom {
					if a := p.account(c.resource); a != nil {
						a.loaned += c.capacity
					}
				}
			}
		}
	}
	p.spots = p.spots[:0]
	ps.all.add(p)
	for _, label := range p.node.Labels {
		for _, l := range []Label{label, {Key: label.Key}} {
			r := ps.labeled[l]
			if r == nil {
				r = &roster{}
				ps.labeled[l] = r
			}
			r.add(p)
		}
	}
	for _, a := range p.custom {
		r := ps.holders[a.resource]
		if r == nil {
			r = &roster{}
			ps.holders[a.resource] = r
		}
		r.add(p)
	}
	ps.byID[p.id] = p
	ps.byName[p.node.Name] = p
	delete(s.coming, p.node.Name)
}

// delist takes p out of all that enlist entered it into.
func (s *Scheduler) delist(p *peer) {
	ps := &s.peers
	ps.vain = false
	for _, at := range p.spots {
		at.roster.remove(at.at)
	}
	p.spots = p.spots[:0]
	for _, l := range p.node.Labels {
		for _, l := range []Label{l, {Key: l.Key}} {
			if r := ps.labeled[l]; r != nil && len(r.list) == 0 {
				delete(ps.labeled, l)
			}
		}
	}
	for _, a := range p.custom {
		if len(ps.holders[a.resource].list) == 0 {
			delete(ps.holders, a.resource)
		}
	}
	delete(ps.byID, p.id)
	if ps.byName[p.node.Name] == p {
		delete(ps.byName, p.node.Name)
	}
}

// ensure makes the maps, where there was no peer before.
func (ps *peers) ensure() {
	if ps.byID == nil {
		*ps = peers{byID: map[PeerID]*peer{}, byName: map[string]*peer{}, labeled: map[Label]*roster{}, holders: map[int]*roster{}, resource: map[string]int{}}
	}
}

// maxNamed bounds the names of resources that tasks ask for and nobody has.
const maxNamed = 1024

// newResource returns the position of a resource that a task asks for and nobody
// has; -1: there are too many names. Who names several at once makes room for all
// of them before, with roomToName: one that is made and that no task claims yet
// would be forgotten for the next.
func (s *Scheduler) newResource(name string) int {
	s.peers.ensure()
	if len(s.peers.resource) >= MaxPeers || s.unheld() >= maxNamed {
		return -1
	}
	return s.resourceOf(name)
}

// roomToName makes room for n names that nobody has, where there is none.
func (s *Scheduler) roomToName(n int) {
	if s.unheld()+n > maxNamed {
		s.forgetUnused()
	}
	s.forgetResources(n)
}

// unheld returns how many names of resources no peer has: those that tasks ask for,
// and those that are not forgotten yet.
func (s *Scheduler) unheld() int {
	n := len(s.peers.resource)
	for i := s.own; i < len(s.custom); i++ {
		if s.peers.holders[i] != nil {
			n--
		}
	}
	return n
}

// resourceOf returns the position of a custom resource that a peer has. One
// that this node has none of gets an account at the end, with nothing in it.
func (s *Scheduler) resourceOf(name string) int {
	if i := s.resource(name); i >= 0 {
		return i
	}
	ps := &s.peers
	ps.vain = false
	if n := len(ps.spare); n > 0 {
		i := ps.spare[n-1]
		ps.spare = ps.spare[:n-1]
		s.custom[i] = custom{name: name}
		ps.resource[name] = i
		return i
	}
	i := len(s.custom)
	s.custom = append(s.custom, custom{name: name})
	ps.resource[name] = i
	return i
}

// forgetResources makes room for the names of n resources, where there is none:
// what no peer has any more and no task asks for is forgotten. So peers that come
// and go with names of their own do not use the names up.
func (s *Scheduler) forgetResources(n int) {
	if len(s.peers.resource)+n > MaxPeers {
		s.forgetUnused()
	}
}

// forgetUnused forgets the names of resources that no peer has and no task asks
// for.
func (s *Scheduler) forgetUnused() {
	ps := &s.peers
	if ps.vain {
		return
	}
	used := make([]bool, len(s.custom))
	for i := range used {
		used[i] = i < s.own || ps.holders[i] != nil
	}
	for _, i := range ps.spare {
		used[i] = true // by nobody, and spare already
	}
	s.tasks.each(func(t *task) {
		for _, w := range t.claim.all() {
			used[w.resource] = true
		}
	})
	for _, g := range s.gangs.order {
		for i := range g.bundles {
			if r := g.bundles[i].room; r != nil {
				for _, c := range r.custom {
					used[max(c.resource, 0)] = true
				}
			}
		}
	}
	ps.vain = len(s.gangs.order) == 0
	for i := range used {
		if !used[i] {
			ps.vain = false
			delete(ps.resource, s.custom[i].name)
			s.custom[i] = custom{}
			ps.spare = append(ps.spare, i)
		}
	}
}

// PeerUp tells that a worker of the tenant on another node is there, or there
// again, or has another capacity than it had. Another incarnation on a node of
// that name is gone, then. What it says of itself is checked: an error means
// that it is not taken.
func (s *Scheduler) PeerUp(now int64, id PeerID, node Node) error {
	s.at(now)
	if id == 0 || node.Name == "" || node.Capacity.CPU < 0 || node.Capacity.Memory < 0 || len(node.Labels) > MaxLabels || len(node.Custom) > wray.MaxCustom {
		return fmt.Errorf("scheduler: peer %d on node %q: its ID, capacity, labels or resources make no sense", id, node.Name)
	}
	if err := validateCustom(node.Custom); err != nil {
		return fmt.Errorf("scheduler: peer %d on node %q: %w", id, node.Name, err)
	}
	for i, l := range node.Labels {
		if err := l.Check(); err != nil {
			return fmt.Errorf("scheduler: peer %d on node %q: %w", id, node.Name, err)
		}
		if slices.ContainsFunc(node.Labels[:i], func(o Label) bool { return o.Key == l.Key }) {
			return fmt.Errorf("scheduler: peer %d on node %q has the label %q twice", id, node.Name, l.Key)
		}
	}
	ps := &s.peers
	ps.ensure()
	if old := ps.byName[node.Name]; old != nil && old.id != id {
		s.PeerDown(now, old.id)
	}
	if s.forgetResources(len(node.Custom)); len(ps.resource)+len(node.Custom) > MaxPeers {
		return fmt.Errorf("scheduler: peer %d on node %q: its peers name too many different resources", id, node.Name)
	}
	p := ps.byID[id]
	var was peer // with another node, perhaps
	if p == nil {
		if len(ps.all.list) >= MaxPeers {
			return fmt.Errorf("scheduler: peer %d on node %q: there are %d already", id, node.Name, MaxPeers)
		}
		p = &peer{id: id}
	} else {
		was = *p
		was.custom = slices.Clone(p.custom) // enlist writes there
		s.delist(p)
	}
	node.Custom = slices.DeleteFunc(slices.Clone(node.Custom), func(c wray.Custom) bool { return c.Amount == 0 })
	node.Labels = slices.Clone(node.Labels)
	p.node, p.unreachable, p.shut = node, false, false
	s.enlist(p)
	if was.id != 0 {
		s.losePatience(&was)
	}
	s.gangsAsk(id)
	s.deadlock.changed = true
	return nil
}

// Load is what a peer holds for others than this worker: its own tasks, and
// those of third ones, less what the attempts that were lent to it have given
// back while they wait. It may be less than nothing.
type Load struct {
	Held   wray.Resources
	Custom []wray.Custom
}

// PeerLoad corrects the estimate of what a peer has free, and lets one be asked
// again that has refused. A peer that is not known is left alone.
func (s *Scheduler) PeerLoad(now int64, id PeerID, load Load) {
	s.at(now)
	p := s.peers.byID[id]
	if p == nil || load.Held.CPU < -p.node.Capacity.CPU || load.Held.Memory < -p.node.Capacity.Memory {
		s.stale++
		return
	}
	p.others, p.shut = load.Held, false
	for i := range p.custom {
		p.custom[i].others = 0
	}
	for _, c := range load.Custom {
		if a := p.account(s.resource(c.Name)); a != nil && c.Amount >= 0 && c.Amount <= wray.MaxAmount {
			a.others = c.Amount
		}
	}
	p.resort()
	s.gangsAsk(id)
}

// PeerAsk lets a peer that has refused be asked again.
func (s *Scheduler) PeerAsk(now int64, id PeerID) {
	s.at(now)
	if p := s.peers.byID[id]; p != nil {
		p.shut = false
		p.resort()
		s.gangsAsk(id)
	}
}

// PeerUnreachable tells that a peer does not answer: nothing new is lent to it
// until PeerUp. What is there may yet end well; only what was canceled is over
// now, for nobody waits for it.
func (s *Scheduler) PeerUnreachable(now int64, id PeerID) {
	s.at(now)
	p := s.peers.byID[id]
	if p == nil {
		s.stale++
		return
	}
	p.unreachable = true
	p.resort()
	s.gangsLetGo(p)
	for t := p.tasks.first; t != nil; {
		next := t.next
		if t.stop == wray.CodeCanceled {
			s.condemn(t, t.blame(peerDied(t, p)))
		}
		t = next
	}
	s.settle()
}

// PeerLeaves tells that a peer takes nothing more, while what is there goes on:
// it ends well, or is refused, and then the peer goes. It stays so until
// PeerDown.
func (s *Scheduler) PeerLeaves(now int64, id PeerID) {
	s.at(now)
	p := s.peers.byID[id]
	if p == nil {
		s.stale++
		return
	}
	was := *p
	p.leaving = true
	p.resort()
	s.losePatience(&was)
	s.gangsLosePeer(p, false)
	s.deadlock.changed = true
	s.settle()
}

// PeerDown tells that a peer is gone for good. What was lent to it has failed
// with a system failure, which is retried. The peer is forgotten.
func (s *Scheduler) PeerDown(now int64, id PeerID) {
	s.at(now)
	p := s.peers.byID[id]
	if p == nil {
		s.stale++
		return
	}
	p.unreachable = false // else cancel would end here what the loop ends
	for t := p.tasks.first; t != nil; t = p.tasks.first {
		s.ended(t, Outcome{Err: peerDied(t, p), Retryable: true})
	}
	for _, j := range s.order {
		j.forgive(p.id)
	}
	s.delist(p)
	s.losePatience(p)
	s.gangsLosePeer(p, true)
	s.deadlock.changed = true
	s.settle()
}

// Refused tells that an attempt that was lent is given back, as if it had never
// begun: the task takes its place in the queue again. err, which may be nil, is
// what a task ends with that is refused as OnlyHere and may not run here.
func (s *Scheduler) Refused(now int64, id wray.ID, attempt int, why Refusal, err *wray.Error) {
	s.at(now)
	t := s.attemptOf(id, attempt)
	if t == nil || t.state != lent {
		s.stale++
		return
	}
	p, home := t.peer(), why == OnlyHere
	g := t.place.in()
	switch why {
	case NoRoom:
		if g != nil {
			t.room.shut = true
		} else {
			p.shut = true
		}
	case NotNow:
		t.job.avoid(p.id, s.now)
	case OnlyHere:
		s.keepHome(t)
	}
	switch {
	case t.stop == wray.CodeCanceled:
		s.finish(t, t.blame(&wray.Error{Code: wray.CodeCanceled}))
	case g != nil && home && !g.maybeHere(t) && err != nil:
		s.finish(t, t.blame(err))
	case g != nil:
		s.leave(t)
		t.stop = wray.CodeOK
		t.attempt--
		s.rejoin(t)
	case home && !t.here && err != nil:
		s.finish(t, t.blame(err))
	case home && !t.here:
		s.finish(t, s.onlyHere(t))
	default:
		s.leave(t)
		t.stop = wray.CodeOK
		t.attempt--
		s.move(t, queued)
		t.job.queueFor(t).insert(t)
		s.activate(t.job)
		s.bePatient(t) // p may have begun to leave since
	}
	p.resort()
	s.settle()
}

// lend starts t at p.
func (s *Scheduler) lend(t *task, p *peer) {
	s.dequeue(t)
	t.awayOf().peer = p
	s.move(t, lent)
	p.tasks.add(t)
	p.resort()
	s.begin(t)
	d := Decision{Kind: Lend, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value, Peer: p.id}
	if t.room != nil {
		d.Bundle = t.room.index
	}
	s.emit(d)
}

// HasRoom reports whether what a task wants is free here now. After a Ready
// nobody else waits for it, so that the task would start.
func (s *Scheduler) HasRoom(res wray.Resources, list []wray.Custom) bool {
	if !res.Fits(s.free) || res.CPU > 0 && s.resume.first != nil {
		return false
	}
	for _, c := range list {
		if i := s.resource(c.Name); c.Amount > 0 && (i < 0 || c.Amount > s.custom[i].free) {
			return false
		}
	}
	return true
}

// Held returns what started tasks hold here, of all jobs.
func (s *Scheduler) Held() Load {
	l := Load{Held: s.config.Capacity.Sub(s.free)}
	for i := range s.own {
		if c := &s.custom[i]; c.free < c.capacity {
			l.Custom = append(l.Custom, wray.Custom{Name: c.name, Amount: c.capacity - c.free})
		}
	}
	return l
}
