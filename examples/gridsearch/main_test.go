package main

import (
	"math"
	"testing"
)

func TestScore(t *testing.T) {
	for _, c := range []struct {
		c    config
		want float64
	}{{config{0, 0}, 0}, {config{1, -1}, 1}, {config{-0.5, 0.5}, 0.5}, {config{1, 0}, math.Sqrt2 / 2}} {
		if got := score(c.c); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("score(%v) = %v, want %v", c.c, got, c.want)
		}
	}
}

func TestSearch(t *testing.T) {
	best, lowest, err := search(t.Context(), 0)
	if err != nil || best != (config{}) || lowest != 0 {
		t.Errorf("best %v with %v, %v", best, lowest, err)
	}
}
