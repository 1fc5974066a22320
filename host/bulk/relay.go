package bulk

import (
	"context"
	"errors"
	"io"
	"sync"
)

// ErrOver says that a transfer is over, and its relay with it.
var ErrOver = errors.New("the transfer is over")

// Relay is the object that a transfer fetches, for others to have while it is
// under way: bytes that have not come are waited for.
type Relay struct {
	t    *Transfer
	from io.ReaderAt

	reading sync.RWMutex // read-held by who reads from
	over    bool         // guarded by reading
}

// NewRelay returns a relay of t, which fetches an object from its beginning and
// writes it to from. Close it before anything else becomes of from.
func NewRelay(t *Transfer, from io.ReaderAt) *Relay { return &Relay{t: t, from: from} }

// Size returns how many bytes the object has, whether they have come or not.
func (r *Relay) Size() int64 { return r.t.length }

// Await waits until n bytes at off are there. Errors: ErrOver, and that of ctx.
func (r *Relay) Await(ctx context.Context, off int64, n int) error {
	for at := off / ChunkSize * ChunkSize; at < off+int64(n); at += ChunkSize {
	next:
		for {
			// In this order: Close sets over before it wakes who has the channel.
			there, wait := r.t.arrival(at)
			r.reading.RLock()
			over := r.over
			r.reading.RUnlock()
			switch {
			case over:
				return ErrOver
			case there:
				break next
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// ReadAt reads bytes that are there. Where the transfer is over that is ErrOver.
func (r *Relay) ReadAt(p []byte, off int64) (int, error) {
	r.reading.RLock()
	defer r.reading.RUnlock()
	if r.over {
		return 0, ErrOver
	}
	return r.from.ReadAt(p, off)
}

// Close ends the relay: when it returns nobody reads from what the transfer wrote
// to. It may be called more than once.
func (r *Relay) Close() {
	r.reading.Lock()
	r.over = true
	r.reading.Unlock()
	r.t.wake()
}

// RunReferred is Run from the nodes that holder names, and from holder where they
// do not give all.
func (c *Client) RunReferred(ctx context.Context, t *Transfer, holder string) error {
	var without []string
	for t.length >= ReferMin && len(without) < maxReferred {
		nodes, err := c.Ask(ctx, holder, t.name, t.length, without)
		if err != nil || len(nodes) == 0 {
			break // what is wrong with it, Run says
		}
		if err := c.Run(ctx, t, nodes...); err == nil || ctx.Err() != nil {
			return err
		}
		without = append(without, nodes...)
	}
	return c.Run(ctx, t, holder)
}
