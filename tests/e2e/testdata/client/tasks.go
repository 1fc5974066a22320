// Command client is both sides of a native client: built for wasip1, the module
// whose tasks it runs, and otherwise the client.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wray-project/wray/sdk"
)

var errOdd = sdk.RegisterError("client.errOdd", errors.New("odd"))

var (
	half = sdk.Func("half", func(_ context.Context, n int) (int, error) {
		if n%2 != 0 {
			return 0, fmt.Errorf("half of %d: %w", n, errOdd)
		}
		return n / 2, nil
	})
	sum = sdk.Func("sum", func(_ context.Context, xs []byte) (int, error) {
		s := 0
		for _, x := range xs {
			s += int(x)
		}
		return s, nil
	})
	fill = sdk.Func2("fill", func(_ context.Context, n int, b int) ([]byte, error) {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(b)
		}
		return out, nil
	})
	pair = sdk.Func("pair", func(_ context.Context, r sdk.Ref[[]byte]) ([]sdk.Ref[[]byte], error) {
		return []sdk.Ref[[]byte]{r, r}, nil
	})
	count = sdk.Stream("count", func(_ context.Context, n int, yield func(int) error) error {
		for i := range n {
			if err := yield(i); err != nil {
				return err
			}
		}
		return nil
	})
	speak = sdk.Func("speak", func(_ context.Context, s string) (int, error) {
		fmt.Println(s)
		return len(s), nil
	})
	forever = sdk.Func0("forever", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	counter = sdk.Actor("counter", func(_ context.Context, n int) (*state, error) { return &state{n}, nil })
	add     = sdk.Method(counter, "add", func(s *state, _ context.Context, n int) (int, error) { s.n += n; return s.n, nil })
)

type state struct{ n int }
