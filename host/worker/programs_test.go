package worker

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/objectstore/storetest"
	"github.com/wray-project/wray/tests/random/program"
)

var programSeed = flag.Uint64("programs.seed", 0, "seed of the random programs; 0: another each time")

var programTimes = flag.Int("programs.times", 1, "how many times as many random programs")

// seedOf returns the seed of a test that draws what it does, and says how to have
// it again. Such tests build a guest first.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	seed := *programSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d; again with: go test ./host/worker -run %s -programs.seed %d", seed, t.Name(), seed)
	return seed
}

// TestRandomPrograms runs random programs of tasks, actors, values, nested
// references, cancels and kills, each against a model in memory, and looks
// whether anything is left of them.
func TestRandomPrograms(t *testing.T) {
	seed := seedOf(t)
	guest := compileGuest(t, "../../../tests/random/guest")
	disk := storetest.NewMemDisk(1 << 30)
	for _, c := range []struct {
		name     string
		cfg      Config
		programs int
		args     []string // of the guest
	}{
		{"plain", Config{StoreBytes: 256 << 20}, 25, nil},
		{"few residents", Config{StoreBytes: 256 << 20, Residents: 2}, 15, nil},
		{"spilling", Config{StoreBytes: 2 << 20, Disk: storetest.NewMemDisk(1 << 30)}, 15, nil},
		{"states on disk", Config{StoreBytes: 256 << 20, Residents: 2, States: 1, Disk: disk}, 15, []string{"checkpoints"}},
		{"checkpoints", Config{StoreBytes: 256 << 20}, 15, []string{"checkpoints"}},
		{"all", Config{StoreBytes: 4 << 20, Residents: 2, States: 8 << 10, Disk: disk}, 10, []string{"checkpoints"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			c.cfg.Slots = 2
			c.cfg.Capacity = wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}
			c.cfg.CacheDir = guest.cache
			c.cfg.Drain = hung // a policy that is given up promises nothing
			w, err := New(ctx, c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(seed, 1))
			p := play(t, w, guest, c.args...)
			over, asked := make(chan struct{}), make(chan error, 1)
			go func() { asked <- askAllTheWhile(w, over) }()
			for i := range c.programs * *programTimes {
				ops := program.Generate(rng, 20+rng.IntN(100), len(c.args) > 0)
				err := p.run(ops, hung)
				if err == nil {
					continue
				}
				if stopped := p.stop(); !errors.Is(stopped, errStuck) {
					ops, err = shrink(ops, err, func(less []program.Op, patience time.Duration) error {
						q := play(t, w, guest, c.args...)
						return errors.Join(q.run(less, patience), q.stop())
					})
				}
				least := ""
				for _, o := range ops {
					b, _ := json.Marshal(o)
					least += "\n" + string(b)
				}
				t.Fatalf("program %d: %v\nthe least that fails:%s", i, err, least) // the worker may be beyond closing
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			close(over)
			if err := <-asked; err != nil {
				t.Error(err)
			}
			if s := w.Stats(); s.Store.Objects != 0 || s.Store.Used != 0 || s.Store.Windows != 0 || s.Resident != 0 || s.Asleep != 0 {
				t.Errorf("left behind by the job: %+v", s)
			}
			if err := w.Close(ctx); err != nil {
				t.Error(err)
			}
			if n := disk.Used(); n != 0 {
				t.Errorf("%d bytes are left on the disk", n)
			}
		})
	}
}

// TestForgottenActors holds that two actors which have called each other and are
// forgotten by all go when they sleep, though neither calls nor a store without
// room have them collect their garbage.
func TestForgottenActors(t *testing.T) {
	seedOf(t) // for -short
	guest := compileGuest(t, "../../../tests/random/guest")
	ctx := context.Background()
	w, err := New(ctx, Config{Slots: 2, StoreBytes: 256 << 20, Residents: 1, CacheDir: guest.cache,
		Capacity: wray.Resources{CPU: wray.CPUs(2), Memory: 2 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	p := play(t, w, guest)
	p.roomy = true
	for range 20 {
		err := p.run([]program.Op{
			{Kind: program.Actor, Out: 0, Key: 1}, {Kind: program.Actor, Out: 1, Key: 2},
			{Kind: program.Relay, Out: 2, A: 0, B: 1}, {Kind: program.Relay, Out: 3, A: 1, B: 0},
			{Kind: program.Get, A: 2}, {Kind: program.Get, A: 3},
			// Two more, for which those have to sleep.
			{Kind: program.Actor, Out: 4, Key: 3}, {Kind: program.Actor, Out: 5, Key: 4}, {Kind: program.Put, Out: 6},
			{Kind: program.Call, Out: 7, A: 4, B: 6}, {Kind: program.Call, Out: 8, A: 5, B: 6},
			{Kind: program.Get, A: 7}, {Kind: program.Get, A: 8},
		}, 40*time.Second)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

// askAllTheWhile asks what waits until the programs are over. Whoever asks has no
// part in what they do.
func askAllTheWhile(w *Worker, over <-chan struct{}) error {
	often := time.NewTicker(time.Millisecond)
	defer often.Stop()
	for {
		select {
		case <-over:
			b, err := w.Explain(clientwire.ExplainBody{})
			if x := &b.Explained; err == nil && (len(x.Tasks) > 0 || len(x.Actors) > 0 || x.More > 0 || x.MoreCalls > 0) {
				err = fmt.Errorf("after its end something waits: %+v", x)
			}
			return err
		case <-often.C:
			if _, err := w.Explain(clientwire.ExplainBody{}); err != nil {
				return err
			}
		}
	}
}

// Bounds of the search for a smaller program.
const (
	maxShrinks    = 150
	maxShrinkTime = 45 * time.Second
)

// shrink returns a part of a program that fails, of which no smaller part
// that was tried does, and how it fails.
func shrink(ops []program.Op, err error, fails func([]program.Op, time.Duration) error) ([]program.Op, error) {
	tries, begun := 0, time.Now()
	for size := len(ops) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(ops) && tries < maxShrinks && time.Since(begun) < maxShrinkTime; tries++ {
			less := append(append([]program.Op{}, ops[:at]...), ops[at+size:]...)
			e := fails(less, hungSmall)
			switch {
			case errors.Is(e, errStuck):
				return less, e
			case e != nil:
				ops, err = less, e
			default:
				at += size
			}
		}
	}
	return ops, err
}
