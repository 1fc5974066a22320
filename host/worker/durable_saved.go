package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// What is on record of a durable actor beside its memory: values, what it refers
// to, calls and their replies.

// savedRef is what a handle, or a reference in a value, stands for.
type savedRef struct {
	Kind   uint8        `cbor:"1,keyasint"`
	Object statelog.Key `cbor:"2,keyasint"`
	Name   string       `cbor:"3,keyasint,omitempty"` // of a refActor
}

// Kinds of savedRef.
const (
	refObject = iota + 1
	refSelf   // the actor
	refLost   // what does not outlive the worker: a result to come, a stream, an actor that is not durable
	refActor  // a durable actor
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

// savedBlob is a value beside what refers to it.
type savedBlob struct {
	Key  statelog.Key `cbor:"1,keyasint"`
	Data []byte       `cbor:"2,keyasint"`
}

// savedReply is what a call or a task gave.
type savedReply struct {
	Failure []byte      `cbor:"1,keyasint,omitempty"`
	Results []savedRef  `cbor:"2,keyasint,omitempty"`
	Objects []savedBlob `cbor:"3,keyasint,omitempty"`
}

// savedCall is a call that is to be run again.
type savedCall struct {
	Method  string        `cbor:"1,keyasint"`
	Name    string        `cbor:"2,keyasint"`
	Timeout time.Duration `cbor:"3,keyasint"`
	Results int           `cbor:"4,keyasint"`
	Args    []savedArg    `cbor:"5,keyasint"`
	Objects []savedBlob   `cbor:"6,keyasint"`
}

type savedArg struct {
	Encoding uint32    `cbor:"1,keyasint"`
	Meta     uint32    `cbor:"2,keyasint"`
	Payload  []byte    `cbor:"3,keyasint,omitempty"`
	Ref      *savedRef `cbor:"4,keyasint,omitempty"`
}

// savedOptions are those that the actor was made with.
type savedOptions struct {
	CPU        wray.CPU      `cbor:"1,keyasint"`
	Memory     int64         `cbor:"2,keyasint"`
	Restarts   int           `cbor:"3,keyasint"`
	Tries      int           `cbor:"4,keyasint"`
	MaxPending int           `cbor:"5,keyasint"`
	Idle       time.Duration `cbor:"6,keyasint"`
	Custom     []wray.Custom `cbor:"7,keyasint,omitempty"`
}

func (a *actor) options() savedOptions {
	t := a.create
	return savedOptions{CPU: t.resources.CPU, Memory: t.memory, Restarts: t.restarts, Tries: a.tries, MaxPending: a.maxPending, Idle: a.idle, Custom: a.custom}
}

// saver makes blobs of values.
type saver struct {
	a     *actor
	seen  map[statelog.Key]bool
	blobs []statelog.Blob
	deep  bool // values refer to each other through too many
}

var errDeep = &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("a durable actor refers to a value through more than %d others", maxDepth),
	Limit: &wray.Limit{Name: "values between a durable actor and a value", Value: maxDepth},
	Hint:  "refer to what belongs together from one value"}

// ref returns what stands for r.
func (s *saver) ref(r objectstore.Ref, depth int) savedRef {
	o, ok := r.(*objectstore.Object)
	if ok && o.Attachment() != nil {
		switch b, _ := o.Attachment().(*actor); {
		case b == s.a:
			return savedRef{Kind: refSelf}
		case b != nil && b.durable:
			return savedRef{Kind: refActor, Name: b.create.name}
		}
		return savedRef{Kind: refLost}
	}
	if !ok || o.State() != objectstore.Sealed {
		return savedRef{Kind: refLost}
	}
	k := keyOf(o.ID())
	if s.deep = s.deep || depth > maxDepth; !s.seen[k] && !s.deep {
		s.seen[k] = true
		var refs []savedRef
		for _, r := range o.Refs() {
			refs = append(refs, s.ref(r, depth+1))
		}
		s.blobs = append(s.blobs, statelog.Blob{Key: k, Data: func() ([]byte, error) { return s.a.valueOf(o, refs) }})
	}
	return savedRef{Kind: refObject, Object: k}
}

// inline returns the blobs, with what they hold.
func (s *saver) inline() ([]savedBlob, error) {
	if s.deep {
		return nil, errDeep
	}
	var list []savedBlob
	for _, b := range s.blobs {
		data, err := b.Data()
		if err != nil {
			return nil, err
		}
		list = append(list, savedBlob{b.Key, data})
	}
	return list, nil
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

// madeAgain are the objects of a log that are in the store again.
type madeAgain struct {
	a    *actor
	of   map[statelog.Key]*objectstore.Object // each with a reference
	blob func(k statelog.Key) ([]byte, error) // where they are
}

func (a *actor) again(blob func(statelog.Key) ([]byte, error)) *madeAgain {
	return &madeAgain{a: a, of: map[statelog.Key]*objectstore.Object{}, blob: blob}
}

func (m *madeAgain) release() {
	for _, o := range m.of {
		o.Release()
	}
}

// lost returns an object that stands for what is not there any more.
func (m *madeAgain) lost(cause *wray.Error) (*objectstore.Object, error) {
	w := m.a.job.w
	o, err := w.store.Declare(w.newID())
	if err != nil {
		return nil, err
	}
	_ = o.Fail(m.a.job.named(&wray.Error{Code: wray.CodeObjectLost, Cause: cause,
		Message: "what a durable actor referred to did not outlive the worker",
		Hint:    "of what such an actor keeps references to, values and durable actors are put on record, and results to come, streams and other actors are not"}, m.a.create.name, 0))
	return o, nil
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
		return m.lost(nil)
	case refLost:
		return m.lost(nil)
	case refActor:
		o, err := m.a.job.durableActor(r.Name)
		if err != nil || o == nil {
			return m.lost(err)
		}
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
	b, err := m.blob(r.Object)
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

// inline has values made again that lie beside what refers to them.
func (a *actor) inline(list []savedBlob) *madeAgain {
	m := make(map[statelog.Key][]byte, len(list))
	for _, b := range list {
		m[b.Key] = b.Data
	}
	return a.again(func(k statelog.Key) ([]byte, error) {
		b, ok := m[k]
		if !ok {
			return nil, errBadRecord
		}
		return b, nil
	})
}

// encodeReply returns the results of a call, or its failure, as bytes.
func (a *actor) encodeReply(results []*objectstore.Object, failure *wray.Error) ([]byte, error) {
	var r savedReply
	put := saver{a: a, seen: map[statelog.Key]bool{}}
	for _, o := range results {
		if e := o.Err(); e != nil && failure == nil {
			failure = e
		}
		if failure == nil {
			r.Results = append(r.Results, put.ref(o, 0))
		}
	}
	var err error
	if failure != nil {
		r = savedReply{Failure: objectstore.EncodeFailure(failure)}
	} else if r.Objects, err = put.inline(); err != nil {
		return nil, err
	}
	return cbor.Marshal(r)
}

// giveReply gives results what the reply says.
func (a *actor) giveReply(reply []byte, results []*objectstore.Object) error {
	var r savedReply
	if err := savedMode.Unmarshal(reply, &r); err != nil {
		return fmt.Errorf("%w: %v", errBadRecord, err)
	}
	if r.Failure != nil {
		e := objectstore.DecodeFailure(r.Failure)
		for _, o := range results {
			_ = o.Fail(e)
		}
		return nil
	}
	if len(r.Results) != len(results) {
		return errBadRecord
	}
	made := a.inline(r.Objects)
	defer made.release()
	for i, o := range results {
		v, err := made.ref(r.Results[i], 0)
		if err != nil {
			return err
		}
		seal(o, v)
		v.Release()
	}
	return nil
}

// encodeCall returns what callAgain reads.
func (a *actor) encodeCall(t *task) ([]byte, error) {
	c := savedCall{Method: t.fn.name, Name: t.name, Timeout: t.timeout, Results: len(t.results)}
	put := saver{a: a, seen: map[statelog.Key]bool{}}
	for i := range t.args {
		arg := &t.args[i]
		s := savedArg{Encoding: uint32(arg.encoding), Meta: arg.meta, Payload: arg.payload}
		if arg.object != nil {
			r := put.ref(arg.object, 0)
			s = savedArg{Ref: &r}
		}
		c.Args = append(c.Args, s)
	}
	var err error
	if c.Objects, err = put.inline(); err != nil {
		return nil, err
	}
	return cbor.Marshal(c)
}

// callAgain returns the call that a record says is not finished.
func (a *actor) callAgain(body []byte) (t *task, err error) {
	var c savedCall
	if err := savedMode.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRecord, err)
	}
	m := a.create.fn.module
	d, ok := m.declByName[c.Method]
	if !ok || c.Results > maxResults {
		return nil, errBadRecord
	}
	w := a.job.w
	t = &task{id: w.newID(), job: a.job, fn: &function{module: m, name: c.Method, index: m.declared[d].index}, name: c.Name,
		timeout: c.Timeout, actor: a, tries: a.tries}
	defer func() {
		if err != nil {
			t.release()
		}
	}()
	made := a.inline(c.Objects)
	defer made.release()
	for _, s := range c.Args {
		arg := arg{encoding: abi.Encoding(s.Encoding), meta: s.Meta, payload: s.Payload}
		if s.Ref != nil {
			if arg.object, err = made.ref(*s.Ref, 0); err != nil {
				return nil, err
			}
		}
		t.args = append(t.args, arg)
	}
	for i := range c.Results {
		o, err := w.declare(t, i)
		if err != nil {
			return nil, err
		}
		t.results = append(t.results, o)
	}
	return t, nil
}

// durableActor returns the durable actor called name, with a reference for the
// caller: the job's, or one that an earlier job left, which begins to live again.
// nil: there is none.
func (j *job) durableActor(name string) (*objectstore.Object, *wray.Error) {
	there := func() *objectstore.Object {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.actorLocked(name)
	}
	w := j.w
	if o := there(); o != nil || w.cfg.State == nil {
		return o, nil
	}
	j.opening.Lock()
	defer j.opening.Unlock()
	if o := there(); o != nil { // somebody was faster
		return o, nil
	}
	files, err := w.cfg.State.Find(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, logFailure(name, err)
	}
	// Any class: the log says which.
	rec, err := w.openRecord(name, files, statelog.Identity{Module: j.byName[""].program(), Name: name})
	if err != nil {
		return nil, logFailure(name, err)
	}
	leave := func() {
		_ = rec.Log().Close()
		w.cfg.State.Release(name)
	}
	if rec.State() == nil {
		leave()
		return nil, nil
	}
	var s savedActor
	n, e := j.lookup("", rec.Log().Identity().Class)
	if err := savedMode.Unmarshal(rec.State(), &s); err != nil || e != abi.Success {
		leave()
		return nil, logFailure(name, errBadRecord)
	}
	f, opt := j.function(n), s.Made
	t := &task{id: w.newID(), job: j, fn: f, name: name, memory: opt.Memory, restarts: opt.Restarts,
		flags:     abi.SpecActor | abi.SpecNamed | abi.SpecDurable | abi.SpecDetached | abi.SpecGetIfExists,
		resources: wray.Resources{CPU: opt.CPU, Memory: opt.Memory}}
	a := newActor(t)
	t.makes = a
	a.durable, a.rec = true, rec
	a.tries, a.maxPending, a.idle, a.custom = opt.Tries, opt.MaxPending, opt.Idle, opt.Custom
	o, err := w.declare(t, 0)
	if err != nil {
		leave()
		return nil, t.asError(err)
	}
	t.results = append(t.one[:0], o)
	j.mu.Lock()
	if j.actors == nil {
		j.actors = map[string]*actor{}
	}
	if have := j.actorLocked(name); have != nil {
		j.mu.Unlock()
		t.release()
		leave()
		return have, nil
	}
	j.actors[name] = a
	a.named = true
	j.mu.Unlock()
	o.Retain()
	spec := scheduler.Spec{ID: t.id, Job: j.id, Name: name, Resources: t.resources, Custom: opt.Custom, Retries: opt.Restarts,
		Results: []wray.ID{o.ID()}}
	if err := w.submit(nil, t, &spec); err != nil {
		a.unname()
		t.release()
		o.Release()
		leave()
		return nil, t.asError(err)
	}
	return o, nil
}
