package node

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// cutStore is a store that cannot be reached while it is cut.
type cutStore struct {
	control.Store
	cut atomic.Bool
}

func (s *cutStore) err() error {
	if s.cut.Load() {
		return control.ErrUnavailable
	}
	return nil
}

func (s *cutStore) Get(ctx context.Context, key string) (control.Record, error) {
	if err := s.err(); err != nil {
		return control.Record{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *cutStore) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.Commit(ctx, txn)
}

func (s *cutStore) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	if err := s.err(); err != nil {
		return control.Lease{}, err
	}
	return s.Store.Grant(ctx, ttl)
}

func (s *cutStore) KeepAlive(ctx context.Context, id control.LeaseID) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.KeepAlive(ctx, id)
}

func (s *cutStore) Revoke(ctx context.Context, id control.LeaseID) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Revoke(ctx, id)
}

// TestElected holds that of several heads one may act at a time, and that another
// does when that one has gone, or reaches the control state no more.
func TestElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := control.NewMemory(control.MemoryOptions{})
		defer store.Close()
		var mu sync.Mutex
		holds := map[string]*control.Hold{} // of those that think that they lead
		var all sync.WaitGroup
		stop := map[string]context.CancelFunc{}
		stores := map[string]*cutStore{}
		for _, name := range []string{"a", "b", "c"} {
			ctx, cancel := context.WithCancel(t.Context())
			its := &cutStore{Store: store}
			stop[name], stores[name] = cancel, its
			all.Go(func() {
				elected(ctx, its, name, slog.New(slog.DiscardHandler), func(ctx context.Context, h *control.Hold) {
					mu.Lock()
					for other, o := range holds {
						if o.Valid() {
							t.Errorf("%s leads, and %s does", name, other)
						}
					}
					holds[name] = h
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					defer mu.Unlock()
					delete(holds, name)
				})
			})
		}
		leader := func() (who string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for name, h := range holds {
				if h.Valid() {
					who = name
				}
			}
			if who == "" {
				t.Fatal("nobody leads")
			}
			return who
		}
		first := leader()
		stop[first]()
		second := leader()
		stores[second].cut.Store(true)
		third := leader()
		if second == first || third == second || third == first {
			t.Errorf("%s, %s and %s lead in turn", first, second, third)
		}
		stores[second].cut.Store(false)
		if again := leader(); again != third {
			t.Errorf("%s leads, and %s has not gone", again, third)
		}
		mu.Lock()
		if len(holds) != 1 {
			t.Errorf("%d think that they lead", len(holds))
		}
		mu.Unlock()
		stop[third]()
		if fourth := leader(); fourth != second {
			t.Errorf("%s leads", fourth)
		}
		for _, cancel := range stop {
			cancel()
		}
		all.Wait()
	})
}

// TestHear holds that a node believes heads alone that they lead, and of two the
// later.
func TestHear(t *testing.T) {
	p := newPeering(&Node{})
	p.stop() // nothing is begun
	head, next, other := peer.Node{Name: "a", Incarnation: 1}, peer.Node{Name: "b", Incarnation: 1}, peer.Node{Name: "c", Incarnation: 1}
	p.scale.isHead = func(n peer.Node) bool { return n == head || n == next }
	say := func(from peer.Node, epoch uint64, most int) {
		p.handleMessage(from, &nodeMessage{Scale: &scaleState{Epoch: epoch, Groups: []groupBody{{What: worker.PromiseBody{Name: "g", CPU: int64(most)}, Max: most}}}})
	}
	for i, x := range []struct {
		from    peer.Node
		epoch   uint64
		most    int
		want    int
		version uint64
	}{
		{other, 9, 1, 0, 0},
		{head, 5, 2, 2, 1},
		{other, 9, 1, 2, 1},
		{next, 6, 2, 2, 1}, // the same promises
		{head, 5, 4, 2, 1}, // it was to lead no more
		{next, 6, 5, 5, 2},
		{peer.Node{Name: "a", Incarnation: 2}, 9, 6, 5, 2},
	} {
		say(x.from, x.epoch, x.most)
		got := 0
		if m, ok := p.scale.known(); ok {
			got = m.Groups[0].Max
		}
		if got != x.want || p.scale.version != x.version {
			t.Errorf("%d: after %+v there are %d, version %d", i, x, got, p.scale.version)
		}
	}
	// Who has led says nothing more. While nobody could, that means nothing.
	now := time.Now()
	for i, x := range []struct {
		could bool
		after time.Duration
		known bool
	}{{false, time.Hour, true}, {true, 59 * time.Second, true}, {false, time.Second, true}, {true, 59 * time.Second, true}, {true, 2 * time.Second, false}} {
		now = now.Add(x.after)
		p.scale.silent(x.could, now)
		if _, known := p.scale.known(); known != x.known {
			t.Errorf("%d: after %+v groups are known: %v", i, x, known)
		}
	}
	// Nor does anybody take note of reports who does not lead.
	p.handleMessage(other, &nodeMessage{Load: &loadReport{Jobs: 1}})
	if len(p.scale.reports) > 0 {
		t.Error("a report is kept")
	}
	// Who leads keeps of each not more than it takes, and nothing of those that
	// are not there.
	p.scale.reports = map[peer.Node]loaded{}
	large := &loadReport{Load: worker.DemandsBody{Shapes: make([]worker.ShapeBody, 10*maxReported), Custom: make([]worker.CustomBody, 10*wray.MaxCustom)}}
	for _, from := range []peer.Node{head, next, other} {
		p.handleMessage(from, &nodeMessage{Load: large})
	}
	if r := p.scale.reports[other].Load; len(p.scale.reports) != 3 || cap(r.Shapes) > 2*maxReported || cap(r.Custom) > 2*wray.MaxCustom {
		t.Errorf("%d reports, of one %d shapes and %d resources", len(p.scale.reports), cap(r.Shapes), cap(r.Custom))
	}
	if p.scale.keep(map[peer.Node]bool{next: true}); len(p.scale.reports) != 1 {
		t.Errorf("%d reports are kept of one that is there", len(p.scale.reports))
	}
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
