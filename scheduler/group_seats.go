package scheduler

import (
	"fmt"

	"github.com/wray-project/wray"
)

// Tasks that run in groups: they wait in the queue of their group, in the order
// they came, and take what is free in its bundles.

// in returns the group that a task of this placement runs in, or nil.
func (l *placement) in() *gang {
	if l == nil {
		return nil
	}
	return l.gang
}

// mayHold reports whether bundle i of g is one that t may run in.
func (l *placement) mayHold(i int) bool { return l.Bundle == wray.AnyBundle || l.Bundle == i }

// tooMuch is the error of a task that no bundle which it may run in could ever
// hold; nil: one could, or is not known yet.
func (s *Scheduler) tooMuch(name string, res wray.Resources, wants []want, l *placement) *wray.Error {
	g := l.gang
	if g.spec == nil {
		return nil
	}
	if l.Bundle < wray.AnyBundle || l.Bundle >= len(g.spec.Bundles) {
		return named(name, wray.Errorf(wray.CodeBadArgument, "bundle %d of the placement group%s is wanted: it has %d, from 0 on", l.Bundle, g.called(), len(g.spec.Bundles)))
	}
	var why string
	for i := range g.spec.Bundles {
		if !l.mayHold(i) {
			continue
		}
		v := Verdict{}
		s.inBundle(&v, g, i, res, wants, nil)
		if !v.Never() {
			return nil
		}
		if why == "" {
			why = v.Why()
		}
	}
	return &wray.Error{Code: wray.CodeUnschedulable, Task: name, Message: "no bundle that it may run in could hold it: " + why,
		Hint: "ask for less, or make the placement group with larger bundles"}
}

// inBundle adds to v what of a bundle is short; r, which may be nil, is its account.
func (s *Scheduler) inBundle(v *Verdict, g *gang, i int, res wray.Resources, wants []want, r *room) {
	b := &g.spec.Bundles[i]
	free := b.Resources
	if r != nil {
		free = r.free
	}
	v.In = fmt.Sprintf("bundle %d of the placement group%s", i, g.called())
	v.short(res, b.Resources, free)
	for _, w := range wants {
		c := Constraint{Kind: ShortCustom, Name: s.custom[w.resource].name, Need: int64(w.amount)}
		for _, have := range b.Custom {
			if have.Name == c.Name {
				c.Has, c.Free = int64(have.Amount), int64(have.Amount)
			}
		}
		if r != nil {
			if have := r.share(w.resource); have != nil {
				c.Free = int64(have.free)
			}
		}
		v.lacks(c)
	}
}

// checkWaiting fails those who wait for a group that turns out to have no bundle
// which could hold them. settle must follow.
func (s *Scheduler) checkWaiting(g *gang) {
	for t := g.queue.first; t != nil; {
		next := t.next
		if err := s.tooMuch(t.name, t.res, t.claim.all(), t.place); err != nil {
			s.condemn(t, err)
		}
		t = next
	}
}

// enqueueIn puts t, which waits for nothing else, at the end of its group's queue.
// settle must follow.
func (s *Scheduler) enqueueIn(t *task) {
	g := t.place.gang
	if g.over != nil {
		s.condemn(t, overOf(t, g.over))
		return
	}
	s.move(t, grouped)
	s.queued++
	t.turn = s.queued
	g.queue.add(t)
	s.hungers(g)
}

// hungers enters g where groups are that tasks wait for.
func (s *Scheduler) hungers(g *gang) {
	g.dirty = true
	if !g.listed {
		g.listed = true
		s.gangs.hungry = append(s.gangs.hungry, g)
	}
}

// seatGangs gives out what is free in bundles: to attempts that want their CPU
// back, then to tasks that wait.
func (s *Scheduler) seatGangs() {
	gs := &s.gangs
	if gs.resuming > 0 {
		for _, r := range gs.rooms {
			for t := r.resume.first; t != nil && t.res.CPU <= r.free.CPU; t = r.resume.first {
				s.dequeue(t)
				s.move(t, running)
				s.emit(Decision{Kind: Resume, Task: t.id, Job: t.job.id, Attempt: t.attempt, Value: t.value})
			}
		}
	}
	kept := gs.hungry[:0]
	for _, g := range gs.hungry {
		if g.dirty && g.over == nil {
			s.seatGang(g)
		}
		if g.queue.first == nil {
			g.listed = false
			continue
		}
		kept = append(kept, g)
	}
	clear(gs.hungry[len(kept):])
	gs.hungry = kept
}

// seatGang starts and lends what there is room for in g. Of those for which there
// is none it looks at a bounded number.
func (s *Scheduler) seatGang(g *gang) {
	misses := 0
	var missed shape
	for t := g.queue.first; g.ready && t != nil && misses < maxShapes; {
		next := t.next
		switch b := s.seat(g, t, &missed, misses > 0); {
		case b == nil && t.home() && !g.maybeHere(t):
			s.condemn(t, s.onlyHere(t))
		case b == nil:
			misses++
			missed = t.shape()
		case b.at == 0:
			t.room = b.room
			s.start(t)
		default:
			t.room = b.room
			s.lend(t, s.peers.byID[b.at])
		}
		t = next
	}
	g.dirty = false
	s.settle()
}

// maybeHere reports whether a bundle that t may run in is on this node, or may
// yet come to be.
func (g *gang) maybeHere(t *task) bool {
	for i := range g.bundles {
		if b := &g.bundles[i]; t.place.mayHold(i) && (b.at == 0 || b.at == Nowhere) {
			return true
		}
	}
	return false
}

// seat returns a bundle that has room for t now: one here, where there is one.
// Another of the shape missed has found none, where there is such.
func (s *Scheduler) seat(g *gang, t *task, missed *shape, misses bool) *bundle {
	if t.job.ending || misses && *missed == t.shape() {
		return nil
	}
	var there *bundle
	for i := range g.bundles {
		b := &g.bundles[i]
		if !t.place.mayHold(i) || b.room == nil || b.fresh || b.until > 0 || b.room.shut || !b.room.fits(t) {
			continue
		}
		if b.at == 0 {
			return b
		}
		p := s.peers.byID[b.at]
		if there != nil || p == nil || p.unreachable || p.leaving || t.home() {
			continue
		}
		if t.job.avoids(p.id, s.now) {
			if at := t.job.forgives(s.now); s.gangs.again == 0 || at < s.gangs.again {
				s.gangs.again = at
			}
			continue
		}
		there = b
	}
	return there
}

// GroupHasRoom is HasRoom for a task that runs in a bundle of a group, which is
// here; wray.AnyBundle: in any of its bundles.
func (s *Scheduler) GroupHasRoom(id wray.ID, bundle int, res wray.Resources, list []wray.Custom) bool {
	g := s.gangs.byID[id]
	if g == nil || bundle >= len(g.bundles) {
		return false
	}
	for i := range g.bundles {
		b := &g.bundles[i]
		if bundle != wray.AnyBundle && bundle != i || b.at != 0 || b.room == nil || b.until > 0 {
			continue
		}
		if s.roomHas(b.room, res, list) {
			return true
		}
	}
	return false
}

func (s *Scheduler) roomHas(r *room, res wray.Resources, list []wray.Custom) bool {
	if !res.Fits(r.free) || res.CPU > 0 && r.resume.first != nil {
		return false
	}
	for _, c := range list {
		if have := r.share(s.resource(c.Name)); c.Amount > 0 && (have == nil || c.Amount > have.free) {
			return false
		}
	}
	return true
}

// mayJoin says whether a task may be submitted to run in a group.
func (s *Scheduler) mayJoin(spec *Spec, wants []want) error {
	st := &spec.Place.Strategy
	g := s.gangs.byID[st.Group]
	switch {
	case g == nil:
		return &wray.Error{Code: wray.CodeGroupRemoved, Task: spec.Name, Message: "there is no such placement group, or none any more"}
	case g.jobID != spec.Job:
		return named(spec.Name, wray.Errorf(wray.CodeBadArgument, "the placement group%s is of another job", g.called()))
	}
	if err := s.tooMuch(spec.Name, spec.Resources, wants, &placement{Strategy: *st, gang: g}); err != nil {
		return err
	}
	return nil
}

// rejoin puts t, whose attempt was given back, into its place in the queue of its
// group. settle must follow.
func (s *Scheduler) rejoin(t *task) {
	g := t.place.gang
	if g.over != nil {
		s.condemn(t, overOf(t, g.over))
		return
	}
	s.move(t, grouped)
	g.queue.insert(t)
	s.hungers(g)
}

// gangHolds reports whether what is free here is kept for a group that waits, and
// until when: for the oldest that waits, as for a task that starves.
func (s *Scheduler) gangHolds() (until int64, yes bool) {
	if s.gangs.pending == 0 {
		return 0, false
	}
	for _, g := range s.gangs.order {
		if g.home == 0 && g.state == gangWaits && g.until == 0 {
			return holdingSince(g.since, s.now)
		}
	}
	return 0, false
}
