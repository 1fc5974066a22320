package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/jobs"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// TakeJobs has the node take jobs that outlive who submits them, and keep them
// in a directory. logLimit is the bytes kept of what each prints, 0 for
// jobs.DefaultLog. It is called once, after Join.
func (n *Node) TakeJobs(dir string, logLimit int64) error {
	cfg := jobs.Config{Dir: dir, Node: n.name(), Tenant: n.cfg.Tenant, Log: logLimit, Warn: slog.Default()}
	if m := n.Member(); m != nil {
		n.publish = newPublisher(m)
		cfg.Changed = n.publish.changed
	}
	j, err := jobs.Open(cfg)
	if errors.Is(err, jobs.ErrLocked) {
		return &wray.Error{Code: wray.CodeDenied, Message: err.Error(), Hint: "a node runs already, and keeps its jobs there: use that one (wray status), or give this one its own place with --jobs-dir"}
	}
	if err != nil {
		return err
	}
	n.forgetOld(j)
	if n.publish != nil {
		n.publish.start(j.All())
	}
	n.jobs.Store(j)
	return nil
}

// name is what the node is called: in its cluster, or else in errors.
func (n *Node) name() string {
	if m := n.Member(); m != nil {
		return m.Self().Name
	}
	return n.cfg.Name
}

func (n *Node) closeJobs() error {
	var err error
	if j := n.jobs.Load(); j != nil {
		err = j.Close()
		if n.publish != nil {
			n.publish.close()
		}
	}
	return err
}

// errNoJobs says that the node takes no jobs of that kind.
var errNoJobs = &wray.Error{Code: wray.CodeDenied, Message: "this node takes no jobs to keep", Hint: "start one that does with: wray start"}

// SubmitJob runs a job of its own: it goes on when ctx ends. by says who submits
// it, or is empty. free is called when the job has ended, or at once where it is
// refused.
func (n *Node) SubmitJob(j Job, by string, free func()) (clientwire.JobInfo, error) {
	kept := n.jobs.Load()
	if kept == nil {
		free()
		return clientwire.JobInfo{}, errNoJobs
	}
	t, err := n.admit(context.Background(), j.Tenant)
	if err != nil {
		free()
		return clientwire.JobInfo{}, err
	}
	if _, err := t.grants(&j); err != nil { // Run looks again
		free()
		return clientwire.JobInfo{}, err
	}
	compiled := j.Compiled
	run := func(ctx context.Context, started func(), output func(string, uint8, []byte)) (int, error) {
		own := j
		j.Modules = nil // whose bytes may be many
		own.Compiled = func() {
			if compiled != nil {
				compiled()
			}
			started()
		}
		own.Output = func(task string, s worker.Stream, p []byte) { output(task, uint8(s), p) }
		return n.Run(ctx, own)
	}
	size := 0
	for _, e := range j.Env {
		size += len(e)
	}
	if size > jobs.MaxArgs {
		free()
		return clientwire.JobInfo{}, &wray.Error{Code: wray.CodeLimitExceeded, Message: "the job's environment is too long",
			Limit: &wray.Limit{Name: "environment bytes of a job", Value: jobs.MaxArgs, Unit: "bytes"}, Hint: "put what is long into its module"}
	}
	return kept.Submit(t.name, j.Name, j.Args, by, run, free)
}

// jobs serves a client's messages about jobs that outlive it. Clients are of those
// who run the cluster, and may act for any tenant.
func (s *Server) jobs(ctx context.Context, m link.Message) (any, error) {
	switch m.Kind {
	case clientwire.KindJobSubmit:
		var b clientwire.RunBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return nil, err
		}
		if b.Session || b.Stdin {
			return nil, fmt.Errorf("%w: a submitted job with a client's files", link.ErrProtocol)
		}
		j, free, err := s.job(&b, m.Files)
		if err != nil {
			return nil, err
		}
		by := "" // the node's user, for whom all is his own
		if b.Tenant != "" && b.Tenant != s.n.cfg.Tenant {
			by = access.From(ctx).Short()
		}
		info, err := s.n.SubmitJob(j, by, free)
		about(ctx, "%s %s%s", info.ID, j.Name, s.n.of(j.Tenant))
		return info, err
	case clientwire.KindJobs:
		var b clientwire.JobsBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return nil, err
		}
		return s.n.Jobs(ctx, b.Tenant)
	case clientwire.KindJobLogs:
		var b clientwire.JobLogsBody
		if err := link.Unmarshal(m.Body, &b); err != nil {
			return nil, err
		}
		return s.n.JobLogs(ctx, b.Tenant, b.ID, b.Offset, b.Wait)
	}
	var b clientwire.JobBody
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return nil, err
	}
	if m.Kind == clientwire.KindJobStop {
		about(ctx, "%s%s", b.ID, s.n.of(b.Tenant))
		return s.n.StopJob(ctx, b.Tenant, b.ID)
	}
	return s.n.Job(ctx, b.Tenant, b.ID)
}
