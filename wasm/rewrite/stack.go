package rewrite

// The depth of the stack is bounded by a counter of bytes, DepthExport. Not
// every call changes it: a function charges at its entry, and gives back at
// its exits, only where calls can nest without end or the static nesting is
// deep, and a call through a table charges at its site.
//
// What is not charged by a function is carried by the functions it calls, until
// one of them, or a call through a table, charges it. carry below is the most
// that can be outstanding when a function calls another.

const (
	// DefaultDepth is the native stack that a guest may use, in bytes as
	// estimated. The engine's own limit lies between 50 and 100 MB and is no
	// setting; the estimate must stay below it.
	DefaultDepth = 32 << 20

	// carryToSite is the most that a call through a table charges before the
	// functions on the way to it charge themselves. It keeps recursion through
	// tables from being charged for a deep but constant path to the site.
	carryToSite = 4 << 10
	// carryAnywhere is the most that is outstanding at any time.
	carryAnywhere = 64 << 10
)

// stackPlan says what functions charge.
type stackPlan struct {
	entry []uint32 // by own function, bytes charged at entry; 0 for most
	site  []uint32 // bytes charged around each call through a table
}

// planStack spreads the estimates in frame over entries and sites. order has
// callers first, sites says which functions call through tables.
func (g *callGraph) planStack(order []uint32, head []bool, component []uint32, frame []uint32, sites []bool) stackPlan {
	n := g.size()
	plan := stackPlan{entry: make([]uint32, n), site: make([]uint32, n)}
	reaches := g.reaching(order, head, component, sites)

	var (
		carry   = make([]uint32, n) // the most outstanding when f runs, then with f's own frame
		inner   = make([]uint32, n) // the part of it from f's component
		outside = make([]uint32, n) // for heads: the most outstanding at calls from other components
	)
	for _, f := range order {
		if head[f] {
			// Each round of recursion charges the rounds's frames; what lies
			// above the recursion is there once and stays outstanding.
			plan.entry[f] += frame[f]
			carry[f], inner[f] = outside[f], 0
			if carry[f] > carryAnywhere {
				plan.entry[f] += carry[f]
				carry[f] = 0
			}
		} else {
			carry[f] += frame[f]
			inner[f] += frame[f]
			if carry[f] > carryAnywhere || (carry[f] > carryToSite && reaches[f]) {
				plan.entry[f] = carry[f]
				carry[f], inner[f] = 0, 0
			}
		}
		if sites[f] {
			plan.site[f] = carry[f]
		}
		for _, to := range g.callees(f) {
			same := component[to] == component[f]
			switch {
			case head[to] && same:
			case head[to]:
				outside[to] = max(outside[to], carry[f])
			default:
				carry[to] = max(carry[to], carry[f])
				if same {
					inner[to] = max(inner[to], inner[f])
				}
			}
		}
	}
	// A head also charges what the rest of its cycles has outstanding.
	extra := make([]uint32, n)
	for f := range uint32(n) {
		for _, to := range g.callees(f) {
			if head[to] && component[to] == component[f] {
				extra[to] = max(extra[to], inner[f])
			}
		}
	}
	for f, x := range extra {
		plan.entry[f] += x
	}
	return plan
}

// reaching returns the functions from which direct calls lead to one in sites.
func (g *callGraph) reaching(order []uint32, head []bool, component []uint32, sites []bool) []bool {
	reaches := append([]bool(nil), sites...)
	for i := len(order) - 1; i >= 0; i-- {
		f := order[i]
		for _, to := range g.callees(f) {
			// A head of the same component may not have its answer yet.
			if reaches[to] || (head[to] && component[to] == component[f]) {
				reaches[f] = true
				break
			}
		}
	}
	return reaches
}
