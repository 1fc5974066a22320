package codecache

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
)

// flight is one compilation that any number of callers wait for.
type flight struct {
	cancel  context.CancelFunc
	waiters int           // guarded by Cache.mu
	done    chan struct{} // closed when entry and err are set
	entry   Entry
	err     error
}

// fly joins the compilation of u, or starts it.
func (c *Cache) fly(ctx context.Context, u unit, module []byte) (Entry, error) {
	key := u.tenant + "/" + u.id
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Entry{}, ErrClosed
	}
	f := c.flights[key]
	if f == nil {
		// Not of ctx: others may wait longer than the caller that came first.
		work, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{})}
		c.flights[key] = f
		c.running.Go(func() {
			defer cancel()
			f.entry, f.err = c.make(work, u, module)
			c.mu.Lock()
			if c.flights[key] == f {
				delete(c.flights, key)
			}
			c.mu.Unlock()
			close(f.done)
		})
	}
	f.waiters++
	c.mu.Unlock()
	if c.watch.joined != nil {
		c.watch.joined()
	}

	select {
	case <-f.done:
		return f.entry, f.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	f.waiters--
	if f.waiters == 0 {
		f.cancel()
		// Who comes next starts anew, and does not share this one's end.
		if c.flights[key] == f {
			delete(c.flights, key)
		}
	}
	c.mu.Unlock()
	return Entry{}, ctx.Err()
}

// lockStripes is how many locks processes share. Two modules on one lock wait
// for each other; the files are never removed, so that nobody locks a file
// that another has replaced.
const lockStripes = 64

// make compiles u unless another process has done so meanwhile.
func (c *Cache) make(ctx context.Context, u unit, module []byte) (Entry, error) {
	stripe := int(u.module[0]) % lockStripes
	unlock, err := lockFile(ctx, filepath.Join(c.cfg.Root, "locks", strconv.Itoa(stripe)))
	if err != nil {
		return Entry{}, err
	}
	defer unlock()
	e, err := c.lookup(u)
	if !errors.Is(err, errMissing) {
		return e, err
	}
	// Not there, or not whole: an entry that was touched is made anew.
	if e, err = c.compile(ctx, u, module); err == nil {
		c.trim(u.dir)
	}
	return e, err
}
