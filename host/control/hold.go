package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// HoldOptions are the options of [Acquire].
type HoldOptions struct {
	// TTL is how long a holder who is silent holds on, 8 s by default.
	TTL time.Duration
	// Margin is how long before the end of that a holder who could not renew
	// believes itself to hold no more, a quarter of TTL by default. It must
	// outlast what was begun while Valid.
	Margin time.Duration
}

// Hold is a record that is there as long as its holder is: a node that lives, a
// head that leads. Its Revision is the fence: a commit with the condition
// Born(Key(), Revision()) is done only while the record is held.
//
// Valid is the holder's own view, and the cautious one: it ends Margin before
// the store may give the record to another, counted from before the last
// request that was answered. It goes by the machine's monotonic clock and, as
// that one stands while a machine sleeps, by its wall clock too, whichever is
// further.
type Hold struct {
	s       Store
	key     string
	lease   Lease
	margin  time.Duration
	created Revision
	stop    context.CancelFunc
	done    chan struct{} // closed when the goroutine that renews has ended
	lost    chan struct{}

	mu    sync.Mutex
	until time.Time
	gone  bool // lost is closed
}

// Acquire makes the record key, and keeps it until Release, with a goroutine of
// its own. Where the record is there already the error is a *ConflictError.
func Acquire(ctx context.Context, s Store, key string, value []byte, o HoldOptions) (*Hold, error) {
	if o.TTL <= 0 {
		o.TTL = 8 * time.Second
	}
	asked := time.Now()
	lease, err := s.Grant(ctx, o.TTL)
	if err != nil {
		return nil, fmt.Errorf("acquire %q: %w", key, err)
	}
	if o.Margin <= 0 {
		o.Margin = lease.TTL / 4
	}
	h := &Hold{s: s, key: key, lease: lease, margin: o.Margin, done: make(chan struct{}), lost: make(chan struct{})}
	h.until = asked.Add(lease.TTL - h.margin)
	h.created, err = s.Commit(ctx, Txn{If: []Cond{Absent(key)}, Do: []Op{PutLeased(key, value, lease.ID)}})
	if err != nil {
		// It may have been done and the reply lost: look.
		if r, e := s.Get(ctx, key); e == nil && r.Lease == lease.ID {
			h.created, err = r.Created, nil
		}
	}
	if err != nil {
		// If this does not arrive the lease lapses by itself.
		_ = s.Revoke(ctx, lease.ID)
		return nil, fmt.Errorf("acquire %q: %w", key, err)
	}
	var renewing context.Context
	renewing, h.stop = context.WithCancel(context.Background())
	go h.renew(renewing)
	return h, nil
}

// Key is the record's.
func (h *Hold) Key() string { return h.key }

// Revision is the commit that made the record: the fence.
func (h *Hold) Revision() Revision { return h.created }

// Lease is what the record is bound to; others may be bound to it too.
func (h *Hold) Lease() LeaseID { return h.lease.ID }

// Valid reports whether nobody else can hold the record for Margin from now on.
// It may become true again, after an outage in which no lease lapsed, but not
// once Lost is closed.
func (h *Hold) Valid() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	return !h.gone && now.Before(h.until) && now.Round(0).Before(h.until.Round(0))
}

// Lost is closed when the lease has lapsed, or was released.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Release gives the record up, now where the store can be reached, and else
// when the lease lapses. It may be called more than once.
func (h *Hold) Release(ctx context.Context) error {
	h.stop()
	<-h.done
	h.lose()
	if err := h.s.Revoke(ctx, h.lease.ID); err != nil {
		return fmt.Errorf("release %q: %w; it goes by itself within %v", h.key, err, h.lease.TTL)
	}
	return nil
}

func (h *Hold) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.gone {
		h.gone = true
		close(h.lost)
	}
}

func (h *Hold) renew(ctx context.Context) {
	defer close(h.done)
	every := time.NewTicker(h.lease.TTL / 4)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		asked := time.Now()
		once, cancel := context.WithTimeout(ctx, h.lease.TTL/4)
		err := h.s.KeepAlive(once, h.lease.ID)
		cancel()
		switch {
		case err == nil:
			h.mu.Lock()
			h.until = asked.Add(h.lease.TTL - h.margin)
			h.mu.Unlock()
		case errors.Is(err, ErrLeaseLapsed), errors.Is(err, ErrClosed):
			h.lose()
			return
		}
		// Else it may yet be renewed: while no quorum is there, no lease lapses.
	}
}
