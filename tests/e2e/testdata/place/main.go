// Command place says where in a cluster tasks and actors run that ask for nodes:
// of two, called one (zone west) and two (zone east, with a disk).
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type lodger struct{}

// job is what via is told to submit: a task, or an actor, of some zone.
type job struct {
	Zone  string
	Actor bool
}

var (
	// The node is in the errors of what runs there.
	where   = sdk.Func0("where", func(context.Context) (int, error) { return 0, errors.New("here") })
	lodgers = sdk.Actor0("lodger", func(context.Context) (*lodger, error) { return &lodger{}, nil })
	ask     = sdk.Method0(lodgers, "ask", func(*lodger, context.Context) (int, error) { return 0, errors.New("here") })
	via     = sdk.Func("via", func(ctx context.Context, j job) (string, error) {
		in := sdk.Labels("zone=" + j.Zone)
		if j.Actor {
			h := lodgers.With(in).New(ctx)
			return nodeOf(ask.Remote(ctx, h).Get(ctx)), nil
		}
		return nodeOf(where.With(in).Remote(ctx).Get(ctx)), nil
	})
)

func main() { sdk.Main(run) }

// nodeOf is where a call ran, or why it did not.
func nodeOf(_ int, err error) string {
	var e *wray.Error
	switch {
	case err == nil || !errors.As(err, &e):
		return fmt.Sprintf("an error of no node: %v", err)
	case e.Code == wray.CodeUserError:
		return e.Node
	}
	return e.Code.String() + ": " + e.Message
}

func run(ctx context.Context) error {
	task := func(what string, opts ...sdk.Option) {
		fmt.Printf("%s: %s\n", what, nodeOf(where.With(opts...).Remote(ctx).Get(ctx)))
	}
	task("on two", sdk.OnNode("two"))
	task("on one", sdk.OnNode("one"))
	task("a disk, any", sdk.Labels("disk"))
	task("no disk", sdk.Labels("!disk"))
	task("zone east or north", sdk.Labels("zone in (east, north)"))
	task("not zone west", sdk.Labels("zone!=west"))
	task("by the label that each has", sdk.Labels(wray.LabelNode+"=two", wray.LabelOS+"=linux"))
	task("rather on two", sdk.PreferNode("two"))
	task("rather on nobody", sdk.PreferNode("nobody"), sdk.Labels("zone=west"))
	task("on two in zone west", sdk.OnNode("two"), sdk.Labels("zone=west"))
	task("on nobody", sdk.OnNode("nobody"))
	task("spread, in zone east", sdk.Spread(), sdk.Labels("zone=east"))

	seen := map[string]bool{}
	var refs []sdk.Ref[int]
	for range 64 {
		refs = append(refs, where.With(sdk.Spread()).Remote(ctx))
	}
	for _, r := range refs {
		seen[nodeOf(r.Get(ctx))] = true
	}
	fmt.Println("spread:", seen["one"], seen["two"], len(seen))

	actor := func(what string, opts ...sdk.Option) {
		h := lodgers.With(opts...).New(ctx)
		n, err := ask.Remote(ctx, h).Get(ctx) // which may be asked before there is any
		if errors.Is(err, wray.ErrActorDied) {
			err = h.Ready(ctx)
		}
		fmt.Printf("an actor %s: %s\n", what, nodeOf(n, err))
	}
	actor("on two", sdk.OnNode("two"))
	actor("without a disk", sdk.Labels("!disk"))
	actor("rather on nobody", sdk.PreferNode("nobody"), sdk.Labels("zone=east"))
	actor("on nobody", sdk.OnNode("nobody"))

	for _, j := range []job{{"west", false}, {"east", false}, {"west", true}, {"east", true}} {
		node, err := via.With(sdk.OnNode("two")).Remote(ctx, j).Get(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("from two, %+v: %s\n", j, node)
	}
	for _, o := range []sdk.Option{sdk.Labels("zone west"), sdk.OnNode(""), sdk.PreferNode("a\x00b")} {
		task("nonsense", o)
	}
	fmt.Println("a method:", nodeOf(ask.With(sdk.OnNode("two")).Remote(ctx, lodgers.New(ctx)).Get(ctx)))
	return nil
}
