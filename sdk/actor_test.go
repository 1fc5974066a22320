//go:build !wasip1

package sdk_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/wray-project/wray/sdk"
)

// keeper is an actor that keeps references.
type keeper struct{ refs []sdk.Ref[int] }

type keep struct{ Ref sdk.Ref[int] }

var (
	keepers = sdk.Actor0("keeper", func(context.Context) (*keeper, error) { return &keeper{}, nil })
	keepOne = sdk.Method(keepers, "keep", func(k *keeper, _ context.Context, v keep) (int, error) {
		k.refs = append(k.refs, v.Ref)
		return len(k.refs), nil
	})
	keptCount = sdk.Method0(keepers, "count", func(k *keeper, _ context.Context) (int, error) { return len(k.refs), nil })
)

// TestOutOfScope has an actor keep the result of a call of its own. That is no
// handle: the actor ends with its last one.
func TestOutOfScope(t *testing.T) {
	ctx := t.Context()
	func() {
		a := keepers.With(sdk.Name("keeps its own")).New(ctx)
		if n, err := keepOne.Remote(ctx, a, keep{keptCount.Remote(ctx, a)}).Get(ctx); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}()
	for { // until the test's time is up
		runtime.GC()
		if _, err := keepers.Lookup("keeps its own"); err != nil {
			return
		}
		runtime.Gosched()
	}
}

// TestNameOfKilled takes the name of an actor that was killed: it is free at once.
func TestNameOfKilled(t *testing.T) {
	ctx := t.Context()
	class := keepers.With(sdk.Name("killed"))
	for range 1000 {
		a := class.New(ctx)
		if n, err := keptCount.Remote(ctx, a).Get(ctx); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if err := a.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}
