package sandbox

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTear tears what is under windows of all sizes and places, and compares
// what is gone with a map of the units. The list stays as short as it can be.
func TestTear(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const units, unit = 64, 1 << 16
	m := &linearMemory{image: &image{size: units * unit}}
	var gone [units]bool
	for range 40 {
		at := rnd.IntN(units)
		n := 1 + rnd.IntN(min(4, units-at))
		for i := range n {
			gone[at+i] = true
		}
		m.tear(uint64(at*unit), uint64(n*unit))
		var want []span
		for i, g := range gone {
			switch {
			case !g:
			case i > 0 && gone[i-1]:
				want[len(want)-1].n += unit
			default:
				want = append(want, span{uint64(i * unit), unit})
			}
		}
		if got := m.holesNow(); !slices.Equal(got, want) {
			t.Fatalf("after %d units at %d: %v, want %v", n, at, got, want)
		}
	}
}
