package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wray-project/wray/objectstore"
)

// Who waits for room in the store waits for others to drop, unmap or read what
// they have. Where nothing moves for long and no task runs that could change
// that, one of those who wait is refused, with an error that says what the
// store is full of; what it then gives up may let the others go on.

// DefaultFullAfter is how long a store is full before somebody is refused.
const DefaultFullAfter = 20 * time.Second

// rooms are those who wait for room.
type rooms struct {
	w   *Worker
	ctx context.Context // the worker's

	mu      sync.Mutex
	last    uint64               // guarded by mu, as is all that follows
	waits   map[*roomWait]uint64 // by order of arrival
	watched bool                 // a goroutine looks after them
}

// roomWait is one of them.
type roomWait struct {
	g      *guest
	driver bool
	refuse func() // called once at most, without locks
}

// add notes a wait. The caller removes it when it is over.
func (r *rooms) add(g *guest, refuse func()) *roomWait {
	w := &roomWait{g: g, driver: g.driver, refuse: refuse}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits == nil {
		r.waits = map[*roomWait]uint64{}
	}
	r.last++
	r.waits[w] = r.last
	if !r.watched && r.ctx.Err() == nil {
		r.watched = true
		r.w.wg.Go(r.watch)
	}
	return w
}

func (r *rooms) remove(w *roomWait) {
	if w == nil {
		return
	}
	r.mu.Lock()
	delete(r.waits, w)
	r.mu.Unlock()
}

// why says for what room g, which may be nil, waits; "" where it waits for none.
func (r *rooms) why(g *guest) string {
	r.mu.Lock()
	waits := false
	for w := range r.waits {
		waits = waits || w.g == g
	}
	r.mu.Unlock()
	if !waits {
		return ""
	}
	st := r.w.store.Stats()
	return fmt.Sprintf("room in the object store: %d of %d bytes are in use", st.Used, st.Capacity)
}

// watch looks after those who wait until there are none.
func (r *rooms) watch() {
	tick := time.NewTicker(max(r.w.cfg.FullAfter/8, time.Millisecond))
	defer tick.Stop()
	var seen, moved objectstore.Progress
	since := time.Now()
	still := since // moved is as it was then
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		r.w.letGoStale()
		r.mu.Lock()
		if len(r.waits) == 0 {
			r.watched = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if now := r.w.store.Progress(); now != moved {
			moved, still = now, time.Now()
		} else if time.Since(still) >= r.w.cfg.FullAfter/4 {
			r.tell()
		}
		if now := r.w.store.Progress(); now != seen || r.w.busy() {
			seen, since = now, time.Now()
			continue
		}
		if time.Since(since) < r.w.cfg.FullAfter {
			continue
		}
		since = time.Now()
		if w := r.pick(); w != nil {
			w.refuse()
		}
	}
}

// tell says to the jobs of those who wait, once to each, what they wait for. It
// may be for long: a task that runs may yet drop something, so nobody is refused.
func (r *rooms) tell() {
	waits := map[*job]int{}
	r.mu.Lock()
	for w := range r.waits {
		if j := w.g.job; j.out != nil && !j.fullTold.Load() {
			waits[j]++
		}
	}
	r.mu.Unlock()
	for j, n := range waits {
		if j.fullTold.Swap(true) {
			continue
		}
		who := "a sandbox waits"
		if n > 1 {
			who = fmt.Sprintf("%d sandboxes wait", n)
		}
		full := r.w.store.FullError(objectstore.Size{})
		j.out.put("", Notice, fmt.Appendf(nil, "%s for room in the object store, in which nothing moves: %s; %s; wray explain and wray memory say who holds what\n", who, r.w.store.FullOf(), full.Hint))
	}
}

// pick takes out who is to be refused: the latest to come, a driver last.
func (r *rooms) pick() (w *roomWait) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, at := range r.waits {
		if w == nil || w.driver && !c.driver || w.driver == c.driver && at > r.waits[w] {
			w = c
		}
	}
	delete(r.waits, w)
	return w
}

// busy reports whether a task runs, which may yet drop what it holds. To the
// scheduler an actor that rests or sleeps runs, and so does a task for which the
// host itself waits (viewOf).
func (w *Worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	running := int64(w.sched.Stats(w.now()).Running) - w.hostWaits.Load()
	for t := range w.tasks.all {
		if a := t.makes; a != nil && (a.resting.Load() || a.asleep.Load()) {
			running--
		}
	}
	return running > 0
}

// letGoStale lets payloads go that were read back for guests that do not come
// for them.
func (w *Worker) letGoStale() {
	w.mu.Lock()
	var guests []*guest
	for _, j := range w.jobs {
		if g := j.driver.Load(); g != nil {
			guests = append(guests, g)
		}
	}
	for t := range w.tasks.all {
		if t.runner != nil {
			guests = append(guests, t.runner)
		}
	}
	w.mu.Unlock()
	for _, g := range guests {
		g.letGoAll(true)
	}
}
