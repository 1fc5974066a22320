package scheduler

import (
	"fmt"
	"testing"

	"github.com/wray-project/wray"
)

func benchScheduler(b *testing.B, jobs int) (*Scheduler, []wray.ID) {
	s, err := New(Config{Capacity: wray.Resources{CPU: 2 * wray.OneCPU, Memory: 1 << 30}})
	if err != nil {
		b.Fatal(err)
	}
	var ids []wray.ID
	for i := range jobs {
		id := wray.ID{Owner: 1, Seq: uint64(i + 1)}
		if err := s.AddJob(0, id); err != nil {
			b.Fatal(err)
		}
		ids = append(ids, id)
	}
	b.ReportAllocs()
	return s, ids
}

// BenchmarkSync is the life of one task with one result, alone: Submit, Start,
// Finished, Done.
func BenchmarkSync(b *testing.B) {
	s, jobs := benchScheduler(b, 1)
	results := make([]wray.ID, 1)
	var ready []Decision
	var now int64
	for b.Loop() {
		now += 1000
		id := wray.ID{Owner: 2, Seq: uint64(now)}
		results[0] = wray.ID{Owner: 3, Seq: uint64(now)}
		spec := Spec{ID: id, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}, Results: results}
		if err := s.Submit(now, &spec); err != nil {
			b.Fatal(err)
		}
		ready = s.Ready(ready[:0])
		if len(ready) != 1 || ready[0].Kind != Start {
			b.Fatalf("%+v", ready)
		}
		s.Finished(now, id, 1, Outcome{})
		ready = s.Ready(ready[:0])
		if len(ready) != 1 || ready[0].Kind != Done {
			b.Fatalf("%+v", ready)
		}
	}
}

// flow keeps depth tasks queued, of several jobs and shapes in turn, and
// measures the life of each.
func flow(b *testing.B, depth, njobs, shapes int) {
	s, jobs := benchScheduler(b, njobs)
	results := make([]wray.ID, 1)
	var ready []Decision
	var seq uint64
	submit := func() {
		seq++
		results[0] = wray.ID{Owner: 3, Seq: seq}
		spec := Spec{
			ID:        wray.ID{Owner: 2, Seq: seq},
			Job:       jobs[seq%uint64(njobs)],
			Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1<<20 + int64(seq%uint64(shapes))},
			Results:   results,
		}
		if err := s.Submit(int64(seq), &spec); err != nil {
			b.Fatal(err)
		}
	}
	for range depth {
		submit()
	}
	var started []wray.ID
	take := func() {
		ready = s.Ready(ready[:0])
		for _, d := range ready {
			if d.Kind == Start {
				started = append(started, d.Task)
			}
		}
	}
	take()
	for b.Loop() {
		submit()
		id := started[0]
		started = append(started[:0], started[1:]...)
		s.Finished(int64(seq), id, 1, Outcome{})
		take()
	}
}

func BenchmarkFlow(b *testing.B) {
	b.Run("queued=1000", func(b *testing.B) { flow(b, 1000, 1, 1) })
	b.Run("queued=900000", func(b *testing.B) { flow(b, 900_000, 1, 1) })
	b.Run("jobs=16", func(b *testing.B) { flow(b, 1000, 16, 1) })
	b.Run("shapes=16", func(b *testing.B) { flow(b, 1000, 1, 16) })
	b.Run("jobs=16,shapes=64", func(b *testing.B) { flow(b, 10_000, 16, 64) })
}

// BenchmarkNested is a task that submits a child, waits for it with its CPU
// given back, and goes on.
func BenchmarkNested(b *testing.B) {
	s, jobs := benchScheduler(b, 1)
	parent := wray.ID{Owner: 2, Seq: 1}
	if err := s.Submit(0, &Spec{ID: parent, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}}); err != nil {
		b.Fatal(err)
	}
	ready := s.Ready(nil)
	results := make([]wray.ID, 1)
	now := int64(1)
	for b.Loop() {
		now++
		id := wray.ID{Owner: 2, Seq: uint64(now)}
		results[0] = wray.ID{Owner: 3, Seq: uint64(now)}
		spec := Spec{ID: id, Job: jobs[0], Parent: parent, ParentAttempt: 1,
			Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}, Results: results}
		if err := s.Submit(now, &spec); err != nil {
			b.Fatal(err)
		}
		s.Blocked(now, parent, 1, Wait{Objects: results})
		ready = s.Ready(ready[:0])
		s.Finished(now, id, 1, Outcome{})
		s.Unblocked(now, parent, 1)
		ready = s.Ready(ready[:0])
		if len(ready) != 2 || ready[1].Kind != Resume {
			b.Fatalf("%+v", ready)
		}
	}
}

// BenchmarkDependent is a pair of tasks, the second of which needs the result
// of the first.
func BenchmarkDependent(b *testing.B) {
	s, jobs := benchScheduler(b, 1)
	result, none := make([]wray.ID, 1), []wray.ID(nil)
	var ready []Decision
	now := int64(1)
	for b.Loop() {
		now += 2
		first, second := wray.ID{Owner: 2, Seq: uint64(now)}, wray.ID{Owner: 2, Seq: uint64(now + 1)}
		result[0] = wray.ID{Owner: 3, Seq: uint64(now)}
		for i, spec := range []Spec{
			{ID: first, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU}, Results: result},
			{ID: second, Job: jobs[0], Resources: wray.Resources{CPU: wray.OneCPU}, Results: none, Deps: result},
		} {
			if err := s.Submit(now, &spec); err != nil {
				b.Fatal(i, err)
			}
		}
		ready = s.Ready(ready[:0])
		s.Finished(now, first, 1, Outcome{})
		ready = s.Ready(ready[:0])
		s.Finished(now, second, 1, Outcome{})
		ready = s.Ready(ready[:0])
		if len(ready) != 1 || ready[0].Task != second {
			b.Fatalf("%+v", ready)
		}
	}
}

// BenchmarkDeadlockSearch is one search through 100,000 queued tasks, which
// the machine makes at most once in so many microseconds.
func BenchmarkDeadlockSearch(b *testing.B) {
	s, jobs := benchScheduler(b, 1)
	parent := wray.ID{Owner: 2, Seq: 1}
	if err := s.Submit(0, &Spec{ID: parent, Job: jobs[0], Resources: wray.Resources{Memory: 1 << 30}}); err != nil {
		b.Fatal(err)
	}
	s.Ready(nil)
	for i := range uint64(100_000) {
		spec := Spec{ID: wray.ID{Owner: 2, Seq: i + 2}, Job: jobs[0], Resources: wray.Resources{Memory: 1 << 20},
			Results: []wray.ID{{Owner: 3, Seq: i + 2}}}
		if err := s.Submit(0, &spec); err != nil {
			b.Fatal(err)
		}
	}
	s.Blocked(0, parent, 1, Wait{Objects: []wray.ID{{Owner: 4, Seq: 1}}})
	s.Ready(nil)
	for b.Loop() {
		s.sweep()
		s.breakDeadlock()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/task")
}

// TestSteadyStateAllocatesNothing holds the promise of pool: a task with a
// result and a timeout, which blocks once.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if invariants {
		t.Skip("SKIP: under this build the checks allocate")
	}
	s, err := New(Config{Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1}})
	if err != nil {
		t.Fatal(err)
	}
	job, ids := wray.ID{Seq: 1}, []wray.ID{{Seq: 2}}
	if err := s.AddJob(0, job); err != nil {
		t.Fatal(err)
	}
	var ready []Decision
	n := testing.AllocsPerRun(1000, func() {
		for i := range ids {
			ids[i].Owner++
		}
		spec := Spec{ID: ids[0], Job: job, Resources: wray.Resources{CPU: wray.OneCPU, Memory: 1}, Results: ids, Timeout: 1}
		if err := s.Submit(0, &spec); err != nil {
			t.Fatal(err)
		}
		s.Ready(ready[:0])
		s.Blocked(0, ids[0], 1, Wait{Objects: ids})
		s.Unblocked(0, ids[0], 1)
		s.Ready(ready[:0])
		s.Finished(0, ids[0], 1, Outcome{})
		ready = s.Ready(ready[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations for a task", n)
	}
}

// BenchmarkDemands measures what a node tells of what waits, with so many tasks
// of 8 shapes.
func BenchmarkDemands(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := New(Config{Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 30}, MaxQueuedTasks: n + 1, MaxQueuedBytes: 1 << 50, Patience: 1 << 60})
			if err != nil {
				b.Fatal(err)
			}
			job := wray.ID{Owner: 1, Seq: 1}
			if err := s.AddJob(0, job); err != nil {
				b.Fatal(err)
			}
			for i := range n {
				spec := Spec{ID: wray.ID{Owner: 1, Seq: uint64(i + 2)}, Job: job, Resources: wray.Resources{CPU: wray.CPU(i%8+2) * wray.OneCPU}}
				if err := s.Submit(0, &spec); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if len(s.Demands(64)) != 8 {
					b.Fatal("other shapes")
				}
			}
		})
	}
}
