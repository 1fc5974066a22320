package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCountWords(t *testing.T) {
	for text, want := range map[string]map[string]int{
		"":                       {},
		" \n1 2":                 {},
		"The cat, the CAT":       {"the": 2, "cat": 2},
		"don't x1y caf\xc3\xa9 ": {"don": 1, "t": 1, "x": 1, "y": 1, "caf": 1},
		// The neighbours of the letters in ASCII are none.
		"@A[Z`a{z": {"a": 2, "z": 2},
	} {
		if got := countWords([]byte(text)); !maps.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// The chunks are the text, and no word lies in two of them.
func TestChunks(t *testing.T) {
	for _, text := range []string{"", "a", "one two three four five", strings.Repeat("x", 50), "ab " + strings.Repeat("long", 20) + " c  d"} {
		for size := 1; size < 30; size++ {
			var all []byte
			total := map[string]int{}
			err := chunks(iotest.OneByteReader(strings.NewReader(text)), size, func(chunk []byte) error {
				all = append(all, chunk...)
				for w, n := range countWords(chunk) {
					total[w] += n
				}
				return nil
			})
			if err != nil || string(all) != text {
				t.Fatalf("size %d: %q, %v; want %q", size, all, err, text)
			}
			if want := countWords([]byte(text)); !maps.Equal(total, want) {
				t.Errorf("size %d: %v, want %v", size, total, want)
			}
		}
	}
}

func TestPrintOrder(t *testing.T) {
	var out bytes.Buffer
	if err := print(&out, map[string]int{"b": 2, "a": 2, "z": 10, "c": 1}); err != nil {
		t.Fatal(err)
	}
	if want := "10 z\n2 a\n2 b\n1 c\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
