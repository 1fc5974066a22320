package scheduler

import (
	"fmt"
	"strings"
	"time"
)

// waits prints Waits: a line for each group, and what it waits for below.
func (v *env) waits(a arguments) {
	q := WaitQuery{Name: a.text("name"), Most: int(a.int("most", 0))}
	if a.has("job") {
		q.Job = v.id(aJob, a.text("job"))
	}
	got := v.s.Waits(v.now, q)
	for _, g := range got.Groups {
		fmt.Fprintf(&v.out, "%s %dx", v.names[g.Job], g.Count)
		if g.Name != "" {
			fmt.Fprintf(&v.out, " %s, %s for %v", g.Name, g.State, time.Duration(v.now-g.Since))
		} else {
			fmt.Fprintf(&v.out, " others, %s", g.State)
		}
		if g.Name != "" || g.State == "queued" {
			fmt.Fprintf(&v.out, ", cpu=%v memory=%v", g.Resources.CPU, g.Resources.Memory)
		}
		for _, c := range g.Custom {
			fmt.Fprintf(&v.out, " %s=%v", c.Name, c.Amount)
		}
		if g.Strategy.Node != "" {
			fmt.Fprintf(&v.out, " on %s", g.Strategy.Node)
		}
		for _, w := range g.Strategy.Where {
			fmt.Fprintf(&v.out, " %v", w)
		}
		v.out.WriteString(strings.Repeat(" home", btoi(g.Home)) + strings.Repeat(" again", btoi(g.Again)) +
			strings.Repeat(" space", btoi(g.Space)) + strings.Repeat(" NEVER", btoi(g.Never)))
		if len(g.Promised) > 0 {
			fmt.Fprintf(&v.out, " promised by %v", g.Promised)
		}
		if g.Until > 0 {
			fmt.Fprintf(&v.out, ", until %v from now", time.Duration(g.Until-v.now))
		}
		if g.Doom != nil {
			fmt.Fprintf(&v.out, ", doomed: %v", g.Doom)
		}
		fmt.Fprintln(&v.out)
		for _, m := range g.Missing {
			fmt.Fprintf(&v.out, "  lacks %s", v.names[m.Object])
			if m.Name != "" {
				fmt.Fprintf(&v.out, " of %s, %s%s", m.Name, strings.TrimSuffix(m.State+" to "+m.Node, " to "), strings.Repeat(", again", btoi(m.Again)))
			}
			fmt.Fprintln(&v.out)
		}
		if g.MoreMissing > 0 {
			fmt.Fprintf(&v.out, "  and %d more\n", g.MoreMissing)
		}
		for _, n := range g.Nodes {
			fmt.Fprintf(&v.out, "  %s: %s%s\n", n.Node, strings.Repeat("never: ", btoi(n.Never())), n.Why())
		}
		if g.MoreNodes > 0 {
			fmt.Fprintf(&v.out, "  and %d more nodes\n", g.MoreNodes)
		}
	}
	if got.More > 0 {
		fmt.Fprintf(&v.out, "%d more tasks\n", got.More)
	}
	if got.Unseen > 0 {
		fmt.Fprintf(&v.out, "%d were not looked at\n", got.Unseen)
	}
	if len(got.Groups) == 0 {
		fmt.Fprintln(&v.out, "nothing waits")
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
