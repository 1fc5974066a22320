package worker

import (
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// The payload of an object may be on disk. To a guest that is an object that is
// not there yet: EAGAIN, and READY when it was read back. From then until the
// guest has asked again it is kept in memory, or it could be moved out between
// the two for ever.

// fetches are the payloads that a guest has asked for.
type fetches struct {
	sync.Mutex
	of map[*objectstore.Object]*fetch // guarded by Mutex; nil where there are none
}

// fetch is a payload on its way, or at hand for the guest to take.
type fetch struct {
	done   bool // view or err is there
	view   objectstore.View
	err    error
	since  int64 // when it was done, by Worker.now
	cancel func() bool
	told   map[told]struct{}
	wait   *roomWait
}

// told is an event that is on its way.
type told struct {
	epoch        uint64
	kind, handle uint32
}

// staleFetch is how long a payload is kept for a guest that does not come for
// it, when others want room.
const staleFetch = time.Second

// fetch reports whether the payload of o is in memory. EAGAIN: it is on its
// way; the event kind for handle follows, unless kind is 0.
func (g *guest) fetch(o *objectstore.Object, kind, handle uint32) abi.Errno {
	if !o.Away() {
		return abi.Success
	}
	fs := &g.fetches
	fs.Lock()
	f := fs.of[o]
	if f != nil && f.done {
		err := f.err
		if err == nil { // it is kept, so it came back a moment ago
			fs.Unlock()
			return abi.Success
		}
		delete(fs.of, o)
		fs.Unlock()
		return g.refuse(err, abi.ENOSPC)
	}
	start := f == nil
	if start {
		f = &fetch{}
		if fs.of == nil {
			fs.of = map[*objectstore.Object]*fetch{}
		}
		fs.of[o] = f
	}
	if t := (told{g.epoch(), kind, handle}); kind != 0 {
		// A guest may ask again and again, and not wait.
		if _, on := f.told[t]; !on {
			if f.told == nil {
				f.told = map[told]struct{}{}
			}
			g.expect()
			f.told[t] = struct{}{}
		}
	}
	fs.Unlock()
	if !start {
		return abi.EAGAIN
	}
	size := objectstore.Size{Payload: o.Info().Len}
	cancel := o.Fetch(func(v objectstore.View, err error) { g.fetched(o, f, v, err) })
	fs.Lock()
	defer fs.Unlock()
	f.cancel = cancel
	if !f.done {
		f.wait = g.w.room.add(g, func() {
			if cancel() {
				g.fetched(o, f, objectstore.View{}, g.w.store.FullError(size))
			}
		})
	}
	return abi.EAGAIN
}

// fetched keeps a payload for the guest and tells it, or lets it go where the
// guest wants it no more.
func (g *guest) fetched(o *objectstore.Object, f *fetch, v objectstore.View, err error) {
	fs := &g.fetches
	fs.Lock()
	wait := f.wait
	wanted := fs.of[o] == f
	f.done, f.since, f.err = true, g.w.now(), err
	list := f.told
	f.told = nil
	if wanted {
		f.view = v
	}
	fs.Unlock()
	g.w.room.remove(wait)
	if !wanted {
		v.Close()
	}
	for t := range list {
		g.event(t.epoch, t.kind, t.handle)
	}
}

// fetching reports whether a payload is on its way.
func (g *guest) fetching() bool {
	g.fetches.Lock()
	defer g.fetches.Unlock()
	for _, f := range g.fetches.of {
		if !f.done {
			return true
		}
	}
	return false
}

// letGo ends what is kept of o for the guest: it has it, or does not want it.
func (g *guest) letGo(o *objectstore.Object) {
	fs := &g.fetches
	fs.Lock()
	f := fs.of[o]
	if f == nil {
		fs.Unlock()
		return
	}
	delete(fs.of, o)
	fs.Unlock()
	f.end(g)
}

// letGoOf is letGo for each object of refs.
func (g *guest) letGoOf(refs []objectstore.Ref) {
	fs := &g.fetches
	fs.Lock()
	n := len(fs.of)
	fs.Unlock()
	if n == 0 {
		return
	}
	for _, r := range refs {
		if o, ok := r.(*objectstore.Object); ok {
			g.letGo(o)
		}
	}
}

// letGoAll is letGo for everything, or for what the guest has not come for.
func (g *guest) letGoAll(stale bool) {
	fs := &g.fetches
	fs.Lock()
	var list []*fetch
	for o, f := range fs.of {
		if !stale || f.done && g.w.now()-f.since > int64(staleFetch) {
			delete(fs.of, o)
			list = append(list, f)
		}
	}
	fs.Unlock()
	for _, f := range list {
		f.end(g)
	}
}

// end gives back a fetch that is in no table any more.
func (f *fetch) end(g *guest) {
	fs := &g.fetches
	fs.Lock()
	v, cancel := f.view, f.cancel
	f.view = objectstore.View{}
	done := f.done
	fs.Unlock()
	v.Close()
	if !done && cancel() {
		g.w.room.remove(f.wait)
		for t := range f.told {
			g.unexpect(t.epoch)
		}
	}
}

// viewOf returns a payload for the host itself to read, waiting for it.
func (g *guest) viewOf(o *objectstore.Object) (objectstore.View, *wray.Error) {
	type answer struct {
		v   objectstore.View
		err error
	}
	c := make(chan answer, 1)
	cancel := o.Fetch(func(v objectstore.View, err error) { c <- answer{v, err} })
	full := make(chan struct{})
	wait := g.w.room.add(g, sync.OnceFunc(func() { close(full) }))
	defer g.w.room.remove(wait)
	g.w.hostWaits.Add(1)
	defer g.w.hostWaits.Add(-1)
	select {
	case a := <-c:
		if a.err != nil {
			return objectstore.View{}, wray.Errorf(wray.CodeInternal, "read an object back: %v", a.err)
		}
		return a.v, nil
	case <-full:
		if !cancel() {
			a := <-c
			a.v.Close()
		}
		return objectstore.View{}, g.w.store.FullError(objectstore.Size{Payload: o.Info().Len})
	}
}
