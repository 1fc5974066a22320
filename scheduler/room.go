package scheduler

import (
	"slices"

	"github.com/wray-project/wray"
)

// room is the account of what a bundle sets aside, here or, by the estimate, at
// a peer: what runs in the bundle holds it here and not of the node. It is given
// back when the bundle is released and nothing runs in it any more, so that
// nothing is ever promised twice.
type room struct {
	gang     *gang
	index    int   // of the bundle
	peer     *peer // nil: here, or counted by somebody else
	here     bool
	capacity wray.Resources
	free     wray.Resources
	custom   []share

	first, last *task // started in it, in the order they came
	resume      queue // of them those that are resuming
	closing     bool  // released: gone with its last task
	shut        bool  // its peer had no room in it, and has not spoken since
}

// share is a room's account of a custom resource.
type share struct {
	resource       int // position in Scheduler.custom
	capacity, free wray.Amount
}

func (r *room) share(resource int) *share {
	for i := range r.custom {
		if r.custom[i].resource == resource {
			return &r.custom[i]
		}
	}
	return nil
}

// fits reports whether what t wants is free in r.
func (r *room) fits(t *task) bool {
	if !t.res.Fits(r.free) || t.res.CPU > 0 && r.resume.first != nil {
		return false
	}
	for _, w := range t.claim.all() {
		if c := r.share(w.resource); c == nil || w.amount > c.free {
			return false
		}
	}
	return true
}

// inRoom is what a task of resources r holds of its room in a state, and whether it
// holds its claim.
func (st state) inRoom(r wray.Resources) (wray.Resources, bool) {
	if st == lent {
		return r, true
	}
	return st.holds(r), st.local()
}

// moveIn changes the account of t's room when t changes its state, as move does
// that of the node.
func (s *Scheduler) moveIn(t *task, from, to state) {
	r := t.room
	was, claimed := from.inRoom(t.res)
	is, claims := to.inRoom(t.res)
	r.free = r.free.Sub(is.Sub(was))
	if claimed != claims {
		for _, w := range t.claim.all() {
			c := r.share(w.resource)
			if claims {
				c.free -= w.amount
			} else {
				c.free += w.amount
			}
		}
	}
	if !from.started() {
		t.before, t.after = r.last, nil
		if r.last != nil {
			r.last.after = t
		} else {
			r.first = t
		}
		r.last = t
	}
	if from == resuming {
		s.gangs.resuming--
	}
	if to == resuming {
		s.gangs.resuming++
	}
	r.gang.dirty = true
	s.deadlock.changed = true
	if to.started() {
		return
	}
	if t.before != nil {
		t.before.after = t.after
	} else {
		r.first = t.after
	}
	if t.after != nil {
		t.after.before = t.before
	} else {
		r.last = t.before
	}
	t.before, t.after, t.room = nil, nil, nil
	if r.closing && r.first == nil {
		s.giveBack(r)
	}
}

// newRoom takes what a bundle sets aside out of this node, or, by the estimate,
// out of a peer. It has been seen to that it fits.
func (s *Scheduler) newRoom(g *gang, index int, p *peer) *room {
	b := &g.spec.Bundles[index]
	r := &room{gang: g, index: index, peer: p, here: p == nil, capacity: b.Resources, free: b.Resources}
	for _, c := range b.Custom {
		r.custom = append(r.custom, share{s.resourceOf(c.Name), c.Amount, c.Amount})
	}
	s.setAside(r, 1)
	if p == nil {
		s.gangs.rooms = append(s.gangs.rooms, r)
	}
	return r
}

// setAside takes a room's resources out of where it is, or, with sign -1, gives
// them back.
func (s *Scheduler) setAside(r *room, sign int64) {
	change := wray.Resources{CPU: wray.CPU(sign) * r.capacity.CPU, Memory: sign * r.capacity.Memory}
	if p := r.peer; p != nil {
		p.lent = p.lent.Add(change)
		for _, c := range r.custom {
			if a := p.account(c.resource); a != nil {
				a.loaned += wray.Amount(sign) * c.capacity
			}
		}
		p.resort()
		return
	}
	if !r.here {
		return
	}
	s.free = s.free.Sub(change)
	for _, c := range r.custom {
		s.custom[c.resource].free -= wray.Amount(sign) * c.capacity
	}
	if j := r.gang.job; j != nil { // its share counts what it has set aside, used or not
		j.meterTo(s.now)
		j.held = j.held.Add(change)
		for _, c := range r.custom {
			if j.custom == nil {
				j.custom = make([]wray.Amount, len(s.custom))
			}
			j.custom[c.resource] += wray.Amount(sign) * c.capacity
		}
	}
	s.deadlock.changed = true
}

// close has r given back when nothing runs in it any more.
func (s *Scheduler) close(r *room) {
	r.closing = true
	if !r.here { // who runs there is its peer's to wait for
		s.setAside(r, -1)
	} else if r.first == nil {
		s.giveBack(r)
	}
	s.gangs.changed = true
}

func (s *Scheduler) giveBack(r *room) {
	if !r.here {
		return
	}
	s.setAside(r, -1)
	s.gangs.rooms = slices.DeleteFunc(s.gangs.rooms, func(o *room) bool { return o == r })
	s.gangs.changed = true
}

// HeldFor returns what is set aside here for the groups of a peer.
func (s *Scheduler) HeldFor(home PeerID) Load {
	var l Load
	for _, r := range s.gangs.rooms {
		if r.gang.home != home {
			continue
		}
		l.Held = l.Held.Add(r.capacity)
		for _, c := range r.custom {
			l.Custom = addCustom(l.Custom, []wray.Custom{{Name: s.custom[c.resource].name, Amount: c.capacity}})
		}
	}
	return l
}
