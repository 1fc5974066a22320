package objectstore

import (
	"sync/atomic"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Clock is a coarse clock of seconds that costs its readers one load. Whoever
// has a better clock sets it now and then.
type Clock struct{ seconds atomic.Uint32 }

// Set says what time it is.
func (c *Clock) Set(seconds uint32) {
	if c.seconds.Load() != seconds {
		c.seconds.Store(seconds)
	}
}

// Now returns what was Set last; 0 for a nil Clock.
func (c *Clock) Now() uint32 {
	if c == nil {
		return 0
	}
	return c.seconds.Load()
}

// Clock returns the clock by which objects are born.
func (s *Store) Clock() *Clock { return &s.clock }

// SetOrigin notes what a census is to say of who made the object, in a number
// that the store does not read.
func (o *Object) SetOrigin(origin uint64) { o.origin.Store(origin) }

// Origin returns what SetOrigin noted last, or 0.
func (o *Object) Origin() uint64 { return o.origin.Load() }

// Entry is what a census says of one object.
type Entry struct {
	ID       wray.ID
	State    State
	Encoding abi.Encoding // 0 while pending
	Len      int64        // of the payload, in bytes
	Refs     int64        // references that were there, whoever has them
	Windows  int          // pins and views of its segment
	Away     bool         // the payload is on disk alone
	Born     uint32       // by Clock
	Origin   uint64       // as SetOrigin had it
	Nested   []wray.ID    // objects that its value names
}

// Census describes all live objects. It is for people who look for what holds
// memory: it takes time and memory for each object, and shows no single moment
// where objects come and go meanwhile.
func (s *Store) Census() []Entry {
	var all []*Object
	for i := range s.index.shards {
		sh := &s.index.shards[i]
		sh.mu.Lock()
		for _, o := range sh.buckets {
			for ; o != nil; o = o.sameBucket {
				if o.tryRetain() {
					all = append(all, o)
				}
			}
		}
		sh.mu.Unlock()
	}
	entries := make([]Entry, len(all))
	for i, o := range all {
		e := &entries[i]
		*e = Entry{ID: o.id, State: o.State(), Refs: o.refs.Load() - 1, Born: o.born, Origin: o.origin.Load()}
		if o.Ready() {
			i := o.Info()
			e.Encoding, e.Len = i.Encoding, i.Len
			e.Windows, e.Away = o.users()
			for _, r := range o.table[:i.Refs] {
				e.Nested = append(e.Nested, r.id)
			}
		}
		o.Release()
	}
	return entries
}

// Unread calls f for each item of the stream that nobody has read. f must not
// use the stream, and o is good while f runs.
func (s *Stream) Unread(f func(o *Object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.unread {
		f(o)
	}
}
