package main

import (
	"math"
	"testing"
)

func TestShareAddsUp(t *testing.T) {
	for _, c := range [][2]int{{0, 1}, {1, 1}, {10, 3}, {3, 10}, {1 << 40, 7}} {
		total := 0
		for i := range c[1] {
			total += share(c[0], c[1], i)
		}
		if total != c[0] {
			t.Errorf("%d in %d parts add up to %d", c[0], c[1], total)
		}
	}
}

// The nested tasks count exactly the points of all seeds, each once.
func TestEstimate(t *testing.T) {
	const samples = 200_003
	for _, tasks := range []int{1, 2, 10, 31} {
		want := 0
		for i := range tasks {
			want += inside(uint64(i), share(samples, tasks, i))
		}
		got, err := estimate(t.Context(), samples, tasks)
		if err != nil {
			t.Fatal(err)
		}
		if got != 4*float64(want)/samples {
			t.Errorf("%d tasks: %v, the points give %v", tasks, got, 4*float64(want)/samples)
		}
		// The estimate's standard deviation is √(π(4-π)/samples) = 0.0037.
		if math.Abs(got-math.Pi) > 0.02 {
			t.Errorf("%d tasks: %v is not π", tasks, got)
		}
	}
}
