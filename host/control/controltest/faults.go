package controltest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
)

// Link is a connection between a node and its store, with faults. It is a
// control.Store itself. A request that is lost, or whose reply is, ends like one
// whose server was gone: with ErrUnavailable, in time for its deadline.
type Link struct {
	control.Store

	mu      sync.Mutex
	cut     bool
	faults  *Faults
	changed chan struct{} // closed with each change
}

// Faults are what happens to each request at random.
type Faults struct {
	Rand        *rand.Rand
	DropRequest float64       // how likely a request is lost, from 0 to 1
	DropReply   float64       // how likely what it did is not told
	MaxDelay    time.Duration // of the request and of the reply, each
	GiveUp      time.Duration // after which a lost request ends
}

var errLost = errors.New("no reply")

// NewLink returns a connection without faults.
func NewLink(s control.Store) *Link {
	return &Link{Store: s, changed: make(chan struct{})}
}

// Cut loses every request and reply, and holds events back, until Heal.
func (l *Link) Cut() { l.set(func() { l.cut = true }) }

// Heal ends what Cut began. What was lost stays lost.
func (l *Link) Heal() { l.set(func() { l.cut = false }) }

// SetFaults has faults happen at random; nil ends it.
func (l *Link) SetFaults(f *Faults) { l.set(func() { l.faults = f }) }

func (l *Link) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// fate is what happens to one request.
type fate struct {
	dropRequest, dropReply bool
	before, after          time.Duration
	giveUp                 time.Duration
}

func (l *Link) fate() fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := fate{giveUp: control.Patience, dropRequest: l.cut}
	if r := l.faults; r != nil {
		f.giveUp = r.GiveUp
		f.dropRequest = f.dropRequest || r.Rand.Float64() < r.DropRequest
		f.dropReply = r.Rand.Float64() < r.DropReply
		if r.MaxDelay > 0 {
			f.before = time.Duration(r.Rand.Int64N(int64(r.MaxDelay)))
			f.after = time.Duration(r.Rand.Int64N(int64(r.MaxDelay)))
		}
	}
	return f
}

func (l *Link) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// lost ends a request that nobody answers.
func lost(ctx context.Context, d time.Duration) error {
	return control.Unavailable("ask the control state", pause(ctx, d, errLost))
}

// pause waits and returns err, or the error of ctx when that ends before.
func pause(ctx context.Context, d time.Duration, err error) error {
	if d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func call[T any](ctx context.Context, l *Link, do func() (T, error)) (T, error) {
	var zero T
	f := l.fate()
	if err := pause(ctx, f.before, nil); err != nil {
		return zero, control.Unavailable("ask the control state", err)
	}
	if f.dropRequest {
		return zero, lost(ctx, f.giveUp)
	}
	v, err := do()
	if f.dropReply || l.isCut() {
		return zero, lost(ctx, f.giveUp)
	}
	if e := pause(ctx, f.after, nil); e != nil {
		return zero, control.Unavailable("ask the control state", e)
	}
	return v, err
}

// Get implements control.Store.
func (l *Link) Get(ctx context.Context, key string) (control.Record, error) {
	return call(ctx, l, func() (control.Record, error) { return l.Store.Get(ctx, key) })
}

// List implements control.Store.
func (l *Link) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	return call(ctx, l, func() (control.Page, error) { return l.Store.List(ctx, req) })
}

// Commit implements control.Store.
func (l *Link) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	return call(ctx, l, func() (control.Revision, error) { return l.Store.Commit(ctx, txn) })
}

// Watch implements control.Store.
func (l *Link) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	return call(ctx, l, func() (control.Watcher, error) {
		w, err := l.Store.Watch(ctx, prefix, from)
		if err != nil {
			return nil, err
		}
		return &linkWatch{Watcher: w, l: l}, nil
	})
}

// Grant implements control.Store.
func (l *Link) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	return call(ctx, l, func() (control.Lease, error) { return l.Store.Grant(ctx, ttl) })
}

// KeepAlive implements control.Store.
func (l *Link) KeepAlive(ctx context.Context, id control.LeaseID) error {
	_, err := call(ctx, l, func() (struct{}, error) { return struct{}{}, l.Store.KeepAlive(ctx, id) })
	return err
}

// Revoke implements control.Store.
func (l *Link) Revoke(ctx context.Context, id control.LeaseID) error {
	_, err := call(ctx, l, func() (struct{}, error) { return struct{}{}, l.Store.Revoke(ctx, id) })
	return err
}

// linkWatch holds back what comes while its link is cut.
type linkWatch struct {
	control.Watcher
	l    *Link
	held *control.Batch // came while the link was cut
}

func (w *linkWatch) Next(ctx context.Context) (control.Batch, error) {
	if w.held == nil {
		b, err := w.Watcher.Next(ctx)
		if err != nil {
			return b, err
		}
		w.held = &b
	}
	for {
		w.l.mu.Lock()
		cut, changed := w.l.cut, w.l.changed
		w.l.mu.Unlock()
		if !cut {
			b := *w.held
			w.held = nil
			return b, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return control.Batch{}, control.Unavailable("watch the control state", ctx.Err())
		}
	}
}

// Clock is a control.Clock that stands until it is advanced.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*timer]bool
}

type timer struct {
	at time.Time
	f  func()
}

// NewClock returns a clock that shows the given time.
func NewClock(now time.Time) *Clock {
	return &Clock{now: now, timers: map[*timer]bool{}}
}

// Now implements control.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc implements control.Clock. Advance calls f, on its own goroutine.
func (c *Clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{at: c.now.Add(d), f: f}
	c.timers[t] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		was := c.timers[t]
		delete(c.timers, t)
		return was
	}
}

// Advance moves the clock on, and does what was to be done meanwhile, each at
// its time.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	end := c.now.Add(d)
	for {
		var next *timer
		for t := range c.timers {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		delete(c.timers, next)
		c.now = next.at
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}
