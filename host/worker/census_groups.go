package worker

import (
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/scheduler"
)

// maxGroups bounds the placement groups of an explanation.
const maxGroups = 256

// groupsLocked lists the placement groups: all, those of the jobs that are asked
// for, or those of the name.
func (x *explaining) groupsLocked() {
	list, all := x.w.sched.Groups(x.now, maxGroups)
	for i := range list {
		g := describeGroup(&list[i], x.now)
		asked := x.what == "" || x.what == g.Name
		for _, id := range x.chosen {
			asked = asked || id == list[i].Job
		}
		if asked {
			x.out.Groups = append(x.out.Groups, g)
		}
	}
	if x.what == "" {
		x.out.MoreGroups = int64(all - len(list))
	}
}

// describeGroup is a group of the scheduler's, as users see it.
func describeGroup(g *scheduler.GroupInfo, now int64) clientwire.PlacementGroup {
	out := clientwire.PlacementGroup{ID: g.ID.String(), Name: g.Name, Job: jobNumber(g.Job.Seq), Strategy: g.Strategy.String(), State: g.State,
		Seconds: max(now-g.Since, 0) / 1e9, Tasks: int64(g.Tasks), Why: g.Why}
	for i := range g.Bundles {
		b := &g.Bundles[i]
		one := clientwire.Bundle{Has: b.String()}
		if b.Placed {
			one.Node, one.CPU = b.Node, b.Free.CPU.Cores()
			if one.Node == "" {
				one.Node = "?"
			}
		}
		out.Bundles = append(out.Bundles, one)
	}
	return out
}
