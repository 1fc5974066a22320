package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// Checkpoints of actors that live on another node. One is an object there, whose
// bytes say what the sandbox is, and whose references are what the actor has
// handles of and what its memory differs from. The peer tells the home of it
// before it answers the calls that led to it; the home makes it, and all that
// was at the peer alone, objects of its own, and only then gives those answers.
// What it has last is what the actor begins from, on whatever node: there it
// comes with the attempt, as an argument does.

// savedAway is what a checkpoint's bytes say. References are numbers of the
// object's: 0 is the image of memory, which no handle is of.
type savedAway struct {
	State   []byte            `cbor:"1,keyasint"` // as sandbox.Module.Encode writes it
	Handles []savedAwayHandle `cbor:"2,keyasint,omitempty"`
	Windows []savedAwayWindow `cbor:"3,keyasint,omitempty"`
	Watches []uint32          `cbor:"4,keyasint,omitempty"`
	Wants   bool              `cbor:"5,keyasint,omitempty"`
	// There is how many of the references, from the first, have values. Who takes
	// the checkpoint home waits for those.
	There int `cbor:"6,keyasint"`
}

type savedAwayHandle struct {
	_      struct{} `cbor:",toarray"`
	Handle uint32
	Ref    int // 0: what does not leave its node, such as a stream
}

type savedAwayWindow struct {
	_   struct{} `cbor:",toarray"`
	At  uint32
	Len uint64
	Off int64
	Ref int
}

// savedBody tells of a checkpoint of an actor that was lent.
type savedBody struct {
	Task    idBody  `cbor:"1,keyasint"`
	Attempt int     `cbor:"2,keyasint"`
	N       uint64  `cbor:"3,keyasint"` // the attempt's checkpoints so far
	State   argBody `cbor:"4,keyasint"`
}

func (b *savedBody) check(value func(*valueBody) error) (refs int, err error) {
	if b.State.Ref == nil || b.State.Value.Encoding != uint32(abi.EncodingRaw) || b.N == 0 {
		return 0, errors.New("a checkpoint that makes no sense")
	}
	return 1, value(&b.State.Value)
}

// readSavedAway reads what a checkpoint of so many references says. The bytes may
// be anything.
func readSavedAway(b []byte, refs int) (*savedAway, error) {
	var s savedAway
	if err := savedMode.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRecord, err)
	}
	if s.There < 1 || s.There > refs {
		return nil, errBadRecord
	}
	for _, h := range s.Handles {
		if h.Ref < 0 || h.Ref >= refs {
			return nil, errBadRecord
		}
	}
	for _, w := range s.Windows {
		if w.Ref < 1 || w.Ref >= s.There || w.Off < 0 || w.Len == 0 || w.Len > maxMemory || w.Len%abi.MapAlign != 0 {
			return nil, errBadRecord
		}
	}
	return &s, nil
}

// imageObject returns the object that holds the module's image, which the module
// keeps until the job ends.
func (m *module) imageObject() (*objectstore.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.image == nil {
		_, packed, err := m.m.Image()
		if err != nil {
			return nil, err
		}
		if m.image, err = m.job.putRaw(packed); err != nil {
			return nil, err
		}
	}
	return m.image, nil
}

// forgetImage lets go of the object that holds the module's image.
func (m *module) forgetImage() {
	m.mu.Lock()
	o := m.image
	m.image = nil
	m.mu.Unlock()
	if o != nil {
		o.Release()
	}
}

// asObject returns the checkpoint c, with the state that it was taken with, as an
// object, with a reference. to is told when the last is gone.
func (a *actor) asObject(c *checkpoint, to objectstore.Attachment) (*objectstore.Object, error) {
	w, m := a.job.w, a.create.fn.module
	image, err := m.imageObject()
	if err != nil {
		return nil, err
	}
	s := savedAway{Wants: c.wants}
	if s.State, err = m.m.Encode(c.state); err != nil {
		return nil, err
	}
	// There are two parts of the references: with values, and without.
	there, later := []*objectstore.Object{image}, []*objectstore.Object{}
	var mine []*objectstore.Object // with a reference
	defer func() { releaseAll(mine) }()
	at := map[*objectstore.Object]int{} // from 1 in there, from -1 in later
	var walk func(o *objectstore.Object, depth int) error
	walk = func(o *objectstore.Object, depth int) error {
		if at[o] != 0 {
			return nil
		}
		if depth > maxDepth {
			return fmt.Errorf("a value is referred to through more than %d others", maxDepth)
		}
		mine := o.ID().Owner == w.owner
		if !o.Ready() || mine && o.Attachment() != nil {
			later = append(later, o)
			at[o] = -len(later)
			return nil
		}
		at[o] = len(there)
		there = append(there, o)
		if !mine {
			return nil
		}
		for _, r := range o.Refs()[:o.Info().Refs] {
			if r.ID().Owner != w.owner || r.Attachment() != nil || !r.Ready() {
				continue // comes with the value
			}
			if err := walk(r, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	objects := map[uint32]*objectstore.Object{}
	var failed error
	c.handles.Walk(func(h uint32, r objectstore.Ref, _ uint32) {
		o, _ := r.(*objectstore.Object)
		objects[h] = o
		if o != nil && failed == nil {
			failed = walk(o, 0)
		}
	})
	if failed != nil {
		return nil, failed
	}
	shown := map[uint32]*objectstore.Object{}
	for from, win := range c.windows {
		o := w.store.Lookup(win.of)
		if o != nil && o.State() != objectstore.Sealed {
			o.Release()
			o = nil
		}
		if o == nil { // gone but for this: its bytes are what there is
			if o, err = a.job.putRaw(win.pin.Bytes(0, win.pin.Len())); err != nil {
				return nil, err
			}
		}
		mine = append(mine, o)
		if err := walk(o, 0); err != nil {
			return nil, err
		}
		shown[from] = o
	}
	if len(there)+len(later) > maxPeerRefs-1 {
		c := cargo{refs: len(there) + len(later)}
		return nil, c.tooMuch("the checkpoint")
	}
	number := func(o *objectstore.Object) int {
		if n := at[o]; n < 0 {
			return len(there) - n - 1
		}
		return at[o]
	}
	for h, o := range objects {
		n := 0
		if o != nil {
			n = number(o)
		}
		s.Handles = append(s.Handles, savedAwayHandle{Handle: h, Ref: n})
	}
	for from, win := range c.windows {
		s.Windows = append(s.Windows, savedAwayWindow{At: from, Len: win.len, Off: win.off, Ref: number(shown[from])})
	}
	for _, x := range c.watches {
		s.Watches = append(s.Watches, x.handle)
	}
	s.There = len(there)
	payload, err := cbor.Marshal(s)
	if err != nil {
		return nil, err
	}
	v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: payload, Refs: append(there, later...)}
	o, err := w.store.DeclareFor(w.newID(), to)
	if err != nil {
		return nil, err
	}
	if err := o.TrySeal(v); err != nil {
		o.Release()
		if errors.Is(err, objectstore.ErrFull) {
			err = w.store.FullError(v.Size())
		}
		return nil, err
	}
	o.SetOrigin(a.job.id.Seq)
	return o, nil
}

// putRaw puts bytes into the store, if there is room now.
func (j *job) putRaw(b []byte) (*objectstore.Object, error) {
	v := objectstore.Value{Encoding: abi.EncodingRaw, Payload: b}
	o, err := j.w.store.TryPut(j.w.newID(), v)
	if errors.Is(err, objectstore.ErrFull) {
		return nil, j.w.store.FullError(v.Size())
	}
	if err == nil {
		o.SetOrigin(j.id.Seq)
	}
	return o, err
}

// underHome is a checkpoint until its home has taken it, or has gone.
type underHome struct{ taken chan struct{} }

// Unreferenced implements objectstore.Attachment.
func (u *underHome) Unreferenced() { close(u.taken) }

// sendCheckpoint takes a checkpoint of the actor's sandbox sb, which belongs to
// another worker, and tells that of it.
func (a *actor) sendCheckpoint(sb *sandbox.Sandbox) error {
	ps, l := a.job.w.peers, a.create.far.to
	if last := a.dur.under; last != nil { // else those that the home has no time for would fill the store
		ctx, cancel := context.WithTimeout(ps.ctx, a.job.w.cfg.FullAfter)
		defer cancel()
		select {
		case <-last.taken:
		case <-ctx.Done():
			return &wray.Error{Code: wray.CodeTimeout, Message: "the node of the job has not taken the last one"}
		}
	}
	c, err := a.guest.record(sb.Save)
	if err != nil {
		return err
	}
	defer c.letGo()
	under := &underHome{taken: make(chan struct{})}
	o, err := a.asObject(c, under)
	if err != nil {
		return err
	}
	defer o.Release()
	a.dur.under = under
	a.dur.sent++
	ref := ps.refTo(l.peer, o)
	ps.send(l.peer, &peerMessage{Saved: &savedBody{Task: bodyOf(l.task), Attempt: l.attempt, N: a.dur.sent,
		State: argBody{Value: ps.describe(l.peer, o), Ref: &ref}}})
	return nil
}

// covers takes note that what c did is in the checkpoint that was sent since
// before, if one was.
func (a *actor) covers(c *task, before uint64) {
	if a.hosted && a.dur.sent > before {
		c.far.saved = a.dur.sent
	}
}

// showAgain lays a window that a record tells of, which may be anything, over the
// guest's memory. On an error the window is gone.
func (g *guest) showAgain(w *window, at uint32) error {
	length := w.pin.MapLen()
	if e := g.freeRange(view(g.sb.Memory()), at, w.len, w.off); e != abi.Success || w.len%abi.MapAlign != 0 ||
		w.off > length || int64(w.len) > length-w.off {
		w.pin.Unpin()
		return errBadRecord
	}
	if e := g.takeWindow(); e != abi.Success {
		w.pin.Unpin()
		return g.refused
	}
	g.windows[at] = w
	if err := w.lay(g.sb, at); err != nil {
		return fmt.Errorf("map an object again: %w", err)
	}
	return nil
}

// errHasOwn keeps an actor on this node that has taken a checkpoint here.
var errHasOwn = &wray.Error{Code: wray.CodeDenied, Message: "the actor's last checkpoint is on the node of its job, where it has run"}
