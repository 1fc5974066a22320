package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestSimulation runs small clusters with many faults, of a new seed each time.
func TestSimulation(t *testing.T) {
	for _, c := range []Config{{Nodes: 2, Tasks: 300}, {Nodes: 10, Tasks: 2000}, {Nodes: 100, Tasks: 10_000, Load: 0.95}} {
		c.Seed = rand.Uint64()
		t.Run(fmt.Sprint(c.Nodes), func(t *testing.T) {
			t.Logf("seed %d", c.Seed)
			r, err := Run(c)
			t.Logf("%+v", r)
			if err != nil {
				t.Fatal(err)
			}
			if r.Crashes == 0 || r.Blackouts == 0 || r.Partitions == 0 || c.Nodes > 2 && r.Lent == 0 {
				t.Error("nothing happened")
			}
		})
	}
}

// TestSameSeed holds that a run depends on its seed alone.
func TestSameSeed(t *testing.T) {
	var reports [2]Report
	for i := range reports {
		r, err := Run(Config{Nodes: 20, Tasks: 1000, Seed: 7})
		if err != nil {
			t.Fatal(err)
		}
		reports[i] = r
	}
	if reports[0] != reports[1] {
		t.Errorf("twice the same run:\n%+v\n%+v", reports[0], reports[1])
	}
}

// BenchmarkStep is what a scheduler takes for an event and what it decides, in
// clusters of so many nodes under way.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 2000} {
		b.Run(fmt.Sprint("nodes=", n), func(b *testing.B) {
			begin := time.Now()
			for b.Loop() {
				r, err := Run(Config{Nodes: n, Tasks: 50 * n, Seed: 1, Quiet: true, Clock: func() time.Duration { return time.Since(begin) }})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.Step.Nanoseconds()), "ns/step")
			}
		})
	}
}
