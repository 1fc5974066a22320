package scheduler

import "github.com/wray-project/wray"

// Submit takes a task. With an error the task was not taken, nothing changed,
// and no decision about it will come; the error is a *[wray.Error] that says
// why, or [ErrQueueFull]:
//
//	BadArgument    the spec makes no sense: an ID is zero or in use, the job
//	               is unknown, an amount is negative
//	Unschedulable  it asks for more than the capacity
//	LimitExceeded  nesting depth, bytes; also what ErrQueueFull unwraps to
//	Canceled       the job is ending, or the parent's attempt is being
//	               canceled or is over
func (s *Scheduler) Submit(now int64, spec *Spec) error {
	s.at(now)
	j := s.jobs[spec.Job]
	if err := spec.validate(); err != nil {
		return err
	}
	if j == nil {
		return named(spec.Name, wray.Errorf(wray.CodeBadArgument, "job %v is not known", spec.Job))
	}
	if j.ending {
		return named(spec.Name, wray.Errorf(wray.CodeCanceled, "its job has ended"))
	}
	if s.tasks.get(spec.ID) != nil {
		return named(spec.Name, wray.Errorf(wray.CodeBadArgument, "task %v was submitted before and is not done", spec.ID))
	}
	parent, depth, err := s.parentOf(spec)
	if err != nil {
		return err
	}
	wants, lacks, err := s.wants(spec)
	if err != nil {
		return err
	}
	here := lacks == nil && spec.Resources.Fits(s.config.Capacity)
	var place *placement
	inGroup := spec.Place != nil && spec.Place.Kind == InGroup
	if inGroup {
		if here, err = true, s.mayJoin(spec, wants); err != nil {
			return err
		}
	}
	if spec.Place != nil {
		place = s.placementFor(&spec.Place.Strategy, spec.Place.Home)
		here = here && (place == nil || place.here)
	}
	if !here {
		if err := s.feasible(spec, lacks, wants, place); err != nil {
			s.leavePlacement(place)
			return err
		}
	}
	if spec.Bytes > s.config.MaxQueuedBytes {
		s.leavePlacement(place)
		return tooManyBytes(spec, s.config.MaxQueuedBytes)
	}
	if !spec.Again {
		if err := s.refuse(j, spec.Bytes); err != nil {
			s.leavePlacement(place)
			return err
		}
	}

	t := s.freeTasks.get()
	results := t.results // recycled capacity
	*t = task{
		entry: entry[task]{id: spec.ID}, name: spec.Name, job: j, parent: parent, depth: depth,
		res: spec.Resources, retries: spec.Retries, timeout: spec.Timeout, bytes: spec.Bytes, value: spec.Value,
		results: results, timerIndex: -1, here: here, again: spec.Again,
	}
	if err := s.claim(t, spec.Results); err != nil {
		s.freeTasks.put(t)
		s.leavePlacement(place)
		return err
	}
	if len(wants) > 0 {
		s.claimFor(t, wants)
	}
	if spec.Place != nil {
		s.put(t, place, spec.Place.Near)
	}
	s.submits++
	t.seq = s.submits
	s.tasks.add(t)
	t.siblings().add(t)
	j.totals.submitted++
	if len(spec.Deps) == 0 {
		s.enqueue(t)
		return nil
	}
	for _, id := range spec.Deps {
		s.link(t, id)
	}
	s.move(t, waiting)
	return nil
}

// feasible returns the error of a task that this node can never run, where no
// other can either.
func (s *Scheduler) feasible(spec *Spec, lacks *wray.Custom, wants []want, place *placement) error {
	switch {
	case (place == nil || !place.home) && (s.config.Patience > 0 || s.hope(spec.Resources, wants, place)):
		return nil
	case len(s.peers.all.list) > 0 || place != nil:
		return s.nowhere(spec.Name, spec.Resources, wants, place)
	case lacks != nil && spec.Resources.Fits(s.config.Capacity):
		return unschedulableCustom(spec, *lacks, s.custom[s.resource(lacks.Name)].capacity)
	}
	return unschedulable(spec, s.config.Capacity)
}

func (p *Spec) validate() error {
	what := ""
	switch {
	case p.ID.IsZero():
		what = "the task's ID is zero"
	case p.Resources.CPU < 0:
		what = "CPU is negative"
	case p.Resources.Memory < 0:
		what = "memory is negative"
	case p.Retries < Forever:
		what = "retries are less than -1"
	case p.Timeout < 0:
		what = "the timeout is negative"
	case p.Bytes < 0:
		what = "the size is negative"
	}
	for _, id := range p.Deps {
		if id.IsZero() {
			what = "a dependency is zero"
		}
	}
	if len(p.Custom) > 0 {
		if err := validateCustom(p.Custom); err != nil {
			what = err.Error()
		}
	}
	if what == "" {
		return nil
	}
	return named(p.Name, wray.Errorf(wray.CodeBadArgument, "%s", what))
}

// parentOf returns the task that submits spec, nil for the driver, and the
// depth that the new task has.
func (s *Scheduler) parentOf(spec *Spec) (*task, int, error) {
	if spec.Parent.IsZero() {
		return nil, 1, nil
	}
	p := s.attemptOf(spec.Parent, spec.ParentAttempt)
	switch {
	case p == nil:
		s.stale++
		return nil, 0, named(spec.Name, wray.Errorf(wray.CodeCanceled, "the task that submitted it is over"))
	case p.job.id != spec.Job:
		return nil, 0, named(spec.Name, wray.Errorf(wray.CodeBadArgument,
			"job %v differs from the parent's, %v", spec.Job, p.job.id))
	case p.stop != wray.CodeOK:
		return nil, 0, named(spec.Name, wray.Errorf(wray.CodeCanceled, "the task that submitted it is being stopped"))
	case p.depth >= s.config.MaxDepth:
		return nil, 0, tooDeep(spec, s.config.MaxDepth)
	}
	return p, p.depth + 1, nil
}

// refuse holds the limits on what a job has queued, with room for bytes more.
func (s *Scheduler) refuse(j *job, bytes int64) error {
	tasks := j.pending() >= s.config.MaxQueuedTasks
	if !tasks && j.bytes <= s.config.MaxQueuedBytes-bytes {
		return nil
	}
	j.refused = true
	j.wanted = max(j.wanted, bytes)
	j.totals.refused++
	if tasks {
		return &queueFull{limit: wray.Limit{Name: "queued tasks", Value: int64(s.config.MaxQueuedTasks), Unit: "tasks"}}
	}
	return &queueFull{limit: wray.Limit{Name: "queued bytes", Value: s.config.MaxQueuedBytes, Unit: "bytes"}}
}

// claim makes t the producer of its results, of all or of none.
func (s *Scheduler) claim(t *task, results []wray.ID) error {
	for i, id := range results {
		o := s.objects.get(id)
		if id.IsZero() || o != nil && (o.producer != nil || o.coming) {
			s.disclaim(t)
			return named(t.name, wray.Errorf(wray.CodeBadArgument, "result %d, %v, is zero or made by a task already", i, id))
		}
		if o == nil {
			o = s.newObject(id)
		}
		o.producer, o.index = t, i
		t.results = append(t.results, o)
	}
	return nil
}

func (s *Scheduler) disclaim(t *task) {
	for _, o := range t.results {
		o.producer = nil
		if o.first == nil {
			s.forgetObject(o)
		}
	}
	clear(t.results)
	t.results = t.results[:0]
}
