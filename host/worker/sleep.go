package worker

import (
	"errors"
	"fmt"

	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
)

// An actor that sleeps has no sandbox: what it was is kept as the difference
// from its module's snapshot, beside its guest, whose handles and windows keep
// their objects. It wakes into any clean sandbox of the module.

// sleep gives the guest's sandbox up, which is the actor a's, and returns what it
// was. No call is in flight. On an error the guest is as before. With save it is
// a's checkpoint, too.
func (g *guest) sleep(a *actor, save bool) (*kept, error) {
	g.out.Lock()
	sb := g.sb
	g.sb = nil // events that come from now on are kept in missed
	g.out.Unlock()
	windows := make([]sandbox.Base, 0, len(g.windows))
	for at, w := range g.windows {
		windows = append(windows, w.base(at))
	}
	var k *kept
	var err error
	if save || sb.Keeps() {
		err = a.checkpoint(sb)
		switch {
		case err == nil && a.hosted: // its home has it
		case err == nil:
			k = g.w.stash.share(a.dur.last.kept) // what it is, is its checkpoint too
		case !sb.Keeps():
			err = nil // it sleeps all the same
		}
	}
	if err == nil && k == nil {
		var s *sandbox.State
		if s, err = sb.Save(windows); err == nil {
			k = g.w.stash.keep(s)
		}
	}
	if err != nil {
		g.attachTo(sb)
		return nil, err
	}
	for at, w := range g.windows {
		if err := sb.Unwindow(uint64(at), w.len); err != nil {
			sb.Close() // which unmaps it all
			return k, nil
		}
	}
	g.module.giveBack(sb)
	return k, nil
}

// rouse gives a guest that sleeps a sandbox which is what s says. On an error
// it sleeps on.
func (g *guest) rouse(s *sandbox.State) error {
	sb, err := g.module.takeClean(g.memory)
	if err != nil {
		return err
	}
	if err := sb.Dig(s); err != nil {
		sb.Close()
		return err
	}
	for at, w := range g.windows {
		if err := w.lay(sb, at); err != nil {
			sb.Close()
			return fmt.Errorf("map an object again: %w", err)
		}
	}
	if err := sb.Load(s); err != nil {
		sb.Close()
		return err
	}
	sb.Host = g
	sb.SetHooks(g)
	g.attachTo(sb)
	g.configure(g.module.args(), nil)
	return nil
}

// attachTo makes sb the guest's sandbox.
func (g *guest) attachTo(sb *sandbox.Sandbox) {
	g.out.Lock()
	g.sb = sb
	missed := g.missed
	g.missed = nil
	g.out.Unlock()
	for _, e := range missed {
		sb.Notify(e)
	}
}

// maxSpare bounds the clean sandboxes that a module keeps for actors that wake.
const maxSpare = 256

// giveBack keeps a sandbox, cleaned, for the next actor that wakes, or closes
// it.
func (m *module) giveBack(sb *sandbox.Sandbox) {
	m.mu.Lock()
	room := len(m.spare) < maxSpare && !m.closing
	m.mu.Unlock()
	// Without grants it keeps no file open.
	if !room || !sb.Reset() || sb.Configure(&wasi.Config{}) != nil {
		sb.Close()
		return
	}
	sb.Host = nil
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spare = append(m.spare, sb)
}

// grown returns how much longer the guest's linear memory is than that of a new
// sandbox, without what objects are mapped over, which is everybody's.
func (g *guest) grown() int64 {
	n := int64(len(g.sb.Memory())) - g.module.fresh.Load()
	if n <= 0 {
		return 0
	}
	for _, w := range g.windows {
		n -= int64(w.len)
	}
	return max(n, 0)
}

// takeSpare returns a clean sandbox that another has left, or nil.
func (m *module) takeSpare(memory int64) *sandbox.Sandbox {
	limits := m.job.sandboxLimits(memory)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.spare) - 1; i >= 0; i-- {
		if sb := m.spare[i]; sb.MadeWith(limits) {
			m.spare[i] = m.spare[len(m.spare)-1]
			m.spare[len(m.spare)-1] = nil
			m.spare = m.spare[:len(m.spare)-1]
			return sb
		}
	}
	return nil
}

// takeClean returns a clean sandbox, to be adopted.
func (m *module) takeClean(memory int64) (*sandbox.Sandbox, error) {
	if sb := m.takeSpare(memory); sb != nil {
		return sb, nil
	}
	sb, err := m.m.New(m.job.sandboxLimits(memory))
	if err != nil {
		return nil, prepareError(m.name, err)
	}
	m.fresh.Store(int64(len(sb.Memory())))
	return sb, nil
}

// closeSpare closes the clean sandboxes.
func (m *module) closeSpare() {
	m.mu.Lock()
	spare := m.spare
	m.spare = nil
	m.mu.Unlock()
	for _, sb := range spare {
		sb.Close()
	}
}

// sleep gives the actor's sandbox up. It reports whether the actor sleeps: then
// its goroutine is to end, and live is called again when there is something to
// do.
func (a *actor) sleep() bool {
	w := a.job.w
	if a.slept != nil { // there was nothing to do
		return a.lieDown()
	}
	if a.wakeful.Load() || w.stash.admit() != nil {
		w.residents.stays(a)
		return false
	}
	a.mu.Lock()
	if a.ending != nil {
		a.mu.Unlock()
		w.residents.stays(a)
		return false
	}
	a.g = nil // from here on nobody reaches the sandbox
	a.box.Trim()
	a.mu.Unlock()
	k, err := a.guest.sleep(a, a.dur.unsaved > 0)
	if err != nil {
		a.mu.Lock()
		a.g = a.guest
		a.mu.Unlock()
		if errors.Is(err, sandbox.ErrNoState) {
			a.wakeful.Store(true)
		}
		w.residents.stays(a)
		return false
	}
	a.slept, a.since = k, time.Now()
	w.asleep.Add(1)
	w.collector.stays(actorHeap)
	a.bytes.Store(w.stash.held(k))
	w.residents.remove(a)
	if a.watched.CompareAndSwap(true, false) {
		a.timer.Stop()
	}
	return a.lieDown()
}

// lieDown lets pokes start live, unless one came before: it saw an actor that
// was awake.
func (a *actor) lieDown() bool {
	a.asleep.Store(true)
	if len(a.wake) == 0 || !a.asleep.CompareAndSwap(true, false) {
		return true
	}
	<-a.wake
	return false
}

// awake makes sure that the actor has a sandbox.
func (a *actor) awake() error {
	if a.slept == nil {
		return nil
	}
	w := a.job.w
	state, err := w.stash.get(a.slept)
	if err != nil {
		return err
	}
	if err := w.residents.add(a); err != nil {
		return err
	}
	if err := a.guest.rouse(state); err != nil {
		w.residents.remove(a)
		return err
	}
	a.guest.sb.Elapse(time.Since(a.since))
	a.forgetState()
	a.mu.Lock()
	a.g = a.guest
	if a.ending != nil {
		a.g.sb.Kill(a.ending)
	}
	a.mu.Unlock()
	return nil
}

// forgetState lets go of what the actor was when it slept.
func (a *actor) forgetState() {
	if a.slept != nil {
		a.job.w.asleep.Add(-1)
		a.job.w.collector.stays(-actorHeap)
		a.job.w.stash.drop(a.slept)
		a.slept = nil
	}
}

// lostAsleep ends an actor whose state was lost while it slept, for err, with
// the call that it was to wake for: c, which has not begun, or nil. It returns
// the failure of the attempt.
func (a *actor) lostAsleep(c *task, err error) *wray.Error {
	lost := &wray.Error{Code: wray.CodeObjectLost, Message: fmt.Sprintf("what the actor was: %v", err),
		Hint: "check the disk, or name another with " + objectstore.SpillDirFlag + "; with sdk.MaxRestarts the actor starts again"}
	if c == nil {
		return lost
	}
	a.mu.Lock()
	restarts := !a.final && a.create.mayRestart()
	if restarts {
		a.running = nil
		a.box.PutBack(c.letter, c.from)
	}
	a.mu.Unlock()
	if !restarts {
		a.complete(c, a.died(c, "the actor was lost while it slept", lost, false))
	}
	return lost
}

const (
	// shortNap is how soon a timer is due at most that an actor is awake for
	// already rather than falling asleep.
	shortNap = 20 * time.Millisecond
	// rouseRetry is how long a timer waits when its actor cannot be woken.
	rouseRetry = time.Second
)

// tick lets goroutines that calls left running go on until they all wait, as one
// of their timers is due, or may have been set. An actor that slept sleeps again
// then. The error is why the attempt is to end.
func (a *actor) tick() *wray.Error {
	a.rings.Store(false)
	slept := a.slept != nil
	if err := a.awake(); errors.Is(err, errStateLost) {
		return a.lostAsleep(nil, err)
	} else if err != nil { // there is no place for it now
		a.setAlarm(rouseRetry)
		return nil
	}
	next, err := a.guest.sb.Rest()
	a.guest.flush()
	a.guest.endTask()
	if err != nil {
		return a.create.asError(err)
	}
	a.setAlarm(next)
	if slept && (next < 0 || next > shortNap) {
		a.job.w.residents.doze(a)
	}
	return nil
}

// setAlarm has the actor tick after d, whether it is awake then or asleep; where
// d is negative, never.
func (a *actor) setAlarm(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case d < 0 && a.alarm != nil:
		a.alarm.Stop()
	case d < 0:
	case a.alarm == nil:
		a.alarm = time.AfterFunc(d, func() { a.rings.Store(true); a.poke() })
	default:
		a.alarm.Reset(d)
	}
}

// watchIdle has an actor sleep that has answered nothing for as long as its
// option Idle says. It is called when the actor comes to rest.
func (a *actor) watchIdle() {
	if a.wakeful.Load() || !a.watched.CompareAndSwap(false, true) {
		return
	}
	a.seen.Store(a.calls.Load())
	a.mu.Lock()
	defer a.mu.Unlock() // for who is called at once
	if a.timer == nil {
		a.timer = time.AfterFunc(a.idle, a.looksIdle)
	} else {
		a.timer.Reset(a.idle)
	}
}

// looksIdle is what the timer calls, on a goroutine of its own. The timer runs
// through whatever the actor does meanwhile, so that a call costs nothing.
func (a *actor) looksIdle() {
	n := a.calls.Load()
	if a.seen.Swap(n) != n && !a.over.Load() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.timer.Reset(a.idle)
		return
	}
	a.watched.Store(false)
	if a.resting.Load() {
		a.job.w.residents.doze(a)
	}
}
