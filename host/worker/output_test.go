package worker

import (
	"sync"
	"testing"
	"time"
)

// fakePrinter prints as guests do: whoever finds no room waits until it is
// signaled, and asks again.
type fakePrinter chan struct{}

func (p fakePrinter) signal() {
	select {
	case p <- struct{}{}:
	default:
	}
}

// TestOutputFull has several guests print more than the queue takes: all of them
// come to their end, also those that others were faster than.
func TestOutputFull(t *testing.T) {
	var mu sync.Mutex
	read := map[string]int{}
	o := newOutput(func(task string, _ Stream, p []byte) {
		mu.Lock()
		defer mu.Unlock()
		read[task] += len(p)
	})
	const times, size = 20, 400 << 10
	var wg sync.WaitGroup
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		wg.Go(func() {
			p := make(fakePrinter, 1)
			text := make([]byte, size)
			for range times {
				for !o.room(p) {
					<-p
				}
				o.put(name, Stdout, text)
			}
		})
	}
	wg.Wait()
	o.close()
	for _, name := range names {
		if read[name] != times*size {
			t.Errorf("of %s %d bytes were read, want %d", name, read[name], times*size)
		}
	}
	if len(o.waiting) > 0 || o.bytes != 0 {
		t.Errorf("%d wait and %d bytes are left at the end", len(o.waiting), o.bytes)
	}
}

// TestOutputRoom holds that nobody is signaled before there is room.
func TestOutputRoom(t *testing.T) {
	next := make(chan struct{})
	o := newOutput(func(string, Stream, []byte) { <-next })
	p := make(fakePrinter, 1)
	for range 3 { // each is read alone
		o.put("a", Stdout, make([]byte, maxPrinted))
		o.put("b", Stdout, make([]byte, maxPrinted))
	}
	if o.room(p) {
		t.Fatal("a full queue has room")
	}
	next <- struct{}{}
	next <- struct{}{} // the first was counted by now, and four and a half are left
	select {
	case <-p:
		t.Error("signaled while the queue is full")
	default:
	}
	next <- struct{}{}
	next <- struct{}{}
	<-p
	if !o.room(p) {
		t.Error("signaled, and there is no room")
	}
	close(next)
	o.close()
}

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
