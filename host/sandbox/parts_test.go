package sandbox

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// TestParts cuts random differences and puts them together again, and changes a
// page: one part is then another.
func TestParts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	diffOf := func(mem []byte) []byte {
		w := diffWriter{last: -1}
		for p := 0; p < len(mem)/statePage; p++ {
			w.page(p, mem[p*statePage:(p+1)*statePage], nil)
		}
		return w.out
	}
	for range 200 {
		mem := make([]byte, statePage*(1+rng.IntN(100)))
		for range rng.IntN(60) {
			at := rng.IntN(len(mem))
			for i := range mem[at:min(at+rng.IntN(9000), len(mem))] {
				mem[at+i] = byte(rng.Uint32())
			}
		}
		diff := diffOf(mem)
		parts, err := splitDiff(diff)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range parts {
			b, err := p.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if parts[i], err = UnpackPart(b); err != nil {
				t.Fatal(err)
			}
		}
		got, err := joinDiff(parts)
		if err != nil || !bytes.Equal(got, diff) {
			t.Fatalf("%d parts make %d bytes of %d, %v", len(parts), len(got), len(diff), err)
		}
		mem[rng.IntN(len(mem))] ^= 1
		others, err := splitDiff(diffOf(mem))
		if err != nil {
			t.Fatal(err)
		}
		was := map[uint32][]byte{}
		for _, p := range parts {
			was[p.Index] = p.Diff
		}
		changed := 0
		for _, p := range others {
			if !bytes.Equal(was[p.Index], p.Diff) {
				changed++
			}
			delete(was, p.Index)
		}
		if changed+len(was) != 1 {
			t.Fatalf("of %d parts %d changed and %d are gone when a byte did", len(parts), changed, len(was))
		}
	}
}

// FuzzParts puts anything together.
func FuzzParts(f *testing.F) {
	b, _ := Part{Index: 3, Diff: []byte{0, 1, 0, 2, 7, 8}}.Pack()
	f.Add(b, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var parts []Part
		for _, b := range [][]byte{a, b} {
			p, err := UnpackPart(b)
			if err != nil {
				return
			}
			parts = append(parts, p)
		}
		diff, err := joinDiff(parts)
		if err == nil {
			_ = applyDiff(make([]byte, 1<<20), diff)
		}
	})
}
