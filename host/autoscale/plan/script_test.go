package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/wray-project/wray"
)

// TestScripts runs testdata: what is decided, to be read. After a wanted change
// run
//
//	go test ./host/autoscale/plan -run TestScripts -rewrite
//
// and read the diff. A file is one world. Each line of a command's input is one of
//
//	group NAME [min=N] [max=N] [cpu=N] [memory=BYTES] [RESOURCE=N] [label=KEY=VALUE] [idle=D] [settle=D] [patience=D] [starting=N] [ordered]
//	node NAME [cpu=N] [memory=BYTES] [RESOURCE=N] [label=KEY=VALUE] [group=G]    a node that is there without a provider
//	busy NODE [cpu=N]...      it runs tasks that hold so much
//	idle NODE                 it runs nothing
//	gone NODE                 it has died, or left; with its instance
//	want COUNT [cpu=N] [memory=BYTES] [RESOURCE=N] [where=SELECTOR] [on=NODE]    tasks wait, beside others
//	want nothing              all that waited runs, or is over
//	join                      all instances that were started have joined
//	refuse GROUP|nobody       its provider fails
//	die GROUP|nobody          what its provider starts ends at once
//	blind GROUP|nobody        its provider does not say what there is
//	stuck                     what is told to stop stays
//	unstuck                   and goes
//	deaf NODE|nobody          what is told to go does not hear of it
//	lack GROUP [cpu=N] [memory=BYTES] [RESOURCE=N] [label=KEY=VALUE]    nodes that join have that, whatever the group says
//	step [D]                  time passes, with a step every second, and one at its end
//	show                      how the groups are
//	promise                   what a further node of each is taken to have
//
// In the output is what was to be done, and at what time. What is started is there
// from the next step on, as GROUP-NUMBER, and what is stopped or drained is gone.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.out.Reset()
			for line := range strings.Lines(d.Input) {
				if err := w.line(strings.Fields(line)); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			if w.out.Len() == 0 {
				return "nothing\n"
			}
			return w.out.String()
		})
	})
}

// world is a cluster as a test has it.
type world struct {
	now    time.Duration
	groups []Group
	p      *Planner
	in     Input
	states []State
	next   map[string]int
	refuse string
	die    string
	stuck  bool
	deaf   string
	have   map[string]words
	out    strings.Builder
}

func newWorld() *world { return &world{next: map[string]int{}, have: map[string]words{}} }

func (w *world) group(name string) *Group {
	i := slices.IndexFunc(w.groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &w.groups[i]
}

// words are the key=value words of a line.
type words struct {
	res    wray.Resources
	custom []wray.Custom
	labels []wray.Label
	place  wray.Placement
	more   map[string]string
}

func parseWords(list []string) (a words, err error) {
	a.more = map[string]string{}
	for _, f := range list {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "cpu":
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return a, err
			}
			a.res.CPU = wray.CPUs(n)
		case "memory":
			if a.res.Memory, err = strconv.ParseInt(value, 10, 64); err != nil {
				return a, err
			}
		case "label":
			k, v, _ := strings.Cut(value, "=")
			a.labels = append(a.labels, wray.Label{Key: k, Value: v})
		case "where":
			s, err := wray.ParseSelector(value)
			if err != nil {
				return a, err
			}
			a.place.Where = append(a.place.Where, s)
		case "on":
			a.place.Node = value
		case "min", "max", "idle", "settle", "patience", "starting", "ordered", "group":
			a.more[key] = value
		default:
			n, err := wray.ParseAmount(value)
			if err != nil {
				return a, err
			}
			a.custom = append(a.custom, wray.Custom{Name: key, Amount: n})
		}
	}
	return a, nil
}

func (w *world) line(f []string) error {
	if len(f) == 0 {
		return nil
	}
	rest := f[min(2, len(f)):]
	a, err := parseWords(rest)
	if err != nil {
		return err
	}
	node := func() *Node {
		i := slices.IndexFunc(w.in.Nodes, func(n Node) bool { return n.Name == f[1] })
		if i < 0 {
			return nil
		}
		return &w.in.Nodes[i]
	}
	switch f[0] {
	case "group":
		g := Group{Name: f[1], Max: 10, Capacity: a.res, Custom: a.custom, Labels: a.labels, Idle: time.Minute, Settle: 2 * time.Second, Patience: 5 * time.Minute, Starting: 10}
		_, g.Ordered = a.more["ordered"]
		for key, to := range map[string]*int{"min": &g.Min, "max": &g.Max, "starting": &g.Starting} {
			if v := a.more[key]; v != "" {
				if *to, err = strconv.Atoi(v); err != nil {
					return err
				}
			}
		}
		for key, to := range map[string]*time.Duration{"idle": &g.Idle, "settle": &g.Settle, "patience": &g.Patience} {
			if v := a.more[key]; v != "" {
				if *to, err = time.ParseDuration(v); err != nil {
					return err
				}
			}
		}
		w.groups = append(w.groups, g)
	case "node":
		w.in.Nodes = append(w.in.Nodes, Node{Name: f[1], Group: a.more["group"], Capacity: a.res, Custom: a.custom, Labels: a.labels,
			Free: a.res, FreeCustom: slices.Clone(a.custom), IdleSince: w.now})
	case "busy":
		n := node()
		n.Busy, n.Free = true, n.Capacity.Sub(a.res)
		n.FreeCustom = slices.Clone(n.Custom)
		for _, c := range a.custom {
			for i := range n.FreeCustom {
				if n.FreeCustom[i].Name == c.Name {
					n.FreeCustom[i].Amount -= c.Amount
				}
			}
		}
	case "idle":
		n := node()
		n.Busy, n.Free, n.FreeCustom, n.IdleSince = false, n.Capacity, slices.Clone(n.Custom), w.now
	case "gone":
		w.leave(f[1])
	case "want":
		if f[1] == "nothing" {
			w.in.Demand = nil
			break
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		w.in.Demand = append(w.in.Demand, Demand{Resources: a.res, Custom: a.custom, Place: a.place, Count: n})
	case "join":
		w.join()
	case "refuse":
		w.refuse = f[1]
	case "die":
		w.die = f[1]
	case "deaf":
		w.deaf = f[1]
	case "lack":
		w.have[f[1]] = a
	case "blind":
		w.in.Blind = nil
		if f[1] != "nobody" {
			w.in.Blind = map[string]string{f[1]: "no connection"}
		}
	case "stuck", "unstuck":
		w.stuck = f[0] == "stuck"
	case "step":
		d := time.Duration(0)
		if len(f) > 1 {
			if d, err = time.ParseDuration(f[1]); err != nil {
				return err
			}
		}
		for end := w.now + d; ; w.now = min(w.now+time.Second, end) {
			w.step()
			if w.now == end {
				break
			}
		}
	case "show":
		for _, s := range w.states {
			fmt.Fprintf(&w.out, "%s: %d wanted (%d to %d), %d there, %d starting, %d draining", s.Name, s.Wanted, s.Min, s.Max, s.There, s.Starting, s.Draining)
			if s.Why != "" {
				fmt.Fprintf(&w.out, ": %s", s.Why)
			}
			fmt.Fprintln(&w.out)
		}
	case "promise":
		for _, s := range w.states {
			fmt.Fprintf(&w.out, "%s: %v CPUs, %d bytes, %v", s.Name, s.Capacity.CPU, s.Capacity.Memory, s.Custom)
			for _, l := range s.Labels {
				fmt.Fprintf(&w.out, " %s=%s", l.Key, l.Value)
			}
			fmt.Fprintln(&w.out)
		}
	default:
		return fmt.Errorf("no such line")
	}
	return nil
}

// join has all instances join that have not.
func (w *world) join() {
	for _, x := range w.in.Instances {
		if slices.ContainsFunc(w.in.Nodes, func(n Node) bool { return n.Name == x.Name }) {
			continue
		}
		g := w.group(x.Group)
		has, ok := w.have[x.Group]
		if !ok {
			has = words{res: g.Capacity, custom: g.Custom, labels: g.Labels}
		}
		w.in.Nodes = append(w.in.Nodes, Node{Name: x.Name, Group: g.Name, Capacity: has.res, Custom: has.custom, Labels: has.labels,
			Free: has.res, FreeCustom: slices.Clone(has.custom), IdleSince: w.now})
	}
}

func (w *world) leave(name string) {
	w.in.Nodes = slices.DeleteFunc(w.in.Nodes, func(n Node) bool { return n.Name == name })
	w.in.Instances = slices.DeleteFunc(w.in.Instances, func(x Instance) bool { return x.Name == name })
}

// step has the planner decide, and does what it says.
func (w *world) step() []Action {
	if w.p == nil {
		w.p = New(w.groups)
	}
	acts, states := w.p.Step(w.now, w.in)
	w.states = states
	for _, a := range acts {
		fmt.Fprintf(&w.out, "%v: ", w.now)
		switch a.Kind {
		case Start:
			fmt.Fprintf(&w.out, "start %d of %s: %s\n", a.Count, a.Group, a.Why)
			if w.refuse == a.Group {
				w.p.Failed(w.now, a.Group, "no more of those")
				break
			}
			for range a.Count {
				if w.die == a.Group {
					break
				}
				w.start(a.Group)
			}
		case Stop, Drain:
			fmt.Fprintf(&w.out, "%s %s: %s\n", map[Kind]string{Stop: "stop", Drain: "drain"}[a.Kind], a.Name, a.Why)
			if w.deaf == a.Name {
				break
			}
			if w.stuck {
				for i := range w.in.Nodes {
					w.in.Nodes[i].Draining = w.in.Nodes[i].Draining || w.in.Nodes[i].Name == a.Name
				}
			} else {
				w.leave(a.Name)
			}
		}
	}
	return acts
}

// start makes an instance, whose rank is the least that is free.
func (w *world) start(group string) {
	rank := w.next[group]
	if w.group(group).Ordered {
		for rank = 0; slices.ContainsFunc(w.in.Instances, func(x Instance) bool { return x.Group == group && x.Rank == rank }); rank++ {
		}
	}
	w.next[group]++
	x := Instance{Name: fmt.Sprintf("%s-%d", group, rank), Group: group}
	if w.group(group).Ordered {
		x.Rank = rank
	}
	w.in.Instances = append(w.in.Instances, x)
}
