package node

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/wray-project/wray/host/bulk"
)

// Where several nodes fetch one payload at one time, the node that has it sends
// each to those that asked before. What comes to a node it gives on while it
// comes, from the memory that it goes to; afterwards its worker lends it, as it
// does its own. Nodes with workers of one tenant have to trust each other with
// its bytes as they do with its tasks' results.

// relay is a large payload that comes to a worker here, or came lately.
type relay struct {
	k    *tenantPeers
	w    *workerProcess
	size int64
	live *bulk.Relay // gives what has come, until the transfer is over
	over time.Time   // when that was; zero: not yet. Guarded by bulkData.mu
}

const (
	// relayKeep is how long a payload that came is given to others by its first
	// holder's name, and relayMost how many are: what is asked for later comes of
	// the holder.
	relayKeep = time.Minute
	relayMost = 1 << 10
)

// refer is the Refer of the holder.
func (d *bulkData) refer(from string, name []byte, length int64, without []string) ([]string, error) {
	if len(name) != bulkNameSize || d.readBy(from, binary.LittleEndian.Uint64(name)) == nil {
		return nil, errors.New("the worker that had the object is gone, or who asks has none")
	}
	if length < bulk.ReferMin {
		return nil, nil
	}
	return d.refers.Refer(time.Now(), from, name, without), nil
}

// relay lets others have what comes to a worker here, until over is called, and
// after it of the worker, if the whole has come.
func (d *bulkData) relay(k *tenantPeers, w *workerProcess, name []byte, t *bulk.Transfer, f *os.File) (over func(whole bool)) {
	if t.Length() < bulk.ReferMin {
		return func(bool) {}
	}
	r := &relay{k: k, w: w, size: t.Length(), live: bulk.NewRelay(t, f)}
	key := string(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.relays[key] == nil && len(d.relays) >= relayMost {
		d.dropRelaysLocked()
	}
	d.relays[key] = r
	return func(whole bool) {
		r.live.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		r.over = time.Now()
		if !whole && d.relays[key] == r {
			delete(d.relays, key)
		}
	}
}

// dropRelaysLocked makes room: what is old goes, or else whatever is over.
// d.mu is held.
func (d *bulkData) dropRelaysLocked() {
	for _, keep := range []time.Duration{relayKeep, 0} {
		for key, r := range d.relays {
			if !r.over.IsZero() && time.Since(r.over) >= keep {
				delete(d.relays, key)
			}
		}
		if len(d.relays) < relayMost {
			return
		}
	}
}

// openRelay opens a payload that came here, or comes, for a node that its holder
// has sent.
func (d *bulkData) openRelay(from string, name []byte) (bulk.Object, error) {
	d.mu.Lock()
	r := d.relays[string(name)]
	if r != nil && !r.over.IsZero() && time.Since(r.over) > relayKeep {
		delete(d.relays, string(name))
		r = nil
	}
	d.mu.Unlock()
	if r == nil {
		return nil, errors.New("the worker that had the object is not here")
	}
	d.p.mu.Lock()
	id := r.k.ownID
	d.p.mu.Unlock()
	if d.readBy(from, id) != r.w {
		return nil, errors.New("the worker that fetched the object is gone, or who asks has none of its tenant")
	}
	return &relayed{d: d, r: r, from: from, name: name}, nil
}

// relayed is a payload that came to a worker here, or comes.
type relayed struct {
	d    *bulkData
	r    *relay
	from string // who asks
	name []byte
	lent bulk.Object // from the worker, when the transfer is over
}

// Size implements bulk.Object.
func (o *relayed) Size() int64 { return o.r.size }

// Await waits for bytes that have not come.
func (o *relayed) Await(ctx context.Context, off int64, n int) error {
	if o.lent != nil {
		return nil
	}
	if err := o.r.live.Await(ctx, off, n); !errors.Is(err, bulk.ErrOver) {
		return err
	}
	return o.take()
}

// ReadAt implements io.ReaderAt.
func (o *relayed) ReadAt(p []byte, off int64) (int, error) {
	if o.lent == nil {
		if n, err := o.r.live.ReadAt(p, off); !errors.Is(err, bulk.ErrOver) {
			return n, err
		}
		if err := o.take(); err != nil {
			return 0, err
		}
	}
	return o.lent.ReadAt(p, off)
}

// take has the worker lend what has come.
func (o *relayed) take() error {
	lent, err := o.d.lend(o.from, o.r.w, o.name)
	if err != nil {
		return err
	}
	if lent.Size() != o.r.size {
		lent.Close()
		return errors.New("the worker has another payload under this name")
	}
	o.lent = lent
	return nil
}

// Close implements io.Closer.
func (o *relayed) Close() error {
	if o.lent == nil {
		return nil
	}
	return o.lent.Close()
}
