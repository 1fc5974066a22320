package worker

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
)

// A result that stayed at the peer that made it goes with that peer. So its owner
// keeps what it takes to make it again: the task, with its arguments, for as
// long as the result lives elsewhere alone. It is run again when somebody reads
// a result that is gone, and not before: many never are.

// Bounds of what is kept.
const (
	maxLineage      = 64 << 20 // bytes of small arguments, of all tasks
	lineageCost     = 512      // of a task without any
	maxLineageDepth = 64       // tasks whose arguments come of tasks
)

// lineage is a task that can be run again.
type lineage struct {
	set   *peerSet
	task  task // what describes it: no results, nothing of its attempts
	n     int  // results
	bytes int64
	depth int

	mu   sync.Mutex
	refs int                   // results that may need it; guarded by mu
	made []*objectstore.Object // by the last run; guarded by mu
	run  chan struct{}         // closed when made is there; guarded by mu
	err  *wray.Error           // why it cannot be run; guarded by mu
}

// lineageOf keeps the task t, of which results stay at a peer, or returns nil
// where that would be too much. Worker.mu is held, and t has not ended.
func (ps *peerSet) lineageOf(t *task, results int) *lineage {
	l := &lineage{set: ps, n: results, bytes: lineageCost + placeBytes(t.place), task: task{job: t.job, fn: t.fn, name: t.name, resources: t.resources,
		memory: t.memory, flags: t.flags, retryOn: t.retryOn, timeout: t.timeout, place: t.place, far: &far{custom: t.far.custom}}}
	for _, a := range t.args {
		l.bytes += int64(len(a.payload))
		if a.object != nil {
			if r, ok := a.object.Source().(*remote); ok && r.lineage != nil {
				l.depth = max(l.depth, 1+r.lineage.depth)
			}
		}
	}
	if l.depth > maxLineageDepth {
		return nil
	}
	if ps.lineage.Add(l.bytes) > maxLineage {
		ps.lineage.Add(-l.bytes)
		return nil
	}
	l.task.args = retainArgs(t.args)
	return l
}

func retainArgs(args []arg) []arg {
	args = slices.Clone(args)
	for _, a := range args {
		if a.object != nil {
			a.object.Retain()
		}
	}
	return args
}

// drop tells that one result less needs l.
func (l *lineage) drop() {
	l.mu.Lock()
	l.refs--
	last := l.refs == 0
	made := l.made
	if last {
		l.made = nil
	}
	l.mu.Unlock()
	if last {
		releaseArgs(l.task.args)
		releaseAll(made)
		l.set.lineage.Add(-l.bytes)
	}
}

// again makes result i again, and fills p with its payload.
func (l *lineage) again(i int, p []byte) error {
	l.mu.Lock()
	if l.run == nil {
		l.run = make(chan struct{})
		run := l.run
		l.mu.Unlock()
		made, err := l.rerun()
		l.mu.Lock()
		l.made, l.err = made, err
		close(run)
	}
	run := l.run
	l.mu.Unlock()
	<-run
	l.mu.Lock()
	err := l.err
	var o *objectstore.Object
	if err == nil {
		o = l.made[i]
		o.Retain()
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	defer o.Release()
	if err := o.Wait(l.set.ctx); err != nil {
		return err
	}
	if err := o.Err(); err != nil {
		return lostAgain(&l.task, err)
	}
	v, verr := o.WaitView(l.set.ctx)
	if verr != nil {
		return verr
	}
	defer v.Close()
	if err := o.Err(); err != nil {
		return lostAgain(&l.task, err)
	}
	if b := v.Bytes(); len(b) == len(p) {
		copy(p, b)
		return nil
	}
	return lostAgain(&l.task, wray.Errorf(wray.CodeUserError, "it gave %d bytes, and %d before", len(v.Bytes()), len(p)))
}

// rerun submits the task again. The results have a reference each.
func (l *lineage) rerun() ([]*objectstore.Object, *wray.Error) {
	w := l.set.w
	t := l.task
	t.id, t.args = w.newID(), retainArgs(l.task.args)
	t.far = &far{custom: l.task.far.custom}
	spec := scheduler.Spec{ID: t.id, Job: t.job.id, Name: t.name, Resources: t.resources, Custom: t.far.custom,
		Again: true, Retries: defaultRetries, Timeout: int64(t.timeout), Bytes: t.bytes()}
	if t.place != nil {
		spec.Place = t.job.placeOf(&t)
	}
	var made []*objectstore.Object
	for i := range l.n {
		o, err := w.declare(&t, i)
		if err != nil {
			t.release()
			releaseAll(made)
			return nil, lostAgain(&l.task, err)
		}
		t.results = append(t.results, o)
		o.Retain()
		made = append(made, o)
		spec.Results = append(spec.Results, o.ID())
	}
	if err := w.submit(nil, &t, &spec); err != nil {
		t.release()
		releaseAll(made)
		return nil, lostAgain(&l.task, err)
	}
	return made, nil
}

// lostAgain is the error of a result that was lost, and could not be made again.
func lostAgain(t *task, err error) *wray.Error {
	e := &wray.Error{Code: wray.CodeObjectLost, Task: t.name,
		Message: "the node that kept the value is gone, and the task that made it could not be run again",
		Hint:    "the cause is why; a task whose results must outlive nodes is to give the same again"}
	if !errors.As(err, &e.Cause) {
		e.Message += ": " + err.Error()
	}
	return e
}

// lostWith is the error of a result that went with a node, and of which nothing
// was kept to make it again.
func lostWith(p *peer) *wray.Error {
	return &wray.Error{Code: wray.CodeObjectLost, Node: p.node,
		Message: fmt.Sprintf("node %s, which kept the value, is gone, and what it takes to make it again was too much to keep", p.node),
		Hint:    "pass large arguments as objects; values that hold references are not made again"}
}
