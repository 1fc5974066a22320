// Command groups makes placement groups and runs tasks and actors in them. With
// the argument "nodes" it says which of a cluster's two nodes they run on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type lodger struct{ n int }

// order is what through is told: a group that travels in a value.
type order struct {
	Group  sdk.Group
	Bundle int
}

var (
	// The node is in the errors of what runs there.
	where   = sdk.Func0("where", func(context.Context) (int, error) { return 0, errors.New("here") })
	square  = sdk.Func("square", func(_ context.Context, n int) (int, error) { return n * n, nil })
	forever = sdk.Func0("forever", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	through = sdk.Func("through", func(ctx context.Context, o order) (int, error) {
		return square.With(sdk.InGroup(o.Group, o.Bundle)).Remote(ctx, 7).Get(ctx)
	})
	// throughWhere says where a task runs that it submits to the group.
	throughWhere = sdk.Func("throughWhere", func(ctx context.Context, o order) (string, error) {
		return nodeOf(where.With(sdk.InGroup(o.Group, o.Bundle)).Remote(ctx).Get(ctx)), nil
	})
	// captured submits a task that says nothing of groups.
	captured = sdk.Func0("captured", func(ctx context.Context) (string, error) {
		return nodeOf(where.With(sdk.CPU(0.5)).Remote(ctx).Get(ctx)), nil
	})
	lodgers = sdk.Actor0("lodger", func(context.Context) (*lodger, error) { return &lodger{}, nil })
	add     = sdk.Method(lodgers, "add", func(l *lodger, _ context.Context, n int) (int, error) { l.n += n; return l.n, nil })
	ask     = sdk.Method0(lodgers, "ask", func(*lodger, context.Context) (int, error) { return 0, errors.New("here") })
)

func main() { sdk.Main(run) }

// nodeOf is where a call ran, or why it did not.
func nodeOf(_ int, err error) string {
	var e *wray.Error
	if errors.As(err, &e) && e.Code == wray.CodeUserError {
		return e.Node
	}
	return codeOf(err)
}

func codeOf(err error) string {
	var e *wray.Error
	if errors.As(err, &e) {
		for e.Cause != nil {
			e = e.Cause
		}
		return e.Code.String()
	}
	return fmt.Sprint(err)
}

func run(ctx context.Context) error {
	if len(os.Args) > 1 && os.Args[1] == "nodes" {
		return nodes(ctx)
	}
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		return wait(ctx)
	}
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		return hold(ctx)
	}
	pg := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 0.5}}, sdk.Name("pair"))
	if err := pg.Ready(ctx); err != nil {
		return err
	}
	n, err := square.With(sdk.InGroup(pg, 0)).Remote(ctx, 5).Get(ctx)
	fmt.Println("a task in it:", n, err)
	n, err = square.With(sdk.InGroup(pg, sdk.AnyBundle), sdk.CPU(0.5)).Remote(ctx, 6).Get(ctx)
	fmt.Println("in any of its bundles:", n, err)
	found, err := sdk.LookupGroup("pair")
	if err != nil {
		return err
	}
	n, err = through.Remote(ctx, order{found, 0}).Get(ctx)
	fmt.Println("by its name, and through another task:", n, err)
	_, err = sdk.LookupGroup("nobody")
	fmt.Println("of no such name:", codeOf(err))
	fmt.Println("of a name that is taken:", codeOf(sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}}, sdk.Name("pair")).Ready(ctx)))
	again := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}}, sdk.Name("pair"), sdk.GetIfExists())
	n, err = square.With(sdk.InGroup(again, 1), sdk.CPU(0.5)).Remote(ctx, 8).Get(ctx)
	fmt.Println("the one that has it:", n, err)

	h := lodgers.With(sdk.InGroup(pg, 1), sdk.CPU(0.5)).New(ctx)
	n, err = add.Remote(ctx, h, 3).Get(ctx)
	fmt.Println("an actor in it:", n, err)
	running := forever.With(sdk.InGroup(pg, 0)).Remote(ctx)
	queued := forever.With(sdk.InGroup(pg, 0)).Remote(ctx)
	if err := pg.Remove(); err != nil {
		return err
	}
	_, err = running.Get(ctx)
	fmt.Println("what ran in it:", codeOf(err))
	_, err = queued.Get(ctx)
	fmt.Println("what waited for it:", codeOf(err))
	_, err = add.Remote(ctx, h, 3).Get(ctx)
	fmt.Println("its actor:", codeOf(err))
	_, err = square.With(sdk.InGroup(pg, 0)).Remote(ctx, 5).Get(ctx)
	fmt.Println("after it was removed:", codeOf(err))
	fmt.Println("removed twice:", pg.Remove())

	apart := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictSpread())
	fmt.Println("apart, on one node:", codeOf(apart.Ready(ctx)))
	_, err = square.With(sdk.InGroup(apart, 0)).Remote(ctx, 5).Get(ctx)
	fmt.Println("a task in that:", codeOf(err))
	for _, bad := range []sdk.Group{
		sdk.PlacementGroup(ctx, nil),
		sdk.PlacementGroup(ctx, []sdk.Bundle{{}}),
		sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}}, sdk.CPU(1)),
		sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}}, sdk.StrictPack(), sdk.Spread()),
	} {
		fmt.Println("nonsense:", bad.Ready(ctx))
	}
	for _, opts := range [][]sdk.Option{
		{sdk.InGroup(sdk.Group{}, 0)}, {sdk.InGroup(again, -2)}, {sdk.CaptureTasks()}, {sdk.InGroup(again, 0), sdk.OnNode("x")}, {sdk.StrictPack()},
	} {
		_, err := square.With(opts...).Remote(ctx, 1).Get(ctx)
		fmt.Println("nonsense:", err)
	}
	return nil
}

// nodes is for a cluster of two nodes with two CPUs each.
func nodes(ctx context.Context) error {
	task := func(what string, opts ...sdk.Option) {
		fmt.Printf("%s: %s\n", what, nodeOf(where.With(opts...).Remote(ctx).Get(ctx)))
	}
	apart := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictSpread())
	if err := apart.Ready(ctx); err != nil {
		return err
	}
	at := func(pg sdk.Group, bundle int) string {
		return nodeOf(where.With(sdk.InGroup(pg, bundle)).Remote(ctx).Get(ctx))
	}
	first, other := at(apart, 0), at(apart, 1)
	fmt.Println("apart:", first == "one" && other == "two" || first == "two" && other == "one")
	var from [2]string
	for i := range from {
		var err error
		if from[i], err = throughWhere.With(sdk.OnNode("two")).Remote(ctx, order{apart, i}).Get(ctx); err != nil {
			return err
		}
	}
	fmt.Println("apart, from two:", from[0] == first, from[1] == other)
	there, err := captured.With(sdk.InGroup(apart, 1), sdk.CPU(0.5), sdk.CaptureTasks()).Remote(ctx).Get(ctx)
	fmt.Println("captured:", there != "", err)
	h := lodgers.With(sdk.InGroup(apart, 1), sdk.CPU(1)).New(ctx)
	fmt.Println("an actor in 1:", nodeOf(ask.Remote(ctx, h).Get(ctx)) == other)
	if err := apart.Remove(); err != nil {
		return err
	}
	fmt.Println("the actor, when it is removed:", codeOf(second(ask.Remote(ctx, h).Get(ctx))))

	far := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1, Labels: []string{"zone=east"}}, {CPU: 1, Labels: []string{"zone=east"}}})
	if err := far.Ready(ctx); err != nil {
		return err
	}
	task("in zone east", sdk.InGroup(far, sdk.AnyBundle))
	task("not in the group, on one", sdk.OnNode("one"))
	if err := far.Remove(); err != nil {
		return err
	}
	together := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictPack())
	if err := together.Ready(ctx); err != nil {
		return err
	}
	fmt.Println("together:", at(together, 0) == at(together, 1))
	return together.Remove()
}

func second(_ int, err error) error { return err }

// wait makes a group for which there is no room, and one that there is, and stays.
func wait(ctx context.Context) error {
	there := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}}, sdk.Name("there"))
	if err := there.Ready(ctx); err != nil {
		return err
	}
	waits := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictPack(), sdk.Name("waits"))
	square.With(sdk.InGroup(waits, 0)).Remote(ctx, 1)
	fmt.Println("made")
	if err := waits.Ready(ctx); err != nil {
		return err
	}
	return there.Remove()
}

// hold runs a task in a bundle on the node two, says so, and, when the task is run
// again as that node has died, where.
func hold(ctx context.Context) error {
	pg := sdk.PlacementGroup(ctx, []sdk.Bundle{{CPU: 1}, {CPU: 1}}, sdk.StrictSpread())
	if err := pg.Ready(ctx); err != nil {
		return err
	}
	bundle := 0
	if nodeOf(where.With(sdk.InGroup(pg, 0)).Remote(ctx).Get(ctx)) == "one" {
		bundle = 1
	}
	fmt.Println("on", nodeOf(where.With(sdk.InGroup(pg, bundle)).Remote(ctx).Get(ctx)))
	h := lodgers.With(sdk.InGroup(pg, bundle), sdk.CPU(1), sdk.MaxRestarts(-1), sdk.MaxTaskRetries(-1)).New(ctx)
	fmt.Println("an actor on", nodeOf(ask.Remote(ctx, h).Get(ctx)))
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if at := nodeOf(ask.Remote(ctx, h).Get(ctx)); at == "three" {
			fmt.Println("an actor on", at)
			return pg.Remove()
		}
	}
}
