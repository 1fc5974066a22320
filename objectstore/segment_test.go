package objectstore

import "testing"

// TestClasses holds the promise about waste: less than one Align for small
// payloads and an eighth for large ones; and that classes are in order, so
// that no two lengths share a class by mistake.
func TestClasses(t *testing.T) {
	lengths := map[int]int64{}
	check := func(n int64) {
		class, length := classFor(n)
		if length < n || length%Align != 0 {
			t.Fatalf("%d bytes get a segment of %d", n, length)
		}
		if waste := length - n; waste >= Align && waste*8 > length {
			t.Fatalf("%d bytes get a segment of %d: more than an eighth is in vain", n, length)
		}
		if old, ok := lengths[class]; ok && old != length {
			t.Fatalf("class %d is of %d and of %d bytes", class, old, length)
		}
		lengths[class] = length
	}
	for n := int64(InlineMax); n < 80<<20; n += 4093 {
		check(n)
	}
	for n := int64(1 << 20); n <= MaxPayload; n *= 2 {
		for _, d := range []int64{-1, 0, 1, n / 8, n/8 + 1, n / 3} {
			check(n + d)
		}
	}
	for class, length := range lengths {
		if c, l := classFor(length); c != class || l != length {
			t.Errorf("class %d of %d bytes: that length is of class %d, %d bytes", class, length, c, l)
		}
		if next, ok := lengths[class+1]; ok && next <= length {
			t.Errorf("class %d is of %d bytes, the next of %d", class, length, next)
		}
	}
}
