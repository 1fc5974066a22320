// Command checkpoints compares an actor that is started again at random points
// with a model of it. Its arguments are a seed, the number of rounds, how many
// calls lie between two checkpoints, the MiB that the actor holds, and how many
// other actors push it out of its sandbox.
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

type state struct {
	n     int
	bulk  []byte
	kept  []sdk.Ref[[]byte]
	bytes [][]byte // mapped
}

var (
	states = sdk.Actor("state", func(_ context.Context, mib int) (*state, error) {
		s := &state{bulk: make([]byte, mib<<20)}
		for i := range s.bulk {
			s.bulk[i] = byte(i >> 12)
		}
		return s, nil
	})
	// add writes to a page that follows from the sum, which it returns with a
	// checksum of all that it holds.
	add = sdk.Method(states, "add", func(s *state, _ context.Context, by int) ([]int, error) {
		s.n += by
		if len(s.bulk) > 0 {
			s.bulk[s.n*4099%len(s.bulk)] += byte(by)
		}
		return []int{s.n, sum(s.bulk)}, nil
	})
	keep = sdk.Method(states, "keep", func(s *state, ctx context.Context, r []sdk.Ref[[]byte]) (int, error) {
		b, err := r[0].Get(ctx)
		if err != nil {
			return 0, err
		}
		s.kept, s.bytes = append(s.kept, r[0]), append(s.bytes, b)
		b[len(b)/2]++ // its own copy
		if len(s.kept) > 3 {
			s.kept, s.bytes = slices.Delete(s.kept, 0, 1), slices.Delete(s.bytes, 0, 1)
		}
		return len(s.kept), nil
	})
	read = sdk.Method0(states, "read", func(s *state, ctx context.Context) ([]int, error) {
		var sums []int
		for i, r := range s.kept {
			b, err := r.Get(ctx)
			if err != nil {
				return nil, err
			}
			sums = append(sums, int(b[0]), sum(s.bytes[i]))
		}
		return sums, nil
	})
	spin = sdk.Method(states, "spin", func(s *state, _ context.Context, by int) (int, error) {
		s.n += by
		s.kept, s.bytes = nil, nil
		for {
		}
	})
)

func sum(b []byte) (n int) {
	for i := 0; i < len(b); i += 17 {
		n += int(b[i]) * (i + 1)
	}
	return n
}

// model is what the actor is to be.
type model struct {
	n    int
	bulk []byte
	kept [][2]int
}

func (m *model) clone() *model {
	return &model{m.n, slices.Clone(m.bulk), slices.Clone(m.kept)}
}

func main() { sdk.Main(run) }

func run(ctx context.Context) error {
	var arg [5]int
	for i := range arg {
		arg[i], _ = strconv.Atoi(os.Args[i+1])
	}
	rnd := rand.New(rand.NewPCG(uint64(arg[0]), 0))
	rounds, every, mib, others := arg[1], arg[2], arg[3], arg[4]
	early := states.With(sdk.MaxRestarts(-1)).New(ctx, mib)
	if err := early.Restart(); err != nil { // in its constructor, or before it
		return err
	}
	if _, err := add.Remote(ctx, early, 1).Get(ctx); err != nil {
		return fmt.Errorf("after a restart in the constructor: %w", err)
	}
	a := states.With(sdk.MaxRestarts(-1), sdk.CheckpointEvery(every), sdk.Memory(256<<20)).New(ctx, mib)
	var crowd []sdk.Handle[state]
	for range others {
		crowd = append(crowd, states.New(ctx, 0))
	}
	now := &model{bulk: make([]byte, mib<<20)}
	for i := range now.bulk {
		now.bulk[i] = byte(i >> 12)
	}
	saved, unsaved := now.clone(), 0
	answered := func() {
		if unsaved++; unsaved == every {
			saved, unsaved = now.clone(), 0
		}
	}
	lost := 0
	for round := range rounds {
		switch n := rnd.IntN(20); {
		case n < 3:
			b := make([]byte, 200_000+rnd.IntN(300_000)) // from 256 KiB on it is mapped
			for i := range b {
				b[i] = byte(round + i)
			}
			r, err := sdk.Put(ctx, b)
			if err != nil {
				return err
			}
			if _, err := keep.Remote(ctx, a, []sdk.Ref[[]byte]{r}).Get(ctx); err != nil {
				return fmt.Errorf("round %d: keep: %w", round, err)
			}
			first := int(b[0])
			b[len(b)/2]++
			now.kept = append(now.kept, [2]int{first, sum(b)})
			if len(now.kept) > 3 {
				now.kept = now.kept[1:]
			}
			answered()
		case n < 5:
			v, err := read.Remote(ctx, a).Get(ctx)
			if err != nil {
				return fmt.Errorf("round %d: read: %w", round, err)
			}
			var want []int
			for _, k := range now.kept {
				want = append(want, k[:]...)
			}
			if !slices.Equal(v, want) {
				return fmt.Errorf("round %d: it keeps %v, want %v", round, v, want)
			}
			answered()
		case n < 6:
			_, err := spin.With(sdk.Timeout(10*time.Millisecond)).Remote(ctx, a, 1).Get(ctx)
			var e *wray.Error
			if !errors.Is(err, wray.ErrActorDied) || !errors.As(err, &e) || e.Lost != unsaved {
				return fmt.Errorf("round %d: spin: %v, want ActorDied with %d lost", round, err, unsaved)
			}
			lost += unsaved
			now, unsaved = saved.clone(), 0
		case n < 8:
			if err := a.Restart(); err != nil {
				return err
			}
			if unsaved > 0 {
				_, err := add.Remote(ctx, a, 1).Get(ctx)
				var e *wray.Error
				if !errors.Is(err, wray.ErrActorRestarted) || !errors.As(err, &e) || e.Lost != unsaved {
					return fmt.Errorf("round %d: after a restart: %v, want ActorRestarted with %d lost", round, err, unsaved)
				}
			}
			lost += unsaved
			now, unsaved = saved.clone(), 0
		case n < 10 && others > 0:
			for _, h := range crowd {
				if _, err := add.Remote(ctx, h, 1).Get(ctx); err != nil {
					return err
				}
			}
			// It may have slept meanwhile, and a sleep is a checkpoint.
			if err := a.Checkpoint(ctx); err != nil {
				return fmt.Errorf("round %d: checkpoint: %w", round, err)
			}
			saved, unsaved = now.clone(), 0
		default:
			by := 1 + rnd.IntN(9)
			v, err := add.Remote(ctx, a, by).Get(ctx)
			if err != nil {
				return fmt.Errorf("round %d: add: %w", round, err)
			}
			now.n += by
			if len(now.bulk) > 0 {
				now.bulk[now.n*4099%len(now.bulk)] += byte(by)
			}
			if want := []int{now.n, sum(now.bulk)}; !slices.Equal(v, want) {
				return fmt.Errorf("round %d: it says %v, want %v", round, v, want)
			}
			answered()
		}
	}
	fmt.Println("lost", lost)
	return nil
}
