package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
)

// follow reads all records of nodes, and then what changes.
func (d *Directory) follow(ctx context.Context) {
	for ctx.Err() == nil {
		rev, err := d.list(ctx)
		if err == nil {
			err = d.watch(ctx, rev+1)
		}
		if ctx.Err() != nil || errors.Is(err, control.ErrClosed) {
			return
		}
		if err != nil && !errors.Is(err, control.ErrCompacted) {
			d.opt.Log.Warn("the nodes' records cannot be read", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(d.opt.Liveness.Silence):
			}
		}
	}
}

// prefix of all records of nodes.
const prefix = control.KindNode + "/"

// list reads all records, and takes those that went meanwhile for lapsed.
func (d *Directory) list(ctx context.Context) (control.Revision, error) {
	there := map[string]bool{}
	req := control.ListRequest{Prefix: prefix}
	for {
		page, err := d.store.List(ctx, req)
		if err != nil {
			return 0, err
		}
		for _, r := range page.Records {
			there[r.Key] = true
			d.record(r)
		}
		req.At = page.Revision
		if !page.More {
			break
		}
		req.After = page.Records[len(page.Records)-1].Key
	}
	d.mu.Lock()
	var gone []string
	for name := range d.records {
		key, err := control.Key(control.KindNode, control.Cluster, name)
		if err == nil && !there[key] {
			gone = append(gone, name)
		}
	}
	d.mu.Unlock()
	for _, name := range gone {
		d.lapsed(name, req.At)
	}
	return req.At, nil
}

func (d *Directory) watch(ctx context.Context, from control.Revision) error {
	w, err := d.store.Watch(ctx, prefix, from)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		b, err := w.Next(ctx)
		if errors.Is(err, control.ErrUnavailable) && ctx.Err() == nil {
			select { // it goes on where it was
			case <-ctx.Done():
			case <-time.After(d.opt.Liveness.Silence / 4):
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range b.Events {
			if !e.Deleted {
				d.record(e.Record)
			} else if _, tenant, name, err := control.SplitKey(e.Record.Key); err == nil && tenant == control.Cluster {
				d.lapsed(name, b.Revision)
			}
		}
	}
}

// record takes note of a record that is there.
func (d *Directory) record(r control.Record) {
	_, tenant, name, err := control.SplitKey(r.Key)
	if err != nil {
		return
	}
	switch tenant {
	case control.Cluster:
		e, err := d.nodes.Decode(r)
		if err != nil {
			d.opt.Log.Error("the record of a node cannot be read", "node", name, "err", err)
			return
		}
		d.registered(name, e.Value)
	case Graveyard:
		e, err := d.graves.Decode(r)
		if err != nil {
			d.opt.Log.Error("the record of a dead node cannot be read", "node", name, "err", err)
			return
		}
		d.condemned(name, e.Value)
	}
}

func (d *Directory) registered(name string, n Node) {
	if name == d.name {
		if n.Incarnation > d.incarnation {
			d.end(fmt.Errorf("%w: incarnation %d, at %s", ErrSuperseded, n.Incarnation, n.Addr))
			return
		}
		d.show(name, n, liveness.Alive, "it is this node")
		return
	}
	d.mu.Lock()
	old, known := d.records[name]
	if known && old.Incarnation > n.Incarnation {
		d.mu.Unlock()
		return
	}
	d.records[name] = n
	d.mu.Unlock()
	d.event(func(now time.Duration) []liveness.Decision { return d.view.Registered(now, name, n.Incarnation) })
	// What it offers may have changed, and nothing else.
	d.entries.Change(name, func(e Entry, ok bool) (Entry, bool) {
		if !ok || e.Node.Incarnation != n.Incarnation {
			return e, false
		}
		e.Node = n
		return e, true
	})
}

func (d *Directory) lapsed(name string, rev control.Revision) {
	d.mu.Lock()
	n, ok := d.records[name]
	d.mu.Unlock()
	if !ok || name == d.name {
		return // our own: renew finds out
	}
	d.event(func(now time.Duration) []liveness.Decision {
		return d.view.Lapsed(now, name, n.Incarnation, int64(rev))
	})
}

func (d *Directory) condemned(name string, g tombstone) {
	if name == d.name {
		if g.Incarnation >= d.incarnation {
			d.end(fmt.Errorf("%w: %s", ErrCondemned, g.Why))
		}
		return
	}
	if _, known := d.entries.Get(name); !known && g.At != 0 && time.Since(time.Unix(g.At, 0)) > d.opt.Forget {
		return // the others have forgotten it too
	}
	d.event(func(now time.Duration) []liveness.Decision {
		out := d.view.Condemned(now, name, g.Incarnation)
		for i, dec := range out {
			if c, ok := dec.(liveness.Change); ok && g.Why != "" {
				c.Why = g.Why
				out[i] = c
			}
		}
		return out
	})
}

// forget drops nodes that have been dead for long: where nodes come and go under
// new names, who looks would see more and more that nobody asks for.
func (d *Directory) forget(ctx context.Context) {
	every := time.NewTicker(d.opt.Forget / 4)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		for _, e := range d.entries.All() {
			d.forgetLong(e.Name)
		}
	}
}

func (d *Directory) forgetLong(name string) {
	d.mu.Lock() // under which entries follow the view
	defer d.mu.Unlock()
	d.entries.Drop(name, func(e Entry) bool {
		// A head that is lost counts among the heads until somebody removes it.
		if e.Status != liveness.Dead || e.Node.Head || time.Since(e.Since) <= d.opt.Forget {
			return false
		}
		d.view.Forget(name)
		return true
	})
}

// show stores what is thought of a node, for those who watch.
func (d *Directory) show(name string, n Node, s liveness.Status, why string) {
	d.entries.Change(name, func(e Entry, ok bool) (Entry, bool) {
		if ok && e.Node.Incarnation > n.Incarnation {
			return e, false
		}
		since := time.Now()
		if ok && e.Node.Incarnation == n.Incarnation && e.Status == s {
			since, why = e.Since, e.Why
		}
		return Entry{Name: name, Node: n, Status: s, Why: why, Since: since}, true
	})
}

// event gives the view an event and carries out what it decides.
func (d *Directory) event(f func(now time.Duration) []liveness.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dec := range f(d.now()) {
		switch c := dec.(type) {
		case liveness.Change:
			n := d.records[c.Node]
			if n.Incarnation != c.Incarnation {
				n = Node{Incarnation: c.Incarnation}
			}
			d.opt.Log.Info("node "+c.To.String(), "node", c.Node, "incarnation", c.Incarnation, "why", c.Why)
			d.show(c.Node, n, c.To, c.Why)
			if c.To == liveness.Dead && d.records[c.Node].Incarnation == c.Incarnation {
				delete(d.records, c.Node)
			}
		case liveness.Propose:
			d.proposeLocked(c)
		}
	}
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// proposeLocked has a node called dead, unless that is under way. d.mu is held.
func (d *Directory) proposeLocked(p liveness.Propose) {
	if _, busy := d.proposed[p.Node]; busy || d.err != nil || d.opt.Witness {
		return
	}
	d.proposed[p.Node] = struct{}{}
	d.wg.Go(func() {
		if err := d.condemn(p); err != nil {
			d.opt.Log.Warn("a node whose lease lapsed could not be called dead; this is tried again", "node", p.Node, "err", err)
		}
		d.mu.Lock()
		delete(d.proposed, p.Node)
		d.mu.Unlock()
	})
}

// condemn calls a node dead, where its record is still gone.
func (d *Directory) condemn(p liveness.Propose) error {
	ctx, cancel := context.WithTimeout(d.running, d.opt.Liveness.Silence)
	defer cancel()
	key, err := control.Key(control.KindNode, control.Cluster, p.Node)
	if err != nil {
		return err
	}
	stone, err := control.Key(control.KindNode, Graveyard, p.Node)
	if err != nil {
		return err
	}
	still := control.Absent(stone)
	switch g, err := d.graves.Get(ctx, Graveyard, p.Node); {
	case err == nil && g.Value.Incarnation >= p.Incarnation:
		return nil
	case err == nil:
		still = control.At(stone, g.Record.Modified)
	case !errors.Is(err, control.ErrNotFound):
		return err
	}
	b, err := d.grave(p.Incarnation, "its lease lapsed")
	if err != nil {
		return err
	}
	_, err = d.store.Commit(ctx, control.Txn{If: []control.Cond{control.Absent(key), still}, Do: []control.Op{control.Put(stone, b)}})
	if errors.Is(err, control.ErrConflict) {
		return nil // it is back, or somebody was faster
	}
	return err
}

// tick tells the view the time when it has something to do.
func (d *Directory) tick(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.kick:
		case <-timer.C:
			d.event(func(now time.Duration) []liveness.Decision { return d.view.Tick(now) })
		}
		d.mu.Lock()
		at, ok := d.view.Next()
		now := d.now()
		d.mu.Unlock()
		wait := time.Hour
		if ok {
			wait = max(at-now, time.Millisecond)
		}
		timer.Reset(wait)
	}
}
