package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// checkpoint is what an actor was between two calls: all that a new sandbox
// needs to be it. It holds references of its own on the objects that the actor
// had handles of, and windows.
type checkpoint struct {
	state   *sandbox.State // until it is kept
	kept    *kept
	handles *objectstore.Handles
	windows map[uint32]*window // pinned, and laid nowhere
	watches []awaited
	wants   bool // the guest waited for room
}

// awaited is an object that the guest is to be told of.
type awaited struct {
	handle uint32
	object *objectstore.Object // the handle's reference keeps it
}

// errBuffers is why there is no checkpoint now.
var errBuffers = &wray.Error{Code: wray.CodeBadArgument, Message: "a checkpoint is not possible while the actor fills an object in place",
	Hint: "seal or discard what sdk.NewBuilder and its kin opened before the call ends"}

// record takes a checkpoint of the guest, whose sandbox's state save returns. No
// call is in flight.
func (g *guest) record(save func([]sandbox.Base) (*sandbox.State, error)) (*checkpoint, error) {
	c := &checkpoint{windows: make(map[uint32]*window, len(g.windows)), wants: g.wantsRoom || g.wantsSpace}
	open := false
	g.handles.Walk(func(_ uint32, r objectstore.Ref, _ uint32) {
		b, ok := r.(*buffer)
		open = open || ok && b.b != nil
	})
	if open {
		return nil, errBuffers
	}
	bases := make([]sandbox.Base, 0, len(g.windows))
	for at, w := range g.windows {
		if w.buf != nil {
			return nil, errBuffers
		}
		bases = append(bases, w.base(at))
	}
	// Of what arrives from here on there is a watch, an event, or both.
	for _, w := range g.watches {
		if o, ok := g.handles.Object(w.handle); ok && !w.done.Load() && o.ID() == w.object {
			c.watches = append(c.watches, awaited{w.handle, o})
		}
	}
	g.fetches.Lock()
	for o, f := range g.fetches.of {
		for t := range f.told {
			if have, ok := g.handles.Object(t.handle); ok && have == o && t.kind == abi.EventReady {
				c.watches = append(c.watches, awaited{t.handle, o})
			} else {
				c.wants = true
			}
		}
	}
	g.fetches.Unlock()
	var err error
	if c.state, err = save(bases); err != nil {
		return nil, err
	}
	c.handles = g.handles.Clone()
	for at, w := range g.windows {
		c.windows[at] = &window{len: w.len, off: w.off, pin: w.pin.Again(), of: w.of}
	}
	return c, nil
}

// letGo gives back what the checkpoint holds, but for the state's file.
func (c *checkpoint) letGo() {
	for _, w := range c.windows {
		w.pin.Unpin()
	}
	c.handles.Reset()
}

// restore makes the guest, which is new and has a clean sandbox, what c says,
// whose state is given. On an error the guest is to be closed.
func (g *guest) restore(c *checkpoint, state *sandbox.State) error {
	if err := g.sb.Dig(state); err != nil {
		return err
	}
	g.handles.Become(c.handles)
	for at, w := range c.windows {
		if e := g.takeWindow(); e != abi.Success {
			return g.refused
		}
		mine := &window{len: w.len, off: w.off, pin: w.pin.Again(), of: w.of}
		g.windows[at] = mine
		if err := mine.lay(g.sb, at); err != nil {
			return fmt.Errorf("map an object again: %w", err)
		}
	}
	if err := g.sb.Load(state); err != nil {
		return err
	}
	g.configure(g.module.args(), nil) // its clock is another
	for _, w := range c.watches {
		g.watchObject(w.object, w.handle)
	}
	// Whoever waited for a stream or for room asks again, and waits again.
	g.handles.Walk(func(h uint32, r objectstore.Ref, _ uint32) {
		if _, ok := r.(*objectstore.Stream); ok {
			g.notify(abi.EventReady, h)
		}
	})
	if c.wants {
		g.notify(abi.EventSpace, 0)
		g.notify(abi.EventRoom, 0)
	}
	return nil
}

// durability is when an actor takes checkpoints, and what it would lose. It
// belongs to the goroutine of live, except where a field says otherwise.
type durability struct {
	calls uint32        // between two checkpoints; 0: does not matter
	every time.Duration // likewise

	last    *checkpoint
	away    *objectstore.Object      // in place of last, where that was taken elsewhere; guarded by actor.mu where it may change
	under   *underHome               // of a hosted actor: the last that its home was told of, or nil
	sent    uint64                   // of a hosted actor: checkpoints that its home was told of
	room    *objectstore.Reservation // in the store, for the file of last; nil where it has none
	unsaved uint32                   // calls answered since
	since   map[uint64]int           // those, by caller
	lost    map[uint64]int           // by caller, who has not been told
	failing bool                     // the last attempt failed, and somebody was told

	timer *time.Timer // of every, running where unsaved > 0; guarded by actor.mu
	// The running call is what sets asked, the timer due.
	asked bool
}

// maxSince bounds durability.since: a checkpoint empties it.
const maxSince = 1 << 16

// saves reports whether the actor takes checkpoints.
func (a *actor) saves() bool {
	return a.dur.calls > 0 || a.dur.every > 0 || a.dur.last != nil || a.dur.away != nil || a.dur.sent > 0 || a.begins
}

// note counts a call that is about to be answered, with failure where that is
// not nil, and takes a checkpoint where
// one is due. The error is why the attempt must end.
func (a *actor) note(c *task, failure *wray.Error) *wray.Error {
	if a.durable {
		reply, err := a.replyOf(c, failure)
		if err != nil {
			return c.asError(err)
		}
		return a.commit(reply)
	}
	if a.countCall(c) {
		before := a.dur.sent
		ends := a.tryCheckpoint()
		a.covers(c, before)
		return ends
	}
	return nil
}

// countCall counts a call that is about to be answered, and reports whether a
// checkpoint is due.
func (a *actor) countCall(c *task) (due bool) {
	d := &a.dur
	asked := d.asked
	d.asked = false
	if !asked && !a.saves() {
		return false
	}
	if d.since == nil {
		d.since = map[uint64]int{}
	}
	d.unsaved++
	d.since[c.from]++
	if asked || d.calls > 0 && d.unsaved >= d.calls || a.due.Load() || len(d.since) >= maxSince {
		return true
	}
	if d.every > 0 && d.unsaved == 1 {
		a.mu.Lock()
		defer a.mu.Unlock()
		if d.timer == nil {
			d.timer = time.AfterFunc(d.every, func() { a.due.Store(true); a.poke() })
		} else {
			d.timer.Reset(d.every)
		}
	}
	return false
}

// tryCheckpoint takes a checkpoint. One that is not possible now is told on the
// actor's output, once in a row, and tried again after the next call.
func (a *actor) tryCheckpoint() *wray.Error {
	err := a.checkpoint(a.guest.sb)
	if errors.Is(err, sandbox.ErrTorn) {
		return a.create.asError(err)
	}
	if err != nil && !a.dur.failing {
		a.say("no checkpoint: %v", err)
	}
	a.dur.failing = err != nil
	return nil
}

// checkpoint takes a checkpoint of the actor's sandbox sb.
func (a *actor) checkpoint(sb *sandbox.Sandbox) error {
	d := &a.dur
	a.due.Store(false)
	if a.hosted {
		if err := a.sendCheckpoint(sb); err != nil {
			return err
		}
		a.saidAll()
		return nil
	}
	if n := sb.KeepSize(); n > 0 && (d.room == nil || d.room.Size().Payload < n) {
		room, err := a.job.w.store.TryReserve(objectstore.Size{Payload: n})
		if err != nil {
			return fmt.Errorf("the store has no room for %d bytes: %w", n, err)
		}
		d.releaseRoom()
		d.room = room
	}
	c, err := a.guest.record(sb.Checkpoint)
	if err != nil {
		if errors.Is(err, sandbox.ErrTorn) {
			a.forgetCheckpoint()
		}
		return err
	}
	a.setCheckpoint(c)
	a.saidAll()
	return nil
}

// saidAll takes note that a checkpoint has all that the actor did.
func (a *actor) saidAll() {
	d := &a.dur
	d.unsaved = 0
	clear(d.since)
	if d.timer != nil {
		a.mu.Lock()
		d.timer.Stop()
		a.mu.Unlock()
	}
}

func (d *durability) releaseRoom() {
	if d.room != nil {
		d.room.Cancel()
		d.room = nil
	}
}

// setCheckpoint makes c the last checkpoint. It and the one before may lie in
// the same file.
func (a *actor) setCheckpoint(c *checkpoint) {
	stash := a.job.w.stash
	c.kept, c.state = stash.keep(c.state), nil
	if last := a.dur.last; last != nil {
		last.letGo()
		stash.drop(last.kept)
	}
	a.dur.last = c
	a.forgetAway()
}

// forgetCheckpoint lets go of the last checkpoint.
func (a *actor) forgetCheckpoint() {
	if c := a.dur.last; c != nil {
		a.dur.last = nil
		c.letGo()
		a.job.w.stash.free(c.kept)
	}
	a.dur.releaseRoom()
	a.forgetAway()
}

// losing takes note that the calls since the last checkpoint are lost, and of
// who is to be told. The caller of told, where that is not nil, knows.
func (a *actor) losing(told *task) {
	d := &a.dur
	if len(d.since) > 0 && d.lost == nil {
		d.lost = map[uint64]int{}
	}
	for from, n := range d.since {
		if told == nil || from != told.from {
			d.lost[from] += n
		}
	}
	clear(d.since)
	d.unsaved = 0
}

// lossOf returns what the caller of c is to be told before it goes on, nil for
// nothing.
func (a *actor) lossOf(c *task) *wray.Error {
	n := a.dur.lost[c.from]
	if n == 0 {
		return nil
	}
	delete(a.dur.lost, c.from)
	from := "from its last checkpoint"
	if a.dur.last == nil && a.dur.away == nil {
		from = "from its constructor"
	}
	return &wray.Error{Code: wray.CodeActorRestarted, Lost: n,
		Message: fmt.Sprintf("the actor %s was started again %s, without the effects of %d calls that it had answered; this call was not run",
			a.create.name, from, n),
		Hint: "make the lost calls again, and have fewer of them with sdk.CheckpointEvery(1)"}
}

// answerCheckpoint is a call that asks for a checkpoint and runs nothing.
func (a *actor) answerCheckpoint(c *task) *wray.Error {
	if a.durable {
		return a.tellCheckpoint(c, nil) // it is on record already
	}
	before := a.dur.sent
	err := a.checkpoint(a.guest.sb)
	a.covers(c, before)
	return a.tellCheckpoint(c, err)
}

// tellCheckpoint answers a call that asked for a checkpoint, which failed with e
// where that is not nil. It returns why the actor is to end.
func (a *actor) tellCheckpoint(c *task, e error) *wray.Error {
	var err, ends *wray.Error
	if e != nil {
		err = c.asError(e)
		if errors.Is(e, sandbox.ErrTorn) {
			ends = err
		}
		if errors.Is(e, sandbox.ErrNoState) {
			err = wray.Errorf(wray.CodeBadArgument, "%v", e)
		}
	} else if e := c.results[0].TrySeal(objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte{0xa0}}); e != nil {
		err = c.asError(e)
	}
	a.complete(c, err)
	return ends
}
