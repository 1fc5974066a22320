package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// Explanation says where a task is and, where it waits, for what.
type Explanation struct {
	State   string    // such as "queued"
	Attempt int       // under way, or the last; 0: none
	Peer    PeerID    // that it is lent to
	Node    string    // of Peer
	Missing int       // objects that it waits for
	Home    bool      // it may run on this node alone
	Nodes   []Verdict // of a queued task: this node first, then by name
}

// Explain says why a task is where it is. It looks at every node, so it is for
// people who ask. False: the task is not known.
func (s *Scheduler) Explain(id wray.ID) (Explanation, bool) {
	t := s.tasks.get(id)
	if t == nil {
		return Explanation{}, false
	}
	e := Explanation{State: t.state.String(), Attempt: t.attempt, Missing: t.pending, Home: t.home()}
	if p := t.peer(); p != nil {
		e.Peer, e.Node = p.id, p.node.Name
	}
	if t.state == grouped {
		e.Nodes = s.groupVerdicts(t, wray.MaxBundles)
	}
	if t.state == queued {
		e.Nodes = s.verdicts(t, len(s.peers.all.list)+1)
	}
	return e, true
}

// StateOf returns the state of a task in a word, such as "queued", and the node
// that it is lent to; "" where it is not known.
func (s *Scheduler) StateOf(id wray.ID) (state, node string) {
	t := s.tasks.get(id)
	if t == nil {
		return "", ""
	}
	if p := t.peer(); p != nil {
		node = p.node.Name
	}
	return t.state.String(), node
}

// verdicts are those on what t, queued, meets on most nodes: this one first, the
// others by name.
func (s *Scheduler) verdicts(t *task, most int) []Verdict {
	v := s.verdictHere(t.res, t.claim.all(), t.place)
	switch {
	case len(v.Fails) > 0:
	case s.heldBack(t):
		v.Fails = []Constraint{{Kind: HeldBack}}
	case t.queue == &t.job.overflow && t.prev != nil:
		v.Fails = []Constraint{{Kind: Behind}}
	}
	list := []Verdict{v}
	for _, m := range s.peers.all.list {
		if len(list) >= most {
			break
		}
		v := s.verdict(m.peer, t.res, t.claim.all(), t.place)
		if len(v.Fails) == 0 && t.job.avoids(v.Peer, s.now) {
			v.Fails = []Constraint{{Kind: NodeAvoided}}
		}
		list = append(list, v)
	}
	slices.SortFunc(list[1:], func(a, b Verdict) int { return strings.Compare(a.Node, b.Node) })
	return list
}

// maxVerdicts bounds the nodes that an error names.
const maxVerdicts = 4

// nowhere is the error of a task that no node could ever hold.
func (s *Scheduler) nowhere(name string, res wray.Resources, wants []want, place *placement) *wray.Error {
	e := &wray.Error{Code: wray.CodeUnschedulable, Task: name}
	var b strings.Builder
	b.WriteString("no node could ever hold it: ")
	here := s.verdictHere(res, wants, place)
	list := []Verdict{here}
	for _, m := range s.peers.all.list {
		if len(list) == maxVerdicts {
			break
		}
		list = append(list, s.verdict(m.peer, res, wants, place))
	}
	for i, v := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		name := v.Node
		if name == "" {
			name = "this node"
		}
		fmt.Fprintf(&b, "%s: %s", name, v.Why())
	}
	if more := 1 + len(s.peers.all.list) - len(list); more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	if place != nil && place.Kind == OnNode && !place.Soft {
		if _, there := s.coming[place.Node]; there {
			fmt.Fprintf(&b, "; %s: it is there, and its worker does not start", place.Node)
		}
	}
	e.Message = b.String()
	e.Hint = "ask for less, or for what a node has; or add a node that has it"
	for _, c := range here.Fails {
		switch quota := &s.config.Quota; {
		case !c.Never || e.Limit != nil:
		case c.Kind == ShortCPU && c.Has == int64(quota.CPU):
			e.Limit = &wray.Limit{Name: "cpu", Value: c.Has, Unit: wray.UnitCPU, Flag: FlagCPU}
		case c.Kind == ShortMemory && c.Has == quota.Memory:
			e.Limit = &wray.Limit{Name: "memory", Value: c.Has, Unit: "bytes", Flag: FlagMemory}
		}
	}
	if place.picky() {
		e.Hint = "wray status shows the nodes and their labels; a node that is asked for softly need not be there"
	}
	return e
}

// onlyHere is the error of a task that may not run on this node and has met
// something that only this node has.
func (s *Scheduler) onlyHere(t *task) *wray.Error {
	here := s.verdictHere(t.res, t.claim.all(), t.place)
	return &wray.Error{Code: wray.CodeUnschedulable, Task: t.name, Attempt: t.attempt,
		Message: fmt.Sprintf("it uses what only node %s has, a granted directory, and may not run there: %s",
			s.node.Name, here.Why()),
		Hint: "read the file in the driver and pass the bytes, or let the task run on every node"}
}

// peerDied is the failure of an attempt that was lent to p when it went.
func peerDied(t *task, p *peer) *wray.Error {
	return &wray.Error{Code: wray.CodeWorkerDied, Task: t.name, Attempt: t.attempt, Node: p.node.Name,
		Message: fmt.Sprintf("node %s, which ran it, is gone", p.node.Name)}
}
