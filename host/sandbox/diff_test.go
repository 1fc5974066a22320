package sandbox

import (
	"bytes"
	"testing"
)

// TestDiff holds that a diff makes the base what the pages were, and is short.
func TestDiff(t *testing.T) {
	base := make([]byte, 4*statePage)
	for i := range base[:2*statePage] {
		base[i] = byte(i)
	}
	for _, c := range []struct {
		name  string
		write func(b []byte)
		most  int
	}{
		{"nothing", func([]byte) {}, 0},
		{"one byte", func(b []byte) { b[5]++ }, 5},
		{"last byte", func(b []byte) { b[len(b)-1] = 1 }, 6},
		{"first and last of a page", func(b []byte) { b[statePage]++; b[2*statePage-1]++ }, 9},
		{"near each other", func(b []byte) { b[100]++; b[104]++ }, 10},
		{"far from each other", func(b []byte) { b[100]++; b[300]++ }, 9},
		{"all", func(b []byte) {
			for i := range b {
				b[i] += 1 + byte(i%7)
			}
		}, 4*statePage + 4*6},
		{"zeros", func(b []byte) { clear(b) }, 2*statePage + 500},
	} {
		mem := bytes.Clone(base)
		c.write(mem)
		w := diffWriter{last: -1}
		for p := range 4 {
			b := base[p*statePage : (p+1)*statePage]
			if p >= 2 {
				b = nil
			}
			w.page(p, mem[p*statePage:(p+1)*statePage], b)
		}
		got := bytes.Clone(base)
		if err := applyDiff(got, w.out); err != nil || !bytes.Equal(got, mem) {
			t.Errorf("%s: not the same, %v", c.name, err)
		}
		if len(w.out) > c.most {
			t.Errorf("%s: %d bytes, want at most %d", c.name, len(w.out), c.most)
		}
	}
}

// FuzzApplyDiff holds that no diff writes past the memory or panics.
func FuzzApplyDiff(f *testing.F) {
	w := diffWriter{last: -1}
	page := make([]byte, statePage)
	page[7], page[4095] = 1, 2
	w.page(0, page, nil)
	w.page(2, page, nil)
	f.Add(w.out)
	f.Add(w.out[:len(w.out)-1])
	f.Add([]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1})
	f.Fuzz(func(t *testing.T, diff []byte) {
		room := make([]byte, 5*statePage)
		mem := room[statePage : 4*statePage : 4*statePage]
		_ = applyDiff(mem, diff)
		for i, b := range room {
			if b != 0 && (i < statePage || i >= 4*statePage) {
				t.Fatalf("byte %d outside was written", i-statePage)
			}
		}
	})
}
