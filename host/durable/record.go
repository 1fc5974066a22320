// Package durable keeps what a durable actor is, and what it did and was asked
// to do, so that each effect inside wray happens once whatever crashes when.
//
// # Calls
//
// An actor's calls are numbered. What call n of an actor does outside it, its
// calls of others and its submissions, are its effects, numbered as it makes
// them: (actor, n, i) is the [ID] of an effect, the same whenever the call is
// run again. A [Record] has, on stable storage,
//
//   - the state that the last call left, which a commit replaces;
//   - of a call under way, once an effect is about to leave: what was asked, and
//     all that the call has seen since it began (its clock and randomness, which
//     effect was answered when, and with what), and a digest of each effect;
//   - for each caller that is durable itself, and for each key that a caller
//     chose, the replies that the caller may ask for again.
//
// # Why that is exactly once
//
// No effect leaves before it is on record with all that led to it. So a call
// that is run again after a crash sees the same, up to the last effect that may
// have left, and makes the same effects, with the same IDs: the digests are
// compared, and where they differ the call ends with an error of
// wray.CodeDiverged and makes none. Whoever receives an effect commits its reply
// together with the state that it led to, and gives a repeated effect that reply.
// A caller begins call n+1 when n is committed, which is after all of n's effects
// were answered: so an effect of call n+1, or an acknowledgement, tells the
// receiver that replies to n's are asked for no more, and an effect of an older
// call is refused.
package durable

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
)

// UID tells an actor from all others, those that had its name before included.
type UID [16]byte

// ID names an effect.
type ID struct {
	_     struct{} `cbor:",toarray"`
	Actor UID
	Call  uint64 // of the actor
	Index uint32 // of the effect in the call
}

// Digest stands for what an effect asks of whom. The zero Digest, of a call with a
// key from another node, is not known, and like any.
type Digest [16]byte

// Request is a call that an actor takes.
type Request struct {
	ID     *ID    `cbor:"1,keyasint,omitempty"` // of a durable actor's effect, or nil
	Epoch  uint64 `cbor:"2,keyasint,omitempty"` // of that actor's log
	Key    string `cbor:"3,keyasint,omitempty"` // chosen by the caller, or ""
	Digest Digest `cbor:"4,keyasint"`
}

// Start is what a call sees of the world when it begins.
type Start struct {
	Seed [32]byte `cbor:"1,keyasint"` // of all its randomness
	Wall int64    `cbor:"2,keyasint"` // ns since 1970
	Mono int64    `cbor:"3,keyasint"` // ns of the actor's own clock
}

// Kind is what ended a wait of a call.
type Kind uint8

// The kinds.
const (
	Replied  Kind = 1 // an effect was answered
	TimeUp   Kind = 2 // a timer of the call
	Canceled Kind = 3 // whoever called does not want the answer any more
)

// Outcome is what a call met when it waited.
type Outcome struct {
	Kind  Kind   `cbor:"1,keyasint"`
	Index uint32 `cbor:"2,keyasint,omitempty"` // of the effect that was answered
	Wall  int64  `cbor:"3,keyasint"`
	Mono  int64  `cbor:"4,keyasint"`
	Reply []byte `cbor:"5,keyasint,omitempty"`

	// Value makes Reply when it is wanted, where that is nil.
	Value func() ([]byte, error) `cbor:"-"`
}

func (o *Outcome) fill() (err error) {
	if o.Reply == nil && o.Value != nil {
		o.Reply, err = o.Value()
	}
	return err
}

// entry is one of two things, in the order in which the call met them.
type entry struct {
	Effect  *Digest  `cbor:"1,keyasint,omitempty"`
	Outcome *Outcome `cbor:"2,keyasint,omitempty"`
}

// note is what a note of the log says. Call is of the first one.
type note struct {
	Call    *begun  `cbor:"1,keyasint,omitempty"`
	Entries []entry `cbor:"2,keyasint"`
}

type begun struct {
	Request Request `cbor:"1,keyasint"`
	Start   Start   `cbor:"2,keyasint"`
	Body    []byte  `cbor:"3,keyasint"`
}

// run is the call under way.
type run struct {
	begun
	entries  []entry
	at       int // the next that a run sees again; len(entries): it is ahead of them
	kept     int // entries on stable storage
	onRecord bool
	effects  uint32
}

// Bounds.
const (
	// MaxKeys is how many of the keys that callers chose are remembered, the
	// latest ones.
	MaxKeys = 4096
	// MaxReplies bounds the replies kept for durable callers.
	MaxReplies = 1 << 16
	// MaxKey bounds a key, in bytes.
	MaxKey     = 256
	maxEffects = 1 << 16
)

// Record is a durable actor on stable storage. It is not for concurrent use.
type Record struct {
	log   *statelog.Log
	uid   UID
	calls uint64 // committed
	state []byte // nil: there is none
	run   *run   // nil: no call is under way

	rows  map[UID]*row
	n     int // replies in rows
	keys  map[string]*answer
	order []*answer // those in keys, oldest first
	drop  []statelog.Key
}

// row is what is known of a durable caller.
type row struct {
	call, epoch uint64
	replies     map[uint32]*answer
}

// answer is a reply that may be asked for again.
type answer struct {
	blob   statelog.Key
	digest Digest
	call   uint64 // of this actor, that gave it
	key    string
}

// savedAnswer is an answer in the log.
type savedAnswer struct {
	Request Request `cbor:"1,keyasint"`
	Call    uint64  `cbor:"2,keyasint"`
	Reply   []byte  `cbor:"3,keyasint"`
}

// saved is a commit in the log.
type saved struct {
	UID   UID    `cbor:"1,keyasint"`
	Calls uint64 `cbor:"2,keyasint"`
	State []byte `cbor:"3,keyasint"`
}

// decoding reads what a log says, which may be anything.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 1 << 24, MaxNestedLevels: 8}.DecMode()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return m
}()

// Open reads the record that log has. uid names the actor where it is new.
func Open(log *statelog.Log, uid UID) (*Record, error) {
	r := &Record{log: log, uid: uid, rows: map[UID]*row{}, keys: map[string]*answer{}}
	last := log.Last()
	if last == nil {
		return r, nil
	}
	damaged := func(what string, err error) error {
		return fmt.Errorf("%w: %s makes no sense: %v", statelog.ErrDamaged, what, err)
	}
	var s saved
	if err := decoding.Unmarshal(last, &s); err != nil {
		return nil, damaged("the last commit", err)
	}
	r.uid, r.calls, r.state = s.UID, s.Calls, s.State
	for k := range log.Kept {
		b, err := log.Blob(k)
		if err != nil {
			return nil, err
		}
		var a savedAnswer
		if err := decoding.Unmarshal(b, &a); err != nil {
			return nil, damaged("a reply", err)
		}
		r.remember(&a.Request, &answer{blob: k, digest: a.Request.Digest, call: a.Call})
	}
	slices.SortFunc(r.order, func(a, b *answer) int { return cmp.Compare(a.call, b.call) })
	for _, b := range log.Notes() {
		var n note
		if err := decoding.Unmarshal(b, &n); err != nil {
			return nil, damaged("a note", err)
		}
		if (n.Call != nil) != (r.run == nil) {
			return nil, damaged("a note", errors.New("it has no beginning"))
		}
		if n.Call != nil {
			r.run = &run{begun: *n.Call, onRecord: true}
		}
		for _, e := range n.Entries {
			if (e.Effect == nil) == (e.Outcome == nil) {
				return nil, damaged("a note", errors.New("an entry is not one of two things"))
			}
		}
		r.run.entries = append(r.run.entries, n.Entries...)
		r.run.kept = len(r.run.entries)
	}
	return r, nil
}

// UID returns the actor's.
func (r *Record) UID() UID { return r.uid }

// State returns what the last commit left, nil where there is none.
func (r *Record) State() []byte { return r.state }

// Log returns where the record is.
func (r *Record) Log() *statelog.Log { return r.log }

// Unfinished returns the body of the call that is to be run again before
// anything else is done, of which an effect may have left; nil: there is none.
func (r *Record) Unfinished() (body []byte, req Request) {
	if r.run == nil || !r.run.onRecord {
		return nil, Request{}
	}
	return r.run.Body, r.run.Request
}

func diverged(what string) *wray.Error {
	return &wray.Error{Code: wray.CodeDiverged, Message: "a durable actor's call was run again, and went another way: " + what,
		Hint: "what a method does to other actors may depend on its state, its arguments, its clock, its randomness and what it waited for, and not on files, or on references to results that were not there yet"}
}

// Repeat looks for the reply to a request that was answered before. An error
// says why the request is not to be answered at all.
func (r *Record) Repeat(q *Request) (reply []byte, known bool, err error) {
	var a *answer
	if id := q.ID; id != nil {
		w := r.rows[id.Actor]
		switch {
		case w == nil:
			if r.n >= MaxReplies {
				return nil, false, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("a durable actor keeps %d replies for durable callers", r.n),
					Limit: &wray.Limit{Name: "replies kept for durable callers", Value: MaxReplies},
					Hint:  "callers that are done for good end when they are killed"}
			}
		case id.Call < w.call || q.Epoch < w.epoch:
			return nil, false, &wray.Error{Code: wray.CodeActorDied,
				Message: fmt.Sprintf("the caller's call %d, of its life %d, calls late: it is at call %d, of its life %d", id.Call, q.Epoch, w.call, w.epoch)}
		case id.Call > w.call:
			r.forget(id.Actor, w)
			w = nil
		}
		if w != nil {
			w.epoch = q.Epoch
			a = w.replies[id.Index]
		}
	}
	if a == nil && q.Key != "" {
		a = r.keys[q.Key]
	}
	if a == nil {
		return nil, false, nil
	}
	if unknown := (Digest{}); a.digest != q.Digest && a.digest != unknown && q.Digest != unknown {
		if q.ID != nil {
			return nil, false, diverged("it asks something else of this actor")
		}
		return nil, false, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("the key %q was that of a call of another method, or with other arguments", q.Key),
			Hint: "give each call a key of its own, and repeat a call as it was"}
	}
	b, err := r.log.Blob(a.blob)
	if err != nil {
		return nil, false, err
	}
	var s savedAnswer
	if err := decoding.Unmarshal(b, &s); err != nil {
		return nil, false, fmt.Errorf("%w: a reply: %v", statelog.ErrDamaged, err)
	}
	return s.Reply, true, nil
}

// Known reports whether Repeat has an answer, be it a refusal, to an effect of
// another actor. It changes nothing.
func (r *Record) Known(q *Request) bool {
	w := r.rows[q.ID.Actor]
	return q.Key != "" && r.keys[q.Key] != nil || w != nil && (q.ID.Call < w.call || q.Epoch < w.epoch || q.ID.Call == w.call && w.replies[q.ID.Index] != nil)
}

// UnderWay reports whether the call under way was asked for by the effect id.
func (r *Record) UnderWay(id *ID) bool {
	return r.run != nil && r.run.Request.ID != nil && *r.run.Request.ID == *id
}

// remember has the reply to q found by Repeat.
func (r *Record) remember(q *Request, a *answer) {
	if id := q.ID; id != nil {
		w := r.rows[id.Actor]
		if w != nil && id.Call > w.call { // a call that was finished after a crash comes without Repeat
			r.forget(id.Actor, w)
			w = nil
		}
		if w != nil && id.Call < w.call {
			r.drop = append(r.drop, a.blob)
			return
		}
		if w == nil {
			w = &row{call: id.Call, epoch: q.Epoch, replies: map[uint32]*answer{}}
			r.rows[id.Actor] = w
		}
		w.epoch = max(w.epoch, q.Epoch)
		if w.replies[id.Index] == nil {
			r.n++
		}
		w.replies[id.Index] = a
		return
	}
	a.key = q.Key
	r.keys[q.Key] = a
	r.order = append(r.order, a)
}

// forget lets the replies to a caller go, with the next commit.
func (r *Record) forget(u UID, w *row) {
	for _, a := range w.replies {
		r.drop = append(r.drop, a.blob)
	}
	r.n -= len(w.replies)
	delete(r.rows, u)
}

// Acknowledge says that the actor u will not ask again for replies to its calls
// up to the one given.
func (r *Record) Acknowledge(u UID, call uint64) {
	if w := r.rows[u]; w != nil && w.call <= call {
		r.forget(u, w)
	}
}

// Begin begins a call, or begins the one under way again, and returns what it
// sees and its number.
func (r *Record) Begin(q Request, start Start) (Start, uint64) {
	if r.run == nil {
		r.run = &run{begun: begun{Request: q, Start: start}}
	}
	r.run.at, r.run.effects = 0, 0
	return r.run.Start, r.calls + 1
}

// Effect takes note that the call is about to have an effect, which must not
// leave before Persist. It reports whether it is on record from an earlier run of
// the call, and so may have left.
func (r *Record) Effect(d Digest) (id ID, again bool, err error) {
	n := r.run
	id = ID{Actor: r.uid, Call: r.calls + 1, Index: n.effects}
	if n.effects++; n.effects > maxEffects {
		return id, false, &wray.Error{Code: wray.CodeLimitExceeded, Message: "a durable actor's call made many others",
			Limit: &wray.Limit{Name: "calls and submissions in a durable actor's call", Value: maxEffects}, Hint: "spread them over several calls"}
	}
	if n.at < len(n.entries) {
		if e := n.entries[n.at].Effect; e == nil || *e != d {
			return id, false, diverged(fmt.Sprintf("its effect %d is another", id.Index))
		}
		n.at++
		return id, true, nil
	}
	n.entries = append(n.entries, entry{Effect: &d})
	n.at++
	return id, false, nil
}

// Answered reports whether the record has the outcome of an effect, which then
// need not leave.
func (r *Record) Answered(index uint32) bool {
	for i := range r.run.entries {
		if o := r.run.entries[i].Outcome; o != nil && o.Kind == Replied && o.Index == index {
			return true
		}
	}
	return false
}

// Next returns what the call met when it waited here before, or nil: it has not
// been here.
func (r *Record) Next() (*Outcome, error) {
	n := r.run
	if n.at == len(n.entries) {
		return nil, nil
	}
	o := n.entries[n.at].Outcome
	if o == nil {
		return nil, diverged("it waits where it had an effect")
	}
	n.at++
	return o, o.fill()
}

// Met takes note of what the call met, where Next returned nil.
func (r *Record) Met(o Outcome) {
	r.run.entries = append(r.run.entries, entry{Outcome: &o})
	r.run.at++
}

// Persist returns when all that the call saw and did is on stable storage. body
// says what the call is, for Unfinished.
func (r *Record) Persist(body func() ([]byte, error)) error {
	n := r.run
	if n.onRecord && n.kept == len(n.entries) {
		return nil
	}
	var s note
	if !n.onRecord {
		if n.Body == nil {
			b, err := body()
			if err != nil {
				return err
			}
			n.Body = b
		}
		s.Call = &n.begun
	}
	s.Entries = n.entries[n.kept:]
	for _, e := range s.Entries {
		if e.Outcome != nil {
			if err := e.Outcome.fill(); err != nil {
				return err
			}
		}
	}
	b, err := cbor.Marshal(s)
	if err != nil {
		return err
	}
	if err := r.log.Note(b); err != nil {
		return err
	}
	n.onRecord, n.kept = true, len(n.entries)
	return nil
}

// OnRecord reports whether an effect of the call under way may have left.
func (r *Record) OnRecord() bool { return r.run != nil && r.run.onRecord }

// Ended checks, when the call has returned, that it did all that it had done
// before.
func (r *Record) Ended() error {
	if r.run.at < len(r.run.entries) {
		return diverged("it ends where it had gone on")
	}
	return nil
}

// Drop forgets a call of which no effect has left.
func (r *Record) Drop() {
	if !r.OnRecord() {
		r.run = nil
	}
}

// Commit puts what the actor is on stable storage, state with the blobs that it
// refers to, and ends the call under way with a reply, which is kept where it
// may be asked for again. On an error nothing has changed, unless that is
// statelog.ErrBroken: then the record is to be opened anew.
func (r *Record) Commit(state []byte, blobs []statelog.Blob, reply []byte) error {
	c := statelog.Change{Blobs: blobs, Drop: r.drop}
	calls := r.calls
	var out []*answer
	var asked []Request
	if r.run != nil {
		calls++
		q := r.run.Request
		if q.ID != nil {
			asked = append(asked, Request{ID: q.ID, Epoch: q.Epoch, Digest: q.Digest})
		}
		if q.Key != "" {
			asked = append(asked, Request{Key: q.Key, Digest: q.Digest})
			if len(r.order) >= MaxKeys {
				c.Drop = append(c.Drop[:len(c.Drop):len(c.Drop)], r.order[0].blob)
			}
		}
		for i := range asked {
			b, err := cbor.Marshal(savedAnswer{Request: asked[i], Call: calls, Reply: reply})
			if err != nil {
				return err
			}
			a := &answer{blob: asked[i].blob(), digest: q.Digest, call: calls}
			out = append(out, a)
			c.Keep = append(c.Keep, statelog.Blob{Key: a.blob, Data: func() ([]byte, error) { return b, nil }})
		}
	}
	var err error
	if c.Payload, err = cbor.Marshal(saved{UID: r.uid, Calls: calls, State: state}); err != nil {
		return err
	}
	if err := r.log.Commit(c); err != nil {
		return err
	}
	r.calls, r.state, r.drop, r.run = calls, state, nil, nil
	for i := range out {
		if asked[i].Key != "" && len(r.order) >= MaxKeys {
			delete(r.keys, r.order[0].key)
			r.order = slices.Delete(r.order, 0, 1)
		}
		r.remember(&asked[i], out[i])
	}
	return nil
}

// Abort ends the call under way with a reply, and leaves the actor as it was
// before it: what the call did elsewhere is not undone.
func (r *Record) Abort(reply []byte) error { return r.Commit(r.state, r.log.Again(), reply) }

// blob names the reply to q in the log.
func (q *Request) blob() (k statelog.Key) {
	h := sha256.New()
	if q.ID != nil {
		h.Write([]byte{0})
		h.Write(q.ID.Actor[:])
		h.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, q.ID.Call), q.ID.Index))
	} else {
		h.Write([]byte{1})
		h.Write([]byte(q.Key))
	}
	copy(k[:], h.Sum(nil))
	return k
}
