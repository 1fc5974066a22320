package worker

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// TestLongQueueHoldsUpNobody has very many tasks of one job wait for one object,
// which fails, and then as many end with their job. Whoever needs the worker
// meanwhile, as another job of the tenant does for each step, gets it soon.
// Done at once, each of the two held the lock for some half a second. What a
// busy machine adds is not the worker's: the best of some tries counts.
func TestLongQueueHoldsUpNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it makes 800,000 tasks")
	}
	const tries = 6
	failed, ended := time.Hour, time.Hour
	for try := 0; try < tries && max(failed, ended) > longestHold; try++ {
		f, e := queueLong(t)
		failed, ended = min(failed, f), min(ended, e)
	}
	if max(failed, ended) > longestHold {
		t.Errorf("in %d tries others waited at least %v while an object failed, %v while a job ended; want at most %v", tries, failed, ended, longestHold)
	}
}

// longestHold: the aim is 10 ms; the rest is for a machine that is busy with
// other tests.
const longestHold = 150 * time.Millisecond

// queueLong returns the longest that another had to wait while an object failed,
// and while a job ended.
func queueLong(t *testing.T) (failed, ended time.Duration) {
	many := 400_000
	if raceDetector { // all takes some ten times as long
		many = 40_000
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // so does the collector, beside
	}
	h := newJobs(t, tinyGuest())
	g, stop := h.start(t)
	w, j := h.w, g.job
	n, e := j.lookup("", "f")
	if e != abi.Success {
		t.Fatal(e)
	}
	o, err := w.store.Declare(w.newID())
	if err != nil {
		t.Fatal(err)
	}
	queue := func(args func() []arg) {
		for range many {
			k := &task{id: w.newID(), job: j, fn: j.function(n), name: "f", args: args(), resources: wray.Resources{CPU: 2 * wray.OneCPU}}
			r, err := w.store.Declare(resultID(k.id, 0))
			if err != nil {
				t.Fatal(err)
			}
			k.results = []*objectstore.Object{r}
			spec := scheduler.Spec{ID: k.id, Job: j.id, Name: k.name, Resources: wray.Resources{CPU: wray.OneCPU}, Results: []wray.ID{r.ID()}}
			if err := w.submit(g, k, &spec); err != nil {
				t.Fatal(err)
			}
		}
	}
	// longest does something and returns the longest that another had to wait
	// for the worker until it was through.
	longest := func(what func(), through func() bool) time.Duration {
		ended := make(chan bool)
		go func() { what(); close(ended) }()
		var wait time.Duration
		for done := false; !done; {
			select {
			case <-ended:
				done = through()
			default:
			}
			began := time.Now()
			w.mu.Lock()
			held := time.Since(began)
			w.mu.Unlock()
			wait = max(wait, held)
			time.Sleep(100 * time.Microsecond) // there is no event for a lock
		}
		return wait
	}
	tasks := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.tasks.n
	}
	g.holder = nil
	queue(func() []arg { o.Retain(); return []arg{{object: o}} })
	failed = longest(func() { _ = o.Fail(wray.Errorf(wray.CodeObjectLost, "gone")) }, func() bool { return tasks() == 0 })
	t.Logf("an object that %d tasks waited for failed: others waited up to %v", many, failed)
	o.Release()

	if o, err = w.store.Declare(w.newID()); err != nil {
		t.Fatal(err)
	}
	queue(func() []arg { o.Retain(); return []arg{{object: o}} })
	var left error
	ended = longest(func() { left = stop() }, func() bool { return true })
	t.Logf("a job with %d tasks ended: others waited up to %v", many, ended)
	o.Release()
	if left != nil {
		t.Log(left) // the object, which the test has held
	}
	return failed, ended
}
