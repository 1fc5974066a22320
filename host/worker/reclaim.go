package worker

import (
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// onPressure asks every guest that may hold what it no longer needs to drop
// it. The store calls it when something was refused for want of room.
func (w *Worker) onPressure(int64) {
	w.mu.Lock()
	var actors []*actor
	jobs := make([]*job, 0, len(w.jobs))
	for _, j := range w.jobs {
		jobs = append(jobs, j)
	}
	for t := range w.tasks.all {
		if t.runner != nil {
			if t.makes != nil {
				actors = append(actors, t.makes)
				continue
			}
			t.runner.tellReclaim()
		}
	}
	w.mu.Unlock()
	for _, j := range jobs {
		j.reclaim()
	}
	for _, a := range actors {
		a.tellReclaim()
	}
}

// reclaim tells a job's driver to collect its garbage, and ends sandboxes that
// rest: what they hold, nobody uses.
func (j *job) reclaim() {
	if g := j.driver.Load(); g != nil {
		g.tellReclaim()
	}
	for _, m := range j.modules {
		m.letIdleGo(false)
	}
}

// tellReclaim asks the guest to collect garbage, unless it has been asked a
// moment ago. Any goroutine may call it.
func (g *guest) tellReclaim() {
	g.letGoAll(true)
	now := g.w.now()
	last := g.reclaimed.Load()
	if last != 0 && now-last < int64(reclaimEvery) || !g.reclaimed.CompareAndSwap(last, now) {
		return
	}
	g.notify(abi.EventReclaim, 0)
}

// reclaimEvery keeps a store under pressure from doing nothing but asking.
const reclaimEvery = 5 * time.Millisecond

// tellReclaim asks an actor that has nothing to do to give back what it does
// not need.
func (a *actor) tellReclaim() {
	if a.asleep.Load() {
		return
	}
	if !a.resting.Load() {
		a.mu.Lock()
		if a.box.Out() > 0 && a.g != nil {
			a.g.tellReclaim()
		}
		a.mu.Unlock()
		return
	}
	a.reclaim.Store(true)
	a.poke()
}

// sweep has an actor that has nothing to do collect its garbage. It returns why
// the actor's state is gone, where it is.
func (a *actor) sweep() *wray.Error {
	a.swept = true
	if _, err := a.guest.sb.Call(abi.OpReclaim, 0); err != nil {
		return a.create.asError(err)
	}
	return nil
}
