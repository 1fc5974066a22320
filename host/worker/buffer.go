package worker

import (
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// buffer is an object in the making, which the guest fills in its own memory.
// As long as a page of it is mapped in the guest for writing, nobody else knows
// of it. It belongs to the guest that opened it, as that does.
type buffer struct {
	b    *objectstore.Buffer // nil once it is sealed
	refs int                 // handles and windows
}

// Retain implements objectstore.Ref.
func (b *buffer) Retain() { b.refs++ }

// Release implements objectstore.Ref.
func (b *buffer) Release() {
	if b.refs--; b.refs == 0 && b.b != nil {
		b.b.Discard()
		b.b = nil
	}
}

// bufferOf returns the open buffer that a handle stands for, or nil.
func (g *guest) bufferOf(h uint32) *buffer {
	r, _ := g.handles.Get(h)
	if b, ok := r.(*buffer); ok && b.b != nil {
		return b
	}
	return nil
}

func bufferOpen(g *guest, v view, s []uint64) abi.Errno {
	g.wantsRoom = false
	n := int64(s[0])
	out, ok := v.bytes(uint32(s[1]), 4)
	switch {
	case !ok:
		return abi.EFAULT
	case n <= 0 || n > objectstore.MaxPayload:
		return g.refuse(wray.Errorf(wray.CodeBadArgument, "a value of %d bytes cannot be: a buffer has 1 to %d", s[0], int64(objectstore.MaxPayload)), abi.EINVAL)
	case n < objectstore.InlineMax:
		return abi.ENOTSUP // it would have no pages of its own
	}
	size := objectstore.Size{Payload: n}
	r, err := g.w.store.TryReserve(size)
	if err != nil {
		return g.storeErrno(err, size)
	}
	b, err := r.Lendable(g.copyStep)
	if err != nil {
		return abi.ENOTSUP
	}
	buf := &buffer{b: b, refs: 1}
	h, err := g.handles.Add(buf)
	if err != nil {
		buf.Release()
		return g.refuse(err, abi.ENOMEM)
	}
	putU32(out, 0, h)
	return abi.Success
}

func bufferSeal(g *guest, v view, s []uint64) abi.Errno {
	h, encoding, meta, n := uint32(s[0]), abi.Encoding(uint32(s[1])), uint32(s[2]), int64(s[3])
	out, ok := v.bytes(uint32(s[4]), 4)
	if !ok {
		return abi.EFAULT
	}
	buf := g.bufferOf(h)
	if buf == nil {
		return abi.EBADF
	}
	if n < 0 || n > buf.b.Len() || !validShape(encoding, meta, uint64(n)) || encoding == abi.EncodingError {
		return abi.EINVAL
	}
	// The guest is cut off from the pages before anybody can see them: what it
	// writes from here on goes into copies of its own.
	fd, length := buf.b.FD(), int64(roundUp(uint64(n)))
	var mine []*window
	for at, w := range g.windows {
		if w.buf != buf {
			continue
		}
		err := w.seclude(g.sb, fd, at, length, func() {
			g.work += stepPages >> 12 * perPage
			g.step() // a guest that is stopped here has a buffer still
		})
		if err != nil {
			// Part of the buffer can still be written to, so it stays one.
			panic(sandbox.Stop(&wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("seal a buffer: %v", err)}))
		}
		mine = append(mine, w)
		g.work += mappingCost
	}
	b := buf.b
	buf.b = nil
	b.Truncate(n)
	for _, w := range mine { // before the store may move it to disk
		w.pin, w.buf = b.Pin(), nil
		buf.Release()
	}
	o, err := b.Put(g.w.newID(), encoding, meta, nil)
	if err != nil {
		// Its pages are in the guest, and may be another object's by now.
		panic(sandbox.Stop(&wray.Error{Code: wray.CodeInternal, Message: fmt.Sprintf("seal a buffer: %v", err)}))
	}
	r, _ := g.handles.Take(h)
	r.Release()
	return g.give(o, out) // in the place of h, so there is room
}
