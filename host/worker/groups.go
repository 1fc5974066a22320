package worker

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// placementGroup is a group that was made by a job of this worker. It is named by
// an object, whose value is there when all bundles are reserved: a handle on it is
// the right to run tasks in the group, it travels in values, and when the last
// reference is gone so is the group. The scheduler has its state.
type placementGroup struct {
	job      *job
	object   wray.ID
	name     string
	named    bool // in job.groups
	detached bool
	spec     *wray.GroupSpec

	mu  sync.Mutex
	own *objectstore.Object // guarded by mu; a reference, until it is ready, and while the group is detached

	idle *placementGroup // in Worker.idleGroups
}

// Unreferenced implements objectstore.Attachment: the ticker does the rest, as
// nothing may be locked here.
func (pg *placementGroup) Unreferenced() {
	w := pg.job.w
	for {
		first := w.idleGroups.Load()
		pg.idle = first
		if w.idleGroups.CompareAndSwap(first, pg) {
			break
		}
	}
	select {
	case w.wakeTick <- struct{}{}:
	default:
	}
}

// removeIdle removes the groups that nobody refers to any more.
func (w *Worker) removeIdle() {
	for pg := w.idleGroups.Swap(nil); pg != nil; pg = pg.idle {
		w.removeGroup(pg.object)
	}
}

func (w *Worker) removeGroup(object wray.ID) {
	w.step(nil, func(s *scheduler.Scheduler) { s.RemoveGroup(w.now(), object) })
}

// groupFlags are those that go with SpecGroup.
const groupFlags = abi.SpecGroup | abi.SpecNamed | abi.SpecGetIfExists | abi.SpecDetached

// makeGroup makes the placement group that a struct task_spec describes.
func (g *guest) makeGroup(v view, b []byte) abi.Errno {
	if u32(b, abi.SpecFlags)&^groupFlags != 0 || u32(b, abi.SpecNresults) != 1 || u32(b, abi.SpecNargs) != 0 || u32(b, abi.SpecActorRef) != 0 {
		return abi.EINVAL
	}
	name, e := v.str(u32(b, abi.SpecNamePtr), u32(b, abi.SpecNameLen))
	if e != abi.Success {
		return e
	}
	n := u32(b, abi.SpecPlaceLen)
	if n > wray.MaxGroupText {
		return g.tooMany("bytes of a placement group", n, wray.MaxGroupText)
	}
	text, ok := v.bytes(u32(b, abi.SpecPlacePtr), n)
	if !ok {
		return abi.EFAULT
	}
	out, ok := v.array(u32(b, abi.SpecResultsPtr), 1, 4)
	if !ok {
		return abi.EFAULT
	}
	if g.job.mirror != nil {
		return g.notHere("a placement group was made")
	}
	g.copied(int(n))
	g.work += perActor
	spec, err := wray.ParseGroup(string(text))
	if err != nil {
		return g.refuse(wray.Errorf(wray.CodeBadArgument, "%v", err), abi.EINVAL)
	}
	pg := &placementGroup{job: g.job, object: resultID(g.w.newID(), 0), name: name, spec: spec, detached: u32(b, abi.SpecFlags)&abi.SpecDetached != 0}
	if u32(b, abi.SpecFlags)&abi.SpecNamed != 0 {
		if have := g.job.takeGroupName(pg); have != nil {
			if u32(b, abi.SpecFlags)&abi.SpecGetIfExists != 0 {
				return g.give(have, out)
			}
			have.Release()
			return g.giveFailed(pg.object, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is a placement group of the name %q", name),
				Hint: "give it another name, or use the option GetIfExists"}, out)
		}
	}
	o, err := g.w.store.DeclareFor(pg.object, pg)
	if err != nil {
		pg.unname()
		return g.refuse(err, abi.ENOMEM)
	}
	o.SetOrigin(g.job.id.Seq)
	pg.own = o
	o.Retain()
	if e := g.give(o, out); e != abi.Success {
		pg.ended(wray.Errorf(wray.CodeCanceled, "it was not made"))
		return e
	}
	g.w.step(nil, func(s *scheduler.Scheduler) {
		err = s.AddGroup(g.w.now(), &scheduler.Group{ID: pg.object, Job: g.job.id, Name: name, Spec: spec, Value: pg})
	})
	if err != nil {
		pg.ended(g.job.named(err, "", 0))
	}
	return abi.Success
}

// giveFailed makes a handle of an object that failed.
func (g *guest) giveFailed(id wray.ID, err *wray.Error, out []byte) abi.Errno {
	o, e := g.w.store.Declare(id)
	if e != nil {
		return abi.EIO
	}
	_ = o.Fail(g.job.named(err, "", 0))
	return g.give(o, out)
}

// takeGroupName gives pg its name. Where another has it, takeGroupName returns the
// object that stands for that, with a reference for the caller.
func (j *job) takeGroupName(pg *placementGroup) *objectstore.Object {
	j.mu.Lock()
	defer j.mu.Unlock()
	have := j.groupLocked(pg.name)
	if have == nil {
		if j.groups == nil {
			j.groups = map[string]*placementGroup{}
		}
		j.groups[pg.name] = pg
		pg.named = true
	}
	return have
}

// groupLocked returns the object of the group called name, with a reference for
// the caller, or nil.
func (j *job) groupLocked(name string) *objectstore.Object {
	pg := j.groups[name]
	if pg == nil {
		return nil
	}
	return j.w.store.Lookup(pg.object)
}

func (pg *placementGroup) unname() {
	pg.job.mu.Lock()
	defer pg.job.mu.Unlock()
	if pg.named && pg.job.groups[pg.name] == pg {
		delete(pg.job.groups, pg.name)
	}
}

// ready is called when all bundles are reserved, for the first time or again.
func (pg *placementGroup) ready() {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	o := pg.own
	if o == nil || o.Ready() {
		return
	}
	if err := o.TrySeal(objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte{0xa0}}); err != nil {
		_ = o.Fail(pg.job.named(err, "", 0))
	}
	if !pg.detached {
		pg.letGoLocked()
	}
}

// ended is called when the group is no more.
func (pg *placementGroup) ended(err *wray.Error) {
	pg.unname()
	pg.mu.Lock()
	defer pg.mu.Unlock()
	o := pg.own
	if o == nil {
		return
	}
	if err == nil {
		err = &wray.Error{Code: wray.CodeGroupRemoved, Message: "the placement group was removed"}
	}
	_ = o.Fail(pg.job.named(err, "", 0)) // one that was ready stays so
	pg.letGoLocked()
}

func (pg *placementGroup) letGoLocked() {
	o := pg.own
	pg.own = nil
	o.Release()
}

// namedObject returns the object of the actor, or of the group, that is called so, with
// a reference for the caller, or nil: an actor's name is that, a group's has
// abi.GroupName in front.
func (j *job) namedObject(name string) *objectstore.Object {
	j.mu.Lock()
	defer j.mu.Unlock()
	if group, yes := strings.CutPrefix(name, abi.GroupName); yes {
		return j.groupLocked(group)
	}
	return j.actorLocked(name)
}

// readGroup reads which group, and which of its bundles, a task runs in. It is
// called when t holds its arguments.
func (g *guest) readGroup(v view, b []byte, t *task, spec *scheduler.Spec) abi.Errno {
	switch {
	case t.flags&abi.SpecInGroup != 0:
		if t.place != nil || t.actor != nil || t.far != nil && t.far.call != nil {
			return abi.EINVAL
		}
		o, ok := g.handles.Object(u32(b, abi.SpecActorRef))
		if !ok {
			return abi.EBADF
		}
		if !g.w.isGroup(o) && o.State() != objectstore.Failed { // one that failed is told by the task's results
			return abi.EBADF
		}
		text, e := v.str(u32(b, abi.SpecPlacePtr), u32(b, abi.SpecPlaceLen))
		if e != abi.Success {
			return e
		}
		t.bundle = wray.AnyBundle
		if text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 || n >= wray.MaxBundles {
				return abi.EINVAL
			}
			t.bundle = n
		}
		o.Retain()
		t.group = o
	case t.flags&abi.SpecCapture != 0:
		return abi.EINVAL
	case g.holder != nil && g.holder.group != nil && g.holder.flags&abi.SpecCapture != 0 && t.place == nil && t.actor == nil && (t.far == nil || t.far.call == nil):
		t.group, t.bundle = g.holder.group, wray.AnyBundle
		t.group.Retain()
		t.flags |= abi.SpecInGroup | abi.SpecCapture
	}
	if t.group != nil {
		spec.Place = g.job.placeOf(t)
	}
	return abi.Success
}

// groupFailed is why t cannot run in its group, where that has failed.
func (t *task) groupFailed() error {
	if t.group != nil && t.group.State() == objectstore.Failed {
		return &wray.Error{Code: wray.CodeDependencyFailed, Message: "its placement group failed", Hint: "the cause is the error to mend", Cause: t.group.Err()}
	}
	return nil
}

// strategyOf is the strategy of t for the scheduler.
func strategyOf(t *task) scheduler.Strategy {
	if t.group != nil {
		return scheduler.Strategy{Kind: scheduler.InGroup, Group: t.group.ID(), Bundle: t.bundle}
	}
	return scheduler.StrategyOf(t.place)
}
