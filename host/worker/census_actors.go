package worker

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

// listResources says what the worker has and what of it is free.
func (w *Worker) listResources() []clientwire.Resource {
	w.mu.Lock()
	held := w.sched.Held() // and so what is set aside for groups of others
	w.mu.Unlock()
	unit := float64(wray.OneUnit)
	list := []clientwire.Resource{
		{Name: "CPU", Total: float64(w.cfg.Capacity.CPU) / float64(wray.OneCPU), Free: float64(w.cfg.Capacity.CPU-held.Held.CPU) / float64(wray.OneCPU)},
		{Name: "memory", Total: float64(w.cfg.Capacity.Memory), Free: float64(w.cfg.Capacity.Memory - held.Held.Memory)},
	}
	for _, c := range w.cfg.Custom {
		free := c.Amount
		for _, h := range held.Custom {
			if h.Name == c.Name {
				free -= h.Amount
			}
		}
		list = append(list, clientwire.Resource{Name: c.Name, Custom: true, Total: float64(c.Amount) / unit, Free: float64(free) / unit})
	}
	return list
}

// listActors fills in the actors of the listing m.
func (w *Worker) listActors(m *clientwire.Memory, q clientwire.MemoryBody, most int) {
	type found struct {
		a       *actor
		started bool
	}
	var all []found
	w.mu.Lock()
	for t := range w.tasks.all {
		if t.makes != nil && (q.Job == 0 || t.job.number() == q.Job) {
			all = append(all, found{t.makes, t.runner != nil})
		}
	}
	w.mu.Unlock()
	m.ActorStates = map[string]int64{}
	for _, f := range all { // w.mu is not held: actors' locks come before it
		one, ok := f.a.listed(f.started)
		if !ok {
			continue
		}
		m.ActorStates[one.State]++
		m.Actors = append(m.Actors, one)
	}
	slices.SortFunc(m.Actors, func(a, b clientwire.Actor) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID))
	})
	if len(m.Actors) > most {
		m.Actors = m.Actors[:most:most]
	}
}

// listed says what the actor is doing; false where it has ended. started tells
// whether its attempt has a sandbox, or had one.
func (a *actor) listed(started bool) (clientwire.Actor, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead != nil {
		return clientwire.Actor{}, false
	}
	one := clientwire.Actor{ID: a.object.String(), Class: a.create.fn.name, Job: a.job.number(), Calls: int64(a.calls.Load()),
		Waiting: int64(a.box.Waiting()), Bytes: a.bytes.Load()}
	if a.named {
		one.Name = a.create.name
	}
	under := len(a.serving.calls)
	switch {
	case a.running != nil:
		one.Call = a.running.name
	case under == 1:
		for _, t := range a.serving.calls {
			one.Call = t.name
		}
	case under > 1:
		one.Call = fmt.Sprintf("%d calls", under)
	}
	away := a.away.Load()
	switch {
	case away != nil && !away.lives:
		one.State, one.Why = clientwire.ActorRunning, "its constructor, on another node"
	case away != nil && a.box.Out() > 0:
		one.State, one.Why = clientwire.ActorRunning, "a call, on another node"
	case away != nil && one.Waiting > 0:
		one.State, one.Why = clientwire.ActorWaiting, "for the arguments of its next call, on another node"
	case away != nil:
		one.State, one.Why = clientwire.ActorResting, "on another node"
	case a.asleep.Load():
		one.State = clientwire.ActorSleeping
		if one.Waiting > 0 {
			one.State, one.Why = clientwire.ActorWaiting, "for the arguments of its next call, asleep"
		}
	case !started && !a.alive:
		one.State, one.Why = clientwire.ActorWaiting, "for resources, arguments or a place to start in"
	case one.Call != "" && a.parked.Load():
		one.State, one.Why = clientwire.ActorWaiting, "for what its call waits for: a value, room, or an event"
	case one.Call != "":
		one.State = clientwire.ActorRunning
	case !a.resting.Load():
		one.State, one.Why = clientwire.ActorRunning, "its constructor, or between two calls"
	case one.Waiting > 0:
		one.State, one.Why = clientwire.ActorWaiting, "for the arguments of its next call"
	default:
		one.State = clientwire.ActorResting
	}
	return one, true
}
