package scheduler

import (
	"slices"

	"github.com/wray-project/wray"
)

// What peers say of groups, and what becomes of groups when peers go.

// GroupNote takes what a peer says of a group. A note that makes no sense, or is
// of a round that is over, changes nothing.
func (s *Scheduler) GroupNote(now int64, from PeerID, n *GroupNote) {
	s.at(now)
	g := s.gangs.byID[n.Group]
	switch n.Kind {
	case NotePrepare, NoteLayout, NoteRelease, NoteGone:
		if g != nil && g.home != from || s.peers.byID[from] == nil {
			s.stale++
			return
		}
		s.noteFromHome(g, from, n)
	default:
		if g != nil && g.home != 0 {
			s.stale++
			return
		}
		s.noteToHome(g, from, n)
	}
	s.settle()
}

// MaxPeerGroups bounds the groups of one peer that are known here.
const MaxPeerGroups = 4096

// RefuseGroup answers a peer that asks for bundles to be held: they are not, as
// this worker takes nothing more.
func (s *Scheduler) RefuseGroup(now int64, from PeerID, n *GroupNote) {
	s.at(now)
	s.tellGang(&gang{id: n.Group, jobID: n.Job}, from, GroupNote{Kind: NoteRefused, Round: n.Round, Bundles: n.Bundles})
}

// groupsOf returns how many groups of a peer are known here.
func (s *Scheduler) groupsOf(home PeerID) (n int) {
	for _, g := range s.gangs.order {
		if g.home == home {
			n++
		}
	}
	return n
}

// noteToHome takes what a peer says of g, which is at home here, or not known.
func (s *Scheduler) noteToHome(g *gang, from PeerID, n *GroupNote) {
	if g == nil {
		if n.Kind == NoteAsk || n.Kind == NotePrepared {
			s.tellGang(&gang{id: n.Group, jobID: n.Job}, from, GroupNote{Kind: NoteGone})
		}
		return
	}
	current := g.state == gangAsks && n.Round == g.round && slices.Contains(g.waiting, from)
	switch n.Kind {
	case NoteAsk:
		if s.peers.byID[from] != nil {
			g.knows(from)
			s.tellGang(g, from, GroupNote{Kind: NoteLayout, Round: g.round})
		}
	case NotePrepared:
		if !current {
			s.stale++
			return
		}
		g.waiting = slices.DeleteFunc(g.waiting, func(p PeerID) bool { return p == from })
		if len(g.waiting) == 0 {
			s.reserved(g)
		}
	case NoteRefused:
		if p := s.peers.byID[from]; p != nil {
			p.shut = true
			p.resort()
		}
		if !current {
			s.stale++
			return
		}
		s.abort(g, from)
	case NoteLost:
		for _, i := range n.Bundles {
			if i >= 0 && i < len(g.bundles) && g.bundles[i].at == from && !g.bundles[i].fresh {
				s.loseBundle(g, i)
			}
		}
		s.tellLoss(g)
	}
}

// loseBundle has bundle i of g, which is at home, be placed again. tellLoss
// must follow.
func (s *Scheduler) loseBundle(g *gang, i int) {
	s.abort(g, 0)
	s.dropBundle(g, i)
	s.become(g, gangWaits)
}

// tellLoss tells those who know where g's bundles are that some are nowhere.
func (s *Scheduler) tellLoss(g *gang) {
	for _, p := range g.told {
		s.tellGang(g, p, GroupNote{Kind: NoteLayout, Round: g.round})
	}
}

// noteFromHome takes what the home of g says, which is nil where it is not known.
func (s *Scheduler) noteFromHome(g *gang, home PeerID, n *GroupNote) {
	if n.Kind == NotePrepare || n.Kind == NoteLayout {
		if n.Spec == nil || n.Kind == NoteLayout && len(n.At) != len(n.Spec.Bundles) ||
			g != nil && g.spec != nil && len(n.Spec.Bundles) != len(g.bundles) {
			s.stale++
			return
		}
		if g == nil {
			if s.groupsOf(home) >= MaxPeerGroups {
				s.RefuseGroup(s.now, home, n)
				return
			}
			g = s.newGang(n.Group, n.Job)
			g.home = home
		}
		if g.spec == nil {
			g.describe(n.Spec)
			s.checkWaiting(g)
		}
	}
	if g == nil {
		return
	}
	switch n.Kind {
	case NotePrepare:
		s.prepare(g, n)
		s.forgetGang(g)
	case NoteLayout:
		s.layout(g, n)
	case NoteRelease:
		for _, i := range n.Bundles {
			if i >= 0 && i < len(g.bundles) && g.bundles[i].at == 0 {
				s.dropBundle(g, i)
			}
		}
		s.forgetGang(g)
	case NoteGone:
		s.endGang(g, nil, true)
	}
}

// prepare holds bundles for the home of g, all or none of them.
func (s *Scheduler) prepare(g *gang, n *GroupNote) {
	var taken []int
	for _, i := range n.Bundles {
		if i < 0 || i >= len(g.bundles) || g.bundles[i].at == 0 {
			continue // it was asked before
		}
		if !s.hold(g, i) {
			for _, k := range taken {
				s.dropBundle(g, k)
			}
			s.tellGang(g, g.home, GroupNote{Kind: NoteRefused, Round: n.Round, Bundles: n.Bundles})
			return
		}
		g.bundles[i].until = addSaturated(s.now, HoldTime)
		s.gangs.held++
		taken = append(taken, i)
	}
	s.tellGang(g, g.home, GroupNote{Kind: NotePrepared, Round: n.Round, Bundles: n.Bundles})
}

// hold takes a bundle of another's group in, where there is room.
func (s *Scheduler) hold(g *gang, i int) bool {
	b := &g.spec.Bundles[i]
	if !s.HasRoom(b.Resources, b.Custom) {
		return false
	}
	s.dropBundle(g, i)
	g.bundles[i] = bundle{room: s.newRoom(g, i, nil)}
	return true
}

// layout takes from its home where g's bundles are.
func (s *Scheduler) layout(g *gang, n *GroupNote) {
	var lost []int
	g.heard = true
	for i, at := range n.At {
		b := &g.bundles[i]
		switch {
		case at == 0 && b.at == 0: // it is held, and the group is there
			if b.until > 0 {
				b.until = 0
				s.gangs.held--
			}
		case at == 0:
			if !s.hold(g, i) { // it had expired
				lost = append(lost, i)
			}
		case at == Nowhere && b.until > 0: // of a round that goes on
		case at != b.at:
			s.dropBundle(g, i)
			if at != Nowhere {
				// What others run in it is not known: it refuses what it has no room for.
				r := &g.spec.Bundles[i]
				b.at, b.room = at, &room{gang: g, index: i, capacity: r.Resources, free: r.Resources}
				for _, c := range r.Custom {
					b.room.custom = append(b.room.custom, share{s.resource(c.Name), c.Amount, c.Amount})
				}
			}
		}
	}
	g.state, g.dirty = gangReady, true
	if slices.Contains(n.At, Nowhere) {
		g.state = gangWaits
	}
	g.ready = g.ready || g.state == gangReady
	if len(lost) > 0 {
		s.tellGang(g, g.home, GroupNote{Kind: NoteLost, Round: n.Round, Bundles: lost})
	}
}

// gangsLosePeer takes note that p is gone, or, leaving, takes no more: the bundles
// that are there are placed again. What runs in them ends as anything else there.
func (s *Scheduler) gangsLosePeer(p *peer, dead bool) {
	for k := 0; k < len(s.gangs.order); {
		g := s.gangs.order[k]
		if dead && g.home == p.id {
			s.endGang(g, &wray.Error{Code: wray.CodeOwnerDied, Node: p.node.Name,
				Message: "node " + p.node.Name + ", which the placement group belonged to, is gone"}, true)
			continue
		}
		k++
		if dead {
			g.told = slices.DeleteFunc(g.told, func(o PeerID) bool { return o == p.id })
		}
		there := slices.ContainsFunc(g.bundles, func(b bundle) bool { return b.at == p.id })
		switch {
		case !there:
		case g.home != 0:
			for i := range g.bundles {
				if g.bundles[i].at == p.id && dead {
					s.dropBundle(g, i)
				}
			}
		default:
			except := PeerID(0)
			if dead {
				except = p.id
			}
			s.abort(g, except)
			var list []int
			for i := range g.bundles {
				if g.bundles[i].at == p.id {
					list = append(list, i)
				}
			}
			if len(list) == 0 {
				continue
			}
			if !dead {
				s.tellGang(g, p.id, GroupNote{Kind: NoteRelease, Round: g.round, Bundles: list})
			}
			for _, i := range list {
				s.loseBundle(g, i)
			}
			s.tellLoss(g)
		}
	}
	s.gangs.changed = true
}

// gangsLetGo ends the rounds that wait for p, which does not answer.
func (s *Scheduler) gangsLetGo(p *peer) {
	for _, g := range s.gangs.order {
		if g.home == 0 && slices.Contains(g.waiting, p.id) {
			s.abort(g, 0)
		}
	}
}

// gangsAsk has those looked at again who wait for room at p.
func (s *Scheduler) gangsAsk(p PeerID) {
	s.gangs.changed = true
	for _, g := range s.gangs.hungry {
		for i := range g.bundles {
			if b := &g.bundles[i]; b.at == p && b.room != nil {
				b.room.shut, g.dirty = false, true
			}
		}
	}
}

// tickGangs lets go of what was held in vain, and ends those that waited for nodes
// that did not come.
func (s *Scheduler) tickGangs() {
	gs := &s.gangs
	if gs.again > 0 && gs.again <= s.now {
		gs.again = 0
		for _, g := range gs.hungry {
			g.dirty = true
		}
	}
	for k := 0; (gs.held > 0 || gs.pending > 0) && k < len(gs.order); {
		g := gs.order[k]
		if g.home == 0 {
			if g.state == gangWaits && g.until > 0 && g.until <= s.now {
				switch {
				case s.possible(g, g.lost()):
					g.until = 0
				case s.comes(nil):
					g.until = addSaturated(s.now, s.config.Patience)
				default:
					s.endGang(g, s.noNodes(g), true)
					continue
				}
			}
			k++
			continue
		}
		k++
		var lost []int
		for i := range g.bundles {
			if until := g.bundles[i].until; until > 0 && until <= s.now {
				s.dropBundle(g, i)
				lost = append(lost, i)
			}
		}
		if len(lost) > 0 {
			s.tellGang(g, g.home, GroupNote{Kind: NoteLost, Round: g.round, Bundles: lost})
			if s.forgetGang(g); g.over != nil {
				k--
			}
		}
	}
}

// forgetGang forgets a group of another's of which nothing is here, and whose home
// does not know that it is known here.
func (s *Scheduler) forgetGang(g *gang) {
	if g.heard || g.queue.first != nil || slices.ContainsFunc(g.bundles, func(b bundle) bool { return b.at != Nowhere }) {
		return
	}
	delete(s.gangs.byID, g.id)
	s.gangs.order = slices.DeleteFunc(s.gangs.order, func(o *gang) bool { return o == g })
	g.over = &wray.Error{Code: wray.CodeGroupRemoved, Message: "the placement group is not known here any more"}
}

// gangDeadline returns the time at which groups next want a Tick; 0: no time
// alone changes anything.
func (s *Scheduler) gangDeadline() int64 {
	gs := &s.gangs
	next := gs.again
	earliest := func(t int64) {
		if t > 0 && (next == 0 || t < next) {
			next = t
		}
	}
	if gs.pending > 0 && gs.changed {
		earliest(max(gs.next, 1))
	}
	if gs.pending > 0 || gs.held > 0 {
		for _, g := range gs.order {
			if g.home == 0 && g.state == gangWaits {
				earliest(g.until)
			}
			for i := range g.bundles {
				earliest(g.bundles[i].until)
			}
		}
	}
	return next
}
