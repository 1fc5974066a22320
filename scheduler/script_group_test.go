package scheduler

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
)

// Placement groups in scripts. A bundle is written as what it sets aside, with +
// in between: a number of CPUs, a size of memory, NAME:AMOUNT of a resource,
// KEY~VALUE that a label is to be.
//
//	group JOB GROUP bundles=(1,1+gpu:2,4MiB) [spread | strict-pack | strict-spread]   AddGroup
//	remove GROUP …                         RemoveGroup
//	expect JOB GROUP PEER                  ExpectGroup
//	note PEER KIND GROUP [round=] [numbers=(0,1)] [at=(here,PEER,-)] [bundles=] [job=]   GroupNote
//	groups                                 Groups
//
// and submit has the options group= and bundle=.

// Kinds of notes, as scripts write them.
var noteNames = map[string]NoteKind{"prepare": NotePrepare, "layout": NoteLayout, "release": NoteRelease, "gone": NoteGone,
	"prepared": NotePrepared, "refused": NoteRefused, "lost": NoteLost, "ask": NoteAsk}

func (k NoteKind) word() string {
	for name, kind := range noteNames {
		if kind == k {
			return name
		}
	}
	return "?"
}

// groupSpec reads bundles and strategy.
func (a *arguments) groupSpec() *wray.GroupSpec {
	g := &wray.GroupSpec{}
	for i, word := range []string{"spread", "strict-pack", "strict-spread"} {
		if a.flag(word) {
			g.Strategy = wray.GroupStrategy(i + 1)
		}
	}
	for _, text := range a.opts["bundles"] {
		var b wray.Bundle
		for part := range strings.SplitSeq(text, "+") {
			if key, value, yes := strings.Cut(part, "~"); yes {
				b.Where = append(b.Where, wray.Selector{Key: key, Values: []string{value}})
			} else if name, amount, yes := strings.Cut(part, ":"); yes {
				n, err := wray.ParseAmount(amount)
				if err != nil {
					a.v.t.Fatal(err)
				}
				b.Custom = append(b.Custom, wray.Custom{Name: name, Amount: n})
			} else if strings.HasSuffix(part, "B") {
				b.Memory = a.size(part)
			} else {
				n, err := strconv.ParseFloat(part, 64)
				if err != nil {
					a.v.t.Fatal(err)
				}
				b.CPU = wray.CPUs(n)
			}
		}
		g.Bundles = append(g.Bundles, b)
	}
	return g
}

func (v *env) groupEvent(cmd string, a *arguments) {
	switch cmd {
	case "group":
		spec := a.groupSpec()
		name := a.names[1]
		if err := v.s.AddGroup(v.now, &Group{ID: v.id(aGroup, name), Job: v.id(aJob, a.names[0]), Name: name, Spec: spec}); err != nil {
			fmt.Fprintf(&v.out, "%s refused: %v\n", name, err)
		}
	case "remove":
		for _, n := range a.names {
			v.s.RemoveGroup(v.now, v.id(aGroup, n))
		}
	case "expect":
		if !v.s.ExpectGroup(v.now, v.id(aGroup, a.names[1]), v.id(aJob, a.names[0]), v.peer(a.names[2])) {
			fmt.Fprintln(&v.out, "its home is not known")
		}
	case "note":
		spec := a.groupSpec()
		n := &GroupNote{Kind: noteNames[a.names[1]], Group: v.id(aGroup, a.names[2]), Round: uint64(a.int("round", 1))}
		if a.has("job") {
			n.Job = v.id(aJob, a.text("job"))
		}
		if len(spec.Bundles) > 0 {
			n.Spec = spec
		}
		for _, x := range a.opts["numbers"] {
			i, err := strconv.Atoi(x)
			if err != nil {
				v.t.Fatal(err)
			}
			n.Bundles = append(n.Bundles, i)
		}
		for _, x := range a.opts["at"] {
			switch x {
			case "here":
				n.At = append(n.At, 0)
			case "-":
				n.At = append(n.At, Nowhere)
			default:
				n.At = append(n.At, v.peer(x))
			}
		}
		v.s.GroupNote(v.now, v.peer(a.names[0]), n)
	case "groups":
		list, all := v.s.Groups(v.now, 100)
		if all != len(list) {
			v.t.Fatalf("%d groups, %d described", all, len(list))
		}
		for _, g := range list {
			fmt.Fprintf(&v.out, "%s (%v) is %s", g.Name, g.Strategy, g.State)
			if g.Tasks > 0 {
				fmt.Fprintf(&v.out, ", %d tasks wait", g.Tasks)
			}
			if g.Why != "" {
				fmt.Fprintf(&v.out, ": %s", g.Why)
			}
			fmt.Fprintln(&v.out)
			for i, b := range g.Bundles {
				if b.Placed {
					fmt.Fprintf(&v.out, "  %d: %s at %s, %v CPU free\n", i, b.String(), b.Node, b.Free.CPU)
				} else {
					fmt.Fprintf(&v.out, "  %d: %s\n", i, b.String())
				}
			}
		}
	default:
		v.t.Fatalf("unknown command %q", cmd)
	}
}

// groupDecision prints a decision about a group.
func (v *env) groupDecision(d *Decision) {
	switch d.Kind {
	case GroupReady:
		fmt.Fprintf(&v.out, "ready %s\n", v.names[d.Task])
	case GroupEnded:
		fmt.Fprintf(&v.out, "ended %s", v.names[d.Task])
		if d.Err != nil {
			fmt.Fprintf(&v.out, ": %v", d.Err)
			v.hint(d.Err)
		}
		fmt.Fprintln(&v.out)
	case TellGroup:
		n := d.Note
		fmt.Fprintf(&v.out, "tell%s %s %s", v.peerName(" ", d.Peer), n.Kind.word(), v.names[n.Group])
		if n.Kind != NoteAsk && n.Kind != NoteGone {
			fmt.Fprintf(&v.out, " #%d", n.Round)
		}
		if len(n.Bundles) > 0 {
			fmt.Fprintf(&v.out, " bundles %v", n.Bundles)
		}
		for i, at := range n.At {
			where := "nowhere"
			if at == 0 {
				where = "here"
			} else if at != Nowhere {
				where = v.peerName("", at)
			}
			fmt.Fprintf(&v.out, ", %d %s", i, where)
		}
		fmt.Fprintln(&v.out)
	}
}

// inGroup sets the strategy of a task that runs in a group.
func (v *env) inGroup(a *arguments, st *Strategy) {
	if a.has("group") {
		st.Kind, st.Group, st.Bundle = InGroup, v.id(aGroup, a.text("group")), int(a.int("bundle", wray.AnyBundle))
	}
}
