package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jobs"
)

// controlAccess is what nodes that are no heads may do with the control state: read
// what all must know, write their own record and their own end, and hold the
// lease of that record. All else is denied. Heads write the rest, each in its
// own store.
//
// A lease is its holder's from its grant on, which the head that granted it
// knows; once the holder's record is bound to it, every head knows. So a node
// can neither keep another alive nor end its lease: to others' leases it is as
// if they had lapsed.
type controlAccess struct {
	store control.Store
	now   func() time.Time

	jobs, tenantJobs int // maxJobs and maxTenantJobs, less in tests

	mu     sync.Mutex
	leases map[string]map[control.LeaseID]time.Time // guarded by mu; by node, until when they last at least
}

// Bounds of what a node may hold.
const (
	maxLeases   = 16              // at one time
	maxLeaseTTL = 5 * time.Minute // of one
	// Records of jobs: of one tenant more than a node keeps and has under way, so
	// that no tenant hides another's; of all, which a node that is full makes room in.
	maxTenantJobs = jobs.MaxRunning + jobs.DefaultKeep + 44
	maxJobs       = 10 * maxTenantJobs
	maxRecord     = 16 << 10 // bytes of one, and of that of the node
)

func newAccess(s control.Store) *controlAccess {
	return &controlAccess{store: s, now: time.Now, jobs: maxJobs, tenantJobs: maxTenantJobs, leases: map[string]map[control.LeaseID]time.Time{}}
}

// of returns the control state as a node has it.
func (a *controlAccess) of(who auth.Identity) control.Store { return &restricted{a, who.Name} }

// restricted is the control state as one node has it.
type restricted struct {
	a    *controlAccess
	node string
}

func (r *restricted) denied(what, key string) error {
	return fmt.Errorf("%w: node %s may not %s %.100q: heads alone may", control.ErrDenied, r.node, what, key)
}

// own returns keys of this node.
func (r *restricted) own() (record, grave, order string) {
	of := func(kind, tenant string) string {
		key, err := control.Key(kind, tenant, r.node)
		if err != nil {
			return "\x00" // no key: nobody has it
		}
		return key
	}
	return of(control.KindNode, control.Cluster), of(control.KindNode, directory.Graveyard), of(control.KindDrain, control.Cluster)
}

// readable reports whether the node may read all keys with a prefix.
func (r *restricted) readable(prefix string) bool {
	_, _, order := r.own()
	return strings.HasPrefix(prefix, control.KindNode+"/") ||
		strings.HasPrefix(prefix, control.KindJob+"/") ||
		strings.HasPrefix(prefix, control.KindTenant+"/") ||
		strings.HasPrefix(prefix, auth.KindRevoked+"/"+control.Cluster+"/") ||
		// Of tokens there are hashes of 256 random bits: who has them has no token.
		strings.HasPrefix(prefix, access.KindUser+"/") || strings.HasPrefix(prefix, access.KindToken+"/") ||
		prefix == gossipKeyName || prefix == order
}

// Get implements control.Store.
func (r *restricted) Get(ctx context.Context, key string) (control.Record, error) {
	if !r.readable(key) {
		return control.Record{}, r.denied("read", key)
	}
	return r.a.store.Get(ctx, key)
}

// List implements control.Store.
func (r *restricted) List(ctx context.Context, req control.ListRequest) (control.Page, error) {
	if !r.readable(req.Prefix) {
		return control.Page{}, r.denied("list", req.Prefix)
	}
	return r.a.store.List(ctx, req)
}

// Watch implements control.Store.
func (r *restricted) Watch(ctx context.Context, prefix string, from control.Revision) (control.Watcher, error) {
	if !r.readable(prefix) {
		return nil, r.denied("watch", prefix)
	}
	return r.a.store.Watch(ctx, prefix, from)
}

// Commit implements control.Store.
func (r *restricted) Commit(ctx context.Context, txn control.Txn) (control.Revision, error) {
	record, grave, _ := r.own()
	for _, c := range txn.If { // a conflict shows what is there
		if !r.readable(c.Key) {
			return 0, r.denied("read", c.Key)
		}
	}
	for _, op := range txn.Do {
		switch {
		case op.Key == grave && op.Lease == 0 && !op.Delete: // one that is dead stays so
		case op.Key == record && op.Delete:
		case len(op.Value) > maxRecord:
			return 0, fmt.Errorf("%w: %d bytes of node %s in one record; %d are the most", control.ErrTooLarge, len(op.Value), r.node, maxRecord)
		case op.Key == record:
			e, err := control.NewTable[directory.Node](r.a.store, control.KindNode, 1).Decode(control.Record{Key: op.Key, Value: op.Value})
			if err != nil {
				return 0, fmt.Errorf("%w: the record of node %s: %w", control.ErrInvalid, r.node, err)
			}
			if e.Value.Head {
				return 0, fmt.Errorf("%w: node %s calls itself a head, and is none", control.ErrDenied, r.node)
			}
			if err := r.holds(ctx, op.Lease); err != nil {
				return 0, err
			}
		case strings.HasPrefix(op.Key, control.KindJob+"/"):
			c, err := r.ownJob(ctx, &op)
			if err != nil {
				return 0, err
			}
			txn.If = append(slices.Clone(txn.If), c)
		default:
			return 0, r.denied("write", op.Key)
		}
	}
	return r.a.store.Commit(ctx, txn)
}

// ownJob reports whether a job's record is this node's, before and after op, and
// returns the condition that it is yet.
func (r *restricted) ownJob(ctx context.Context, op *control.Op) (control.Cond, error) {
	mine := func(rec control.Record) error {
		e, err := control.Jobs(r.a.store).Decode(rec)
		if err != nil {
			return fmt.Errorf("%w: a job of node %s: %w", control.ErrInvalid, r.node, err)
		}
		if e.Value.Node != r.node {
			return r.denied("write the job of another node", op.Key)
		}
		return nil
	}
	_, tenant, name, err := control.SplitKey(op.Key)
	if err != nil || !jobs.CheckID(name) || op.Lease != 0 {
		return control.Cond{}, fmt.Errorf("%w: %.100q is no job of node %s", control.ErrInvalid, op.Key, r.node)
	}
	if !op.Delete {
		if err := mine(control.Record{Key: op.Key, Value: op.Value}); err != nil {
			return control.Cond{}, err
		}
	}
	old, err := r.a.store.Get(ctx, op.Key)
	switch {
	case errors.Is(err, control.ErrNotFound):
		if err := r.jobRoom(ctx, tenant); err != nil {
			return control.Cond{}, err
		}
		return control.Absent(op.Key), nil
	case err != nil:
		return control.Cond{}, err
	}
	return control.At(op.Key, old.Modified), mine(old)
}

// jobRoom reports ErrTooLarge where the node has as many records of jobs as it may,
// of a tenant or of all.
func (r *restricted) jobRoom(ctx context.Context, tenant string) error {
	n, of := 0, 0
	for after, more := "", true; more; {
		page, err := r.a.store.List(ctx, control.ListRequest{Prefix: control.KindJob + "/", After: after})
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			if e, err := control.Jobs(r.a.store).Decode(rec); err == nil && e.Value.Node == r.node {
				n++
				if e.Tenant == tenant {
					of++
				}
			}
			after = rec.Key
		}
		more = page.More
	}
	switch {
	case of >= r.a.tenantJobs:
		return fmt.Errorf("%w: node %s has %d jobs of tenant %s in the control state; %d are the most", control.ErrTooLarge, r.node, of, tenant, r.a.tenantJobs)
	case n >= r.a.jobs:
		return fmt.Errorf("%w: node %s has %d jobs in the control state; %d are the most", control.ErrTooLarge, r.node, n, r.a.jobs)
	}
	return nil
}

// holds reports ErrLeaseLapsed for a lease that is not the node's.
func (r *restricted) holds(ctx context.Context, id control.LeaseID) error {
	r.a.mu.Lock()
	until, granted := r.a.leases[r.node][id]
	granted = granted && r.a.now().Before(until)
	r.a.mu.Unlock()
	if granted {
		return nil
	}
	record, _, _ := r.own()
	got, err := r.a.store.Get(ctx, record)
	if err == nil && id != 0 && got.Lease == id {
		return nil
	}
	if err == nil || id == 0 || errors.Is(err, control.ErrNotFound) {
		return fmt.Errorf("lease %x of node %s: %w", int64(id), r.node, control.ErrLeaseLapsed)
	}
	return err
}

// note remembers a lease of the node's, for as long as it lasts.
func (r *restricted) note(id control.LeaseID, ttl time.Duration) {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	if r.a.leases[r.node] == nil {
		r.a.leases[r.node] = map[control.LeaseID]time.Time{}
	}
	r.a.leases[r.node][id] = r.a.now().Add(ttl)
}

// Grant implements control.Store.
func (r *restricted) Grant(ctx context.Context, ttl time.Duration) (control.Lease, error) {
	if ttl > maxLeaseTTL {
		return control.Lease{}, fmt.Errorf("%w: a lease of %v for node %s; %v is the most", control.ErrTooLarge, ttl, r.node, maxLeaseTTL)
	}
	r.a.mu.Lock()
	now := r.a.now()
	for id, until := range r.a.leases[r.node] {
		if !now.Before(until) {
			delete(r.a.leases[r.node], id)
		}
	}
	n := len(r.a.leases[r.node])
	r.a.mu.Unlock()
	if n >= maxLeases {
		return control.Lease{}, fmt.Errorf("%w: node %s has %d leases; %d are the most", control.ErrTooLarge, r.node, n, maxLeases)
	}
	l, err := r.a.store.Grant(ctx, ttl)
	if err == nil {
		r.note(l.ID, l.TTL)
	}
	return l, err
}

// KeepAlive implements control.Store.
func (r *restricted) KeepAlive(ctx context.Context, id control.LeaseID) error {
	if err := r.holds(ctx, id); err != nil {
		return err
	}
	return r.a.store.KeepAlive(ctx, id)
}

// Revoke implements control.Store.
func (r *restricted) Revoke(ctx context.Context, id control.LeaseID) error {
	switch err := r.holds(ctx, id); {
	case errors.Is(err, control.ErrLeaseLapsed):
		return nil // as of one that has lapsed
	case err != nil:
		return err
	}
	return r.a.store.Revoke(ctx, id)
}

// Close implements control.Store. The store is the head's.
func (r *restricted) Close() error { return nil }
