// Actor-c is a Go program that makes an actor written in C. Build that first, as
// README.md says, and give it with --with.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray/sdk"
)

// Tally is what c/tally.c declares.
type Tally struct{}

var (
	tallies = sdk.Module("tally")
	tally   = sdk.ImportActor[Tally, int](tallies, "tally")
	add     = sdk.ImportMethod[[]byte, int](tally, "add")
	count   = sdk.ImportMethod[string, int](tally, "count")
	all     = sdk.ImportMethod0[map[string]int](tally, "all")

	crc32 = sdk.Import[[]byte, uint32](tallies, "crc32")

	// errTooLong is what the C side calls tally.ErrTooLong.
	errTooLong = sdk.RegisterError("tally.ErrTooLong", errors.New("a word is too long"))
)

// feed is a task, in Go, that is given the actor.
var feed = sdk.Func2("feed", func(ctx context.Context, h sdk.Handle[Tally], text []byte) (int, error) {
	return add.Remote(ctx, h, text).Get(ctx)
})

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	sum, err := crc32.Remote(ctx, []byte("123456789")).Get(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("crc32: %08x\n", sum)

	h := tally.With(sdk.MaxRestarts(1)).New(ctx, 12)
	for _, text := range []string{"to be", "or not", "to be"} {
		add.Remote(ctx, h, []byte(text)) // in this order
	}
	n, err := feed.Remote(ctx, h, []byte("that is the question")).Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println("words:", n)

	if _, err = add.Remote(ctx, h, []byte("a tergiversation")).Get(ctx); !errors.Is(err, errTooLong) {
		return fmt.Errorf("a word of 14 letters: %v", err)
	}
	fmt.Println("refused:", err)

	// What the actor is now is kept, as its sandbox's memory, and is what it is
	// again after its sandbox is lost.
	if err := h.Checkpoint(ctx); err != nil {
		return err
	}
	if err := h.Restart(); err != nil {
		return err
	}
	be, err := count.Remote(ctx, h, "be").Get(ctx)
	if err != nil {
		return err
	}
	words, err := all.Remote(ctx, h).Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println("be:", be, "different words:", len(words), "to:", words["to"])
	return nil
}
