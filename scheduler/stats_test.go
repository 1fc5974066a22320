package scheduler

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/wray-project/wray"
)

// TestMeter holds that the integral of CPU over time loses nothing, however
// small the parts, and saturates instead of wrapping.
func TestMeter(t *testing.T) {
	var m meter
	for range 30_000 {
		m.add(3333, 1) // a third of a core for a nanosecond
	}
	if want := int64(30_000 * 3333 / 10_000); m.ns != want {
		t.Errorf("30,000 parts: %d ns, want %d", m.ns, want)
	}

	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	m, sum := meter{}, new(big.Int)
	for range 1000 {
		cpu, dt := wray.CPU(r.Int64N(1<<24)), r.Int64N(1<<40) // to 1,600 cores, 18 minutes
		m.add(cpu, dt)
		sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(cpu)), big.NewInt(dt)))
	}
	if want := sum.Div(sum, big.NewInt(int64(wray.OneCPU))).Int64(); m.ns != want {
		t.Errorf("seed %d: %d ns, want %d", seed, m.ns, want)
	}

	m = meter{}
	for range 3 {
		m.add(1<<40, math.MaxInt64)
	}
	if m.ns != math.MaxInt64 {
		t.Errorf("too much: %d ns, want the largest", m.ns)
	}
}
