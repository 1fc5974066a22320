package sandbox

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

// Sandbox is one instance of a module with its memory, its descriptors and its
// meter. One goroutine at a time calls Call, Reset and Close; Kill, Notify and
// Deadline may come from any.
//
// A Sandbox is the context of the guest's calls: host functions find it there
// without a look-up.
type Sandbox struct {
	module *Module
	engine *Engine
	inst   api.Module
	mem    *linearMemory
	limits Limits
	wasi   wasi.System

	call        api.Function // wray_call, nil for a plain command
	fuel, depth api.MutableGlobal
	globals     []api.MutableGlobal
	stack       [2]uint64 // parameters and result of call

	// Host is what the worker attaches: its own state for this sandbox.
	Host any

	hooks        Hooks
	script       Script // nil: none
	initialising bool   // running the start function or _initialize
	restored     bool   // has drawn new randomness since the snapshot
	running      bool   // a call is in flight
	keep         bool   // KeepTurn was called
	holds        bool   // has a turn of the gate, between two calls
	spoilt       bool   // trapped, killed or exited: to be reset before the next call
	closed       bool
	resting      bool // in an operation REST, whose guest has not been told that everything waits
	stirred      bool // may have timers that next does not tell of
	told         bool // that everything in it waits for nothing, since it last waited for something, or the call began

	monoBase  int64 // the guest's monotonic clock less the engine's
	next      int64 // when the guest's first timer is due, by the engine's clock; 0: it has none
	sliceFrom int64 // when this turn began, or this call in it, by the engine's clock
	turnFrom  int64 // when a turn began that lasts over calls
	cpu       int64 // ns of turns used in this call
	ticks     uint64
	owed      int64 // host work since the last tick, in estimated ns

	turn chan struct{} // the gate's signal; one at most
	wake chan struct{} // ends a park; one at most
	tmr  *time.Timer   // for parks with a deadline

	eventsOpen bool         // the guest has opened its event descriptor
	stdinFlags wasi.Fdflags // that the guest gave its standard input while it was initialised

	deadline atomic.Int64         // engine's clock, ns; 0 for none
	killed   atomic.Pointer[stop] // set by Kill, taken at the next tick or park
	events   eventQueue           // for the guest's event descriptor
}

// Hooks tell the owner that a sandbox waits, so that it can use its CPU for
// others.
type Hooks interface {
	// Park is called before a sandbox waits for an event, and Unpark after it,
	// on the sandbox's goroutine. timed says that a timer may end the wait, too.
	Park(sb *Sandbox, timed bool)
	Unpark(sb *Sandbox)
	// Tick is called at every tick, on the sandbox's goroutine.
	Tick(sb *Sandbox)
	// Outstanding reports whether an event may still come of its own accord:
	// something the sandbox watches is on its way. Where it is false and no
	// timer runs, the guest waits for nothing.
	Outstanding(sb *Sandbox) bool
}

// SetHooks sets the owner's hooks. Attach calls it.
func (sb *Sandbox) SetHooks(h Hooks) { sb.hooks = h }

// Initialising reports whether the module's initialisation runs.
func (sb *Sandbox) Initialising() bool { return sb.initialising }

// Spoilt reports whether the sandbox must be reset before the next call.
func (sb *Sandbox) Spoilt() bool { return sb.spoilt }

// Memory returns the guest's memory. It is valid until the guest runs again.
func (sb *Sandbox) Memory() []byte { return sb.mem.bytes() }

// MemoryLimit returns the bytes that the guest may grow to.
func (sb *Sandbox) MemoryLimit() int64 { return sb.limits.Memory }

// Dirty reports whether the sandbox grew past its snapshot, so that a reset
// cannot give it back clean.
func (sb *Sandbox) Grown() bool {
	s := sb.module.snap
	return s != nil && sb.mem.size != uint64(s.pages)*wasmPage
}

// MadeWith reports whether the sandbox has the limits that New would give it.
func (sb *Sandbox) MadeWith(l Limits) bool { return sb.limits == l.withDefaults() }

// CPUTime returns the time the guest has run in the present or last call.
func (sb *Sandbox) CPUTime() time.Duration { return time.Duration(sb.cpu) }

// Module returns the module of the sandbox.
func (sb *Sandbox) Module() *Module { return sb.module }

// stop is how the host leaves a guest: it is panicked in a host function,
// carried through wazero as an error, and never seen by the guest.
type stop struct {
	err  *wray.Error
	exit bool // proc_exit: the guest's own wish
	code uint32
}

func (s *stop) Error() string {
	if s.err != nil {
		return s.err.Error()
	}
	return fmt.Sprintf("exit %d", s.code)
}

// ExitError is what a call ends with when the guest calls proc_exit.
type ExitError struct{ Code uint32 }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// Configure sets the sandbox's arguments, environment, descriptors and so on
// for the calls that follow, and closes what was open.
func (sb *Sandbox) Configure(c *wasi.Config) error {
	c.WallClock = sb.wallNow
	c.MonoClock = sb.monoNow
	c.CPUClock = sb.cpuNow
	c.Resolution = clockStep
	c.Poller = (*poller)(sb)
	c.Exit = exitGuest
	c.Random = sb.random
	c.Yield = sb.yield
	c.Limits.MaxFiles = sb.limits.Files
	c.StdinFlags = sb.stdinFlags
	if err := sb.wasi.Reset(c); err != nil {
		return err
	}
	if s := sb.module.snap; s != nil && s.events {
		// The guest opened its events before the snapshot and goes on using the
		// descriptor. With the same grants as then it has the same number; if
		// not, the guest finds it closed and opens another.
		if _, e := sb.OpenEvents(); e != wasi.Success {
			return fmt.Errorf("install the event descriptor: errno %d", e)
		}
	}
	return nil
}

func exitGuest(code uint32) { panic(&stop{exit: true, code: code}) }

// cpuClock is the processor time the guest has used in this call.
func (sb *Sandbox) cpuClock() int64 { return sb.cpu + sb.engine.clock.now() - sb.sliceFrom }

// yield is a tick that the host causes: in sched_yield and in long copies.
func (sb *Sandbox) yield() { sb.tick(0) }

// WASI returns the sandbox's WASI state, to install descriptors.
func (sb *Sandbox) WASI() *wasi.System { return &sb.wasi }

// monotonic is the guest's clock: it stands still in a snapshot and never goes
// back.
func (sb *Sandbox) monotonic() int64 {
	return (sb.engine.clock.now() + sb.monoBase) / clockStep * clockStep
}

// Elapse moves the guest's clock on by d, which went by while it was a State.
func (sb *Sandbox) Elapse(d time.Duration) { sb.monoBase += int64(max(d, 0)) }

// SetDeadline stops the guest at the next tick or park after d from now. Zero
// removes it.
func (sb *Sandbox) SetDeadline(d time.Duration) {
	if d <= 0 {
		sb.deadline.Store(0)
		return
	}
	sb.deadline.Store(sb.engine.clock.now() + int64(d))
}

// Kill stops the guest with err, at its next tick or park, which is at most
// about a millisecond away. With no call in flight it stops the next one: the
// caller makes sure that the call is the one it means.
func (sb *Sandbox) Kill(err *wray.Error) {
	sb.killed.CompareAndSwap(nil, &stop{err: err})
	sb.signal()
	sb.engine.gate.hurry(sb)
}

// signal ends a park, or makes the next one end at once.
func (sb *Sandbox) signal() {
	select {
	case sb.wake <- struct{}{}:
	default:
	}
}

// Call runs an operation of a guest that speaks wray_v1. After an error other
// than [ErrSpoilt] the sandbox must be reset before the next call.
func (sb *Sandbox) Call(op abi.Op, arg uint32) (uint32, error) {
	if sb.call == nil {
		return 0, &wray.Error{Code: wray.CodeUnknownFunction, Message: "the module does not export " + abi.ExportCall,
			Hint: "build it with the wray SDK, or run it as a command"}
	}
	if !sb.restored && sb.module.snap != nil {
		sb.restored = true
		// A deadline, or a Kill that comes now, is meant for what follows.
		if _, err := sb.enter(sb.call, uint64(abi.OpRestore), 0); err != nil {
			sb.unlimit()
			return 0, err
		}
	}
	r, err := sb.run(sb.call, uint64(op), uint64(arg))
	return uint32(r), err
}

// Stirred reports whether the guest may have set timers since Rest: it has read
// its clock.
func (sb *Sandbox) Stirred() bool {
	sb.stirred = sb.wasi.ClockRead() || sb.stirred
	return sb.stirred
}

// Rest runs the guest until everything in it waits, and returns after what time
// its first timer is due: -1 where it has none. Goroutines that calls left
// running go on in it. Errors are as those of Call.
func (sb *Sandbox) Rest() (time.Duration, error) {
	sb.resting, sb.next = true, 0
	r, err := sb.Call(abi.OpRest, 0)
	sb.resting = false
	if err != nil {
		return 0, err
	}
	sb.wasi.ClockRead() // next says all
	sb.stirred = false
	if r != 0 || sb.next == 0 { // it may do nothing of that kind
		sb.next = 0
		return -1, nil
	}
	return time.Duration(max(0, sb.next-sb.engine.clock.now())), nil
}

// Start runs a command module to its end and returns its exit code.
func (sb *Sandbox) Start() (uint32, error) {
	f := sb.inst.ExportedFunction(abi.ExportStart)
	if f == nil {
		return 0, &wray.Error{Code: wray.CodeUnknownFunction, Message: "the module does not export " + abi.ExportStart}
	}
	_, err := sb.run(f)
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code, nil
	}
	return 0, err
}

// ErrSpoilt is returned by calls of a sandbox that trapped, was killed or
// exited and has not been reset.
var ErrSpoilt = errors.New("the sandbox was stopped and not reset")

// run calls f, which the deadline and a Kill are meant for.
func (sb *Sandbox) run(f api.Function, params ...uint64) (uint64, error) {
	r, err := sb.enter(f, params...)
	sb.unlimit()
	return r, err
}

// unlimit forgets the deadline and the Kill of a call that has ended.
func (sb *Sandbox) unlimit() {
	sb.deadline.Store(0)
	sb.killed.Store(nil)
}

// enter calls f in a turn of the gate, with the meter set.
func (sb *Sandbox) enter(f api.Function, params ...uint64) (result uint64, err error) {
	if sb.spoilt || sb.closed {
		return 0, ErrSpoilt
	}
	if sb.running {
		panic("BUG: two calls in one sandbox")
	}
	if sb.depth != nil {
		sb.depth.Set(uint64(uint32(sb.limits.Stack)))
	}
	sb.running, sb.cpu, sb.told = true, 0, false
	sb.takeTurn()
	copy(sb.stack[:], params)
	err = f.CallWithStack(sb, sb.stack[:])
	now := sb.engine.clock.now()
	sb.cpu += now - sb.sliceFrom
	sb.holds = true
	if !sb.keep || err != nil {
		sb.ReleaseTurn()
	}
	sb.running = false
	if err != nil {
		sb.spoilt = true
		return 0, sb.classify(err)
	}
	return sb.stack[0], nil
}

// KeepTurn has the sandbox keep its turn when its calls end: whoever makes many
// short calls one after the other then switches to another sandbox once for all
// of them, and not after each. The caller calls ReleaseTurn when no call
// follows at once.
func (sb *Sandbox) KeepTurn() { sb.keep = true }

// ReleaseTurn gives up the turn that the sandbox keeps, if it does.
func (sb *Sandbox) ReleaseTurn() {
	sb.keep = false
	if sb.holds {
		sb.holds = false
		sb.engine.gate.leave()
	}
}

// keptTurn is how long a kept turn lasts while others wait.
const keptTurn = 300_000 // ns: to pass a turn on takes some microseconds

// takeTurn returns when the sandbox has a turn, at the beginning of a call.
func (sb *Sandbox) takeTurn() {
	if !sb.holds {
		sb.engine.gate.enter(sb, false)
		sb.sliceFrom = sb.engine.clock.now()
		sb.turnFrom = sb.sliceFrom
		return
	}
	sb.holds = false
	sb.sliceFrom = sb.engine.clock.now()
	if sb.engine.gate.waiting.Load() > 0 && sb.sliceFrom-sb.turnFrom >= keptTurn {
		sb.engine.gate.yield(sb)
		sb.sliceFrom = sb.engine.clock.now()
		sb.turnFrom = sb.sliceFrom
	}
}

// Renew has a call that is in flight count as one that begins: its processor
// time, and its turn, as it would be where a kept turn meets the next call. A
// deadline is set before, and a Kill that comes from then on is meant for what
// follows. It may end the call, so whoever calls it holds nothing.
func (sb *Sandbox) Renew() {
	now := sb.engine.clock.now()
	sb.cpu, sb.told = 0, false
	if sb.engine.gate.waiting.Load() > 0 && now-sb.turnFrom >= keptTurn {
		sb.engine.gate.yield(sb)
		now = sb.engine.clock.now()
		sb.turnFrom = now
	}
	sb.sliceFrom = now
	sb.checkStop(now)
}

// tick is where a guest meets its host at bounded intervals. It returns the
// fuel until the next tick.
func (sb *Sandbox) tick(left int64) int64 {
	sb.ticks++
	now := sb.engine.clock.now()
	sb.checkStop(now)
	if sb.hooks != nil {
		sb.hooks.Tick(sb)
	}
	if sb.engine.gate.waiting.Load() > 0 && now-sb.sliceFrom >= sb.engine.gate.slice {
		sb.cpu += now - sb.sliceFrom
		sb.engine.gate.yield(sb)
		sb.sliceFrom = sb.engine.clock.now()
		sb.checkStop(sb.sliceFrom)
	}
	return max(left, -tickPeriod) + tickPeriod
}

// charge counts host work done for the guest, in estimated nanoseconds. The
// meter counts instructions only, and a guest that does nothing but call the
// host runs few.
func (sb *Sandbox) charge(ns int64) {
	if sb.owed += ns; sb.owed >= chargePeriod {
		sb.owed = 0
		sb.tick(0)
	}
}

// Charge counts ns estimated nanoseconds of host work that a host function has
// done for the guest. It may end the call, or pass the turn on, so whoever
// calls it holds nothing.
func (sb *Sandbox) Charge(ns int64) { sb.charge(ns) }

// checkStop ends the call if it was killed or is past its deadline.
func (sb *Sandbox) checkStop(now int64) {
	if s := sb.killed.Load(); s != nil {
		panic(s)
	}
	if d := sb.deadline.Load(); d != 0 && now >= d {
		panic(&stop{err: &wray.Error{Code: wray.CodeTimeout, Message: "ran past its deadline",
			Hint: "give it more time with the option Timeout or --timeout"}})
	}
}

// Reset gives the sandbox back clean: memory and globals as in the snapshot,
// no open files, no events. It reports false where that is impossible and the
// sandbox must be closed and replaced.
func (sb *Sandbox) Reset() bool {
	if sb.running {
		panic("BUG: reset of a running sandbox")
	}
	if sb.module.snap == nil || sb.closed || sb.Grown() {
		return false
	}
	if err := sb.mem.reset(); err != nil {
		return false
	}
	sb.toSnapshot()
	return true
}

// toSnapshot sets everything but memory as it was in the snapshot.
func (sb *Sandbox) toSnapshot() {
	s := sb.module.snap
	for i, g := range sb.globals {
		g.Set(s.globals[i])
	}
	sb.monoBase = s.mono - sb.engine.clock.now()
	sb.spoilt, sb.restored, sb.told, sb.stirred, sb.next = false, false, false, false, 0
	sb.script = nil
	sb.events.clear()
	select {
	case <-sb.wake:
	default:
	}
}

// Close frees the sandbox. It is idempotent. No call may be in flight.
func (sb *Sandbox) Close() {
	if sb.closed {
		return
	}
	if sb.running {
		panic("BUG: close of a running sandbox")
	}
	sb.closed = true
	sb.wasi.Close()
	_ = sb.inst.Close(sb)
	sb.engine.maps <- struct{}{}
	_ = sb.mem.release()
	<-sb.engine.maps
	sb.module.mu.Lock()
	sb.module.live--
	sb.module.mu.Unlock()
}

// fits reports whether a window may lie at at: whole pages in the guest's memory.
func (sb *Sandbox) fits(at, n uint64) bool {
	return n <= sb.mem.size && at <= sb.mem.size-n && at%abi.MapAlign == 0 && n%pageAlign == 0
}

// Window lays n bytes of a file, private and copy-on-write, over the guest's
// memory. The file's bytes stay as they are until Unwindow, and it does not
// shrink. What was laid over the range before is gone from there.
func (sb *Sandbox) Window(fd int, offset int64, at, n uint64) error {
	if !sb.fits(at, n) {
		return fmt.Errorf("window of %d bytes at %d does not fit the memory of %d", n, at, sb.mem.size)
	}
	return sb.mem.window(fd, offset, at, n)
}

// Lend lays mem, which is a whole number of pages of a shared mapping of the
// host's, over the guest's memory: the guest writes to it, and the host sees
// that. The mapping stays until Unwindow, or until a Window is laid over it;
// from then on the guest cannot change mem. The file behind it does not shrink.
func (sb *Sandbox) Lend(mem []byte, at uint64) error {
	if n := uint64(len(mem)); n == 0 || !sb.fits(at, n) {
		return fmt.Errorf("%d bytes at %d do not fit the memory of %d", n, at, sb.mem.size)
	}
	return sb.mem.lend(mem, at)
}

// Unwindow puts fresh zero pages over a window, or over what was lent.
func (sb *Sandbox) Unwindow(at, n uint64) error {
	if !sb.fits(at, n) {
		return fmt.Errorf("window of %d bytes at %d does not fit the memory of %d", n, at, sb.mem.size)
	}
	return sb.mem.unwindow(at, n)
}

// Sparse reports whether the range of the guest's memory has at most so many
// pages that are mapped, so that to lay something over it takes no longer than
// those. False as well where the system does not tell. To ask costs less than
// to lay a window over as many pages.
func (sb *Sandbox) Sparse(at, n, pages uint64) bool {
	return sb.fits(at, n) && sb.mem.sparse(at, n, pages)
}

// The methods of context.Context: a sandbox carries no values, and ends by the
// meter and not by a channel.

// Deadline implements context.Context.
func (sb *Sandbox) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (sb *Sandbox) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (sb *Sandbox) Err() error { return nil }

// Value implements context.Context.
func (sb *Sandbox) Value(any) any { return nil }

// Forgive forgets a Kill that came too late for the call it meant.
func (sb *Sandbox) Forgive() { sb.killed.Store(nil) }

// Stop returns what a host function panics with to end the guest's call with
// err.
func Stop(err *wray.Error) error { return &stop{err: err} }
