package worker

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/objectstore/storetest"
)

// stateOf returns a state with n bytes drawn by rnd, and itself as bytes.
func stateOf(t *testing.T, rnd *rand.Rand, n int) (*sandbox.State, []byte) {
	t.Helper()
	diff := make([]byte, n)
	for i := range diff {
		diff[i] = byte(rnd.Uint32())
	}
	b, err := cbor.Marshal(map[int]any{1: 1 << 16, 2: diff, 6: rnd.Int64()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sandbox.UnmarshalState(b)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = s.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	return s, b
}

// TestStash keeps, reads, shares and drops states at random, with a disk that
// is full now and then, and compares with a model. Now and then it looks
// whether memory and disk are bounded.
func TestStash(t *testing.T) {
	seed := rand.Uint64()
	if *programSeed != 0 {
		seed = *programSeed
	}
	t.Logf("seed %d; again with: go test ./host/worker -run TestStash -programs.seed %d", seed, seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const budget, most, slack = 64 << 10, 16 << 10, 32 << 10
	disk := storetest.NewMemDisk(1 << 30)
	var wg sync.WaitGroup
	s := newStash(disk, budget, new(collector), wg.Go)
	s.batch, s.slack, s.retry = most, slack, time.Millisecond
	type have struct {
		k    *kept
		want []byte
	}
	var all []have
	full := false
	for i := range 20_000 {
		switch op := rnd.IntN(100); {
		case op < 40 && len(all) < 400 || len(all) == 0:
			if err := s.admit(); err != nil {
				if full || s.failure != nil { // it is tried again in a moment
					break
				}
				t.Fatalf("step %d: %v", i, err)
			}
			state, want := stateOf(t, rnd, 1+rnd.IntN(3000))
			all = append(all, have{s.keep(state), want})
		case op < 45:
			h := all[rnd.IntN(len(all))]
			all = append(all, have{s.share(h.k), h.want})
		case op < 70:
			h := all[rnd.IntN(len(all))]
			state, err := s.get(h.k)
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if got, err := state.MarshalBinary(); err != nil || !bytes.Equal(got, h.want) {
				t.Fatalf("step %d: another state, %v", i, err)
			}
		case op < 98:
			at := rnd.IntN(len(all))
			s.drop(all[at].k)
			all[at] = all[len(all)-1]
			all = all[:len(all)-1]
		default:
			full = !full
			if limit := int64(1 << 30); full {
				disk.SetLimit(disk.Used())
			} else {
				disk.SetLimit(limit)
			}
		}
		if i%100 == 0 && !full {
			wg.Wait()
			s.mu.Lock()
			failed := s.failure != nil
			s.mu.Unlock()
			if memory, live := s.figures(); !failed && (memory > budget*3/2+4096 || disk.Used() > 2*live+slack+most) {
				t.Fatalf("step %d: %d bytes in memory, and %d on disk of which %d are of use", i, memory, disk.Used(), live)
			}
		}
	}
	for _, h := range all {
		s.drop(h.k)
	}
	wg.Wait()
	if memory, live := s.figures(); memory != 0 || live != 0 || disk.Used() != 0 || disk.Batches() != 0 {
		t.Errorf("left behind: %d bytes in memory, %d on disk, of which %d are of use, in %d batches", memory, disk.Used(), live, disk.Batches())
	}
}

// TestStashConcurrent is for the race detector: states are read and dropped
// while they are moved.
func TestStashConcurrent(t *testing.T) {
	disk := storetest.NewMemDisk(1 << 30)
	var wg, users sync.WaitGroup
	s := newStash(disk, 16<<10, new(collector), wg.Go)
	s.batch, s.slack = 4<<10, 8<<10
	for n := range uint64(4) {
		users.Go(func() {
			rnd := rand.New(rand.NewPCG(n, 7))
			for range 300 {
				var mine []*kept
				var want [][]byte
				for range 20 {
					if err := s.admit(); err != nil {
						t.Error(err)
						return
					}
					state, b := stateOf(t, rnd, 1+rnd.IntN(2000))
					mine, want = append(mine, s.keep(state)), append(want, b)
				}
				for i, k := range mine {
					state, err := s.get(k)
					if err != nil {
						t.Error(err)
						return
					}
					if got, _ := state.MarshalBinary(); !bytes.Equal(got, want[i]) {
						t.Error("another state")
					}
					s.drop(k)
				}
			}
		})
	}
	users.Wait()
	wg.Wait()
	if memory, live := s.figures(); memory != 0 || live != 0 || disk.Used() != 0 {
		t.Errorf("left behind: %d bytes in memory, %d on disk, of which %d are of use", memory, disk.Used(), live)
	}
}

// TestStashDamaged holds that a state which the disk does not give back as it
// was is not taken for one, whatever has become of it.
func TestStashDamaged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	disk := storetest.NewMemDisk(1 << 30)
	var wg sync.WaitGroup
	s := newStash(disk, 1, new(collector), wg.Go)
	state, _ := stateOf(t, rnd, 1000)
	k := s.keep(state)
	wg.Wait()
	for at := range 1000 {
		disk.Corrupt(func(p []byte, _ int64) { p[at] ^= 1 })
		if _, err := s.get(k); !errors.Is(err, errStateLost) {
			t.Fatalf("with byte %d changed: %v", at, err)
		}
	}
	disk.Corrupt(nil)
	if _, err := s.get(k); err != nil {
		t.Error(err)
	}
	s.drop(k)
	wg.Wait()
}
