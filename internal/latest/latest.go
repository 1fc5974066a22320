// Package latest shows the newest values under keys to those who watch, however
// slow they are: of what changed several times only the last is shown, so that
// a watch is never longer than the map.
package latest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed says that a watch, or what it watches, was closed.
var ErrClosed = errors.New("watch is closed")

// Map holds the newest value under each key. The zero Map is empty. It may be
// used by any number of goroutines.
type Map[K cmp.Ordered, V any] struct {
	mu      sync.Mutex
	values  map[K]V                   // guarded by mu
	watches map[*Watch[K, V]]struct{} // guarded by mu
	closed  bool                      // guarded by mu
}

// Change gives change the value under a key, and whether there is one, and
// stores and shows what it returns where it returns true. change must not use
// the map.
func (m *Map[K, V]) Change(key K, change func(old V, ok bool) (V, bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.values[key]
	v, yes := change(old, ok)
	if !yes || m.closed {
		return
	}
	if m.values == nil {
		m.values = map[K]V{}
	}
	m.values[key] = v
	for w := range m.watches {
		w.changed[key] = struct{}{}
		w.poke()
	}
}

// Drop forgets the value under a key, where drop says so. Watches are not told.
func (m *Map[K, V]) Drop(key K, drop func(V) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[key]; ok && drop(v) {
		delete(m.values, key)
	}
}

// Get returns the value under a key.
func (m *Map[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	return v, ok
}

// All returns the values, in order of keys.
func (m *Map[K, V]) All() []V {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sortedLocked(nil)
}

// sortedLocked returns the values under some keys, or nil for all, in order.
func (m *Map[K, V]) sortedLocked(some map[K]struct{}) []V {
	keys := make([]K, 0, len(m.values))
	for k := range m.values {
		if _, ok := some[k]; ok || some == nil {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []V
	for _, k := range keys {
		out = append(out, m.values[k])
	}
	return out
}

// Watch returns a watch, for one goroutine, that first shows all values. Close
// it.
func (m *Map[K, V]) Watch() *Watch[K, V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &Watch[K, V]{m: m, changed: map[K]struct{}{}, wake: make(chan struct{}, 1)}
	for k := range m.values {
		w.changed[k] = struct{}{}
	}
	w.poke()
	if !m.closed {
		if m.watches == nil {
			m.watches = map[*Watch[K, V]]struct{}{}
		}
		m.watches[w] = struct{}{}
	}
	return w
}

// Close ends all watches; nothing changes any more. It is idempotent.
func (m *Map[K, V]) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for w := range m.watches {
		w.poke()
	}
	clear(m.watches)
}

// Watch sees the changes of a [Map].
type Watch[K cmp.Ordered, V any] struct {
	m       *Map[K, V]
	changed map[K]struct{} // guarded by m.mu
	closed  bool           // guarded by m.mu
	wake    chan struct{}  // holds one token when there may be something to see
}

func (w *Watch[K, V]) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next waits for values that are new or changed, and returns them in order of
// keys. It returns ErrClosed when the watch or its map is closed, and ctx's
// error when that ends.
func (w *Watch[K, V]) Next(ctx context.Context) ([]V, error) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		w.m.mu.Lock()
		out := w.m.sortedLocked(w.changed)
		clear(w.changed)
		closed := w.closed || w.m.closed
		w.m.mu.Unlock()
		if closed {
			w.poke() // for the next call
			return nil, ErrClosed
		}
		if len(out) > 0 {
			return out, nil
		}
	}
}

// Close ends the watch. It is idempotent, and may be called while Next waits.
func (w *Watch[K, V]) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.closed = true
	delete(w.m.watches, w)
	w.poke()
}
