package rewrite

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the processor time of the calling thread, so that other
// processes do not disturb a measurement.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(ts.Nano())
}
