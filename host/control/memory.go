package control

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
)

// MemoryOptions are the options of [NewMemory]. The zero value is right for a
// node that is alone.
type MemoryOptions struct {
	Clock Clock // for leases; nil is SystemClock
	// Keep is how many revisions are kept for watchers and pages that are
	// late, 10,000 by default.
	Keep int
}

// Memory is a Store in this process: the control state of a node that is
// alone, and etcd's twin in tests. What it holds ends with the process.
//
// [Memory.LoseQuorum] makes it unavailable as etcd is while most of its members
// are gone; faults between a node and its store are in package controltest.
type Memory struct {
	clock Clock
	keep  int

	mu        sync.Mutex
	rev       Revision
	compacted Revision             // what is before this is forgotten
	keys      *btree.BTreeG[*line] // in order of keys
	log       []Event              // since compacted, in order of revisions
	leases    map[LeaseID]*memLease
	lastLease LeaseID
	noQuorum  bool
	closed    bool
	changed   chan struct{} // closed with the next change of anything above
}

// line is the history of one key, oldest first.
type line struct {
	key      string
	versions []Event
}

// at returns the record as it was in the state rev, or nil.
func (l *line) at(rev Revision) *Record {
	for i := len(l.versions) - 1; i >= 0; i-- {
		if v := &l.versions[i]; v.Record.Modified <= rev {
			if v.Deleted {
				return nil
			}
			return &v.Record
		}
	}
	return nil
}

type memLease struct {
	id   LeaseID
	ttl  time.Duration
	ends time.Time
	keys map[string]bool
	stop func() bool
}

// NewMemory returns an empty store.
func NewMemory(o MemoryOptions) *Memory {
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Keep <= 0 {
		o.Keep = 10_000
	}
	return &Memory{
		clock:   o.Clock,
		keep:    o.Keep,
		rev:     1, // as a new etcd has it
		keys:    btree.NewG(32, func(a, b *line) bool { return a.key < b.key }),
		leases:  map[LeaseID]*memLease{},
		changed: make(chan struct{}),
	}
}

// LoseQuorum makes the store unavailable until RestoreQuorum: requests wait and
// fail, watches see nothing, and no lease lapses.
func (m *Memory) LoseQuorum() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noQuorum = true
	m.wakeLocked()
}

// RestoreQuorum ends what LoseQuorum began. Every lease has its full time
// again, as after the election of a new leader of etcd.
func (m *Memory) RestoreQuorum() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.noQuorum {
		return
	}
	m.noQuorum = false
	for _, l := range m.leases {
		m.armLocked(l)
	}
	m.wakeLocked()
}

// Compact forgets what was before rev.
func (m *Memory) Compact(rev Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.compactLocked(min(rev, m.rev))
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string) (Record, error) {
	if err := CheckKey(key); err != nil {
		return Record{}, err
	}
	if err := m.lock(ctx, "read the control state"); err != nil {
		return Record{}, err
	}
	defer m.mu.Unlock()
	if r := m.getLocked(key); r != nil {
		return *r, nil
	}
	return Record{}, fmt.Errorf("%q: %w", key, ErrNotFound)
}

// List implements Store.
func (m *Memory) List(ctx context.Context, req ListRequest) (Page, error) {
	req, err := CheckList(req)
	if err != nil {
		return Page{}, err
	}
	if err := m.lock(ctx, "list the control state"); err != nil {
		return Page{}, err
	}
	defer m.mu.Unlock()
	p := Page{Revision: req.At}
	switch {
	case req.At == 0:
		p.Revision = m.rev
	case req.At > m.rev:
		return Page{}, fmt.Errorf("%w: a list of revision %d, the newest is %d", ErrInvalid, req.At, m.rev)
	case req.At < m.compacted:
		return Page{}, &CompactedError{Asked: req.At, Oldest: m.compacted}
	}
	from := &line{key: max(req.Prefix, req.After)}
	m.keys.AscendGreaterOrEqual(from, func(l *line) bool {
		if !strings.HasPrefix(l.key, req.Prefix) {
			return l.key < req.Prefix
		}
		r := l.at(p.Revision)
		if r == nil || req.After != "" && l.key <= req.After {
			return true
		}
		if len(p.Records) == req.Limit {
			p.More = true
			return false
		}
		p.Records = append(p.Records, *r)
		return true
	})
	return p, nil
}

// Commit implements Store.
func (m *Memory) Commit(ctx context.Context, txn Txn) (Revision, error) {
	if err := CheckTxn(txn); err != nil {
		return 0, err
	}
	if err := m.lock(ctx, "write to the control state"); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	for _, c := range txn.If {
		var found Record
		if r := m.getLocked(c.Key); r != nil {
			found = *r
		}
		if !c.Holds(found) {
			return 0, &ConflictError{Cond: c, Found: found}
		}
	}
	for _, o := range txn.Do {
		if o.Lease != 0 && m.leases[o.Lease] == nil {
			return 0, fmt.Errorf("write %q with lease %x: %w", o.Key, int64(o.Lease), ErrLeaseLapsed)
		}
	}
	m.applyLocked(txn.Do)
	return m.rev, nil
}

// Grant implements Store.
func (m *Memory) Grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	ttl, err := CheckTTL(ttl)
	if err != nil {
		return Lease{}, err
	}
	if err := m.lock(ctx, "grant a lease"); err != nil {
		return Lease{}, err
	}
	defer m.mu.Unlock()
	m.lastLease++
	l := &memLease{id: m.lastLease, ttl: ttl, keys: map[string]bool{}}
	m.leases[l.id] = l
	m.armLocked(l)
	return Lease{ID: l.id, TTL: ttl}, nil
}

// KeepAlive implements Store.
func (m *Memory) KeepAlive(ctx context.Context, id LeaseID) error {
	if err := m.lock(ctx, "keep a lease alive"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	l := m.leases[id]
	if l == nil {
		return fmt.Errorf("keep lease %x alive: %w", int64(id), ErrLeaseLapsed)
	}
	m.armLocked(l)
	return nil
}

// Revoke implements Store.
func (m *Memory) Revoke(ctx context.Context, id LeaseID) error {
	if err := m.lock(ctx, "revoke a lease"); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if l := m.leases[id]; l != nil {
		m.lapseLocked(l)
	}
	return nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	for _, l := range m.leases {
		l.stop()
	}
	m.wakeLocked()
	return nil
}

// lock locks m for a request, when a quorum is there.
func (m *Memory) lock(ctx context.Context, doing string) error {
	var impatient chan struct{}
	for {
		if err := ctx.Err(); err != nil {
			return Unavailable(doing, err)
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return fmt.Errorf("%s: %w", doing, ErrClosed)
		}
		if !m.noQuorum {
			return nil
		}
		changed := m.changed
		m.mu.Unlock()
		if impatient == nil {
			impatient = make(chan struct{})
			defer m.clock.AfterFunc(Patience, func() { close(impatient) })()
		}
		select {
		case <-changed:
		case <-impatient:
			return Unavailable(doing, fmt.Errorf("no quorum for %v", Patience))
		case <-ctx.Done():
		}
	}
}

func (m *Memory) wakeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) getLocked(key string) *Record {
	l, ok := m.keys.Get(&line{key: key})
	if !ok {
		return nil
	}
	return l.at(m.rev)
}

// applyLocked makes a revision of ops, unless they change nothing.
func (m *Memory) applyLocked(ops []Op) {
	rev := m.rev + 1
	done := false
	for _, o := range ops {
		old := m.getLocked(o.Key)
		if o.Delete && old == nil {
			continue
		}
		e := Event{Record: Record{Key: o.Key, Modified: rev}, Deleted: o.Delete}
		if old != nil && old.Lease != 0 {
			if l := m.leases[old.Lease]; l != nil {
				delete(l.keys, o.Key)
			}
		}
		if !o.Delete {
			e.Record.Value = slices.Clone(o.Value)
			e.Record.Created = rev
			if old != nil {
				e.Record.Created = old.Created
			}
			e.Record.Lease = o.Lease
			if o.Lease != 0 {
				m.leases[o.Lease].keys[o.Key] = true
			}
		}
		l, ok := m.keys.Get(&line{key: o.Key})
		if !ok {
			l = &line{key: o.Key}
			m.keys.ReplaceOrInsert(l)
		}
		l.versions = append(l.versions, e)
		m.log = append(m.log, e)
		done = true
	}
	if !done {
		return
	}
	m.rev = rev
	// A tenth more than is kept, so that it is not done for each commit.
	if m.rev-m.compacted > Revision(m.keep+m.keep/10) {
		m.compactLocked(m.rev - Revision(m.keep))
	}
	m.wakeLocked()
}

// compactLocked forgets what is not part of the state rev or a later one.
func (m *Memory) compactLocked(rev Revision) {
	if rev <= m.compacted {
		return
	}
	m.compacted = rev
	n := sort.Search(len(m.log), func(i int) bool { return m.log[i].Record.Modified >= rev })
	for _, e := range m.log[:n] {
		l, ok := m.keys.Get(&line{key: e.Record.Key})
		if !ok {
			continue
		}
		// Keep the last version that is not after rev, and those after it.
		i := sort.Search(len(l.versions), func(i int) bool { return l.versions[i].Record.Modified > rev })
		i = max(i-1, 0)
		if l.versions[i].Deleted && l.versions[i].Record.Modified < rev {
			i++
		}
		if i == len(l.versions) {
			m.keys.Delete(l)
		} else if i > 0 {
			l.versions = slices.Clone(l.versions[i:])
		}
	}
	m.log = slices.Clone(m.log[n:])
}

// armLocked gives a lease its full time.
func (m *Memory) armLocked(l *memLease) {
	if l.stop != nil {
		l.stop()
	}
	l.ends = m.clock.Now().Add(l.ttl)
	l.stop = m.clock.AfterFunc(l.ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		// Renewed meanwhile, or nobody is there to let it lapse: RestoreQuorum
		// arms it again.
		if m.closed || m.noQuorum || m.leases[l.id] != l || m.clock.Now().Before(l.ends) {
			return
		}
		m.lapseLocked(l)
	})
}

// lapseLocked ends a lease and removes what is bound to it.
func (m *Memory) lapseLocked(l *memLease) {
	l.stop()
	delete(m.leases, l.id)
	ops := make([]Op, 0, len(l.keys))
	for k := range l.keys {
		ops = append(ops, Delete(k))
	}
	slices.SortFunc(ops, func(a, b Op) int { return strings.Compare(a.Key, b.Key) })
	m.applyLocked(ops)
}
