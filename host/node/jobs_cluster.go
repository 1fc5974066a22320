package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/rpc"
)

// publisher writes the node's jobs to the control state, where the other nodes
// find them. A job does not wait for it: while the state is away, the newest of
// each job is kept for when it is back.
type publisher struct {
	m     *member.Member
	table control.Table[control.Job]

	mu    sync.Mutex
	dirty map[string]published // guarded by mu; by ID
	poke  chan struct{}        // has room for one

	ctx   context.Context
	stop  context.CancelFunc
	ended bool           // guarded by mu; what is dirty is written once more
	wg    sync.WaitGroup // run
}

// published is what is to be written about a job.
type published struct {
	info clientwire.JobInfo
	gone bool
}

const (
	publishRetry = time.Second     // after the control state did not answer
	publishLast  = 3 * time.Second // for what is to be written when the node ends
	// jobAge is how long records are kept of nodes that do not remove them.
	jobAge = 7 * 24 * time.Hour
	// maxListedArgs is the bytes of a job's arguments that its record has.
	maxListedArgs = 1 << 10
)

func newPublisher(m *member.Member) *publisher {
	p := &publisher{m: m, table: control.Jobs(m.Store()), dirty: map[string]published{}, poke: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// changed is the Changed of jobs.Config.
func (p *publisher) changed(info clientwire.JobInfo, gone bool) {
	p.mu.Lock()
	p.dirty[info.ID] = published{info, gone}
	p.mu.Unlock()
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// start begins to write, those jobs first.
func (p *publisher) start(list []clientwire.JobInfo) {
	p.mu.Lock()
	for _, i := range list {
		// Those of the time when the node had another name are not its to tell of.
		if _, newer := p.dirty[i.ID]; !newer && i.Node == p.m.Self().Name {
			p.dirty[i.ID] = published{i, false}
		}
	}
	p.mu.Unlock()
	p.wg.Go(p.run)
}

// close writes what is dirty, for a moment, and ends.
func (p *publisher) close() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	select {
	case p.poke <- struct{}{}:
	default:
	}
	late := time.AfterFunc(publishLast, p.stop)
	p.wg.Wait()
	late.Stop()
	p.stop()
}

func (p *publisher) run() {
	clean := time.NewTimer(0)
	defer clean.Stop()
	for {
		if !p.flush() {
			select {
			case <-time.After(publishRetry):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-p.poke:
		case <-clean.C:
			_ = p.clean(p.ctx) // or an hour later
			clean.Reset(time.Hour)
		case <-p.ctx.Done():
			return
		}
	}
}

// flush writes all that is dirty; false where the control state does not answer.
func (p *publisher) flush() bool {
	for {
		p.mu.Lock()
		ids := slices.Sorted(maps.Keys(p.dirty))
		if len(ids) == 0 {
			p.mu.Unlock()
			return true
		}
		id := ids[0]
		d := p.dirty[id]
		delete(p.dirty, id)
		p.mu.Unlock()
		err := p.write(id, &d)
		if errors.Is(err, control.ErrDenied) || errors.Is(err, control.ErrInvalid) || errors.Is(err, control.ErrTooLarge) {
			slog.Warn("a job is not in the cluster's list", "job", id, "err", err)
			continue // and would not be the next time
		}
		if err != nil {
			p.mu.Lock()
			if _, newer := p.dirty[id]; !newer {
				p.dirty[id] = d
			}
			p.mu.Unlock()
			return false
		}
	}
}

func (p *publisher) write(id string, d *published) error {
	tenant := d.info.Tenant
	for tried := false; ; {
		e, err := p.table.Get(p.ctx, tenant, id)
		missing := errors.Is(err, control.ErrNotFound)
		switch {
		case err != nil && !missing:
			return err
		case d.gone && missing:
			return nil
		case d.gone:
			err = p.table.Delete(p.ctx, e)
		case missing:
			_, err = p.table.Create(p.ctx, tenant, id, p.record(&d.info))
			if errors.Is(err, control.ErrTooLarge) && !clientwire.JobEnded(d.info.State) && !tried {
				tried = true
				if err = makeRoom(p.ctx, p.table, p.m.Self().Name); err == nil {
					continue
				}
			}
		default:
			e.Value = p.record(&d.info)
			_, err = p.table.Update(p.ctx, e)
		}
		if errors.Is(err, control.ErrNewer) {
			return nil // a newer version of this node wrote it
		}
		if !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// makeRoom removes a record of a node that has as many as it may: of a job that has
// ended, the oldest of the tenant that has the most, so that nobody's jobs that run
// are hidden by what others have had. The node itself knows it yet.
func makeRoom(ctx context.Context, table control.Table[control.Job], node string) error {
	of := map[string]int{}
	oldest := map[string]control.Entry[control.Job]{}
	for e, err := range table.All(ctx, "") {
		if err != nil {
			return err
		}
		if e.Value.Node != node {
			continue
		}
		of[e.Tenant]++
		if was, there := oldest[e.Tenant]; e.Value.Ended != 0 && (!there || e.Value.Ended < was.Value.Ended) {
			oldest[e.Tenant] = e
		}
	}
	var victim *control.Entry[control.Job]
	for _, tenant := range slices.Sorted(maps.Keys(oldest)) {
		if e := oldest[tenant]; victim == nil || of[tenant] > of[victim.Tenant] {
			victim = &e
		}
	}
	if victim == nil {
		return fmt.Errorf("%w: all jobs of node %s in the control state run", control.ErrTooLarge, node)
	}
	return table.Delete(ctx, *victim)
}

// clean removes records of jobs that are old and run no more.
func (p *publisher) clean(ctx context.Context) error {
	oldest := time.Now().Add(-jobAge).UnixMilli()
	for e, err := range p.table.All(ctx, "") {
		if err != nil {
			return err
		}
		i := p.info(&e)
		// A node that lives removes its own.
		if _, alive := p.address(e.Value.Node); e.Value.Created < oldest && clientwire.JobEnded(i.State) && (!alive || e.Value.Node == p.m.Self().Name) {
			if e.Value.Node == p.m.Self().Name && e.Value.Incarnation == p.m.Self().Incarnation {
				continue
			}
			if err := p.table.Delete(ctx, e); err != nil && !errors.Is(err, control.ErrConflict) && !errors.Is(err, control.ErrDenied) {
				return err
			}
		}
	}
	return nil
}

var jobStates = map[string]control.JobState{clientwire.JobPending: control.JobPending, clientwire.JobRunning: control.JobRunning,
	clientwire.JobSucceeded: control.JobSucceeded, clientwire.JobFailed: control.JobFailed, clientwire.JobStopped: control.JobStopped}

func (p *publisher) record(i *clientwire.JobInfo) control.Job {
	r := control.Job{State: jobStates[i.State], Node: i.Node, Incarnation: p.m.Self().Incarnation, Name: i.Name, Created: i.Submitted,
		Started: i.Started, Ended: i.Ended, ExitCode: i.ExitCode, By: i.By}
	left := maxListedArgs
	for _, a := range i.Args {
		if left -= len(a); left < 0 {
			r.Args = append(r.Args, "…")
			break
		}
		r.Args = append(r.Args, a)
	}
	if i.Error != "" {
		r.Error = &wray.Error{Code: wray.CodeUserError, Message: clipText(i.Error), Hint: clipText(i.Hint)}
	}
	return r
}

func clipText(s string) string {
	if r := []rune(s); len(r) > 1000 {
		return string(r[:1000]) + "…"
	}
	return s
}

// info is a job by its record, and by what is known of its node.
func (p *publisher) info(e *control.Entry[control.Job]) clientwire.JobInfo {
	r := &e.Value
	i := clientwire.JobInfo{ID: e.Name, Tenant: e.Tenant, Name: r.Name, Args: r.Args, Node: r.Node, Submitted: r.Created, Started: r.Started, Ended: r.Ended,
		ExitCode: r.ExitCode, By: r.By, State: clientwire.JobFailed}
	for text, state := range jobStates {
		if state == r.State {
			i.State = text
		}
	}
	if r.Error != nil {
		i.Error, i.Hint = r.Error.Message, r.Error.Hint
	}
	if clientwire.JobEnded(i.State) {
		return i
	}
	n, known := p.m.Nodes().Node(r.Node)
	if !known || n.Status == liveness.Dead || n.Node.Incarnation > r.Incarnation {
		i.State, i.Error, i.Hint = clientwire.JobFailed, fmt.Sprintf("node %s, which ran it, is gone, or was started again", r.Node), "submit it again"
	}
	return i
}

// address is where a node listens that lives.
func (p *publisher) address(node string) (string, bool) {
	n, known := p.m.Nodes().Node(node)
	return n.Node.Addr, known && n.Status != liveness.Dead
}

// listTime is how long a listing waits for the control state.
const listTime = 5 * time.Second

// Jobs returns a tenant's jobs in the cluster as far as the node knows them, the
// newest first.
func (n *Node) Jobs(ctx context.Context, tenant string) (clientwire.JobList, error) {
	kept := n.jobs.Load()
	if kept == nil {
		return clientwire.JobList{}, errNoJobs
	}
	t, err := n.tenant(tenant)
	if err != nil {
		return clientwire.JobList{}, err
	}
	tenant = t.name
	list := clientwire.JobList{Jobs: kept.List(tenant)}
	if n.publish == nil {
		return list, nil
	}
	own := map[string]bool{}
	for i := range list.Jobs {
		own[list.Jobs[i].ID] = true
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for e, err := range n.publish.table.All(ctx, tenant) {
		if err != nil {
			list.Partial = fmt.Sprintf("jobs of other nodes may be missing: %v", err)
			break
		}
		if !own[e.Name] {
			list.Jobs = append(list.Jobs, n.publish.info(&e))
		}
	}
	jobs.Sort(list.Jobs)
	return list, nil
}

// Job returns a job of a tenant, of any node. Another's is as one that is not
// there.
func (n *Node) Job(ctx context.Context, tenant, id string) (clientwire.JobInfo, error) {
	tenant = cmp.Or(tenant, n.cfg.Tenant)
	return onOwner(n, ctx, tenant, id, func(k *jobs.Jobs) (clientwire.JobInfo, error) { return k.Get(tenant, id) },
		func(c *rpc.Client) (clientwire.JobInfo, error) { return c.Job(ctx, id) },
		func(i clientwire.JobInfo) (clientwire.JobInfo, error) { return i, nil })
}

// StopJob ends a job, of any node, and waits for its end.
func (n *Node) StopJob(ctx context.Context, tenant, id string) (clientwire.JobInfo, error) {
	tenant = cmp.Or(tenant, n.cfg.Tenant)
	return onOwner(n, ctx, tenant, id, func(k *jobs.Jobs) (clientwire.JobInfo, error) { return k.Stop(ctx, tenant, id) },
		func(c *rpc.Client) (clientwire.JobInfo, error) { return c.StopJob(ctx, id) },
		func(i clientwire.JobInfo) (clientwire.JobInfo, error) { return i, nil })
}

// JobLogs returns a part of what a job printed, on any node: see jobs.Jobs.Logs.
func (n *Node) JobLogs(ctx context.Context, tenant, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	tenant = cmp.Or(tenant, n.cfg.Tenant)
	return onOwner(n, ctx, tenant, id, func(k *jobs.Jobs) (clientwire.JobLogs, error) { return k.Logs(ctx, tenant, id, offset, wait) },
		func(c *rpc.Client) (clientwire.JobLogs, error) { return progress(ctx, c, id, offset, wait) },
		func(i clientwire.JobInfo) (clientwire.JobLogs, error) {
			return clientwire.JobLogs{}, &wray.Error{Code: wray.CodeWorkerDied, Node: i.Node,
				Message: fmt.Sprintf("node %s, which keeps what job %s printed, is not there", i.Node, id), Hint: "start it again: its log is on its disk"}
		})
}

// progress asks another node for a part of a log. One that has nothing to say is
// not asked again at once, and one that goes back is not believed.
func progress(ctx context.Context, c *rpc.Client, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	part, err := c.JobLogs(ctx, id, offset, wait)
	switch {
	case err != nil:
		return part, err
	case part.Next < offset:
		return clientwire.JobLogs{}, wray.Errorf(wray.CodeInternal, "the log of job %s goes from %d back to %d", id, offset, part.Next)
	case wait && !part.End && part.Next == offset && len(part.Parts) == 0:
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return part, nil
}

// onOwner does something about a job where it runs or ran: here, at the node that
// has it, or, where that is gone, by its record.
func onOwner[T any](n *Node, ctx context.Context, tenant, id string, here func(*jobs.Jobs) (T, error), there func(*rpc.Client) (T, error), gone func(clientwire.JobInfo) (T, error)) (T, error) {
	var none T
	kept := n.jobs.Load()
	if kept == nil {
		return none, errNoJobs
	}
	if _, err := n.tenant(tenant); err != nil {
		return none, err
	}
	out, err := here(kept)
	if !errors.Is(err, jobs.ErrNoJob) || n.publish == nil || !jobs.CheckID(id) {
		return out, err
	}
	e, terr := n.publish.table.Get(ctx, tenant, id)
	if errors.Is(terr, control.ErrNotFound) {
		return none, err
	}
	if terr != nil {
		return none, &wray.Error{Code: wray.CodeWorkerDied, Message: fmt.Sprintf("job %s is not of this node, and which has it is not known now: %v", id, terr), Hint: "try again"}
	}
	addr, alive := n.publish.address(e.Value.Node)
	if e.Value.Node == n.name() || !alive {
		return gone(n.publish.info(&e))
	}
	c, cerr := rpc.NewClient(n.Member().Guard(), e.Value.Node, addr)
	if cerr != nil {
		return none, cerr
	}
	defer c.Close()
	out, err = there(c)
	if errors.Is(err, rpc.ErrNoJob) {
		return none, jobs.NoJob(id)
	}
	if errors.Is(err, rpc.ErrUnavailable) {
		return none, &wray.Error{Code: wray.CodeWorkerDied, Node: e.Value.Node, Message: fmt.Sprintf("node %s, which has job %s, does not answer: %v", e.Value.Node, id, err), Hint: "try again; wray status shows which nodes live"}
	}
	return out, err
}

// jobsForOthers is what the node does about jobs for operators and other nodes.
type jobsForOthers struct{ n *Node }

var _ rpc.Jobs = jobsForOthers{}

// mine is the node's own jobs, of whichever tenant, which are all that other nodes
// ask for: they have looked where a tenant's job is.
func (j jobsForOthers) mine(from access.Principal) (*jobs.Jobs, bool) {
	kept := j.n.jobs.Load()
	return kept, kept != nil && from.Kind == access.Node
}

func (j jobsForOthers) Jobs(ctx context.Context, from access.Principal) (clientwire.JobList, error) {
	if kept, only := j.mine(from); only {
		return clientwire.JobList{Jobs: kept.All()}, nil
	}
	return j.n.Jobs(ctx, from.Tenant)
}

func (j jobsForOthers) Job(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error) {
	if kept, only := j.mine(from); only {
		return noJob(kept.Get("", id))
	}
	return noJob(j.n.Job(ctx, from.Tenant, id))
}

func (j jobsForOthers) StopJob(ctx context.Context, from access.Principal, id string) (clientwire.JobInfo, error) {
	if kept, only := j.mine(from); only {
		return noJob(kept.Stop(ctx, "", id))
	}
	info, err := j.n.StopJob(ctx, from.Tenant, id)
	j.n.done(ctx, from, access.JobStop, id, err)
	return noJob(info, err)
}

func (j jobsForOthers) JobLogs(ctx context.Context, from access.Principal, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	if kept, only := j.mine(from); only {
		return noJob(kept.Logs(ctx, "", id, offset, wait))
	}
	return noJob(j.n.JobLogs(ctx, from.Tenant, id, offset, wait))
}

// noJob has an error match rpc's.
func noJob[T any](v T, err error) (T, error) {
	if errors.Is(err, jobs.ErrNoJob) {
		err = errors.Join(rpc.ErrNoJob, err)
	}
	return v, err
}

// SubmitJob implements rpc.Jobs. Who comes over the network is granted nothing of
// this machine: no directory, no standard input.
func (j jobsForOthers) SubmitJob(ctx context.Context, from access.Principal, spec clientwire.JobSpec, modules rpc.ModuleSource) (clientwire.JobInfo, error) {
	var none clientwire.JobInfo
	n := j.n
	if n.jobs.Load() == nil {
		return none, errNoJobs
	}
	job, err := jobOf(&spec)
	if err != nil {
		return none, err
	}
	by := from.Short()
	mods, give, err := n.readModules(ctx, "tenant "+from.Tenant, modules)
	if err != nil {
		return none, err
	}
	job.Tenant, job.Name, job.Modules, job.Compiled = from.Tenant, mods[0].Name, mods, give
	info, err := n.SubmitJob(job, by, give)
	n.done(ctx, from, access.JobSubmit, info.ID+" "+job.Name, err)
	return info, err
}

// jobOf makes a job of what came over the network.
func jobOf(s *clientwire.JobSpec) (Job, error) {
	bad := func(what string, v int64) (Job, error) {
		return Job{}, &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("%s: %d is no such number", what, v), Hint: "leave it out for the default"}
	}
	for _, b := range []struct {
		what string
		v    int64
		most int64
	}{
		{"memory", s.Memory, 4 << 30}, {"stack", s.Stack, 1 << 30}, {"max_files", s.Files, math.MaxInt32}, {"max_handles", s.Handles, math.MaxInt32},
		{"max_windows", s.Windows, math.MaxInt32}, {"log_rate", s.LogRate, 1 << 50}, {"timeout_ms", s.Timeout, math.MaxInt64 / int64(time.Millisecond) / 1000},
	} {
		if b.v < 0 || b.v > b.most {
			return bad(b.what, b.v)
		}
	}
	if s.Memory > 0 && s.Memory < 64<<10 {
		return bad("memory", s.Memory)
	}
	if s.Stack > 0 && s.Stack < 64<<10 {
		return bad("stack", s.Stack)
	}
	return Job{Args: s.Args, Env: s.Env, Egress: s.Egress, Limits: worker.Limits{Memory: s.Memory, Stack: int32(s.Stack), Files: int(s.Files), Handles: int(s.Handles),
		Windows: int(s.Windows), LogRate: s.LogRate, Timeout: time.Duration(s.Timeout) * time.Millisecond}}, nil
}

// maxModules is how many modules a job may have that comes over the network.
const maxModules = 128

// readModules reads the modules of a job as they come. What they take of the
// node's memory is taken of its budget, and of what by may have of that, before
// they are read: give returns it. That they come in time is for what carries them.
func (n *Node) readModules(ctx context.Context, by string, from rpc.ModuleSource) (mods []Module, give func(), err error) {
	taken := int64(0)
	give = sync.OnceFunc(func() { n.modules.giveFor(by, taken) })
	defer func() {
		if err != nil {
			give()
		}
	}()
	bytes := int64(0)
	for {
		name, content, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if name == "" || len(name) > jobs.MaxName || len(mods) == maxModules {
			return nil, nil, wray.Errorf(wray.CodeBadArgument, "a job has 1 to %d modules, whose names have 1 to %d bytes", maxModules, jobs.MaxName)
		}
		var wasm []byte
		for {
			if len(wasm) == cap(wasm) {
				more := max(int64(cap(wasm)), 1<<20)
				if bytes+more > maxJobBytes {
					more = maxJobBytes - bytes
				}
				if more <= 0 {
					return nil, nil, n.modules.takeFor(by, maxJobBytes+1) // which says that
				}
				if err := n.modules.takeFor(by, more); err != nil {
					return nil, nil, err
				}
				taken += more
				bytes += more
				wasm = slices.Grow(wasm, int(more))[:len(wasm)]
				wasm = wasm[: len(wasm) : len(wasm)+int(more)]
			}
			k, err := content.Read(wasm[len(wasm):cap(wasm)])
			wasm = wasm[:len(wasm)+k]
			if err == io.EOF {
				break
			}
			if err := cmp.Or(err, ctx.Err()); err != nil {
				return nil, nil, err
			}
		}
		// What was taken and is not used.
		left := int64(cap(wasm) - len(wasm))
		n.modules.giveFor(by, left)
		taken -= left
		bytes -= left
		mods = append(mods, Module{Name: name, Wasm: wasm})
	}
	if len(mods) == 0 {
		return nil, nil, &wray.Error{Code: wray.CodeBadArgument, Message: "the job has no module", Hint: "send the driver's module first"}
	}
	return mods, give, nil
}
