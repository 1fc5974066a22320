package worker

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// A durable actor's state is on stable storage before a call of it is answered.
// A commit is a checkpoint as bytes: what the sandbox differs by from the image
// of its module, and the host's record of handles and windows. The image, and
// each object that the actor has a handle of, are blobs of the log, written
// once in a worker's life. What was committed last is the actor, whatever ends the sandbox, the
// worker or the node; a call that is not committed has not been.

// StateDir opens the files of durable actors' logs.
type StateDir interface {
	// Open opens the files of the actor called name, which are not opened again
	// before Release or Remove.
	Open(name string) ([2]*os.File, error)
	Release(name string)
	// Find is Open of one that is there; fs.ErrNotExist: it is not.
	Find(name string) ([2]*os.File, error)
	// Remove forgets the actor, whose files may be open, and are done with.
	Remove(name string) error
}

// StateFlag is the flag that names the directory of durable actors.
const StateFlag = "--state"

// readDurable checks the durable actor that t creates.
func (g *guest) readDurable(t *task) abi.Errno {
	bad := func(e *wray.Error) abi.Errno { return g.refuse(e, abi.EPERM) }
	switch {
	case t.flags&abi.SpecNamed == 0:
		return bad(&wray.Error{Code: wray.CodeBadArgument, Message: "a durable actor has no name, by which it would be found again",
			Hint: "give it one with sdk.Name"})
	case t.makes.box.Width > 1:
		return bad(&wray.Error{Code: wray.CodeBadArgument, Message: "a durable actor takes one call at a time, and has MaxConcurrency",
			Hint: "leave out one of sdk.Durable and sdk.MaxConcurrency"})
	case g.w.cfg.State == nil:
		return bad(&wray.Error{Code: wray.CodeBadArgument, Message: "this node keeps no durable actors",
			Hint: "start it with " + StateFlag + " DIR, a directory on a disk"})
	}
	t.makes.durable = true
	t.makes.dur = durability{} // at every call
	t.flags |= abi.SpecDetached | abi.SpecGetIfExists
	return abi.Success
}

// mayCallDurable checks the call t of a durable actor.
func (g *guest) mayCallDurable(t *task) abi.Errno {
	if t.flags&abi.SpecStream != 0 {
		return g.refuse(streamOfDurable, abi.EPERM)
	}
	if h := g.holder; h != nil && h.makes != nil && h.makes.durable && g.durable == nil {
		return g.refuse(&wray.Error{Code: wray.CodeBadArgument, Message: "the constructor of a durable actor calls a durable actor, which would not be exactly once",
			Hint: "call it from a method: a constructor that is lost before it has ended is run again, and has no record yet"}, abi.EPERM)
	}
	return abi.Success
}

var streamOfDurable = &wray.Error{Code: wray.CodeBadArgument, Message: "a durable actor's method has a stream of results",
	Hint: "return its results at once, or as an object"}

// program names the module's content.
func (m *module) program() string {
	m.hashed.Do(func() {
		for i, mm := range m.job.modules {
			if mm == m {
				m.hash = m.job.spec.Modules[i].Artifact.Hash()
			}
		}
	})
	return m.hash
}

// savedActor is what a commit says.
type savedActor struct {
	Image   statelog.Key  `cbor:"1,keyasint"`
	State   []byte        `cbor:"2,keyasint"`
	Handles []savedHandle `cbor:"3,keyasint"`
	Windows []savedWindow `cbor:"4,keyasint"`
	Watches []uint32      `cbor:"5,keyasint"`
	Wants   bool          `cbor:"6,keyasint"`
	Made    savedOptions  `cbor:"7,keyasint"`
	// Parts are what of a large State is in blobs, named by what they hold.
	Parts []statelog.Key `cbor:"8,keyasint,omitempty"`
}

// openLog opens the actor's log, unless it is open.
func (a *actor) openLog() (failure *wray.Error) {
	if a.rec != nil {
		return nil
	}
	t := a.create
	files, err := a.job.w.cfg.State.Open(t.name)
	if err == nil {
		a.rec, err = a.job.w.openRecord(t.name, files, statelog.Identity{Module: t.fn.module.program(), Class: t.fn.name, Name: t.name})
	}
	if err != nil {
		a.offRecord = true
		return logFailure(t.name, err)
	}
	return nil
}

// openRecord reads the record that lies in files, which are given back where it
// cannot be read.
func (w *Worker) openRecord(name string, files [2]*os.File, id statelog.Identity) (*durable.Record, error) {
	log, err := statelog.Open([2]statelog.File{files[0], files[1]}, id)
	if err == nil {
		var uid durable.UID
		randomBytes(uid[:])
		var rec *durable.Record
		if rec, err = durable.Open(log, uid); err == nil {
			return rec, nil
		}
	}
	files[0].Close()
	files[1].Close()
	w.cfg.State.Release(name)
	return nil, err
}

// logFailure says why the log of the actor called name cannot be opened.
func logFailure(name string, err error) *wray.Error {
	e := &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the log of the durable actor %s cannot be opened: %v", name, err)}
	switch {
	case errors.Is(err, statelog.ErrForeign):
		e.Code = wray.CodeBadArgument
		e.Hint = "run the program that made it, give the actor another name, or kill it there: a state is of use to the program alone that it is of"
	case errors.Is(err, statelog.ErrDamaged):
		e.Hint = "restore the directory of " + StateFlag + " from a copy, or remove the actor's files there: calls that were answered are lost then"
	default:
		e.Hint = stateHint(err)
	}
	return e
}

// stateHint says what to do where err kept a log from being written.
func stateHint(err error) string {
	if errors.Is(err, syscall.ENOSPC) {
		return "make room on the disk of " + StateFlag
	}
	return "see to the directory of " + StateFlag + ", and the disk that it is on"
}

// closeLog closes the log; what it says stays.
func (a *actor) closeLog() {
	if a.rec != nil {
		_ = a.rec.Log().Close() // what counts is on the disk
		a.rec = nil
		a.job.w.cfg.State.Release(a.create.name)
	}
}

// endLog is called when the actor is gone, and forgets one that was killed.
func (a *actor) endLog() {
	a.mu.Lock()
	forget := a.killed
	a.mu.Unlock()
	if !forget {
		a.closeLog()
		a.mu.Lock()
		forget = a.killed // meanwhile
		a.logKept = !forget
		a.mu.Unlock()
	}
	if forget {
		a.forgetLog()
	}
}

// forgetLate forgets a durable actor that ended before it was killed: its log may
// not have opened. A guest that runs calls it, for which the job waits.
func (a *actor) forgetLate() {
	a.mu.Lock()
	late := a.logKept && a.killed
	a.logKept = a.logKept && !late
	a.mu.Unlock()
	if late {
		a.job.executors.Go(a.forgetLog)
	}
}

// forgetLog removes what there is of a durable actor that was killed. It is gone.
func (a *actor) forgetLog() {
	// Who has the log alone may remove it: it may be another job's.
	if err := a.openLog(); err != nil {
		a.say("the durable actor was killed, and its files are not removed: %v", err)
		return
	}
	err := errors.Join(a.rec.Log().End(), a.rec.Log().Close())
	a.rec = nil
	if err = errors.Join(err, a.job.w.cfg.State.Remove(a.create.name)); err != nil {
		a.say("the durable actor was killed, and its files are not removed: %v", err)
	}
}

// uncommitted is the failure of the call that was not committed, for err.
func (a *actor) uncommitted(err *wray.Error) *wray.Error {
	return &wray.Error{Code: wray.CodeActorDied, Cause: err, Hint: err.Hint,
		Message: "the call is not on record; the actor is again what it was before"}
}

// commit has the log say what the actor is, and that the call under way is
// answered by reply. The error is why the attempt must
// end: what the sandbox holds has not been.
func (a *actor) commit(reply []byte) *wray.Error {
	a.mu.Lock()
	acks := a.acks
	a.acks = nil
	a.mu.Unlock()
	for u, call := range acks {
		a.rec.Acknowledge(u, call)
	}
	g := a.guest
	c, err := g.record(g.sb.Save)
	if err == nil {
		if err = a.write(c, reply); err == nil {
			a.setCheckpoint(c)
			a.offRecord, a.dur.failing = false, false
			return nil
		}
		a.offRecord = true
		c.letGo()
		if errors.Is(err, statelog.ErrBroken) {
			// It may be on record or not; what the log says then is the actor.
			a.closeLog()
			a.forgetCheckpoint()
		}
	}
	var e *wray.Error
	if errors.As(err, &e) {
		return e
	}
	return &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the durable actor %s cannot be put on record: %v", a.create.name, err),
		Hint: stateHint(err)}
}

// cannotBegin is called when a durable actor's attempt has ended before it took a
// call, and the log is why. Where nobody has had the actor yet that is its end,
// for whoever made it is told. Else it is tried again, for answered calls must not
// be lost; as that may take until somebody sees to the disk, it is said, once.
func (a *actor) cannotBegin(failure *wray.Error) {
	switch {
	case !a.offRecord:
	case !a.built:
		a.mu.Lock()
		a.final = true
		a.mu.Unlock()
	case !a.dur.failing:
		a.dur.failing = true
		hint := failure.Hint
		if hint == "" {
			hint = stateHint(failure)
		}
		a.say("the durable actor %s cannot go on, and is tried again until it can: %v; hint: %s", a.create.name, failure, hint)
	}
}

// partBlob is a part of a state. Its name says what it holds, so one that has not
// changed is not written again.
func partBlob(p sandbox.Part) (b statelog.Blob) {
	h := sha256.New()
	fmt.Fprintf(h, "part %d ", p.Index)
	h.Write(p.Diff)
	copy(b.Key[:], h.Sum(nil))
	b.Data = p.Pack
	return b
}

// write puts c on record, with the reply to the call that led to it.
func (a *actor) write(c *checkpoint, reply []byte) error {
	m := a.create.fn.module.m
	sum, image, err := m.Image()
	if err != nil {
		return err
	}
	s := savedActor{Image: statelog.Key(sum[:16]), Wants: c.wants, Made: a.options()}
	var parts []sandbox.Part
	if s.State, parts, err = m.EncodeParts(c.state); err != nil {
		return err
	}
	put := saver{a: a, seen: map[statelog.Key]bool{}}
	put.blobs = []statelog.Blob{{Key: s.Image, Data: func() ([]byte, error) { return image, nil }}}
	for _, p := range parts {
		b := partBlob(p)
		s.Parts = append(s.Parts, b.Key)
		put.blobs = append(put.blobs, b)
	}
	c.handles.Walk(func(h uint32, r objectstore.Ref, _ uint32) {
		s.Handles = append(s.Handles, savedHandle{h, put.ref(r, 0)})
	})
	if put.deep {
		return errDeep
	}
	for at, w := range c.windows {
		// The object may be gone but for this: then its bytes are what there is.
		k := keyOf(w.of)
		if !put.seen[k] {
			k[len(k)-1] ^= 0x80
			pin := w.pin
			put.blobs = append(put.blobs, statelog.Blob{Key: k, Data: func() ([]byte, error) {
				return cbor.Marshal(savedObject{Encoding: uint32(abi.EncodingRaw), Payload: pin.Bytes(0, pin.Len())})
			}})
		}
		s.Windows = append(s.Windows, savedWindow{at, w.len, w.off, k})
	}
	for _, w := range c.watches {
		s.Watches = append(s.Watches, w.handle)
	}
	payload, err := cbor.Marshal(s)
	if err != nil {
		return err
	}
	return a.rec.Commit(payload, put.blobs, reply)
}

// savedMode reads what a log says, which may be anything.
var savedMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 1 << 24, MaxNestedLevels: 6}.DecMode()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return m
}()

// comeBack makes the actor what its log says, if that says anything.
func (a *actor) comeBack() (there bool, failure *wray.Error) {
	if err := a.openLog(); err != nil {
		return false, err
	}
	last := a.rec.State()
	if last == nil {
		return false, nil
	}
	if err := a.revive(last); err != nil {
		var e *wray.Error
		if errors.As(err, &e) {
			return true, e
		}
		e = &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the durable actor %s cannot be made again from its log: %v", a.create.name, err)}
		a.offRecord = true
		if errors.Is(err, errBadRecord) || errors.Is(err, statelog.ErrDamaged) {
			e.Hint = "restore the directory of " + StateFlag + " from a copy, or remove the actor's files there"
		}
		return true, e
	}
	return true, nil
}

var errBadRecord = errors.New("what it says makes no sense")

func (a *actor) revive(last []byte) error {
	g := a.guest
	var s savedActor
	if err := savedMode.Unmarshal(last, &s); err != nil {
		return fmt.Errorf("%w: %v", errBadRecord, err)
	}
	var parts []sandbox.Part
	for _, k := range s.Parts {
		b, err := a.rec.Log().Blob(k)
		if err != nil {
			return err
		}
		p, err := sandbox.UnpackPart(b)
		if err != nil {
			return err
		}
		parts = append(parts, p)
	}
	state, err := sandbox.DecodeParts(s.State, parts)
	if err != nil {
		return err
	}
	packed, err := a.rec.Log().Blob(s.Image)
	if err != nil {
		return err
	}
	image, err := sandbox.DecodeImage(packed, state)
	if err != nil {
		return err
	}
	if err := g.sb.Lay(image, state); err != nil {
		return err
	}
	made := a.again(a.rec.Log().Blob)
	defer made.release()
	g.handles.Reset()
	for _, h := range s.Handles {
		o, err := made.ref(h.Ref, 0)
		if err != nil {
			return err
		}
		if err := g.handles.Set(h.Handle, o); err != nil {
			o.Release()
			return err
		}
	}
	for _, sw := range s.Windows {
		o, err := made.ref(savedRef{Kind: refObject, Object: sw.Object}, 0)
		if err != nil {
			return err
		}
		v, werr := g.viewOf(o) // it stays in memory until it is pinned
		if werr != nil {
			o.Release()
			return werr
		}
		pin, err := o.Pin()
		id := o.ID()
		v.Close()
		o.Release()
		if err != nil {
			return err
		}
		if err := g.showAgain(&window{len: sw.Len, off: sw.Off, pin: pin, of: id}, sw.At); err != nil {
			return err
		}
	}
	return g.goOn(state, s.Watches, s.Wants)
}

// goOn lays a state into the guest, whose handles and windows are there, and has
// it hear again of what it watched, and of room where it wants some.
func (g *guest) goOn(state *sandbox.State, watches []uint32, wants bool) error {
	if err := g.sb.Load(state); err != nil {
		return err
	}
	g.configure(g.module.args(), nil)
	for _, h := range watches {
		if o, ok := g.handles.Object(h); ok {
			g.watchObject(o, h)
		}
	}
	if wants {
		g.notify(abi.EventSpace, 0)
		g.notify(abi.EventRoom, 0)
	}
	return nil
}
