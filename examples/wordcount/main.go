// Command wordcount counts the words of the files it is given, or of every
// .txt file in /text.
//
// A word is a longest run of ASCII letters, lower-cased. The output is a line
// "count word" for each, the most frequent first, words of the same count in
// their order. It is what coreutils print for
//
//	tr -cs 'A-Za-z' '\n' | tr 'A-Z' 'a-z' | grep . | LC_ALL=C sort | uniq -c | LC_ALL=C sort -k1,1nr -k2
//
// The driver reads the files, and tasks count chunks of them in parallel.
//
// A program sees no files but those it is granted. wray run grants what the
// lines beginning with //wray:dir in main.go name, read-only, as if they were
// given by --dir HOST:GUEST; $GOROOT stands for the Go installation, which has
// a text to count: Newton's Opticks. Other files are counted by
//
//	wray run ./examples/wordcount --dir .:/here:ro -- /here/README.md
package main

//wray:dir $GOROOT/src/testdata:/text:ro

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/wray-project/wray/sdk"
)

const (
	textDir   = "/text"
	chunkSize = 256 << 10 // bytes of text in one task
	inFlight  = 16        // chunks that are counted at once; bounds what is held
)

var count = sdk.Func("count", func(_ context.Context, text []byte) (map[string]int, error) {
	return countWords(text), nil
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	names := os.Args[1:]
	if len(names) == 0 {
		var err error
		if names, err = filepath.Glob(filepath.Join(textDir, "*.txt")); err != nil {
			return err
		}
		if len(names) == 0 {
			return fmt.Errorf("no files are given, and there is no text in %s", textDir)
		}
	}
	total, err := countFiles(ctx, names)
	if err != nil {
		return err
	}
	return write(os.Stdout, total)
}

// countFiles counts the words of all files. A word does not go on from one
// file to the next.
func countFiles(ctx context.Context, names []string) (map[string]int, error) {
	total := make(map[string]int)
	var pending []sdk.Ref[map[string]int]
	// take adds up counts until no more than n chunks are in flight.
	take := func(n int) error {
		for len(pending) > n {
			m, err := pending[0].Get(ctx)
			if err != nil {
				return err
			}
			pending = pending[1:]
			for w, c := range m {
				total[w] += c
			}
		}
		return nil
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = chunks(f, chunkSize, func(text []byte) error {
			pending = append(pending, count.With(sdk.Name(filepath.Base(name))).Remote(ctx, text))
			return take(inFlight)
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return total, take(0)
}

// chunks calls f with one piece of r's text after another, each about size
// bytes long and ending where a word does. The piece is f's during the call.
func chunks(r io.Reader, size int, f func([]byte) error) error {
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) { // one word fills it all
			buf = slices.Grow(buf, cap(buf))
		}
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		end := len(buf)
		if !last {
			for end > 0 && isLetter(buf[end-1]) {
				end--
			}
		}
		if end > 0 {
			if err := f(buf[:end]); err != nil {
				return err
			}
			buf = append(buf[:0], buf[end:]...)
		}
		if last {
			return nil
		}
	}
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// countWords counts the words of text.
func countWords(text []byte) map[string]int {
	counts := make(map[string]int)
	var word []byte
	for i := 0; i < len(text); {
		if !isLetter(text[i]) {
			i++
			continue
		}
		word = word[:0]
		for ; i < len(text) && isLetter(text[i]); i++ {
			word = append(word, text[i]|0x20)
		}
		counts[string(word)]++
	}
	return counts
}

// write prints the counts, the largest first.
func write(w io.Writer, counts map[string]int) error {
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	out := bufio.NewWriter(w)
	for _, word := range words {
		fmt.Fprintf(out, "%d %s\n", counts[word], word)
	}
	return out.Flush()
}
