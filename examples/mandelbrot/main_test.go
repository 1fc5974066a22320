package main

import (
	"bytes"
	"testing"
)

func TestEscape(t *testing.T) {
	for _, c := range [][2]float64{{0, 0}, {-1, 0}, {-1.75, 0}, {0.25, 0}, {0, 1}, {-0.1, 0.7}} {
		if n := escape(c[0], c[1], 500); n != -1 {
			t.Errorf("%v leaves after %v steps and is inside", c, n)
		}
	}
	for _, c := range [][2]float64{{0.3, 0}, {2, 2}, {-2.1, 0}, {0, 1.1}} {
		if n := escape(c[0], c[1], 500); n < 0 {
			t.Errorf("%v stays and is outside", c)
		}
	}
}

// The joined tiles are the picture drawn at once, also where the last tiles are
// smaller.
func TestPicture(t *testing.T) {
	v, _, err := parse([]string{"-size", "150x97", "-steps", "50"})
	if err != nil {
		t.Fatal(err)
	}
	img, err := picture(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(img.Pix, pixels(v, tile{0, 0, v.W, v.H})) {
		t.Error("the tiles do not make the picture")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{{"-size", "0x5"}, {"-size", "big"}, {"-size", "99999x1"}, {"-center", "1"}, {"-width", "-1"}, {"-steps", "0"}} {
		if _, _, err := parse(args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}
