package worker

import (
	"errors"
	"fmt"
	"os"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
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
		return g.refuse(&wray.Error{Code: wray.CodeBadArgument, Message: "a durable actor's method has a stream of results",
			Hint: "return its results at once, or as an object"}, abi.EPERM)
	}
	if h := g.holder; h != nil && (h.makes != nil && h.makes.durable) {
		// Were it lost before its own commit it would call again.
		return g.refuse(&wray.Error{Code: wray.CodeBadArgument, Message: "a durable actor calls a durable actor, which would not be exactly once",
			Hint: "have whoever calls the one call the other, too"}, abi.EPERM)
	}
	return abi.Success
}

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
}

// savedRef is what a handle, or a reference in a value, stands for.
type savedRef struct {
	Kind   uint8        `cbor:"1,keyasint"`
	Object statelog.Key `cbor:"2,keyasint"`
}

// Kinds of savedRef.
const (
	refObject = iota + 1
	refSelf   // the actor
	refLost   // what does not outlive the worker: a result to come, a stream, another actor
)

type savedHandle struct {
	Handle uint32   `cbor:"1,keyasint"`
	Ref    savedRef `cbor:"2,keyasint"`
}

type savedWindow struct {
	At     uint32       `cbor:"1,keyasint"`
	Len    uint64       `cbor:"2,keyasint"`
	Off    int64        `cbor:"3,keyasint"`
	Object statelog.Key `cbor:"4,keyasint"`
}

// savedObject is a value.
type savedObject struct {
	Encoding uint32     `cbor:"1,keyasint"`
	Meta     uint32     `cbor:"2,keyasint"`
	Payload  []byte     `cbor:"3,keyasint"`
	Refs     []savedRef `cbor:"4,keyasint"`
}

// keyOf names an object in logs. IDs are not used again, by any worker.
func keyOf(id wray.ID) (k statelog.Key) {
	for i := range 8 {
		k[i], k[8+i] = byte(id.Owner>>(8*i)), byte(id.Seq>>(8*i))
	}
	return k
}

// openLog opens the actor's log, unless it is open.
func (a *actor) openLog() *wray.Error {
	if a.log != nil {
		return nil
	}
	dir, t := a.job.w.cfg.State, a.create
	fail := func(err error) *wray.Error {
		e := &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the log of the durable actor %s cannot be opened: %v", t.name, err)}
		switch {
		case errors.Is(err, statelog.ErrForeign):
			e.Code = wray.CodeBadArgument
			e.Hint = "run the program that made it, give the actor another name, or kill it there: a state is of use to the program alone that it is of"
		case errors.Is(err, statelog.ErrDamaged):
			e.Hint = "restore the directory of " + StateFlag + " from a copy, or remove the actor's files there: calls that were answered are lost then"
		default:
			e.Hint = "see to the directory of " + StateFlag
		}
		return e
	}
	files, err := dir.Open(t.name)
	if err != nil {
		return fail(err)
	}
	a.log, err = statelog.Open([2]statelog.File{files[0], files[1]},
		statelog.Identity{Module: t.fn.module.program(), Class: t.fn.name, Name: t.name})
	if err != nil {
		a.log = nil
		files[0].Close()
		files[1].Close()
		dir.Release(t.name)
		return fail(err)
	}
	return nil
}

// closeLog closes the log; what it says stays.
func (a *actor) closeLog() {
	if a.log != nil {
		_ = a.log.Close() // what counts is on the disk
		a.log = nil
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
		return
	}
	// Who has the log alone may remove it: it may be another job's.
	if err := a.openLog(); err != nil {
		a.say("the durable actor was killed, and its files are not removed: %v", err)
		return
	}
	err := errors.Join(a.log.End(), a.log.Close())
	a.log = nil
	if err = errors.Join(err, a.job.w.cfg.State.Remove(a.create.name)); err != nil {
		a.say("the durable actor was killed, and its files are not removed: %v", err)
	}
}

// uncommitted is the failure of the call that was not committed, for err.
func (a *actor) uncommitted(err *wray.Error) *wray.Error {
	return &wray.Error{Code: wray.CodeActorDied, Cause: err, Hint: err.Hint,
		Message: "the call is not on record; the actor is again what it was before"}
}

// commit has the log say what the actor is. The error is why the attempt must
// end: what the sandbox holds has not been.
func (a *actor) commit() *wray.Error {
	g := a.guest
	c, err := g.record(g.sb.Save)
	if err == nil {
		if err = a.write(c); err == nil {
			if last := a.dur.last; last != nil {
				last.letGo()
				a.job.w.keeps(-int64(last.state.Held()))
			}
			a.dur.last = c
			a.job.w.keeps(int64(c.state.Held()))
			return nil
		}
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
		Hint: "see to the disk of " + StateFlag}
}

// write puts c on record.
func (a *actor) write(c *checkpoint) error {
	m := a.create.fn.module.m
	sum, image, err := m.Image()
	if err != nil {
		return err
	}
	s := savedActor{Image: statelog.Key(sum[:16]), Wants: c.wants}
	if s.State, err = m.Encode(c.state); err != nil {
		return err
	}
	blobs := []statelog.Blob{{Key: s.Image, Data: func() ([]byte, error) { return image, nil }}}
	seen := map[statelog.Key]bool{}
	deep := false
	var add func(r objectstore.Ref, depth int) savedRef
	add = func(r objectstore.Ref, depth int) savedRef {
		o, ok := r.(*objectstore.Object)
		switch {
		case ok && o.Attachment() == objectstore.Attachment(a):
			return savedRef{Kind: refSelf}
		case !ok || o.State() != objectstore.Sealed || o.Attachment() != nil:
			return savedRef{Kind: refLost}
		}
		k := keyOf(o.ID())
		if deep = deep || depth > maxDepth; !seen[k] && !deep {
			seen[k] = true
			var refs []savedRef
			for _, r := range o.Refs() {
				refs = append(refs, add(r, depth+1))
			}
			blobs = append(blobs, statelog.Blob{Key: k, Data: func() ([]byte, error) { return a.valueOf(o, refs) }})
		}
		return savedRef{Kind: refObject, Object: k}
	}
	c.handles.Walk(func(h uint32, r objectstore.Ref, _ uint32) {
		s.Handles = append(s.Handles, savedHandle{h, add(r, 0)})
	})
	if deep {
		return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("a durable actor refers to a value through more than %d others", maxDepth),
			Limit: &wray.Limit{Name: "values between a durable actor and a value", Value: maxDepth},
			Hint:  "refer to what belongs together from one value"}
	}
	for at, w := range c.windows {
		// The object may be gone but for this: then its bytes are what there is.
		k := keyOf(w.of)
		if !seen[k] {
			k[len(k)-1] ^= 0x80
			pin := w.pin
			blobs = append(blobs, statelog.Blob{Key: k, Data: func() ([]byte, error) {
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
	return a.log.Commit(payload, blobs)
}

// valueOf returns the value o as a blob.
func (a *actor) valueOf(o *objectstore.Object, refs []savedRef) ([]byte, error) {
	info := o.Info()
	if info.Len > statelog.MaxPayload-1<<20 {
		return nil, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("a durable actor refers to an object of %d bytes", info.Len),
			Limit: &wray.Limit{Name: "object of a durable actor", Value: statelog.MaxPayload - 1<<20, Unit: "bytes"},
			Hint:  "keep large data in smaller objects"}
	}
	v, werr := a.guest.viewOf(o)
	if werr != nil {
		return nil, werr
	}
	defer v.Close()
	return cbor.Marshal(savedObject{Encoding: uint32(info.Encoding), Meta: info.Meta, Payload: v.Bytes(), Refs: refs})
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
	last := a.log.Last()
	if last == nil {
		return false, nil
	}
	if err := a.revive(last); err != nil {
		var e *wray.Error
		if errors.As(err, &e) {
			return true, e
		}
		e = &wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("the durable actor %s cannot be made again from its log: %v", a.create.name, err)}
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
	state, err := sandbox.DecodeState(s.State)
	if err != nil {
		return err
	}
	packed, err := a.log.Blob(s.Image)
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
	made := &madeAgain{a: a, of: map[statelog.Key]*objectstore.Object{}}
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
		o, err := made.ref(savedRef{refObject, sw.Object}, 0)
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
		mine := &window{len: sw.Len, off: sw.Off, pin: pin, of: id}
		length := pin.MapLen()
		if e := g.freeRange(view(g.sb.Memory()), sw.At, sw.Len, sw.Off); e != abi.Success || sw.Len%abi.MapAlign != 0 ||
			sw.Off > length || int64(sw.Len) > length-sw.Off {
			pin.Unpin()
			return errBadRecord
		}
		if e := g.takeWindow(); e != abi.Success {
			pin.Unpin()
			return g.refused
		}
		g.windows[sw.At] = mine
		if err := mine.lay(g.sb, sw.At); err != nil {
			return fmt.Errorf("map an object again: %w", err)
		}
	}
	if err := g.sb.Load(state); err != nil {
		return err
	}
	g.configure(g.module.args(), nil)
	for _, h := range s.Watches {
		if o, ok := g.handles.Object(h); ok {
			g.watchObject(o, h)
		}
	}
	if s.Wants {
		g.notify(abi.EventSpace, 0)
		g.notify(abi.EventRoom, 0)
	}
	return nil
}

// madeAgain are the objects of a log that are in the store again.
type madeAgain struct {
	a  *actor
	of map[statelog.Key]*objectstore.Object // each with a reference
}

func (m *madeAgain) release() {
	for _, o := range m.of {
		o.Release()
	}
}

// maxDepth bounds how deep values may be referred to through others.
const maxDepth = 1000

// ref returns what r stands for, with a reference for the caller.
func (m *madeAgain) ref(r savedRef, depth int) (*objectstore.Object, error) {
	w := m.a.job.w
	switch r.Kind {
	case refSelf:
		if o := w.store.Lookup(m.a.object); o != nil {
			return o, nil
		}
		fallthrough
	case refLost:
		o, err := w.store.Declare(w.newID())
		if err != nil {
			return nil, err
		}
		_ = o.Fail(m.a.job.named(&wray.Error{Code: wray.CodeObjectLost,
			Message: "what a durable actor referred to did not outlive the worker",
			Hint:    "of what such an actor keeps references to, values are put on record, and results to come, streams and other actors are not"}, m.a.create.name, 0))
		return o, nil
	case refObject:
	default:
		return nil, errBadRecord
	}
	if o := m.of[r.Object]; o != nil {
		o.Retain()
		return o, nil
	}
	if depth > maxDepth {
		return nil, errBadRecord
	}
	b, err := m.a.log.Blob(r.Object)
	if err != nil {
		return nil, err
	}
	var s savedObject
	if err := savedMode.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRecord, err)
	}
	v := objectstore.Value{Encoding: abi.Encoding(s.Encoding), Meta: s.Meta, Payload: s.Payload}
	defer func() {
		for _, o := range v.Refs {
			o.Release()
		}
	}()
	for _, r := range s.Refs {
		o, err := m.ref(r, depth+1)
		if err != nil {
			return nil, err
		}
		v.Refs = append(v.Refs, o)
	}
	o, err := w.store.TryPut(w.newID(), v)
	if errors.Is(err, objectstore.ErrFull) {
		return nil, w.store.FullError(v.Size())
	}
	if err != nil {
		return nil, err
	}
	o.SetOrigin(m.a.job.id.Seq)
	o.Retain()
	m.of[r.Object] = o
	return o, nil
}
