// Command kernels is a guest that spends its time in one of several ways: the
// first argument names the kernel, the second says how often to run it. It
// prints a checksum, so that two forms of the module can be compared.
package main

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

var kernels = map[string]func() uint64{
	"sha256":   sha,
	"json":     jsonRoundTrip,
	"sort":     sorting,
	"matmul":   matmul,
	"regexp":   regex,
	"compress": deflate,
	"map":      mapHeavy,
	"spin":     spin,
	"fib":      func() uint64 { return fib(27) },
	"iface":    interfaces,
	"sieve":    sieve,
	"strings":  stringsHeavy,
	"nop":      func() uint64 { return 0 },
}

func main() {
	if len(os.Args) < 3 {
		fmt.Println("usage: kernels NAME TIMES")
		os.Exit(2)
	}
	n, _ := strconv.Atoi(os.Args[2])
	var sum uint64
	for range n {
		sum = sum*31 + kernels[os.Args[1]]()
	}
	fmt.Println(os.Args[1], sum)
}

// random is a generator that gives the same numbers everywhere.
type random uint64

func (r *random) next() uint64 {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return uint64(*r)
}

func sha() uint64 {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = byte(i * 7)
	}
	for range 4 {
		s := sha256.Sum256(b)
		copy(b, s[:])
	}
	return binary.LittleEndian.Uint64(b)
}

type record struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Tags  []string          `json:"tags"`
	Attrs map[string]string `json:"attrs"`
	Score float64           `json:"score"`
}

func jsonRoundTrip() uint64 {
	var records []record
	for i := range 100 {
		records = append(records, record{i, "name" + strconv.Itoa(i), []string{"a", "b", "c"},
			map[string]string{"x": "1", "y": "two"}, float64(i) / 3})
	}
	b, err := json.Marshal(records)
	if err != nil {
		panic(err)
	}
	var back []record
	if err := json.Unmarshal(b, &back); err != nil {
		panic(err)
	}
	return uint64(len(b)) + uint64(back[99].ID)
}

func sorting() uint64 {
	r := random(42)
	a := make([]int, 20000)
	for i := range a {
		a[i] = int(r.next() >> 1)
	}
	b := slices.Clone(a)
	sort.Slice(a, func(i, j int) bool { return a[i] < a[j] })
	slices.Sort(b)
	return uint64(a[100] ^ b[200])
}

func matmul() uint64 {
	const n = 96
	var a, b, c [n][n]float64
	for i := range n {
		for j := range n {
			a[i][j], b[i][j] = float64(i+j), float64(i*j%7)
		}
	}
	for i := range n {
		for j := range n {
			var s float64
			for k := range n {
				s += a[i][k] * b[k][j]
			}
			c[i][j] = s
		}
	}
	return uint64(c[n/2][n/3])
}

var text = strings.Repeat("the quick brown fox jumps over the lazy dog; contact fox@example.com or call 555-0100 now. ", 60)
var pattern = regexp.MustCompile(`(\w+)@(\w+)\.com|(\d{3})-(\d{4})`)

func regex() uint64 {
	return uint64(len(pattern.FindAllStringIndex(text, -1)))
}

func deflate() uint64 {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, 6)
	for i := range 8 {
		w.Write([]byte(text))
		w.Write([]byte(strconv.Itoa(i)))
	}
	w.Close()
	n := out.Len()
	back, err := io.ReadAll(flate.NewReader(&out))
	if err != nil {
		panic(err)
	}
	h := fnv.New64a()
	h.Write(back)
	return h.Sum64() + uint64(n)
}

func mapHeavy() uint64 {
	r := random(7)
	m := map[uint64]uint64{}
	for range 20000 {
		m[r.next()%5000] += 1
	}
	words := map[string]int{}
	for _, w := range strings.Fields(text) {
		words[w]++
	}
	var sum uint64
	for k, v := range m {
		sum += k * v
	}
	return sum + uint64(len(words))
}

func spin() uint64 {
	var x uint64
	for i := range uint64(2_000_000) {
		x = x*3 + i
	}
	return x
}

func fib(n int) uint64 {
	if n < 2 {
		return uint64(n)
	}
	return fib(n-1) + fib(n-2)
}

type shape interface{ area() int }
type square int
type rectangle [2]int

func (s square) area() int    { return int(s * s) }
func (r rectangle) area() int { return r[0] * r[1] }

func interfaces() uint64 {
	shapes := []shape{square(3), rectangle{2, 5}, square(4)}
	sum := 0
	for i := range 200_000 {
		sum += shapes[i%3].area()
	}
	return uint64(sum)
}

func sieve() uint64 {
	const n = 300_000
	composite := make([]bool, n)
	count := 0
	for i := 2; i < n; i++ {
		if composite[i] {
			continue
		}
		count++
		for j := i * 2; j < n; j += i {
			composite[j] = true
		}
	}
	return uint64(count)
}

func stringsHeavy() uint64 {
	var b strings.Builder
	for i, w := range strings.Fields(text) {
		b.WriteString(strings.ToUpper(w))
		b.WriteString(strconv.Itoa(i))
		b.WriteByte(' ')
	}
	return uint64(strings.Count(b.String(), "FOX")) + uint64(len(strings.ReplaceAll(b.String(), "DOG", "cat")))
}
