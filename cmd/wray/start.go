package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/nodeaddr"
)

func newStart() *cobra.Command {
	var o nodeOptions
	var c clusterOptions
	var j jobsOptions
	drainFor := span(node.DefaultDrain)
	var groups string
	cmd := &cobra.Command{
		Use: "start", Short: "Run a node that takes jobs and native clients", Args: cobra.NoArgs,
		Long: `Start runs a node until it is interrupted. It takes jobs (wray job submit, wray run
--address) and sessions of native programs (sdk.Connect) at a unix socket, from you
alone: other users are refused.

With --head it begins a cluster too, and prints the command with which another
machine joins. Nodes reach each other at one port, with certificates of the
cluster's own; nothing else listens on the network. On SIGTERM such a node is
drained: see wray node drain. On an interrupt it leaves at once.`,
		Example: `  wray start
  wray start --head --listen 192.0.2.1:7420
  wray start --head --autoscale groups.yaml
  wray run --address unix://$XDG_RUNTIME_DIR/wray/node.sock ./examples/wordcount`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return start(cmd, &o, &c, &j, groups, time.Duration(drainFor))
		},
	}
	f := cmd.Flags()
	f.StringVar(&j.socket, "socket", "", "listen at this `PATH` (default wray/node.sock in $XDG_RUNTIME_DIR, or run/node.sock in the cache)")
	f.StringVar(&j.dir, "jobs-dir", "", "`DIR` that keeps submitted jobs and what they print (default jobs in --cluster-dir, or in $XDG_STATE_HOME/wray)")
	f.Var(bounded{&j.log, 1 << 20, 1 << 40, "a job's log"}, "job-log-limit", "bytes kept of what a submitted job prints, the newest (default 16MiB)")
	f.StringVar(&j.audit, "audit-dir", "", "`DIR` that keeps the log of what was done and refused (default audit beside what --jobs-dir names)")
	f.Var(bounded{&j.auditKeep, 256 << 20, 1 << 50, "the log of what was done"}, "audit-keep", "bytes kept of that log, the newest (default 2GiB)")
	f.Var(&o.idle, "worker-idle", fmt.Sprintf("how long a tenant's worker is kept that has nothing to do (default %v)", node.DefaultWorkerIdle))
	f.Var(&drainFor, "drain", "on SIGTERM, how long what runs has to end before the node leaves its cluster")
	f.StringVar(&groups, "autoscale", "", "as a head, start and remove nodes by what waits: `FILE` has the groups of nodes (default as the last time; none: --autoscale=)")
	o.flags(f)
	c.flags(f)
	return cmd
}

// jobsOptions say where a node takes jobs, and keeps them.
type jobsOptions struct {
	socket string
	dir    string
	log    size
	audit  string

	auditKeep size
}

// keep is where they are kept.
func (j *jobsOptions) keep(c *clusterOptions, socket string) (string, error) {
	if j.dir != "" {
		return j.dir, nil
	}
	if c.wanted() {
		conf, err := c.config()
		return filepath.Join(conf.Dir, "jobs"), err
	}
	state, err := stateDir()
	if err != nil {
		return "", withHint(fmt.Errorf("no directory that keeps submitted jobs: %w", err), "name one with --jobs-dir, or set HOME or XDG_STATE_HOME")
	}
	// Nodes that are alone are told apart by their sockets.
	sum := sha256.Sum256([]byte(socket))
	return filepath.Join(state, "jobs", hex.EncodeToString(sum[:8])), nil
}

// openAudit opens the audit log: beside the jobs, which are kept at a path.
func (j *jobsOptions) openAudit(c *clusterOptions, jobs string) (*audit.Log, error) {
	dir := j.audit
	switch {
	case dir != "":
	case j.dir != "":
		dir = filepath.Clean(jobs) + "-audit"
	case c.wanted(): // they are in the cluster's directory
		dir = filepath.Join(filepath.Dir(jobs), "audit")
	default: // they are told apart by the socket
		dir = filepath.Join(filepath.Dir(filepath.Dir(jobs)), "audit", filepath.Base(jobs))
	}
	l, err := audit.Open(dir, audit.Options{Keep: int64(j.auditKeep), Warn: slog.Default()})
	if err != nil {
		return nil, withHint(fmt.Errorf("the audit log: %w", err), "another node runs already and keeps its log there, or the log was changed, which wray audit verify %s says; name another place with --audit-dir", dir)
	}
	return l, nil
}

func start(cmd *cobra.Command, o *nodeOptions, c *clusterOptions, j *jobsOptions, groups string, drainFor time.Duration) error {
	scale, err := readGroups(groups, cmd.Flags().Changed("autoscale"), c)
	if err != nil {
		return err
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	socket := j.socket
	if dir := filepath.Dir(filepath.Dir(socket)); socket != "" {
		// As for other directories that flags name: the last may be made, not what
		// it is in.
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return &usageError{withHint(fmt.Errorf("--socket %s: there is no directory %s", socket, dir), "make it, where the name is right: mkdir -p %s", filepath.Dir(socket))}
		}
	} else {
		if socket, err = nodeaddr.DefaultSocket(); err != nil {
			return err
		}
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return err
	}
	n, err := o.node(cache)
	if err != nil {
		return err
	}
	defer n.Close()
	if c.alone && c.asked() {
		_, err := c.config()
		return err
	}
	if err := node.CheckSocket(socket); err != nil { // before a cluster is made, and its first token shown
		return err
	}
	dir, err := j.keep(c, socket)
	if err != nil {
		return err
	}
	c.others(cmd.ErrOrStderr())
	log, err := j.openAudit(c, dir)
	if err != nil {
		return err
	}
	// It is closed when the node is, which records to its end.
	defer func() { errors.Join(n.Close(), log.Close()) }()
	n.Audit(log)
	if c.wanted() {
		if err := c.join(cmd, n); err != nil {
			return err
		}
		if err := scale.remember(); err != nil {
			return fmt.Errorf("keep which groups of nodes there are: %w", err)
		}
	}
	if err := n.TakeJobs(dir, int64(j.log)); err != nil {
		return fmt.Errorf("--jobs-dir %s: %w", dir, err)
	}
	s, err := n.Serve(socket, false)
	if err != nil {
		return err
	}
	if scale.conf != nil {
		if err := autoscaled(n, scale.conf, o, c); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "wray: a node listens at unix://%s\n", socket)
	select {
	case <-cmd.Context().Done():
		if by := interrupted(0); errors.As(context.Cause(cmd.Context()), &by) && syscall.Signal(by) == syscall.SIGTERM && n.Member() != nil {
			return errors.Join(drained(cmd, n, drainFor), s.Close())
		}
		return s.Close()
	case <-n.Drained():
		return errors.Join(drained(cmd, n, 0), s.Close())
	case <-n.Ended():
		err := n.Member().Nodes().Err()
		if errors.Is(err, directory.ErrLeft) { // nobody but a drain has left
			return errors.Join(drained(cmd, n, 0), s.Close())
		}
		return errors.Join(withHint(fmt.Errorf("this node is in the cluster no more: %w", err), "start it again; what others had lent it is done again elsewhere, and its own jobs have ended"), s.Close())
	}
}

// drained drains a node, or says how its drain went.
func drained(cmd *cobra.Command, n *node.Node, within time.Duration) error {
	left, err := n.Drain(within)
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "wray: the node has left its cluster; of what it had for others %d tasks ended and %d are run elsewhere, %d objects moved and %d are lost\n",
		left.Ended, left.Moved, left.Fetched, left.Lost)
	return nil
}

// inspected is a node that others can ask what it holds.
type inspected struct {
	laptop
	s *node.Server
}

// laptop is a node of this process, and what it does for its own tenant.
type laptop struct{ *node.Node }

// Stats implements runner.
func (l laptop) Stats(ctx context.Context) (worker.StatsBody, error) { return l.Node.Stats(ctx, "") }

// inspectable has n tell wray memory what it holds. Where it cannot listen, it
// is not asked.
func inspectable(n *node.Node) runner {
	dir, err := nodeaddr.RuntimeDir()
	if err != nil {
		return laptop{n}
	}
	s, err := n.Serve(filepath.Join(dir, fmt.Sprintf("run-%d.sock", os.Getpid())), true)
	if err != nil {
		return laptop{n}
	}
	return &inspected{laptop{n}, s}
}

// Close ends the node.
func (n *inspected) Close() error {
	err := n.s.Close()
	if cerr := n.Node.Close(); err == nil {
		err = cerr
	}
	return err
}
