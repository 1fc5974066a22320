package control

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
)

// memWatch is a Watcher of a Memory: a place in its log.
type memWatch struct {
	m      *Memory
	prefix string
	next   Revision // the first revision not yet seen; of Next alone

	once   sync.Once
	closed chan struct{}
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, prefix string, from Revision) (Watcher, error) {
	if err := CheckWatch(prefix, from); err != nil {
		return nil, err
	}
	if err := m.lock(ctx, "watch the control state"); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if from == 0 {
		from = m.rev + 1
	}
	return &memWatch{m: m, prefix: prefix, next: from, closed: make(chan struct{})}, nil
}

// Next implements Watcher.
func (w *memWatch) Next(ctx context.Context) (Batch, error) {
	m := w.m
	for {
		if err := ctx.Err(); err != nil {
			return Batch{}, Unavailable("watch the control state", err)
		}
		select {
		case <-w.closed:
			return Batch{}, fmt.Errorf("watch of %q: %w", w.prefix, ErrClosed)
		default:
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return Batch{}, fmt.Errorf("watch of %q: %w", w.prefix, ErrClosed)
		}
		if !m.noQuorum && w.next <= m.rev {
			b, err := w.readLocked()
			if err != nil || len(b.Events) > 0 {
				m.mu.Unlock()
				return b, err
			}
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-w.closed:
		case <-ctx.Done():
		}
	}
}

// readLocked reads on to the newest revision, or until a page is full.
func (w *memWatch) readLocked() (Batch, error) {
	m := w.m
	if w.next < m.compacted {
		return Batch{}, &CompactedError{Asked: w.next, Oldest: m.compacted}
	}
	b := Batch{Revision: m.rev}
	i := sort.Search(len(m.log), func(i int) bool { return m.log[i].Record.Modified >= w.next })
	for ; i < len(m.log); i++ {
		e := m.log[i]
		if n := len(b.Events); n >= MaxPage && b.Events[n-1].Record.Modified < e.Record.Modified {
			b.Revision = e.Record.Modified - 1
			break
		}
		if strings.HasPrefix(e.Record.Key, w.prefix) {
			b.Events = append(b.Events, e)
		}
	}
	w.next = b.Revision + 1
	return b, nil
}

// Close implements Watcher.
func (w *memWatch) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}
