package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/clientwire"
)

// Tenants returns the tenants that there are, or one, and what this node has of
// them.
func (n *Node) Tenants(_ context.Context, q clientwire.TenantsBody) (clientwire.Tenants, error) {
	out := clientwire.Tenants{Node: n.name()}
	n.mu.Lock()
	records := maps.Clone(n.records)
	n.mu.Unlock()
	if records == nil {
		records = map[string]control.Tenant{}
	}
	if _, ok := records[n.cfg.Tenant]; !ok {
		records[n.cfg.Tenant] = control.Tenant{}
	}
	for _, name := range slices.Sorted(maps.Keys(records)) {
		if q.Name != "" && name != q.Name {
			continue
		}
		r := records[name]
		x := n.tenantInfo(name, &r)
		n.mu.Lock()
		t := n.tenants[name]
		barred := n.barredLocked(name)
		n.mu.Unlock()
		if barred != nil {
			x.Barred = barred.Message
		}
		if t != nil {
			t.describe(&x)
		}
		out.Tenants = append(out.Tenants, x)
	}
	if q.Name != "" && len(out.Tenants) == 0 {
		return out, noTenant(q.Name)
	}
	return out, nil
}

func (n *Node) tenantInfo(name string, r *control.Tenant) clientwire.Tenant {
	x := clientwire.Tenant{Name: name, Weight: weightOf(*r), Disabled: r.Disabled, Created: r.Created, Nodes: r.Nodes, Exclusive: r.Exclusive, Policy: n.policyOf(name, r), Unset: r.Policy == nil}
	for _, f := range wray.QuotaFields {
		if v := *f.Of(&r.Quota); v > 0 {
			if x.Quota == nil {
				x.Quota = map[string]int64{}
			}
			x.Quota[f.Flag] = v
		}
	}
	return x
}

// describe adds what the node has of the tenant.
func (t *tenant) describe(x *clientwire.Tenant) {
	x.Jobs, x.Restarts = t.running.Load(), t.restarts.Load()
	x.Quarantine = t.suspects.list()
	t.stateMu.Lock()
	if t.state != nil {
		u, _ := t.state.Usage() // what cannot be read is not known
		x.State = u.Bytes
	}
	t.stateMu.Unlock()
	if w := t.current(); w != nil {
		x.Worker = true
		x.Memory, _ = w.memory() // where the system tells
		if w.spill != nil {
			x.Spilled = w.spill.Used()
		}
	}
}

// errNoTenants says that the node's tenants are those of its configuration.
var errNoTenants = &wray.Error{Code: wray.CodeBadArgument, Message: "this node is in no cluster, and has no tenants but its own",
	Hint: "tenants are kept by a cluster, of one node too: wray start --head"}

// SetTenant makes a tenant, changes or removes it, on a head.
func (n *Node) SetTenant(ctx context.Context, b clientwire.TenantBody) (clientwire.Tenant, error) {
	var none clientwire.Tenant
	m := n.Member()
	if m == nil {
		return none, errNoTenants
	}
	if !m.Self().Head {
		return none, &wray.Error{Code: wray.CodeDenied, Message: "heads keep which tenants there are", Hint: "ask a head, with --address; wray status shows which nodes are heads"}
	}
	if err := control.CheckTenant(b.Name); err != nil {
		return none, err
	}
	if b.Name == n.cfg.Tenant || b.Name == access.Home {
		if err := checkHome(&b); err != nil {
			return none, err
		}
	}
	table := control.Tenants(m.Store())
	change := func(r *control.Tenant) error {
		if b.Weight != nil {
			r.Weight = *b.Weight
		}
		if b.Disable != nil {
			r.Disabled = *b.Disable
		}
		if b.SetNodes {
			r.Nodes = b.Nodes
		}
		if b.Exclusive != nil {
			r.Exclusive = *b.Exclusive
		}
		if b.Policy != nil {
			r.Policy = b.Policy
		}
		if err := setQuota(&r.Quota, b.Quota); err != nil {
			return err
		}
		return r.Check()
	}
	var e control.Entry[control.Tenant]
	var err error
	switch b.What {
	case clientwire.TenantCreate:
		r := control.Tenant{Created: time.Now().UnixMilli()}
		if err := change(&r); err != nil {
			return none, err
		}
		e, err = createTenant(ctx, m.Store(), b.Name, r)
		if errors.Is(err, control.ErrConflict) {
			return none, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is a tenant %s already", b.Name), Hint: "change it with: wray tenant set, wray quota set"}
		}
	case clientwire.TenantChange:
		e, err = table.Modify(ctx, b.Name, b.Name, change)
		if errors.Is(err, control.ErrNotFound) && b.Name == n.cfg.Tenant { // it is there without a record, too
			r := control.Tenant{}
			if err := change(&r); err != nil {
				return none, err
			}
			e, err = table.Create(ctx, b.Name, b.Name, r)
		}
	case clientwire.TenantRemove:
		return none, n.removeTenant(ctx, m.Store(), b.Name)
	default:
		return none, wray.Errorf(wray.CodeBadArgument, "%.40q is nothing to do with a tenant", b.What)
	}
	if errors.Is(err, control.ErrNotFound) {
		return none, noTenant(b.Name)
	}
	if err != nil {
		return none, err
	}
	return n.tenantInfo(b.Name, &e.Value), nil
}

// checkHome refuses what would make the tenant of those who run the cluster anew,
// or lock them out.
func checkHome(b *clientwire.TenantBody) error {
	switch {
	case b.What == clientwire.TenantCreate:
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is a tenant %s: that of those who run the cluster", b.Name), Hint: "change it with: wray tenant set, wray quota set"}
	case b.Disable != nil && *b.Disable:
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("tenant %s is that of those who run the cluster, and is not disabled: nobody of them could do anything", b.Name),
			Hint: "disable the users who are meant: wray user set NAME --disable"}
	}
	return nil
}

// tenantChange says what is asked for a tenant, for the audit log.
func tenantChange(b *clientwire.TenantBody) string {
	s := fmt.Sprintf("%.20s tenant %.70s", b.What, b.Name)
	if b.Disable != nil {
		s += fmt.Sprintf(", disabled %v", *b.Disable)
	}
	if b.Weight != nil {
		s += fmt.Sprintf(", weight %v", *b.Weight)
	}
	if b.SetNodes {
		s += fmt.Sprintf(", nodes %.300q", b.Nodes)
	}
	if b.Exclusive != nil {
		s += fmt.Sprintf(", exclusive %v", *b.Exclusive)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Quota)) {
		s += fmt.Sprintf(", quota %.20s %d", name, b.Quota[name])
	}
	if p := b.Policy; p != nil {
		s += fmt.Sprintf(", policy dirs %.300q, egress %.300q, private %.300q", p.Dirs, p.Egress, p.Private)
	}
	return s
}

func setQuota(q *wray.Quota, change map[string]int64) error {
	for _, name := range slices.Sorted(maps.Keys(change)) {
		i := slices.IndexFunc(wray.QuotaFields, func(f wray.QuotaField) bool { return f.Flag == name })
		if i < 0 {
			return wray.Errorf(wray.CodeBadArgument, "there is no quota %.40q", name)
		}
		*wray.QuotaFields[i].Of(q) = change[name]
	}
	return nil
}

// createTenant makes a tenant that has nothing of one that had the name before: a
// removal may have stopped halfway.
func createTenant(ctx context.Context, store control.Store, name string, r control.Tenant) (e control.Entry[control.Tenant], err error) {
	table := control.Tenants(store)
	if _, err := table.Get(ctx, name, name); errors.Is(err, control.ErrNotFound) && name != access.Home {
		if err := forgetTenant(ctx, store, name); err != nil {
			return e, err
		}
	}
	return table.Create(ctx, name, name, r)
}

// removeTenant removes a tenant, of which no job may run anywhere.
func (n *Node) removeTenant(ctx context.Context, store control.Store, name string) error {
	if name == n.cfg.Tenant {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("tenant %s is that of those who run the cluster", name), Hint: "it cannot be removed"}
	}
	table := control.Jobs(store)
	for e, err := range table.All(ctx, name) {
		if err != nil {
			return err
		}
		if n.publish == nil || !clientwire.JobEnded(n.publish.info(&e).State) {
			return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("job %s of tenant %s has not ended", e.Name, name),
				Hint: fmt.Sprintf("have it take nothing new with wray tenant disable %s, and stop its jobs: wray job stop --tenant %s %s", name, name, e.Name)}
		}
	}
	return endTenant(ctx, store, name)
}

// endTenant removes what a tenant has, and its own record last: where that stops
// halfway the tenant is still there, takes nothing new, and is removed by asking
// again.
func endTenant(ctx context.Context, store control.Store, name string) error {
	tenants := control.Tenants(store)
	_, err := tenants.Modify(ctx, name, name, func(r *control.Tenant) error {
		r.Disabled = true
		return nil
	})
	if errors.Is(err, control.ErrNotFound) {
		return noTenant(name)
	}
	if err != nil {
		return err
	}
	if err := forgetTenant(ctx, store, name); err != nil {
		return err
	}
	if err := removeAll(ctx, tenants, name); err != nil {
		return err
	}
	return forgetTenant(ctx, store, name) // who was let in meanwhile
}

// forgetTenant removes a tenant's people, who are not those of the next of that
// name, and what is left of its jobs, of nodes that are not there to do that
// themselves.
func forgetTenant(ctx context.Context, store control.Store, name string) error {
	return errors.Join(removeAll(ctx, access.Tokens(store), name), removeAll(ctx, access.Users(store), name), removeAll(ctx, control.Jobs(store), name))
}

// removeAll removes all records of a tenant, those that change meanwhile too.
func removeAll[T any](ctx context.Context, table control.Table[T], tenant string) error {
	for changed := true; changed; {
		changed = false
		for e, err := range table.All(ctx, tenant) {
			if err != nil {
				return err
			}
			switch err := table.Delete(ctx, e); {
			case errors.Is(err, control.ErrConflict):
				changed = true
			case err != nil:
				return err
			}
		}
	}
	return nil
}

// Lift has the node run a module again that it refuses to a tenant.
func (n *Node) Lift(b clientwire.LiftBody) error {
	t, err := n.tenant(b.Tenant)
	if err != nil {
		return err
	}
	return t.suspects.lift(t.name, b.Hash)
}
