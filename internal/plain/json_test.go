package plain

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode"
)

// TestJSON writes each character as JSON: none that a terminal heeds is left, and
// all decode to what they were.
func TestJSON(t *testing.T) {
	for r := rune(0); r < 0xe0200; r++ {
		switch r {
		case 0x3000: // what follows is letters and signs
			r = 0xfe00
		case 0x11100:
			r = 0xe0000
		}
		var b bytes.Buffer
		want := "a" + string(r) + "é"
		if err := json.NewEncoder(JSON(&b)).Encode(want); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || got != want {
			t.Fatalf("%U is %q, %v", r, got, err)
		}
		for _, c := range bytes.TrimSuffix(b.Bytes(), []byte("\n")) {
			if c < 0x20 || c == 0x7f {
				t.Fatalf("%U is written as %q", r, b.Bytes())
			}
		}
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Bidi_Control, unicode.Zl, unicode.Zp) && bytes.ContainsRune(b.Bytes()[:b.Len()-1], r) {
			t.Fatalf("%U is written as it is", r)
		}
	}
	var b bytes.Buffer
	if n, err := JSON(&b).Write([]byte("\"\x9b31m\"")); n != 6 || err != nil || b.String() != `"\ufffd31m"` {
		t.Errorf("half a character is written as %q, %d, %v", b.String(), n, err)
	}
}
