// Command ledger keeps accounts as durable actors and moves money between them.
//
//	wray run --state ./state ./examples/ledger
//	wray run --state ./state ./examples/ledger -- 8 200 1
//
// The arguments are how many accounts there are, how many transfers to make, and
// a seed that says which. Kill it, the whole of it, at any moment (kill -9), and
// run it again: it asks for the same transfers, those that were made are not made
// twice, and the money stays the same. In the end each account is audited.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// opening is what each account has in the beginning.
const opening = 1000

// An account counts how often each transfer came by: once, if all is well.
type account struct {
	balance        int
	sent, received map[string]int
}

// A transfer moves an amount, and has an ID of its own.
type transfer struct {
	ID     string
	To     sdk.Handle[account]
	Amount int
}

// A statement is what an account says of itself.
type statement struct {
	Balance        int
	Sent, Received map[string]int
}

var (
	accounts = sdk.Actor("account", func(_ context.Context, balance int) (*account, error) {
		return &account{balance: balance, sent: map[string]int{}, received: map[string]int{}}, nil
	}).With(sdk.Durable())

	deposit = sdk.Method(accounts, "deposit", func(a *account, _ context.Context, t transfer) (int, error) {
		a.balance += t.Amount
		a.received[t.ID]++
		return a.balance, nil
	})

	// send calls another account. Should everything end in between, this call is
	// finished before the account takes another one, and the deposit that was
	// made is not made again.
	send = sdk.Method(accounts, "send", func(a *account, ctx context.Context, t transfer) (int, error) {
		if t.Amount > a.balance {
			return 0, errPoor
		}
		if _, err := deposit.Remote(ctx, t.To, t).Get(ctx); err != nil {
			return 0, err // it was not made
		}
		a.balance -= t.Amount
		a.sent[t.ID]++
		return a.balance, nil
	})

	read = sdk.Method0(accounts, "read", func(a *account, _ context.Context) (statement, error) {
		return statement{a.balance, a.sent, a.received}, nil
	})
)

var errPoor = errors.New("the account has not that much")

func init() { sdk.RegisterError("ledger.poor", errPoor) }

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	numbers := []int{4, 40, 1}
	for i, text := range os.Args[1:] {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || i >= len(numbers) {
			return fmt.Errorf("usage: ledger [accounts [transfers [seed]]], of which %q is none", text)
		}
		numbers[i] = n
	}
	return ledger(ctx, numbers[0], numbers[1], uint64(numbers[2]))
}

// ledger makes the transfers, some at a time, and then audits the accounts.
func ledger(ctx context.Context, n, transfers int, seed uint64) error {
	all := make([]sdk.Handle[account], n)
	for i := range all {
		all[i] = accounts.With(sdk.Name(fmt.Sprintf("account %d", i))).New(ctx, opening)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	var wait sync.WaitGroup
	slots, failed := make(chan struct{}, 4), make(chan error, transfers)
	made := 0
	for i := range transfers {
		from, to := rng.IntN(n), rng.IntN(n)
		t := transfer{ID: fmt.Sprintf("%d of seed %d", i, seed), To: all[to], Amount: 1 + rng.IntN(50)}
		if from == to {
			continue
		}
		slots <- struct{}{}
		made++
		wait.Go(func() {
			defer func() { <-slots }()
			if err := move(ctx, all[from], t); err != nil {
				failed <- err
			}
			fmt.Println("transfer", t.ID)
		})
	}
	wait.Wait()
	if len(failed) > 0 {
		return <-failed
	}
	return audit(ctx, all, made)
}

// move makes a transfer. Two accounts that send to each other at the same time
// would wait for each other for ever: one of the two calls fails with
// wray.ErrDeadlock, changes nothing, and is made again. That is another call, so
// it has another key; whoever runs the program again goes through the same keys.
func move(ctx context.Context, from sdk.Handle[account], t transfer) error {
	for try := 0; ; try++ {
		key := fmt.Sprintf("%s, try %d", t.ID, try)
		_, err := send.With(sdk.CallKey(key)).Remote(ctx, from, t).Get(ctx)
		switch {
		case err == nil, errors.Is(err, errPoor):
			return nil
		case !errors.Is(err, wray.ErrDeadlock):
			return err
		}
	}
}

// audit counts the money, and how often each transfer is in the books.
func audit(ctx context.Context, all []sdk.Handle[account], made int) error {
	sum, sent, received := 0, map[string]int{}, map[string]int{}
	for _, a := range all {
		s, err := read.Remote(ctx, a).Get(ctx)
		if err != nil {
			return err
		}
		sum += s.Balance
		for id, n := range s.Sent {
			sent[id] += n
		}
		for id, n := range s.Received {
			received[id] += n
		}
	}
	for id, n := range sent {
		if n != 1 || received[id] != 1 {
			return fmt.Errorf("the transfer %s was sent %d times and received %d times", id, n, received[id])
		}
	}
	if len(received) != len(sent) || sum != opening*len(all) {
		return fmt.Errorf("%d transfers were sent, %d received, and %d accounts have %d", len(sent), len(received), len(all), sum)
	}
	fmt.Printf("%d accounts have %d; %d transfers of %d in the books, each once\n", len(all), sum, len(sent), made)
	return nil
}
