package sandbox

import "time"

// clockStep is the finest step a guest's clocks take. Finer ones would let a
// guest time what its neighbours do to shared caches.
const clockStep = int64(time.Millisecond)

// clock reads the host's monotonic time in nanoseconds since the engine began.
type clock struct{ start time.Time }

func newClock() clock { return clock{start: time.Now()} }

func (c clock) now() int64 { return int64(time.Since(c.start)) }

// wallClock reads the time of day in nanoseconds since 1970.
func wallClock() int64 { return time.Now().UnixNano() / clockStep * clockStep }
