// Command resources has tasks and actors share resources of a node that has one
// licence and half a link, and says of each part how it went.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// use appends a line to a file when it begins and another when it ends.
var use = sdk.Func2("use", func(_ context.Context, file string, id int) (int, error) {
	if err := note(file, "begin", id); err != nil {
		return 0, err
	}
	time.Sleep(20 * time.Millisecond) // so that those who could overlap do
	return id, note(file, "end", id)
})

func note(file, what string, id int) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, what, id)
	return errors.Join(err, f.Close())
}

// alone reports whether the uses of a file never overlapped.
func alone(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		if id, ok := strings.CutPrefix(lines[i], "begin "); !ok || lines[i+1] != "end "+id {
			return fmt.Errorf("uses overlap:\n%s", b)
		}
	}
	fmt.Println(len(lines)/2, "uses, none at the same time")
	return nil
}

type holder struct{}

var (
	holders = sdk.Actor0("holder", func(context.Context) (*holder, error) { return &holder{}, nil })
	ask     = sdk.Method0(holders, "ask", func(*holder, context.Context) (int, error) { return 7, nil })

	// nest holds the licence and waits for another who needs it.
	nest = sdk.Func("nest", func(ctx context.Context, file string) (int, error) {
		return use.With(sdk.Resource("licence", 1)).Remote(ctx, file, 99).Get(ctx)
	})
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	file := os.Args[1]
	licensed := use.With(sdk.CPU(0), sdk.Resource("licence", 1))
	var refs []sdk.Ref[int]
	for i := range 6 {
		refs = append(refs, licensed.Remote(ctx, file, i))
	}
	if _, err := sdk.GetAll(ctx, refs); err != nil {
		return err
	}
	if err := alone(file); err != nil {
		return err
	}

	// What can never be had fails at once, of tasks and of actors.
	_, err := use.With(sdk.Resource("licence", 1.0001)).Remote(ctx, file, 0).Get(ctx)
	unschedulable("more than there is", err)
	_, err = use.With(sdk.Resource("licence", 1), sdk.Resource("of another node", 1)).Remote(ctx, file, 0).Get(ctx)
	unschedulable("what there is not", err)
	unschedulable("an actor", holders.With(sdk.Resource("link", 0.5001)).New(ctx).Ready(ctx))

	// An actor holds what it asked for as long as it lives.
	a := holders.With(sdk.Resource("licence", 0.5)).New(ctx)
	n, err := ask.Remote(ctx, a).Get(ctx)
	fmt.Println("the actor says", n, err)
	waits := licensed.Remote(ctx, file, 100)
	half := use.With(sdk.Resource("licence", 0.5)).Remote(ctx, file, 101)
	if _, err := half.Get(ctx); err != nil {
		return err
	}
	ready, _, err := sdk.Wait(ctx, []sdk.Ref[int]{waits}, 1, 0)
	fmt.Println("beside the actor a half ran, and of those who want it all", len(ready), err)
	if err := a.Kill(); err != nil {
		return err
	}
	n, err = waits.Get(ctx)
	fmt.Println("without it", n, err)

	// Who keeps it and waits for who needs it is told.
	_, err = nest.With(sdk.Resource("licence", 1)).Remote(ctx, file).Get(ctx)
	fmt.Println("nested:", errors.Is(err, wray.ErrResourceDeadlock))

	_, err = ask.With(sdk.Resource("licence", 1)).Remote(ctx, holders.New(ctx)).Get(ctx)
	fmt.Println("a call holds none:", errors.Is(err, wray.ErrBadArgument))
	return nil
}

func unschedulable(what string, err error) {
	var e *wray.Error
	if !errors.As(err, &e) || !errors.Is(err, wray.ErrUnschedulable) {
		fmt.Println(what, err)
		return
	}
	for e.Limit == nil && e.Cause != nil {
		e = e.Cause
	}
	if e.Limit == nil {
		fmt.Println(what, e)
		return
	}
	fmt.Printf("%s: %v, %s = %d, %s\n", what, e.Code, e.Limit.Name, e.Limit.Value, e.Limit.Flag)
}
