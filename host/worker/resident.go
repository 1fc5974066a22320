package worker

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/wray-project/wray"
)

// residents are the actors that have a sandbox. They are bounded, since every
// sandbox takes mappings, of which a process has a limited number, and memory;
// beyond the bound the coldest sleep: of those that rest, one that has not
// answered a call since the hand passed it last (the second chance algorithm).
type residents struct {
	mu     sync.Mutex
	limit  int
	ring   []*actor   // guarded by mu; each knows its place
	hand   int        // guarded by mu
	busy   int        // guarded by mu; where an actor was found that is neither at rest nor waiting
	dozing int        // guarded by mu; were asked to sleep and have not answered
	fewer  *sync.Cond // signaled when one of waiting may go on
	// waiting counts those that wait for a place. Whoever changes what they look
	// at does so first and then reads it; they count themselves first and then
	// look.
	waiting atomic.Int32
}

func newResidents(limit int) *residents {
	r := &residents{limit: limit}
	r.fewer = sync.NewCond(&r.mu)
	return r
}

// ResidentsFlag is the flag that the error of too many actors names.
const ResidentsFlag = "--max-resident-actors"

// beyond is how many actors more than the limit may have a sandbox when none of
// them can leave, since all are in a call: it may be the new one that they wait
// for.
func (r *residents) beyond() int { return max(r.limit/2, 64) }

// add takes in an actor that is about to get a sandbox. Where there are too many
// it waits for those to leave that can, and for those to come to rest, or to
// wait themselves, that are busy.
func (r *residents) add(a *actor) *wray.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) >= r.limit {
		if err := r.makeRoomLocked(); err != nil {
			return err
		}
	}
	a.place = len(r.ring)
	r.ring = append(r.ring, a)
	return nil
}

// tryAdd is add where nobody has to wait for room. False: somebody has.
func (r *residents) tryAdd(a *actor) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) >= r.limit {
		return false
	}
	a.place = len(r.ring)
	r.ring = append(r.ring, a)
	return true
}

// makeRoomLocked returns when there is a place for one more.
func (r *residents) makeRoomLocked() *wray.Error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		for len(r.ring)+1-r.dozing > r.limit {
			if !r.evictLocked() {
				break
			}
		}
		if len(r.ring) < r.limit+r.limit/8+1 {
			return nil
		}
		if r.dozing == 0 && !r.busyLocked() && !r.evictLocked() {
			break
		}
		r.fewer.Wait()
	}
	n := len(r.ring)
	if n < r.limit+r.beyond() {
		return nil
	}
	r.fewer.Signal() // it is the same for the next
	return &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("%d actors are in a call, and none has a sandbox to give up", n),
		Limit: &wray.Limit{Name: "resident actors", Value: int64(r.limit), Flag: ResidentsFlag},
		Hint:  "have fewer calls wait for others, or raise the limit with " + ResidentsFlag}
}

// remove lets go of an actor whose sandbox is gone.
func (r *residents) remove(a *actor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.ring) - 1
	moved := r.ring[last]
	r.ring[a.place], moved.place = moved, a.place
	r.ring[last] = nil
	r.ring = r.ring[:last]
	if a.sleepy.Swap(false) {
		r.dozing--
	}
	r.fewer.Signal()
}

// changed is called when an actor has come to rest, or waits in a call.
func (r *residents) changed() {
	if r.waiting.Load() > 0 {
		r.mu.Lock()
		r.fewer.Signal()
		r.mu.Unlock()
	}
}

// busyLocked reports whether an actor is in a call and does not wait: then it
// will come to rest, or wait.
func (r *residents) busyLocked() bool {
	for range r.ring {
		if r.busy >= len(r.ring) {
			r.busy = 0
		}
		if a := r.ring[r.busy]; !a.resting.Load() && !a.parked.Load() {
			return true
		}
		r.busy++
	}
	return false
}

// stays takes note that an actor which was asked to sleep does not.
func (r *residents) stays(a *actor) {
	if a.sleepy.Swap(false) {
		r.mu.Lock()
		r.dozing--
		r.fewer.Signal()
		r.mu.Unlock()
	}
}

// evictLocked asks the coldest actor to sleep. False: none rests.
func (r *residents) evictLocked() bool {
	for range 2 * len(r.ring) {
		if r.hand >= len(r.ring) {
			r.hand = 0
		}
		a := r.ring[r.hand]
		r.hand++
		if !a.resting.Load() || a.used.Swap(false) || !a.sleepy.CompareAndSwap(false, true) {
			continue
		}
		r.dozing++
		a.poke()
		return true
	}
	return false
}

// doze asks one actor to sleep.
func (r *residents) doze(a *actor) {
	r.mu.Lock()
	there := a.place < len(r.ring) && r.ring[a.place] == a
	asked := there && a.sleepy.CompareAndSwap(false, true)
	if asked {
		r.dozing++
	}
	r.mu.Unlock()
	if asked {
		a.poke()
	}
}

// count returns how many actors have a sandbox.
func (r *residents) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ring)
}
