package sandbox

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

// Event is a record of the guest's event descriptor.
type Event struct {
	Kind   uint32
	Handle uint32
	Arg    uint64
}

// eventQueue holds what the guest has not read yet. Any goroutine may push;
// the sandbox's own takes.
type eventQueue struct {
	mu    sync.Mutex
	items []Event // guarded by mu; from head on
	head  int     // guarded by mu
	once  uint32  // guarded by mu; bits of the kinds in items that say nothing but that they came
}

// push adds an event. One that says nothing beyond its kind, and lies there
// unread already, says it no more by lying there twice.
func (q *eventQueue) push(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if bit := onceBit(e); bit != 0 {
		if q.once&bit != 0 {
			return
		}
		q.once |= bit
	}
	q.items = append(q.items, e)
}

// onceBit returns the bit in eventQueue.once of an event without arguments, or 0.
func onceBit(e Event) uint32 {
	if e.Handle != 0 || e.Arg != 0 || e.Kind >= 32 {
		return 0
	}
	return 1 << e.Kind
}

func (q *eventQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head
}

func (q *eventQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.items)
}

// take writes whole records into p and returns their bytes.
func (q *eventQueue) take(p []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for q.head < len(q.items) && len(p)-n >= abi.EventSize {
		e := q.items[q.head]
		q.head++
		q.once &^= onceBit(e)
		binary.LittleEndian.PutUint32(p[n+abi.EventKind:], e.Kind)
		binary.LittleEndian.PutUint32(p[n+abi.EventHandle:], e.Handle)
		binary.LittleEndian.PutUint64(p[n+abi.EventArg:], e.Arg)
		n += abi.EventSize
	}
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return n
}

func (q *eventQueue) copy() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]Event(nil), q.items[q.head:]...)
}

func (q *eventQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(q.items) > keepEvents {
		q.items = nil
	}
	q.items, q.head, q.once = q.items[:0], 0, 0
}

// keepEvents is how long a queue may be that stays allocated for the next guest.
const keepEvents = 1 << 10

// Unread returns how many events the guest has not read.
func (sb *Sandbox) Unread() int { return sb.events.len() }

// Notify gives the guest an event and ends its park. Any goroutine may call it.
func (sb *Sandbox) Notify(e Event) {
	sb.events.push(e)
	sb.signal()
}

// OpenEvents gives the guest a descriptor for its events, non-blocking.
func (sb *Sandbox) OpenEvents() (fd uint32, e wasi.Errno) {
	sb.eventsOpen = true
	return sb.wasi.Install(&eventFile{sb: sb}, wasi.FdNonblock)
}

// eventFile is the guest's event descriptor.
type eventFile struct {
	wasi.Stream
	sb *Sandbox
}

// Stat says that the file is a stream, so that guests poll it.
func (f *eventFile) Stat() (wasi.Filestat, wasi.Errno) {
	return wasi.Filestat{Type: wasi.FiletypeSocketStream, Nlink: 1}, wasi.Success
}

// Read copies whole events.
func (f *eventFile) Read(p []byte) (int, wasi.Errno) {
	if len(p) < abi.EventSize {
		return 0, wasi.EINVAL
	}
	if n := f.sb.events.take(p); n > 0 {
		return n, wasi.Success
	}
	return 0, wasi.EAGAIN
}

// Ready reports whether there are events.
func (f *eventFile) Ready() (read, write bool) { return !f.sb.events.empty(), false }

// poller parks a sandbox until an event comes, a timer is over, or the call is
// stopped. It is the one place where a guest that speaks wray_v1 waits.
type poller Sandbox

// Wait implements wasi.Poller. deadline is by the guest's clock, -1 for none;
// events says whether the guest waits for its event descriptor.
func (p *poller) Wait(deadline int64, files []wasi.Interest) wasi.Errno {
	sb := (*Sandbox)(p)
	now := sb.engine.clock.now()
	sb.checkStop(now)
	events, others := false, false
	for i := range files {
		if _, ok := files[i].File.(*eventFile); ok {
			events = true
		} else {
			others = true // input, which may come at any time
		}
	}
	if events && !sb.events.empty() {
		return wasi.Success
	}
	var until int64 // engine's clock; 0: no timer
	if deadline >= 0 {
		// The guest's clock goes in steps: wait until it shows the deadline.
		deadline = min(deadline, math.MaxInt64/2) // 146 years
		until = (deadline+clockStep-1)/clockStep*clockStep - sb.monoBase
		if sb.script != nil {
			if deadline <= sb.monoNow() {
				return wasi.Success
			}
			until = max(until, 1)
		} else if until <= now {
			return wasi.Success
		}
	}
	if sb.resting && events {
		sb.resting, sb.next = false, until
		sb.events.push(Event{Kind: abi.EventRest})
		return wasi.Success
	}
	if until == 0 && !others && (!events || sb.hooks == nil || !sb.hooks.Outstanding(sb)) {
		if sb.tellDeadlock(events) {
			return wasi.Success
		}
	}
	timed := until != 0
	timer := until
	if d := sb.deadline.Load(); d != 0 && (until == 0 || d < until) {
		until = d
	}
	if late := sb.park(now, until, files, events, timed); late && timed && until == timer && sb.script != nil {
		sb.script.TimeUp(deadline)
	}
	return wasi.Success
}

// tellDeadlock tells a guest that waits for nothing so, once, and ends it when
// it then waits for nothing again. It reports whether the guest has the event.
func (sb *Sandbox) tellDeadlock(events bool) bool {
	// What was outstanding a moment ago may have just arrived.
	if events && !sb.events.empty() {
		return true
	}
	told := sb.told
	sb.told = true
	if events && !told {
		sb.events.push(Event{Kind: abi.EventDeadlock})
		return true
	}
	panic(&stop{err: &wray.Error{Code: wray.CodeDeadlock, Message: "everything in the guest waits, and for nothing",
		Hint: "look in the trace for a Get of a value that nobody makes, or a channel that nobody sends on"}})
}

// anyReady reports whether one of files can be read or written, as asked.
func anyReady(files []wasi.Interest) bool {
	for i := range files {
		if r, w := files[i].File.Ready(); files[i].Write && w || !files[i].Write && r {
			return true
		}
	}
	return false
}

// park gives the turn back and waits for one of files, or the time: then it
// reports true. Whoever makes a file ready signals the sandbox.
func (sb *Sandbox) park(now, until int64, files []wasi.Interest, events, timed bool) (late bool) {
	sb.told = false
	sb.cpu += now - sb.sliceFrom
	sb.engine.gate.leave()
	hooked := events && sb.hooks != nil
	if hooked {
		sb.hooks.Park(sb, timed)
	} else if sb.hooks != nil {
		sb.hooks.Tick(sb)
	}
	for {
		if s := sb.script; s != nil {
			if s.Step() || sb.killed.Load() != nil || len(files) > 0 && anyReady(files) {
				break
			}
		}
		if until == 0 {
			<-sb.wake
		} else if !sb.waitUntil(until) {
			late = true
			break
		}
		if sb.killed.Load() != nil || len(files) == 0 && sb.script == nil || anyReady(files) {
			break
		}
		if hooked && !timed && !sb.hooks.Outstanding(sb) {
			break // nothing comes any more: the next wait says so
		}
	}
	if hooked {
		sb.hooks.Unpark(sb)
	}
	sb.engine.gate.enter(sb, true)
	sb.sliceFrom = sb.engine.clock.now()
	sb.checkStop(sb.sliceFrom)
	return late
}

// waitUntil waits for a signal and reports false when the time came first.
func (sb *Sandbox) waitUntil(until int64) bool {
	d := time.Duration(until - sb.engine.clock.now())
	if d <= 0 {
		return false
	}
	if sb.tmr == nil {
		sb.tmr = time.NewTimer(d)
	} else {
		sb.tmr.Reset(d)
	}
	select {
	case <-sb.wake:
		sb.tmr.Stop()
		return true
	case <-sb.tmr.C:
		return false
	}
}

// Block parks the sandbox in a blocking import until ready reports true, the
// time is over (d < 0: none), or the call is stopped. ready is called on the
// sandbox's goroutine after each signal; use Signal to cause one.
func (sb *Sandbox) Block(d time.Duration, ready func() bool) bool {
	var until int64
	now := sb.engine.clock.now()
	if d >= 0 {
		until = now + int64(d)
	}
	stopAt := until
	if dl := sb.deadline.Load(); dl != 0 && (stopAt == 0 || dl < stopAt) {
		stopAt = dl
	}
	sb.checkStop(now)
	if ready() {
		return true
	}
	sb.cpu += now - sb.sliceFrom
	sb.engine.gate.leave()
	if sb.hooks != nil {
		sb.hooks.Park(sb, until != 0)
	}
	ok, late := false, false
	for sb.killed.Load() == nil {
		if s := sb.script; s != nil {
			if s.Step() {
				break
			}
			if ok = ready(); ok || sb.killed.Load() != nil {
				break
			}
		}
		if stopAt == 0 {
			<-sb.wake
		} else if !sb.waitUntil(stopAt) {
			late = true
			break
		}
		if ok = ready(); ok {
			break
		}
	}
	if late && stopAt == until && sb.script != nil {
		sb.script.TimeUp(0)
	}
	if sb.hooks != nil {
		sb.hooks.Unpark(sb)
	}
	sb.engine.gate.enter(sb, true)
	sb.sliceFrom = sb.engine.clock.now()
	sb.checkStop(sb.sliceFrom)
	return ok
}

// Signal makes a sandbox that is parked in Block look again.
func (sb *Sandbox) Signal() { sb.signal() }
