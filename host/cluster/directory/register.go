package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
)

// register writes this node's record, bound to a new lease. It may be called
// again when the lease lapsed and the node was not called dead for it.
func (d *Directory) register(ctx context.Context) error {
	d.mu.Lock()
	self := d.self
	d.mu.Unlock()
	sent := d.now()
	lease, err := d.store.Grant(ctx, d.opt.Liveness.TTL)
	if err != nil {
		return err
	}
	fence, err := d.claim(ctx, self, lease.ID)
	if err != nil {
		_ = d.store.Revoke(ctx, lease.ID) // or it lapses by itself
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lease, d.fence = lease.ID, fence
	c := d.opt.Liveness
	c.TTL = lease.TTL
	d.life = liveness.NewSelf(c, d.opt.Margin, sent)
	return nil
}

// claim makes the record, and returns the commit that did.
func (d *Directory) claim(ctx context.Context, self Node, lease control.LeaseID) (control.Revision, error) {
	key, err := control.Key(control.KindNode, control.Cluster, d.name)
	if err != nil {
		return 0, err
	}
	value, err := d.nodes.Encode(self)
	if err != nil {
		return 0, err
	}
	for {
		var txn control.Txn
		grave, err := d.graves.Get(ctx, Graveyard, d.name)
		switch {
		case err == nil && grave.Value.Incarnation >= self.Incarnation:
			return 0, fmt.Errorf("%w: incarnation %d is dead: %s", ErrCondemned, self.Incarnation, grave.Value.Why)
		case err == nil:
			txn.If = append(txn.If, control.At(grave.Record.Key, grave.Record.Modified))
		case errors.Is(err, control.ErrNotFound):
			stone, _ := control.Key(control.KindNode, Graveyard, d.name)
			txn.If = append(txn.If, control.Absent(stone))
		default:
			return 0, err
		}
		old, err := d.nodes.Get(ctx, control.Cluster, d.name)
		switch {
		case errors.Is(err, control.ErrNotFound):
			txn.If = append(txn.If, control.Absent(key))
		case err != nil:
			return 0, err
		case old.Value.Incarnation > self.Incarnation:
			return 0, fmt.Errorf("%w: incarnation %d, at %s", ErrSuperseded, old.Value.Incarnation, old.Value.Addr)
		case old.Record.Lease == lease:
			return old.Record.Created, nil // done, and the reply was lost
		default:
			// This node's, of an earlier lease or an earlier process: it goes, in a
			// commit of its own so that the new one is born anew and no fence of the
			// old one holds.
			if err := d.replace(ctx, old, self); err != nil && !errors.Is(err, control.ErrConflict) {
				return 0, err
			}
			continue
		}
		txn.Do = []control.Op{control.PutLeased(key, value, lease)}
		rev, err := d.store.Commit(ctx, txn)
		if err == nil || !errors.Is(err, control.ErrConflict) {
			return rev, err
		}
	}
}

// replace removes an earlier record of this node, and calls an earlier
// incarnation dead.
func (d *Directory) replace(ctx context.Context, old control.Entry[Node], self Node) error {
	txn := control.Txn{If: []control.Cond{control.At(old.Record.Key, old.Record.Modified)},
		Do: []control.Op{control.Delete(old.Record.Key)}}
	if old.Value.Incarnation < self.Incarnation {
		b, err := d.grave(old.Value.Incarnation, fmt.Sprintf("it is back as incarnation %d", self.Incarnation))
		if err != nil {
			return err
		}
		stone, err := control.Key(control.KindNode, Graveyard, d.name)
		if err != nil {
			return err
		}
		txn.Do = append(txn.Do, control.Put(stone, b))
	}
	_, err := d.store.Commit(ctx, txn)
	return err
}

// renew keeps the lease, and finds out by the way whether the control state
// answers.
//
// It does so every eighth of a lease, so that one of 8 s survives 5 s without
// the control state: those may begin a second after the last renewal, and end
// while a request is under way that is lost, and that takes a second or more. Every
// quarter the three came to all of the lease.
func (d *Directory) renew(ctx context.Context) {
	every := time.NewTicker(d.opt.Liveness.TTL / 8)
	defer every.Stop()
	for {
		d.renewOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-d.ended:
			return
		case <-every.C:
		}
	}
}

func (d *Directory) renewOnce(ctx context.Context) {
	once, cancel := context.WithTimeout(ctx, d.opt.Liveness.TTL/4)
	defer cancel()
	d.mu.Lock()
	lease := d.lease
	d.mu.Unlock()
	sent := d.now()
	err := d.store.KeepAlive(once, lease)
	if errors.Is(err, control.ErrLeaseLapsed) {
		d.mu.Lock()
		d.life.Lapsed()
		d.mu.Unlock()
		d.opt.Log.Warn("the node's lease lapsed; it registers again", "node", d.name)
		if err = d.register(once); err == nil {
			d.opt.Log.Info("the node is registered again", "node", d.name)
		}
	} else if err == nil {
		d.mu.Lock()
		d.life.Renewed(sent)
		d.mu.Unlock()
	}
	switch {
	case err == nil:
		d.event(func(now time.Duration) []liveness.Decision { d.view.ControlUp(now); return nil })
	case errors.Is(err, ErrCondemned), errors.Is(err, ErrSuperseded):
		d.end(err)
	case ctx.Err() == nil:
		d.event(func(now time.Duration) []liveness.Decision { d.view.ControlDown(now); return nil })
	}
}
