package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore/storetest"
	"github.com/wray-project/wray/tests/random/program"
)

// TestRandomProgramsOnThreeNodes runs the random programs on a worker that has
// room for one task at a time, so that most are lent to two others, and looks
// whether anything is left at any of the three.
func TestRandomProgramsOnThreeNodes(t *testing.T) {
	seed := seedOf(t)
	guest := compileGuest(t, "../../../tests/random/guest")
	for _, c := range []struct {
		name  string
		delay time.Duration
		n     int
		store int64
		args  []string // of the guest
	}{{"at once", 0, 20, 256 << 20, nil}, {"late", 3 * time.Millisecond, 10, 256 << 20, nil}, {"spilling", 0, 10, 2 << 20, nil},
		{"checkpoints", 0, 10, 256 << 20, []string{"checkpoints"}}} {
		t.Run(c.name, func(t *testing.T) {
			net := newTwin(t, guest.module)
			if c.delay > 0 {
				net.delay = randomDelay(seed, c.delay)
			}
			cfg := Config{StoreBytes: c.store, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
			join := func(name string) *twinEnd {
				cfg.Disk = storetest.NewMemDisk(1 << 30)
				return net.join(name, cfg)
			}
			a := join("a")
			cfg.Capacity.CPU = 3 * wray.OneCPU
			b, d := join("b"), join("c")
			rng := rand.New(rand.NewPCG(seed, 1))
			start := func() *player {
				p := play(t, a.w, guest, c.args...)
				p.alsoLeft = func() error { return errors.Join(a.leftAt(1), b.leftAt(1), d.leftAt(1)) }
				return p
			}
			p := start()
			for i := range c.n * *programTimes {
				ops := program.Generate(rng, 20+rng.IntN(100), len(c.args) > 0)
				err := p.run(ops, hung)
				if err == nil {
					continue
				}
				if stopped := p.stop(); !errors.Is(stopped, errStuck) {
					ops, err = shrink(ops, err, func(less []program.Op, patience time.Duration) error {
						q := start()
						return errors.Join(q.run(less, patience), q.stop())
					})
				}
				least := ""
				for _, o := range ops {
					b, _ := json.Marshal(o)
					least += "\n" + string(b)
				}
				t.Fatalf("program %d: %v\nthe least that fails:%s", i, err, least)
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			lent := b.w.Stats().Tasks.Submitted + d.w.Stats().Tasks.Submitted
			t.Logf("tasks: %d in all, %d at peers", a.w.Stats().Tasks.Submitted, lent)
			if lent == 0 {
				t.Error("nothing was lent")
			}
			for _, e := range []*twinEnd{a, b, d} {
				awaitNothing(t, e)
			}
			net.close()
		})
	}
}

// awaitNothing waits until nothing is left at a worker whose jobs have ended.
func awaitNothing(t *testing.T, e *twinEnd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hungSmall)
	defer cancel()
	for {
		err := e.leftAt(0)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestRandomProgramsWithKills does so while nodes are killed and others come. A
// program that has lost nothing gives what the model says: what ran on a node
// that died ran again elsewhere, and what it kept was made again. One that has
// lost an object that a dead worker owned is told so.
func TestRandomProgramsWithKills(t *testing.T) {
	seed := seedOf(t)
	guest := compileGuest(t, "../../../tests/random/guest")
	net := newTwin(t, guest.module)
	net.delay = randomDelay(seed, time.Millisecond)
	cfg := Config{StoreBytes: 256 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
	a := net.join("a", cfg)
	cfg.Capacity.CPU = 3 * wray.OneCPU
	var mu sync.Mutex
	others := []*twinEnd{net.join("b0", cfg), net.join("c0", cfg)} // guarded by mu
	rng := rand.New(rand.NewPCG(seed, 1))
	p := play(t, a.w, guest)
	p.alsoLeft = func() error {
		mu.Lock()
		defer mu.Unlock()
		return errors.Join(a.leftAt(1), others[0].leftAt(1), others[1].leftAt(1))
	}
	kills, exact, lost, lostAs := 0, 0, 0, map[string]int{}
	p.check = func(want, got []program.Outcome) error {
		err := program.Check(want, got)
		if err == nil {
			exact++
			return nil
		}
		// Freed values are lost without any kill.
		for i, o := range got {
			for _, code := range []string{"OwnerDied", "ObjectLost", "WorkerDied"} {
				if o.Got == program.Failed(code) && (i >= len(want) || want[i].Got != o.Got && want[i].Or != o.Got) {
					lost++
					lostAs[code]++
					return nil
				}
			}
		}
		return err
	}
	for i := range 25 * *programTimes {
		ops := program.Generate(rng, 20+rng.IntN(100), false)
		// At a message of this program one of the two dies, and another comes; or it
		// is not reached for a moment.
		which, after, cut := rng.IntN(2), 1+rng.IntN(12), rng.IntN(4) == 0
		due, stop := make(chan struct{}), make(chan struct{})
		net.mu.Lock()
		from := net.sent
		net.when = func(n int) {
			if n == from+after {
				close(due)
			}
		}
		net.mu.Unlock()
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			select {
			case <-due:
			case <-stop:
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if cut {
				net.cut(a, others[which], true)
				net.cut(a, others[which], false)
				return
			}
			kills++
			net.kill(others[which])
			others[which] = net.join(fmt.Sprint("n", i), cfg)
		}()
		err := p.run(ops, hung)
		close(stop)
		<-killed
		net.mu.Lock()
		net.when = nil
		net.mu.Unlock()
		if err != nil {
			t.Fatalf("program %d: %v", i, err)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes killed, %d attempts made again; %d programs gave what the model says, %d have lost an object: %v",
		kills, a.w.Stats().Tasks.Retried, exact, lost, lostAs)
	if exact == 0 || kills == 0 {
		t.Error("every program has lost something, or no node died")
	}
	for _, e := range append(others, a) {
		awaitNothing(t, e)
	}
	net.close()
}
