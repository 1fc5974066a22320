package objectstore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	wray "github.com/wray-project/wray"
)

// DefaultWindow is how many unread items a stream holds whose maker names no
// number.
const DefaultWindow = 16

// Errors of streams.
var (
	// ErrWindow says that as many items are unread as the stream's window has
	// room for. [Stream.OnRoom] tells when there is room.
	ErrWindow = errors.New("objectstore: stream window is full")

	// ErrDropped says that nobody will read the stream.
	ErrDropped = errors.New("objectstore: stream was dropped")

	// ErrEnded says that the stream has its end already.
	ErrEnded = errors.New("objectstore: stream has ended")
)

// Stream is the results of a task that gives them one by one. An item is known
// by the task and its index, so an attempt that starts over skips what an
// earlier one sealed; an error and the end come in order, after the items.
//
// References count who may read: with the last one the stream is dropped, its
// unread items go and the producer is told. Several may read from one stream;
// each item goes to one of them. The producer's side (Append, Fail, End,
// OnRoom, ItemsDone) needs no reference and works on a dropped stream too.
type Stream struct {
	task   wray.ID
	window int
	refs   atomic.Int64

	mu      sync.Mutex
	unread  []*Object // guarded by mu, as is all that follows; each with a reference
	done    uint64    // items appended; the next one's index
	ended   bool
	dropped bool
	onDrop  func()
	room    func()
	watches streamWatches
}

// NewStream returns the stream of task with one reference, which the caller
// owns. window: unread items before Append refuses; 0: DefaultWindow. onDrop,
// if not nil, is called once, without locks, when the last reference goes
// before the stream has ended: the task may stop.
func NewStream(task wray.ID, window int, onDrop func()) *Stream {
	if window <= 0 {
		window = DefaultWindow
	}
	s := &Stream{task: task, window: window, onDrop: onDrop}
	s.refs.Store(1)
	return s
}

// Task returns the ID of the task whose results these are.
func (s *Stream) Task() wray.ID { return s.task }

// Retain adds a reader's reference. The caller must have one.
func (s *Stream) Retain() {
	if s.refs.Add(1) <= 1 {
		panic("BUG: objectstore: Retain of a dropped stream " + s.task.String())
	}
}

// Release gives a reader's reference back; the last one drops the stream.
func (s *Stream) Release() {
	switch n := s.refs.Add(-1); {
	case n == 0:
		s.drop()
	case n < 0:
		panic("BUG: objectstore: Release of a dropped stream " + s.task.String())
	}
}

func (s *Stream) drop() {
	s.mu.Lock()
	unread, room, onDrop := s.unread, s.room, s.onDrop
	if s.ended {
		onDrop = nil
	}
	s.unread, s.room, s.onDrop, s.dropped = nil, nil, nil, true
	s.watches.takeAll()
	s.mu.Unlock()
	for _, o := range unread {
		o.Release()
	}
	if onDrop != nil {
		onDrop()
	}
	if room != nil {
		room() // whoever waits for room is to learn ErrDropped
	}
}

// ItemsDone returns how many items were appended by all attempts together: the
// index at which an attempt that starts over is to go on.
func (s *Stream) ItemsDone() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// Append adds o, sealed, as item index, and takes over the caller's reference.
// An item that an earlier attempt appended is there already: o is released and
// the result is nil. Errors, on which the reference stays the caller's:
// ErrWindow; ErrDropped; ErrEnded; a *wray.Error of CodeInternal for an index
// that leaves a gap.
func (s *Stream) Append(index uint64, o *Object) error {
	if !o.Ready() {
		panic("BUG: objectstore: pending object as an item of stream " + s.task.String())
	}
	s.mu.Lock()
	switch {
	case s.dropped:
		s.mu.Unlock()
		return ErrDropped
	case index < s.done:
		s.mu.Unlock()
		o.Release()
		return nil
	case s.ended:
		s.mu.Unlock()
		return ErrEnded
	case index > s.done:
		done := s.done
		s.mu.Unlock()
		return wray.Errorf(wray.CodeInternal, "item %d of stream %v came after item %d", index, s.task, int64(done)-1)
	case len(s.unread) >= s.window:
		s.mu.Unlock()
		return ErrWindow
	}
	s.unread = append(s.unread, o)
	s.done++
	watches := s.watches.takeAll()
	s.mu.Unlock()
	watches.notify()
	return nil
}

// End says that there are no further items. ErrEnded: it was said before.
func (s *Stream) End() error { return s.end(nil) }

// Fail adds o, a failed object, as the last item, window or not, and ends the
// stream. It takes over the caller's reference unless it returns ErrEnded; a
// dropped stream releases it.
func (s *Stream) Fail(o *Object) error {
	if o.State() != Failed {
		panic("BUG: objectstore: object without a failure as the last item of stream " + s.task.String())
	}
	return s.end(o)
}

// end closes the stream after last, which may be nil.
func (s *Stream) end(last *Object) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ErrEnded
	}
	s.ended, s.room, s.onDrop = true, nil, nil
	if last != nil && !s.dropped {
		s.unread = append(s.unread, last)
		s.done++
		last = nil
	}
	watches := s.watches.takeAll()
	s.mu.Unlock()
	if last != nil {
		last.Release()
	}
	watches.notify()
	return nil
}

// OnRoom has told called, once, when Append is worth another try: at once
// where there is room, or the stream was dropped; else in the reader's
// goroutine. It must not block. A later OnRoom replaces an earlier one that
// was not called: there is one producer. It is not called once the stream has
// ended.
func (s *Stream) OnRoom(told func()) {
	s.mu.Lock()
	if !s.dropped && len(s.unread) >= s.window {
		s.room = told
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	told()
}

// Next takes the next item out and returns it with a reference, which the
// caller owns. ErrNotReady: it is not there yet, and Watch tells when. The
// error matches wray.ErrEndOfStream after the last item.
func (s *Stream) Next() (*Object, error) {
	s.mu.Lock()
	if len(s.unread) == 0 {
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return nil, wray.ErrEndOfStream
		}
		return nil, ErrNotReady
	}
	o := s.unread[0]
	s.unread[0] = nil
	s.unread = s.unread[1:]
	if len(s.unread) == 0 {
		s.unread = nil
	}
	var room func()
	if len(s.unread) < s.window {
		room, s.room = s.room, nil
	}
	s.mu.Unlock()
	if room != nil {
		room()
	}
	return o, nil
}

// StreamWatcher is told that a stream is worth reading.
type StreamWatcher interface {
	// StreamReady is called at most once for each watch, in the goroutine that
	// appended an item or the end, or in Watch. No lock is held; it must not
	// block. Where several read, somebody else may have been quicker: Next
	// says ErrNotReady again.
	StreamReady(s *Stream)
}

// StreamWatch is a pending notification of a stream.
type StreamWatch struct {
	stream  *Stream
	watcher StreamWatcher
	listed  bool // guarded by stream.mu
}

// Watch has w told, once, when Next is worth a try: at once, before Watch
// returns, where it is already. A watch holds no reference: when the stream is
// dropped it ends unheard. The result cancels it, and is nil where there is
// nothing to cancel.
func (s *Stream) Watch(w StreamWatcher) *StreamWatch {
	s.mu.Lock()
	if len(s.unread) == 0 && !s.ended {
		h := &StreamWatch{stream: s, watcher: w, listed: true}
		s.watches = append(s.watches, h)
		s.mu.Unlock()
		return h
	}
	s.mu.Unlock()
	w.StreamReady(s)
	return nil
}

// Cancel withdraws the notification. True: the watcher was not and will not be
// called. A nil StreamWatch was delivered.
func (h *StreamWatch) Cancel() bool {
	if h == nil {
		return false
	}
	s := h.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.listed {
		return false
	}
	for i, x := range s.watches {
		if x == h {
			s.watches = append(s.watches[:i], s.watches[i+1:]...)
			h.listed = false
			return true
		}
	}
	return false
}

// streamWatches are few: one for each sandbox that reads the stream.
type streamWatches []*StreamWatch

func (l *streamWatches) takeAll() streamWatches {
	t := *l
	*l = nil
	for _, h := range t {
		h.listed = false
	}
	return t
}

func (l streamWatches) notify() {
	for _, h := range l {
		h.watcher.StreamReady(h.stream)
	}
}

// PutItem seals v as an object of its own and appends it as item index: what a
// producer does for each item. Errors: those of [Store.TryPut] and
// [Stream.Append]; nothing is kept on one. An item that an earlier attempt
// appended costs nothing.
func (s *Store) PutItem(to *Stream, id wray.ID, index uint64, v Value) error {
	if err := to.admits(index); err != nil {
		return err
	}
	if index < to.ItemsDone() {
		return nil
	}
	o, err := s.TryPut(id, v)
	if err != nil {
		return err
	}
	if err := to.Append(index, o); err != nil {
		o.Release()
		return err
	}
	return nil
}

// admits reports what Append would say to an item of index, so that a refusal
// comes before the payload is copied.
func (s *Stream) admits(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dropped:
		return ErrDropped
	case index >= s.done && s.ended:
		return ErrEnded
	case index >= s.done && len(s.unread) >= s.window:
		return ErrWindow
	}
	return nil
}

// FailStream ends the stream with the failure e as its last item. It needs no
// room. ErrEnded: the stream has its end already.
func (s *Store) FailStream(to *Stream, id wray.ID, e *wray.Error) error {
	o := &Object{id: id, store: s}
	o.refs.Store(1)
	if err := o.Fail(e); err != nil {
		panic("BUG: objectstore: new object is not pending: " + err.Error())
	}
	if !s.index.add(o) {
		o.Release()
		return fmt.Errorf("fail stream %v: %w: %v", to.task, ErrExists, id)
	}
	if err := to.Fail(o); err != nil {
		o.Release()
		return err
	}
	return nil
}
