package scheduler

import (
	"cmp"
	"slices"

	"github.com/wray-project/wray"
)

// WaitQuery says which tasks Waits is asked about, and how much it may say. The
// zero query asks about all.
type WaitQuery struct {
	Job  wray.ID // tasks of this job alone
	Name string  // tasks of this name alone
	Most int     // groups; 0: DefaultGroups
}

// Bounds of an answer. They keep it to some milliseconds, however many tasks
// wait on however many nodes, as the caller holds its lock meanwhile.
const (
	DefaultGroups = 64
	maxGroups     = 256
	maxLooked     = 16384 // tasks that are looked at
	minLooked     = 16    // of each list of tasks
	maxJudged     = 4096  // verdicts in one answer
	minJudged     = 8     // in one group
	maxMissing    = 4     // objects named of one task
	maxEdges      = 1024  // looked at for them
)

// Waits is what waits, and why. The sum of Count over Groups, and More, is how
// many tasks wait; with a Name, of those that were looked at.
type Waits struct {
	Groups []Waiting
	More   int // tasks that wait in groups beyond those
	Unseen int // with a Name: tasks that wait and whose names were not looked at
}

// Waiting is tasks that wait for the same reason: they have their job, name,
// state and shape in common. Where they are very many there is, besides, one
// without a name for each state and shape, with those that were not looked at.
type Waiting struct {
	Job       wray.ID
	Name      string
	State     string // queued, waiting, backoff, condemned or blocked
	Count     int
	Resources wray.Resources
	Custom    []wray.Custom
	Strategy  Strategy
	Home      bool   // they may run on this node alone
	Group     string // the placement group that they run in, in words; Strategy has its bundle

	// Of one of them, the first in its queue, where there is a name:
	Task    wray.ID
	Value   any   // its Spec's
	Since   int64 // the time since which it is in its state
	Attempt int   // the last one's number; 0: none
	Again   bool  // it makes anew what was lost

	Missing     []Missing   // waiting, blocked: objects that it waits for
	MoreMissing int         // objects beyond those
	Space       bool        // blocked: it waits for room in the queue of its job
	Until       int64       // backoff: when its next attempt may begin; queued: when its patience ends, or 0
	Doom        *wray.Error // condemned: what it is about to fail with. Not to be modified

	// Never is set where no node known or promised could hold them, with nothing
	// else to do.
	Never     bool
	Promised  []string  // queued: the promises that could
	Nodes     []Verdict // queued: this node first, then by name
	MoreNodes int       // nodes beyond those
}

// Missing is an object that is not there. Task is zero where no task known here
// makes it.
type Missing struct {
	Object wray.ID
	Task   wray.ID
	Name   string // of that task
	State  string // likewise
	Node   string // that it is lent to
	Again  bool   // it was there, was lost, and is made again
}

// waitKey is what the tasks of a group have in common.
type waitKey struct {
	job   *job
	name  string
	state state
	shape shape
}

// group is a Waiting in the making.
type group struct {
	key   waitKey
	first *task
	count int
}

// waits gathers groups.
type waits struct {
	q      WaitQuery
	groups []group
	at     map[waitKey]int
	looked int // tasks that may yet be looked at
	share  int // of them, in one list
	seen   int // tasks that were looked at
	all    int // that there are
}

// Waits says what waits and why: tasks that are queued, wait for others or for
// the time of their next attempt, or were started and are blocked. It changes
// nothing.
func (s *Scheduler) Waits(now int64, q WaitQuery) Waits {
	s.at(now)
	if q.Most <= 0 {
		q.Most = DefaultGroups
	}
	q.Most = min(q.Most, maxGroups)
	w := waits{q: q, at: map[waitKey]int{}, looked: maxLooked}
	lists := 0
	each := func(do func(*job, state, *queue)) {
		for _, j := range s.order {
			if !q.Job.IsZero() && j.id != q.Job {
				continue
			}
			for _, p := range j.queues {
				do(j, queued, p)
			}
			do(j, queued, &j.overflow)
			do(j, queued, &j.abroad)
			for _, g := range s.gangs.order {
				if g.queue.first != nil && g.jobID == j.id {
					do(j, grouped, &g.queue)
				}
			}
			for _, st := range [...]state{waiting, backoff, condemned, blocked} {
				do(j, st, &j.parked[st])
			}
		}
	}
	each(func(_ *job, _ state, p *queue) {
		if p.first != nil {
			lists++
		}
	})
	w.share = max(minLooked, maxLooked/max(lists, 1))
	each(w.look)
	return s.answer(&w)
}

// look counts the tasks of a list in their groups.
func (w *waits) look(j *job, st state, q *queue) {
	n := 0
	w.all += q.n
	for t := q.first; t != nil && n < w.share && w.looked > 0; t = t.next {
		n++
		w.looked--
		if w.q.Name == "" || t.name == w.q.Name {
			w.add(waitKey{j, t.name, st, t.waitShape()}, t, 1)
		}
	}
	w.seen += n
	if rest := q.n - n; rest > 0 && w.q.Name == "" {
		w.add(waitKey{job: j, state: st, shape: q.shape}, nil, rest)
	}
}

// waitShape is t's shape, but for what means nothing to people.
func (t *task) waitShape() shape { return shape{t.res, t.claim, t.place, false} }

func (w *waits) add(k waitKey, t *task, n int) {
	k.shape.inner = false
	i, ok := w.at[k]
	if !ok {
		i = len(w.groups)
		w.at[k] = i
		w.groups = append(w.groups, group{key: k, first: t})
	}
	w.groups[i].count += n
}

// answer says of the groups, the largest first, what there is to say.
func (s *Scheduler) answer(w *waits) Waits {
	var a Waits
	if w.q.Name != "" {
		a.Unseen = w.all - w.seen
	}
	slices.SortStableFunc(w.groups, func(a, b group) int { return cmp.Compare(b.count, a.count) })
	for _, g := range w.groups[min(w.q.Most, len(w.groups)):] {
		a.More += g.count
	}
	w.groups = w.groups[:min(w.q.Most, len(w.groups))]
	judge := max(minJudged, maxJudged/max(len(w.groups), 1))
	for _, g := range w.groups {
		a.Groups = append(a.Groups, s.describe(&g, judge))
	}
	return a
}

// describe says of one group what there is to say, with so many verdicts.
func (s *Scheduler) describe(g *group, judge int) Waiting {
	k := &g.key
	x := Waiting{Job: k.job.id, Name: k.name, State: k.state.String(), Count: g.count}
	if g.first != nil || k.state == queued {
		x.Resources = k.shape.res
		for _, c := range k.shape.claim.all() {
			x.Custom = append(x.Custom, wray.Custom{Name: s.custom[c.resource].name, Amount: c.amount})
		}
		if p := k.shape.place; p != nil {
			x.Strategy, x.Home = p.Strategy, p.home
			x.Strategy.Where = slices.Clone(p.Where)
		}
	}
	t := g.first
	if t == nil {
		return x
	}
	x.Task, x.Value, x.Since, x.Attempt, x.Again = t.id, t.value, t.since, t.attempt, t.again
	switch t.state {
	case queued:
		if t.timerIndex >= 0 {
			x.Until = t.timer
		}
		x.Never = !t.here && (t.home() || !s.hope(t.res, t.claim.all(), t.place) && !s.comes(t.place))
		for i := range s.promises {
			if p := &s.promises[i]; s.holds(p, t.res, t.claim.all(), t.place) {
				x.Promised = append(x.Promised, p.Name)
			}
		}
		x.Nodes = s.verdicts(t, judge)
		x.MoreNodes = 1 + len(s.peers.all.list) - len(x.Nodes)
	case grouped:
		x.Group = "the placement group" + t.place.gang.called()
		x.Nodes = s.groupVerdicts(t, judge)
		x.Never = len(x.Nodes) > 0 && !slices.ContainsFunc(x.Nodes, func(v Verdict) bool { return !v.Never() })
	case waiting, blocked:
		x.Space = t.space
		x.Missing, x.MoreMissing = t.missing()
	case backoff:
		x.Until = t.timer
	case condemned:
		x.Doom = t.doom
	}
	return x
}

// missing names the objects that t waits for, and says how many more there are.
func (t *task) missing() (list []Missing, more int) {
	looked := 0
	for e := t.edges; e != nil && looked < maxEdges && len(list) < maxMissing; e = e.more {
		looked++
		o := e.object
		if o == nil || o.coming {
			continue
		}
		m := Missing{Object: o.id}
		if p := o.producer; p != nil {
			m.Task, m.Name, m.State, m.Again = p.id, p.name, p.state.String(), p.again
			if at := p.peer(); at != nil {
				m.Node = at.node.Name
			}
		}
		list = append(list, m)
	}
	return list, max(t.pending-len(list), 0)
}

// Free is what a node has free, by what is known of it.
type Free struct {
	Node string
	Free wray.Resources
}

// Peers are the nodes of which workers of the tenant are known, and what they
// have free, by the estimate that decides who is asked.
func (s *Scheduler) Peers() []Free {
	list := make([]Free, 0, len(s.peers.all.list))
	for _, m := range s.peers.all.list {
		f := m.peer.free()
		list = append(list, Free{m.peer.node.Name, wray.Resources{CPU: max(f.CPU, 0), Memory: max(f.Memory, 0)}})
	}
	return list
}
