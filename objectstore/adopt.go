package objectstore

import (
	"errors"
	"io"
	"os"

	wray "github.com/wray-project/wray"
)

// ErrNotSealed says that a file is no memfd that can never change again.
var ErrNotSealed = errors.New("objectstore: not a sealed memfd of the payload's length")

// Adopt is [Reservation.Seal] with a payload that another process has written
// into a memfd: v.Payload is not looked at, and of r's size the payload's length
// counts. f stays the caller's.
//
// The other process is not trusted. The memfd must be sealed against writing,
// shrinking and growing, so that what is checked and read here stays so; be as
// long as the payload rounded up to Align, with zeros after it; and have all its
// pages, so that it takes the memory that it is charged for and reading it never
// wants a page (of huge ones there may be none left, which kills who reads).
// ErrNotSealed says that it is not so. Where there are MaxSegments already, a
// LimitExceeded error says that. Where the store has no use for memfds, the
// payload is copied.
func (r *Reservation) Adopt(o *Object, v Value, f *os.File) error {
	n := r.size.Payload
	if r.used.Swap(true) {
		panic("BUG: objectstore: reservation used twice")
	}
	s := r.store
	refuse := func(err error) error {
		s.giveBack(r.room)
		return err
	}
	if err := checkShape(v.Encoding, v.Meta, uint64(n), uint64(len(v.Refs))); err != nil {
		return refuse(err)
	}
	if len(v.Refs) != r.size.Refs || n < InlineMax {
		return refuse(wray.Errorf(wray.CodeInternal, "a value of %d bytes and %d references is not to be adopted", n, len(v.Refs)))
	}
	if s.closed.Load() {
		return refuse(ErrClosed)
	}
	own := 0
	if r.room.segment != nil {
		own = 1 // it makes way
	}
	if !s.oneMore(own) {
		return refuse(&wray.Error{Code: wray.CodeLimitExceeded, Message: "the object store has as many values in memory of their own as it may",
			Limit: &wray.Limit{Name: "large objects", Value: int64(s.cfg.MaxSegments), Unit: "objects"},
			Hint:  "drop references that are no longer needed, or put fewer and larger values"})
	}
	mem, fd, err := s.mem.adopt(f, n)
	if err != nil {
		s.pool.mu.Lock()
		s.pool.alive--
		s.pool.mu.Unlock()
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return r.copyFile(o, v, f)
	}
	if err != nil {
		return refuse(err)
	}
	// From here on the segment takes its own length, and gives it back as it is
	// freed; it is at most what was reserved.
	g := &segment{mem: mem, fd: fd, class: noClass}
	g.users.Store(1)
	g.noWrite.Store(true)
	s.pool.mu.Lock()
	s.pool.made++
	s.pool.mu.Unlock()
	s.space.addAnyway(int64(len(mem)))
	if r.room.segment != nil {
		s.drop(r.room.segment) // it may be in the hands of warm
	} else {
		s.space.committed.Add(-r.room.length)
	}
	b := body{payload: mem[:n:n], segment: g, charge: r.room.charge}
	if err := o.claim(v.Refs); err != nil {
		s.giveBackBody(b)
		s.grant()
		return err
	}
	o.fill(v.Encoding, v.Meta, v.Refs, b)
	o.publish()
	s.grant()
	return nil
}

// copyFile seals o with the contents of f, which may be any file: what a
// process does to it meanwhile spoils its own value.
func (r *Reservation) copyFile(o *Object, v Value, f *os.File) error {
	b := &Buffer{store: r.store, size: r.size, body: r.store.place(nil, r.size.Payload, r.room)}
	if g := b.body.segment; g != nil {
		g.populate(r.store.mem, r.size.Payload)
		g.finish(r.size.Payload)
	}
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, r.size.Payload), b.Bytes()); err != nil {
		b.Discard()
		return errors.Join(ErrNotSealed, err)
	}
	return b.Seal(o, v.Encoding, v.Meta, v.Refs)
}

// Copy returns a file of a copy of p, for another process to map.
func Copy(p []byte) (*os.File, error) { return copyToFile(p) }
