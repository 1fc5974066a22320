package worker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// Bounds of an explanation: see also scheduler.Waits.
const (
	maxCallsSeen  = 16384 // calls of actors that are looked at
	maxTasksSeen  = 16384 // tasks, for one of a name that does not wait
	maxJobsListed = 256
	maxWaitsFor   = 4 // arguments named of a call
)

// Explain says what waits and why. An error means that nothing is called so.
func (w *Worker) Explain(q clientwire.ExplainBody) (ExplainedBody, error) {
	var b ExplainedBody
	x := explaining{w: w, what: q.What, most: q.Most, out: &b.Explained}
	if x.most <= 0 {
		x.most = scheduler.DefaultGroups
	}
	b.Explained.Node = w.cfg.Node
	b.Explained.Resources = w.listResources()
	w.mu.Lock()
	x.now = w.now()
	x.jobsLocked()
	waits := x.waitsLocked()
	x.groupsLocked()
	actors, guests := make([]bool, len(waits.Groups)), make([]*guest, len(waits.Groups))
	for i := range waits.Groups {
		if t, _ := waits.Groups[i].Value.(*task); t != nil {
			actors[i], guests[i] = t.makes != nil, t.runner
		}
	}
	for _, p := range w.sched.Peers() {
		b.Known = append(b.Known, KnownNode{Name: p.Node, CPU: int64(p.Free.CPU), Memory: p.Free.Memory})
	}
	w.mu.Unlock()
	// What is made of it needs no lock.
	for i := range waits.Groups {
		t := x.wait(&waits.Groups[i], actors[i])
		if why := w.room.why(guests[i]); why != "" {
			t.Why = why
		}
		x.out.Tasks = append(x.out.Tasks, t)
	}
	x.out.More, x.out.Unseen = int64(waits.More), int64(waits.Unseen)
	x.calls()
	if x.what != "" && len(x.out.Tasks) == 0 && len(x.out.Actors) == 0 && len(x.out.Groups) == 0 {
		if x.out.Idle = x.idle(); x.out.Idle == "" {
			return b, x.unknown()
		}
	}
	return b, nil
}

// explaining is an explanation in the making.
type explaining struct {
	w      *Worker
	what   string
	most   int
	now    int64
	out    *clientwire.Explained
	chosen []wray.ID // jobs that are called what
}

// jobsLocked lists the jobs, and chooses those that are asked for.
func (x *explaining) jobsLocked() {
	list := slices.SortedFunc(maps.Values(x.w.jobs), func(a, b *job) int { return cmp.Compare(a.id.Seq, b.id.Seq) })
	for _, j := range list {
		if x.what != "" && (j.spec.Name == x.what || strconv.FormatUint(uint64(j.number()), 10) == x.what) {
			x.chosen = append(x.chosen, j.id)
		}
		if len(x.out.Jobs) < maxJobsListed {
			x.out.Jobs = append(x.out.Jobs, clientwire.Job{Number: j.number(), Name: j.spec.Name, Run: j.spec.Run})
		} else {
			x.out.MoreJobs++
		}
	}
}

// waitsLocked asks the scheduler: of tasks of that name, or else of jobs.
func (x *explaining) waitsLocked() scheduler.Waits {
	q := scheduler.WaitQuery{Name: x.what, Most: x.most}
	all := x.w.sched.Waits(x.now, q)
	if len(all.Groups) > 0 || len(x.chosen) == 0 {
		return all
	}
	all = scheduler.Waits{}
	for _, id := range x.chosen[:min(len(x.chosen), 8)] { // runs of one program, which the answer tells apart
		one := x.w.sched.Waits(x.now, scheduler.WaitQuery{Job: id, Most: x.most})
		all.Groups = append(all.Groups, one.Groups...)
		all.More += one.More
	}
	return all
}

// wait is a group of the scheduler's, as users see it.
func (x *explaining) wait(g *scheduler.Waiting, isActor bool) clientwire.Wait {
	out := clientwire.Wait{Job: jobNumber(g.Job.Seq), Name: g.Name, Actor: isActor, State: g.State, Count: int64(g.Count), Never: g.Never, Promised: g.Promised,
		Again: g.Again, MoreNodes: int64(g.MoreNodes), MoreFor: int64(g.MoreMissing)}
	if g.Name != "" {
		out.Seconds = max(x.now-g.Since, 0) / 1e9
	}
	if g.Name != "" || g.State == clientwire.WaitQueued {
		out.Wants = wantsOf(g)
	}
	switch {
	case g.Strategy.Kind == scheduler.OnNode && g.Strategy.Soft:
		out.Strategy = fmt.Sprintf("on node %q, or another", g.Strategy.Node)
	case g.Strategy.Kind == scheduler.OnNode:
		out.Strategy = fmt.Sprintf("on node %q", g.Strategy.Node)
	case g.Strategy.Kind == scheduler.Spread:
		out.Strategy = "spread"
	case g.Strategy.Kind == scheduler.InGroup && g.Strategy.Bundle == wray.AnyBundle:
		out.Strategy = "in " + g.Group
	case g.Strategy.Kind == scheduler.InGroup:
		out.Strategy = fmt.Sprintf("in bundle %d of %s", g.Strategy.Bundle, g.Group)
	}
	if g.Home {
		out.Strategy = "on the node of its job alone"
	}
	for i := range g.Strategy.Where {
		out.Labels = append(out.Labels, g.Strategy.Where[i].String())
	}
	for i := range g.Nodes {
		out.Nodes = append(out.Nodes, verdictOf(&g.Nodes[i]))
	}
	for _, m := range g.Missing {
		f := clientwire.WaitFor{Object: m.Object.String(), Task: m.Name, State: m.State, Node: m.Node, Again: m.Again}
		if m.Task.IsZero() {
			x.call(m.Object, &f)
		}
		out.For = append(out.For, f)
	}
	switch g.State {
	case "condemned":
		out.State = clientwire.WaitEnd
		if g.Doom != nil {
			out.Why = g.Doom.Error()
		}
	case clientwire.WaitQueued:
		if g.Until > 0 {
			out.Why = fmt.Sprintf("a node that is as it wants, for %s more; then it fails", inSeconds(g.Until-x.now))
		}
	case clientwire.WaitBackoff:
		out.Why = fmt.Sprintf("attempt %d failed; the next begins in %s", g.Attempt, inSeconds(g.Until-x.now))
	case clientwire.WaitBlocked:
		if g.Space {
			out.Why = "room in its job's queue of tasks, which is full"
		} else if len(g.Missing) == 0 && g.Name != "" {
			out.Why = "something other than a task's result: a stream, time, input, room for its output"
		}
	}
	return out
}

func inSeconds(ns int64) string { return fmt.Sprintf("%.3g s", max(float64(ns)/1e9, 0)) }

func wantsOf(g *scheduler.Waiting) (list []clientwire.Resource) {
	if g.Resources.CPU > 0 {
		list = append(list, clientwire.Resource{Name: "CPU", Total: float64(g.Resources.CPU) / float64(wray.OneCPU)})
	}
	if g.Resources.Memory > 0 {
		list = append(list, clientwire.Resource{Name: "memory", Total: float64(g.Resources.Memory)})
	}
	for _, c := range g.Custom {
		list = append(list, clientwire.Resource{Name: c.Name, Custom: true, Total: float64(c.Amount) / float64(wray.OneUnit)})
	}
	return list
}

func verdictOf(v *scheduler.Verdict) clientwire.NodeVerdict {
	out := clientwire.NodeVerdict{Node: v.Node, Never: v.Never(), Why: v.Why()}
	for _, c := range v.Fails {
		unit := 1.0
		switch c.Kind {
		case scheduler.ShortCPU:
			unit = float64(wray.OneCPU)
		case scheduler.ShortCustom:
			unit = float64(wray.OneUnit)
		}
		out.Fails = append(out.Fails, clientwire.Fail{Constraint: c.Kind.String(), Name: c.Name, Never: c.Never,
			Need: float64(c.Need) / unit, Has: float64(c.Has) / unit, Free: float64(c.Free) / unit})
	}
	return out
}

// call says which call of an actor makes an object, if one does.
func (x *explaining) call(object wray.ID, f *clientwire.WaitFor) {
	maker := makerOf(object)
	if maker.IsZero() {
		return
	}
	if t := x.w.calls.get(maker); t != nil {
		f.Task, f.Actor, f.State = t.name, "of another node", "called"
		if t.actor != nil {
			f.Actor = t.actor.create.name
		}
	}
}

// unanswered is the calls of one actor that are not answered.
type unanswered struct {
	n    int64
	lack []wray.ID // arguments of one of them that are not there
}

// calls lists actors whose calls wait, those with the most first.
func (x *explaining) calls() {
	w := x.w
	found := map[*actor]*unanswered{}
	seen := 0
	w.calls.mu.Lock()
	rest := int64(len(w.calls.m))
	for _, t := range w.calls.m { // in no order, so that what is seen of very many is a sample
		if seen++; seen > maxCallsSeen {
			break
		}
		if t.actor == nil || !x.asksFor(t) {
			continue
		}
		c := found[t.actor]
		if c == nil {
			c = &unanswered{}
			found[t.actor] = c
		}
		c.n++
		if len(c.lack) == 0 {
			for i := range t.args {
				if o := t.args[i].object; o != nil && o.State() == objectstore.Pending && len(c.lack) < maxWaitsFor {
					c.lack = append(c.lack, o.ID())
				}
			}
		}
	}
	w.calls.mu.Unlock()
	type row struct {
		a       *actor
		c       *unanswered
		start   string
		started bool
	}
	var rows []row
	for a, c := range found {
		rows = append(rows, row{a: a, c: c})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.c.n, a.c.n), cmp.Compare(a.a.object.Seq, b.a.object.Seq))
	})
	keep := rows[:min(len(rows), x.most)]
	w.mu.Lock()
	for i := range keep {
		r := &keep[i]
		r.started = r.a.create.runner != nil
		r.start, _ = w.sched.StateOf(r.a.create.id)
	}
	w.mu.Unlock()
	for _, r := range keep {
		one, ok := r.a.listed(r.started)
		if !ok {
			continue // it has ended, and its calls end
		}
		out := clientwire.ActorWait{Actor: one, Calls: r.c.n}
		switch r.start {
		case clientwire.WaitQueued, clientwire.WaitArgs, clientwire.WaitBackoff:
			out.Start = r.start
		}
		for _, o := range r.c.lack {
			out.For = append(out.For, x.argument(o))
		}
		x.out.Actors = append(x.out.Actors, out)
		rest -= r.c.n
	}
	if x.what == "" || seen > maxCallsSeen {
		x.out.MoreCalls = max(rest, 0)
	}
}

// asksFor reports whether the question is about a call.
func (x *explaining) asksFor(t *task) bool {
	if x.what == "" || t.name == x.what {
		return true
	}
	for _, id := range x.chosen {
		if t.job.id == id {
			return true
		}
	}
	return x.isCalled(t.actor)
}

// isCalled reports whether the question is about an actor: by its name, its
// class, or the object that listings name it by.
func (x *explaining) isCalled(a *actor) bool {
	return a.create.name == x.what || a.create.fn != nil && a.create.fn.name == x.what || a.object.String() == x.what
}

// argument says who makes an object that a call waits for.
func (x *explaining) argument(object wray.ID) clientwire.WaitFor {
	f := clientwire.WaitFor{Object: object.String()}
	if maker := makerOf(object); !maker.IsZero() {
		x.w.mu.Lock()
		if t, _ := x.w.sched.Value(maker).(*task); t != nil {
			f.Task = t.name
			f.State, f.Node = x.w.sched.StateOf(maker)
		}
		x.w.mu.Unlock()
	}
	if f.Task == "" {
		x.call(object, &f)
	}
	return f
}

// idle says what there is of the name that is asked for, which does not wait; ""
// where there is nothing.
func (x *explaining) idle() string {
	w := x.w
	var parts []string
	var actors []*task
	seen := 0
	count := map[string]int{}
	w.mu.Lock()
	for t := range w.tasks.all {
		if seen++; seen > maxTasksSeen {
			break
		}
		if t.makes != nil && x.isCalled(t.makes) && len(actors) == 0 {
			actors = append(actors, t)
		} else if t.name == x.what {
			state, node := w.sched.StateOf(t.id)
			if node != "" {
				state += " to node " + node
			}
			count[state]++
		}
	}
	started := len(actors) > 0 && actors[0].runner != nil
	w.mu.Unlock()
	for _, state := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d tasks %s are %s", count[state], x.what, state))
	}
	for _, t := range actors {
		if a, ok := t.makes.listed(started); ok {
			why := a.State
			if a.Why != "" {
				why += ", " + a.Why
			}
			parts = append(parts, fmt.Sprintf("actor %s is %s", t.name, why))
		}
	}
	if len(parts) == 0 && len(x.chosen) > 0 {
		parts = append(parts, fmt.Sprintf("nothing of job %s waits", x.what))
	}
	if len(parts) == 0 && x.out.Unseen > 0 {
		parts = append(parts, fmt.Sprintf("none of the tasks that were looked at is called %s", x.what))
	}
	return strings.Join(parts, "; ")
}

func (x *explaining) unknown() error {
	return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("no task, actor or job here is called %q", x.what),
		Hint: "wray explain, without a name, lists what waits; what has ended is not kept, and jobs of other nodes are known to those"}
}
