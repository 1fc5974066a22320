package worker

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// durableCall is a call of a durable actor that runs: what it does and sees is
// on record (host/durable) before an effect of it leaves.
//
// The guest has other objects for the results of what it calls and submits than
// those who make them: theirs are given to it one by one, and only when it waits,
// so that it can be shown the same again. In between its clock stands still. It
// belongs to the goroutine of live, except where a field says otherwise.
type durableCall struct {
	a   *actor
	g   *guest
	t   *task
	rec *durable.Record
	n   uint64 // of the actor's calls

	chance     *rand.ChaCha8
	wall, mono int64 // what its clocks show
	readings   int

	sent []*effect
	out  []*effect   // those that have not left
	err  *wray.Error // why it cannot go on

	mu       sync.Mutex
	arrived  []*effect // answered, and not given to the guest; guarded by mu
	canceled bool      // and not told the guest; guarded by mu
	over     bool      // effects are given as they come; guarded by mu
	gone     bool      // nobody wants them any more; guarded by mu
}

// effect is a call or a task that a durable call makes.
type effect struct {
	d     *durableCall
	id    durable.ID
	t     *task
	spec  scheduler.Spec
	to    *actor                // a durable one, or nil
	outer []*objectstore.Object // what the guest has; with a reference each, until it is settled
	inner []*objectstore.Object // likewise what whoever makes them has

	missing int  // of inner; guarded by durableCall.mu
	settled bool // guarded by durableCall.mu
	again   bool // it may have left before
	waits   bool // it is in to.askedBy; guarded by Worker.durableMu
}

// beginCall has the guest run c by its record.
func (a *actor) beginCall(g *guest, c *task) {
	d := &durableCall{a: a, g: g, t: c, rec: a.rec}
	q := *c.request()
	var start durable.Start
	randomBytes(start.Seed[:])
	start.Wall, start.Mono = wallClock(), g.sb.Monotonic()
	start, d.n = a.rec.Begin(q, start)
	g.sb.Advance(start.Mono)
	d.chance, d.wall, d.mono = rand.NewChaCha8(start.Seed), start.Wall, start.Mono
	a.mu.Lock()
	a.doing = d
	a.mu.Unlock()
	a.job.w.durableMu.Lock()
	a.asked = a.askedAgain > 0
	a.job.w.durableMu.Unlock()
	g.durable = d
	g.sb.SetScript(d)
}

// endCall ends what beginCall began. Effects that are not answered are given to
// the guest when they are, or, where its sandbox is gone, to nobody.
func (d *durableCall) endCall(gone bool) {
	d.g.durable = nil
	if !gone {
		d.g.sb.SetScript(nil)
		d.g.sb.Advance(d.mono)
	}
	d.a.mu.Lock()
	d.a.doing = nil
	d.a.mu.Unlock()
	d.mu.Lock()
	d.over, d.gone = true, gone
	d.mu.Unlock()
	for _, e := range d.sent {
		e.unwait()
		if !gone {
			continue
		}
		e.settle(false)
		if e.to != nil { // the call may be run again, and is not to find it there twice
			e.to.withdraw(e.t, wray.Errorf(wray.CodeActorDied, "the actor ended that called"))
		}
	}
	for _, e := range d.out { // never left
		e.t.release()
	}
	d.out = nil
}

// fail ends the call, which cannot go on by its record.
func (d *durableCall) fail(err error) {
	if d.err != nil {
		return
	}
	if !errors.As(err, &d.err) {
		d.err = &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the durable actor %s cannot put on record what it is about to do: %v", d.a.create.name, err),
			Hint: "see to the disk of " + StateFlag}
	}
	d.g.sb.Kill(d.err)
}

// clockReadings is how many looks at its clock put it forward by a step: a call
// that waits for the time in a loop ends.
const clockReadings = 1000

// Clock implements sandbox.Script.
func (d *durableCall) Clock() (wall, mono int64) {
	if d.readings++; d.readings%clockReadings == 0 {
		d.wall += int64(time.Millisecond)
		d.mono += int64(time.Millisecond)
	}
	return d.wall, d.mono
}

// Random implements sandbox.Script.
func (d *durableCall) Random(p []byte) { _, _ = d.chance.Read(p) }

// now puts the clocks forward to what they show outside, and notes that with o.
func (d *durableCall) met(o durable.Outcome) {
	d.mono, d.wall = max(d.mono, d.g.sb.Monotonic()), max(d.wall, wallClock())
	o.Mono, o.Wall = d.mono, d.wall
	d.rec.Met(o)
}

// TimeUp implements sandbox.Script.
func (d *durableCall) TimeUp(deadline int64) {
	d.mono = max(d.mono, deadline)
	d.met(durable.Outcome{Kind: durable.TimeUp})
}

// Step implements sandbox.Script: it has the effects leave, and gives the guest
// what it was given here before, or one thing that is new.
func (d *durableCall) Step() (timeUp bool) {
	if d.flush(); d.err != nil {
		return false
	}
	d.tend()
	o, err := d.rec.Next()
	switch {
	case err != nil:
		d.fail(err)
		return false
	case o != nil:
		d.mono, d.wall = max(d.mono, o.Mono), max(d.wall, o.Wall)
		d.g.sb.Advance(o.Mono)
		switch o.Kind {
		case durable.TimeUp:
			return true
		case durable.Canceled:
			d.g.cancel(d.t)
		case durable.Replied:
			if int(o.Index) >= len(d.sent) {
				d.fail(errBadRecord)
				return false
			}
			d.sent[o.Index].replay(o.Reply)
		}
		d.g.sb.Signal() // there may be more
		return false
	}
	d.mu.Lock()
	canceled := d.canceled
	d.canceled = false
	var e *effect
	if !canceled && len(d.arrived) > 0 {
		e = d.arrived[0]
		d.arrived = d.arrived[1:]
	}
	d.mu.Unlock()
	switch {
	case canceled:
		d.met(durable.Outcome{Kind: durable.Canceled})
		d.g.cancel(d.t)
	case e != nil:
		inner, a := e.inner, d.a
		for _, o := range inner { // for as long as the record may want it
			o.Retain()
			d.t.keeps = append(d.t.keeps, o)
		}
		d.met(durable.Outcome{Kind: durable.Replied, Index: e.id.Index, Value: func() ([]byte, error) { return a.encodeReply(inner, nil) }})
		e.settle(true)
	default:
		return false
	}
	d.g.sb.Signal()
	return false
}

// cancel tells the guest that whoever called does not want the answer any more,
// when it waits. Any goroutine may call it.
func (d *durableCall) cancel() {
	d.mu.Lock()
	d.canceled = true
	d.mu.Unlock()
	d.g.signal()
}

// submit takes an effect. On an errno t has been released.
func (d *durableCall) submit(t *task, spec *scheduler.Spec, out []byte) abi.Errno {
	g := d.g
	e := &effect{d: d, t: t, spec: *spec}
	if t.actor != nil && t.actor.durable {
		e.to = t.actor
	}
	var err error
	if t.digest, err = g.digestOf(t); err == nil {
		e.id, e.again, err = d.rec.Effect(t.digest)
	}
	if err != nil {
		t.release()
		d.fail(err)
		return abi.ECANCELED
	}
	t.effect, t.epoch, t.again = &e.id, d.rec.Log().Epoch(), e.again
	t.results = t.one[:0]
	for i := range len(out) / 4 {
		inner, err := g.w.declare(t, i)
		if err != nil {
			break
		}
		t.results = append(t.results, inner)
		inner.Retain()
		e.inner = append(e.inner, inner)
		outer, err := g.w.store.Declare(g.w.newID())
		if err != nil {
			break
		}
		outer.SetOrigin(g.origin())
		outer.Retain()
		e.outer = append(e.outer, outer)
		if err = g.place(outer, out[4*i:]); err != nil {
			outer.Release()
			break
		}
	}
	d.sent = append(d.sent, e)
	d.out = append(d.out, e)
	if len(e.outer) != len(out)/4 { // it is the handles that are too many
		d.fail(&wray.Error{Code: wray.CodeLimitExceeded, Message: "a durable actor's call has too many references"})
		return abi.ENOMEM
	}
	return abi.Success
}

// flush has the effects leave that were made since the last.
func (d *durableCall) flush() {
	if len(d.out) == 0 || d.err != nil {
		return
	}
	for _, e := range d.out {
		if e.to == nil {
			continue // in this worker alone, which ends with what it does
		}
		if err := d.rec.Persist(func() ([]byte, error) { return d.a.encodeCall(d.t) }); err != nil {
			d.fail(err)
			return
		}
		break
	}
	out := d.out
	d.out = nil
	for _, e := range out {
		e.leave()
	}
}

func (e *effect) leave() {
	d, t := e.d, e.t
	w := d.a.job.w
	if d.rec.Answered(e.id.Index) {
		t.release()
		return
	}
	e.missing = len(e.inner)
	inner := append([]*objectstore.Object(nil), e.inner...)
	for _, o := range inner {
		o.Retain()
	}
	refuse := func(err error) {
		t.fail(d.a.job.named(err, t.name, 0))
		t.release()
	}
	switch {
	case t.actor != nil:
		circle, err := e.wait()
		if err != nil {
			refuse(err)
		} else if err := t.actor.post(t); err != nil {
			refuse(err)
		} else {
			t.actor.poke()
			e.ask(circle)
		}
	default:
		e.spec.Bytes = t.bytes()
		for _, o := range t.results {
			e.spec.Results = append(e.spec.Results, o.ID())
		}
		if err := w.submit(nil, t, &e.spec); err != nil {
			refuse(err)
		}
	}
	for _, o := range inner {
		o.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { e.arrive() }))
		o.Release()
	}
}

// arrive takes note that a result is there.
func (e *effect) arrive() {
	d := e.d
	d.mu.Lock()
	e.missing--
	last := e.missing == 0
	over, gone := d.over, d.gone
	if last && !over {
		d.arrived = append(d.arrived, e)
	}
	d.mu.Unlock()
	if !last {
		return
	}
	e.unwait()
	if over {
		e.settle(!gone)
		return
	}
	d.g.signal()
}

// settle lets go of the results, and gives them to the guest before.
func (e *effect) settle(give bool) {
	e.d.mu.Lock()
	was := e.settled
	e.settled = true
	e.d.mu.Unlock()
	if was {
		return
	}
	for i, o := range e.outer {
		if give && i < len(e.inner) {
			seal(o, e.inner[i])
		}
		o.Release()
	}
	for _, o := range e.inner {
		o.Release()
	}
	e.outer, e.inner = nil, nil
}

// seal gives o the value of the object from, or its failure.
func seal(o, from *objectstore.Object) {
	err := error(nil)
	if e := from.Err(); e != nil {
		err = o.Fail(e)
	} else {
		err = o.SealAs(from)
	}
	if err != nil && !errors.Is(err, objectstore.ErrSealed) {
		_ = o.Fail(&wray.Error{Code: wray.CodeStoreFull, Message: fmt.Sprintf("there is no room for a result: %v", err)})
	}
}

// replay gives the guest what it was given before.
func (e *effect) replay(reply []byte) {
	e.d.mu.Lock()
	was := e.settled
	e.settled = true
	e.d.mu.Unlock()
	if was {
		e.d.fail(errBadRecord)
		return
	}
	err := e.d.a.giveReply(reply, e.outer)
	for _, o := range e.outer {
		o.Release()
	}
	for _, o := range e.inner {
		o.Release()
	}
	e.outer, e.inner = nil, nil
	if err != nil {
		e.d.fail(err)
	}
}

// finish waits, when the method has returned, until all that it did to durable
// actors is done. An error says that the call is not to be committed.
func (d *durableCall) finish() *wray.Error {
	d.flush()
	if d.err == nil {
		if err := d.rec.Ended(); err != nil {
			d.fail(err)
		}
	}
	if d.err != nil {
		return d.err
	}
	ended := func() *wray.Error {
		d.a.mu.Lock()
		defer d.a.mu.Unlock()
		return d.a.ending
	}
	done := func() bool {
		d.tend()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, e := range d.sent {
			if e.to != nil && !e.settled && e.missing > 0 {
				return false
			}
		}
		return true
	}
	d.g.sb.Await(func() bool { return done() || ended() != nil })
	if !done() {
		if err := ended(); err != nil {
			return err
		}
		return wray.Errorf(wray.CodeActorDied, "the actor was stopped while it waited for what it had called")
	}
	d.mu.Lock()
	arrived := d.arrived
	d.arrived, d.over = nil, true
	d.mu.Unlock()
	for _, e := range arrived {
		e.settle(true)
	}
	return nil
}

// acknowledge tells those that the call has called that it is on record.
func (d *durableCall) acknowledge() {
	for _, e := range d.sent {
		if e.to != nil {
			e.to.mu.Lock()
			if e.to.acks == nil {
				e.to.acks = map[durable.UID]uint64{}
			}
			e.to.acks[d.rec.UID()] = d.n
			e.to.mu.Unlock()
		}
	}
}

// digestOf says what t asks of whom.
func (g *guest) digestOf(t *task) (d durable.Digest, err error) {
	h := t.digestHead()
	seen := map[wray.ID]int{}
	for i := range t.args {
		if a := &t.args[i]; a.object == nil {
			a.digest(h)
		} else if err := g.digestObject(h, a.object, seen, 0); err != nil {
			return d, err
		}
	}
	copy(d[:], h.Sum(nil))
	return d, nil
}

// digestAfar is digestOf for a call from another node. What its arguments refer to
// is there, and is not fetched for this: then it is zero, which is like any.
func (t *task) digestAfar() (d durable.Digest) {
	h := t.digestHead()
	for i := range t.args {
		if t.args[i].object != nil {
			return d
		}
		t.args[i].digest(h)
	}
	copy(d[:], h.Sum(nil))
	return d
}

// digestHead begins the digest of t.
func (t *task) digestHead() hash.Hash {
	h := sha256.New()
	name, flags := "", t.flags
	if t.actor != nil {
		name = t.actor.create.name
		flags &= callFlags // as for one that comes from another node
	}
	fmt.Fprintf(h, "%q %q %d %d\n", name, t.fn.name, flags, len(t.args))
	return h
}

// digest writes what an argument says that is no object.
func (a *arg) digest(h hash.Hash) {
	fmt.Fprintf(h, "value %d %d %d\n", a.encoding, a.meta, len(a.payload))
	h.Write(a.payload)
}

// digestObject writes what an object says, and what it refers to. seen numbers
// the objects of this digest: one that comes again is its number, for what is
// referred to in many ways would else be walked in each of them.
func (g *guest) digestObject(h hash.Hash, o *objectstore.Object, seen map[wray.ID]int, depth int) error {
	a, _ := o.Attachment().(*actor)
	switch {
	case a != nil && a.durable:
		fmt.Fprintf(h, "actor %q\n", a.create.name)
		return nil
	case a != nil || !o.Ready() || depth > maxDepth:
		fmt.Fprint(h, "something\n")
		return nil
	case o.State() == objectstore.Failed:
		fmt.Fprintf(h, "failure %d\n", o.Err().Code)
		return nil
	}
	if n, again := seen[o.ID()]; again {
		fmt.Fprintf(h, "again %d\n", n)
		return nil
	}
	seen[o.ID()] = len(seen)
	v, werr := g.viewOf(o)
	if werr != nil {
		return werr
	}
	defer v.Close()
	info := o.Info()
	fmt.Fprintf(h, "value %d %d %d\n", info.Encoding, info.Meta, info.Len)
	h.Write(v.Bytes())
	for _, r := range o.Refs() {
		if err := g.digestObject(h, r, seen, depth+1); err != nil {
			return err
		}
	}
	h.Write(binary.LittleEndian.AppendUint32(nil, uint32(info.Refs)))
	return nil
}

// repeated answers a call that was answered before, or is not to be answered.
func (a *actor) repeated(c *task) bool {
	if c.effect == nil && c.key == "" || c.letter == nil {
		return false
	}
	known, err := a.replyAgain(c)
	if known {
		a.complete(c, err)
	}
	return known
}

// replyAgain gives c the reply that is on record, if one is. An error says why it
// is not to be answered.
func (a *actor) replyAgain(c *task) (known bool, failure *wray.Error) {
	reply, known, err := a.rec.Repeat(c.request())
	if err == nil && !known {
		return false, nil
	}
	if err == nil {
		err = a.giveReply(reply, c.results)
	}
	if err != nil {
		return true, c.asError(err)
	}
	return true, nil
}

// catchUp finishes the call that a crash has left undone, unless that is c.
func (a *actor) catchUp(c *task) *wray.Error {
	if !a.durable || a.rec == nil || c != nil && a.under == c {
		return nil
	}
	if !a.rec.OnRecord() {
		a.rec.Drop()
		return nil
	}
	body, q := a.rec.Unfinished()
	t, err := a.callAgain(body)
	if err != nil {
		return a.create.asError(err)
	}
	t.effect, t.epoch, t.key, t.digest = q.ID, q.Epoch, q.Key, q.Digest
	a.mu.Lock()
	a.running = t
	a.mu.Unlock()
	return a.answer(a.guest, t)
}

// giveUp ends the call c, of which the sandbox is gone, with err. What it did
// elsewhere is done; the actor is what it was before.
func (a *actor) giveUp(err *wray.Error) *wray.Error {
	a.under = nil
	if a.rec == nil {
		return nil
	}
	if !a.rec.OnRecord() {
		a.rec.Drop()
		return nil
	}
	a.mu.Lock()
	leaves := a.final
	a.mu.Unlock()
	if leaves {
		return nil // whoever opens it next finishes the call
	}
	reply, e := a.encodeReply(nil, err)
	if e == nil {
		e = a.rec.Abort(reply)
	}
	if e != nil {
		a.offRecord = true
		if errors.Is(e, statelog.ErrBroken) {
			a.closeLog()
			a.forgetCheckpoint()
		}
		return a.create.asError(e)
	}
	return nil
}

func randomBytes(p []byte) { sandbox.Random(p) }

// wallClock returns the time of day in ns since 1970, in the step of guests'
// clocks.
func wallClock() int64 { return time.Now().UnixNano() / 1e6 * 1e6 }

// replyOf returns the reply to c that is to be kept, nil where nobody may ask
// for it again.
func (a *actor) replyOf(c *task, failure *wray.Error) ([]byte, error) {
	if c.effect == nil && c.key == "" {
		return nil, nil
	}
	results := make([]*objectstore.Object, len(c.results))
	for i := range c.held {
		results[c.held[i].index] = c.held[i].object
	}
	if failure == nil {
		for _, o := range results {
			if o == nil {
				return nil, errors.New("a result is missing")
			}
		}
	} else {
		results = nil
	}
	return a.encodeReply(results, failure)
}

// readKey reads the key of the call t.
func (g *guest) readKey(v view, b []byte, t *task) (string, abi.Errno) {
	p, n := u32(b, abi.SpecKeyPtr), u32(b, abi.SpecKeyLen)
	switch {
	case t.actor == nil && (t.far == nil || t.far.call == nil):
		return "", g.readGrants(v, p, n, t) // no call has them: its actor has
	case n == 0:
		return "", abi.Success
	case n > durable.MaxKey:
		return "", g.tooMany("bytes of a key", n, durable.MaxKey)
	}
	key, e := v.str(p, n)
	if t.actor == nil {
		t.far.call.key, key = key, "" // its home does the rest
	} else if !t.actor.durable {
		key = "" // there is no record of it
	}
	return key, e
}
