package node

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

// A worker that dies is replaced at once, so that what the tenant's other nodes
// lend it and its next job find one; one whose successors die young, later and
// later. A module in whose presence workers die again and again is refused.

// Bounds of that.
const (
	youngWorker = 5 * time.Second        // one that has died before has not done much
	firstPause  = 100 * time.Millisecond // before the second in a row that has died young is replaced
	lastPause   = 10 * time.Second
	// maxDeaths is how many workers may die by themselves with a module in them, in
	// suspicion, before it is refused.
	maxDeaths  = 3
	suspicion  = 10 * time.Minute
	maxSuspect = 1024 // modules of a tenant that are kept track of
)

// pause is how long the replacement of a worker waits, of which so many in a row
// have died young.
func pause(young int) time.Duration {
	if young == 0 {
		return 0
	}
	return min(lastPause, firstPause<<min(young-1, 20))
}

// moduleSum is a module by the hash of its bytes, and what its job calls it.
type moduleSum struct {
	sum  [32]byte
	name string
}

// suspects are a tenant's modules that were in workers which died.
type suspects struct {
	mu sync.Mutex
	by map[[32]byte]*suspect // guarded by mu
}

type suspect struct {
	name   string
	deaths []time.Time // the last maxDeaths
	why    string
}

// note takes note of a death with those modules in the worker.
func (s *suspects) note(now time.Time, modules []moduleSum, why string) (refused []moduleSum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range modules {
		x := s.by[m.sum]
		if x == nil {
			if len(s.by) >= maxSuspect {
				s.forgetLocked(now)
			}
			if len(s.by) >= maxSuspect {
				continue
			}
			x = &suspect{}
			if s.by == nil {
				s.by = map[[32]byte]*suspect{}
			}
			s.by[m.sum] = x
		}
		before := x.refused()
		x.name, x.why = m.name, why
		x.deaths = append(x.deaths, now)
		x.deaths = slices.DeleteFunc(x.deaths, func(t time.Time) bool { return !before && now.Sub(t) > suspicion })
		x.deaths = x.deaths[max(0, len(x.deaths)-maxDeaths):]
		if !before && x.refused() {
			refused = append(refused, m)
		}
	}
	return refused
}

// refused: it stays so until somebody lifts it.
func (x *suspect) refused() bool { return len(x.deaths) >= maxDeaths }

// forgetLocked forgets modules that have killed nothing for long. mu is held.
func (s *suspects) forgetLocked(now time.Time) {
	for sum, x := range s.by {
		if !x.refused() && now.Sub(x.deaths[len(x.deaths)-1]) > suspicion {
			delete(s.by, sum)
		}
	}
}

// check is why a module is not run.
func (s *suspects) check(tenant string, m moduleSum) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.by[m.sum]
	if x == nil || !x.refused() {
		return nil
	}
	hash := hex.EncodeToString(m.sum[:])
	return &wray.Error{Code: wray.CodeDenied,
		Message: fmt.Sprintf("module %s (sha256 %s…) is in quarantine: %d workers of tenant %s died while it ran here, the last at %s: %s", m.name, hash[:16], len(x.deaths), tenant, x.deaths[len(x.deaths)-1].Format(time.TimeOnly), x.why),
		Hint:    fmt.Sprintf("have it use less memory or fewer tasks, or find out why its workers die, which makes it another module; to run this one again: wray tenant lift %s %s", tenant, hash[:16])}
}

// list is those that are refused.
func (s *suspects) list() (list []clientwire.Suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sum, x := range s.by {
		if x.refused() {
			list = append(list, clientwire.Suspect{Hash: hex.EncodeToString(sum[:]), Name: x.name, Deaths: len(x.deaths), Last: x.deaths[len(x.deaths)-1].UnixMilli(), Why: x.why})
		}
	}
	slices.SortFunc(list, func(a, b clientwire.Suspect) int { return cmp.Compare(a.Hash, b.Hash) })
	return list
}

// lift has a module run again, by its hash or the beginning of it.
func (s *suspects) lift(tenant, hash string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash = strings.ToLower(hash)
	var found [][32]byte
	for sum, x := range s.by {
		if x.refused() && strings.HasPrefix(hex.EncodeToString(sum[:]), hash) {
			found = append(found, sum)
		}
	}
	switch {
	case len(hash) < 8:
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%q is no hash of a module", hash), Hint: "give its first eight digits, or more"}
	case len(found) != 1:
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%d modules of tenant %s in quarantine here begin with %.64s", len(found), tenant, hash),
			Hint: "see which there are, on this node: wray tenant show " + tenant}
	}
	delete(s.by, found[0])
	return nil
}

// dead takes note, once, that a worker has ended that nobody has ended: with the
// jobs that ran in it. blame is set where it is known that these have killed it.
func (t *tenant) dead(w *workerProcess, why string, blame bool) {
	w.death.Do(func() {
		if w.wanted.Load() {
			return
		}
		t.restarts.Add(1)
		t.n.mu.Lock()
		if time.Since(w.began) < youngWorker {
			t.young++
		} else {
			t.young = 0
		}
		t.n.mu.Unlock()
		if !blame {
			return
		}
		for _, m := range t.suspects.note(time.Now(), w.modules(), why) {
			slog.Warn("a module is in quarantine: workers die while it runs", "tenant", t.name, "module", m.name, "sha256", hex.EncodeToString(m.sum[:]))
		}
	})
}

// blames reports whether the way in which a process ended is that of one that its
// own code has ended, rather than somebody outside or a machine out of memory.
func (w *workerProcess) blames() bool {
	exit := w.proc.Wait()
	switch {
	case exit.Err != nil:
		return false
	case exit.Killed():
		return w.group != nil && w.group.OOMKills() > 0
	}
	return true
}

// modules are those of the jobs that run.
func (w *workerProcess) modules() (list []moduleSum) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		list = append(list, r.modules...)
	}
	slices.SortFunc(list, func(a, b moduleSum) int { return slices.Compare(a.sum[:], b.sum[:]) })
	return slices.CompactFunc(list, func(a, b moduleSum) bool { return a.sum == b.sum })
}

// mourn waits for the end of a worker. Where nobody has ended it, another takes
// its place.
func (t *tenant) mourn(w *workerProcess) {
	<-w.served
	t.n.mu.Lock()
	mine := t.worker == w
	if mine {
		t.worker = nil
		t.ending.Add(1)
	}
	t.n.mu.Unlock()
	if !w.wanted.Load() {
		t.await(w)
	}
	w.close()
	if mine {
		t.ending.Done()
	}
	t.replace(w)
}

// await waits for the process of a worker whose link has ended, for a moment, and
// takes note of its death.
func (t *tenant) await(w *workerProcess) {
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	select {
	case <-w.proc.Done():
	case <-grace.C:
		w.proc.Kill()
		t.dead(w, "it closed its link and did not end", true)
		return
	}
	t.dead(w, "the worker process "+w.proc.Wait().String(), w.blames())
}

// replace starts a worker in place of one that has died, where the node lives on
// and others or jobs may come.
func (t *tenant) replace(w *workerProcess) {
	n := t.n
	if w.wanted.Load() || n.jobs.Load() == nil && t.peers == nil || n.draining() {
		return
	}
	n.mu.Lock()
	wait := pause(t.young)
	if t.young == 1 {
		wait = 0 // the first is replaced at once, however young it was
	}
	over := t.endedLocked() != nil
	n.mu.Unlock()
	if over {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		_, _ = t.startWorker(n.living) // who needs it for a job is told why it does not start
	case <-n.living.Done():
	}
}
