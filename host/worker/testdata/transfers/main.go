// Command transfers has durable actors call each other. Its arguments are what to
// do, in turn: new (two accounts of 100), move KEY N (N from alice to bob, once for each
// key), spread KEY N (in shares that are drawn, by tasks too), both (each to the
// other at once), circle, self, leave KEY N (a call that nobody waits for), sums, seen,
// vast (an actor that no node could hold),
// cross KEY (each to the other, from within calls that go on after it, and nobody
// waits for), crossed KEY (the same calls again, whose answers are waited for).
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

type account struct {
	money int
	seen  []string
	last  sdk.Handle[account]
}

type move struct {
	To     sdk.Handle[account]
	Amount int
	Note   string
}

var (
	twice = sdk.Func("twice", func(_ context.Context, n int) (int, error) { return 2 * n, nil })

	accounts = sdk.Actor("account", func(_ context.Context, money int) (*account, error) { return &account{money: money}, nil }).With(sdk.Durable())
	deposit  = sdk.Method2(accounts, "deposit", func(a *account, _ context.Context, n int, note string) (int, error) {
		a.money += n
		a.seen = append(a.seen, note)
		return a.money, nil
	})
	transfer = sdk.Method(accounts, "transfer", func(a *account, ctx context.Context, m move) (int, error) {
		if m.Amount > a.money {
			return 0, errors.New("too little")
		}
		if _, err := deposit.Remote(ctx, m.To, m.Amount, m.Note).Get(ctx); err != nil {
			return 0, err
		}
		a.money -= m.Amount
		a.last = m.To
		return a.money, nil
	})
	// spread sees what is not the same again: time, chance, what tasks gave.
	spread = sdk.Method(accounts, "spread", func(a *account, ctx context.Context, m move) (int, error) {
		for m.Amount > 0 {
			n := 1 + rand.IntN(m.Amount)
			d, err := twice.Remote(ctx, n).Get(ctx)
			if err != nil {
				return 0, err
			}
			limited, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(3))*time.Millisecond)
			r := deposit.Remote(ctx, m.To, d/2, fmt.Sprint(m.Note, " ", time.Now().UnixNano()))
			if _, err := r.Get(limited); errors.Is(err, context.DeadlineExceeded) {
				_, err = r.Get(ctx)
			}
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return 0, err
			}
			a.money -= n
			m.Amount -= n
		}
		return a.money, nil
	})
	there = sdk.Method(accounts, "there", func(a *account, ctx context.Context, m move) (int, error) {
		return transfer.Remote(ctx, m.To, move{To: m.To, Amount: m.Amount}).Get(ctx)
	})
	slowly = sdk.Method(accounts, "slowly", func(a *account, ctx context.Context, m move) (int, error) {
		time.Sleep(20 * time.Millisecond)
		_, err := deposit.Remote(ctx, m.To, m.Amount, m.Note).Get(ctx)
		if err == nil {
			a.money -= m.Amount
		}
		return a.money, err
	})
	early = sdk.Method(accounts, "early", func(a *account, ctx context.Context, m move) (int, error) {
		_, err := deposit.Remote(ctx, m.To, m.Amount, m.Note).Get(ctx)
		if err != nil {
			return 0, err
		}
		time.Sleep(100 * time.Millisecond)
		a.money -= m.Amount
		return a.money, nil
	})
	self = sdk.Method(accounts, "self", func(a *account, ctx context.Context, h sdk.Handle[account]) (int, error) {
		return deposit.Remote(ctx, h, 1, "").Get(ctx)
	})
	again = sdk.Method0(accounts, "again", func(a *account, ctx context.Context) (int, error) {
		if a.last.IsZero() {
			return 0, errors.New("there was none")
		}
		n, err := deposit.Remote(ctx, a.last, 1, "again").Get(ctx)
		a.money--
		return n, err
	})
	look = sdk.Method0(accounts, "look", func(a *account, _ context.Context) ([]string, error) {
		return append([]string{strconv.Itoa(a.money)}, a.seen...), nil
	})
)

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	var a, b sdk.Handle[account]
	var err error
	find := func() error {
		if a, err = accounts.Lookup("alice"); err != nil {
			return err
		}
		b, err = accounts.Lookup("bob")
		return err
	}
	arg := func(i int) int { n, _ := strconv.Atoi(os.Args[i]); return n }
	for i := 1; i < len(os.Args); i++ {
		what := os.Args[i]
		if what == "new" {
			a, b = accounts.With(sdk.Name("alice")).New(ctx, 100), accounts.With(sdk.Name("bob")).New(ctx, 100)
			continue
		}
		if a.IsZero() {
			if err := find(); err != nil {
				return err
			}
		}
		switch what {
		case "move":
			n, err := transfer.With(sdk.CallKey(os.Args[i+1])).Remote(ctx, a, move{b, arg(i + 2), os.Args[i+1]}).Get(ctx)
			fmt.Println(n, errors.Is(err, wray.ErrUserError), errors.Is(err, wray.ErrBadArgument))
			i += 2
		case "spread", "leave":
			r := spread.With(sdk.CallKey(os.Args[i+1])).Remote(ctx, a, move{b, arg(i + 2), os.Args[i+1]})
			if what == "spread" {
				n, err := r.Get(ctx)
				fmt.Println(n, err)
			}
			i += 2
		case "both":
			x, y := slowly.Remote(ctx, a, move{b, 5, "x"}), slowly.Remote(ctx, b, move{a, 7, "y"})
			_, errX := x.Get(ctx)
			_, errY := y.Get(ctx)
			fmt.Println(errX == nil || errY == nil, errors.Is(errX, wray.ErrDeadlock) != errors.Is(errY, wray.ErrDeadlock))
		case "circle":
			_, err := there.Remote(ctx, a, move{To: a, Amount: 1}).Get(ctx)
			fmt.Println(errors.Is(err, wray.ErrDeadlock))
		case "self":
			_, err := self.Remote(ctx, b, b).Get(ctx)
			fmt.Println(errors.Is(err, wray.ErrDeadlock), err)
		case "cross", "crossed":
			key := os.Args[i+1]
			x := early.With(sdk.CallKey(key+" x")).Remote(ctx, a, move{b, 5, key + " x"})
			for what == "cross" {
				seen, err := look.Remote(ctx, b).Get(ctx)
				if err != nil {
					return err
				}
				if slices.Contains(seen, key+" x") {
					break
				}
			}
			y := early.With(sdk.CallKey(key+" y")).Remote(ctx, b, move{a, 7, key + " y"})
			if what == "crossed" {
				_, err := x.Get(ctx)
				_, errY := y.Get(ctx)
				fmt.Println(err, errY == nil || errors.Is(errY, wray.ErrDeadlock))
			} else {
				time.Sleep(30 * time.Millisecond) // y is under way, as a rule
			}
			i++
		case "vast":
			h := accounts.With(sdk.Name("carol"), sdk.CPU(4000)).New(ctx, 1)
			_, err := look.Remote(ctx, h).Get(ctx)
			fmt.Println(errors.Is(err, wray.ErrActorDied))
		case "again":
			n, err := again.Remote(ctx, a).Get(ctx)
			fmt.Println(n, err)
		case "sums":
			x, err := look.Remote(ctx, a).Get(ctx)
			if err != nil {
				return err
			}
			y, err := look.Remote(ctx, b).Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(x[0], y[0])
		case "seen":
			y, err := look.Remote(ctx, b).Get(ctx)
			if err != nil {
				return err
			}
			fmt.Println(y[1:])
		case "nobody":
			_, err := accounts.Lookup("nobody")
			fmt.Println(errors.Is(err, wray.ErrActorDied))
		case "kill":
			if err := errors.Join(a.Kill(), b.Kill()); err != nil {
				return err
			}
		default:
			return fmt.Errorf("what is %q?", what)
		}
	}
	return nil
}
