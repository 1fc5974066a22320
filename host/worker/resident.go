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
// They are bounded by number, and by what they take of memory, about: one whose
// linear memory has grown takes the place of many.
type residents struct {
	// full returns why actors cannot sleep now, or nil; not set: they can.
	full      func() *wray.Error
	collector *collector // told what sandboxes take of the heap

	mu      sync.Mutex
	limit   int
	budget  int64      // of bytes
	ring    []*actor   // guarded by mu; each knows its place
	bytes   int64      // guarded by mu; the weights of all in ring
	hand    int        // guarded by mu
	busy    int        // guarded by mu; where an actor was found that is neither at rest nor waiting
	dozing  int        // guarded by mu; were asked to sleep and have not answered
	lighter int64      // guarded by mu; the weights of those
	fewer   *sync.Cond // signaled when one of waiting may go on
	// waiting counts those that wait for a place. Whoever changes what they look
	// at does so first and then reads it; they count themselves first and then
	// look.
	waiting atomic.Int32
}

// residentBytes is what an actor with a sandbox takes of memory, about, when its
// linear memory is as long as that of a new sandbox: pages that a program in Go
// has written to by then, the engine's tables, the kernel's for its mappings.
const residentBytes = 512 << 10

// fewResidents have a sandbox at once whatever they take.
const fewResidents = 16

// residentBudget is what actors with a sandbox may take where tasks may hold so
// much memory, and so many actors were asked for; 0: none were.
func residentBudget(memory int64, asked int) int64 {
	return max(memory/8, int64(asked)*residentBytes)
}

func newResidents(limit int, budget int64) *residents {
	r := &residents{limit: limit, budget: budget, collector: new(collector)}
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
	if !r.roomLocked(0, 0) {
		if err := r.makeRoomLocked(); err != nil {
			return err
		}
	}
	r.enterLocked(a)
	return nil
}

// tryAdd is add where nobody has to wait for room. False: somebody has.
func (r *residents) tryAdd(a *actor) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.roomLocked(0, 0) {
		return false
	}
	r.enterLocked(a)
	return true
}

// roomLocked reports whether there is a place for one more when so many, of
// these weights, have left.
func (r *residents) roomLocked(leaving int, bytes int64) bool {
	n := len(r.ring) - leaving
	return n < r.limit && (n < fewResidents || r.bytes-bytes+residentBytes <= r.budget)
}

// roomBeyondLocked is roomLocked where the bounds are passed by an eighth.
func (r *residents) roomBeyondLocked() bool {
	n := len(r.ring)
	return n < r.limit+r.limit/8+1 && (n < fewResidents || r.bytes <= r.budget+r.budget/8)
}

// weigh takes note of what a's sandbox takes of memory beside residentBytes,
// and has others sleep where that is too much. It is called on a's goroutine,
// when a does not rest yet.
func (r *residents) weigh(a *actor, grown int64) {
	if a.weight == residentBytes+grown { // which this goroutine alone changes
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	more := residentBytes + grown - a.weight
	a.weight += more
	r.bytes += more
	if a.sleepy.Load() {
		r.lighter += more
	}
	for len(r.ring)-r.dozing > fewResidents && r.bytes-r.lighter > r.budget && r.evictLocked() {
	}
	r.fewer.Signal()
}

func (r *residents) enterLocked(a *actor) {
	a.place, a.weight = len(r.ring), residentBytes
	r.ring = append(r.ring, a)
	r.bytes += a.weight
	r.collector.stays(sandboxHeap)
}

// makeRoomLocked returns when there is a place for one more.
func (r *residents) makeRoomLocked() *wray.Error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		for !r.roomLocked(r.dozing, r.lighter) {
			if !r.evictLocked() {
				break
			}
		}
		if r.roomBeyondLocked() {
			return nil
		}
		if r.full != nil {
			if err := r.full(); err != nil {
				r.fewer.Signal() // it is the same for the next
				return err
			}
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
	r.collector.stays(-sandboxHeap)
	last := len(r.ring) - 1
	moved := r.ring[last]
	r.ring[a.place], moved.place = moved, a.place
	r.ring[last] = nil
	r.ring = r.ring[:last]
	r.bytes -= a.weight
	if a.sleepy.Swap(false) {
		r.awakesLocked(a)
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
	if a.sleepy.Load() { // nobody else takes that back
		r.mu.Lock()
		if a.sleepy.Swap(false) {
			r.awakesLocked(a)
		}
		r.fewer.Signal()
		r.mu.Unlock()
	}
}

// dozesLocked takes note that a was asked to sleep, and awakesLocked that it
// has answered.
func (r *residents) dozesLocked(a *actor) {
	r.dozing++
	r.lighter += a.weight
}

func (r *residents) awakesLocked(a *actor) {
	r.dozing--
	r.lighter -= a.weight
}

// evictLocked asks the coldest actor to sleep. False: none rests.
func (r *residents) evictLocked() bool {
	for range 2 * len(r.ring) {
		if r.hand >= len(r.ring) {
			r.hand = 0
		}
		a := r.ring[r.hand]
		r.hand++
		if !a.resting.Load() || a.wakeful.Load() || a.used.Swap(false) || !a.sleepy.CompareAndSwap(false, true) {
			continue
		}
		r.dozesLocked(a)
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
		r.dozesLocked(a)
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
