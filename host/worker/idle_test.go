package worker

import (
	"testing"

	"github.com/wray-project/wray/wasm/abi"
)

// A task that wants a fresh sandbox takes a clean one, so that it need not wait
// for a reset, and leaves the used ones, whose caches are warm, to the others.
func TestTakeIdle(t *testing.T) {
	const used, clean = true, false
	fresh, any := uint32(abi.SpecFresh), uint32(0)
	for _, c := range []struct {
		name  string
		idle  []bool // used; the last is the latest
		flags uint32
		want  int
	}{
		{"none", nil, any, -1},
		{"a used one of two", []bool{clean, used}, any, 1},
		{"a used one before a clean one", []bool{used, clean}, any, 0},
		{"the latest used one", []bool{used, used, clean}, any, 1},
		{"a clean one where no other is", []bool{clean, clean}, any, 1},
		{"fresh: a clean one before a used one", []bool{clean, used}, fresh, 0},
		{"fresh: the latest clean one", []bool{clean, clean, used}, fresh, 1},
		{"fresh: a used one where no other is", []bool{used, used}, fresh, 1},
	} {
		m := &module{}
		var guests []*guest
		for _, u := range c.idle {
			guests = append(guests, &guest{used: u})
		}
		other := &guest{memory: 1 << 20, used: c.flags == any} // would suit, with another limit
		m.idle = append(append(m.idle, guests...), other)
		got := m.takeIdle(&task{flags: c.flags})
		at := -1
		for i, g := range guests {
			if g == got {
				at = i
			}
		}
		if at != c.want || got == other {
			t.Errorf("%s: took %d, want %d", c.name, at, c.want)
		}
		if left := len(guests) + 1 - len(m.idle); (c.want < 0) != (left == 0) || left > 1 {
			t.Errorf("%s: %d guests left the pool", c.name, left)
		}
	}
}
