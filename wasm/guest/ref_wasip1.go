package guest

import (
	"context"
	"errors"
	"time"
	"weak"

	"github.com/wray-project/wray/wasm/abi"
)

// A Ref stands for an object: it holds a handle on it, or, where the object
// was a small result that has been read, its bytes. Copies of the pointer are
// the same Ref.
type Ref struct {
	handle   uint32 // first, see track; 0 where the Ref holds its bytes, or failed
	task     uint32 // taskNumber when the handle was given
	flags    refFlags
	slot     uint8 // in its span, see track; of the first in a slab, how many are in it
	encoding uint8 // of what small and more hold, with refKept
	elem     uint8
	length   uint8          // of small
	small    [smallMax]byte // the payload, with refKept, when more is nil
	mark     uint16         // refMark, of one that track has seen

	// No pointers: see loneRef, and slabs.
}

// refMore is what few Refs have.
type refMore struct {
	kept   []byte             // the payload, with refKept, longer than smallMax
	window weak.Pointer[byte] // the mapped payload, which lives as long as any slice of it
	err    error              // with refFailed
	parts  []*Ref             // see NewGroup
	info   rawInfo            // of the object in window
}

type refFlags uint16

const (
	refWatched   refFlags = 1 << iota // an event READY is on its way
	refReady                          // the object, or the next item, is there
	refKept                           // the Ref holds the payload; it has no handle
	refFailed                         // more.err says why there is no object
	refFinalizer                      // the collector will call release
	refResult                         // of a task, so it may be kept
	refLate                           // to be dropped when its event has come
	refSlab                           // it lies in a slab, and not in a loneRef
	refExtra                          // with refSlab: it is in slabExtras
)

const (
	smallMax = 16  // bytes of a result kept inside the Ref
	keptMax  = 256 // bytes of a result kept beside it

	// refMark tells a Ref from other objects, whose last word before a pointer is
	// a pointer or a number: as a part of either it is far beyond what there is.
	refMark = 0xb6a9
)

// ErrStale is the failure of a Ref that was used after the task that got it
// had ended.
var ErrStale = errors.New("the reference belongs to a task that has ended")

// errEmpty is the failure of a group where one object is wanted.
var errEmpty = errors.New("the reference stands for several objects; split it first")

// Failed returns a Ref whose every use fails with err.
func Failed(err error) *Ref {
	return &(&loneRef{Ref{flags: refFailed | refReady}, extra{more: &refMore{err: err}}}).Ref
}

// Group returns a Ref that stands for several objects, which Parts returns.
func Group(parts []*Ref) *Ref {
	return &(&loneRef{Ref{flags: refReady}, extra{more: &refMore{parts: parts, err: errEmpty}}}).Ref
}

// Parts returns the objects of a group, or nil.
func (r *Ref) Parts() []*Ref {
	if m := r.more(); m != nil {
		return m.parts
	}
	return nil
}

// Err returns why r stands for no object, or nil.
func (r *Ref) Err() error {
	switch {
	case r.flags&refFailed != 0:
		return r.more().err
	case r.flags&refKept != 0:
		return nil
	case r.handle == 0:
		return errEmpty
	case r.task != taskNumber:
		return ErrStale
	}
	return nil
}

// Ready reports whether Get would return without waiting, as far as the guest
// knows.
func (r *Ref) Ready() bool { return r.flags&refReady != 0 }

// taskNumber counts the calls of wray_call that run user code. Handles of
// earlier ones were given back.
var taskNumber uint32

// newRef takes over a handle that the host gave.
func newRef(handle uint32, flags refFlags) *Ref {
	r := &(&loneRef{Ref: Ref{handle: handle, task: taskNumber, flags: flags}}).Ref
	own(handle)
	track(r)
	return r
}

// ready is called when r's event READY has come.
func (r *Ref) ready() {
	late := r.flags&refLate != 0
	r.flags = r.flags&^refWatched | refReady
	r.signal()
	if late {
		r.release()
	}
}

// keep takes a small result into r and gives the handle back. The payload of
// such an object needs no host call any more, and its Ref no finalizer.
func (r *Ref) keep(info *rawInfo, data []byte) {
	if r.flags&refResult == 0 || len(data) > keptMax || info.nrefs != 0 || abi.Encoding(info.encoding) == abi.EncodingError {
		return
	}
	r.hold(info, data)
	r.release()
}

// hold copies the payload into r.
func (r *Ref) hold(info *rawInfo, data []byte) {
	if len(data) <= smallMax {
		r.length = uint8(copy(r.small[:], data))
	} else {
		r.setMore(&refMore{kept: append([]byte(nil), data...)})
	}
	r.encoding, r.elem = uint8(info.encoding), uint8(info.meta)
	r.flags |= refKept | refReady
}

// taken is keep where the host has taken the handle back with the same call. data
// has smallMax bytes at most.
func (r *Ref) taken(info *rawInfo, data []byte) {
	untrack(r)
	disown(r.handle)
	r.handle = 0
	r.hold(info, data)
}

// payload returns the bytes that a kept r holds, which nobody changes.
func (r *Ref) payload() []byte {
	if m := r.more(); m != nil {
		return m.kept
	}
	return r.small[:r.length]
}

// release gives r's handle back: now, or, where an event is on its way, when
// that has come, since it names the handle.
func (r *Ref) release() {
	if r.handle == 0 {
		return
	}
	if r.flags&refWatched != 0 {
		r.flags |= refLate
		return
	}
	if r.task == taskNumber {
		untrack(r)
		drop(r.handle)
	}
	r.handle = 0
}

// Drop gives r's handle back now. A stream that is dropped is canceled. r
// must not be used afterwards.
func (r *Ref) Drop() {
	if r.flags&refWatched != 0 {
		takeWatched(r.handle)
		r.flags &^= refWatched
	}
	r.release()
	flushDrops()
	if r.flags&refKept == 0 {
		r.flags |= refFailed
		r.setMore(&refMore{err: errors.New("the reference was dropped")})
	}
	r.signal()
}

// Cancel cancels the task whose result r is, and what that task submitted.
// Where the result is there already, nothing happens.
func (r *Ref) Cancel() error {
	if r.flags&refKept != 0 {
		return nil
	}
	for _, p := range r.Parts() {
		return p.Cancel()
	}
	if err := r.Err(); err != nil {
		return err
	}
	if e := importCancel(r.handle); !ok(e) {
		return Errno(e)
	}
	return nil
}

// live returns a handle for r, putting a kept payload back into the store.
func (r *Ref) live() (uint32, error) {
	if r.flags&refKept == 0 {
		return r.handle, r.Err()
	}
	if r.handle != 0 && r.task == taskNumber {
		r.flags &^= refLate // it was about to be given back
		return r.handle, nil
	}
	v := Value{Encoding: abi.Encoding(r.encoding), Elem: abi.Elem(r.elem), Data: r.payload()}
	p, err := Put(context.Background(), &v)
	if err != nil {
		return 0, err
	}
	untrack(p)
	r.handle, r.task = p.handle, p.task
	p.handle = 0
	track(r)
	return r.handle, nil
}

// Wait waits until n of refs are ready, timeout has passed (none if negative)
// or ctx is done. It returns how many are ready, and ctx's error if that ended
// the wait. Ready tells which.
func Wait(ctx context.Context, refs []*Ref, n int, timeout time.Duration) (int, error) {
	n = min(n, len(refs))
	have := countReady(refs)
	if have >= n {
		return have, nil
	}
	if err := watchAll(refs); err != nil {
		return have, err
	}
	drain() // what is there already was told at once
	if have = countReady(refs); have >= n || timeout == 0 {
		return have, nil
	}
	if timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		n, err := waitFor(limited, refs, n)
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		return n, err
	}
	return waitFor(ctx, refs, n)
}

func waitFor(ctx context.Context, refs []*Ref, n int) (int, error) {
	for {
		have := countReady(refs)
		if have >= n {
			return have, nil
		}
		if err := ctx.Err(); err != nil {
			return have, err
		}
		if err := watchAll(refs); err != nil { // a dispatcher that ended forgot the watches
			return have, err
		}
		links := make([]link, len(refs))
		// Signals count from the first link on; how many are needed is known
		// after the last.
		const many = 1 << 40
		w := &waiter{ch: make(chan struct{}, 1), need: many}
		pending := 0
		for i, r := range refs {
			if !r.Ready() {
				links[i].w = w
				r.besides().waiters.add(&links[i])
				pending++
			}
		}
		w.need += n - (len(refs) - pending) - many
		var err error
		if w.need > 0 {
			err = park(ctx, w)
		}
		for _, r := range refs {
			if p := r.peek(); p != nil {
				p.waiters.remove(w)
			}
		}
		if err != nil {
			return countReady(refs), err
		}
	}
}

func countReady(refs []*Ref) int {
	n := 0
	for _, r := range refs {
		if r.Ready() {
			n++
		}
	}
	return n
}

// watchAll asks for an event for each of refs that has none coming.
func watchAll(refs []*Ref) error {
	if err := openEvents(); err != nil {
		return err
	}
	n := 0
	for _, r := range refs {
		if r.flags&(refReady|refWatched) != 0 {
			continue
		}
		if err := r.Err(); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return nil
	}
	handles := make([]uint32, 0, n)
	for _, r := range refs {
		if r.flags&(refReady|refWatched) == 0 {
			handles = append(handles, r.handle)
			watch(r)
		}
	}
	if e := importObjectWatch(&handles[0], uint32(len(handles))); !ok(e) {
		return Errno(e)
	}
	return nil
}
