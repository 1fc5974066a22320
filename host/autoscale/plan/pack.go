package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray"
)

// bin is room into which what waits is packed: of a node, of an instance that
// has not joined, or of one that is to be started.
type bin struct {
	name   string
	labels []wray.Label
	free   wray.Resources
	custom []wray.Custom
	member *member // nil: of no group
	rank   [3]int  // bins with less are filled first
}

// times returns how many tasks of a demand fit, most at most.
func (b *bin) times(d *Demand, most int) int {
	if _, ok := d.Place.Allows(b.name, b.labels); !ok {
		return 0
	}
	n := int64(most)
	fit := func(free, want int64) {
		if want > 0 {
			n = min(n, max(free, 0)/want)
		}
	}
	fit(int64(b.free.CPU), int64(d.Resources.CPU))
	fit(b.free.Memory, d.Resources.Memory)
	for _, c := range d.Custom {
		fit(int64(amount(b.custom, c.Name)), int64(c.Amount))
	}
	return int(n)
}

// put takes the room of n tasks.
func (b *bin) put(d *Demand, n int) {
	b.free.CPU -= d.Resources.CPU * wray.CPU(n)
	b.free.Memory -= d.Resources.Memory * int64(n)
	for _, c := range d.Custom {
		for i := range b.custom {
			if b.custom[i].Name == c.Name {
				b.custom[i].Amount -= c.Amount * wray.Amount(n)
			}
		}
	}
	if b.member != nil {
		b.member.used = true
	}
}

func amount(list []wray.Custom, name string) wray.Amount {
	for _, c := range list {
		if c.Name == name {
			return c.Amount
		}
	}
	return 0
}

// clone returns a bin of its own with the room of b.
func (b *bin) clone() *bin {
	c := *b
	c.custom = slices.Clone(b.custom)
	return &c
}

// model says what a node of g has: what its group says, and of that not more than
// the best of the instances that have joined. What no provider has started says
// nothing of what one starts.
func (g *group) model(now time.Duration) {
	g.learn(now)
	b := bin{labels: g.Labels, free: g.Capacity, custom: slices.Clone(g.Custom)}
	if b.free.Memory == 0 {
		b.free.Memory = math.MaxInt64
	}
	var lacks []string
	if k := g.known; k != nil {
		if k.free.CPU < b.free.CPU {
			lacks = append(lacks, fmt.Sprintf("%v CPUs, not %v", k.free.CPU, b.free.CPU))
			b.free.CPU = k.free.CPU
		}
		if k.free.Memory < b.free.Memory {
			if g.Capacity.Memory > 0 {
				lacks = append(lacks, fmt.Sprintf("%d bytes of memory, not %d", k.free.Memory, b.free.Memory))
			}
			b.free.Memory = k.free.Memory
		}
		for i := range b.custom {
			c := &b.custom[i]
			if has := amount(k.custom, c.Name); has < c.Amount {
				lacks = append(lacks, fmt.Sprintf("%v of %q, not %v", has, c.Name, c.Amount))
				c.Amount = has
			}
		}
		b.labels = nil
		for _, l := range g.Labels {
			if slices.Contains(k.labels, l) {
				b.labels = append(b.labels, l)
			} else {
				lacks = append(lacks, fmt.Sprintf("no label %s=%s", l.Key, l.Value))
			}
		}
	}
	g.template, g.lacks = b, strings.Join(lacks, ", ")
}

// learn notes the most that instances have which have joined, of each thing. That
// is known on when they have gone, for a time: else one that cannot hold what waits
// would be started for it again and again.
func (g *group) learn(now time.Duration) {
	var b *bin
	for _, m := range g.members {
		if m.node == nil || !m.instance {
			continue
		}
		if b == nil {
			b = &bin{}
		}
		n := m.node
		b.free.CPU, b.free.Memory = max(b.free.CPU, n.Capacity.CPU), max(b.free.Memory, n.Capacity.Memory)
		b.labels = append(b.labels, n.Labels...)
		for _, c := range n.Custom {
			if i := slices.IndexFunc(b.custom, func(o wray.Custom) bool { return o.Name == c.Name }); i >= 0 {
				b.custom[i].Amount = max(b.custom[i].Amount, c.Amount)
			} else {
				b.custom = append(b.custom, c)
			}
		}
	}
	switch {
	case b != nil:
		g.known, g.knownAt = b, now
	case g.known != nil && now-g.knownAt >= relearn:
		g.known = nil // they may be others by now
	}
}

// bins returns the room that is there or on its way, in the order in which it is
// filled: nodes of no group, which stay; those that are busy; then the others.
func (p *Planner) bins(now time.Duration, in *Input) []*bin {
	var list []*bin
	grouped := map[string]bool{}
	for _, g := range p.groups {
		grouped[g.Name] = true
		g.model(now)
		for _, m := range g.sorted() {
			switch n := m.node; {
			case m.leaving():
			case n == nil && m.joined: // it was there, and may not be again
			case n == nil:
				b := g.template.clone()
				b.name, b.member, b.rank = m.name, m, [3]int{3, 0, m.rank}
				list = append(list, b)
			default:
				b := &bin{name: n.Name, labels: n.Labels, free: n.Free, custom: slices.Clone(n.FreeCustom), member: m, rank: [3]int{2, 0, m.rank}}
				if n.Busy {
					b.rank[0] = 1
				}
				list = append(list, b)
			}
		}
	}
	for i := range in.Nodes {
		if n := &in.Nodes[i]; !grouped[n.Group] && !n.Draining {
			list = append(list, &bin{name: n.Name, labels: n.Labels, free: n.Free, custom: slices.Clone(n.FreeCustom)})
		}
	}
	slices.SortStableFunc(list, func(a, b *bin) int {
		return cmp.Or(slices.Compare(a.rank[:], b.rank[:]), strings.Compare(a.name, b.name))
	})
	return list
}

// pack fills bins with what waits, the largest first, each into the first bin
// with room (first fit decreasing: Johnson et al., SIAM J. Comput. 1974), and
// opens new ones of the first group of which a node could hold it.
func (p *Planner) pack(demand []Demand, bins []*bin) {
	largest := wray.Resources{CPU: 1, Memory: 1}
	for _, d := range demand {
		largest.CPU, largest.Memory = max(largest.CPU, d.Resources.CPU), max(largest.Memory, d.Resources.Memory)
	}
	size := func(d *Demand) float64 {
		return max(float64(d.Resources.CPU)/float64(largest.CPU), float64(d.Resources.Memory)/float64(largest.Memory))
	}
	order := make([]*Demand, 0, len(demand))
	for i := range demand {
		order = append(order, &demand[i])
	}
	slices.SortStableFunc(order, func(a, b *Demand) int {
		// Who is choosy first: others find room elsewhere.
		return cmp.Or(cmp.Compare(len(b.Custom)+len(b.Place.Where), len(a.Custom)+len(a.Place.Where)), cmp.Compare(size(b), size(a)))
	})
	for _, d := range order {
		left := d.Count
		for _, b := range bins {
			if left == 0 {
				break
			}
			if n := b.times(d, left); n > 0 {
				b.put(d, n)
				left -= n
			}
		}
		for _, healthy := range [2]bool{true, false} {
			for _, g := range p.groups {
				if (g.pause == 0 && g.blind == "") != healthy {
					continue
				}
				for left > 0 && g.active+g.out+g.opened < g.Max {
					n := g.template.times(d, left)
					if n == 0 {
						break
					}
					b := g.template.clone()
					b.put(d, n)
					bins = append(bins, b)
					left -= n
					g.opened++
				}
			}
		}
		for _, g := range p.groups {
			g.full = g.full || left > 0 && g.template.times(d, 1) > 0
		}
	}
}
