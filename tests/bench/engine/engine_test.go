package engine

import (
	"runtime/metrics"
	"testing"

	"github.com/wray-project/wray/tests/bench/kernels"
)

func TestQuantile(t *testing.T) {
	xs := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(xs, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if xs[0] != 5 {
		t.Error("the argument was sorted")
	}
}

func TestPauseQuantile(t *testing.T) {
	h := func(counts ...uint64) *metrics.Float64Histogram {
		return &metrics.Float64Histogram{Counts: counts, Buckets: []float64{0, 1, 2, 3}}
	}
	for _, c := range []struct {
		after []uint64
		q     float64
		want  float64
	}{
		{[]uint64{7, 7, 7}, 0.99, 0}, // nothing new
		{[]uint64{8, 7, 7}, 0.99, 1},
		{[]uint64{106, 7, 8}, 0.99, 1}, // 99 of 100
		{[]uint64{105, 7, 9}, 0.99, 3}, // 98 of 100
		{[]uint64{105, 8, 8}, 0.99, 2},
	} {
		if got := pauseQuantile(h(7, 7, 7), h(c.after...), c.q); got != c.want {
			t.Errorf("%v: %v, want %v", c.after, got, c.want)
		}
	}
}

func TestEightKernels(t *testing.T) {
	n := 0
	for _, k := range kernels.All() {
		if !k.Extra {
			n++
		}
	}
	if n != 8 {
		t.Errorf("%d kernels, and the case says eight", n)
	}
}
