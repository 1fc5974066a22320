package scheduler

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

// model is the scheduler as one would first write it: a list of tasks, and
// everything else found by looking through it. It follows the rules of
// DESIGN.md, and shares no code with the scheduler but the vocabulary and the
// constants. It does not search for deadlocks; it judges those that the
// scheduler declares (see deadlocked).
type model struct {
	promised []Node // of which there can be more
	config   Config
	now      int64
	jobs     []*modelJob
	tasks    []*modelTask // alive, by age
	resume   []*modelTask
	turns    uint64
	starts   uint64
	seq      uint64
	stale    uint64

	starving *modelTask
	since    int64

	doomed []*modelTask
	out    []Decision

	peers []*modelPeer
	lends uint64
}

type modelJob struct {
	id              wray.ID
	served          uint64
	ending, refused bool
	wanted          int64
	roots           []*modelTask
}

type modelTask struct {
	Spec
	job        *modelJob
	parent     *modelTask
	children   []*modelTask
	depth      int
	state      state
	attempt    int
	seq, turn  uint64
	stop       wray.Code
	spare      bool
	inner      bool
	deadline   int64 // 0: none
	missing    []wray.ID
	wait       *Wait // of a blocked task, as told
	unresolved []wray.ID
	doom       wray.Code
	peer       *modelPeer // that it is lent to
	lentAs     uint64     // its place among all lendings
}

func (m *model) emit(d Decision) { m.out = append(m.out, d) }

func (m *model) job(id wray.ID) *modelJob {
	for _, j := range m.jobs {
		if j.id == id {
			return j
		}
	}
	return nil
}

func (m *model) task(id wray.ID) *modelTask {
	for _, t := range m.tasks {
		if t.ID == id {
			return t
		}
	}
	return nil
}

func (m *model) current(id wray.ID, attempt int) *modelTask {
	if t := m.task(id); t != nil && t.state.started() && t.attempt == attempt {
		return t
	}
	m.stale++
	return nil
}

// producer returns the task that makes an object that is not there.
func (m *model) producer(id wray.ID) *modelTask {
	for _, t := range m.tasks {
		if slices.Contains(t.Results, id) {
			return t
		}
	}
	return nil
}

func (m *model) held(of *modelJob) wray.Resources {
	var sum wray.Resources
	for _, t := range m.tasks {
		if of == nil || t.job == of {
			sum = sum.Add(t.state.holds(t.Resources))
		}
	}
	return sum
}

// customHeld is what tasks hold of a custom resource: of a job, or all.
func (m *model) customHeld(name string, of *modelJob) wray.Amount {
	var sum wray.Amount
	for _, t := range m.tasks {
		if (of == nil || t.job == of) && t.state.local() {
			sum += customOf(t.Custom, name)
		}
	}
	return sum
}

func customOf(list []wray.Custom, name string) wray.Amount {
	for _, c := range list {
		if c.Name == name {
			return c.Amount
		}
	}
	return 0
}

// lacking returns the first custom resource, by name, of which t wants more than is free.
func (m *model) lacking(t *modelTask) string {
	first := ""
	for _, c := range t.Custom {
		free := customOf(m.config.Custom, c.Name) - m.customHeld(c.Name, nil)
		if c.Amount > free && (first == "" || c.Name < first) {
			first = c.Name
		}
	}
	return first
}

func (m *model) free() wray.Resources { return m.config.Capacity.Sub(m.held(nil)) }

func (m *model) pending(j *modelJob) (tasks int, bytes int64) {
	for _, t := range m.tasks {
		if t.job == j && t.state.pending() {
			tasks++
			bytes += t.Bytes
		}
	}
	return tasks, bytes
}

func (m *model) submit(p Spec) error {
	j := m.job(p.Job)
	if j == nil || j.ending || m.task(p.ID) != nil {
		return fmt.Errorf("job or task")
	}
	var parent *modelTask
	depth := 1
	if !p.Parent.IsZero() {
		if parent = m.current(p.Parent, p.ParentAttempt); parent == nil || parent.job != j || parent.stop != 0 {
			return fmt.Errorf("parent")
		}
		if depth = parent.depth + 1; depth > m.config.MaxDepth {
			return fmt.Errorf("depth")
		}
	}
	if !m.here(&p) && !m.elsewhere(&p) && !m.awaits(&p) || p.Bytes > m.config.MaxQueuedBytes {
		return fmt.Errorf("unschedulable")
	}
	if n, bytes := m.pending(j); !p.Again && (n >= m.config.MaxQueuedTasks || bytes+p.Bytes > m.config.MaxQueuedBytes) {
		j.refused, j.wanted = true, max(j.wanted, p.Bytes)
		return fmt.Errorf("full")
	}
	for _, id := range p.Results {
		if m.producer(id) != nil {
			return fmt.Errorf("results")
		}
	}
	m.seq++
	t := &modelTask{Spec: p, job: j, parent: parent, depth: depth, seq: m.seq, missing: slices.Clone(p.Deps)}
	t.Results, t.Custom = slices.Clone(p.Results), slices.Clone(p.Custom)
	if p.Place != nil {
		place := *p.Place // one of its own, for it may change
		t.Place = &place
	}
	m.tasks = append(m.tasks, t)
	kin := m.kin(t)
	*kin = append(*kin, t)
	t.state = waiting
	if len(t.missing) == 0 {
		m.enqueue(t)
	}
	return nil
}

func (m *model) kin(t *modelTask) *[]*modelTask {
	if t.parent != nil {
		return &t.parent.children
	}
	return &t.job.roots
}

func (m *model) enqueue(t *modelTask) {
	m.turns++
	t.state, t.turn = queued, m.turns
	t.inner = t.parent != nil && (t.parent.Resources.Memory > 0 || slices.ContainsFunc(t.parent.Custom, func(c wray.Custom) bool { return c.Amount > 0 }))
}

// space says Space where it is owed and due; called when a task stops pending.
func (m *model) space(j *modelJob) {
	n, bytes := m.pending(j)
	room := n <= m.config.MaxQueuedTasks-max(1, m.config.MaxQueuedTasks/4) &&
		bytes <= m.config.MaxQueuedBytes-max(j.wanted, m.config.MaxQueuedBytes/4)
	if j.refused && !j.ending && room {
		j.refused, j.wanted = false, 0
		m.emit(Decision{Kind: Space, Job: j.id})
	}
}

func (m *model) finished(id wray.ID, attempt int, o Outcome) {
	t := m.current(id, attempt)
	if t == nil {
		return
	}
	m.resume = slices.DeleteFunc(m.resume, func(r *modelTask) bool { return r == t })
	t.wait, t.unresolved, t.deadline = nil, nil, 0
	if t.peer != nil {
		delete(t.peer.avoided, t.job)
	}
	m.endAttempt(t, o)
	m.settle()
}

func (m *model) endAttempt(t *modelTask, o Outcome) {
	if o.Err == nil {
		m.finish(t, wray.CodeOK)
	} else if again := t.Retries < 0 || t.attempt <= t.Retries; o.Retryable && again && t.stop != wray.CodeCanceled {
		for _, c := range t.children {
			m.cancel(c, true)
		}
		t.stop, t.state, t.peer = wray.CodeOK, backoff, nil
		d := int64(10_000_000)
		for i := 1; i < t.attempt && d < 1_000_000_000; i++ {
			d *= 2
		}
		t.deadline = m.now + min(d, 1_000_000_000)
	} else if t.stop != wray.CodeOK {
		m.finish(t, t.stop)
	} else {
		m.finish(t, o.Err.Code)
	}
}

func (m *model) finish(t *modelTask, code wray.Code) {
	j := t.job
	pending := t.state.pending()
	if m.starving == t {
		m.starving = nil
	}
	t.state = gone
	m.tasks = slices.DeleteFunc(m.tasks, func(x *modelTask) bool { return x == t })
	m.emit(Decision{Kind: Done, Task: t.ID, Attempt: t.attempt, Code: code, Job: j.id})
	if pending {
		m.space(j)
	}
	for _, id := range t.Results {
		m.resolve(id, code != wray.CodeOK)
	}
	if code != wray.CodeOK && !t.spare {
		for _, c := range t.children {
			m.cancel(c, true)
		}
	}
	for _, c := range t.children {
		c.parent = t.parent
		kin := m.kin(c)
		*kin = append(*kin, c)
	}
	kin := m.kin(t)
	*kin = slices.DeleteFunc(*kin, func(x *modelTask) bool { return x == t })
	m.close(j)
}

func (m *model) close(j *modelJob) {
	if j.ending && len(j.roots) == 0 && m.job(j.id) != nil {
		m.jobs = slices.DeleteFunc(m.jobs, func(k *modelJob) bool { return k == j })
		m.emit(Decision{Kind: JobEnded, Job: j.id})
	}
}

func (m *model) resolve(id wray.ID, failed bool) {
	if p := m.producer(id); p != nil {
		p.Results = slices.DeleteFunc(p.Results, func(r wray.ID) bool { return r == id })
	}
	gone := func(r wray.ID) bool { return r == id }
	for _, t := range m.tasks {
		if !slices.Contains(t.missing, id) && !slices.Contains(t.unresolved, id) {
			continue
		}
		t.missing = slices.DeleteFunc(t.missing, gone)
		t.unresolved = slices.DeleteFunc(t.unresolved, gone)
		if t.state != waiting || t.doom != 0 {
			continue
		}
		if failed {
			m.condemn(t, wray.CodeDependencyFailed)
		} else if len(t.missing) == 0 {
			m.enqueue(t)
		}
	}
}

func (m *model) condemn(t *modelTask, code wray.Code) {
	t.doom = code
	m.doomed = append(m.doomed, t)
}

func (m *model) settle() {
	for len(m.doomed) > 0 {
		t := m.doomed[0]
		m.doomed = m.doomed[1:]
		m.finish(t, t.doom)
	}
}

func (m *model) cancel(t *modelTask, recursive bool) {
	if t.state.pending() {
		if t.doom == 0 {
			m.condemn(t, wray.CodeCanceled)
		}
		return
	}
	if t.stop == wray.CodeOK {
		m.emit(Decision{Kind: Stop, Task: t.ID, Attempt: t.attempt, Code: wray.CodeCanceled, Job: t.job.id, Peer: t.peerID()})
	}
	t.stop, t.deadline, t.spare = wray.CodeCanceled, 0, !recursive
	if t.peer != nil && t.peer.unreachable && t.doom == 0 {
		m.condemn(t, wray.CodeCanceled)
	}
	if recursive {
		for _, c := range t.children {
			m.cancel(c, true)
		}
	}
}

func (m *model) endJob(id wray.ID) {
	j := m.job(id)
	if j == nil || j.ending {
		return
	}
	j.ending = true
	for _, t := range j.roots {
		m.cancel(t, true)
	}
	m.settle()
	m.close(j)
}

func (m *model) blocked(id wray.ID, attempt int, w Wait) {
	t := m.current(id, attempt)
	if t == nil {
		return
	}
	if t.state != running {
		m.stale++
		return
	}
	t.state, t.wait = blocked, &w
	t.unresolved = slices.Clone(w.Objects)
}

func (m *model) unblocked(id wray.ID, attempt int) {
	t := m.current(id, attempt)
	if t == nil {
		return
	}
	if t.state != blocked {
		m.stale++
		return
	}
	t.state, t.wait, t.unresolved = resuming, nil, nil
	m.resume = append(m.resume, t)
}

// tick does what time does but for deadlocks.
func (m *model) tick() {
	due := slices.Clone(m.tasks)
	due = slices.DeleteFunc(due, func(t *modelTask) bool { return t.deadline == 0 || t.deadline > m.now })
	slices.SortStableFunc(due, func(a, b *modelTask) int {
		return cmp.Or(cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.seq, b.seq))
	})
	for _, t := range due {
		t.deadline = 0
		if t.state == backoff {
			m.enqueue(t)
		} else {
			t.stop = wray.CodeTimeout
			m.emit(Decision{Kind: Stop, Task: t.ID, Attempt: t.attempt, Code: wray.CodeTimeout, Job: t.job.id, Peer: t.peerID()})
		}
	}
}

// ready decides as Ready does. Whom a task is lent to, the model only judges:
// got is what the scheduler decided.
func (m *model) ready(got []Decision) error {
	for len(m.resume) > 0 && m.resume[0].Resources.CPU <= m.free().CPU {
		t := m.resume[0]
		m.resume = m.resume[1:]
		t.state = running
		m.emit(Decision{Kind: Resume, Task: t.ID, Attempt: t.attempt, Job: t.job.id})
	}
	for {
		order := m.order()
		i := slices.IndexFunc(order, m.mayStart)
		n := len(m.out)
		for n < len(got) && got[n].Kind == Space {
			n++ // which a start or a lending made
		}
		if n < len(got) && got[n].Kind == Lend {
			if i > 0 && m.starving == nil {
				m.starving, m.since = order[0], m.now
			}
			t, p := m.task(got[n].Task), m.peer(got[n].Peer)
			switch {
			case t == nil || p == nil || t.state != queued || !m.takes(p, t):
				return fmt.Errorf("%+v, which may not be", got[n])
			case i >= 0 && (t != order[i] || !m.diverts(t, p)):
				return fmt.Errorf("%+v, though %v fits here", got[n], order[i].ID)
			}
			m.lend(t, p)
			continue
		}
		if i < 0 {
			return m.mustLend()
		}
		if i > 0 && m.starving == nil {
			m.starving, m.since = order[0], m.now
		}
		m.start(order[i])
	}
}

func (m *model) start(t *modelTask) {
	m.begin(t, running)
	m.emit(Decision{Kind: Start, Task: t.ID, Attempt: t.attempt, Job: t.job.id})
}

func (m *model) begin(t *modelTask, as state) {
	if m.starving == t {
		m.starving = nil
	}
	m.starts++
	t.state, t.job.served = as, m.starts
	t.attempt++
	if t.Timeout > 0 {
		t.deadline = m.now + t.Timeout
	}
	m.space(t.job)
}

// order lists the queued tasks that may run here in the order in which they are considered.
func (m *model) order() []*modelTask {
	var order []*modelTask
	first := map[*modelJob]uint64{}
	share := map[*modelJob]float64{}
	for _, t := range m.tasks {
		if t.state == queued {
			if m.here(&t.Spec) {
				order = append(order, t)
			}
			if f, ok := first[t.job]; !ok || t.turn < f {
				first[t.job] = t.turn
			}
			h, c := m.held(t.job), m.config.Capacity
			share[t.job] = max(float64(h.CPU)/float64(c.CPU), float64(h.Memory)/float64(c.Memory))
			for _, c := range m.config.Custom {
				share[t.job] = max(share[t.job], float64(m.customHeld(c.Name, t.job))/float64(c.Amount))
			}
		}
	}
	slices.SortFunc(order, func(a, b *modelTask) int {
		return cmp.Or(
			cmp.Compare(share[a.job], share[b.job]),
			cmp.Compare(a.job.served, b.job.served),
			cmp.Compare(first[a.job], first[b.job]),
			cmp.Compare(a.turn, b.turn))
	})
	return order
}

func (m *model) fits(t *modelTask) bool {
	return t.Resources.Fits(m.free()) && (t.Resources.CPU == 0 || len(m.resume) == 0) && m.lacking(t) == ""
}

func (m *model) mayStart(t *modelTask) bool {
	if !m.fits(t) {
		return false
	}
	s := m.starving
	if s == nil || s == t {
		return true
	}
	holding := false
	for w := int64(firstHold); w <= m.now-m.since; w *= 2 {
		holding = m.now-m.since < w+w/holdFactor
	}
	lacks := s.Resources.Sub(m.free())
	takes := lacks.CPU > 0 && t.Resources.CPU > 0
	if !t.inner {
		takes = takes || lacks.Memory > 0 && t.Resources.Memory > 0 || customOf(t.Custom, m.lacking(s)) > 0
	}
	return !holding || !takes
}

// deadlocked returns the tasks that may be failed to break a deadlock, the youngest last. It says so of what the rules in DESIGN.md call
// deadlocked, by trying over and over what else could go on.
func (m *model) deadlocked() []*modelTask {
	able := map[*modelTask]bool{}
	comes := func(id wray.ID) bool { p := m.producer(id); return p == nil || able[p] }
	memory := func() int64 {
		sum := m.free().Memory
		for t := range able {
			sum += t.state.holds(t.Resources).Memory
		}
		return sum
	}
	custom := func(name string) wray.Amount {
		sum := customOf(m.config.Custom, name) - m.customHeld(name, nil)
		for t := range able {
			if t.state.local() {
				sum += customOf(t.Custom, name)
			}
		}
		return sum
	}
	canGoOn := func(t *modelTask) bool {
		switch {
		case t.state == running || t.state == resuming || t.state == lent || t.stop != wray.CodeOK:
			return true
		case t.state == waiting:
			return slices.ContainsFunc(t.missing, comes)
		case t.state.pending():
			return !m.here(&t.Spec) || m.hope(&t.Spec) || t.Resources.Memory <= memory() && !slices.ContainsFunc(t.Custom, func(c wray.Custom) bool { return c.Amount > custom(c.Name) })
		case len(t.wait.Objects) == 0 && !t.wait.Space:
			return true
		case t.wait.Space && (!t.job.refused || slices.ContainsFunc(m.tasks, func(p *modelTask) bool {
			return p.job == t.job && p.state.pending() && able[p]
		})):
			return true
		case t.wait.All && !t.wait.Space:
			return !slices.ContainsFunc(t.unresolved, func(id wray.ID) bool { return !comes(id) })
		}
		return len(t.unresolved) < len(t.wait.Objects) || slices.ContainsFunc(t.unresolved, comes)
	}
	for again := true; again; {
		again = false
		for _, t := range m.tasks {
			if !able[t] && canGoOn(t) {
				able[t], again = true, true
			}
		}
	}
	var victims []*modelTask
	var seen []*modelTask
	var visit func(t *modelTask)
	visit = func(t *modelTask) {
		if able[t] || slices.Contains(seen, t) {
			return
		}
		seen = append(seen, t)
		if t.state == queued || t.state == backoff {
			victims = append(victims, t)
		}
		if t.state == blocked && t.wait.Space {
			for _, p := range m.tasks {
				if p.job == t.job && p.state.pending() && !able[p] {
					victims = append(victims, p)
				}
			}
		}
		for _, id := range slices.Concat(t.missing, t.unresolved) {
			if p := m.producer(id); p != nil {
				visit(p)
			}
		}
	}
	for _, t := range m.tasks {
		if t.state == blocked {
			visit(t)
		}
	}
	slices.SortFunc(victims, func(a, b *modelTask) int { return cmp.Compare(a.seq, b.seq) })
	return victims
}
