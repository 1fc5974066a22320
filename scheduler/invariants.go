package scheduler

import (
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

// mustHold panics when an invariant is broken at the end of Ready.
func (s *Scheduler) mustHold() {
	err := s.check()
	if err == nil {
		err = s.checkIdle()
	}
	if err != nil {
		panic("BUG: scheduler: " + err.Error())
	}
}

// check recomputes from the tasks alone all that the machine keeps count of,
// and returns the first difference. It holds between any two events and takes
// time in proportion to the tasks. The numbers are those of DESIGN.md.
func (s *Scheduler) check() error {
	c := checker{s: s, free: s.config.Capacity, queues: make(map[*task]*queue), custom: customs(s.config.Custom), claims: make(map[*claim]int), placements: make(map[*placement]int)}
	steps := []func() error{c.queued, c.checkRooms, c.jobs, c.totals, c.objects, c.timers, c.peers}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	s      *Scheduler
	free   wray.Resources
	custom []custom       // recomputed
	claims map[*claim]int // tasks that have it

	placements map[*placement]int // likewise
	queues     map[*task]*queue   // where each task is linked in
	tasks      int
	blocked    int64
	claimed    int // blocked tasks with a claim
	space      int
	timed      int
}

// list walks a queue.
func (c *checker) list(q *queue) error {
	var last *task
	n := 0
	for t := q.first; t != nil; t = t.next {
		n++
		if c.queues[t] != nil || t.queue != q || t.prev != last {
			return fmt.Errorf("3: task %v is badly linked", t.id)
		}
		c.queues[t] = q
		last = t
	}
	if q.last != last || q.n != n {
		return fmt.Errorf("3: a queue ends elsewhere, or has %d tasks and counts %d", n, q.n)
	}
	return nil
}

func (c *checker) queued() error {
	for _, j := range c.s.order {
		for _, q := range append([]*queue{&j.overflow, &j.abroad}, j.queues...) {
			if err := c.list(q); err != nil {
				return err
			}
			var turn uint64
			for t := q.first; t != nil; t = t.next {
				if t.state != queued || t.job != j || t.turn <= turn || q != &j.overflow && q != &j.abroad && t.shape() != q.shape || q == &j.abroad && t.here || q == &j.overflow && !t.here {
					return fmt.Errorf("3: task %v, %v, is in the wrong queue or place", t.id, t.state)
				}
				turn = t.turn
			}
		}
		for st := range j.parked {
			q := &j.parked[st]
			if err := c.list(q); err != nil {
				return err
			}
			for t := q.first; t != nil; t = t.next {
				if t.state != state(st) || !t.state.parks() || t.job != j {
					return fmt.Errorf("3: task %v, %v, is listed as %v", t.id, t.state, state(st))
				}
			}
		}
		if active := j.index >= 0; active != (j.count[queued] > 0) || active && c.s.active[j.index] != j {
			return fmt.Errorf("3: job %v has %d queued tasks and index %d", j.id, j.count[queued], j.index)
		}
	}
	for _, m := range c.s.peers.all.list {
		if err := c.list(&m.peer.tasks); err != nil {
			return err
		}
	}
	return c.list(&c.s.resume)
}

func (c *checker) jobs() error {
	if len(c.s.order) != len(c.s.jobs) {
		return fmt.Errorf("2: %d jobs in order, %d known", len(c.s.order), len(c.s.jobs))
	}
	for _, j := range c.s.order {
		if c.s.jobs[j.id] != j {
			return fmt.Errorf("2: job %v is not known", j.id)
		}
		if j.ending && j.live == 0 {
			return fmt.Errorf("2: job %v ended and is kept", j.id)
		}
		var count [states]int
		var held wray.Resources
		custom := make([]wray.Amount, len(c.custom))
		var bytes int64
		var live int
		var err error
		j.roots.each(func(t *task) {
			count[t.state]++
			if t.room == nil {
				held = held.Add(t.state.holds(t.res))
			}
			c.claim(t, custom)
			live++
			if t.state.pending() {
				bytes += t.bytes
			}
			if e := c.task(j, t); e != nil && err == nil {
				err = e
			}
		})
		if err != nil {
			return err
		}
		c.free = c.free.Sub(held)
		for _, r := range c.s.gangs.rooms {
			if r.gang.job == j {
				held = held.Add(r.capacity)
				for _, x := range r.custom {
					custom[x.resource] += x.capacity
				}
			}
		}
		if count != j.count || live != j.live || bytes != j.bytes || held != j.held {
			return fmt.Errorf("1: job %v counts %v, %d live, %d bytes, held %v; its tasks are %v, %d, %d, %v",
				j.id, j.count, j.live, j.bytes, j.held, count, live, bytes, held)
		}
		for i, n := range custom {
			if j.custom != nil && j.custom[i] != n || j.custom == nil && n != 0 {
				return fmt.Errorf("1: job %v counts %v of custom resources held; its tasks hold %v", j.id, j.custom, custom)
			}
		}
		n := &j.totals
		if n.submitted != n.finished+n.failed+n.canceled+uint64(live-count[leaving]) {
			return fmt.Errorf("2: job %v lost a task: %+v, %d live", j.id, *n, live)
		}
	}
	return nil
}

// claim counts what t asks for and holds of custom resources, for its job, too.
func (c *checker) claim(t *task, held []wray.Amount) {
	if t.claim == nil {
		return
	}
	c.claims[t.claim]++
	if t.room != nil {
		return
	}
	for _, w := range t.claim.wants {
		if t.state.local() {
			held[w.resource] += w.amount
			c.custom[w.resource].free -= w.amount
		}
		if t.state == blocked {
			c.custom[w.resource].blocked += w.amount
		}
	}
	if t.state == blocked {
		c.claimed++
	}
}

// task checks one task of j.
func (c *checker) task(j *job, t *task) error {
	s := c.s
	c.tasks++
	bad := func(format string, args ...any) error {
		return fmt.Errorf("task %v, %v: %s", t.id, t.state, fmt.Sprintf(format, args...))
	}
	if t.job != j || s.tasks.get(t.id) != t {
		return bad("2: not known or of another job")
	}
	if (t.doom != nil) != (t.state == condemned || t.state == recalled) {
		return bad("2: condemned and alive")
	}
	if t.state == leaving && !t.tended || t.state != leaving && t.children.next != nil && !t.tended {
		return bad("9: nobody sees to its children")
	}
	if t.depth > s.config.MaxDepth || t.parent != nil && (t.parent.depth >= t.depth || s.tasks.get(t.parent.id) != t.parent) {
		return bad("6: depth %d or its parent is wrong", t.depth)
	}
	if _, in := c.queues[t]; in != (t.state.parks() || t.state == queued || t.state == resuming || t.state == lent || t.state == grouped) {
		return bad("3: in a queue: %v", in)
	}
	edges, pending := 0, 0
	for e := t.edges; e != nil; e = e.more {
		edges++
		if o := e.object; o != nil {
			pending++
			if e.task != t || s.objects.get(o.id) != o {
				return bad("4: waits for an object that is not known")
			}
		}
	}
	if pending != t.pending || t.state == waiting && pending == 0 || edges > 0 && t.state != waiting && t.state != blocked {
		return bad("4: %d edges, %d pending, %d counted", edges, pending, t.pending)
	}
	for i, o := range t.results {
		if o != nil && (o.producer != t || o.index != i || s.objects.get(o.id) != o) {
			return bad("4: result %d is not its own", i)
		}
	}
	timed := t.state == backoff || t.state.started() && t.timeout > 0 && t.stop == wray.CodeOK
	if t.state == queued && t.yonder() && c.s.config.Patience > 0 {
		if timed = t.timerIndex >= 0; !timed && !c.s.hope(t.res, t.claim.all(), t.place) {
			return bad("5: waits for a node that is not there, for ever")
		}
	}
	if timed != (t.timerIndex >= 0) {
		return bad("5: timer %d", t.timerIndex)
	}
	if timed {
		c.timed++
	}
	if t.stop != wray.CodeOK && !t.state.started() && t.state != condemned && t.state != recalled && t.state != leaving {
		return bad("5: told to stop")
	}
	if t.state == blocked && t.room == nil {
		c.blocked += t.res.Memory
	}
	if t.room != nil && !t.state.started() {
		return bad("10: in a room")
	}
	if p := t.peer(); (t.state == lent) != (p != nil) || p != nil && (t.queue != &p.tasks || s.peers.byID[p.id] != p || t.home()) {
		return bad("8: lent to %v", p)
	}
	if t.state.local() && !t.here {
		return bad("8: runs where it may not")
	}
	if t.place != nil {
		c.placements[t.place]++
	}
	if t.space {
		c.space++
		if t.state != blocked {
			return bad("4: waits for space")
		}
	}
	return nil
}

func (c *checker) totals() error {
	s := c.s
	if c.free != s.free || s.free.CPU < 0 || s.free.Memory < 0 {
		return fmt.Errorf("1: free %v, counted %v", s.free, c.free)
	}
	for _, extra := range s.custom[s.own:] { // of which this node has nothing
		c.custom = append(c.custom, custom{name: extra.name})
	}
	if !slices.Equal(c.custom, s.custom) {
		return fmt.Errorf("1: custom resources %+v, counted %+v", s.custom, c.custom)
	}
	for i := range s.custom {
		if s.custom[i].free < 0 {
			return fmt.Errorf("1: custom resources %+v", s.custom)
		}
	}
	if len(c.claims) != len(s.claims) {
		return fmt.Errorf("1: %d claims are known, tasks have %d", len(s.claims), len(c.claims))
	}
	for claim, n := range c.claims {
		if claim.tasks != n || s.claims[claim.key] != claim {
			return fmt.Errorf("1: a claim counts %d tasks, %d have it", claim.tasks, n)
		}
	}
	if c.tasks != s.tasks.n {
		return fmt.Errorf("2: %d tasks known, %d in families", s.tasks.n, c.tasks)
	}
	if c.claimed != s.deadlock.blockedClaims {
		return fmt.Errorf("1: %d blocked tasks have a claim, counted %d", c.claimed, s.deadlock.blockedClaims)
	}
	if c.blocked != s.deadlock.blockedMemory || c.space != s.deadlock.spaceWaiters {
		return fmt.Errorf("1: blocked tasks hold %d bytes, counted %d; %d wait for space, counted %d",
			c.blocked, s.deadlock.blockedMemory, c.space, s.deadlock.spaceWaiters)
	}
	if t := s.starvation.task; t != nil && t.state != queued {
		return fmt.Errorf("3: task %v, %v, starves", t.id, t.state)
	}
	if s.behind() && s.late.left > 0 && s.late.left < s.config.Slice {
		return fmt.Errorf("9: %d tasks condemned and not done, with %d units left", s.late.doomed.len(), s.late.left)
	}
	return nil
}

func (c *checker) objects() error {
	var err error
	n := 0
	c.s.objects.all(func(o *object) bool {
		n++
		err = c.object(o)
		return err == nil
	})
	if err == nil && n != c.s.objects.n {
		err = fmt.Errorf("4: %d objects known, counted %d", c.s.objects.n, n)
	}
	return err
}

func (c *checker) object(o *object) error {
	if c.s.objects.get(o.id) != o || o.producer == nil && o.first == nil && !o.coming || o.coming && o.producer != nil {
		return fmt.Errorf("4: object %v is kept for nobody", o.id)
	}
	var last *edge
	for e := o.first; e != nil; e = e.next {
		if e.object != o || e.prev != last || c.s.tasks.get(e.task.id) != e.task {
			return fmt.Errorf("4: object %v has a waiter badly linked", o.id)
		}
		last = e
	}
	if o.last != last {
		return fmt.Errorf("4: the waiters of object %v end elsewhere", o.id)
	}
	return nil
}

func (c *checker) timers() error {
	if c.timed != len(c.s.timers) {
		return fmt.Errorf("5: %d timers, %d tasks have one", len(c.s.timers), c.timed)
	}
	for i, t := range c.s.timers {
		if t.timerIndex != i || i > 0 && c.s.timers.Less(i, (i-1)/2) {
			return fmt.Errorf("5: timer %d of task %v is out of place", i, t.id)
		}
	}
	return nil
}

// peers checks the accounts and lists of peers.
func (c *checker) peers() error {
	ps := &c.s.peers
	if len(ps.byID) != len(ps.all.list) {
		return fmt.Errorf("8: %d peers known, %d listed", len(ps.byID), len(ps.all.list))
	}
	for _, m := range ps.all.list {
		p := m.peer
		var lent wray.Resources
		loaned := map[int]wray.Amount{}
		for _, g := range c.s.gangs.order {
			for i := range g.bundles {
				if r := g.bundles[i].room; r != nil && r.peer == p {
					lent = lent.Add(r.capacity)
					for _, x := range r.custom {
						loaned[x.resource] += x.capacity
					}
				}
			}
		}
		for t := p.tasks.first; t != nil; t = t.next {
			if t.room != nil {
				continue
			}
			lent = lent.Add(t.res)
			for _, w := range t.claim.all() {
				loaned[w.resource] += w.amount
			}
		}
		if lent != p.lent || ps.byID[p.id] != p || len(p.spots) != 1+2*len(p.node.Labels)+len(p.custom) {
			return fmt.Errorf("8: peer %d has %v lent, counted %v", p.id, lent, p.lent)
		}
		for _, a := range p.custom {
			if a.loaned != loaned[a.resource] {
				return fmt.Errorf("8: peer %d has %v of resource %d lent, counted %v", p.id, loaned[a.resource], a.resource, a.loaned)
			}
		}
		for i, at := range p.spots {
			if e := at.roster.list[at.at]; e.peer != p || e.spot != i || (at.at < at.roster.open) != p.open() {
				return fmt.Errorf("8: peer %d, open %v, is in the wrong place of list %d", p.id, p.open(), i)
			}
		}
	}
	if len(c.placements) != len(c.s.placements) {
		return fmt.Errorf("8: %d placements are known, tasks have %d", len(c.s.placements), len(c.placements))
	}
	for l, n := range c.placements {
		if l.tasks != n || c.s.placements[l.key] != l {
			return fmt.Errorf("8: a placement counts %d tasks, %d have it", l.tasks, n)
		}
	}
	return nil
}

// checkIdle holds that Ready left nothing free that somebody could have.
func (s *Scheduler) checkIdle() error {
	if t := s.resume.first; t != nil && t.res.CPU <= s.free.CPU {
		return fmt.Errorf("7: task %v could resume", t.id)
	}
	for _, g := range s.gangs.hungry {
		if b := s.seat(g, g.queue.first, nil, false); g.ready && b != nil && b.at == 0 {
			return fmt.Errorf("7: task %v could start in its group", g.queue.first.id)
		}
	}
	if t := s.pick(); t != nil {
		return fmt.Errorf("7: task %v could start", t.id)
	}
	return nil
}
