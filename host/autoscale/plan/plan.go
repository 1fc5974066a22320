// Package plan decides how many nodes the groups of an autoscaled cluster are
// to have: what is started, what is drained, what is given up, and why. It is a
// state machine: time, what waits, which nodes and instances there are come in,
// and actions come out. It starts nothing.
//
// An instance is what a provider has started, or was asked to; a node is who
// has joined the cluster. They are one when they have one name.
package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray"
)

// Group is nodes that are alike, and how many of them there may be.
type Group struct {
	Name     string
	Min, Max int
	// What a node of it has. Memory 0 is not known, and holds whatever is asked
	// until a node of the group says how much it has.
	Capacity wray.Resources
	Custom   []wray.Custom
	Labels   []wray.Label
	Idle     time.Duration // how long a node does nothing before it is drained
	Settle   time.Duration // how long there has been no room for tasks before a node is started for them
	Patience time.Duration // how long an instance may take to join
	Starting int           // instances that start at one time, at most
	// Ordered: the provider removes the instance of the highest rank alone.
	Ordered bool
}

// Node is a node of the cluster that lives.
type Node struct {
	Name     string
	Group    string // empty: of none
	Capacity wray.Resources
	Custom   []wray.Custom
	Labels   []wray.Label
	// What it has free, as far as it says. One that says nothing has no room.
	Free       wray.Resources
	FreeCustom []wray.Custom
	Busy       bool          // something runs there, or it does not say
	IdleSince  time.Duration // where it is not Busy
	Draining   bool
}

// Instance is what a provider has started.
type Instance struct {
	Name  string
	Group string
	Rank  int // where the group is Ordered
}

// Demand is tasks and actors of one shape that wait for a node with room.
type Demand struct {
	Resources wray.Resources
	Custom    []wray.Custom
	Place     wray.Placement
	Count     int
}

// Input is what is known at one time.
type Input struct {
	Nodes     []Node
	Instances []Instance
	Demand    []Demand
	// Blind are groups whose provider does not say what it has, and why. Nothing
	// is started or removed there.
	Blind map[string]string
}

// Kind is what is to be done.
type Kind uint8

// The kinds of actions.
const (
	Start Kind = iota // Count instances of Group
	Stop              // the instance Name, which drains its node
	Drain             // the node Name, which has no instance
)

// Action is something to be done. Who does Start and Stop tells Failed of those
// that failed; what was started is among the instances of the next Step.
type Action struct {
	Kind  Kind
	Group string
	Name  string
	Count int
	Why   string
}

// State is a group as it is.
type State struct {
	Name     string
	Min, Max int
	Wanted   int // nodes, within Min and Max
	There    int // that take work
	Starting int // that have not joined
	Draining int // that end
	Why      string
	// What a further node of it is taken to have: what the group says, less what
	// those that have joined lack. Memory math.MaxInt64 is not known.
	Capacity wray.Resources
	Custom   []wray.Custom
	Labels   []wray.Label
}

// Bounds of the pause after a failure, which doubles with each.
const (
	minPause = 5 * time.Second
	maxPause = 5 * time.Minute
	// retryStop is after what time an instance is stopped again that is there yet.
	retryStop = 3 * time.Minute
	// relearn is how long it is known what instances had when none is there.
	relearn = time.Hour
)

// Planner is the state machine.
type Planner struct{ groups []*group }

type group struct {
	Group
	pause   time.Duration // after the last failure; 0: none since an instance joined
	until   time.Duration // nothing is started before
	trouble string        // the last failure
	members map[string]*member
	asked   int      // instances that were started in the last Step
	window  []sample // how many were opened of late, in the order of time
	known   *bin     // what instances have that have joined; nil: not known
	knownAt time.Duration

	// Of one Step:
	template bin    // what one is taken to have
	lacks    string // how that is less
	active   int    // members that are not on their way out
	out      int    // that are
	starting int    // of active, those that have not joined
	there    int
	opened   int  // further ones that what waits has a use for
	full     bool // and more could be used
	blind    string
}

// sample is what was opened at a time.
type sample struct {
	at time.Duration
	n  int
}

// settled notes how many are opened now, and returns how many were all the time
// since Settle ago: nodes and those who give them work do not tell at one time, so
// that what waits and what is free is seen twice, or not at all, for a moment.
func (g *group) settled(now time.Duration) int {
	g.window = append(g.window, sample{now, g.opened})
	for len(g.window) > 1 && g.window[1].at <= now-g.Settle {
		g.window = g.window[1:]
	}
	if g.window[0].at > now-g.Settle {
		return 0
	}
	n := g.opened
	for _, s := range g.window {
		n = min(n, s.n)
	}
	return n
}

// member is a node or an instance of a group.
type member struct {
	name     string
	rank     int
	instance bool
	since    time.Duration // not joined since
	joined   bool          // once
	stopped  time.Duration // when it was last told to stop
	stopping bool
	node     *Node // nil: not there
	seen     bool
	used     bool // what waits has a use for it
}

// New returns a Planner for groups, whose names differ.
func New(groups []Group) *Planner {
	p := &Planner{}
	for _, g := range groups {
		p.groups = append(p.groups, &group{Group: g, members: map[string]*member{}})
	}
	return p
}

// Failed tells that a provider could not do something for a group.
func (p *Planner) Failed(now time.Duration, name, why string) {
	for _, g := range p.groups {
		if g.Name == name {
			g.asked = 0 // of several some may be there
			g.fail(now, why)
		}
	}
}

func (g *group) fail(now time.Duration, why string) {
	if now < g.until { // one failure of several at once
		g.trouble = why
		return
	}
	g.pause = min(max(2*g.pause, minPause), maxPause)
	g.until, g.trouble = now+g.pause, why
}

// Step decides what to do now, and says how the groups are.
func (p *Planner) Step(now time.Duration, in Input) ([]Action, []State) {
	var acts []Action
	for _, g := range p.groups {
		g.blind = in.Blind[g.Name]
		g.meet(now, &in)
		acts = append(acts, g.giveUp(now)...)
		g.count()
	}
	bins := p.bins(now, &in)
	p.pack(in.Demand, bins)
	var states []State
	for _, g := range p.groups {
		starts, n := g.start(now)
		stops := g.shrink(now)
		acts = append(append(acts, starts...), stops...)
		s := State{Name: g.Name, Min: g.Min, Max: g.Max, There: g.there, Starting: g.starting + n, Draining: g.out + len(stops)}
		s.Wanted = min(max(g.active+g.opened-len(stops), g.Min), g.Max)
		s.There -= len(stops)
		g.active, g.out = g.active-len(stops), g.out+len(stops)
		s.Why = g.why(now)
		t := g.template.clone()
		s.Capacity, s.Custom, s.Labels = t.free, t.custom, t.labels
		states = append(states, s)
	}
	return acts, states
}

// meet brings the members up to date with what there is.
func (g *group) meet(now time.Duration, in *Input) {
	for _, m := range g.members {
		m.seen, m.node, m.used = false, nil, false
	}
	of := func(name string) *member {
		m := g.members[name]
		if m == nil {
			m = &member{name: name, since: now}
			g.members[name] = m
		}
		m.seen = true
		return m
	}
	for i := range in.Instances {
		if x := &in.Instances[i]; x.Group == g.Name {
			if g.members[x.Name] == nil {
				g.asked--
			}
			m := of(x.Name)
			m.rank, m.instance = x.Rank, true
		}
	}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		if n.Group != g.Name {
			continue
		}
		m := of(n.Name)
		if m.node = n; !m.joined && !n.Draining {
			m.joined = true
			g.pause, g.until, g.trouble = 0, 0, ""
		}
		m.since = now // if it goes now, it may be back
	}
	if g.asked > 0 && g.blind == "" {
		g.fail(now, "what was started ended at once")
	}
	if g.blind == "" {
		g.asked = 0
	}
	for _, m := range g.sorted() {
		if m.seen || m.instance && g.blind != "" {
			continue
		}
		if m.instance && !m.joined && !m.stopping {
			g.fail(now, fmt.Sprintf("%s ended before it had joined", m.name))
		}
		delete(g.members, m.name)
	}
}

// sorted returns the members by rank and name.
func (g *group) sorted() []*member {
	return slices.SortedFunc(maps.Values(g.members), func(a, b *member) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return strings.Compare(a.name, b.name)
	})
}

// leaving reports whether m is on its way out.
func (m *member) leaving() bool { return m.stopping || m.node != nil && m.node.Draining }

// late reports whether m has had its time to join.
func (g *group) late(m *member, now time.Duration) bool {
	return m.node == nil && now-m.since >= g.Patience
}

// giveUp stops instances that have not joined in time, and again those that do
// not stop. A node without an instance that was told to drain, and does not, is one
// as any other again: it was not reached, or is another by now.
func (g *group) giveUp(now time.Duration) (acts []Action) {
	if g.blind != "" {
		return nil
	}
	list := g.sorted()
	slices.Reverse(list)
	for _, m := range list {
		switch {
		case !m.instance:
			if m.stopping && now-m.stopped >= retryStop && m.node != nil && !m.node.Draining {
				m.stopping = false
			}
		case m.stopping:
			if now-m.stopped < retryStop {
				break
			}
			// One that nobody could stop, and that works by now, is a node as any other.
			if m.stopping = m.node == nil || m.node.Draining || !m.node.Busy; !m.stopping && g.Ordered {
				return acts
			} else if m.stopping {
				m.stopped = now
				acts = append(acts, Action{Kind: Stop, Group: g.Name, Name: m.name, Why: "it was told to stop, and is there yet"})
			}
		case g.late(m, now):
			why := fmt.Sprintf("it has not joined within %v", g.Patience)
			m.stopping, m.stopped = true, now
			acts = append(acts, Action{Kind: Stop, Group: g.Name, Name: m.name, Why: why})
			g.fail(now, m.name+": "+why)
		default:
			if g.Ordered {
				return acts // only what is after it may go
			}
		}
	}
	return acts
}

func (g *group) count() {
	g.active, g.out, g.starting, g.there, g.opened, g.full = 0, 0, 0, 0, 0, false
	for _, m := range g.members {
		switch {
		case m.leaving():
			g.out++
		case m.node == nil:
			g.active++
			g.starting++
		default:
			g.active++
			g.there++
		}
	}
}

// start starts what is wanted and may be.
func (g *group) start(now time.Duration) ([]Action, int) {
	want := max(g.settled(now), g.Min-g.active)
	n := min(want, g.Max-g.active-g.out, g.Starting-g.starting)
	if g.pause > 0 {
		n = min(n, 1-g.starting) // one, to see whether it goes again
	}
	if n <= 0 || now < g.until || g.blind != "" || g.Ordered && g.out > 0 { // it would be the last that is started again
		return nil, 0
	}
	g.asked = n
	why := "for what waits"
	if g.opened == 0 {
		why = fmt.Sprintf("there are to be %d at least", g.Min)
	}
	return []Action{{Kind: Start, Group: g.Name, Count: n, Why: why}}, n
}

// shrink takes away nodes that do nothing, and for which what waits has no use.
func (g *group) shrink(now time.Duration) (acts []Action) {
	if g.blind != "" || g.opened > 0 {
		return nil
	}
	list := g.sorted()
	if g.Ordered {
		slices.Reverse(list)
	} else {
		slices.SortStableFunc(list, func(a, b *member) int {
			if a.node == nil || b.node == nil {
				return 0
			}
			return int(min(max(a.node.IdleSince-b.node.IdleSince, -1), 1))
		})
	}
	left := g.active
	for _, m := range list {
		if m.leaving() {
			continue
		}
		idle := m.node != nil && !m.node.Busy && !m.used && left > g.Min && (now-m.node.IdleSince >= g.Idle || left > g.Max)
		if !idle {
			if g.Ordered {
				return acts
			}
			continue
		}
		left--
		a := Action{Kind: Stop, Group: g.Name, Name: m.name, Why: fmt.Sprintf("it has done nothing for %v", (now - m.node.IdleSince).Truncate(time.Second))}
		if !m.instance {
			a.Kind = Drain
		}
		m.stopping, m.stopped = true, now
		acts = append(acts, a)
	}
	return acts
}

// why says what keeps a group from what is wanted, and how its nodes differ from
// what it says.
func (g *group) why(now time.Duration) string {
	var s string
	switch {
	case g.blind != "":
		s = "its provider does not say what there is: " + g.blind
	case g.trouble != "" && now < g.until:
		s = fmt.Sprintf("%s; tried again in %v", g.trouble, (g.until - now).Round(time.Second))
	case g.trouble != "":
		s = g.trouble + "; tried again"
	case g.full:
		s = fmt.Sprintf("more waits, and there may be %d at most", g.Max)
	case g.opened > 0:
		s = "for what waits"
	}
	if g.lacks != "" {
		if s != "" {
			s += "; "
		}
		s += "its nodes have less than the group says: " + g.lacks
	}
	return s
}
