// Command refused goes past the limit that its argument names, and says how it
// was told.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

var (
	idle   = sdk.Actor0("idle", func(context.Context) (*int, error) { return new(int), nil })
	double = sdk.Func("double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	fill   = sdk.Func("fill", func(ctx context.Context, n int) (int, error) { return n, hold(ctx, n) })
	fat    = sdk.Func("fat", func(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil })
	// lengths has a handle of each argument, which are too large to travel with
	// it.
	lengths = sdk.Func4("lengths", func(_ context.Context, a, b, c, d []byte) (int, error) {
		return len(a) + len(b) + len(c) + len(d), nil
	})
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	err := map[string]func(context.Context) error{
		"put": func(ctx context.Context) error { return hold(ctx, 1000) },
		"submit": func(ctx context.Context) error {
			var refs []sdk.Ref[int]
			for i := range 1000 {
				refs = append(refs, double.Remote(ctx, i))
			}
			_, err := sdk.GetAll(ctx, refs)
			return err
		},
		"memory": func(ctx context.Context) error {
			_, err := double.With(sdk.Memory(1<<50)).Remote(ctx, 1).Get(ctx)
			return err
		},
		"return": func(ctx context.Context) error {
			_, err := fat.Remote(ctx, 4<<20).Get(ctx)
			return err
		},
		"task": func(ctx context.Context) error {
			_, err := fill.Remote(ctx, 1000).Get(ctx)
			return err
		},
		"input": func(ctx context.Context) error {
			big, err := sdk.Put(ctx, make([]byte, 1<<20))
			if err != nil {
				return err
			}
			_, err = lengths.RemoteArgs(ctx, big, big, big, big).Get(ctx)
			return err
		},
		// windows keeps every one of a thousand mapped values.
		"windows": func(ctx context.Context) error {
			var held [][]byte
			for range 1000 {
				b, err := read(ctx)
				if err != nil {
					return err
				}
				held = append(held, b)
			}
			return fmt.Errorf("%d are held", len(held))
		},
		// buffers keeps every one of a thousand that it fills.
		"buffers": func(ctx context.Context) error {
			var held [][]byte
			for range 1000 {
				b, err := sdk.Make[byte](ctx, 300_000)
				if err != nil {
					return err
				}
				held = append(held, b)
			}
			return fmt.Errorf("%d are held", len(held))
		},
		"read": func(ctx context.Context) error {
			for i := range 1000 {
				if _, err := read(ctx); err != nil {
					return fmt.Errorf("read %d: %w", i, err)
				}
			}
			return nil
		},
		"store": func(ctx context.Context) error {
			_, err := sdk.Put(ctx, make([]byte, 32<<20))
			return err
		},
		"crowded": func(ctx context.Context) error {
			// One that rests is no task that may yet drop something.
			rests := idle.New(ctx)
			if err := rests.Ready(ctx); err != nil {
				return err
			}
			defer rests.Kill()
			var held []sdk.Ref[[]byte]
			for range 20 {
				r, err := sdk.Put(ctx, make([]byte, 1<<20))
				if err != nil {
					return err
				}
				held = append(held, r)
			}
			return fmt.Errorf("%d were taken", len(held))
		},
		"drop": func(ctx context.Context) error {
			for i := range 10_000 {
				if _, err := sdk.Put(ctx, make([]byte, 2000)); err != nil {
					return fmt.Errorf("put %d: %w", i, err)
				}
			}
			return nil
		},
	}[os.Args[1]](ctx)
	var e *wray.Error
	if errors.As(err, &e) && e.Limit != nil {
		fmt.Printf("%s, %s = %d\n", e.Code, e.Limit.Name, e.Limit.Value)
	}
	return err
}

// read puts a value that is mapped where it is read, and reads it.
func read(ctx context.Context) ([]byte, error) {
	r, err := sdk.Put(ctx, page)
	if err != nil {
		return nil, err
	}
	return r.Get(ctx)
}

var page = make([]byte, 300_000)

// hold puts n objects and keeps them.
func hold(ctx context.Context, n int) error {
	var refs []sdk.Ref[[]byte]
	for range n {
		r, err := sdk.Put(ctx, make([]byte, 2000))
		if err != nil {
			return err
		}
		refs = append(refs, r)
	}
	if len(refs) != n {
		return errors.New("refs are lost")
	}
	return nil
}
