// Command scaled has tasks run that only nodes can hold which are not there yet,
// and says where they ran: with the label pool=X, X being its argument, and with a
// resource that nobody has spoken of.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type lodger struct{}

var (
	// The node is in the errors of what runs there.
	where   = sdk.Func0("where", func(context.Context) (int, error) { return 0, errors.New("here") })
	lodgers = sdk.Actor0("lodger", func(context.Context) (*lodger, error) { return &lodger{}, nil })
	ask     = sdk.Method0(lodgers, "ask", func(*lodger, context.Context) (int, error) { return 0, errors.New("here") })
)

func main() { sdk.Main(run) }

func nodeOf(_ int, err error) string {
	var e *wray.Error
	if errors.As(err, &e) && e.Code == wray.CodeUserError {
		return e.Node
	}
	return fmt.Sprint(err)
}

func run(ctx context.Context) error {
	in := sdk.Labels("pool=" + os.Args[1])
	var refs []sdk.Ref[int]
	for range 6 {
		refs = append(refs, where.With(in).Remote(ctx), where.With(sdk.Resource("disk-"+os.Args[1], 1)).Remote(ctx))
	}
	var nodes []string
	for _, r := range refs {
		nodes = append(nodes, nodeOf(r.Get(ctx)))
	}
	slices.Sort(nodes)
	fmt.Println("tasks:", slices.Compact(nodes))
	if os.Args[1] != "fast" {
		return nil // the same again
	}
	fmt.Println("actor:", nodeOf(ask.Remote(ctx, lodgers.With(in).New(ctx)).Get(ctx)))
	return nil
}
