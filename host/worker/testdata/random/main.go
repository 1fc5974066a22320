// Command random prints what a guest takes for random, as its driver and as
// tasks see it. A line is who drew, what, and the value.
package main

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"hash/maphash"
	"math/rand"
	randv2 "math/rand/v2"
	"strings"

	"github.com/wray-project/wray/sdk"
)

// early is drawn before the snapshot: every sandbox that comes from one
// snapshot has the same.
var early = rand.Uint64()

// seeded was made before the snapshot and not used by then.
var seeded = map[int]int{}

func draws() string {
	var b strings.Builder
	line := func(what string, v any) { fmt.Fprintf(&b, "%s=%v\n", what, v) }
	line("early", early)
	bytes := make([]byte, 8)
	crand.Read(bytes)
	line("crypto/rand", fmt.Sprintf("%x", bytes))
	line("math/rand", rand.Uint64())
	line("math/rand/v2", randv2.Uint64())
	line("maphash", maphash.String(maphash.MakeSeed(), "wray"))
	m := map[int]int{}
	for i := range 200 {
		m[i], seeded[i] = i, i
	}
	order := func(m map[int]int) string {
		keys := ""
		for k := range m {
			keys += fmt.Sprint(k, ",")
		}
		return keys
	}
	line("map", order(m))
	// Its hashes are the same in all sandboxes, but not where a loop over it
	// begins, which is one of some 200 places.
	starts := ""
	for range 8 {
		for k := range seeded {
			starts += fmt.Sprint(k, ",")
			break
		}
	}
	line("map-before", starts)
	return b.String()
}

var task = sdk.Func("draw", func(context.Context, int) (string, error) { return draws(), nil })

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	var refs []sdk.Ref[string]
	for i := range 6 {
		refs = append(refs, task.With(sdk.Fresh()).Remote(ctx, i))
	}
	all, err := sdk.GetAll(ctx, refs)
	if err != nil {
		return err
	}
	for _, s := range append(all, draws()) {
		fmt.Print(s)
	}
	return nil
}
