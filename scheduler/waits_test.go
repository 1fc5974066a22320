package scheduler

import (
	"fmt"
	"testing"

	"github.com/wray-project/wray"
)

// manyWait has n tasks wait, of which every second one for another's result and
// the others for CPU, of two names.
func manyWait(t testing.TB, n int) *Scheduler {
	t.Helper()
	s, err := New(Config{Node: "a", Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	job := wray.ID{Owner: 1, Seq: 1}
	if err := s.AddJob(0, job); err != nil {
		t.Fatal(err)
	}
	missing := wray.ID{Owner: 9, Seq: 9}
	for i := range n {
		spec := Spec{ID: wray.ID{Owner: 2, Seq: uint64(i + 1)}, Job: job, Name: fmt.Sprintf("t%d", i/2%2), Resources: wray.Resources{CPU: wray.OneCPU}}
		if i%2 == 1 {
			spec.Deps = []wray.ID{missing}
		}
		if err := s.Submit(int64(i), &spec); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestWaitsOfMany: every task is counted, once, though only so many are looked
// at, whose names are known.
func TestWaitsOfMany(t *testing.T) {
	for _, n := range []int{2, 1000, 2*maxLooked + 7, 100_000} {
		s := manyWait(t, n)
		s.Ready(nil)
		want := n - 1 // one runs
		for _, most := range []int{0, 1, 3} {
			w := s.Waits(int64(n), WaitQuery{Most: most})
			sum, named := w.More, 0
			for _, g := range w.Groups {
				sum += g.Count
				if g.Name != "" {
					named += g.Count
				}
			}
			if sum != want || w.Unseen != 0 || named > maxLooked {
				t.Errorf("of %d tasks %d wait, %d of them with a name, and %d unseen; want %d, at most %d and none", n, sum, named, w.Unseen, want, maxLooked)
			}
		}
		w := s.Waits(int64(n), WaitQuery{Name: "t0"})
		sum := 0
		for _, g := range w.Groups {
			sum += g.Count
		}
		if looked := want - w.Unseen; looked > maxLooked || sum > looked/2+2 || sum < looked/2-2 || want <= maxLooked/2 && w.Unseen > 0 {
			t.Errorf("of %d tasks %d are called t0, and %d were not looked at", n, sum, w.Unseen)
		}
	}
}

// TestWaitsOfManyNodes: what is said of nodes is bounded, and how many more there
// are is said.
func TestWaitsOfManyNodes(t *testing.T) {
	s := manyWait(t, 4)
	const nodes = 5000
	for i := range nodes {
		if err := s.PeerUp(0, PeerID(i+1), Node{Name: fmt.Sprintf("n%d", i), Capacity: wray.Resources{Memory: 1 << 30}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Ready(nil)
	judged := 0
	for _, g := range s.Waits(0, WaitQuery{}).Groups {
		if g.State != "queued" {
			continue
		}
		if len(g.Nodes)+g.MoreNodes != nodes+1 {
			t.Errorf("%d nodes, and %d more, of %d", len(g.Nodes), g.MoreNodes, nodes+1)
		}
		judged += len(g.Nodes)
	}
	if judged == 0 || judged > maxJudged {
		t.Errorf("%d verdicts, want some, and at most %d", judged, maxJudged)
	}
}

// BenchmarkWaits is how long the caller's lock is held.
func BenchmarkWaits(b *testing.B) {
	for _, n := range []int{1000, 100_000, 900_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := manyWait(b, n)
			for b.Loop() {
				s.Waits(0, WaitQuery{})
			}
		})
	}
}
