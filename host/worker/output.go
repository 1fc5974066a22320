package worker

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray"
)

// output carries what a job's guests print to whoever reads it. Guests put
// lines into a queue, which a goroutine of the job's own empties in order. The
// reader may be slow, or a terminal that somebody has stopped: then the queue
// fills, and guests that print are parked, where they hold nothing and can be
// stopped.
type output struct {
	sink func(task string, s Stream, p []byte)
	wake chan struct{} // holds one token when there may be something to do
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	queue   []printed            // guarded by mu
	bytes   int                  // guarded by mu; in queue, and being read
	waiting map[printer]struct{} // guarded by mu; signaled, all of them, when there is room
	calls   []func()             // guarded by mu; called likewise, from the output's goroutine
	idle    []func()             // guarded by mu; called when all is read
	closing bool                 // guarded by mu

	slowed sync.Once // tells that a task prints faster than its rate
}

// printer is a guest, as one who waits for room.
type printer interface{ signal() }

// printed is what one guest printed of late.
type printed struct {
	task   string
	stream Stream
	data   []byte
}

const (
	maxQueuedOutput = 1 << 20   // bytes that wait for the reader, about
	maxPrinted      = 256 << 10 // bytes given to the reader at once
)

func newOutput(sink func(task string, s Stream, p []byte)) *output {
	o := &output{sink: sink, wake: make(chan struct{}, 1), done: make(chan struct{}), waiting: map[printer]struct{}{}}
	go o.pump()
	return o
}

// close waits until everything is read. Nobody prints any more.
func (o *output) close() {
	o.mu.Lock()
	o.closing = true
	o.mu.Unlock()
	o.poke()
	<-o.done
}

func (o *output) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// room reports whether the queue takes more now. Where it does not, p is signaled
// when it does, and asks again: others may have been faster.
func (o *output) room(p printer) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes < maxQueuedOutput {
		return true
	}
	o.waiting[p] = struct{}{}
	return false
}

// whenRoom calls f, once, when the queue takes more: at once where it does now.
func (o *output) whenRoom(f func()) {
	o.mu.Lock()
	full := o.bytes >= maxQueuedOutput
	if full {
		o.calls = append(o.calls, f)
	}
	o.mu.Unlock()
	if !full {
		f()
	}
}

// whenRead calls f, once, when the reader has all that was put: at once where it
// has now.
func (o *output) whenRead(f func()) {
	o.mu.Lock()
	all := o.bytes == 0
	if !all {
		o.idle = append(o.idle, f)
	}
	o.mu.Unlock()
	if all {
		f()
	}
}

// put copies p to the end of the queue, whatever its length.
func (o *output) put(task string, s Stream, p []byte) {
	o.mu.Lock()
	o.bytes += len(p)
	if n := len(o.queue); n > 0 && o.queue[n-1].task == task && o.queue[n-1].stream == s && len(o.queue[n-1].data)+len(p) <= maxPrinted {
		o.queue[n-1].data = append(o.queue[n-1].data, p...)
	} else {
		o.queue = append(o.queue, printed{task, s, bytes.Clone(p)})
	}
	o.mu.Unlock()
	o.poke()
}

func (o *output) pump() {
	defer close(o.done)
	for range o.wake {
		o.mu.Lock()
		queue, closing := o.queue, o.closing
		o.queue = nil
		o.mu.Unlock()
		for _, p := range queue {
			for rest := p.data; len(rest) > 0; {
				n := min(len(rest), maxPrinted)
				o.sink(p.task, p.stream, rest[:n])
				rest = rest[n:]
			}
			o.mu.Lock()
			o.bytes -= len(p.data)
			var waiting []printer
			var calls []func()
			if o.bytes < maxQueuedOutput {
				waiting, calls = slices.Collect(maps.Keys(o.waiting)), o.calls
				clear(o.waiting)
				o.calls = nil
			}
			if o.bytes == 0 {
				calls = append(calls, o.idle...)
				o.idle = nil
			}
			o.mu.Unlock()
			for _, w := range waiting {
				w.signal()
			}
			for _, f := range calls {
				f()
			}
		}
		if closing {
			return // nothing came after closing was set
		}
	}
}

// DefaultLogRate is how many bytes a second a sandbox's tasks may print for
// long, where a job says nothing. A terminal shows about a tenth of it.
const DefaultLogRate = 4 << 20

// logBurst is how many seconds' worth of its rate a sandbox may print at once.
const logBurst = 4

// LogRateFlag is the flag that raises the rate.
const LogRateFlag = "--log-rate"

// logBucket limits how fast one sandbox prints.
type logBucket struct {
	tokens int64 // bytes that may be printed at once; negative: a debt
	at     int64 // when tokens was right, by the worker's clock
}

// take takes n bytes out of the bucket and returns how long to wait until they
// may be printed.
func (b *logBucket) take(now, rate int64, n int) time.Duration {
	switch elapsed := now - b.at; {
	case b.at == 0, elapsed > logBurst*int64(time.Second):
		b.tokens = max(b.tokens, 0) + rate*logBurst
	default:
		b.tokens += int64(float64(elapsed) / float64(time.Second) * float64(rate))
	}
	b.tokens = min(b.tokens, rate*logBurst)
	b.at = max(now, 1)
	b.tokens -= int64(n)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(float64(-b.tokens) / float64(rate) * float64(time.Second))
}

// print passes on what the guest's task, or the driver, printed. Within a call
// of the guest it waits, parked, where the reader is slow or a task prints too
// fast; it does not return then when the guest is stopped. The driver's output
// is the program's result: only its reader limits that.
func (g *guest) print(s Stream, p []byte, inCall bool) {
	o := g.job.out
	if o == nil {
		return
	}
	passed := false
	defer func() {
		if !passed { // the guest was stopped while it waited
			o.rest(g.name(), s, p)
		}
	}()
	if g.holder != nil {
		rate := g.job.logRate()
		if d := g.log.take(g.w.now(), rate, len(p)); d > 0 && inCall {
			o.slowed.Do(func() { o.put(g.name(), Notice, []byte(tooFast(g.name(), rate)+"\n")) })
			g.standBy(d, func() bool { return false })
		}
	}
	for inCall && !o.room(g) {
		g.standBy(-1, func() bool { return o.room(g) })
	}
	passed = true
	o.put(g.name(), s, p)
}

// rest keeps the beginning of what a guest printed that was stopped before
// there was room for it, and says what it does not keep.
func (o *output) rest(task string, s Stream, p []byte) {
	n := min(len(p), maxLine)
	o.put(task, s, p[:n])
	if more := len(p) - n; more > 0 {
		o.put(task, Notice, fmt.Appendf(nil, "%s was stopped before the last %d bytes that it printed were read\n", cmp.Or(task, "the driver"), more))
	}
}

// standBy parks the guest in a host call as Block does, and lets others have
// its task's CPU meanwhile.
func (g *guest) standBy(d time.Duration, ready func() bool) {
	epoch := g.expect()
	g.printing = true
	defer func() { // also when the guest is stopped
		g.printing = false
		g.unexpect(epoch)
	}()
	g.sb.Block(d, ready)
}

func tooFast(task string, rate int64) string {
	e := wray.Error{Code: wray.CodeLimitExceeded, Task: task,
		Message: fmt.Sprintf("prints faster than for %d seconds is allowed, and waits: nothing is lost", logBurst),
		Limit:   &wray.Limit{Name: "log rate", Value: rate, Unit: "bytes a second", Flag: LogRateFlag}}
	return e.Error()
}

func (j *job) logRate() int64 {
	if r := j.spec.Limits.LogRate; r > 0 {
		return r
	}
	return DefaultLogRate
}
