package worker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestGroupsOnTwins has a program make placement groups whose bundles are on three
// workers, and meanwhile a node come and go: cut off for a while, killed, or asked
// to leave. In the end nothing is kept anywhere.
func TestGroupsOnTwins(t *testing.T) {
	seed := seedOf(t)
	guest := compileGuest(t, "cluster")
	for _, c := range []struct {
		name  string
		delay time.Duration
		meets func(net *twin, a, b *twinEnd, gone *twinEnd)
	}{
		{"at once", 0, func(*twin, *twinEnd, *twinEnd, *twinEnd) {}},
		{"late", 3 * time.Millisecond, func(*twin, *twinEnd, *twinEnd, *twinEnd) {}},
		{"cut", 0, func(net *twin, a, b, gone *twinEnd) {
			net.cut(a, gone, true)
			net.cut(a, gone, false)
		}},
		{"killed", 0, func(net *twin, a, b, gone *twinEnd) { net.kill(gone) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			net := newTwin(t, guest.module)
			if c.delay > 0 {
				net.delay = randomDelay(seed, c.delay)
			}
			cfg := Config{StoreBytes: 256 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: 2 * wray.OneCPU, Memory: 2 << 30}}
			a, b, gone := net.join("a", cfg), net.join("b", cfg), net.join("c", cfg)
			awaitPeers(t, a, 2)
			job := net.job(a, nil, "groups")
			if said := job.next(); said != "made" {
				t.Fatalf("it said %q", said)
			}
			ends := []*twinEnd{a, b, gone}
			if c.name == "killed" {
				ends[2] = net.join("d", cfg) // where the bundle can go
				awaitPeers(t, a, 3)
			}
			c.meets(net, a, b, gone)
			job.goOn()
			got := job.rest()
			if len(got) != 3 || !strings.HasPrefix(got[0], "an actor of a group that was removed: ActorDied on ") ||
				!strings.HasPrefix(got[1], "a task of it: GroupRemoved on a") || got[2] != "done" {
				t.Errorf("it said\n%s", strings.Join(got, "\n"))
			}
			for _, e := range ends {
				awaitNothing(t, e)
				if err := e.keepsBundles(); err != nil {
					t.Error(err)
				}
			}
			if len(net.severed) > 0 {
				t.Error("severed:", net.severed)
			}
			net.close()
		})
	}
}

// keepsBundles says what a worker that has nothing to do has set aside.
func (e *twinEnd) keepsBundles() error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if held := e.w.sched.Held(); (held.Held != wray.Resources{}) || len(held.Custom) > 0 {
		return fmt.Errorf("node %s has %+v set aside in the end", e.node, held)
	}
	return nil
}
