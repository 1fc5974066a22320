package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/tests/hostile"
)

const (
	caseKill50  = "hostile guest's end after its deadline, p50"
	caseKill99  = "hostile guest's end after its deadline, p99"
	caseKillMax = "hostile guest's end after its deadline, worst"
	casePauses  = "host's stop-the-world pause beside hostile guests, p99"
)

const (
	killAfter = 20 * time.Millisecond // the guests' deadline
	// killTarget is what is told by name, in milliseconds: a guest is to be
	// stopped sooner.
	killTarget = 20
	gcEvery    = 5 * time.Millisecond // how often the host collects
)

// kills runs hostile guests on every processor: how late they end, and how
// long they keep the host from stopping the world. A guest that takes no part
// in the meter would keep it for ever.
func kills(ctx context.Context, c *Config) error {
	late := c.wants(caseKill50, caseKill99, caseKillMax)
	if !late && !c.wants(casePauses) {
		return nil
	}
	e, err := newEngine(ctx)
	if err != nil {
		return err
	}
	defer e.Close(ctx)
	// Guests that speak wray_v1 run in jobs of a worker.
	w, err := worker.New(ctx, worker.Config{Node: "bench", StoreBytes: 2 << 30,
		Capacity: wray.Resources{CPU: wray.CPU(runtime.NumCPU()) * wray.OneCPU, Memory: 4 << 30}})
	if err != nil {
		return err
	}
	defer w.Close(context.WithoutCancel(ctx))
	var guests []adversary
	for _, h := range hostile.Cases() {
		if h.Stage != hostile.Run || h.Want != wray.CodeTimeout {
			continue
		}
		a, err := sandbox.Rewrite(h.Wasm(), sandbox.CompileOptions{})
		if err != nil {
			if a, err = sandbox.Rewrite(h.Wasm(), sandbox.CompileOptions{Modules: []sandbox.HostModule{worker.HostModule()}}); err == nil {
				guests = append(guests, adversary{h.Name, jobOf(ctx, w, h.Name, a)})
			}
			continue // or the passes refuse it
		}
		if a.Meta.StartExport != "" {
			continue // it never gets as far as a call
		}
		m, err := prepare(ctx, e, a)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		guests = append(guests, adversary{h.Name, commandOf(m, h.Name)})
	}
	if late {
		var p50, p99, worst []float64
		for range c.Rounds {
			ms, last, err := attack(guests)
			if err != nil {
				return err
			}
			if late := quantile(ms, 1); late > killTarget {
				c.Note(fmt.Sprintf("%s ended %.0f ms after its deadline", last, late))
			}
			p50, p99 = append(p50, quantile(ms, 0.5)), append(p99, quantile(ms, 0.99))
			worst = append(worst, quantile(ms, 1))
		}
		if err := errors.Join(c.emit(caseKill50, "ms", p50), c.emit(caseKill99, "ms", p99), c.emit(caseKillMax, "ms", worst)); err != nil {
			return err
		}
	}
	if !c.wants(casePauses) {
		return nil
	}
	var pauses []float64
	for range c.Rounds {
		before := readPauses()
		stop := collect()
		_, _, err := attack(guests)
		stop()
		if err != nil {
			return err
		}
		pauses = append(pauses, pauseQuantile(before, readPauses(), 0.99)*1000)
	}
	return c.emit(casePauses, "ms", pauses)
}

// adversary is a hostile module. run reports by how much its guest outlived its
// deadline, and whether it was the deadline that ended it.
type adversary struct {
	name string
	run  func() (late time.Duration, ended bool, err error)
}

// attack runs each guest once with a deadline, as many at once as there are
// processors, and returns by how many milliseconds each was late, and which
// was the last.
func attack(guests []adversary) (ms []float64, last string, err error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range runtime.NumCPU() {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(guests) {
					return
				}
				late, ended, aerr := guests[i].run()
				mu.Lock()
				if aerr != nil && err == nil {
					err = aerr
				}
				if ended {
					x := float64(late) / float64(time.Millisecond)
					if len(ms) == 0 || x > slices.Max(ms) {
						last = guests[i].name
					}
					ms = append(ms, x)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err == nil && len(ms) == 0 {
		err = errors.New("no hostile guest reached its deadline")
	}
	return ms, last, err
}

// commandOf runs a command in a sandbox.
func commandOf(m *sandbox.Module, name string) func() (time.Duration, bool, error) {
	return func() (time.Duration, bool, error) {
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			return 0, false, fmt.Errorf("%s: %w", name, err)
		}
		defer sb.Close()
		if err := sb.Configure(&wasi.Config{Args: []string{name}, Stdout: discard, Stderr: discard}); err != nil {
			return 0, false, err
		}
		begin := time.Now()
		sb.SetDeadline(killAfter)
		_, err = sb.Start()
		// It may have been refused memory instead.
		return time.Since(begin) - killAfter, errors.Is(err, wray.ErrTimeout), nil
	}
}

// jobOf runs a driver in a job. What the job leaves behind is cleaned up before
// the next begins, and is no part of how late the guest was.
func jobOf(ctx context.Context, w *worker.Worker, name string, a *sandbox.Artifact) func() (time.Duration, bool, error) {
	return func() (time.Duration, bool, error) {
		var begin, end time.Time
		_, err := w.Run(ctx, worker.JobSpec{Name: name, Modules: []worker.ModuleSpec{{Name: name, Artifact: a}},
			Limits: worker.Limits{Timeout: killAfter}, Began: func() { begin = time.Now() }, Ended: func() { end = time.Now() }})
		return end.Sub(begin) - killAfter, errors.Is(err, wray.ErrTimeout) && !end.IsZero(), nil
	}
}

// collect forces collections until the returned function is called.
func collect() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(gcEvery)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				runtime.GC()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// readPauses returns the runtime's histogram of pauses for collections, from
// the request to the restart of the world.
func readPauses() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64Histogram()
}

// pauseQuantile returns the upper bound, in seconds, of the bucket that holds
// the quantile of what was added between two readings.
func pauseQuantile(before, after *metrics.Float64Histogram, q float64) float64 {
	var total, seen uint64
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	for i := range after.Counts {
		seen += after.Counts[i] - before.Counts[i]
		if total > 0 && float64(seen) >= q*float64(total) {
			return after.Buckets[i+1]
		}
	}
	return 0
}
