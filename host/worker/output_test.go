package worker

import (
	"testing"
	"time"
)

// TestLogBucket holds that a bucket gives its burst at once, then its rate, and
// never more than its burst however long nothing was printed.
func TestLogBucket(t *testing.T) {
	const rate = 1000
	var b logBucket
	now := int64(5 * time.Second)
	if d := b.take(now, rate, logBurst*rate); d != 0 {
		t.Errorf("the burst waits %v", d)
	}
	if d := b.take(now, rate, 500); d != 500*time.Millisecond {
		t.Errorf("half a second's worth beyond the burst waits %v", d)
	}
	now += int64(time.Second)
	if d := b.take(now, rate, 500); d != 0 {
		t.Errorf("a second later the same waits %v", d)
	}
	now += int64(1000 * time.Hour)
	if d := b.take(now, rate, logBurst*rate+1); d != time.Millisecond {
		t.Errorf("one byte more than the burst, after a rest, waits %v", d)
	}
	now += int64(time.Hour)
	if d := b.take(now, rate, 4<<20); d < 4190*time.Second || d > 4191*time.Second {
		t.Errorf("4 MiB wait %v", d)
	}
}
