// Package autoscale keeps as many nodes of each group as what waits can use: it
// reads which groups there are, asks what waits and who is there, has package
// plan decide, and has providers do what was decided. Which head does so, and
// what nodes say, is for who runs it.
package autoscale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wray-project/wray/host/autoscale/plan"
)

// Provider starts and removes the instances of one group. Its methods are called
// by one goroutine at a time.
type Provider interface {
	// List returns what there is, what is being started and what is being stopped
	// among it. What Start has started is there when it has returned.
	List(ctx context.Context) ([]plan.Instance, error)
	// Start starts n instances. It does not wait until they have joined.
	Start(ctx context.Context, n int) error
	// Stop has instances drain, and go. It does not wait for that. Those that are
	// not there are gone already.
	Stop(ctx context.Context, names []string) error
	// Close ends what belongs to this process, and waits for it: with drain, when
	// each has ended what it does, which takes its time. It may be called twice, and
	// without drain while one with drain waits, which that hastens.
	Close(drain bool) error
}

// Options are what a Driver works with.
type Options struct {
	Groups    []plan.Group
	Providers map[string]Provider // by group; Close is the caller's
	// See says what there is: nodes of the cluster that live, and what waits.
	See func(ctx context.Context, now time.Duration) ([]plan.Node, []plan.Demand)
	// Drain orders a node to leave that no provider here has started.
	Drain func(ctx context.Context, name string) error
	// Lead reports whether this process is the one that acts.
	Lead func() bool
	// Tell is told how the groups are, after each step. While Lead says no, and
	// the process may lead yet, it is told what was so last, again and again.
	Tell  func([]plan.State)
	Every time.Duration // between steps; default 1 s
	Log   *slog.Logger  // nil drops what it says
}

// opLimit is how long a provider may take for one thing.
const opLimit = 20 * time.Second

// Run has the groups be as they are to be, until ctx ends. It waits for what is
// under way.
func Run(ctx context.Context, o Options) {
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &driver{Options: o, planner: plan.New(o.Groups), start: time.Now()}
	every := time.NewTicker(o.Every)
	defer every.Stop()
	for {
		d.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

type driver struct {
	Options
	planner *plan.Planner
	start   time.Time
	last    []plan.State // that was told
}

func (d *driver) now() time.Duration { return time.Since(d.start) }

// failure is what a provider could not do.
type failure struct{ group, why string }

func (d *driver) step(ctx context.Context) {
	in := plan.Input{Blind: map[string]string{}}
	var mu sync.Mutex
	d.each(ctx, func(ctx context.Context, g string, p Provider) {
		list, err := p.List(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			in.Blind[g] = err.Error()
			return
		}
		for _, x := range list {
			x.Group = g
			in.Instances = append(in.Instances, x)
		}
	})
	now := d.now()
	in.Nodes, in.Demand = d.See(ctx, now)
	if ctx.Err() != nil {
		return
	}
	if !d.Lead() {
		// It may be that nobody can lead, and then nobody else says what there is.
		if d.last != nil {
			d.Tell(d.last)
		}
		return
	}
	acts, states := d.planner.Step(now, in)
	d.last = states
	d.Tell(states)
	var failed []failure
	todo := map[string][]plan.Action{}
	for _, a := range acts {
		todo[a.Group] = append(todo[a.Group], a)
	}
	d.each(ctx, func(ctx context.Context, g string, p Provider) {
		if err := d.act(ctx, p, todo[g]); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, failure{g, err.Error()})
		}
	})
	for _, f := range failed {
		d.Log.Warn("autoscaling: a provider failed", "group", f.group, "error", f.why)
		d.planner.Failed(d.now(), f.group, f.why)
	}
}

// each calls f for all groups at once, and waits.
func (d *driver) each(ctx context.Context, f func(ctx context.Context, g string, p Provider)) {
	var wg sync.WaitGroup
	for g, p := range d.Providers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, opLimit)
			defer cancel()
			f(ctx, g, p)
		})
	}
	wg.Wait()
}

// act does what was decided for one group, all of it also where some fails.
func (d *driver) act(ctx context.Context, p Provider, acts []plan.Action) (err error) {
	var stop []string
	for _, a := range acts {
		if !d.Lead() {
			return err // who leads now decides anew
		}
		switch a.Kind {
		case plan.Start:
			d.Log.Info("autoscaling: nodes are started", "group", a.Group, "count", a.Count, "why", a.Why)
			if serr := p.Start(ctx, a.Count); serr != nil {
				err = errors.Join(err, fmt.Errorf("start %d: %w", a.Count, serr))
			}
		case plan.Stop:
			d.Log.Info("autoscaling: a node is removed", "group", a.Group, "node", a.Name, "why", a.Why)
			stop = append(stop, a.Name)
		case plan.Drain:
			d.Log.Info("autoscaling: a node is drained", "group", a.Group, "node", a.Name, "why", a.Why)
			if derr := d.Drain(ctx, a.Name); derr != nil {
				err = errors.Join(err, fmt.Errorf("drain %s: %w", a.Name, derr))
			}
		}
	}
	if len(stop) > 0 && d.Lead() {
		if serr := p.Stop(ctx, stop); serr != nil {
			err = errors.Join(err, fmt.Errorf("stop %v: %w", stop, serr))
		}
	}
	return err
}
