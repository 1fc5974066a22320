package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/internal/clientwire"
)

// Which tenants there are is in the control state, and every node of a cluster
// follows it there. A node that is alone has those of its configuration. The
// node's own tenant is always there: its record may bound it, too.

// noTenant is the error about a tenant that is not there, or that who asks may not
// use: they are not told apart.
func noTenant(name string) error {
	return &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("there is no tenant %.80q", name),
		Hint: "an operator of the cluster sees which there are: wray tenant list"}
}

// recordLocked is what is known of a tenant. mu is held.
func (n *Node) recordLocked(name string) (control.Tenant, bool) {
	r, ok := n.records[name]
	return r, ok || name == n.cfg.Tenant
}

// record is what is known of the tenant; zero where it is gone.
func (t *tenant) record() control.Tenant {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	r, _ := t.n.recordLocked(t.name)
	return r
}

// admit returns a tenant that may begin something new here. One that was made a
// moment ago is asked for in the control state.
func (n *Node) admit(ctx context.Context, name string) (*tenant, error) {
	t, err := n.tenant(name)
	if m := n.Member(); err != nil && m != nil && control.CheckTenant(name) == nil {
		ctx, cancel := context.WithTimeout(ctx, controlPatience)
		defer cancel()
		e, gerr := control.Tenants(m.Store()).Get(ctx, name, name)
		switch {
		case gerr == nil:
			n.learn(name, e.Value, e.Record.Modified)
			t, err = n.tenant(name)
		case !errors.Is(gerr, control.ErrNotFound):
			err = &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("whether there is a tenant %s is not known now: %v", name, gerr), Hint: "try again"}
		}
	}
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	barred := n.barredLocked(t.name)
	n.mu.Unlock()
	if barred != nil {
		return nil, barred
	}
	if t.record().Disabled {
		return nil, &wray.Error{Code: wray.CodeDenied, Message: fmt.Sprintf("tenant %s takes nothing new: it is disabled", t.name),
			Hint: "an operator of the cluster can enable it: wray tenant enable " + t.name}
	}
	return t, nil
}

// learn takes a record that was asked for, and was last written by a commit that
// the node has not followed yet. One that it has followed is known, or was removed
// since: what was read of it may be old.
func (n *Node) learn(name string, r control.Tenant, at control.Revision) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.records[name]; ok || at <= n.seen {
		return
	}
	all := map[string]control.Tenant{name: r}
	maps.Copy(all, n.records)
	if n.early == nil {
		n.early = map[string]control.Revision{}
	}
	n.records, n.early[name] = all, at
}

// setRecords takes what tenants there are now.
func (n *Node) setRecords(all map[string]control.Tenant) {
	n.changeRecords(func(map[string]control.Tenant) map[string]control.Tenant { return all })
}

// changeRecords takes what tenants there are now, by what change, which is called
// with n.mu held, makes of what there were.
func (n *Node) changeRecords(change func(map[string]control.Tenant) map[string]control.Tenant) {
	n.mu.Lock()
	before := n.records
	all := change(before)
	n.records, n.followed = all, n.followed || n.member != nil
	var gone []*tenant
	for name, t := range n.tenants {
		if _, ok := n.recordLocked(name); !ok || before[name].Created != all[name].Created && name != n.cfg.Tenant {
			// It was removed, or removed and made again: nothing of the first is the second's.
			delete(n.tenants, name)
			t.gone = true
			gone = append(gone, t)
		}
	}
	left := slices.Collect(maps.Values(n.tenants))
	for _, t := range gone {
		finish := func() {}
		if kept := n.jobs.Load(); kept != nil {
			finish = kept.Forget(func(i *clientwire.JobInfo) bool { return i.Tenant == t.name }) // before anybody has the name again
		}
		n.ends.Go(func() { n.bury(t, finish) })
	}
	n.mu.Unlock()
	for _, t := range left {
		if before[t.name].Quota != all[t.name].Quota {
			t.requota()
		}
		if n.barred(t.name) {
			t.expel()
		}
	}
	n.reweigh()
	if n.peers != nil {
		n.peers.greetAgain()
		n.peers.announce()
	}
}

// forgetOld drops jobs of tenants that were removed while this node was away, or
// removed and made again.
func (n *Node) forgetOld(kept *jobs.Jobs) {
	n.mu.Lock()
	records, followed := n.records, n.followed
	n.mu.Unlock()
	if followed {
		kept.Forget(func(i *clientwire.JobInfo) bool {
			r, ok := records[i.Tenant]
			return i.Tenant != n.cfg.Tenant && (!ok || r.Created > i.Submitted)
		})()
	}
}

// bury ends all that the node has of a tenant that was removed.
func (n *Node) bury(t *tenant, forgetJobs func()) {
	t.end()
	forgetJobs()
	if n.peers != nil {
		n.peers.forget(t.peers)
	}
	if err := n.cache.Remove(t.code()); err != nil {
		slog.Warn("compiled code of a tenant that was removed is still on disk", "tenant", t.name, "err", err)
	}
	if err := t.removeState(); err != nil {
		slog.Warn("durable actors of a tenant that was removed are still on disk", "tenant", t.name, "err", err)
	}
}

// followTenants keeps the records as they are in the control state, as long as ctx
// lives. It returns when they were read once, or cannot be now.
func (n *Node) followTenants(ctx context.Context, store control.Store) {
	asked, cancel := context.WithTimeout(ctx, controlPatience)
	w, err := n.readTenants(asked, ctx, store)
	cancel()
	if err != nil {
		slog.Warn("which tenants there are is not known yet", "err", err)
	}
	n.peers.wg.Go(func() {
		defer func() {
			if w != nil {
				w.Close()
			}
		}()
		for ctx.Err() == nil {
			if w == nil {
				if w, err = n.readTenants(ctx, ctx, store); err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond):
					}
					w = nil
				}
				continue
			}
			b, err := w.Next(ctx)
			switch {
			case err == nil:
				n.applyTenants(store, b)
			case errors.Is(err, control.ErrClosed), ctx.Err() != nil:
				return
			case errors.Is(err, control.ErrUnavailable):
			default: // compacted: all is read again
				w.Close()
				w = nil
			}
		}
	})
}

// readTenants reads all records, and watches them for as long as following.
func (n *Node) readTenants(ctx, following context.Context, store control.Store) (control.Watcher, error) {
	table := control.Tenants(store)
	prefix, err := table.Prefix("")
	if err != nil {
		return nil, err
	}
	all := map[string]control.Tenant{}
	req := control.ListRequest{Prefix: prefix}
	for {
		p, err := store.List(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range p.Records {
			if e, err := table.Decode(r); err == nil { // a newer version's is as one that is not there
				all[e.Name] = e.Value
			}
			req.After = r.Key
		}
		if req.At = p.Revision; !p.More {
			break
		}
	}
	w, err := store.Watch(following, prefix, req.At+1)
	if err == nil {
		n.changeRecords(func(before map[string]control.Tenant) map[string]control.Tenant {
			for name, at := range n.early {
				if at > req.At { // it was made after that
					all[name] = before[name]
				} else {
					delete(n.early, name)
				}
			}
			n.seen = max(n.seen, req.At)
			return all
		})
	}
	return w, err
}

// applyTenants takes commits.
func (n *Node) applyTenants(store control.Store, b control.Batch) {
	n.changeRecords(func(before map[string]control.Tenant) map[string]control.Tenant {
		all := maps.Clone(before)
		if all == nil {
			all = map[string]control.Tenant{}
		}
		for _, e := range b.Events {
			_, _, name, err := control.SplitKey(e.Record.Key)
			if err != nil || e.Record.Modified < n.early[name] {
				continue
			}
			delete(n.early, name)
			delete(all, name)
			if !e.Deleted {
				if r, err := control.Tenants(store).Decode(e.Record); err == nil {
					all[name] = r.Value
				}
			}
		}
		n.seen = max(n.seen, b.Revision)
		return all
	})
}
