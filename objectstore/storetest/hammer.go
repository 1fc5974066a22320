package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
)

// testHammer has goroutines do to one store what sandboxes do to it, in a
// space too small for all: put and drop late, pass objects to each other,
// race to seal, watch, wait for room and give up waiting.
func testHammer(t *testing.T, s Suite) {
	const workers = 6
	rounds := 600
	if testing.Short() {
		rounds = 150
	}
	st := s.open(t, func(c *objectstore.Config) {
		c.Capacity = 6 * mib
		c.MaxSegments = 24
	})
	mail := make(chan *objectstore.Object, 4*workers) // each with a reference
	var told, watched atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 99))
			var table objectstore.Handles
			var mine []uint32
			keep := func(o *objectstore.Object) {
				h, err := table.Add(o)
				if err != nil {
					t.Error(err)
				}
				mine = append(mine, h)
				if len(mine) > 8 {
					table.DropAll(mine)
					mine = mine[:0]
				}
			}
			var window *objectstore.Window
			unpin := func() {
				if window != nil {
					window.Unpin()
					window = nil
				}
			}
			for range rounds {
				seed := rng.Uint64()
				n := int(rng.Int64N(1 << rng.Int64N(20)))
				v := raw(pattern(seed, n))
				if len(mine) > 0 {
					o, _ := table.Object(mine[rng.IntN(len(mine))])
					v.Refs = append(v.Refs, o)
				}
				o, err := st.TryPut(newID(), v)
				if errors.Is(err, objectstore.ErrFull) {
					// Nobody waits holding what others wait for.
					table.Reset()
					mine, v.Refs = mine[:0], nil
					unpin()
					drain(mail)
					o, err = waitAndPut(st, v, rng)
				}
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					continue
				}
				wantBytes(t, "own object", o.Bytes(), pattern(seed, n))
				if w, err := o.Pin(); err == nil {
					unpin()
					window = w
				}
				o.Retain()
				select {
				case mail <- o:
				default:
					o.Release()
				}
				keep(o)

				// Two race to finish an object that a third watches.
				p, err := st.Declare(newID())
				if err != nil {
					t.Error(err)
					continue
				}
				watched.Add(1)
				p.Watch(objectstore.WatcherFunc(func(*objectstore.Object) { told.Add(1) }))
				p.Retain()
				var race sync.WaitGroup
				race.Go(func() {
					if err := p.Fail(wray.Errorf(wray.CodeTimeout, "slow")); err != nil && !errors.Is(err, objectstore.ErrSealed) {
						t.Error(err)
					}
					p.Release()
				})
				if err := p.TrySeal(raw([]byte("fast"))); err != nil &&
					!errors.Is(err, objectstore.ErrSealed) && !errors.Is(err, objectstore.ErrFull) {
					t.Error(err)
				}
				race.Wait()
				if err := p.Wait(context.Background()); err != nil {
					t.Error(err)
				}
				p.Release()

				select {
				case got := <-mail:
					if st.Lookup(got.ID()) != got {
						t.Error("an object in the mail is not found")
					} else {
						got.Release()
					}
					keep(got)
				default:
				}
				if rng.IntN(200) == 0 {
					st.Trim()
				}
			}
			unpin()
			table.Reset()
		})
	}
	wg.Wait()
	drain(mail)
	if told.Load() != watched.Load() {
		t.Errorf("%d of %d watches told", told.Load(), watched.Load())
	}
	if f := st.Stats(); f.Peak > f.Capacity+int64(workers)*4096 {
		t.Errorf("peak is over the capacity: %+v", f)
	}
}

// drain releases what is in the mail.
func drain(mail chan *objectstore.Object) {
	for {
		select {
		case o := <-mail:
			o.Release()
		default:
			return
		}
	}
}

// waitAndPut waits for room, or gives up at once: a queue that others leave
// must serve who stays.
func waitAndPut(st *objectstore.Store, v objectstore.Value, rng *rand.Rand) (*objectstore.Object, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if rng.IntN(3) == 0 {
		cancel()
	}
	r, err := st.WaitSpace(ctx, v.Size())
	if err != nil {
		return nil, err
	}
	return r.Put(newID(), v)
}
