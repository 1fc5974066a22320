package objectstore

import (
	"context"
	"sync"
	"sync/atomic"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// State is where an object is in its life.
type State uint32

// States. An object leaves Pending once and is then final.
const (
	Pending State = iota
	Sealed        // it has a value
	Failed        // it has an error: its encoding is abi.EncodingError

	// claimed is Pending to everyone but the goroutine that is about to make
	// the object final.
	claimed
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Pending, claimed:
		return "pending"
	case Sealed:
		return "sealed"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// finalState is the state of an object whose value has encoding e.
func finalState(e abi.Encoding) State {
	if e == abi.EncodingError {
		return Failed
	}
	return Sealed
}

// tinyMax is the length of the payloads that fit into Object itself, which
// saves them an allocation.
const tinyMax = 31

// Object is a value, or the promise of one. Whoever has a reference may use
// it, in any goroutine, until that reference is released; its methods panic
// where they can tell that the caller has none.
type Object struct {
	refs  atomic.Int64
	state atomic.Uint32

	// What follows to charge is written before state is final, by the one
	// goroutine that claimed the object, and never after: but where the object
	// has a residence, payload, segment and charge are guarded by mu.
	encoding  abi.Encoding
	meta      uint32
	born      uint32 // by Store.Clock; written as the object is made
	id        wray.ID
	store     *Store
	table     []*Object                   // each with a reference that this object owns
	length    int64                       // of the payload
	mappable  bool                        // the payload was laid into a segment that can be mapped
	freed     atomic.Pointer[lostPayload] // where there is no residence
	residence *residence                  // nil where the payload stays where it is
	payload   []byte                      // in tiny, in the heap, or in segment.mem; nil on disk
	segment   *segment                    // nil where payload is in the heap or on disk
	charge    int64                       // bytes to give back as the object goes, segment apart

	mu      sync.Mutex
	watches watchList // guarded by mu

	// Guarded by the lock of the index's shard.
	sameBucket *Object
	indexed    bool

	origin atomic.Uint64 // for the census; see SetOrigin

	// attached is written before anybody else knows of the object.
	attached Attachment

	// dying links objects without references for the reaper, which alone owns
	// them.
	dying *Object

	tiny [tinyMax]byte
}

// An Attachment is what an object stands for beside its value, such as an
// actor.
type Attachment interface {
	// Unreferenced is called when the last reference is gone, by whoever gave
	// it back: it must not wait, and takes no lock.
	Unreferenced()
}

// Attachment returns what was given to [Store.DeclareFor], or nil.
func (o *Object) Attachment() Attachment { return o.attached }

// ID returns the object's ID.
func (o *Object) ID() wray.ID { return o.id }

// State returns Pending, Sealed or Failed.
func (o *Object) State() State {
	if st := State(o.state.Load()); st != claimed {
		return st
	}
	return Pending
}

// Ready reports whether the object is sealed or failed.
func (o *Object) Ready() bool {
	st := State(o.state.Load())
	return st == Sealed || st == Failed
}

// Retain adds a reference. The caller must have one, or be in a callback whose
// contract lends it one.
func (o *Object) Retain() {
	if o.refs.Add(1) <= 1 {
		panic("BUG: objectstore: Retain of a released object " + o.id.String())
	}
}

// tryRetain adds a reference unless there is none left.
func (o *Object) tryRetain() bool {
	for {
		n := o.refs.Load()
		if n <= 0 {
			return false
		}
		if o.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives a reference back. With the last one the object goes, and with
// it the references it holds on others. A Release that frees many objects
// frees the first reapInline itself and leaves the others to a goroutine.
func (o *Object) Release() {
	switch n := o.refs.Add(-1); {
	case n == 0:
		o.store.reap(o)
	case n < 0:
		panic("BUG: objectstore: Release of a released object " + o.id.String())
	}
}

// mustBeFinal panics where the caller has no reference or did not look at the
// state: what it is about to read is not there, or may be another object's.
func (o *Object) mustBeFinal() {
	if o.refs.Load() <= 0 {
		panic("BUG: objectstore: use of a released object " + o.id.String())
	}
	if !o.Ready() {
		panic("BUG: objectstore: read of a pending object " + o.id.String())
	}
}

// Bytes returns the payload where it lies, and keeps it there for as long as
// the object lives: where it could be moved to disk, a [View] asks less. The
// caller must not write to it and must not read it after it released its
// reference: the memory is then used for other objects, or not there. Panics
// for a pending object, and for one on disk.
func (o *Object) Bytes() []byte {
	o.mustBeFinal()
	if o.residence != nil {
		return o.keep()
	}
	if l := o.lost(); l != nil {
		return l.encoded
	}
	return o.payload
}

// Info is what there is to say of a final object besides its payload.
type Info struct {
	Encoding abi.Encoding
	Meta     uint32
	Len      int64 // of the payload, in bytes
	Refs     int   // references in the value
	Mappable bool  // Pin works, once the payload is in memory
}

// Info describes the object. One whose payload was lost is an ERROR value, of
// code ObjectLost, from the moment that somebody wanted to read it, and so is
// one that was freed. Panics for
// a pending object.
func (o *Object) Info() Info {
	o.mustBeFinal()
	if l := o.lost(); l != nil {
		return Info{Encoding: abi.EncodingError, Len: int64(len(l.encoded))}
	}
	return Info{Encoding: o.encoding, Meta: o.meta, Len: o.length, Refs: len(o.table), Mappable: o.mappable}
}

// References returns how many references there are to the object, whoever has
// them. The caller has one.
func (o *Object) References() int64 { return o.refs.Load() }

// Refs returns the objects that the value names, in order. The slice and the
// references belong to the object: the caller retains what it keeps. Panics
// for a pending object.
func (o *Object) Refs() []*Object {
	o.mustBeFinal()
	return o.table
}

// Err returns the failure of a failed object, or why its payload is lost, and
// nil for another. The
// payload may come from a guest: one that is not an error's encoding gives a
// CodeInternal error that says so. Panics for a pending object.
func (o *Object) Err() *wray.Error {
	o.mustBeFinal()
	if o.encoding != abi.EncodingError {
		if l := o.lost(); l != nil {
			return l.err
		}
		return nil
	}
	return DecodeFailure(o.payload)
}

// Header describes the object in the form that travels. Panics for a pending
// object.
func (o *Object) Header() Header {
	o.mustBeFinal()
	i := o.Info()
	h := Header{Encoding: i.Encoding, Meta: i.Meta, Len: uint64(i.Len)}
	for _, r := range o.table[:i.Refs] {
		h.Refs = append(h.Refs, r.id)
	}
	return h
}

// TrySeal gives a pending object the value v, as [Store.TryPut] would; a value
// of encoding ERROR fails it. Watches are notified before TrySeal returns.
//
// Errors: those of TryPut, less ErrExists; ErrSealed, when somebody was first.
func (o *Object) TrySeal(v Value) error {
	if err := o.store.admits(&v); err != nil {
		return err
	}
	if o.Ready() {
		return ErrSealed
	}
	v.hold()
	kept := false
	defer func() {
		if !kept {
			v.letGo()
		}
	}()
	r, err := o.store.take(v.Size())
	if err != nil {
		return err
	}
	err = o.sealInto(v, r)
	kept = err == nil
	return err
}

// sealInto gives o the value v in the room r, which it uses up.
func (o *Object) sealInto(v Value, r room) error {
	var b body
	steps := v.Step != nil && len(v.Payload) > StepBytes
	if steps { // while nobody waits for the claim: there may be no end to it
		b = o.store.copyIn(o, v.Payload, r, v.Step)
	}
	if err := o.claim(v.Refs); err != nil {
		if steps {
			o.store.giveBackBody(b)
			o.store.grant()
		} else {
			o.store.giveBack(r)
		}
		return err
	}
	if !steps {
		b = o.store.copyIn(o, v.Payload, r, nil)
	}
	o.fillHeld(v.Encoding, v.Meta, v.table(), b)
	o.publish()
	return nil
}

// SealAs gives the pending object o the value of the final object of, without
// copying where that has a segment: the two share it, and it goes with the
// later of them. While two share it, neither can be moved to disk. Errors: as
// TrySeal, and ErrSpilled, where the value of of is on disk.
func (o *Object) SealAs(of *Object) error {
	of.mustBeFinal()
	if o.store != of.store {
		panic("BUG: objectstore: value of an object of another store " + of.id.String())
	}
	v, err := of.View()
	if err != nil {
		return err
	}
	info := of.Info()
	if v.segment == nil {
		return o.TrySeal(Value{Encoding: info.Encoding, Meta: info.Meta, Payload: v.payload, Refs: of.table[:info.Refs]})
	}
	charge := objectCost + int64(len(of.table))*refCost
	if err := o.claim(of.table); err != nil {
		v.Close()
		return err
	}
	// The bytes are there already: to wait for room for so little could be to
	// wait for oneself.
	o.store.space.addAnyway(charge)
	// The object takes over the view's use of the segment.
	o.fill(of.encoding, of.meta, of.table, body{payload: v.payload, segment: v.segment, charge: charge})
	o.publish()
	return nil
}

// Fail gives a pending object the failure e, cut to a bounded size. It needs
// no room: a task must be able to fail in a full store. ErrSealed: somebody
// was first.
func (o *Object) Fail(e *wray.Error) error {
	if err := o.claim(nil); err != nil {
		return err
	}
	p := EncodeFailure(e)
	o.fill(abi.EncodingError, 0, nil, o.store.copyIn(o, p, o.store.takeAnyway(Size{Payload: int64(len(p))}), nil))
	o.publish()
	return nil
}

// claim makes the caller the one who may fill o. A value that names the object
// it is to be the value of could never be released, so it is refused.
func (o *Object) claim(refs []*Object) error {
	for _, r := range refs {
		if r == o {
			return wray.Errorf(wray.CodeBadArgument, "the value of object %v refers to itself", o.id)
		}
	}
	if !o.state.CompareAndSwap(uint32(Pending), uint32(claimed)) {
		return ErrSealed
	}
	return nil
}

// body is a payload in its place, with what is to be given back for it.
type body struct {
	payload []byte
	segment *segment
	charge  int64
	sums    []uint32 // of the payload's chunks, as records have them; nil: not taken
}

// fill writes what never changes after. Only the goroutine that claimed or
// made o may call it.
func (o *Object) fill(e abi.Encoding, meta uint32, refs []*Object, b body) {
	o.fillHeld(e, meta, retained(refs), b)
}

// retained returns refs with a reference each.
func retained(refs []*Object) []*Object {
	if len(refs) == 0 {
		return nil
	}
	table := make([]*Object, len(refs))
	for i, r := range refs {
		r.Retain()
		table[i] = r
	}
	return table
}

// fillHeld is fill with a table whose references o takes over.
func (o *Object) fillHeld(e abi.Encoding, meta uint32, table []*Object, b body) {
	o.encoding, o.meta = e, meta
	o.payload, o.segment, o.charge = b.payload, b.segment, b.charge
	o.length, o.mappable = int64(len(b.payload)), b.segment.mappable()
	o.table = table
	o.settle(b.sums)
}

// publish makes a claimed and filled object final and tells who watches.
func (o *Object) publish() {
	o.mu.Lock()
	o.state.Store(uint32(finalState(o.encoding)))
	list := o.watches.takeAll()
	o.mu.Unlock()
	list.notify(o)
}

// Wait returns when the object is ready, or with the cause of ctx's end. The
// caller keeps its reference meanwhile.
func (o *Object) Wait(ctx context.Context) error {
	if o.Ready() {
		return nil
	}
	done := make(chan struct{})
	w := o.Watch(WatcherFunc(func(*Object) { close(done) }))
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		w.Cancel()
		return context.Cause(ctx)
	}
}
