package scheduler

import (
	"cmp"
	"slices"

	"github.com/wray-project/wray"
)

// The choice of nodes for the bundles of a group. It is a function: of what
// nodes have to what goes where.

// site is a node, as the choice sees it: what it has free by dimension. 0 is
// CPU, 1 is memory, and the others are the custom resources that the bundles
// ask for.
type site struct {
	free []int64
	held int // bundles of the group that are there already
}

// piece is a bundle that is to lie somewhere. allowed says which sites' labels
// are as it wants them; nil: all.
type piece struct {
	need    []int64
	allowed []bool
}

func (p *piece) fits(at int, sites []site) bool {
	if p.allowed != nil && !p.allowed[at] {
		return false
	}
	for d, n := range p.need {
		if n > sites[at].free[d] {
			return false
		}
	}
	return true
}

func (st *site) take(p *piece) {
	for d, n := range p.need {
		st.free[d] -= n
	}
	st.held++
}

// choose returns a site for each piece, or nil where it finds none for all of
// them. It changes the sites. Of the strict strategies it finds a choice if there
// is one; packing bundles of different sizes is not that simple, and there it
// may miss one. The first site is this node, and is taken among equals.
func choose(strategy wray.GroupStrategy, sites []site, pieces []piece) []int {
	c := chooser{sites: sites, pieces: pieces, at: make([]int, len(pieces))}
	if len(sites) == 0 {
		return nil
	}
	c.sort()
	switch strategy {
	case wray.GroupStrictPack:
		if !c.together() {
			return nil
		}
	case wray.GroupStrictSpread:
		if !c.apart() {
			return nil
		}
	case wray.GroupSpread:
		if !c.apart() && !c.retry((*chooser).widely) && !c.retry((*chooser).tightly) {
			return nil
		}
	default:
		if !c.together() && !c.retry((*chooser).closely) && !c.retry((*chooser).tightly) {
			return nil
		}
	}
	return c.at
}

type chooser struct {
	sites  []site
	pieces []piece
	order  []int // of pieces, the largest first
	at     []int
}

// sort puts the pieces that are hardest to place first: whose largest part of
// what any one site has is the largest.
func (c *chooser) sort() {
	most := make([]int64, len(c.pieces[0].need))
	for i := range c.sites {
		for d, n := range c.sites[i].free {
			most[d] = max(most[d], n)
		}
	}
	size := make([]float64, len(c.pieces))
	for i := range c.pieces {
		c.order = append(c.order, i)
		for d, n := range c.pieces[i].need {
			if n > 0 {
				size[i] = max(size[i], float64(n)/float64(max(most[d], 1)))
			}
		}
	}
	slices.SortStableFunc(c.order, func(a, b int) int { return cmp.Compare(size[b], size[a]) })
}

// retry tries a way that changes the sites, and leaves them as they were where it
// does not lead there.
func (c *chooser) retry(way func(*chooser) bool) bool {
	was := make([]site, len(c.sites))
	for i, st := range c.sites {
		was[i] = site{slices.Clone(st.free), st.held}
	}
	if way(c) {
		return true
	}
	copy(c.sites, was)
	return false
}

// together puts all on one site: the tightest that holds them, of those that have
// some of the group already, where there are such.
func (c *chooser) together() bool {
	some := slices.ContainsFunc(c.sites, func(st site) bool { return st.held > 0 })
	best := -1
	for i := range c.sites {
		if some && c.sites[i].held == 0 || !c.holdsAll(i) {
			continue
		}
		if best < 0 || c.tighter(i, best) {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	for _, k := range c.order {
		c.put(k, best)
	}
	return true
}

func (c *chooser) put(piece, at int) {
	c.at[piece] = at
	c.sites[at].take(&c.pieces[piece])
}

// holdsAll reports whether all pieces fit a site together.
func (c *chooser) holdsAll(at int) bool {
	for d := range c.sites[at].free {
		left := c.sites[at].free[d]
		for k := range c.pieces {
			if left -= c.pieces[k].need[d]; left < 0 && c.pieces[k].need[d] > 0 {
				return false
			}
		}
	}
	for k := range c.pieces {
		if p := &c.pieces[k]; p.allowed != nil && !p.allowed[at] {
			return false
		}
	}
	return true
}

// tighter reports whether site i has less to spare than site k.
func (c *chooser) tighter(i, k int) bool { return slices.Compare(c.sites[i].free, c.sites[k].free) < 0 }

// apart puts each piece on a site of its own that has nothing of the group. It
// is a matching of pieces and sites: a piece that finds its sites taken has
// those who took them look for another (Kuhn's algorithm).
func (c *chooser) apart() bool {
	if len(c.pieces) > len(c.sites) {
		return false
	}
	taken := make([]int, len(c.sites)) // by which piece, plus one
	sites := make([]int, len(c.sites)) // the tightest first, so that large ones stay free for large tasks
	for i := range sites {
		sites[i] = i
	}
	slices.SortStableFunc(sites, func(a, b int) int { return slices.Compare(c.sites[a].free, c.sites[b].free) })
	var visited []bool
	var find func(k int) bool
	find = func(k int) bool {
		for _, i := range sites { // a free one first
			if taken[i] == 0 && c.sites[i].held == 0 && c.pieces[k].fits(i, c.sites) {
				taken[i] = k + 1
				return true
			}
		}
		for _, i := range sites {
			if visited[i] || c.sites[i].held > 0 || !c.pieces[k].fits(i, c.sites) {
				continue
			}
			visited[i] = true
			if find(taken[i] - 1) {
				taken[i] = k + 1
				return true
			}
		}
		return false
	}
	for _, k := range c.order {
		visited = make([]bool, len(c.sites))
		if !find(k) {
			return false
		}
	}
	for i, k := range taken {
		if k > 0 {
			c.put(k-1, i)
		}
	}
	return true
}

// widely puts each piece where the fewest of the group are, and of those where
// the most is free.
func (c *chooser) widely() bool {
	return c.each(func(i, k int) bool {
		if a, b := c.sites[i].held, c.sites[k].held; a != b {
			return a < b
		}
		return c.tighter(k, i)
	})
}

// tightly puts each piece where the least is left.
func (c *chooser) tightly() bool { return c.each(c.tighter) }

// each puts each piece on the best of the sites that it fits.
func (c *chooser) each(better func(i, k int) bool) bool {
	for _, k := range c.order {
		best := -1
		for i := range c.sites {
			if c.pieces[k].fits(i, c.sites) && (best < 0 || better(i, best)) {
				best = i
			}
		}
		if best < 0 {
			return false
		}
		c.put(k, best)
	}
	return true
}

// closely fills one site after the other: those that have some of the group, then
// one that holds all that is left, or else the one with the most free.
func (c *chooser) closely() bool {
	left := slices.Clone(c.order)
	fill := func(at int) bool {
		n := len(left)
		left = slices.DeleteFunc(left, func(k int) bool {
			fits := c.pieces[k].fits(at, c.sites)
			if fits {
				c.put(k, at)
			}
			return fits
		})
		return len(left) < n
	}
	for i := range c.sites {
		if c.sites[i].held > 0 {
			fill(i)
		}
	}
	for len(left) > 0 {
		best, all := -1, false
		for i := range c.sites {
			if !c.pieces[left[0]].fits(i, c.sites) {
				continue
			}
			holds := (&chooser{sites: c.sites, pieces: c.only(left)}).holdsAll(i)
			switch {
			case best < 0, holds && !all, holds && c.tighter(i, best), !holds && !all && c.tighter(best, i):
				best, all = i, holds
			}
		}
		if best < 0 || !fill(best) {
			return false
		}
	}
	return true
}

// only returns the pieces of those numbers.
func (c *chooser) only(numbers []int) []piece {
	list := make([]piece, len(numbers))
	for i, k := range numbers {
		list[i] = c.pieces[k]
	}
	return list
}
