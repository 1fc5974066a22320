package rewrite

// callGraph holds the direct calls between a module's own functions, tail calls
// included. Calls through tables are not in it: each of them has a check at its
// site, so a cycle that goes through one needs no other.
type callGraph struct {
	first  []uint32 // the callees of i are callee[first[i]:first[i+1]]
	callee []uint32 // own functions, with repetitions
}

func (g *callGraph) size() int { return len(g.first) - 1 }

func (g *callGraph) callees(i uint32) []uint32 { return g.callee[g.first[i]:g.first[i+1]] }

// cycleRounds bounds how often a strongly connected component is taken apart
// by its busiest function before the rest of its cycles are cut where a
// depth-first search closes them.
const cycleRounds = 24

// heads returns a set of functions that meets every cycle of g, and the
// strongly connected component of each function; functions on no cycle are
// alone in theirs.
//
// The smallest such set is NP-hard to find (feedback vertex set). Taking out
// the function with the most callers inside a component first does well on
// real programs: in Go's, nearly all cycles go through the few functions that
// grow the stack, which are called from everywhere and run rarely.
func (g *callGraph) heads() (head []bool, component []uint32) {
	n := g.size()
	head = make([]bool, n)
	t := &tarjan{g: g, cut: head, within: make([]uint32, n), index: make([]uint32, n), low: make([]uint32, n)}
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(i)
	}
	callers := make([]uint32, n)
	work := t.components(all)
	component = append([]uint32(nil), t.within...)
	for round := 0; len(work) > 0; round++ {
		var next [][]uint32
		for _, c := range work {
			if round == cycleRounds {
				t.cutBackEdges(c)
				continue
			}
			head[g.busiest(c, t.within, callers)] = true
			next = append(next, t.components(c)...)
		}
		work = next
	}
	return head, component
}

// busiest returns the function of c with the most callers inside c. callers is
// scratch and zero before and after.
func (g *callGraph) busiest(c []uint32, within, callers []uint32) uint32 {
	for _, f := range c {
		for _, to := range g.callees(f) {
			if within[to] == within[f] {
				callers[to]++
			}
		}
	}
	best := c[0]
	for _, f := range c {
		if callers[f] > callers[best] {
			best = f
		}
	}
	for _, f := range c {
		callers[f] = 0
	}
	return best
}

// tarjan finds strongly connected components of parts of a graph, without
// recursion: call chains can be as long as a module has functions.
type tarjan struct {
	g      *callGraph
	cut    []bool   // functions taken out
	within []uint32 // part that a function is in; 0 none yet
	parts  uint32   // parts handed out
	index  []uint32 // order of discovery in this run, 0 not yet
	low    []uint32
	stack  []uint32
	path   []step
}

type step struct{ f, edge uint32 }

// components splits the functions of c that are not cut, all of which are in
// one part, into components, makes each a part of its own, and returns those
// that have a cycle.
func (t *tarjan) components(c []uint32) (cyclic [][]uint32) {
	var part uint32
	for _, f := range c {
		t.index[f] = 0
		part = t.within[f]
	}
	order := uint32(0)
	for _, root := range c {
		if t.cut[root] || t.index[root] != 0 || t.within[root] != part {
			continue
		}
		t.path = append(t.path[:0], step{f: root})
		for len(t.path) > 0 {
			top := &t.path[len(t.path)-1]
			f := top.f
			if t.index[f] == 0 {
				order++
				t.index[f], t.low[f] = order, order
				t.stack = append(t.stack, f)
			}
			callees := t.g.callees(f)
			descended := false
			for int(top.edge) < len(callees) {
				to := callees[top.edge]
				top.edge++
				if t.cut[to] || t.within[to] != part {
					continue
				}
				if t.index[to] == 0 {
					t.path = append(t.path, step{f: to})
					descended = true
					break
				}
				t.low[f] = min(t.low[f], t.index[to])
			}
			if descended {
				continue
			}
			t.path = t.path[:len(t.path)-1]
			if len(t.path) > 0 {
				up := t.path[len(t.path)-1].f
				t.low[up] = min(t.low[up], t.low[f])
			}
			if t.low[f] == t.index[f] {
				if comp := t.pop(f); comp != nil {
					cyclic = append(cyclic, comp)
				}
			}
		}
	}
	return cyclic
}

// pop takes the component of f off the stack and returns it if it has a cycle.
func (t *tarjan) pop(f uint32) []uint32 {
	i := len(t.stack) - 1
	for t.stack[i] != f {
		i--
	}
	comp := t.stack[i:]
	t.parts++
	for _, m := range comp {
		t.within[m] = t.parts
	}
	var out []uint32
	if len(comp) > 1 || t.callsItself(f) {
		out = append(out, comp...)
	}
	t.stack = t.stack[:i]
	return out
}

func (t *tarjan) callsItself(f uint32) bool {
	for _, to := range t.g.callees(f) {
		if to == f {
			return true
		}
	}
	return false
}

// cutBackEdges cuts every function of c that a depth-first search reaches again
// while it is on the search's path.
func (t *tarjan) cutBackEdges(c []uint32) {
	const onPath, done = 1, 2
	for _, f := range c {
		t.index[f] = 0
	}
	part := t.within[c[0]]
	for _, root := range c {
		if t.index[root] != 0 {
			continue
		}
		t.path = append(t.path[:0], step{f: root})
		t.index[root] = onPath
		for len(t.path) > 0 {
			top := &t.path[len(t.path)-1]
			callees := t.g.callees(top.f)
			if int(top.edge) == len(callees) {
				t.index[top.f] = done
				t.path = t.path[:len(t.path)-1]
				continue
			}
			to := callees[top.edge]
			top.edge++
			switch {
			case t.within[to] != part || t.cut[to]:
			case t.index[to] == onPath:
				t.cut[to] = true
			case t.index[to] == 0:
				t.index[to] = onPath
				t.path = append(t.path, step{f: to})
			}
		}
	}
}

// callersFirst returns all functions in an order in which a function stands
// behind its callers, except that calls of a head inside its own component do
// not count.
func (g *callGraph) callersFirst(head []bool, component []uint32) []uint32 {
	n := g.size()
	order := make([]uint32, 0, n)
	seen := make([]bool, n)
	var path []step
	for root := range uint32(n) {
		if seen[root] {
			continue
		}
		seen[root] = true
		path = append(path[:0], step{f: root})
		for len(path) > 0 {
			top := &path[len(path)-1]
			callees := g.callees(top.f)
			if int(top.edge) == len(callees) {
				order = append(order, top.f)
				path = path[:len(path)-1]
				continue
			}
			to := callees[top.edge]
			top.edge++
			if !seen[to] && (!head[to] || component[to] != component[top.f]) {
				seen[to] = true
				path = append(path, step{f: to})
			}
		}
	}
	// The order so far is callees first.
	for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
		order[i], order[j] = order[j], order[i]
	}
	return order
}
