package scheduler

import (
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

// Promise is a kind of nodes of which more can be there: what one of them has.
// Node.Name is what the kind is called; no node has that name.
type Promise struct{ Node }

// MaxPromises bounds the kinds of nodes that are promised.
const MaxPromises = 64

// Promised tells which nodes there can be more of, in place of what was promised
// before. A task that one of those could hold waits for it as long as it takes.
func (s *Scheduler) Promised(now int64, list []Promise) error {
	s.at(now)
	if len(list) > MaxPromises {
		return fmt.Errorf("scheduler: %d kinds of nodes are promised: %d at most", len(list), MaxPromises)
	}
	s.promises = slices.Clone(list)
	for i := range s.promises {
		n := &s.promises[i].Node
		if n.Capacity.CPU < 0 || n.Capacity.Memory < 0 {
			s.promises = nil
			return fmt.Errorf("scheduler: the promise %q has less than nothing", n.Name)
		}
		n.Custom, n.Labels = slices.Clone(n.Custom), slices.Clone(n.Labels)
	}
	s.rehope()
	s.gangs.changed = true
	s.deadlock.changed = true
	s.settle()
	return nil
}

// holds reports whether a node that is promised could hold a task.
func (s *Scheduler) holds(p *Promise, res wray.Resources, wants []want, place *placement) bool {
	if place != nil && (place.home || place.Kind == OnNode && !place.Soft) || !res.Fits(p.Capacity) || !place.allows(&p.Node) {
		return false
	}
	for _, w := range wants {
		name := s.custom[w.resource].name
		if !slices.ContainsFunc(p.Custom, func(c wray.Custom) bool { return c.Name == name && w.amount <= c.Amount }) {
			return false
		}
	}
	return true
}

// hope reports whether some other node, or one that is promised, could ever hold
// a task.
func (s *Scheduler) hope(res wray.Resources, wants []want, place *placement) bool {
	return s.elsewhere(res, wants, place) || slices.ContainsFunc(s.promises, func(p Promise) bool { return s.holds(&p, res, wants, place) })
}

// yonder reports whether t may not run here, ever, and may on other nodes.
func (t *task) yonder() bool { return !t.here && !t.home() }

// rehope begins and ends the patience of what is queued, after promises have
// changed.
func (s *Scheduler) rehope() {
	if s.config.Patience == 0 {
		return
	}
	s.eachYonder(func(t *task, hope bool) {
		if t.timerIndex >= 0 && hope {
			s.stopTimer(t)
		} else if t.timerIndex < 0 && !hope {
			s.beginPatience(t)
		}
	})
}

// eachYonder calls f with each queued task that waits for another node, and
// whether there is hope for one. It finds that out once for each shape.
func (s *Scheduler) eachYonder(f func(t *task, hope bool)) {
	for _, j := range s.active {
		for _, q := range j.queues { // each of one shape, so that one answer holds for all
			if t := q.first; t != nil && t.yonder() {
				hope := s.hope(t.res, t.claim.all(), t.place)
				for ; t != nil; t = t.next {
					f(t, hope)
				}
			}
		}
		answers := map[shape]bool{}
		for t := j.abroad.first; t != nil; t = t.next {
			if !t.yonder() {
				continue
			}
			hope, known := answers[t.shape()]
			if !known {
				hope = s.hope(t.res, t.claim.all(), t.place)
				answers[t.shape()] = hope
			}
			f(t, hope)
		}
	}
}

// Demand is tasks and actors of one shape that are queued.
type Demand struct {
	Resources wray.Resources
	Custom    []wray.Custom
	Strategy  Strategy
	Count     int
}

// maxDemandSeen bounds the tasks that are looked at for Demands, of those whose
// shapes are too many for a queue of each.
const maxDemandSeen = 1024

// Demands says what is queued that may run on other nodes, by shape, the shapes
// with the most tasks first, most of them at most. It takes a time that does not
// grow with the number of tasks: where a job has so many shapes that some share a
// queue, the tasks there that are not looked at are taken to be as those that are.
func (s *Scheduler) Demands(most int) []Demand {
	count := map[shape]int{}
	var order []shape
	add := func(k shape, n int) {
		k.inner = false
		if k.place != nil && k.place.home {
			return
		}
		if _, ok := count[k]; !ok {
			order = append(order, k)
		}
		count[k] += n
	}
	for _, j := range s.active {
		for _, q := range j.queues {
			if q.first != nil {
				add(q.shape, q.n)
			}
		}
		for _, q := range [2]*queue{&j.overflow, &j.abroad} {
			seen := 0
			for t := q.first; t != nil && seen < maxDemandSeen; t = t.next {
				seen++
			}
			rest := q.n - seen
			t := q.first
			for i := range seen {
				n := 1 + rest/seen
				if i < rest%seen {
					n++
				}
				add(t.waitShape(), n)
				t = t.next
			}
		}
	}
	slices.SortStableFunc(order, func(a, b shape) int { return count[b] - count[a] })
	var list []Demand
	for _, k := range order[:min(len(order), most)] {
		d := Demand{Resources: k.res, Count: count[k]}
		for _, c := range k.claim.all() {
			d.Custom = append(d.Custom, wray.Custom{Name: s.custom[c.resource].name, Amount: c.amount})
		}
		if p := k.place; p != nil {
			d.Strategy = p.Strategy
			d.Strategy.Where = slices.Clone(p.Where)
		}
		list = append(list, d)
	}
	return append(list, s.groupDemands(most-len(list))...)
}

// Room is what is free here, and how many tasks run here, for whomever, actors
// among them.
func (s *Scheduler) Room() (free wray.Resources, custom []wray.Custom, tasks int) {
	for i := range s.own {
		custom = append(custom, wray.Custom{Name: s.custom[i].name, Amount: s.custom[i].free})
	}
	for _, j := range s.order {
		for st := range states {
			if state(st).local() {
				tasks += j.count[st]
			}
		}
	}
	tasks += len(s.gangs.rooms) // a bundle is in use, whether a task runs in it or not
	return wray.Resources{CPU: max(s.free.CPU, 0), Memory: max(s.free.Memory, 0)}, custom, tasks
}
