package scheduler

import (
	"math/rand/v2"
	"testing"

	"github.com/wray-project/wray"
)

// TestSlices ends a job with many tasks, and lets an object be there that many
// wait for. No batch decides more than its slice, and a task of another job
// starts in the next.
func TestSlices(t *testing.T) {
	const many, slice = 5000, 100
	for _, tc := range []struct {
		name  string
		deps  bool
		event func(s *Scheduler, job, object wray.ID)
	}{
		{"end of a job", false, func(s *Scheduler, job, _ wray.ID) { s.EndJob(1, job) }},
		{"end of a job that waits", true, func(s *Scheduler, job, _ wray.ID) { s.EndJob(1, job) }},
		{"object ready", true, func(s *Scheduler, _, object wray.ID) { s.ObjectReady(1, object) }},
		{"object failed", true, func(s *Scheduler, _, object wray.ID) {
			s.ObjectFailed(1, object, &wray.Error{Code: wray.CodeObjectLost})
		}},
		{"a parent is canceled", false, func(s *Scheduler, _, _ wray.ID) { s.Cancel(1, wray.ID{Owner: 1, Seq: 1}, true) }},
		{"a parent fails", false, func(s *Scheduler, _, _ wray.ID) {
			s.Finished(1, wray.ID{Owner: 1, Seq: 1}, 1, Outcome{Err: &wray.Error{Code: wray.CodeTrap}})
		}},
		{"a parent ends well", false, func(s *Scheduler, _, _ wray.ID) { s.Finished(1, wray.ID{Owner: 1, Seq: 1}, 1, Outcome{}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := New(Config{Capacity: wray.Resources{CPU: 2 * wray.OneCPU, Memory: 1}, Slice: slice})
			if err != nil {
				t.Fatal(err)
			}
			job, other, object := wray.ID{Owner: 2, Seq: 1}, wray.ID{Owner: 2, Seq: 2}, wray.ID{Owner: 3, Seq: 1}
			must := func(err error) {
				if err != nil {
					t.Helper()
					t.Fatal(err)
				}
			}
			must(s.AddJob(0, job))
			must(s.AddJob(0, other))
			spec := Spec{ID: wray.ID{Owner: 1, Seq: 1}, Job: job, Resources: wray.Resources{CPU: 2 * wray.OneCPU}}
			must(s.Submit(0, &spec))
			s.Ready(nil) // it runs, and holds all there is
			for i := range many {
				child := Spec{ID: wray.ID{Owner: 1, Seq: uint64(10 + i)}, Job: job, Parent: spec.ID, ParentAttempt: 1, Resources: wray.Resources{CPU: wray.OneCPU}}
				if tc.deps {
					child.Deps = []wray.ID{object}
				}
				must(s.Submit(0, &child))
			}
			s.Ready(nil)
			tc.event(s, job, object)
			must(s.check())
			if n := len(s.Ready(nil)); n > slice+3 {
				t.Errorf("the event led to %d decisions", n)
			}
			ran := false
			must(s.Submit(1, &Spec{ID: wray.ID{Owner: 4, Seq: 1}, Job: other}))
			for rounds := 0; ; rounds++ {
				must(s.check())
				out := s.Ready(nil)
				starts, dones := 0, 0
				for _, d := range out {
					switch d.Kind {
					case Start:
						starts++
						ran = ran || d.Job == other
					case Done:
						dones++
					}
				}
				if !ran {
					t.Fatalf("the other job's task did not start in the first batch")
				}
				if len(out) > slice+3 {
					t.Fatalf("a batch of %d decisions", len(out))
				}
				at, ok := s.NextDeadline()
				if !ok || at > 1 {
					break
				}
				if rounds > many {
					t.Fatal("there is no end to it")
				}
				s.Tick(1)
			}
			if s.behind() {
				t.Error("work is left and no Tick asked for")
			}
		})
	}
}

// TestSlicesRandom has all that may be sliced happen at random with slices of a
// few units, so that events come in the middle of it. The invariants hold after
// each, no task of a job that has ended starts, each is done once, and nothing
// is left.
func TestSlicesRandom(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range uint64(40) {
		slicesRandom(t, seed+i)
		if t.Failed() {
			t.Fatalf("rerun: go test ./scheduler -run TestSlicesRandom -seed=%d", seed+i)
		}
	}
}

func slicesRandom(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	s, err := New(Config{Capacity: wray.Resources{CPU: 3 * wray.OneCPU, Memory: 100}, Slice: 1 + r.IntN(4), MaxQueuedTasks: 200})
	if err != nil {
		t.Fatal(err)
	}
	var (
		now     int64
		seq     uint64
		jobs    []wray.ID
		ended   = map[wray.ID]bool{}
		begun   = map[wray.ID]int{}       // attempts under way
		order   []wray.ID                 // of those, for choosing
		blocked = map[wray.ID]bool{}      // of those
		results = map[wray.ID][]wray.ID{} // of tasks that are not done
		all     []wray.ID                 // tasks submitted
		missing = map[wray.ID]bool{}      // objects that are not there
		done    = map[wray.ID]int{}
	)
	id := func(owner uint64) wray.ID { seq++; return wray.ID{Owner: owner, Seq: seq} }
	check := func(event string) {
		if err := s.check(); err != nil {
			t.Fatalf("seed %d, after %s: %v", seed, event, err)
		}
	}
	over := func(task wray.ID) {
		delete(begun, task)
		delete(blocked, task)
		for i := range order {
			if order[i] == task {
				order = append(order[:i], order[i+1:]...)
				break
			}
		}
	}
	ready := func() {
		for _, d := range s.Ready(nil) {
			switch d.Kind {
			case Start:
				if ended[d.Job] {
					t.Fatalf("seed %d: %v of a job that has ended starts", seed, d.Task)
				}
				if done[d.Task] > 0 {
					t.Fatalf("seed %d: %v starts and is done", seed, d.Task)
				}
				begun[d.Task] = d.Attempt
				order = append(order, d.Task)
			case Done:
				if done[d.Task]++; done[d.Task] > 1 || begun[d.Task] != 0 {
					t.Fatalf("seed %d: %v is done twice, or runs", seed, d.Task)
				}
				for _, o := range results[d.Task] {
					delete(missing, o)
				}
			}
		}
	}
	finish := func(o Outcome) {
		task := order[r.IntN(len(order))]
		attempt := begun[task]
		over(task)
		s.Finished(now, task, attempt, o)
	}
	anyOf := func(set map[wray.ID]bool) (wray.ID, bool) {
		var best wray.ID // the order of a map must not decide
		n := uint64(1 + r.IntN(int(seq)+1))
		for o := range set {
			if best.IsZero() || (o.Seq^n) < (best.Seq^n) {
				best = o
			}
		}
		return best, !best.IsZero()
	}
	for range 3000 {
		event := "nothing"
		switch k := r.IntN(24); {
		case len(jobs) < 2 || k == 0 && len(jobs) < 4:
			event = "a job"
			jobs = append(jobs, id(1))
			if err := s.AddJob(now, jobs[len(jobs)-1]); err != nil {
				t.Fatal(err)
			}
		case k < 12:
			event = "a submission"
			p := Spec{ID: id(2), Job: jobs[r.IntN(len(jobs))], Resources: wray.Resources{CPU: wray.OneCPU, Memory: int64(r.IntN(2))}, Retries: r.IntN(3)}
			for range r.IntN(3) {
				p.Results = append(p.Results, id(3))
			}
			for range r.IntN(3) {
				if o, ok := anyOf(missing); ok && r.IntN(4) > 0 {
					p.Deps = append(p.Deps, o)
				} else {
					o := wray.ID{Owner: 9, Seq: uint64(1 + r.IntN(3))}
					missing[o] = true
					p.Deps = append(p.Deps, o)
				}
			}
			if len(order) > 0 && r.IntN(4) > 0 {
				p.Parent = order[r.IntN(len(order))]
				p.ParentAttempt = begun[p.Parent]
				if q := s.tasks.get(p.Parent); q != nil {
					p.Job = q.job.id
				}
			}
			if s.Submit(now, &p) == nil {
				all = append(all, p.ID)
				results[p.ID] = p.Results
				for _, o := range p.Results {
					missing[o] = true
				}
			}
		case k < 15 && len(order) > 0:
			event = "an end"
			finish(Outcome{})
		case k < 17 && len(order) > 0:
			event = "a failure"
			finish(Outcome{Err: &wray.Error{Code: wray.CodeTrap}, Retryable: r.IntN(2) == 0})
		case k == 17 && len(all) > 0:
			event = "a cancel"
			s.Cancel(now, all[r.IntN(len(all))], r.IntN(2) == 0)
		case k == 18:
			if o, ok := anyOf(missing); ok && o.Owner == 9 {
				event = "an object"
				delete(missing, o)
				if r.IntN(2) == 0 {
					s.ObjectReady(now, o)
				} else {
					s.ObjectFailed(now, o, &wray.Error{Code: wray.CodeObjectLost})
				}
			}
		case k == 19 && len(jobs) > 1 && r.IntN(4) == 0:
			event = "the end of a job"
			i := r.IntN(len(jobs))
			ended[jobs[i]] = true
			s.EndJob(now, jobs[i])
			jobs = append(jobs[:i], jobs[i+1:]...)
		case k == 20 && len(order) > 0:
			task := order[r.IntN(len(order))]
			if o, ok := anyOf(missing); ok && !blocked[task] {
				event = "a wait"
				blocked[task] = true
				s.Blocked(now, task, begun[task], Wait{Objects: []wray.ID{o}})
			}
		case k == 21:
			event = "time"
			now += int64(r.IntN(30_000_000))
			s.Tick(now)
		default:
			event = "a tick"
			s.Tick(now)
		}
		check(event)
		if r.IntN(3) > 0 {
			ready()
			check("Ready")
		}
	}
	for _, j := range jobs {
		ended[j] = true
		s.EndJob(now, j)
	}
	for round := 0; len(s.jobs) > 0 || s.behind(); round++ {
		ready()
		for len(order) > 0 {
			finish(Outcome{})
		}
		if at, ok := s.NextDeadline(); ok {
			now = max(now, at)
			s.Tick(now)
		}
		check("the end")
		if round > 100_000 {
			t.Fatalf("seed %d: there is no end to it", seed)
		}
	}
	ready()
	if s.behind() || s.tasks.n != 0 || s.objects.n != 0 || len(s.timers) != 0 || s.free != s.config.Capacity {
		t.Fatalf("seed %d: left behind: %d tasks, %d objects, %d timers, free %v", seed, s.tasks.n, s.objects.n, len(s.timers), s.free)
	}
	for _, task := range all {
		if done[task] != 1 {
			t.Fatalf("seed %d: %v is done %d times", seed, task, done[task])
		}
	}
}
