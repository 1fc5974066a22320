package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// plain counts words in another way.
func plain(text []byte) map[string]int {
	m := map[string]int{}
	for _, w := range regexp.MustCompile("[A-Za-z]+").FindAll(text, -1) {
		m[strings.ToLower(string(w))]++
	}
	return m
}

func TestCountWords(t *testing.T) {
	for _, text := range []string{"", "a", "A a", "don't", "x1y_z", "é café", "\x00\xffZ{[`@", "end", " the The THE, (thE)"} {
		if got, want := countWords([]byte(text)), plain([]byte(text)); !maps.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

// TestChunks cuts random texts in every size: no word is cut, no byte lost.
func TestChunks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		text := make([]byte, rnd.IntN(60))
		for i := range text {
			text[i] = "ab cZ.\n"[rnd.IntN(7)]
		}
		size := 1 + rnd.IntN(20)
		var whole []byte
		total := map[string]int{}
		err := chunks(iotest.OneByteReader(bytes.NewReader(text)), size, func(b []byte) error {
			whole = append(whole, b...)
			for w, n := range plain(b) {
				total[w] += n
			}
			return nil
		})
		if err != nil || !bytes.Equal(whole, text) || !maps.Equal(total, plain(text)) {
			t.Fatalf("%q in chunks of %d: %q, %v, %v", text, size, whole, total, err)
		}
	}
	broken := errors.New("broken")
	if err := chunks(iotest.ErrReader(broken), 8, func([]byte) error { return nil }); err != broken {
		t.Error(err)
	}
	if err := chunks(strings.NewReader("a b"), 8, func([]byte) error { return broken }); err != broken {
		t.Error(err)
	}
}

func TestOpticks(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("SKIP: no go command to ask where the texts are: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "src", "testdata", "*.txt"))
	if err != nil || len(names) == 0 {
		t.Skipf("SKIP: this Go installation carries no text: %v", err)
	}
	got, err := countFiles(context.Background(), names)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		for w, c := range plain(text) {
			want[w] += c
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d words, want %d; the: %d, want %d", len(got), len(want), got["the"], want["the"])
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := write(&b, map[string]int{"b": 2, "a": 2, "z": 10, "c": 1}); err != nil || b.String() != "10 z\n2 a\n2 b\n1 c\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	if err := write(failing{}, map[string]int{"a": 1}); err == nil {
		t.Error("a failed write was not noticed")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestMissingFile(t *testing.T) {
	if _, err := countFiles(context.Background(), []string{"no-such-file"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
