package node

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// TestElected holds that of several heads one leads at a time, and that another
// does when that one has gone, or has lost its lease.
func TestElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := control.NewMemory(control.MemoryOptions{})
		defer store.Close()
		var mu sync.Mutex
		leads := map[string]int{}
		var hold *control.Hold
		var all sync.WaitGroup
		stop := map[string]context.CancelFunc{}
		for _, name := range []string{"a", "b", "c"} {
			ctx, cancel := context.WithCancel(t.Context())
			stop[name] = cancel
			all.Go(func() {
				elected(ctx, store, name, slog.New(slog.DiscardHandler), func(ctx context.Context, h *control.Hold) {
					mu.Lock()
					leads[name]++
					if hold = h; leads[name] > 1 {
						t.Errorf("%s leads twice", name)
					}
					if len(leads) > 1 {
						t.Errorf("they lead at once: %v", leads)
					}
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					defer mu.Unlock()
					delete(leads, name)
				})
			})
		}
		leader := func() string {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for name := range leads {
				return name
			}
			t.Fatal("nobody leads")
			return ""
		}
		first := leader()
		stop[first]()
		second := leader()
		if second == first {
			t.Errorf("%s leads, and has stopped", first)
		}
		mu.Lock()
		lease := hold.Lease()
		mu.Unlock()
		if err := store.Revoke(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		leader()
		for _, cancel := range stop {
			cancel()
		}
		all.Wait()
	})
}

// TestScalingOf holds what wray explain says of groups.
func TestScalingOf(t *testing.T) {
	m := scaleState{Groups: []groupBody{
		{What: worker.PromiseBody{Name: "a"}, Max: 3, There: 1, Starting: 2},
		{What: worker.PromiseBody{Name: "b"}, Max: 1, Why: "no more of those; tried again in 5s"}}}
	for want, groups := range map[string][]string{
		"no group of nodes could ever hold it: a, b":                                                               nil,
		"a node of group a could hold it: 1 are there, 2 starting, 3 at most":                                      {"a"},
		"a node of group b could hold it: 0 are there, 0 starting, 1 at most; no more of those; tried again in 5s": {"b"},
	} {
		if got := m.scalingOf(groups); got != want {
			t.Errorf("%v: %s, want %s", groups, got, want)
		}
	}
	if got := m.scalingOf([]string{"a", "b"}); strings.Count(got, "could hold it") != 2 {
		t.Error(got)
	}
}

// FuzzLoadReport holds that whatever a node says that waits there is something
// that can be decided by.
func FuzzLoadReport(f *testing.F) {
	good := &nodeMessage{Load: &loadReport{Jobs: 1, Load: worker.DemandsBody{CPU: 1, Memory: 2, Tasks: 3, Shapes: []worker.ShapeBody{
		{CPU: 1, Memory: 2, Count: 3, Place: "where\x00a=b\x00", Custom: []worker.CustomBody{{Name: "x", Amount: 1}}}}}}}
	bad := &nodeMessage{Load: &loadReport{Jobs: -1, Load: worker.DemandsBody{CPU: -1, Shapes: []worker.ShapeBody{
		{CPU: -1, Count: 3}, {Memory: -1, Count: 1}, {Count: -1}, {Count: 1 << 60}, {Count: 1, Place: "nonsense"}, {Count: 1, Custom: []worker.CustomBody{{Amount: -1}}}}}}}
	for _, m := range []*nodeMessage{good, bad} {
		b, err := link.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m nodeMessage
		if link.Unmarshal(b, &m) != nil || m.Load == nil {
			return
		}
		list := m.Load.demands()
		if len(list) > maxReported {
			t.Errorf("%d shapes", len(list))
		}
		for _, d := range list {
			if d.Count < 1 || d.Count > maxWaiting || d.Resources.CPU < 0 || d.Resources.Memory < 0 || d.Place.Check() != nil {
				t.Errorf("%+v", d)
			}
			for _, c := range d.Custom {
				if c.Amount < 0 || c.Amount > wray.MaxAmount {
					t.Errorf("%+v", d)
				}
			}
		}
	})
}
