package objectstore

import (
	"errors"
	"os"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// Source is where the payload of an object is that another node keeps.
type Source interface {
	// Read fills p, which is as long as the payload. It may take its time, and is
	// called in a goroutine that the store's Close waits for. On an error the
	// payload is lost: what readers find is the *wray.Error that it wraps.
	Read(p []byte) error

	// Drop is called once, when the object has gone, and its room was given back.
	// It must not wait, and takes no lock that is held while references are given
	// back.
	Drop()
}

// FileSource is a Source that can have the payload written into a file.
type FileSource interface {
	Source
	// Fill is Read into the first n bytes of f, the memory of an object, by who
	// may write there by system calls alone. When it returns nobody writes to f
	// any more. On an error the payload is not lost: Read is asked for it.
	Fill(f *os.File, n int64) error
}

// FillMin is the length in bytes from which on payloads are asked of Fill: below,
// passing a descriptor on takes longer than copying does.
const FillMin = 1 << 20

// SealAway gives a pending object a value whose payload, of InlineMax bytes or
// more, is elsewhere: it is read from there when somebody wants it, as one that
// is on disk, and then stays. v has no payload of its own. On an error from is
// the caller's, else the object's.
//
// Errors: those of TrySeal, less ErrFull.
func (o *Object) SealAway(v Value, length int64, from Source) error {
	if err := o.store.admits(&v); err != nil {
		return err
	}
	if length < InlineMax || length > MaxPayload || v.Encoding == abi.EncodingError || len(v.Payload) > 0 ||
		v.Encoding == abi.EncodingNumeric && length%int64(abi.Elem(v.Meta).Size()) != 0 {
		return wray.Errorf(wray.CodeBadArgument, "a value of encoding %d and %d bytes cannot be elsewhere", v.Encoding, length)
	}
	if err := o.claim(v.Refs); err != nil {
		return err
	}
	charge := objectCost + int64(len(v.Refs))*refCost
	o.store.space.addAnyway(charge) // for as little as it is
	o.encoding, o.meta, o.length, o.charge = v.Encoding, v.Meta, length, charge
	o.mappable = !o.store.cfg.Heap
	o.table = retained(v.Refs)
	o.residence = &residence{object: o, source: from}
	o.publish()
	return nil
}

// Remote reports whether the payload is at another node alone: it was not read
// from there, or not yet.
func (o *Object) Remote() bool {
	r := o.residence
	if r == nil || r.source == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.residentLocked() && r.copy.batch == nil
}

// readRemote is restore for a payload that is elsewhere.
func (s *Store) readRemote(o *Object, rv *Reservation) {
	source := o.residence.source
	var b *Buffer
	filled := false
	if into, ok := source.(FileSource); ok && o.length >= FillMin {
		rv.takesWrites()
		b = rv.Buffer()
		filled = b.fill(into)
	} else {
		b = rv.Buffer()
	}
	var err error
	if !filled {
		err = source.Read(b.Bytes())
	}
	if err != nil {
		b.Discard()
		var e *wray.Error
		if !errors.As(err, &e) {
			e = &wray.Error{Code: wray.CodeObjectLost, Message: "an object on another node cannot be had: " + err.Error()}
		}
		o.loseTo(e)
		o.fetched(body{}, nil)
		return
	}
	b.done = true // the object owns the memory from here on
	o.fetched(b.body, nil)
}

// takesWrites changes a segment in r for a new one where descriptors of it were
// made read-only.
func (r *Reservation) takesWrites() {
	g := r.room.segment
	if g == nil || !g.noWrite.Load() {
		return
	}
	r.store.drop(g) // it may be in the hands of warm
	r.store.space.addAnyway(r.room.length)
	r.room.segment = nil
}

// fill has from write the payload, and reports whether it did.
func (b *Buffer) fill(from FileSource) bool {
	g := b.body.segment
	if !g.mappable() || g.noWrite.Load() {
		return false
	}
	f, err := duplicate(g.fd)
	if err != nil {
		return false
	}
	defer f.Close()
	return from.Fill(f, b.size.Payload) == nil
}

// Source returns what the payload was sealed with that is, or was, elsewhere;
// nil for every other. Panics for a pending object.
func (o *Object) Source() Source {
	o.mustBeFinal()
	if r := o.residence; r != nil {
		return r.source
	}
	return nil
}
