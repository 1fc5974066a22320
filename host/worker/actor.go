package worker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// actor is a sandbox that lives on between calls. To the scheduler it is one
// task, its creation, whose attempt lasts as long as the actor does and holds
// its resources; a failed attempt that may be retried is a restart. Calls do
// not pass the scheduler: they wait in the actor's mailbox and run one after
// the other on the goroutine of live, or, where the actor takes several at
// once, together (serving).
//
// The actor is named by an object, the result of its creation: a handle on it
// is the right to call the actor, references to it travel in values, and when
// the last one is gone so is the actor.
type actor struct {
	job    *job
	create *task
	object wray.ID // that names it

	tries      int // of a call, when the actor restarts under it
	durable    bool
	maxPending int
	hosted     bool                      // it belongs to another worker: see hosted.go
	begins     bool                      // likewise, and its last argument is the checkpoint that it begins from
	away       atomic.Pointer[awayActor] // its attempt, where that is at a peer; written under mu

	// wake holds one token when there may be something to do.
	wake chan struct{}
	// asleep is set while the actor has neither sandbox nor goroutine: whoever
	// pokes it then and clears this starts live.
	asleep atomic.Bool
	// sleepy is set when the actor is asked to sleep; see residents.
	sleepy atomic.Bool
	// resting is set while the actor waits for something to do.
	resting atomic.Bool
	// parked is set while a call that runs waits for an object.
	parked atomic.Bool
	// serves is set while calls are under way of which there may be more.
	serves atomic.Bool
	// wakeful is set when the actor cannot sleep: the module's sandboxes cannot be
	// saved.
	wakeful atomic.Bool
	// used is set by each call, and cleared by the hand of residents.
	used atomic.Bool
	// calls counts calls, and seen is what it was when the idle timer began.
	calls, seen atomic.Uint32
	watched     atomic.Bool // the idle timer runs
	over        atomic.Bool // it need not run again

	idle   time.Duration
	place  int   // in residents.ring; guarded by its lock
	weight int64 // guarded by the lock of residents; changed by who enters it, and on the goroutine of live
	// unreferenced is set when nobody can call any more.
	unreferenced atomic.Bool
	// bytes is what the actor takes, for listings: asleep, what is kept of it; else
	// its linear memory when it last rested.
	bytes atomic.Int64
	// rings is set when the first of the guest's timers is due.
	rings atomic.Bool
	// due is set when a checkpoint is, for its age.
	due atomic.Bool
	// reclaim asks the actor to collect its garbage between two calls.
	reclaim atomic.Bool

	mu      sync.Mutex
	box     scheduler.Mailbox[*task] // guarded by mu
	running *task                    // guarded by mu; the call that runs, where it is one at a time
	serving serving                  // guarded by mu; the calls that are under way, where there may be several
	g       *guest                   // guarded by mu; the sandbox, nil between attempts
	alive   bool                     // guarded by mu; an attempt is under way
	ending  *wray.Error              // guarded by mu; why the attempt is to end
	timer   *time.Timer              // of looksIdle; set by live under mu
	alarm   *time.Timer              // that sets rings; likewise
	final   bool                     // guarded by mu; and not to be followed by another
	killed  bool                     // guarded by mu; and what a durable one was is to be forgotten
	logKept bool                     // guarded by mu; it has ended, not killed by then, and its log was kept
	dead    *wray.Error              // guarded by mu; why there is no actor any more

	named bool // has a name in job.actors; set before it is submitted, and not changed

	// The rest belongs to the goroutine of live, of which there is one at most.
	guest    *guest    // of this attempt, nil before it
	slept    *kept     // what the sandbox was, while the actor sleeps
	since    time.Time // when it fell asleep
	built    bool      // the constructor has ended well once
	answered int       // calls that ended well in this attempt
	swept    bool      // garbage was collected since the last call
	dur      durability
	rec      *durable.Record // of a durable actor, while it is open
	under    *task           // the call that rec has under way, where it is of this worker
	custom   []wray.Custom   // that a durable actor holds
	// offRecord is set when the last use of a durable actor's log failed.
	offRecord bool

	doing *durableCall           // guarded by mu; the call of a durable actor that runs
	acks  map[durable.UID]uint64 // guarded by mu; calls of others that need no reply any more, see durable.Record.Acknowledge

	parking *parking // guarded by circles.mu; nil while it runs, or may yet go on

	// Guarded by Worker.durableMu; see durable_waits.go.
	waitsFor   map[*actor]int   // whose answers the running call waits for
	askedBy    map[*effect]bool // effects of others that wait for this one
	asked      bool             // the running call is to look at askedBy
	askedAgain int              // of askedBy, those that may have been had before
}

// newActor returns the actor that t creates.
func newActor(t *task) *actor {
	return &actor{job: t.job, create: t, object: resultID(t.id, 0), wake: make(chan struct{}, 1), maxPending: 1 << 30, idle: DefaultIdle}
}

// Unreferenced implements objectstore.Attachment.
func (a *actor) Unreferenced() {
	a.unreferenced.Store(true)
	a.poke()
	a.recheck()
}

// DefaultIdle is how long an actor rests before it sleeps, unless the option
// Idle says otherwise.
const DefaultIdle = time.Minute

// poke has the actor look at what there is to do.
func (a *actor) poke() {
	if aw := a.away.Load(); aw != nil {
		a.pump(aw)
		return
	}
	if a.serves.Load() && a.feed() {
		return
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
	if a.asleep.Load() && a.asleep.CompareAndSwap(true, false) {
		a.job.executors.Add(1) // the job waits for the actor's end before it waits for these
		go a.live()
	}
}

// post takes a call. On an error it is still the caller's.
func (a *actor) post(t *task) error {
	w := a.job.w
	type argument struct {
		*objectstore.Object
		index int
	}
	var missing []argument
	letGo := func() {
		for _, o := range missing {
			o.Release()
		}
	}
	for i := range t.args {
		o := t.args[i].object
		if o == nil {
			continue
		}
		switch o.State() {
		case objectstore.Pending:
			o.Retain() // the call may end before all are watched
			missing = append(missing, argument{o, i})
		case objectstore.Failed:
			if !t.again {
				letGo()
				return dependencyFailed(i, o.Err())
			}
		}
	}
	// What a call before a crash may have done is not refused when it is repeated:
	// whom it asks looks first.
	if t.again || t.far != nil && t.far.to != nil {
		a.job.queued.addLent(t.bytes())
	} else if err := a.job.queued.add(t.bytes()); err != nil {
		letGo()
		return err
	}
	a.mu.Lock()
	err := a.dead
	if n := a.box.Waiting(); err == nil && n >= a.maxPending && !t.again {
		err = &wray.Error{Code: wray.CodeLimitExceeded,
			Message: fmt.Sprintf("actor %s has %d calls that wait", a.create.name, n),
			Limit:   &wray.Limit{Name: "pending calls", Value: int64(a.maxPending), Unit: "calls"},
			Hint:    "wait for results before calling again, or raise sdk.MaxPendingCalls"}
	}
	if err != nil {
		a.mu.Unlock()
		a.job.takeQueued(t.bytes())
		letGo()
		return err
	}
	w.calls.add(t)
	a.box.Post(t.letter, t.from, len(missing))
	a.mu.Unlock()
	for _, o := range missing {
		o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { a.arrived(t, o.index, o.Object) }))
		o.Release()
	}
	return nil
}

// arrived takes note that argument i of t, the object o, is there.
func (a *actor) arrived(t *task, i int, o *objectstore.Object) {
	if err := o.Err(); err != nil && !t.again {
		a.withdraw(t, dependencyFailed(i, err))
		return
	}
	a.mu.Lock()
	runs := a.box.Arrived(t.letter)
	a.mu.Unlock()
	if runs {
		a.poke()
	}
}

// withdraw ends a call that waits with err. False: it does not wait.
func (a *actor) withdraw(t *task, err *wray.Error) bool {
	waits := a.takeOut(t)
	if waits {
		a.settle(t, err)
		a.poke() // the next of its caller may run
	}
	return waits
}

// settle gives a call its end.
func (a *actor) settle(t *task, err *wray.Error) {
	if err == nil {
		err = t.give()
	}
	t.dropHeld()
	if t.letter != nil {
		a.job.w.calls.remove(t)
	}
	if err != nil {
		err = a.job.named(err, t.name, t.attempt)
	}
	if t.far != nil && t.far.to != nil {
		a.job.w.peers.callDone(t, err)
	}
	if err != nil {
		t.fail(err)
	} else if t.stream != nil {
		_ = t.stream.End()
	}
	t.release()
}

// cancel ends a call that waits, and asks one that runs to end.
func (a *actor) cancel(t *task) {
	if a.withdraw(t, wray.Errorf(wray.CodeCanceled, "the call was canceled")) {
		return
	}
	if a.away.Load() != nil {
		a.noteCanceled(t)
		if a.job.w.cancelAway(t) {
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if (a.running == t || a.serving.calls[t.id.Seq] == t) && a.g != nil && !t.canceled {
		t.canceled = true
		if d := a.doing; d != nil {
			d.cancel()
		} else if !a.durable { // else it is about to be answered
			a.g.cancel(t)
		}
	}
}

// kill ends the actor, or this attempt of it, with the call that it runs.
// One that ends has lost its name when its killer goes on.
func (a *actor) kill(restart bool) {
	if !restart {
		a.mu.Lock()
		a.killed = true
		a.mu.Unlock()
		if !a.durable { // else when its log is closed
			a.unname()
		}
	}
	a.end(wray.Errorf(wray.CodeActorDied, "the actor was killed"), !restart)
}

// stop ends the actor because the scheduler says so.
func (a *actor) stop(err *wray.Error) { a.end(err, true) }

func (a *actor) end(err *wray.Error, final bool) {
	a.mu.Lock()
	if a.ending == nil {
		a.ending = err
	}
	a.final = a.final || final
	if a.g != nil {
		a.g.sb.Kill(err)
	}
	started := a.alive
	away := a.away.Load() != nil
	a.mu.Unlock()
	if away {
		a.stopAway()
		return
	}
	a.poke()
	if final && !started {
		// It waits for its arguments, its resources or its next attempt.
		a.job.w.cancelTask(a.create.id)
	}
}

// live runs the actor: an attempt, from the constructor over calls to its end,
// or what is left of one that slept. It returns when the actor sleeps.
func (a *actor) live() {
	defer a.job.executors.Done()
	var failure *wray.Error
	if a.slept == nil {
		failure = a.begin()
	}
	if failure == nil && a.slept == nil {
		failure = a.catchUp(a.under)
	}
	if failure != nil && a.durable {
		a.cannotBegin(failure)
	}
	for failure == nil {
		c, do := a.next()
		if do == toEnd {
			break
		}
		switch do {
		case toSleep:
			if a.sleep() {
				return
			}
		case toReclaim:
			failure = a.sweep()
		case toTick:
			failure = a.tick()
		case toCheckpoint:
			failure = a.tryCheckpoint()
		case toCall:
			a.swept = false
			if failure = a.catchUp(c); failure != nil {
				a.mu.Lock()
				a.running = nil
				a.box.PutBack(c.letter, c.from)
				a.mu.Unlock()
				continue
			}
			if loss := a.lossOf(c); loss != nil {
				a.complete(c, loss)
			} else if err := a.awake(); errors.Is(err, errStateLost) {
				failure = a.lostAsleep(c, err)
			} else if err != nil {
				a.complete(c, a.create.asError(err))
			} else if c.flags&abi.SpecCheckpoint != 0 {
				failure = a.answerCheckpoint(c)
			} else {
				failure = a.answer(a.guest, c)
			}
		}
	}
	a.close(failure)
}

// begin starts an attempt, with the constructor or from the last checkpoint, and
// returns its failure.
func (a *actor) begin() *wray.Error {
	t, w := a.create, a.job.w
	a.answered = 0
	// A few at a time: thousands that begin at once would all stand at the locks
	// that everybody else needs, too.
	w.begins <- struct{}{}
	if err := a.stopEarly(); err != nil {
		<-w.begins
		return err
	}
	var sb *sandbox.Sandbox
	var err error
	if !w.residents.tryAdd(a) {
		<-w.begins
		if err := w.residents.add(a); err != nil { // which may wait
			return err
		}
		// Who had to wait takes the sandbox of who has left. If it queued for its
		// turn first, sandboxes of those who leave meanwhile would be closed, as
		// there are too many, and new ones made for those who came in.
		if sb = t.fn.module.takeSpare(t.memory); sb == nil {
			w.begins <- struct{}{}
		}
	}
	if sb == nil {
		sb, err = t.fn.module.takeClean(t.memory)
		<-w.begins
	}
	if err != nil {
		w.residents.remove(a)
		return t.asError(err)
	}
	if sb.Host == nil {
		t.fn.module.attach(sb)
	}
	g := sb.Host.(*guest)
	g.memory = t.memory
	a.guest = g
	w.mu.Lock()
	t.runner = g
	stopped := t.stopped
	t.stopped = 0
	w.mu.Unlock()
	a.mu.Lock()
	a.g, a.alive = g, true
	if stopped != 0 && a.ending == nil {
		a.ending, a.final = wray.Errorf(stopped, "the actor was stopped before it began"), true
	}
	if a.ending != nil {
		g.sb.Kill(a.ending)
	}
	a.mu.Unlock()
	if c := a.dur.last; c != nil {
		state, err := w.stash.get(c.kept)
		if err != nil { // nor can it begin anew: calls that it answered would be lost in silence
			a.mu.Lock()
			a.final = true
			a.mu.Unlock()
			return a.lostAsleep(nil, err)
		}
		if err := g.restore(c, state); err != nil {
			return t.asError(err)
		}
		g.holder = t
		return nil
	}
	if o := a.awayCheckpoint(); o != nil {
		if err := a.moveIn(o); err != nil {
			return t.asError(err)
		}
		g.holder = t
		if a.hosted {
			a.tellLives()
		}
		return nil
	}
	if a.durable {
		if there, err := a.comeBack(); err != nil {
			return err
		} else if there {
			g.holder = t
			if !a.built {
				if err := t.results[0].TrySeal(objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte{0xa0}}); err != nil {
					return t.asError(err)
				}
				a.publish()
			}
			return nil
		}
	}
	failure := g.execute(t)
	g.endTask()
	if a.durable {
		if failure == nil {
			failure = a.commit(nil)
		}
		if failure == nil {
			failure = t.give()
		}
		t.dropHeld()
	}
	switch {
	case failure == nil && a.hosted:
		a.tellLives()
	case failure == nil && !a.built:
		a.publish()
	}
	return failure
}

// stopEarly ends an actor that was stopped before it has begun, without a sandbox.
func (a *actor) stopEarly() *wray.Error {
	w, t := a.job.w, a.create
	w.mu.Lock()
	stopped := t.stopped
	w.mu.Unlock()
	if stopped == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending == nil {
		a.ending, a.final = wray.Errorf(stopped, "the actor was stopped before it began"), true
	}
	return a.ending
}

// close ends the attempt.
func (a *actor) close(failure *wray.Error) {
	a.mu.Lock()
	a.g, a.alive = nil, false
	if a.alarm != nil {
		a.alarm.Stop()
	}
	restart := false // asked for, so it does not count as what the constructor did
	if a.ending != nil {
		failure = a.ending
		if !a.final {
			a.ending, restart = nil, true
		}
	}
	a.mu.Unlock()
	a.over.Store(true)
	a.rings.Store(false) // of a guest that is gone
	if g := a.guest; g != nil {
		if a.slept == nil {
			a.job.w.residents.remove(a)
		}
		a.forgetState()
		g.close()
		a.guest = nil
	}
	a.losing(nil)
	a.finish(failure, restart)
}

// publish lets go of the creation's own reference: the actor is there, and
// lives as long as others refer to it.
func (a *actor) publish() {
	a.built = true
	t, w := a.create, a.job.w
	o := t.results[0]
	w.step(nil, func(s *scheduler.Scheduler) { s.ObjectReady(w.now(), o.ID()) })
	if t.flags&abi.SpecDetached == 0 {
		w.mu.Lock() // the census reads it
		t.results, t.one[0] = nil, nil
		w.mu.Unlock()
		o.Release()
	}
}

// What next says is to be done.
type todo uint8

const (
	toCall todo = iota
	toSleep
	toReclaim
	toTick
	toCheckpoint
	toEnd
)

// next waits for the next thing to do.
func (a *actor) next() (*task, todo) {
	for {
		a.mu.Lock()
		if a.ending != nil {
			a.mu.Unlock()
			return nil, toEnd
		}
		if l := a.box.Next(); l != nil {
			a.running = l.Value
			l.Value.canceled = false
			a.mu.Unlock()
			if a.sleepy.Load() {
				a.job.w.residents.stays(a)
			}
			return l.Value, toCall
		}
		over := a.unreferenced.Load() && a.box.Len() == 0
		a.mu.Unlock()
		asleep := a.slept != nil
		switch {
		case over:
			return nil, toEnd
		case a.due.Load() && !asleep:
			return nil, toCheckpoint
		// What a durable actor did between calls would be on no record.
		case !a.durable && (a.rings.Load() || !asleep && a.guest.sb.Stirred()):
			return nil, toTick
		// What it has forgotten may hold others that have forgotten it.
		case !asleep && !a.durable && a.sleepy.Load() && !a.swept && a.guest.handles.Len() > 0:
			return nil, toReclaim
		case asleep, a.sleepy.Load():
			return nil, toSleep
		case a.reclaim.Swap(false):
			return nil, toReclaim
		}
		a.watchIdle()
		a.bytes.Store(int64(len(a.guest.sb.Memory())))
		a.job.w.residents.weigh(a, a.guest.grown())
		a.resting.Store(true)
		a.job.w.residents.changed()
		<-a.wake
		a.resting.Store(false)
	}
}

// say prints a line on the actor's standard error.
func (a *actor) say(format string, args ...any) {
	if a.job.out != nil {
		a.job.out.put(a.create.name, Stderr, fmt.Appendf(nil, "wray: "+format+"\n", args...))
	}
}

// mayRestart reports whether a failed attempt would be followed by another.
func (t *task) mayRestart() bool { return t.restarts == scheduler.Forever || t.attempt <= t.restarts }

// finish tells the scheduler how the attempt ended. Whatever took the sandbox
// is retried as often as the actor may restart; what the constructor returned
// is not.
func (a *actor) finish(err *wray.Error, restart bool) {
	t, w := a.create, a.job.w
	w.mu.Lock()
	t.runner, t.stopped = nil, 0
	retry := err != nil && err.Code != wray.CodeCanceled
	if retry && !a.built && !restart {
		retry = t.retryable(err)
	}
	a.mu.Lock()
	retry = retry && !a.final
	a.mu.Unlock()
	if err != nil {
		err = a.job.named(err, t.name, t.attempt)
	}
	w.sched.Finished(w.now(), t.id, t.attempt, scheduler.Outcome{Err: err, Retryable: retry})
	w.actLocked(nil, nil)
}

// unname takes the actor's name from it.
func (a *actor) unname() {
	a.job.mu.Lock()
	defer a.job.mu.Unlock()
	if a.named && a.job.actors[a.create.name] == a {
		delete(a.job.actors, a.create.name)
	}
}

// ended is called when the actor is gone for good; err is nil where nobody
// referred to it any more.
func (a *actor) ended(err *wray.Error) {
	if aw := a.away.Load(); aw != nil { // it does not answer, and nobody waits for it
		a.leaveAway(aw, err)
	}
	a.mu.Lock()
	if a.final && a.ending != nil && err != nil && err.Code == wray.CodeCanceled {
		err = a.ending // which the scheduler does not know
	}
	a.mu.Unlock()
	if !a.durable {
		a.unname()
	}
	dead := &wray.Error{Code: wray.CodeActorDied, Message: "the actor " + a.create.name + " is gone", Cause: err}
	if err != nil {
		dead.Hint, dead.Node = err.Hint, err.Node
		if err.Code == wray.CodeActorDied {
			dead.Message, dead.Cause = err.Message, nil
		}
	}
	a.forgetCheckpoint()
	if a.durable {
		a.job.executors.Add(1) // the job waits for the actor's end before it waits for these
		go func() {
			defer a.job.executors.Done()
			a.endLog()
			a.unname() // the next of the name opens the log
		}()
	}
	a.mu.Lock()
	if a.dur.timer != nil {
		a.dur.timer.Stop()
	}
	a.dead = dead
	var waiting []*task
	for l := a.box.Take(); l != nil; l = a.box.Take() {
		waiting = append(waiting, l.Value)
	}
	a.mu.Unlock()
	for _, t := range waiting {
		a.job.takeQueued(t.bytes())
		if a.hosted {
			t.far.end = replyUnbegun
		}
		a.settle(t, dead)
	}
}
