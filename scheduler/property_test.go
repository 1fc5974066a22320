package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wray-project/wray"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of TestModel; 0: a new one")
	stepsFlag = flag.Int("steps", 20_000, "choices, some six an event, in each run of TestModel")
)

// TestModel drives the scheduler and the model with the same random events and
// holds that they decide the same, that the invariants hold after each event,
// and that in the end every task is done.
func TestModel(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	const runs = 8
	for i := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed+i, 0))
		left := *stepsFlag
		w := newWorld(t, func(n int) (int, bool) {
			left--
			return r.IntN(n), left > 0
		})
		w.name = fmt.Sprintf("seed %d\nrerun: go test ./scheduler -run TestModel -seed=%d -steps=%d", seed+i, seed+i, *stepsFlag)
		w.run()
		t.Logf("seed %d: %d deadlocks broken, %+v", seed+i, w.broken, w.s.Stats(w.now))
	}
}

// FuzzEvents does the same with events that the fuzzer chooses.
func FuzzEvents(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		b := make([]byte, 600)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			t.Skip("SKIP: an input is at most 4096 bytes")
		}
		w := newWorld(t, func(n int) (int, bool) {
			if len(b) == 0 {
				return 0, false
			}
			x := int(b[0]) % n
			b = b[1:]
			return x, true
		})
		w.name = "the fuzzer's input"
		w.run()
	})
}

// world is a caller that does anything: it keeps its obligations, and now and
// then speaks of attempts that are over, too.
type world struct {
	t      *testing.T
	name   string
	choose func(n int) (int, bool) // a number below n; false when it is time to end
	over   bool
	nested bool // tasks hold memory and wait for their children, mostly
	peered bool // there are other nodes
	s      *Scheduler
	m      *model
	now    int64
	ids    uint64
	jobs   []wray.ID
	old    []wray.ID // tasks that are done
	events []string
	done   map[wray.ID]int
	taken  uint64
	broken int // deadlocks broken
}

func newWorld(t *testing.T, choose func(n int) (int, bool)) *world {
	config := Config{
		Capacity:       wray.Resources{CPU: 3 * wray.OneCPU, Memory: 100},
		Custom:         []wray.Custom{{Name: "x", Amount: 4}, {Name: "b", Amount: 10}},
		Node:           "here",
		Labels:         []Label{{Key: "zone", Value: "west"}},
		MaxQueuedTasks: 40,
		MaxQueuedBytes: 100,
		MaxDepth:       5,
	}
	kind, _ := choose(4)
	if kind == 3 {
		config.MaxQueuedTasks = 6
	}
	peered, _ := choose(2)
	if peered == 1 && kind%2 == 0 {
		config.Patience = 1 << 60 // ends when all else has
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, choose: choose, nested: kind >= 2, peered: peered == 1, s: s, m: &model{config: config}, done: map[wray.ID]int{}}
}

func (w *world) pick(n int) int {
	x, more := w.choose(n)
	if !more {
		w.over = true
	}
	return x
}

func (w *world) oneIn(n int) bool { return w.pick(n) == n-1 }

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	events := w.events
	if len(events) > 40 {
		events = events[len(events)-40:]
	}
	for _, e := range events {
		w.t.Log(e)
	}
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), w.name)
}

func (w *world) newID() wray.ID {
	w.ids++
	return wray.ID{Owner: 1, Seq: w.ids}
}

func (w *world) run() {
	w.addJob()
	for !w.over {
		if w.oneIn(100) {
			w.mustBreak()
		}
		w.step()
		if w.oneIn(3) {
			continue // another event in the same batch
		}
		w.ready()
	}
	w.drain()
}

func (w *world) addJob() {
	id := w.newID()
	w.jobs = append(w.jobs, id)
	w.m.jobs = append(w.m.jobs, &modelJob{id: id})
	w.event("add job %v", id)
	if err := w.s.AddJob(w.now, id); err != nil {
		w.fatalf("%v", err)
	}
}

// event takes note of an event to come.
func (w *world) event(format string, args ...any) {
	w.events = append(w.events, fmt.Sprintf("%d: ", w.now)+fmt.Sprintf(format, args...))
}

// task returns one of the tasks in a state that ok allows, or nil.
func (w *world) task(ok func(*modelTask) bool) *modelTask {
	var some []*modelTask
	for _, t := range w.m.tasks {
		if ok(t) {
			some = append(some, t)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.pick(min(len(some), 256))]
}

func started(t *modelTask) bool   { return t.state.started() }
func isLent(t *modelTask) bool    { return t.state == lent }
func isRunning(t *modelTask) bool { return t.state == running }
func isBlocked(t *modelTask) bool { return t.state == blocked }
func anyTask(*modelTask) bool     { return true }

// objects returns some objects that are not there.
func (w *world) objects(most int) []wray.ID {
	var ids []wray.ID
	for range w.pick(most + 1) {
		if w.oneIn(8) {
			ids = append(ids, wray.ID{Owner: 3, Seq: uint64(w.pick(4) + 1)}) // from outside
		} else if t := w.task(func(t *modelTask) bool { return len(t.Results) > 0 }); t != nil {
			ids = append(ids, t.Results[w.pick(len(t.Results))])
		}
	}
	return ids
}

func (w *world) step() {
	kind := w.pick(20)
	if w.peered && w.oneIn(4) {
		w.peerEvent()
		w.compare()
		return
	}
	if w.nested && w.oneIn(2) {
		kind = []int{0, 0, 20, 20, 18}[w.pick(5)]
	}
	switch kind {
	case 0, 1, 2, 3, 4, 5, 6:
		w.submit()
	case 7, 8, 9, 10:
		if t := w.task(started); t != nil {
			w.finish(t)
		}
	case 11, 12, 13:
		if t := w.task(isRunning); t != nil {
			on := Wait{Objects: w.objects(3), All: w.oneIn(2), Space: t.job.refused && w.oneIn(2)}
			w.event("block %v %+v", t.ID, on)
			w.s.Blocked(w.now, t.ID, t.attempt, on)
			w.m.blocked(t.ID, t.attempt, on)
		}
	case 14, 15:
		if t := w.task(isBlocked); t != nil {
			w.unblock(t)
		}
	case 16:
		if ids := w.objects(1); len(ids) > 0 {
			w.resolve(ids[0], w.oneIn(3))
		}
	case 17:
		if t := w.task(anyTask); t != nil && w.oneIn(2) {
			recursive := w.oneIn(2)
			w.event("cancel %v %v", t.ID, recursive)
			w.s.Cancel(w.now, t.ID, recursive)
			w.m.cancel(t, recursive)
			w.m.settle()
		}
	case 18:
		w.advance([]int64{0, 1_000_000, 10_000_000, 15_000_000, 100_000_000, 2_000_000_000}[w.pick(6)])
		return
	case 19:
		switch w.pick(12) {
		case 0:
			w.endJob(w.jobs[w.pick(min(len(w.jobs), 256))])
		case 1, 2:
			if len(w.m.jobs) < 4 {
				w.addJob()
			}
		default:
			w.stale()
		}
	case 20:
		if t := w.task(isRunning); t != nil {
			on := Wait{All: w.oneIn(2), Space: t.job.refused && w.oneIn(2)}
			for _, c := range t.children {
				on.Objects = append(on.Objects, c.Results...)
			}
			if len(on.Objects) > 0 || on.Space {
				w.event("block %v on its children: %+v", t.ID, on)
				w.s.Blocked(w.now, t.ID, t.attempt, on)
				w.m.blocked(t.ID, t.attempt, on)
			}
		}
	}
	w.compare()
}

func (w *world) submit() {
	j := w.m.jobs
	if len(j) == 0 {
		w.addJob()
		return
	}
	p := Spec{
		ID:  w.newID(),
		Job: j[w.pick(len(j))].id,
		Resources: wray.Resources{
			CPU:    []wray.CPU{0, 3333, 5000, wray.OneCPU, wray.OneCPU, 3 * wray.OneCPU}[w.pick(6)],
			Memory: []int64{0, 1, 10, 30, 30, 60}[w.pick(6)],
		},
		Deps:    w.objects(2),
		Retries: []int{0, 0, 1, 3, Forever}[w.pick(5)],
		Timeout: []int64{0, 0, 5_000_000, 50_000_000}[w.pick(4)],
		Bytes:   []int64{0, 1, 10, 30}[w.pick(4)],
		Again:   w.oneIn(8),
	}
	if w.oneIn(2) {
		p.Custom = [][]wray.Custom{
			{{Name: "x", Amount: 1}}, {{Name: "x", Amount: 3}}, {{Name: "b", Amount: 6}, {Name: "x", Amount: 2}},
			{{Name: "x", Amount: 0}, {Name: "b", Amount: 10}}, {{Name: "x", Amount: 5}}, {{Name: "other", Amount: 1}},
		}[w.pick(6)]
	}
	if w.peered {
		w.place(&p)
	}
	for range w.pick(3) {
		p.Results = append(p.Results, w.newID())
	}
	if t := w.task(started); t != nil && !w.oneIn(3) {
		p.Parent, p.ParentAttempt, p.Job = t.ID, t.attempt, t.job.id
		if w.oneIn(2) {
			// What a parent may wait for.
			p.Results = append(p.Results, w.newID())
		}
	}
	alive := 0
	for _, t := range w.m.tasks {
		if t.job.id == p.Job {
			alive++
		}
	}
	if alive >= maxShapes {
		return // the model has no overflow
	}
	w.event("submit %+v", p)
	err, want := w.s.Submit(w.now, &p), w.m.submit(p)
	if (err == nil) != (want == nil) {
		w.fatalf("submit: %v; the model: %v", err, want)
	}
}

func (w *world) finish(t *modelTask) {
	o := Outcome{}
	if w.oneIn(2) {
		o = Outcome{Err: &wray.Error{Code: []wray.Code{wray.CodeUserError, wray.CodeTrap, wray.CodeTimeout}[w.pick(3)]}, Retryable: w.oneIn(2)}
	}
	w.finishWith(t, o)
}

func (w *world) finishWith(t *modelTask, o Outcome) {
	w.event("finish %v #%d %+v", t.ID, t.attempt, o)
	w.s.Finished(w.now, t.ID, t.attempt, o)
	w.m.finished(t.ID, t.attempt, o)
}

func (w *world) unblock(t *modelTask) {
	w.event("unblock %v", t.ID)
	w.s.Unblocked(w.now, t.ID, t.attempt)
	w.m.unblocked(t.ID, t.attempt)
}

func (w *world) resolve(id wray.ID, fail bool) {
	w.event("resolve %v fail=%v", id, fail)
	if fail {
		w.s.ObjectFailed(w.now, id, &wray.Error{Code: wray.CodeObjectLost})
	} else {
		w.s.ObjectReady(w.now, id)
	}
	w.m.resolve(id, fail)
	w.m.settle()
}

func (w *world) endJob(id wray.ID) {
	w.event("end job %v", id)
	w.s.EndJob(w.now, id)
	w.m.endJob(id)
}

// stale speaks of an attempt that is over, or of a task that never was.
func (w *world) stale() {
	id, attempt := wray.ID{Owner: 9, Seq: 9}, w.pick(2)
	if len(w.old) > 0 && w.oneIn(2) {
		id = w.old[w.pick(min(len(w.old), 256))]
	} else if t := w.task(anyTask); t != nil {
		id, attempt = t.ID, t.attempt-1
	}
	w.event("stale %v #%d", id, attempt)
	switch w.pick(4) {
	case 0:
		w.s.Finished(w.now, id, attempt, Outcome{})
		w.m.finished(id, attempt, Outcome{})
	case 1:
		w.s.Blocked(w.now, id, attempt, Wait{})
		w.m.blocked(id, attempt, Wait{})
	case 2:
		w.s.Unblocked(w.now, id, attempt)
		w.m.unblocked(id, attempt)
	case 3:
		if w.m.task(id) == nil {
			w.s.Cancel(w.now, id, true)
		}
	}
	if w.s.stale != w.m.stale {
		w.fatalf("%d stale events, the model has %d", w.s.stale, w.m.stale)
	}
}

// advance lets time pass. What Tick does about deadlocks the model only
// judges: it comes after what time does to attempts.
func (w *world) advance(d int64) {
	w.now += d
	w.m.now = w.now
	w.event("tick")
	w.s.Tick(w.now)
	w.m.tick()
	got := w.take()
	n := min(len(w.m.out), len(got))
	w.same(got[:n], w.m.out)
	w.m.out = w.m.out[:0]
	for got = got[n:]; len(got) > 0; got = got[1:] {
		switch d := got[0]; d.Kind {
		case Start: // of sweep
			t := w.m.task(d.Task)
			if t == nil || t.state != queued || !w.m.fits(t) {
				w.fatalf("swept %v, which may not start", d.Task)
			}
			w.m.start(t)
			got = w.follows(got)
		case Space:
			j := w.m.job(d.Job)
			if j == nil || !j.refused {
				w.fatalf("space for %v, which wants none", d.Job)
			}
			j.refused, j.wanted = false, 0
		case Done:
			if d.Code == wray.CodeUnschedulable {
				w.impatient(got)
				got = w.follows(got)
				continue
			}
			victims := w.m.deadlocked()
			if d.Code != wray.CodeResourceDeadlock || len(victims) == 0 || victims[len(victims)-1].ID != d.Task {
				w.fatalf("done %v: %v; the model would fail the last of %d", d.Task, d.Err, len(victims))
			}
			w.broken++
			w.m.finish(victims[len(victims)-1], d.Code)
			w.m.settle()
			got = w.follows(got)
		default:
			w.fatalf("tick: unexpected %+v", d)
		}
	}
}

// impatient fails in the model the tasks that got begins with, whose patience is
// over, and judges that: no node could hold them.
func (w *world) impatient(got []Decision) {
	for _, d := range got {
		t := w.m.task(d.Task)
		if d.Kind != Done || t == nil || t.state != queued || !w.m.awaits(&t.Spec) || w.m.hope(&t.Spec) {
			break
		}
		w.m.finish(t, wray.CodeUnschedulable)
	}
	if len(w.m.out) == 0 {
		w.fatalf("done %v: %v; the model has a node for it", got[0].Task, got[0].Err)
	}
	w.m.settle()
}

// follows compares what the model did after a decision that it was told of,
// the first of got, and returns got from the last decision compared.
func (w *world) follows(got []Decision) []Decision {
	n := min(len(w.m.out), len(got))
	w.same(got[:n], w.m.out)
	w.m.out = w.m.out[:0]
	return got[n-1:]
}

// take returns the decisions made and not seen before, and leaves them for
// Ready.
func (w *world) take() []Decision {
	got := w.s.out[w.taken:]
	w.taken = uint64(len(w.s.out))
	return slices.Clone(got)
}

// compare holds that the last event had the same effect on both.
func (w *world) compare() {
	w.same(w.take(), w.m.out)
	w.m.out = w.m.out[:0]
	if err := w.s.check(); err != nil {
		w.fatalf("%v", err)
	}
	if w.s.tasks.n != len(w.m.tasks) {
		w.fatalf("%d tasks, the model has %d", w.s.tasks.n, len(w.m.tasks))
	}
	for _, t := range w.m.tasks {
		if r := w.s.tasks.get(t.ID); r == nil || r.state != t.state || r.attempt != t.attempt {
			w.fatalf("task %v is %+v; the model has it %v #%d", t.ID, r, t.state, t.attempt)
		}
	}
}

func (w *world) same(got, want []Decision) {
	w.t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !alike(got[i], want[i]) {
			w.fatalf("decision %d of\n%+v\nthe model decides\n%+v", i, got, want)
		}
		d := got[i]
		if d.Kind == Done {
			if (d.Err == nil) != (d.Code == wray.CodeOK) || d.Err != nil && d.Err.Code != d.Code {
				w.fatalf("%+v has the error %v", d, d.Err)
			}
			if w.done[d.Task]++; w.done[d.Task] > 1 {
				w.fatalf("%v is done twice", d.Task)
			}
			w.old = append(w.old, d.Task)
		}
	}
}

func alike(a, b Decision) bool {
	return a.Kind == b.Kind && a.Code == b.Code && a.Attempt == b.Attempt && a.Task == b.Task && a.Job == b.Job && a.Peer == b.Peer
}

func (w *world) ready() {
	w.event("ready")
	seq := w.s.seq - uint64(len(w.s.out))
	all := w.s.Ready(nil)
	for i, d := range all {
		if d.Seq != seq+uint64(i)+1 {
			w.fatalf("seq %d after %d decisions", d.Seq, seq+uint64(i))
		}
	}
	if err := w.m.ready(all[w.taken:]); err != nil {
		w.fatalf("%v", err)
	}
	w.same(all[w.taken:], w.m.out)
	w.m.out = w.m.out[:0]
	w.taken = 0
	w.compare()
	if err := w.s.checkIdle(); err != nil {
		w.fatalf("%v", err)
	}
}

// drain lets everything come to its end, as callers that keep their
// obligations do, and holds that it does: no task is lost, and what cannot go
// on is told so.
func (w *world) drain() {
	if w.peered {
		w.promise(0)
		w.allPeers()
	}
	w.ready()
	w.mustBreak()
	for round := 0; len(w.m.tasks) > 0; round++ {
		if round > 10_000 {
			w.fatalf("%d tasks do not end, such as %+v, %v", len(w.m.tasks), w.m.tasks[0].Spec, w.m.tasks[0].state)
		}
		t := w.task(isRunning)
		if t == nil {
			t = w.task(isLent)
		}
		if t != nil {
			w.finishWith(t, Outcome{})
			w.compare()
			w.ready()
			continue
		}
		moved := false
		for _, t := range w.m.tasks {
			if t.state == blocked && (t.stop != wray.CodeOK || w.ended(t)) {
				w.unblock(t)
				moved = true
				break
			}
		}
		for _, t := range w.m.tasks {
			for _, id := range slices.Concat(t.missing, t.unresolved) {
				if !moved && w.m.producer(id) == nil {
					w.resolve(id, false)
					moved = true
				}
			}
		}
		if moved {
			w.compare()
			w.ready()
			continue
		}
		tasks := len(w.m.tasks)
		at, ok := w.s.NextDeadline()
		if !ok {
			if len(w.m.deadlocked()) > 0 || !w.breakCycle() {
				w.fatalf("%d tasks wait for nothing, such as %+v, %v", tasks, w.m.tasks[0].Spec, w.m.tasks[0].state)
			}
			w.compare()
			w.ready()
			continue
		}
		w.advance(max(0, at-w.now))
		w.compare()
		w.ready()
	}
	if w.s.free != w.s.config.Capacity || w.s.objects.n != 0 || len(w.s.timers) != 0 || len(w.s.claims) != 0 {
		w.fatalf("left: free %v, %d objects, %d timers, %d claims", w.s.free, w.s.objects.n, len(w.s.timers), len(w.s.claims))
	}
	for _, id := range w.jobs {
		w.endJob(id)
	}
	w.compare()
	w.ready()
	stats := w.s.Stats(w.now)
	if len(w.s.jobs) != 0 || stats.Submitted != uint64(len(w.done)) ||
		stats.Submitted != stats.Finished+stats.Failed+stats.Canceled {
		w.fatalf("%d jobs and %d done tasks at the end: %+v", len(w.s.jobs), len(w.done), stats)
	}
}

// mustBreak holds that deadlocks are broken by the passing of time alone.
func (w *world) mustBreak() {
	w.ready()
	for round := 0; len(w.m.deadlocked()) > 0; round++ {
		at, ok := w.s.NextDeadline()
		if !ok || round > 1000 {
			w.fatalf("a deadlock of %d tasks stays", len(w.m.tasks))
		}
		w.advance(max(0, at-w.now))
		w.compare()
		w.ready()
	}
}

// ended reports whether the wait of a blocked task is over.
func (w *world) ended(t *modelTask) bool {
	switch {
	case len(t.wait.Objects) == 0 && !t.wait.Space:
		return true
	case t.wait.Space && !t.job.refused:
		return true
	case t.wait.All && !t.wait.Space:
		return len(t.unresolved) == 0
	}
	return len(t.unresolved) < len(t.wait.Objects)
}

// breakCycle cancels a task that waits for its own result or for somebody who
// waits for it: such waits the scheduler leaves to the caller. It reports
// whether there is one.
func (w *world) breakCycle() bool {
	i := slices.IndexFunc(w.m.tasks, func(t *modelTask) bool { return t.state == blocked || t.state == waiting })
	if i < 0 {
		return false
	}
	t := w.m.tasks[i]
	w.event("cancel %v in a cycle", t.ID)
	w.s.Cancel(w.now, t.ID, true)
	w.m.cancel(t, true)
	w.m.settle()
	return true
}
