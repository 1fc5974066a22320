// Command guest is what runs in a cluster while that is broken: one of four
// workloads, in rounds, each of which checks what it was given.
//
//	guest WORKLOAD SEED
//
// After each round it prints "round N", with what of it only who looks at all
// rounds can judge, and reads a line: "on", or "end", upon which it prints "ended"
// and what its durable effects add up to. Whatever is wrong it ends with.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// workload is one of four.
type workload interface {
	// round does and checks round n. What it says is printed.
	round(ctx context.Context, n uint64) (said string, err error)
	// end checks what all rounds have done.
	end(ctx context.Context) (said string, err error)
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	if len(os.Args) != 3 {
		return errors.New("usage: guest tasks|actors|streaming|borrowing SEED")
	}
	seed, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err != nil {
		return err
	}
	var w workload
	switch os.Args[1] {
	case "tasks":
		w = tasks{seed}
	case "actors":
		w = newActors(ctx, seed)
	case "streaming":
		w = streaming{seed}
	case "borrowing":
		w = &borrowing{seed: seed}
	case "transfer": // of SEED bytes
		w = transfer{seed}
	case "broadcast": // of SEED bytes, to eight nodes
		w = broadcast{seed, 8}
	default:
		return fmt.Errorf("there is no workload %q", os.Args[1])
	}
	in := bufio.NewScanner(os.Stdin)
	for n := uint64(1); ; n++ {
		said, err := w.round(ctx, n)
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		fmt.Println(strings.TrimSpace(fmt.Sprintf("round %d %s", n, said)))
		if !in.Scan() || in.Text() != "on" {
			break
		}
	}
	said, err := w.end(ctx)
	if err != nil {
		return err
	}
	fmt.Println(strings.TrimSpace("ended " + said))
	return nil
}

// large is the size of values that stay where they were made until somebody
// reads them.
const large = 100 << 10

// mix is a number that follows from another and that nobody guesses (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// value is n bytes that follow from a key.
func value(key uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if i%8 == 0 {
			key = mix(key)
		}
		b[i] = byte(key >> (i % 8 * 8))
	}
	return b
}

// sum is a number that tells bytes from others.
func sum(b []byte) (s uint64) {
	for _, c := range b {
		s = s*0x100000001b3 ^ uint64(c)
	}
	return s
}

// wrong says what was to be and what is.
func wrong(what string, got, want any) error {
	return fmt.Errorf("WRONG: %s is %v and should be %v", what, got, want)
}

var (
	// payload computes for a moment, and gives a large value.
	payload = sdk.Func("payload", func(_ context.Context, key uint64) ([]byte, error) {
		spin := key
		for range 1_000_000 {
			spin = mix(spin)
		}
		if spin == 0 {
			return nil, nil
		}
		return value(key, large), nil
	}).With(sdk.CPU(1), sdk.Spread())

	// both reads two values.
	both = sdk.Func2("both", func(_ context.Context, a, b []byte) (uint64, error) {
		return sum(a) + 3*sum(b), nil
	}).With(sdk.CPU(1), sdk.Spread())

	// tree is nested: what a task elsewhere submits is that node's.
	tree sdk.Task2[uint64, int, uint64]
)

func init() {
	tree = sdk.Func2("tree", func(ctx context.Context, key uint64, depth int) (uint64, error) {
		if depth == 0 {
			return mix(key), nil
		}
		parts, err := sdk.GetAll(ctx, []sdk.Ref[uint64]{tree.Remote(ctx, 2*key, depth-1), tree.Remote(ctx, 2*key+1, depth-1)})
		if err != nil {
			return 0, err
		}
		return parts[0] + parts[1], nil
	}).With(sdk.CPU(1), sdk.Spread())
}

// tasks is trees of tasks, and tasks that read what others gave elsewhere.
type tasks struct{ seed uint64 }

func (w tasks) round(ctx context.Context, n uint64) (string, error) {
	const width, depth = 12, 4
	key := mix(w.seed + n)
	nested := tree.Remote(ctx, key, depth)
	values := make([]sdk.Ref[[]byte], width)
	for i := range values {
		values[i] = payload.Remote(ctx, key+uint64(i))
	}
	sums := make([]sdk.Ref[uint64], width)
	for i := range sums {
		sums[i] = both.RemoteArgs(ctx, values[i], values[(i+1)%width])
	}
	for i, r := range sums {
		got, err := r.Get(ctx)
		if err != nil {
			return "", fmt.Errorf("sum %d: %w", i, err)
		}
		want := sum(value(key+uint64(i), large)) + 3*sum(value(key+uint64((i+1)%width), large))
		if got != want {
			return "", wrong(fmt.Sprintf("sum %d", i), got, want)
		}
	}
	want := uint64(0)
	for i := range uint64(1 << depth) {
		want += mix(key<<depth + i)
	}
	got, err := nested.Get(ctx)
	if err == nil && got != want {
		err = wrong("the tree", got, want)
	}
	return "", err
}

func (tasks) end(context.Context) (string, error) { return "", nil }

// item is of a stream.
type item struct {
	Index int
	Bytes []byte
}

const items = 60

// itemOf is item i of the stream of a key: each tenth is large.
func itemOf(key uint64, i int) item {
	n := 16
	if i%10 == 9 {
		n = large
	}
	return item{i, value(key+uint64(i), n)}
}

var (
	source = sdk.Stream("source", func(_ context.Context, key uint64, yield func(item) error) error {
		for i := range items {
			if err := yield(itemOf(key, i)); err != nil {
				return err
			}
		}
		return nil
	}).With(sdk.Window(8))

	// drain is elsewhere, with the stream that it makes.
	drain = sdk.Func("drain", func(ctx context.Context, key uint64) (total uint64, err error) {
		i := 0
		for it, err := range source.Remote(ctx, key).All(ctx) {
			switch {
			case err != nil:
				return 0, err
			case it.Index != i:
				return 0, wrong("an item's index", it.Index, i)
			}
			total += sum(it.Bytes)
			i++
		}
		if i != items {
			return 0, wrong("the number of items", i, items)
		}
		return total, nil
	}).With(sdk.CPU(1), sdk.Spread())

	// check reads one item.
	check = sdk.Func("check", func(_ context.Context, it item) (uint64, error) { return sum(it.Bytes), nil }).
		With(sdk.CPU(1), sdk.Spread())
)

// streaming is streams whose items are read by tasks elsewhere, and streams of
// tasks elsewhere.
type streaming struct{ seed uint64 }

func (w streaming) round(ctx context.Context, n uint64) (string, error) {
	key := mix(w.seed + n)
	drains := make([]sdk.Ref[uint64], 3)
	for i := range drains {
		drains[i] = drain.Remote(ctx, key+uint64(i))
	}
	s := source.Remote(ctx, key)
	defer s.Close()
	var checks []sdk.Ref[uint64]
	for {
		r, err := s.NextRef(ctx)
		if errors.Is(err, wray.ErrEndOfStream) {
			break
		}
		if err != nil {
			return "", err
		}
		checks = append(checks, check.RemoteArgs(ctx, r))
	}
	if len(checks) != items {
		return "", wrong("the number of items", len(checks), items)
	}
	for i, r := range checks {
		got, err := r.Get(ctx)
		if err != nil {
			return "", fmt.Errorf("item %d: %w", i, err)
		}
		if want := sum(itemOf(key, i).Bytes); got != want {
			return "", wrong(fmt.Sprintf("item %d", i), got, want)
		}
	}
	for k, r := range drains {
		got, err := r.Get(ctx)
		if err != nil {
			return "", fmt.Errorf("stream %d elsewhere: %w", k, err)
		}
		want := uint64(0)
		for i := range items {
			want += sum(itemOf(key+uint64(k), i).Bytes)
		}
		if got != want {
			return "", wrong("a stream elsewhere", got, want)
		}
	}
	return "", nil
}

func (streaming) end(context.Context) (string, error) { return "", nil }
