package link

import (
	"context"
	"sync"
)

// budget is the credit for calls of one direction: a number of calls and of
// bytes. Waiters are served in order, so a large call is not starved by small
// ones.
type budget struct {
	mu      sync.Mutex
	calls   int      // guarded by mu; credit left
	bytes   int      // guarded by mu
	waiters []waiter // guarded by mu; in order of arrival
	closed  error    // guarded by mu; set once
}

type waiter struct {
	bytes int
	ready chan error // of capacity 1; nil: the credit was taken
}

// acquire takes one call of n bytes, or waits for it.
func (b *budget) acquire(ctx context.Context, n int) error {
	b.mu.Lock()
	if b.closed != nil {
		defer b.mu.Unlock()
		return b.closed
	}
	if len(b.waiters) == 0 && b.calls > 0 && b.bytes >= n {
		b.calls--
		b.bytes -= n
		b.mu.Unlock()
		return nil
	}
	w := waiter{bytes: n, ready: make(chan error, 1)}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	select {
	case err := <-w.ready:
		return err
	case <-ctx.Done():
	}
	b.mu.Lock()
	for i := range b.waiters {
		if b.waiters[i].ready == w.ready {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.wakeLocked() // who stood behind may fit
			b.mu.Unlock()
			return ctx.Err()
		}
	}
	b.mu.Unlock()
	// Served between the two: hand the credit on.
	if err := <-w.ready; err != nil {
		return err
	}
	b.release(n)
	return ctx.Err()
}

// tryAcquire takes one call of n bytes if there is credit for it.
func (b *budget) tryAcquire(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls == 0 || b.bytes < n {
		return false
	}
	b.calls--
	b.bytes -= n
	return true
}

// release gives back one call of n bytes.
func (b *budget) release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	b.bytes += n
	b.wakeLocked()
}

func (b *budget) wakeLocked() {
	for len(b.waiters) > 0 {
		w := b.waiters[0]
		if b.calls == 0 || b.bytes < w.bytes {
			return
		}
		b.calls--
		b.bytes -= w.bytes
		b.waiters = b.waiters[1:]
		w.ready <- nil
	}
}

// close fails every waiter, now and later, with err.
func (b *budget) close(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return
	}
	b.closed = err
	for _, w := range b.waiters {
		w.ready <- err
	}
	b.waiters = nil
}
