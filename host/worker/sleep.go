package worker

import (
	"errors"
	"fmt"

	"runtime/debug"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
)

// An actor that sleeps has no sandbox: what it was is kept as the difference
// from its module's snapshot, beside its guest, whose handles and windows keep
// their objects. It wakes into any clean sandbox of the module.

// sleep gives the guest's sandbox up, which is the actor a's, and returns what it
// was. No call is in flight. On an error the guest is as before. With save it is
// a's checkpoint, too.
func (g *guest) sleep(a *actor, save bool) (*sandbox.State, error) {
	g.out.Lock()
	sb := g.sb
	g.sb = nil // events that come from now on are kept in missed
	g.out.Unlock()
	windows := make([]sandbox.Base, 0, len(g.windows))
	for at, w := range g.windows {
		windows = append(windows, w.base(at))
	}
	var s *sandbox.State
	var err error
	if save || sb.Keeps() {
		err = a.checkpoint(sb)
		switch {
		case err == nil && sb.Keeps():
			s = a.dur.last.state // what it is, is its checkpoint too
		case !sb.Keeps():
			err = nil // it sleeps all the same
		}
	}
	if err == nil && s == nil {
		s, err = sb.Save(windows)
	}
	if err != nil {
		g.attachTo(sb)
		return nil, err
	}
	for at, w := range g.windows {
		if err := sb.Unwindow(uint64(at), w.len); err != nil {
			sb.Close() // which unmaps it all
			return s, nil
		}
	}
	g.module.giveBack(sb)
	return s, nil
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
const maxSpare = 64

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

// takeClean returns a clean sandbox, to be adopted.
func (m *module) takeClean(memory int64) (*sandbox.Sandbox, error) {
	limits := m.job.sandboxLimits(memory)
	m.mu.Lock()
	for i := len(m.spare) - 1; i >= 0; i-- {
		if sb := m.spare[i]; sb.MadeWith(limits) {
			m.spare[i] = m.spare[len(m.spare)-1]
			m.spare[len(m.spare)-1] = nil
			m.spare = m.spare[:len(m.spare)-1]
			m.mu.Unlock()
			return sb, nil
		}
	}
	m.mu.Unlock()
	sb, err := m.m.New(limits)
	if err != nil {
		return nil, prepareError(m.name, err)
	}
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
	if a.state != nil { // there was nothing to do
		return a.lieDown()
	}
	if a.wakeful {
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
	s, err := a.guest.sleep(a, a.dur.unsaved > 0)
	if err != nil {
		a.mu.Lock()
		a.g = a.guest
		a.wakeful = a.wakeful || errors.Is(err, sandbox.ErrNoState)
		a.mu.Unlock()
		w.residents.stays(a)
		return false
	}
	a.state = s
	w.asleep.Add(1)
	w.keeps(int64(s.Held()))
	a.bytes.Store(int64(s.Held()))
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
	if a.state == nil {
		return nil
	}
	w := a.job.w
	if err := w.residents.add(a); err != nil {
		return err
	}
	if err := a.guest.rouse(a.state); err != nil {
		w.residents.remove(a)
		return err
	}
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
	if a.state != nil {
		a.job.w.asleep.Add(-1)
		a.job.w.keeps(-int64(a.state.Held()))
		a.state = nil
	}
}

// keeps takes note that states of so many bytes more are kept. They stay long
// and are collected in vain, so where they are most of the heap it grows less
// between two collections.
func (w *Worker) keeps(n int64) {
	const much = 256 << 20
	now := w.asleepBytes.Add(n)
	if was := now - n; was < much != (now < much) {
		percent := 100
		if now >= much {
			percent = 40
		}
		debug.SetGCPercent(percent)
	}
}

// watchIdle has an actor sleep that has answered nothing for as long as its
// option Idle says. It is called when the actor comes to rest.
func (a *actor) watchIdle() {
	if a.wakeful || !a.watched.CompareAndSwap(false, true) {
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
