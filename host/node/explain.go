package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// Bounds of what is told.
const (
	maxOthers     = 64               // nodes without a worker that is known
	maxStatusJobs = 256              // jobs in a status
	statusGroups  = 16               // groups of what waits in a status
	partPatience  = 10 * time.Second // for one part of a status
)

// Explain says what of a tenant waits on this node and why.
func (n *Node) Explain(ctx context.Context, tenant string, q clientwire.ExplainBody) (clientwire.Explained, error) {
	job, err := n.jobNamed(ctx, tenant, &q)
	if err != nil {
		return clientwire.Explained{}, err
	}
	b, err := n.explain(ctx, tenant, q)
	if err != nil {
		return clientwire.Explained{}, err
	}
	if x := &b.Explained; job && x.Idle == "" && len(x.Tasks) == 0 && len(x.Actors) == 0 && len(x.Groups) == 0 {
		x.Idle = "nothing of that job waits"
	}
	return b.Explained, nil
}

// explain asks the worker, and adds the nodes of the cluster that it does not
// know.
func (n *Node) explain(ctx context.Context, tenant string, q clientwire.ExplainBody) (b worker.ExplainedBody, err error) {
	w, err := n.worker(tenant)
	if err != nil {
		return b, err
	}
	if w == nil {
		if q.What != "" {
			return b, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("no task, actor or job here is called %q: none has run here", q.What),
				Hint: "jobs of other nodes are known to those: ask them with --address"}
		}
		b.Explained.Resources = n.capacity()
	} else {
		body, err := link.Marshal(q)
		if err != nil {
			return b, err
		}
		m, err := w.conn.Call(ctx, link.Message{Kind: worker.KindExplain, Body: body})
		if err != nil {
			return b, err
		}
		m.CloseFiles()
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return b, err
		}
		w.tellGrants(b.Explained.Jobs)
	}
	b.Explained.Node = n.name()
	if n.peers != nil {
		if scale, ok := n.peers.scale.known(); ok {
			for i := range b.Explained.Tasks {
				if w := &b.Explained.Tasks[i]; len(w.Promised) > 0 || w.Never {
					w.Scaling = scale.scalingOf(w.Promised)
				}
			}
		}
	}
	m := n.Member()
	if m == nil {
		return b, nil
	}
	known := map[string]bool{m.Self().Name: true}
	for _, k := range b.Known {
		known[k.Name] = true
	}
	for _, e := range m.Nodes().Nodes() {
		switch {
		case known[e.Name]:
		case len(b.Explained.Others) >= maxOthers:
			b.Explained.MoreOthers++
		default:
			b.Explained.Others = append(b.Explained.Others, clientwire.OtherNode{Node: e.Name, Why: n.whyUnknown(tenant, e)})
		}
	}
	return b, nil
}

// whyUnknown says why nothing is lent to a node of which the tenant's worker knows
// none.
func (n *Node) whyUnknown(tenant string, e directory.Entry) string {
	switch {
	case e.Status == liveness.Dead && e.Why != "":
		return "it is dead: " + e.Why
	case e.Status != liveness.Alive:
		return "it is " + e.Status.String()
	case e.Node.Draining:
		return "it is being drained"
	}
	if why := n.barredAt(cmp.Or(tenant, n.cfg.Tenant), e.Node.Labels); why != "" {
		return why
	}
	return "its worker has not made itself known here, so whether it has room is not known"
}

// capacity is what the node has, none of which is in use.
func (n *Node) capacity() []clientwire.Resource {
	c := n.cfg.Capacity
	if c.CPU <= 0 {
		c.CPU = wray.CPUs(float64(runtime.NumCPU()))
	}
	cores, memory := float64(c.CPU)/float64(wray.OneCPU), float64(c.Memory)
	list := []clientwire.Resource{{Name: "CPU", Total: cores, Free: cores}, {Name: "memory", Total: memory, Free: memory}}
	for _, r := range n.cfg.Custom {
		a := float64(r.Amount) / float64(wray.OneUnit)
		list = append(list, clientwire.Resource{Name: r.Name, Custom: true, Total: a, Free: a})
	}
	return list
}

// jobNamed has q ask for a submitted job by its program's name where it names one
// by its ID; the worker knows no IDs. An error means that the job is not one that
// runs here.
func (n *Node) jobNamed(ctx context.Context, tenant string, q *clientwire.ExplainBody) (bool, error) {
	if !jobs.CheckID(q.What) || n.jobs.Load() == nil {
		return false, nil
	}
	i, err := n.Job(ctx, tenant, q.What)
	switch {
	case err != nil:
		return false, nil // then it is a name as any other
	case clientwire.JobEnded(i.State):
		return false, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("job %s waits for nothing: it has ended (%s)", i.ID, i.State),
			Hint: "wray job status " + i.ID + " says how"}
	case i.Node != n.name():
		return false, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("job %s runs on node %s, which knows what it waits for", i.ID, i.Node),
			Hint: "ask there: wray explain " + i.ID}
	case i.State == clientwire.JobPending:
		return false, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("job %s has no tasks yet: its modules are being compiled", i.ID),
			Hint: "ask again in a moment"}
	}
	q.What = i.Name
	return true, nil
}

// Status is the cluster as this node knows it, and what the node itself does for
// a tenant. What cannot be had is said, and keeps nothing else from being told.
func (n *Node) Status(ctx context.Context, tenant string) (clientwire.Status, error) {
	out := clientwire.Status{Node: n.name()}
	// Each part is got beside the others, in fields of out of its own: one that
	// does not come takes no more than its own time.
	var parts sync.WaitGroup
	var failed [3]string
	part := func(i int, what string, get func(context.Context) error) {
		parts.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, partPatience)
			defer cancel()
			if err := get(ctx); err != nil {
				failed[i] = fmt.Sprintf("%s: %v", what, err)
			}
		})
	}
	part(0, "the tasks of this node", func(ctx context.Context) error {
		st, err := n.Stats(ctx, tenant)
		out.Tasks = clientwire.StatsBody{Waiting: st.Waiting, Running: st.Running, Finished: st.Finished, Failed: st.Failed, OnDisk: st.OnDisk, Retried: st.Retried}
		return err
	})
	free := map[string]clientwire.FreeStatus{}
	part(1, "what waits", func(ctx context.Context) error {
		b, err := n.explain(ctx, tenant, clientwire.ExplainBody{Most: statusGroups})
		if err != nil {
			return err
		}
		out.Waits = &b.Explained
		for _, k := range b.Known {
			free[k.Name] = clientwire.FreeStatus{CPU: k.CPU, Memory: k.Memory}
		}
		free[out.Node] = ownFree(b.Explained.Resources)
		return nil
	})
	part(2, "the jobs", func(ctx context.Context) error {
		list, err := n.Jobs(ctx, tenant)
		if errors.Is(err, errNoJobs) {
			return nil // nor has it any
		}
		for _, j := range list.Jobs {
			switch {
			case clientwire.JobEnded(j.State):
			case len(out.Jobs) < maxStatusJobs:
				out.Jobs = append(out.Jobs, j)
			default:
				out.MoreJobs++
			}
		}
		if err == nil && list.Partial != "" {
			err = errors.New(list.Partial)
		}
		return err
	})
	m := n.Member()
	var learners map[string]bool
	if m != nil {
		learners = m.Learners(ctx)
	}
	parts.Wait()
	for _, why := range failed {
		if why != "" {
			out.Partial = append(out.Partial, why)
		}
	}
	if m == nil {
		return out, nil
	}
	out.Cluster = m.Cluster()
	scale, _ := n.peers.scale.known()
	for _, g := range scale.Groups {
		out.Groups = append(out.Groups, clientwire.GroupStatus{Name: g.What.Name, Provider: g.Provider, Min: g.Min, Max: g.Max, Wanted: g.Wanted,
			There: g.There, Starting: g.Starting, Draining: g.Draining, Why: g.Why})
	}
	for _, e := range m.Nodes().Nodes() {
		s := nodeStatus(e)
		s.Learner = learners[e.Name]
		if f, ok := free[e.Name]; ok && e.Status == liveness.Alive {
			s.Free = &f
		}
		out.Nodes = append(out.Nodes, s)
	}
	return out, nil
}

// ownFree is what this node has free.
func ownFree(list []clientwire.Resource) (f clientwire.FreeStatus) {
	for _, r := range list {
		switch {
		case r.Custom:
		case r.Name == "CPU":
			f.CPU = int64(wray.CPUs(r.Free))
		case r.Name == "memory":
			f.Memory = int64(r.Free)
		}
	}
	return f
}
