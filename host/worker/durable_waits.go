package worker

import (
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
)

// A durable actor's call ends when all that it asked of others has been answered,
// so actors whose calls wait for each other in a circle would wait for ever. Who
// would close a circle is refused, and its caller may try again later.
//
// That is right only of what has not been done. An effect that is on record from
// before a crash may have been: its caller's call is run again and makes it again,
// while those that it asks are in other calls by now, that wait for the caller. So
// such an effect is posted whatever waits, and whom it asks decides, in the middle
// of its own call (tend): it repeats a reply that it has on record, needs no turn
// for that, and refuses what it has not done and could not begin. In each circle
// there is such an effect, for nobody runs two calls at a time.

// wait takes note that the call cannot end before that of the effect, or refuses
// it. circle are those, if any, to whom it matters.
func (e *effect) wait() (circle []*actor, err *wray.Error) {
	if e.to == nil {
		return nil, nil
	}
	a, w := e.d.a, e.d.a.job.w
	w.durableMu.Lock()
	defer w.durableMu.Unlock()
	if circle = waitPath(e.to, a, map[*actor]bool{}); circle != nil && !e.again {
		return nil, deadlocked(a, circle)
	}
	if a.waitsFor == nil {
		a.waitsFor = map[*actor]int{}
	}
	a.waitsFor[e.to]++
	if e.to.askedBy == nil {
		e.to.askedBy = map[*effect]bool{}
	}
	e.to.askedBy[e] = true
	if e.again {
		e.to.askedAgain++
	}
	e.waits = true
	return circle, nil
}

func (e *effect) unwait() {
	if e.to == nil {
		return
	}
	w := e.d.a.job.w
	w.durableMu.Lock()
	defer w.durableMu.Unlock()
	if !e.waits {
		return
	}
	e.waits = false
	delete(e.to.askedBy, e)
	if e.again {
		e.to.askedAgain--
	}
	if m := e.d.a.waitsFor; m[e.to] > 1 {
		m[e.to]--
	} else {
		delete(m, e.to)
	}
}

// waitPath returns through whom from waits for to, both included, nil where it
// does not. The worker's durableMu is held.
func waitPath(from, to *actor, seen map[*actor]bool) []*actor {
	if from == to {
		return []*actor{to}
	}
	if seen[from] {
		return nil
	}
	seen[from] = true
	for next := range from.waitsFor {
		if path := waitPath(next, to, seen); path != nil {
			return append([]*actor{from}, path...)
		}
	}
	return nil
}

func deadlocked(a *actor, circle []*actor) *wray.Error {
	names := []string{a.create.name}
	for _, b := range circle {
		names = append(names, b.create.name)
	}
	return &wray.Error{Code: wray.CodeDeadlock, Message: "durable actors would wait for each other: " + strings.Join(names, " -> "),
		Hint: "have calls go one way between actors, or make the call again later: this one was not taken"}
}

// ask has those look at who waits for them whose call under way may have to
// answer: of an effect that was made before whom it asks, and all in the circle
// that it closes.
func (e *effect) ask(circle []*actor) {
	if !e.again || e.to == nil {
		return
	}
	circle = append(circle, e.to)
	w := e.d.a.job.w
	w.durableMu.Lock()
	for _, a := range circle {
		a.asked = true
	}
	w.durableMu.Unlock()
	for _, a := range circle {
		a.mu.Lock()
		if d := a.doing; d != nil {
			d.g.signal()
		}
		a.mu.Unlock()
	}
}

// tend answers, where it was asked for, those that wait for the actor's next call
// and need none: what they ask was answered before, or waits for this call in a
// circle and was not begun.
func (d *durableCall) tend() {
	a, w := d.a, d.a.job.w
	w.durableMu.Lock()
	if !a.asked {
		w.durableMu.Unlock()
		return
	}
	a.asked = false
	var asking []*effect
	for e := range a.askedBy {
		asking = append(asking, e)
	}
	w.durableMu.Unlock()
	for _, e := range asking {
		t := e.t
		if d.rec.UnderWay(t.effect) {
			continue // it is answered as what it repeats, when that is done
		}
		if d.rec.Known(t.request()) {
			if a.takeOut(t) {
				_, err := a.replyAgain(t)
				a.settle(t, err)
				a.poke()
			}
			continue
		}
		w.durableMu.Lock()
		var err *wray.Error
		if circle := waitPath(a, e.d.a, map[*actor]bool{}); circle != nil && e.waits {
			err = deadlocked(e.d.a, circle) // withdrawn it waits no more, and the circle is open
		}
		w.durableMu.Unlock()
		if err != nil {
			a.withdraw(t, err)
		}
	}
}

// request is what the record of a durable actor is told of the call t.
func (t *task) request() *durable.Request {
	return &durable.Request{ID: t.effect, Epoch: t.epoch, Key: t.key, Digest: t.digest}
}

// missesArgument says which argument of a call that may have been had before, and
// was not, has failed since.
func (t *task) missesArgument() *wray.Error {
	if !t.again {
		return nil
	}
	for i := range t.args {
		if o := t.args[i].object; o != nil && o.Err() != nil {
			return dependencyFailed(i, o.Err())
		}
	}
	return nil
}
