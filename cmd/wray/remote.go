package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/nodeaddr"
)

// remote is a node in another process.
type remote struct {
	tenant string // that it acts for; empty: local
	conn   *link.Conn
	served sync.WaitGroup

	mu  sync.Mutex
	job *node.Job // guarded by mu; that runs, for its output
}

// dialNode connects to a node.
func dialNode(ctx context.Context, address string) (*remote, error) {
	if _, err := nodeaddr.Socket(address); err != nil {
		return nil, &usageError{err}
	}
	conn, err := nodeaddr.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	r := &remote{conn: conn}
	r.served.Go(func() { _ = conn.Serve(context.Background(), r.handle) }) // its end is in conn.Err
	return r, nil
}

// Close ends the connection, and with it the jobs.
func (r *remote) Close() error {
	err := r.conn.Close()
	r.served.Wait()
	return err
}

func (r *remote) handle(_ context.Context, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b clientwire.OutputBody
	if m.Kind != clientwire.KindOutput {
		return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.job != nil {
		r.job.Output(b.Task, worker.Stream(b.Stream), b.Data)
	}
	return link.Message{}, nil
}

// call makes a request and decodes its reply into out.
func (r *remote) call(ctx context.Context, kind link.Kind, body any, files []*os.File, out any) error {
	b, err := link.Marshal(body)
	if err != nil {
		return err
	}
	m, err := r.conn.Call(ctx, link.Message{Kind: kind, Body: b, Files: files})
	if errors.Is(err, link.ErrClosed) {
		return &wray.Error{Code: wray.CodeWorkerDied, Message: "the node has gone: " + err.Error(), Hint: "start it again with: wray start"}
	}
	if err != nil {
		return err
	}
	m.CloseFiles()
	return link.Unmarshal(m.Body, out)
}

// Stats counts the node's tasks, of all its jobs.
func (r *remote) Stats(ctx context.Context) (worker.StatsBody, error) {
	var s clientwire.StatsBody
	err := r.call(ctx, clientwire.KindStats, struct{}{}, nil, &s)
	return worker.StatsBody{Waiting: s.Waiting, Running: s.Running, Finished: s.Finished, Failed: s.Failed, OnDisk: s.OnDisk}, err
}

// describe tells a node of a job: by a message and its files, which are good
// until free is called.
func describe(j node.Job) (b clientwire.RunBody, files []*os.File, free func(), err error) {
	l := j.Limits
	b = clientwire.RunBody{Version: clientwire.Version, Job: 1, Name: j.Name, Tenant: j.Tenant, Args: j.Args, Env: j.Env, Egress: j.Egress, Memory: l.Memory, Stack: l.Stack,
		Files: l.Files, Handles: l.Handles, Windows: l.Windows, LogRate: l.LogRate, Timeout: int64(l.Timeout)}
	var opened []*os.File
	free = func() {
		for _, f := range opened {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	add := func(f *os.File, err error) error {
		if err == nil {
			files, opened = append(files, f), append(opened, f)
		}
		return err
	}
	for _, m := range j.Modules {
		b.Modules = append(b.Modules, m.Name)
		if err := add(nodeaddr.FileOf(m.Wasm)); err != nil {
			return b, nil, nil, fmt.Errorf("module %s: %w", m.Name, err)
		}
	}
	for _, d := range j.Dirs {
		b.Dirs = append(b.Dirs, clientwire.Dir{Guest: d.Guest, ReadOnly: d.ReadOnly})
		if err := add(os.Open(d.Host)); err != nil {
			return b, nil, nil, fmt.Errorf("grant %s: %w", d.Host, err)
		}
	}
	if j.Stdin != nil {
		b.Stdin = true
		files = append(files, j.Stdin)
	}
	return b, files, free, nil
}

// Run runs a job, one at a time. What it is granted goes by descriptor, so that
// the node opens nothing by name.
func (r *remote) Run(ctx context.Context, j node.Job) (int, error) {
	b, files, free, err := describe(j)
	if err != nil {
		return 0, err
	}
	defer free()
	r.mu.Lock()
	r.job = &j
	r.mu.Unlock()
	var ran clientwire.RanBody
	err = r.call(ctx, clientwire.KindRun, b, files, &ran)
	r.mu.Lock() // nothing is printed any more
	r.job = nil
	r.mu.Unlock()
	if ctx.Err() != nil {
		return 0, wray.Errorf(wray.CodeCanceled, "the job was canceled")
	}
	return ran.ExitCode, err
}

// SubmitJob implements jobsClient.
func (r *remote) SubmitJob(ctx context.Context, j node.Job) (info clientwire.JobInfo, err error) {
	j.Tenant = r.tenant
	b, files, free, err := describe(j)
	if err != nil {
		return info, err
	}
	defer free()
	return info, r.call(ctx, clientwire.KindJobSubmit, b, files, &info)
}

// Jobs implements jobsClient.
func (r *remote) Jobs(ctx context.Context) (list clientwire.JobList, err error) {
	return list, r.call(ctx, clientwire.KindJobs, clientwire.JobsBody{Tenant: r.tenant}, nil, &list)
}

// Job implements jobsClient.
func (r *remote) Job(ctx context.Context, id string) (info clientwire.JobInfo, err error) {
	return info, r.call(ctx, clientwire.KindJob, clientwire.JobBody{ID: id, Tenant: r.tenant}, nil, &info)
}

// StopJob implements jobsClient.
func (r *remote) StopJob(ctx context.Context, id string) (info clientwire.JobInfo, err error) {
	return info, r.call(ctx, clientwire.KindJobStop, clientwire.JobBody{ID: id, Tenant: r.tenant}, nil, &info)
}

// JobLogs implements jobsClient.
func (r *remote) JobLogs(ctx context.Context, id string, offset int64, wait bool) (part clientwire.JobLogs, err error) {
	return part, r.call(ctx, clientwire.KindJobLogs, clientwire.JobLogsBody{ID: id, Tenant: r.tenant, Offset: offset, Wait: wait}, nil, &part)
}
