package worker

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
)

// TestSavedAway has actors that take checkpoints live on other nodes, which die,
// and gets what the same gives on one node where they are started again.
func TestSavedAway(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	cfg, there := savingConfigs(guest)

	alone := newTwin(t, guest.module)
	only := alone.join("a", there)
	k := alone.job(only, nil, "saves", "alone")
	var want []string
	for range 3 {
		for line := k.next(); line != "kill"; line = k.next() {
			want = append(want, line)
		}
		k.goOn()
	}
	want = append(want, k.rest()...)
	awaitNothing(t, only)
	alone.close()

	net := newTwin(t, guest.module)
	a, b := net.join("a", cfg), net.join("b0", there)
	awaitPeers(t, a, 1)
	j := net.job(a, nil, "saves", "away")
	var got []string
	for i := range 3 {
		for line := j.next(); line != "kill"; line = j.next() {
			got = append(got, line)
		}
		if n := b.hosted(); n == 0 {
			t.Error("no actor is there")
		}
		next := net.join(fmt.Sprint("b", i+1), there)
		net.kill(b)
		b = next
		j.goOn()
	}
	got = append(got, j.rest()...)
	where := regexp.MustCompile(" on (a|b[0-9]),")
	for i, line := range got {
		if i < len(want) && where.ReplaceAllString(line, "") == where.ReplaceAllString(want[i], "") {
			want[i] = line
		}
	}
	j.wants(got, want...)
	for _, e := range []*twinEnd{a, b} {
		awaitNothing(t, e)
	}
	net.close()
}

// TestSavedAwayKills has the nodes of an actor die at any message, of which each
// answered call is in a checkpoint.
func TestSavedAwayKills(t *testing.T) {
	seed := seedOf(t)
	guest := compileGuest(t, "cluster")
	for _, mode := range []string{"once", "again"} {
		t.Run(mode, func(t *testing.T) {
			net := newTwin(t, guest.module)
			net.delay = randomDelay(seed, 2*time.Millisecond)
			cfg, there := savingConfigs(guest)
			a, b := net.join("a", cfg), net.join("b", there)
			awaitPeers(t, a, 1)
			rng := rand.New(rand.NewPCG(seed, 2))
			due, over := make(chan struct{}, 1), make(chan struct{})
			at, kills := 100, 0
			net.mu.Lock()
			net.when = func(n int) {
				if n >= at {
					select {
					case due <- struct{}{}:
					default:
					}
				}
			}
			net.mu.Unlock()
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-due:
					}
					next := net.join(fmt.Sprint("b", kills), there)
					net.kill(b)
					b = next
					kills++
					net.mu.Lock()
					at = net.sent + 30 + rng.IntN(100)
					net.mu.Unlock()
				}
			})
			j := net.job(a, nil, "saves", "kills", mode)
			got := j.rest()
			close(over)
			wg.Wait()
			t.Logf("%d nodes killed", kills)
			if j.wants(got, "all there"); kills == 0 {
				t.Error("no node died")
			}
			for _, e := range []*twinEnd{a, b} {
				awaitNothing(t, e)
			}
			net.close()
		})
	}
}

// savingConfigs are those of the job's node, and of one that has room for actors.
func savingConfigs(guest compiled) (cfg, there Config) {
	cfg = Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
	there = cfg
	there.Capacity.CPU = 4 * wray.OneCPU
	there.Custom = []wray.Custom{{Name: "moves", Amount: wray.OneUnit}, {Name: "there", Amount: wray.OneUnit}}
	return cfg, there
}

// TestSavedComesHome has an actor begin at home from a checkpoint of another
// node: from then on it is there.
func TestSavedComesHome(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	net := newTwin(t, guest.module)
	_, there := savingConfigs(guest)
	a, b := net.join("a", there), net.join("b", there)
	awaitPeers(t, a, 1)
	j := net.job(a, nil, "saves", "home")
	j.wants([]string{j.next(), j.next()}, "adds: 5 gave 1 to 5", "kill")
	if n := b.hosted(); n != 1 {
		t.Errorf("at b are %d", n)
	}
	net.kill(b)
	j.goOn()
	lost := func(n int) string {
		return fmt.Sprintf("adds: 1 failed: ActorRestarted, attempt 0: the actor tally was started again from its last checkpoint, "+
			"without the effects of %d calls that it had answered; this call was not run", n)
	}
	j.wants([]string{j.next(), j.next(), j.next(), j.next()}, lost(1), "adds: 4 gave 5 to 8", "adds: 5 gave 9 to 13", "back")
	b = net.join("b", there)
	awaitPeers(t, a, 1)
	j.goOn()
	j.wants([]string{j.next(), j.next(), j.next()}, lost(1), "adds: 4 gave 13 to 16", "home")
	if n := b.hosted(); n != 0 {
		t.Errorf("at b are %d", n)
	}
	j.wants(j.rest())
	awaitNothing(t, a)
	awaitNothing(t, b)
	net.close()
}

// TestSavedFull has no room at home for what an actor is: that is said, and what it
// then loses is told.
func TestSavedFull(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	net := newTwin(t, guest.module)
	cfg, there := savingConfigs(guest)
	cfg.StoreBytes, cfg.FullAfter = 5<<20, time.Second
	a, b := net.join("a", cfg), net.join("b", there)
	awaitPeers(t, a, 1)
	j := net.job(a, nil, "saves", "full")
	var said string
	var got []string
	for line := j.next(); line != "kill"; line = j.next() {
		if strings.Contains(line, "wray: ") {
			said += line + "\n"
		} else {
			got = append(got, line)
		}
	}
	if strings.Count(said, "wray: no checkpoint: ") != 1 {
		t.Error("said: " + said)
	}
	next := net.join("c", there)
	net.kill(b)
	j.goOn()
	j.wants(append(got, j.rest()...), "own: 1 <nil>", "own: 2 <nil>",
		"told: ActorRestarted on a, attempt 0, trace false: the actor tally was started again from its constructor, "+
			"without the effects of 2 calls that it had answered; this call was not run", "again: 1 <nil>")
	awaitNothing(t, a)
	awaitNothing(t, next)
	net.close()
}

// FuzzSavedAway reads what a checkpoint of another node says, which may be
// anything.
func FuzzSavedAway(f *testing.F) {
	for _, s := range []savedAway{{There: 1}, {State: []byte{1}, There: 2, Wants: true, Watches: []uint32{1},
		Handles: []savedAwayHandle{{Handle: 1, Ref: 2}, {Handle: 3}}, Windows: []savedAwayWindow{{At: 1 << 16, Len: 1 << 16, Ref: 1}}}} {
		b, err := cbor.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, refs int) {
		s, err := readSavedAway(b, refs)
		if err != nil {
			return
		}
		if s.There < 1 || s.There > refs {
			t.Errorf("%d of %d references have values", s.There, refs)
		}
		for _, h := range s.Handles {
			if h.Ref < 0 || h.Ref >= refs {
				t.Errorf("handle %d is of reference %d of %d", h.Handle, h.Ref, refs)
			}
		}
		for _, w := range s.Windows {
			if w.Ref < 1 || w.Ref >= s.There {
				t.Errorf("a window is of reference %d", w.Ref)
			}
		}
		if state, err := sandbox.DecodeState(s.State); err == nil && state == nil {
			t.Error("no state")
		}
	})
}
