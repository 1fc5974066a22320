package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// counter is an actor that may be anywhere, and may begin again.
type counter struct {
	epoch uint64 // of the actor's life, drawn when it begins
	n     int
}

// count is what a counter answers.
type count struct {
	Epoch uint64
	N     int
	Echo  uint64
}

// books is a durable actor: each entry is once in it, or it was not answered.
type books struct {
	entries map[string]int
	total   int
}

// entry is one effect, and its name.
type entry struct {
	Key    string
	Amount int
}

// entered is what an entry is answered.
type entered struct {
	Total int
	At    int64 // when it was made, as Op counts
}

// balance is what the books say.
type balance struct{ Entries, Total, Doubled int }

var (
	counters = sdk.Actor0("counter", func(context.Context) (*counter, error) {
		return &counter{epoch: uint64(time.Now().UnixNano())}, nil
	}).With(sdk.Spread(), sdk.CPU(0.1), sdk.MaxRestarts(-1), sdk.MaxTaskRetries(-1))
	step = sdk.Method(counters, "step", func(c *counter, _ context.Context, key uint64) (count, error) {
		c.n++
		return count{c.epoch, c.n, mix(key)}, nil
	})

	ledger = sdk.Actor0("books", func(context.Context) (*books, error) {
		return &books{entries: map[string]int{}}, nil
	}).With(sdk.Durable(), sdk.Name("books"))
	enter = sdk.Method(ledger, "enter", func(b *books, _ context.Context, e entry) (entered, error) {
		b.entries[e.Key]++
		b.total += e.Amount
		return entered{b.total, time.Now().UnixNano()}, nil
	})
	audit = sdk.Method0(ledger, "audit", func(b *books, _ context.Context) (s balance, err error) {
		for _, n := range b.entries {
			if n != 1 {
				s.Doubled++
			}
		}
		s.Entries, s.Total = len(b.entries), b.total
		return s, nil
	})
)

// Op is a call of an actor, and when it was under way, in ns of the machine's
// clock, which all hosts of a test have.
type Op struct {
	Actor  string `json:"actor"`
	Client int    `json:"client"`
	Epoch  uint64 `json:"epoch"` // of the books always 0
	N      int    `json:"n"`     // what was answered
	Add    int    `json:"add"`   // what was to be added
	Call   int64  `json:"call"`
	Return int64  `json:"return"`
}

// errand is what a caller is to do.
type errand struct {
	Round    uint64
	Client   int
	Counters []sdk.Handle[counter]
	Books    sdk.Handle[books]
}

const calls = 5 // of each actor by each caller in a round

// amount is what the entry of a call adds.
func amount(round uint64, client, i int) int {
	return 1 + int(mix(round<<16+uint64(client)<<8+uint64(i))%100)
}

// caller calls all actors in turn. It may run more than once: entries have keys.
var caller = sdk.Func("caller", func(ctx context.Context, e errand) (ops []Op, err error) {
	for i := range calls {
		for k, h := range e.Counters {
			key := e.Round<<16 + uint64(e.Client)<<8 + uint64(i)
			call := time.Now().UnixNano()
			c, err := step.Remote(ctx, h, key).Get(ctx)
			if err != nil {
				return nil, fmt.Errorf("counter %d: %w", k, err)
			}
			if c.Echo != mix(key) {
				return nil, wrong("an answer", c.Echo, mix(key))
			}
			ops = append(ops, Op{fmt.Sprint("counter ", k), e.Client, c.Epoch, c.N, 1, call, time.Now().UnixNano()})
		}
		key, n := fmt.Sprintf("%d.%d.%d", e.Round, e.Client, i), amount(e.Round, e.Client, i)
		call := time.Now().UnixNano()
		b, err := enter.With(sdk.CallKey(key)).Remote(ctx, e.Books, entry{key, n}).Get(ctx)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", key, err)
		}
		// Where this task runs again it is given the answer of the first time.
		ops = append(ops, Op{"books", e.Client, 0, b.Total, n, min(call, b.At), time.Now().UnixNano()})
	}
	return ops, nil
}).With(sdk.CPU(0.5), sdk.Spread())

// actors is named actors that live anywhere, a durable one where the driver is,
// and tasks elsewhere that call them.
type actors struct {
	seed     uint64
	counters []sdk.Handle[counter]
	books    sdk.Handle[books]
	entries  int
	total    int
}

func newActors(ctx context.Context, seed uint64) *actors {
	w := &actors{seed: seed, books: ledger.New(ctx)}
	for i := range 3 {
		w.counters = append(w.counters, counters.With(sdk.Name(fmt.Sprint("counter ", i))).New(ctx))
	}
	return w
}

func (w *actors) round(ctx context.Context, n uint64) (string, error) {
	const callers = 4
	var done []sdk.Ref[[]Op]
	for i := range callers {
		done = append(done, caller.Remote(ctx, errand{n, i, w.counters, w.books}))
	}
	var all []Op
	for i, r := range done {
		ops, err := r.Get(ctx)
		if err != nil {
			return "", fmt.Errorf("caller %d: %w", i, err)
		}
		if len(ops) != calls*(len(w.counters)+1) {
			return "", wrong("the number of calls", len(ops), calls*(len(w.counters)+1))
		}
		all = append(all, ops...)
		for k := range calls {
			w.entries++
			w.total += amount(n, i, k)
		}
	}
	for i := range w.counters {
		name := fmt.Sprint("counter ", i)
		h, err := counters.Lookup(name)
		if err != nil || h.IsZero() {
			return "", fmt.Errorf("%s is not found by its name: %w", name, err)
		}
	}
	b, err := json.Marshal(all)
	return string(b), err
}

func (w *actors) end(ctx context.Context) (string, error) {
	got, err := audit.Remote(ctx, w.books).Get(ctx)
	if err != nil {
		return "", err
	}
	if want := (balance{w.entries, w.total, 0}); got != want {
		return "", wrong("the books", got, want)
	}
	// It is detached, and would stay until the job has ended.
	if err := w.books.Kill(); err != nil && !errors.Is(err, wray.ErrActorDied) {
		return "", err
	}
	return fmt.Sprintf("entries=%d", w.entries), nil
}
