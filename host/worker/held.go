package worker

import (
	"errors"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// held is a result that its caller is not given before the call has ended: what
// the call did may have to be in a checkpoint by then. To give it takes no room
// any more.
type held struct {
	index  int
	object *objectstore.Object      // with one reference
	view   objectstore.View         // keeps its bytes in memory
	room   *objectstore.Reservation // of a copy, where it is small
}

// holds reports whether the results of the call that runs are to be held. It
// belongs to the goroutine of live.
func (a *actor) holds() bool { return a.durable || a.dur.asked || a.saves() }

func (t *task) holding(i int) bool {
	for k := range t.held {
		if t.held[k].index == i {
			return true
		}
	}
	return false
}

// holdResult keeps the result i, the struct value at p.
func (g *guest) holdResult(v view, i int, p uint32) abi.Errno {
	t := g.task
	if t.results[i].Ready() || t.holding(i) {
		return abi.Success // what was given stays given
	}
	o, e := g.valueOf(v, p)
	switch {
	case e != abi.Success:
		return e
	case o != nil:
		o.Retain()
	default:
		val, e := g.resultAt(v, p)
		if e != abi.Success {
			return e
		}
		for _, r := range val.Refs {
			if r == t.results[i] {
				return abi.EINVAL // it could never be released
			}
		}
		var err error
		if o, err = g.w.store.TryPut(g.w.newID(), val); err != nil {
			return g.storeErrno(err, val.Size())
		}
	}
	return g.holdObject(i, o)
}

// holdObject keeps o, whose reference it takes over, as the result i.
func (g *guest) holdObject(i int, o *objectstore.Object) abi.Errno {
	h := held{index: i, object: o}
	var err error
	if h.view, err = o.View(); err != nil {
		defer o.Release()
		if errors.Is(err, objectstore.ErrSpilled) {
			return g.fetch(o, abi.EventSpace, 0)
		}
		return abi.EIO
	}
	if info := o.Info(); info.Len < inlineArg {
		size := objectstore.Size{Payload: info.Len, Refs: info.Refs}
		if h.room, err = g.w.store.TryReserve(size); err != nil {
			h.drop()
			return g.storeErrno(err, size)
		}
	}
	g.task.held = append(g.task.held, h)
	return abi.Success
}

func (h *held) drop() {
	if h.room != nil {
		h.room.Cancel()
	}
	h.view.Close()
	h.object.Release()
}

func (t *task) dropHeld() {
	for i := range t.held {
		t.held[i].drop()
	}
	t.held = nil
}

// give gives the results that were held.
func (t *task) give() *wray.Error {
	for i := range t.held {
		h := &t.held[i]
		result, o := t.results[h.index], h.object
		var err error
		if h.room != nil {
			info := o.Info()
			err = h.room.Seal(result, objectstore.Value{Encoding: info.Encoding, Meta: info.Meta, Payload: o.Bytes(), Refs: o.Refs()})
			if err == nil {
				h.room = nil
			}
		} else {
			err = result.SealAs(o)
		}
		if err != nil && !errors.Is(err, objectstore.ErrSealed) {
			return t.asError(err)
		}
	}
	return nil
}
