package sdk

import (
	"slices"

	"github.com/wray-project/wray"
)

// Options that say which nodes of a cluster a task, or an actor, runs on. Without
// any it runs on the node of the job, and on another where that has no room. They
// go with one another, but for Spread with a node: of Spread, OnNode and
// PreferNode the last one counts. What a task submits does not have them.
//
// Where no node is what they ask for, a task waits ten seconds for one: it may
// be on its way, or be started again just now. Then it fails with
// wray.ErrUnschedulable, which says what each node lacks. A node that is there
// and busy is waited for as long as it takes. A node alone, and one process (go
// run), is a cluster of one, and nobody is waited for there.

// Spread has tasks go to the less busy of two nodes that are drawn out of all,
// in place of the node of the job first.
func Spread() Option {
	return func(o *options) {
		o.place.Spread, o.place.Node, o.place.Soft = true, "", false
		o.placed()
	}
}

// OnNode has the task run on the node of that name, as wray status shows it, and
// on no other.
func OnNode(name string) Option { return onNode("OnNode", name, false) }

// PreferNode has the task run on the node of that name, and on another where it
// is not there or has no room.
func PreferNode(name string) Option { return onNode("PreferNode", name, true) }

func onNode(option, name string, soft bool) Option {
	return func(o *options) {
		p := o.place
		p.Spread, p.Node, p.Soft = false, name, soft
		if name == "" {
			o.bad("%s: the name of a node is wanted", option)
			return
		}
		if err := p.Check(); err != nil {
			o.bad("%s(%q): %v", option, name, err)
			return
		}
		o.place = p
		o.placed()
	}
}

// Labels has the task run on a node whose labels are as all of the selectors say:
//
//	sdk.Labels("zone=west", "gpu", "!spot")
//
// A selector is "key=value", "key!=value", "key" (it has one, whatever the value),
// "!key" (it has none), "key in (a, b)" or "key notin (a, b)"; a node without the
// label is taken for != and notin. A node has the labels that wray start --labels
// gave it, and wray/node, its name, wray/os and wray/arch, which are as Go calls
// them. Several options add up.
func Labels(selectors ...string) Option {
	return func(o *options) {
		p := o.place
		p.Where = slices.Clone(p.Where) // others have it, too
		for _, text := range selectors {
			s, err := wray.ParseSelector(text)
			if err != nil {
				o.bad("Labels: %v", err)
				return
			}
			p.Where = append(p.Where, s)
		}
		if err := p.Check(); err != nil {
			o.bad("Labels: %v", err)
			return
		}
		o.place = p
		o.placed()
	}
}

func (o *options) placed() { o.places = o.place.Append(nil) }
