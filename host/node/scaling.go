package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/autoscale"
	"github.com/wray-project/wray/host/autoscale/plan"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// Of the heads that are given groups of nodes one leads: it holds a record in the
// control state, tells all nodes which groups there are, and decides. Each node
// tells it what waits there and what is free, and promises its worker that nodes
// of the groups may come. Who leads next is told all that again.

// scaleState is what who leads tells all nodes.
type scaleState struct {
	Epoch  uint64      `cbor:"1,keyasint"` // grows with who leads
	Groups []groupBody `cbor:"2,keyasint,omitempty"`
}

// groupBody is a group as it is, and what a node of it has.
type groupBody struct {
	What     worker.PromiseBody `cbor:"1,keyasint"`
	Provider string             `cbor:"2,keyasint,omitempty"`
	Min      int                `cbor:"3,keyasint"`
	Max      int                `cbor:"4,keyasint"`
	Wanted   int                `cbor:"5,keyasint"`
	There    int                `cbor:"6,keyasint"`
	Starting int                `cbor:"7,keyasint"`
	Draining int                `cbor:"8,keyasint"`
	Why      string             `cbor:"9,keyasint,omitempty"`
}

// loadReport is what a node tells who leads.
type loadReport struct {
	Load worker.DemandsBody `cbor:"1,keyasint"`
	Jobs int64              `cbor:"2,keyasint"` // whose drivers run there
}

// Times of what nodes tell.
const (
	reportEvery  = time.Second      // a node looks whether it has something to tell
	repeatEvery  = 5 * time.Second  // and tells it again, as does who leads
	reportGood   = 30 * time.Second // how long what a node told is taken to be so
	leaderSilent = time.Minute      // after that nobody leads, where there is a head
	leadRetry    = 2 * time.Second  // until who does not lead tries to
)

// maxReported bounds the shapes that a node tells of, and maxWaiting the tasks.
const (
	maxReported = 64
	maxWaiting  = 1 << 20
)

// scaling is a node's part in that.
type scaling struct {
	n      *Node
	isHead func(peer.Node) bool // by the records of the nodes

	mu      sync.Mutex
	state   scaleState // guarded by mu, as is all that follows
	from    peer.Node  // who told it; this node's own where it leads
	heard   time.Time
	running bool                 // report
	version uint64               // of state.Groups' promises, for the worker
	reports map[peer.Node]loaded // where this node leads

	asking sync.Mutex // one question to the workers at a time

	lead *leading // nil of a node that has no groups; set once by Autoscale
}

// loaded is what a node has told, and when.
type loaded struct {
	loadReport
	at time.Time
}

// known returns the state, and whether somebody leads, or has.
func (s *scaling) known() (scaleState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, len(s.state.Groups) > 0
}

// hear takes what another node says who says that it leads: a head.
func (s *scaling) hear(p *peering, from peer.Node, m *scaleState) {
	if len(m.Groups) <= autoscale.MaxGroups && s.isHead(from) {
		s.set(p, from, *m)
	}
}

func (s *scaling) set(p *peering, from peer.Node, m scaleState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Epoch < s.state.Epoch {
		return
	}
	if !samePromises(s.state.Groups, m.Groups) {
		s.version++
	}
	s.state, s.from, s.heard = m, from, time.Now()
	if !s.running && p.ctx.Err() == nil {
		s.running = true
		p.wg.Go(func() { s.report(p) })
	}
}

func samePromises(a, b []groupBody) bool {
	return slices.EqualFunc(a, b, func(a, b groupBody) bool { return reflect.DeepEqual(a.What, b.What) })
}

// take notes what a node tells.
func (s *scaling) take(from peer.Node, m *loadReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reports != nil && (s.reports[from].at != (time.Time{}) || len(s.reports) < 2*autoscale.MaxNodes) {
		r := *m
		// Copies: what is left out is not to be kept.
		r.Load.Shapes = slices.Clone(r.Load.Shapes[:min(len(r.Load.Shapes), maxReported)])
		r.Load.Custom = slices.Clone(r.Load.Custom[:min(len(r.Load.Custom), wray.MaxCustom)])
		s.reports[from] = loaded{r, time.Now()}
	}
}

// keep forgets what nodes have told that are not there: also such as were never
// seen there. It is called with mu held.
func (s *scaling) keep(there map[peer.Node]bool) {
	maps.DeleteFunc(s.reports, func(id peer.Node, _ loaded) bool { return !there[id] })
}

// report tells who leads how things are here, as long as the node runs.
func (s *scaling) report(p *peering) {
	every := time.NewTicker(reportEvery)
	defer every.Stop()
	var last []byte
	var at time.Time
	var to peer.Node
	for {
		s.expire(p)
		s.mu.Lock()
		from := s.from
		s.mu.Unlock()
		r, err := s.load(p.ctx)
		if err == nil && from.Name != p.n.name() {
			b, err := link.Marshal(&nodeMessage{Load: &r})
			if err == nil && (from != to || string(b) != string(last) || time.Since(at) >= repeatEvery) && p.mesh.TrySend(from, b) == nil {
				last, at, to = b, time.Now(), from
			}
		}
		select {
		case <-p.ctx.Done():
			return
		case <-every.C:
		}
	}
}

// expire forgets the groups of who has led and says nothing more, where another
// head could lead: there is one, and the control state can be written. Else
// nothing is known, and what waits waits.
func (s *scaling) expire(p *peering) {
	if p.m == nil {
		return
	}
	could := p.m.Nodes().MayAct() && slices.ContainsFunc(p.m.Nodes().Nodes(), func(e directory.Entry) bool {
		return e.Node.Head && e.Status == liveness.Alive && time.Since(e.Since) >= leaderSilent
	})
	s.silent(could, time.Now())
}

// silent is expire at one time.
func (s *scaling) silent(could bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !could || s.reports != nil || now.Before(s.heard) {
		s.heard = now // silence counts from when somebody could have spoken
	}
	if len(s.state.Groups) > 0 && now.Sub(s.heard) >= leaderSilent {
		s.state.Groups, s.version = nil, s.version+1
	}
}

// load is how things are here, for all tenants together.
func (s *scaling) load(ctx context.Context) (r loadReport, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	for _, c := range s.n.capacity() {
		switch {
		case c.Custom:
			r.Load.Custom = append(r.Load.Custom, worker.CustomBody{Name: c.Name, Amount: int64(math.Round(c.Free * float64(wray.OneUnit)))})
		case c.Name == "CPU":
			r.Load.CPU = int64(wray.CPUs(c.Free))
		default:
			r.Load.Memory = int64(c.Free)
		}
	}
	all := r.Load
	all.Custom = slices.Clone(all.Custom)
	for _, t := range s.n.allTenants() {
		r.Jobs += t.running.Load()
		w := t.current()
		if w == nil {
			continue
		}
		b, err := s.ask(ctx, t, w)
		if err != nil {
			return r, err
		}
		r.add(&all, &b)
	}
	return r, nil
}

// add counts what waits at a worker, and what it has not free of all.
func (r *loadReport) add(all, b *worker.DemandsBody) {
	r.Load.Shapes = append(r.Load.Shapes, b.Shapes...)
	slices.SortStableFunc(r.Load.Shapes, func(a, b worker.ShapeBody) int { return cmp.Compare(b.Count, a.Count) })
	r.Load.Shapes = r.Load.Shapes[:min(len(r.Load.Shapes), maxReported)]
	r.Load.CPU = max(0, r.Load.CPU-max(0, all.CPU-b.CPU))
	r.Load.Memory = max(0, r.Load.Memory-max(0, all.Memory-b.Memory))
	for _, c := range b.Custom {
		same := func(x worker.CustomBody) bool { return x.Name == c.Name }
		if i, j := slices.IndexFunc(all.Custom, same), slices.IndexFunc(r.Load.Custom, same); i >= 0 && j >= 0 {
			r.Load.Custom[j].Amount = max(0, r.Load.Custom[j].Amount-max(0, all.Custom[i].Amount-c.Amount))
		}
	}
	r.Load.Tasks += b.Tasks
}

// ask asks a tenant's worker what waits there and what is free. It is told of
// promises that it has not heard of. asking is held.
func (s *scaling) ask(ctx context.Context, t *tenant, w *workerProcess) (b worker.DemandsBody, err error) {
	q := worker.DemandBody{Most: maxReported}
	s.mu.Lock()
	version := s.version
	if t.given != w || t.givenAt != version {
		q.Set = true
		for _, g := range s.state.Groups {
			q.Promises = append(q.Promises, g.What)
		}
	}
	s.mu.Unlock()
	body, err := link.Marshal(q)
	if err != nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindDemand, Body: body})
	if err != nil {
		return b, err
	}
	m.CloseFiles()
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return b, err
	}
	t.given, t.givenAt = w, version
	return b, nil
}

// demands are what a node has said that waits there, checked: it may be anybody.
func (r *loadReport) demands() (list []plan.Demand) {
	for _, x := range r.Load.Shapes[:min(len(r.Load.Shapes), maxReported)] {
		place, err := wray.ParsePlacement(x.Place)
		if err != nil || x.CPU < 0 || x.Memory < 0 || x.Count <= 0 || len(x.Custom) > wray.MaxCustom {
			continue
		}
		d := plan.Demand{Resources: wray.Resources{CPU: wray.CPU(x.CPU), Memory: x.Memory}, Place: *place, Count: int(min(x.Count, maxWaiting))}
		for _, c := range x.Custom {
			d.Custom = append(d.Custom, wray.Custom{Name: c.Name, Amount: wray.Amount(min(max(c.Amount, 0), int64(wray.MaxAmount)))})
		}
		list = append(list, d)
	}
	return list
}

// leading is a head's part that has groups.
type leading struct {
	n      *Node
	m      *member.Member
	s      *scaling
	cfg    AutoscaleConfig
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once

	// Of the one goroutine that leads:
	epoch   uint64
	seen    map[peer.Node]*sighting
	told    map[peer.Node]time.Time
	lastSet []groupBody
}

// sighting is since when who leads knows of a node, and since when it does nothing.
type sighting struct {
	first time.Duration
	idle  time.Duration
	busy  bool
}

// AutoscaleConfig says which groups there are, and who provides their nodes.
type AutoscaleConfig struct {
	Groups    []plan.Group
	Names     map[string]string // of the groups' providers, for people
	Providers map[string]autoscale.Provider
	Log       *slog.Logger // nil drops what it says
}

// Autoscale has this head keep groups of nodes, whenever it is the one of the
// heads with groups that leads. It is called once, after Join. The providers are
// the node's from then on, also with an error: it closes them.
func (n *Node) Autoscale(cfg AutoscaleConfig) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &leading{n: n, cfg: cfg, done: make(chan struct{}), cancel: func() {}}
	m := n.Member()
	if m == nil || !m.Self().Head {
		close(l.done)
		return errors.Join(&wray.Error{Code: wray.CodeDenied, Message: member.ErrNoHead.Error(), Hint: "heads keep groups of nodes: start it with --head"}, l.close(context.Background(), false))
	}
	l.m, l.s = m, n.peers.scale
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	n.mu.Lock()
	n.peers.scale.lead = l
	n.mu.Unlock()
	go func() {
		defer close(l.done)
		elected(ctx, m.Store(), m.Self().Name, cfg.Log, l.leadWith)
	}()
	return nil
}

// stopScaling ends what Autoscale has begun, and the nodes that are this
// process's: with drain, as they are done by themselves, as long as ctx lives.
func (n *Node) stopScaling(ctx context.Context, drain bool) error {
	if n.peers == nil {
		return nil
	}
	n.mu.Lock()
	l := n.peers.scale.lead
	n.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.close(ctx, drain)
}

func (l *leading) close(ctx context.Context, drain bool) (err error) {
	l.once.Do(func() {
		l.cancel()
		<-l.done
		var mu sync.Mutex
		var wg sync.WaitGroup
		for g, p := range l.cfg.Providers {
			wg.Go(func() {
				if cerr := closeProvider(ctx, p, drain); cerr != nil {
					mu.Lock()
					defer mu.Unlock()
					err = errors.Join(err, fmt.Errorf("end the nodes of group %s: %w", g, cerr))
				}
			})
		}
		wg.Wait()
	})
	return err
}

// closeProvider closes p: with drain, and when ctx ends at once.
func closeProvider(ctx context.Context, p autoscale.Provider, drain bool) error {
	if !drain {
		return p.Close(false)
	}
	drained := make(chan error, 1)
	go func() { drained <- p.Close(true) }() // it is waited for
	select {
	case err := <-drained:
		return err
	case <-ctx.Done():
		return errors.Join(p.Close(false), <-drained)
	}
}

// elected has this head, by its name, lead whenever no other does, until ctx
// ends: act returns when its own ctx ends, which is at the latest when the head
// leads no more.
func elected(ctx context.Context, s control.Store, name string, log *slog.Logger, act func(context.Context, *control.Hold)) {
	key, err := control.Key(control.KindLead, control.Cluster, "autoscale")
	if err != nil {
		return
	}
	for ctx.Err() == nil {
		h, err := control.Acquire(ctx, s, key, []byte(name), control.HoldOptions{})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(leadRetry):
			}
			continue
		}
		leads, end := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() {
			select {
			case <-h.Lost():
				end()
			case <-leads.Done():
			}
		})
		act(leads, h)
		end()
		watching.Wait()
		over, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlPatience)
		if err := h.Release(over); err != nil && ctx.Err() == nil {
			log.Warn("autoscaling: lead no more", "error", err)
		}
		cancel()
	}
}

func (l *leading) leadWith(ctx context.Context, h *control.Hold) {
	l.s.mu.Lock()
	l.s.reports = map[peer.Node]loaded{}
	l.s.mu.Unlock()
	l.epoch, l.seen, l.told, l.lastSet = uint64(h.Revision()), map[peer.Node]*sighting{}, map[peer.Node]time.Time{}, nil
	autoscale.Run(ctx, autoscale.Options{Groups: l.cfg.Groups, Providers: l.cfg.Providers, Log: l.cfg.Log, See: l.see, Lead: h.Valid, Tell: l.tell,
		Drain: func(ctx context.Context, name string) error { return l.m.Drain(ctx, name, DefaultDrain) }})
	l.s.mu.Lock()
	l.s.reports = nil
	l.s.mu.Unlock()
}

// see is what is known of the nodes, and what waits on them.
func (l *leading) see(ctx context.Context, now time.Duration) (nodes []plan.Node, demand []plan.Demand) {
	self := l.m.Self()
	own := peer.Node{Name: self.Name, Incarnation: self.Incarnation}
	if r, err := l.s.load(ctx); err == nil {
		l.s.take(own, &r)
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	there := map[peer.Node]bool{}
	for _, e := range l.m.Nodes().Nodes() {
		if e.Status != liveness.Alive {
			continue
		}
		id := peer.Node{Name: e.Name, Incarnation: e.Node.Incarnation}
		there[id] = true
		at := l.seen[id]
		if at == nil {
			at = &sighting{first: now, idle: now}
			l.seen[id] = at
		}
		n := plan.Node{Name: e.Name, Group: e.Node.Labels[wray.LabelGroup], Capacity: e.Node.Capacity, Custom: e.Node.Custom, Draining: e.Node.Draining, Busy: true}
		for k, v := range e.Node.Labels {
			n.Labels = append(n.Labels, wray.Label{Key: k, Value: v})
		}
		r, ok := l.s.reports[id]
		switch {
		case ok && time.Since(r.at) < reportGood:
			n.Busy = r.Jobs > 0 || r.Load.Tasks > 0
			n.Free = wray.Resources{CPU: min(wray.CPU(r.Load.CPU), n.Capacity.CPU), Memory: min(r.Load.Memory, n.Capacity.Memory)}
			for _, c := range r.Load.Custom[:min(len(r.Load.Custom), wray.MaxCustom)] {
				n.FreeCustom = append(n.FreeCustom, wray.Custom{Name: c.Name, Amount: wray.Amount(min(max(c.Amount, 0), int64(wray.MaxAmount)))})
			}
			demand = append(demand, r.demands()...)
		case now-at.first < reportGood: // it is there, and has not spoken yet
			n.Free, n.FreeCustom = n.Capacity, n.Custom
		}
		if n.Busy || at.busy {
			at.idle = now
		}
		at.busy, n.IdleSince = n.Busy, at.idle
		nodes = append(nodes, n)
	}
	maps.DeleteFunc(l.seen, func(id peer.Node, _ *sighting) bool { return !there[id] })
	l.s.keep(there)
	return nodes, demand
}

// tell tells all nodes how the groups are: when that has changed, when a node has
// not heard of it, and again and again.
func (l *leading) tell(states []plan.State) {
	m := scaleState{Epoch: l.epoch}
	for _, s := range states {
		m.Groups = append(m.Groups, groupBody{Provider: l.cfg.Names[s.Name], Min: s.Min, Max: s.Max, Wanted: s.Wanted, There: s.There, Starting: s.Starting,
			Draining: s.Draining, Why: s.Why, What: worker.PromiseBody{Name: s.Name, CPU: int64(s.Capacity.CPU), Memory: s.Capacity.Memory,
				Custom: worker.CustomBodies(s.Custom), Labels: worker.LabelBodies(s.Labels)}})
	}
	p := l.n.peers
	self := l.m.Self()
	l.s.set(p, peer.Node{Name: self.Name, Incarnation: self.Incarnation}, m)
	if !reflect.DeepEqual(m.Groups, l.lastSet) {
		clear(l.told)
		l.lastSet = m.Groups
	}
	b, err := link.Marshal(&nodeMessage{Scale: &m})
	if err != nil {
		return
	}
	p.mu.Lock()
	var to []peer.Node
	for id, up := range p.up {
		if up {
			to = append(to, id)
		}
	}
	p.mu.Unlock()
	for _, id := range to {
		if time.Since(l.told[id]) >= repeatEvery && p.mesh.TrySend(id, b) == nil {
			l.told[id] = time.Now()
		}
	}
	for id := range l.told {
		if !slices.Contains(to, id) {
			delete(l.told, id)
		}
	}
}

// scalingOf says what is done about what waits and groups could hold, in words.
func (m *scaleState) scalingOf(groups []string) string {
	if len(groups) == 0 {
		var names []string
		for _, g := range m.Groups {
			names = append(names, g.What.Name)
		}
		return "no group of nodes could ever hold it: " + strings.Join(names, ", ")
	}
	var parts []string
	for _, g := range m.Groups {
		if !slices.Contains(groups, g.What.Name) {
			continue
		}
		s := fmt.Sprintf("a node of group %s could hold it: %d are there, %d starting, %d at most", g.What.Name, g.There, g.Starting, g.Max)
		if g.Why != "" {
			s += "; " + g.Why
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ". ")
}
