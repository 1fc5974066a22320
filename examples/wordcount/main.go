// Command wordcount counts the words of texts in parallel sandboxes. A word is
// a longest run of ASCII letters, in lower case. It prints "count word" a line,
// the most frequent first, those as frequent by word.
//
//	wray run ./examples/wordcount
//	wray run ./examples/wordcount --dir .:/here:ro -- /here/README.md
//
// The arguments are files in directories that the job is granted. Without any,
// it takes the texts in /text, which a line below grants when the program is
// run from its source: a book that every Go installation carries.
package main

//wray:dir $GOROOT/src/testdata:/text:ro

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/wray-project/wray/sdk"
)

var count = sdk.Func("count", func(_ context.Context, text []byte) (map[string]int, error) {
	return countWords(text), nil
})

func main() { sdk.Main(run) }

// chunkSize is the text that one task counts: enough that submitting it is
// little beside counting it.
const chunkSize = 128 << 10

// window is how many tasks are under way at once, which bounds the text held.
const window = 64

func run(ctx context.Context) error {
	files := os.Args[1:]
	if len(files) == 0 {
		var err error
		if files, err = filepath.Glob("/text/*.txt"); err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no files named and none in /text: grant a directory with --dir DIR:/text:ro")
		}
	}
	total := map[string]int{}
	var running []sdk.Ref[map[string]int]
	collect := func(n int) error {
		for _, ref := range running[:n] {
			part, err := ref.Get(ctx)
			if err != nil {
				return err
			}
			for w, c := range part {
				total[w] += c
			}
		}
		running = slices.Delete(running, 0, n)
		return nil
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = chunks(f, chunkSize, func(text []byte) error {
			running = append(running, count.Remote(ctx, text))
			if len(running) < window {
				return nil
			}
			return collect(1)
		})
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := collect(len(running)); err != nil {
		return err
	}
	return print(os.Stdout, total)
}

// countWords counts the words of a text.
func countWords(text []byte) map[string]int {
	counts := map[string]int{}
	var word []byte
	for _, c := range text {
		if isLetter(c) {
			word = append(word, c|0x20)
			continue
		}
		if len(word) > 0 {
			counts[string(word)]++
			word = word[:0]
		}
	}
	if len(word) > 0 {
		counts[string(word)]++
	}
	return counts
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// chunks reads r in pieces of about size bytes that end between words. A word
// longer than size makes a longer piece. The piece is f's until it returns.
func chunks(r io.Reader, size int, f func(text []byte) error) error {
	buf := make([]byte, 0, 2*size)
	for {
		n, err := io.ReadFull(r, buf[len(buf):min(len(buf)+size, cap(buf))])
		buf = buf[:len(buf)+n]
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if len(buf) == 0 {
				return nil
			}
			return f(buf)
		}
		if err != nil {
			return err
		}
		end := len(buf)
		for end > 0 && isLetter(buf[end-1]) {
			end--
		}
		if end == 0 { // one long word so far
			buf = slices.Grow(buf, size)
			continue
		}
		if err := f(buf[:end]); err != nil {
			return err
		}
		buf = buf[:copy(buf, buf[end:])]
	}
}

// print writes the counts in their order.
func print(w io.Writer, counts map[string]int) error {
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	out := bufio.NewWriter(w)
	for _, word := range words {
		fmt.Fprintln(out, counts[word], word)
	}
	return out.Flush()
}
