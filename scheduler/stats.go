package scheduler

import (
	"math"
	"math/bits"

	"github.com/wray-project/wray"
)

// Stats is the account of a job, or of the tenant. Submitted is always the sum
// of Finished, Failed, Canceled, Waiting, Running, Blocked and Lent.
type Stats struct {
	// Counters of tasks, which only grow.
	Submitted uint64 // taken by Submit
	Finished  uint64 // done well
	Failed    uint64 // done with an error other than Canceled
	Canceled  uint64 // done with Canceled
	Retried   uint64 // attempts that failed and were followed by another
	Refused   uint64 // Submits answered ErrQueueFull
	Stale     uint64 // events about attempts that were over; of the tenant alone

	// Tasks now.
	Waiting int // for dependencies, resources or a retry
	Running int // started and not blocked, those waiting for Resume included
	Blocked int
	Lent    int // to other nodes

	Held        wray.Resources // by started tasks now
	Custom      []wray.Custom  // likewise, by name; those of which there is some
	CPUTime     int64          // nanoseconds of one core that started tasks held, waits excluded
	QueuedBytes int64          // Spec.Bytes of those Waiting
}

func (a *Stats) add(b *Stats) {
	a.Submitted += b.Submitted
	a.Finished += b.Finished
	a.Failed += b.Failed
	a.Canceled += b.Canceled
	a.Retried += b.Retried
	a.Refused += b.Refused
	a.Waiting += b.Waiting
	a.Running += b.Running
	a.Blocked += b.Blocked
	a.Lent += b.Lent
	a.Held = a.Held.Add(b.Held)
	a.Custom = addCustom(a.Custom, b.Custom)
	a.CPUTime = addSaturated(a.CPUTime, b.CPUTime)
	a.QueuedBytes += b.QueuedBytes
}

// Stats returns the tenant's account up to now: that of all its jobs, those
// that ended included.
func (s *Scheduler) Stats(now int64) Stats {
	s.at(now)
	all := s.past
	for _, j := range s.order {
		one := s.statsOf(j)
		all.add(&one)
	}
	all.Stale = s.stale
	return all
}

// JobStats returns a job's account up to now; false when it is not known.
func (s *Scheduler) JobStats(now int64, id wray.ID) (Stats, bool) {
	s.at(now)
	j := s.jobs[id]
	if j == nil {
		return Stats{}, false
	}
	return s.statsOf(j), true
}

func (s *Scheduler) statsOf(j *job) Stats {
	j.meterTo(s.now)
	return Stats{
		Submitted:   j.totals.submitted,
		Finished:    j.totals.finished,
		Failed:      j.totals.failed,
		Canceled:    j.totals.canceled,
		Retried:     j.totals.retried,
		Refused:     j.totals.refused,
		Waiting:     j.pending(),
		Running:     j.count[running] + j.count[resuming],
		Blocked:     j.count[blocked],
		Lent:        j.count[lent],
		Held:        j.held,
		Custom:      s.customHeld(j),
		CPUTime:     j.cpu.ns,
		QueuedBytes: j.bytes,
	}
}

// meter integrates an amount of CPU over time without rounding.
type meter struct {
	ns   int64  // nanoseconds of one core
	part uint64 // and ten-thousandths of one
}

// add counts cpu held for dt nanoseconds, neither negative. The product passes
// 64 bits after four hours of 64 cores, so it is computed in 128.
func (m *meter) add(cpu wray.CPU, dt int64) {
	hi, lo := bits.Mul64(uint64(cpu), uint64(dt))
	lo, carry := bits.Add64(lo, m.part, 0)
	hi += carry
	var ns uint64
	switch {
	case hi == 0:
		ns, m.part = lo/uint64(wray.OneCPU), lo%uint64(wray.OneCPU)
	case hi < uint64(wray.OneCPU):
		ns, m.part = bits.Div64(hi, lo, uint64(wray.OneCPU))
	default:
		ns = math.MaxInt64
	}
	m.ns = addSaturated(m.ns, int64(min(ns, math.MaxInt64)))
}

// addSaturated returns a + b, or the largest int64 where that is less. b is
// not negative.
func addSaturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
