package worker

import (
	"slices"
	"strings"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
)

// An actor whose call waits for a call of itself waits for ever, and so do actors
// whose calls wait for each other in a circle, where none of them takes another
// call besides. Whoever closes such a circle ends it: a call in it that was not
// begun fails, and its caller goes on.
//
// That is done only where nothing in the circle can move. Each actor that is
// reached from the one that begins to wait waits for calls of actors alone, with
// no timer and no deadline, and takes no call before one of those is answered.
// Durable actors have a rule of their own (durable_waits.go) and are not looked
// through, nor are tasks, and actors on other nodes.

// circles has which actors wait for objects alone.
type circles struct {
	mu sync.Mutex // taken before actor.mu
}

// parking is what an actor's sandbox waits for, in which everything waits.
type parking struct {
	objects []wray.ID // all that it waits for
	builds  bool      // its constructor waits
}

// maxSought bounds the waits that are looked at for a circle.
const maxSought = 1 << 16

// waitsLong takes note that the sandbox of a waits for objects alone, which may be
// calls of actors, and breaks the circle that it closes, if it does.
func (g *guest) waitsLong(a *actor, objects []wray.ID) {
	if len(objects) == 0 || a.durable || a.hosted || g.client != nil || g.wantsSpace || g.wantsRoom || g.printing || g.fetching() {
		return
	}
	if t := g.task; t != nil && t.timeout > 0 {
		return // which ends it
	}
	g.out.Lock()
	other := g.out.n != len(objects)
	g.out.Unlock()
	if other {
		return // something else comes, or one of them has come
	}
	c := &g.w.circles
	c.mu.Lock()
	a.parking = &parking{objects: objects, builds: g.task == g.holder}
	circle := g.w.circleFrom(a)
	c.mu.Unlock()
	if circle == nil {
		return
	}
	names := make([]string, 0, len(circle)+1)
	for _, e := range circle {
		names = append(names, e.from.create.name)
	}
	names = append(names, names[0])
	for _, e := range circle {
		// One that has begun since, or ended, is no longer there to be withdrawn.
		if e.to.withdraw(e.call, &wray.Error{Code: wray.CodeDeadlock, Message: "actors would wait for each other for ever: " + strings.Join(names, " -> "),
			Hint: "have calls go one way between actors, or let one take more at once with sdk.MaxConcurrency: this call was not begun"}) {
			return
		}
	}
}

// waitsNoMore undoes waitsLong.
func (w *Worker) waitsNoMore(a *actor) {
	if a.parking == nil { // only who runs the sandbox writes it
		return
	}
	w.circles.mu.Lock()
	a.parking = nil
	w.circles.mu.Unlock()
}

// waitsOn says that from waits for a call of to.
type waitsOn struct {
	from, to *actor
	call     *task
}

// circleFrom returns a circle that is reached from a, where nobody who is can
// move; else nil. circles.mu is held.
func (w *Worker) circleFrom(a *actor) []waitsOn {
	first := map[*actor]waitsOn{} // by who waits; all that were reached
	todo := []*actor{a}
	sought := 0
	for len(todo) > 0 {
		from := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := first[from]; ok {
			continue
		}
		if !from.takesNone() {
			return nil
		}
		for i, id := range from.parking.objects {
			if sought++; sought > maxSought {
				return nil
			}
			e, ok := w.waitsForCall(from, id)
			if !ok {
				return nil
			}
			if i == 0 {
				first[from] = e
			}
			if _, ok := first[e.to]; !ok {
				todo = append(todo, e.to)
			}
		}
	}
	var path []waitsOn
	for at := a; ; {
		if i := slices.IndexFunc(path, func(e waitsOn) bool { return e.from == at }); i >= 0 {
			return path[i:]
		}
		path = append(path, first[at])
		at = first[at].to
	}
}

// waitsForCall returns whose call makes the object; false where no call does that
// is still to be answered.
func (w *Worker) waitsForCall(from *actor, id wray.ID) (e waitsOn, ok bool) {
	maker := makerOf(id)
	if maker.IsZero() {
		return e, false
	}
	t := w.calls.get(maker)
	if t == nil || t.actor == nil || t.actor.parking == nil {
		return e, false
	}
	o := w.store.Lookup(id)
	if o == nil {
		return e, false
	}
	there := o.State() != objectstore.Pending
	o.Release()
	return waitsOn{from, t.actor, t}, !there
}

// takesNone reports whether the actor takes no call before what its sandbox waits
// for is there. circles.mu is held.
func (a *actor) takesNone() bool {
	if a.parking == nil || a.durable || a.away.Load() != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ending != nil || a.dead != nil || a.serving.held || a.serving.timed > 0 || a.running != nil && a.running.timeout > 0 {
		return false
	}
	return a.parking.builds || a.box.Full()
}
