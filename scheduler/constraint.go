package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wray-project/wray"
)

// ConstraintKind says what a Constraint is about.
type ConstraintKind uint8

// What keeps a queued task from a node.
const (
	ShortCPU    ConstraintKind = iota // Need, Has and Free, in ten-thousandths of a core
	ShortMemory                       // likewise, in bytes
	ShortCustom                       // likewise, of the resource Name, as wray.Amount counts
	OtherNode                         // the task is for the node Name
	NoLabel                           // the node's labels are not as the selector Name wants them
	OnlyHome                          // the task uses what only the node of its job has
	NodeLeaves                        // the node is being drained
	NodeSilent                        // it does not answer
	NodeRefused                       // it said a moment ago that it had no room
	NodeAvoided                       // it could not run tasks of this job a moment ago
	HeldBack                          // what is free is kept for a task that has waited for long
	HeldResume                        // its CPU is for tasks that were waiting and go on
	NoBundle                          // the bundle that it is to run in is not reserved yet: Name says why
	Behind                            // others stand before it in a queue of tasks that want many different things
)

var constraintNames = [...]string{"cpu", "memory", "resource", "node", "label", "home", "draining", "unreachable",
	"refused", "avoided", "held back", "resuming", "no bundle", "behind"}

func (k ConstraintKind) String() string { return constraintNames[k] }

// Constraint is one thing that keeps a queued task from a node. Never is set
// where it would with nothing else to do there, as far as is known.
type Constraint struct {
	Kind            ConstraintKind
	Name            string
	Need, Has, Free int64
	Never           bool
}

func (c Constraint) String() string {
	switch c.Kind {
	case ShortCPU:
		if c.Never {
			return fmt.Sprintf("%v CPUs are wanted, it has %v", wray.CPU(c.Need), wray.CPU(c.Has))
		}
		return fmt.Sprintf("%v CPUs are wanted, %v of %v are free", wray.CPU(c.Need), wray.CPU(c.Free), wray.CPU(c.Has))
	case ShortMemory:
		if c.Never {
			return fmt.Sprintf("%s of memory are wanted, it has %s", size(c.Need), size(c.Has))
		}
		return fmt.Sprintf("%s of memory are wanted, %s of %s are free", size(c.Need), size(c.Free), size(c.Has))
	case ShortCustom:
		if c.Never {
			return fmt.Sprintf("%v of %q is wanted, it has %v", wray.Amount(c.Need), c.Name, wray.Amount(c.Has))
		}
		return fmt.Sprintf("%v of %q is wanted, %v of %v is free", wray.Amount(c.Need), c.Name, wray.Amount(c.Free), wray.Amount(c.Has))
	case OtherNode:
		return fmt.Sprintf("the task is to run on node %q", c.Name)
	case NoLabel:
		return "its labels are not as wanted: " + c.Name
	case OnlyHome:
		return "it uses what only the node of its job has"
	case NodeLeaves:
		return "it is leaving"
	case NodeSilent:
		return "it does not answer"
	case NodeRefused:
		return "it had no room a moment ago"
	case NodeAvoided:
		return "it could not run tasks of this job a moment ago"
	case HeldBack:
		return "what is free is kept for a task that has waited for long"
	case HeldResume:
		return "its CPU is kept for tasks that were waiting and go on"
	case NoBundle:
		return "it waits for its placement group: " + c.Name
	case Behind:
		return "others stand before it: its job has tasks that want very many different things"
	}
	panic("BUG: scheduler: a constraint of no kind")
}

// Verdict says what keeps a queued task from running on a node now.
type Verdict struct {
	Node  string
	In    string       // a bundle there, in words, where the task is to run in one
	Peer  PeerID       // 0: this node
	Fails []Constraint // nothing: it is about to start there, or in turn to
}

// Never reports whether the node could not hold the task with nothing else to
// do.
func (v *Verdict) Never() bool {
	return slices.ContainsFunc(v.Fails, func(c Constraint) bool { return c.Never })
}

// Why says in words what keeps the task from the node: what always will, where
// there is such; "" where nothing does.
func (v *Verdict) Why() string {
	never := v.Never()
	var parts []string
	for _, c := range v.Fails {
		if c.Never == never {
			parts = append(parts, c.String())
		}
	}
	why := strings.Join(parts, ", and ")
	if v.In != "" && why != "" {
		why = v.In + ": " + why
	}
	return why
}

// verdictHere is the verdict on this node.
func (s *Scheduler) verdictHere(res wray.Resources, wants []want, place *placement) Verdict {
	v := Verdict{Node: s.node.Name}
	if place != nil && !place.here {
		v.Fails = place.complaints(&s.node)
		return v
	}
	v.short(res, s.config.Capacity, s.free)
	for _, w := range wants {
		c := &s.custom[w.resource]
		v.lacks(Constraint{Kind: ShortCustom, Name: c.name, Need: int64(w.amount), Has: int64(c.capacity), Free: int64(c.free)})
	}
	if len(v.Fails) == 0 && res.CPU > 0 && s.resume.first != nil {
		v.Fails = []Constraint{{Kind: HeldResume}}
	}
	return v
}

// verdict is that on a peer, by what is known of it.
func (s *Scheduler) verdict(p *peer, res wray.Resources, wants []want, place *placement) Verdict {
	v := Verdict{Node: p.node.Name, Peer: p.id}
	if place != nil && place.home {
		v.Fails = []Constraint{{Kind: OnlyHome, Never: true}}
		return v
	}
	if !place.allows(&p.node) {
		v.Fails = place.complaints(&p.node)
		return v
	}
	v.short(res, p.node.Capacity, p.free())
	for _, w := range wants {
		var a account
		if have := p.account(w.resource); have != nil {
			a = *have
		}
		v.lacks(Constraint{Kind: ShortCustom, Name: s.custom[w.resource].name, Need: int64(w.amount), Has: int64(a.capacity),
			Free: int64(a.capacity - a.others - a.loaned)})
	}
	switch {
	case v.Never():
	case p.leaving:
		v.Fails = []Constraint{{Kind: NodeLeaves, Never: true}}
	case p.unreachable: // what it has free is not known
		v.Fails = []Constraint{{Kind: NodeSilent}}
	case len(v.Fails) == 0 && p.shut:
		v.Fails = []Constraint{{Kind: NodeRefused}}
	}
	return v
}

// short adds what of CPU and memory is short.
func (v *Verdict) short(want, capacity, free wray.Resources) {
	v.lacks(Constraint{Kind: ShortCPU, Need: int64(want.CPU), Has: int64(capacity.CPU), Free: int64(free.CPU)})
	v.lacks(Constraint{Kind: ShortMemory, Need: want.Memory, Has: capacity.Memory, Free: free.Memory})
}

// lacks adds c if it fails.
func (v *Verdict) lacks(c Constraint) {
	if c.Need > c.Free {
		c.Free, c.Never = max(c.Free, 0), c.Need > c.Has
		v.Fails = append(v.Fails, c)
	}
}

// complaints are what l has against a node.
func (l *placement) complaints(n *Node) (list []Constraint) {
	if l.Kind == OnNode && !l.Soft && l.Node != n.Name {
		list = append(list, Constraint{Kind: OtherNode, Name: l.Node, Never: true})
	}
	for i := range l.Where {
		if w := &l.Where[i]; !w.Matches(n.Labels) {
			list = append(list, Constraint{Kind: NoLabel, Name: w.String(), Never: true})
		}
	}
	return list
}
