package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// GroupInfo is what is known of a placement group, for people.
type GroupInfo struct {
	ID       wray.ID
	Job      wray.ID
	Name     string
	Strategy wray.GroupStrategy
	State    string // waiting, reserving or ready
	Since    int64  // the time at which it came into that state
	Tasks    int    // that wait for room in it
	Why      string // it waits, in words
	Bundles  []BundleInfo
}

// BundleInfo is a bundle of a group.
type BundleInfo struct {
	wray.Bundle
	Placed bool
	Node   string // where it is
	Free   wray.Resources
}

// Groups describes the placement groups that belong to this worker, the oldest
// first, at most so many, and says how many there are.
func (s *Scheduler) Groups(now int64, most int) (list []GroupInfo, all int) {
	s.at(now)
	for _, g := range s.gangs.order {
		if g.home != 0 {
			continue
		}
		if all++; len(list) < most {
			list = append(list, s.groupInfo(g))
		}
	}
	return list, all
}

func (s *Scheduler) groupInfo(g *gang) GroupInfo {
	x := GroupInfo{ID: g.id, Job: g.jobID, Name: g.name, Since: g.since, Tasks: g.queue.n,
		State: [...]string{"waiting", "reserving", "ready"}[g.state]}
	if g.spec == nil {
		return x
	}
	x.Strategy, x.Why = g.spec.Strategy, s.whyWaits(g)
	for i := range g.bundles {
		b := &g.bundles[i]
		info := BundleInfo{Bundle: g.spec.Bundles[i], Placed: b.room != nil && !b.fresh, Node: s.nodeOf(b.at)}
		if info.Placed {
			info.Free = b.room.free
		}
		x.Bundles = append(x.Bundles, info)
	}
	return x
}

// nodeOf returns the name of the node of a peer, or of this node.
func (s *Scheduler) nodeOf(at PeerID) string {
	if at == 0 {
		return s.node.Name
	}
	if p := s.peers.byID[at]; p != nil {
		return p.node.Name
	}
	return ""
}

// whyWaits says in words why g is not ready; "": it is.
func (s *Scheduler) whyWaits(g *gang) string {
	switch {
	case g.spec == nil:
		return "its home has not said yet where it is"
	case g.home != 0 && g.state == gangWaits:
		return "its home has not placed all its bundles yet"
	case g.state == gangAsks:
		var names []string
		for _, p := range g.waiting {
			names = append(names, s.nodeOf(p))
		}
		return "nodes were asked to hold its bundles: " + strings.Join(names, ", ")
	case g.state == gangReady:
		return ""
	}
	lost := g.lost()
	what := fmt.Sprintf("%d bundles are to be placed (%v)", len(lost), g.spec.Strategy)
	if len(lost) < len(g.bundles) {
		what = fmt.Sprintf("%d of %d bundles are to be placed again (%v)", len(lost), len(g.bundles), g.spec.Strategy)
	}
	if !s.possible(g, lost) {
		return what + ", and the nodes that are known could not hold them: " + s.obstacle(g, lost, false)
	}
	return what + ", and have to wait for room: " + s.obstacle(g, lost, true)
}

// maxObstacles bounds the nodes that obstacle names.
const maxObstacles = 4

// obstacle says what keeps bundles from nodes, now or ever: the first that fits
// nowhere, or what the strategy asks for.
func (s *Scheduler) obstacle(g *gang, lost []int, now bool) string {
	sites, _, nodes := s.sites(g, now)
	pieces := s.pieces(g, lost, nodes)
	usable := 0
	for i := range sites {
		usable += min(1, 1-min(sites[i].held, 1))
	}
	if g.spec.Strategy == wray.GroupStrictSpread && usable < len(lost) {
		return fmt.Sprintf("each wants a node of its own, and there are %d", usable)
	}
	for k, i := range lost {
		var why []string
		fits := false
		for at := range sites {
			if fits = pieces[k].fits(at, sites); fits {
				break
			}
			if len(why) < maxObstacles {
				why = append(why, s.against(g, i, &pieces[k], sites, nodes[at], at, now))
			}
		}
		if fits {
			continue
		}
		if more := len(sites) - len(why); more > 0 {
			why = append(why, fmt.Sprintf("and %d more", more))
		}
		return fmt.Sprintf("bundle %d (%v) fits none: %s", i, &g.spec.Bundles[i], strings.Join(why, "; "))
	}
	if g.spec.Strategy == wray.GroupStrictPack {
		return "no node holds all of them"
	}
	return "each alone fits a node, all together do not"
}

// against says what bundle i of g lacks at a site.
func (s *Scheduler) against(g *gang, i int, p *piece, sites []site, node *Node, at int, now bool) string {
	name := node.Name
	if name == "" {
		name = "this node"
	}
	for _, w := range g.spec.Bundles[i].Where {
		if !w.Matches(node.Labels) {
			return name + ": its labels are not as wanted: " + w.String()
		}
	}
	word := "has"
	if now {
		word = "has free"
	}
	names := g.dimensions()
	for d, n := range p.need {
		have := max(sites[at].free[d], 0)
		switch {
		case n <= have:
		case d == 0:
			return fmt.Sprintf("%s %s %v CPU", name, word, wray.CPU(have))
		case d == 1:
			return fmt.Sprintf("%s %s %s of memory", name, word, size(have))
		default:
			return fmt.Sprintf("%s %s %v %s", name, word, wray.Amount(have), names[d-2])
		}
	}
	return name
}

// groupDemands says what groups wait for, bundle by bundle, those of a strict pack
// together; most at most.
func (s *Scheduler) groupDemands(most int) []Demand {
	var list []Demand
	add := func(b wray.Bundle) {
		for i := range list {
			d := &list[i]
			if d.Resources == b.Resources && slices.Equal(d.Custom, b.Custom) && slices.EqualFunc(d.Strategy.Where, b.Where, func(x, y wray.Selector) bool { return x.String() == y.String() }) {
				d.Count++
				return
			}
		}
		if len(list) < most {
			list = append(list, Demand{Resources: b.Resources, Custom: slices.Clone(b.Custom), Strategy: Strategy{Where: slices.Clone(b.Where)}, Count: 1})
		}
	}
	for _, g := range s.gangs.order {
		if g.home != 0 || g.state != gangWaits {
			continue
		}
		var all wray.Bundle
		for _, i := range g.lost() {
			b := g.spec.Bundles[i]
			if g.spec.Strategy != wray.GroupStrictPack {
				add(b)
				continue
			}
			all.Resources = all.Resources.Add(b.Resources)
			custom := slices.Clone(b.Custom)
			slices.SortFunc(custom, func(x, y wray.Custom) int { return strings.Compare(x.Name, y.Name) })
			all.Custom = addCustom(all.Custom, custom)
			all.Where = append(all.Where, b.Where...)
		}
		if g.spec.Strategy == wray.GroupStrictPack {
			add(all)
		}
	}
	return list
}

// noNodes is the error of a group that no nodes could ever hold.
func (s *Scheduler) noNodes(g *gang) *wray.Error {
	return &wray.Error{Code: wray.CodeUnschedulable, Message: "the placement group" + g.called() + ": " + s.whyWaits(g),
		Hint: "ask for less or for another strategy, or add nodes; wray status shows what nodes have"}
}

// groupVerdicts are those on what t meets in the bundles that it may run in.
func (s *Scheduler) groupVerdicts(t *task, most int) []Verdict {
	g := t.place.gang
	if g.spec == nil || !g.ready {
		return []Verdict{{Node: s.node.Name, Fails: []Constraint{{Kind: NoBundle, Name: s.whyWaits(g)}}}}
	}
	var list []Verdict
	for i := range g.bundles {
		b := &g.bundles[i]
		if !t.place.mayHold(i) {
			continue
		}
		if len(list) >= most {
			break
		}
		v := Verdict{Node: s.nodeOf(b.at), Peer: b.at}
		p := s.peers.byID[b.at]
		s.inBundle(&v, g, i, t.res, t.claim.all(), b.room)
		switch {
		case b.at == Nowhere || b.fresh:
			v.Node, v.Peer = "", 0
			v.Fails = []Constraint{{Kind: NoBundle, Name: s.whyWaits(g)}}
		case v.Never() || b.at == 0:
		case t.home():
			v.Fails = []Constraint{{Kind: OnlyHome, Never: true}}
		case p == nil || p.unreachable:
			v.Fails = []Constraint{{Kind: NodeSilent}}
		case len(v.Fails) == 0 && b.room.shut:
			v.Fails = []Constraint{{Kind: NodeRefused}}
		case len(v.Fails) == 0 && t.job.avoids(p.id, s.now):
			v.Fails = []Constraint{{Kind: NodeAvoided}}
		}
		list = append(list, v)
	}
	slices.SortStableFunc(list, func(a, b Verdict) int { return strings.Compare(a.Node, b.Node) })
	return list
}

// checkRooms checks the accounts of groups, for check.
func (c *checker) checkRooms() error {
	s := c.s
	pending, held, resuming := 0, 0, 0
	for _, g := range s.gangs.order {
		if s.gangs.byID[g.id] != g || g.over != nil {
			return fmt.Errorf("10: group %v is not known, or over", g.id)
		}
		if g.home == 0 && g.state != gangReady {
			pending++
		}
		if g.queue.first != nil && !g.listed {
			return fmt.Errorf("10: tasks wait for group %v and nobody sees to it", g.id)
		}
		if err := c.list(&g.queue); err != nil {
			return err
		}
		for t := g.queue.first; t != nil; t = t.next {
			if t.state != grouped || t.place.in() != g {
				return fmt.Errorf("10: task %v, %v, is in the queue of group %v", t.id, t.state, g.id)
			}
		}
		lost := 0
		for i := range g.bundles {
			b := &g.bundles[i]
			if (b.at == Nowhere) != (b.room == nil) || b.room != nil && (b.room.gang != g || b.room.index != i || b.room.closing || b.room.here != (b.at == 0)) {
				return fmt.Errorf("10: bundle %d of group %v is at %d and has the room %+v", i, g.id, b.at, b.room)
			}
			if b.at == Nowhere || b.fresh {
				lost++
			}
			if b.until > 0 {
				held++
			}
		}
		if g.home == 0 && (lost > 0) != (g.state != gangReady) || (g.state == gangAsks) != (len(g.waiting) > 0) {
			return fmt.Errorf("10: group %v is in state %d, with %d bundles to be placed, and waits for %v", g.id, g.state, lost, g.waiting)
		}
	}
	if pending != s.gangs.pending || held != s.gangs.held {
		return fmt.Errorf("10: %d groups wait, counted %d; %d bundles are held, counted %d", pending, s.gangs.pending, held, s.gangs.held)
	}
	for _, r := range s.gangs.rooms {
		if r.closing && r.first == nil {
			return fmt.Errorf("10: a room of group %v is kept for nobody", r.gang.id)
		}
		if err := c.list(&r.resume); err != nil {
			return err
		}
		resuming += r.resume.n
		c.free = c.free.Sub(r.capacity)
		for _, x := range r.custom {
			c.custom[x.resource].free -= x.capacity
		}
		if err := r.check(); err != nil {
			return err
		}
	}
	if resuming != s.gangs.resuming {
		return fmt.Errorf("10: %d attempts in rooms want their CPU back, counted %d", resuming, s.gangs.resuming)
	}
	return nil
}

// check recomputes what is free in r.
func (r *room) check() error {
	free := r.capacity
	custom := make([]wray.Amount, len(r.custom))
	for i := range custom {
		custom[i] = r.custom[i].capacity
	}
	for t := r.first; t != nil; t = t.after {
		if t.room != r || !t.state.started() {
			return fmt.Errorf("10: task %v, %v, is in a room of group %v", t.id, t.state, r.gang.id)
		}
		held, claims := t.state.inRoom(t.res)
		free = free.Sub(held)
		for _, w := range t.claim.all() {
			for i := range r.custom {
				if claims && r.custom[i].resource == w.resource {
					custom[i] -= w.amount
				}
			}
		}
	}
	if free != r.free || free.CPU < 0 || free.Memory < 0 {
		return fmt.Errorf("10: a room of group %v has %v free, counted %v", r.gang.id, free, r.free)
	}
	for i := range custom {
		if custom[i] != r.custom[i].free || custom[i] < 0 {
			return fmt.Errorf("10: a room of group %v has %v of %d free, counted %v", r.gang.id, custom[i], r.custom[i].resource, r.custom[i].free)
		}
	}
	return nil
}
