package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/internal/plain"
	"github.com/wray-project/wray/internal/rpc"
)

// jobsClient is a node to which jobs are submitted that outlive this process.
type jobsClient interface {
	SubmitJob(ctx context.Context, j node.Job) (clientwire.JobInfo, error)
	Jobs(ctx context.Context) (clientwire.JobList, error)
	Job(ctx context.Context, id string) (clientwire.JobInfo, error)
	StopJob(ctx context.Context, id string) (clientwire.JobInfo, error)
	JobLogs(ctx context.Context, id string, offset int64, wait bool) (clientwire.JobLogs, error)
	Close() error
}

// nodeFlags say which node is asked, and how it answers.
type nodeFlags struct {
	address    string
	credential string
	tenant     string
	asJSON     bool
}

func (o *nodeFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.address, "address", "", "the node at this `ADDRESS`: as wray start prints it, or HOST:PORT of a cluster's, with a token (wray login) or a credential (default your node's)")
	f.StringVar(&o.credential, "credential", "", "`FILE` that wray operator made, for an address HOST:PORT (default $"+credentialEnv+")")
	f.StringVar(&o.tenant, "tenant", "", "act for the tenant `NAME`, at a node of your own (default local; a credential says whose it is)")
	f.BoolVar(&o.asJSON, "json", false, "print JSON, one object a line")
}

// credentialEnv is the variable that names the file with an operator's credential.
const credentialEnv = "WRAY_CREDENTIAL"

func (o *nodeFlags) dial(ctx context.Context) (jobsClient, error) {
	address := cmp.Or(o.address, os.Getenv(nodeaddr.Env))
	if !overNetwork(address) {
		r, err := dialNode(ctx, o.address)
		if err != nil {
			return nil, err
		}
		r.tenant = o.tenant
		return r, nil
	}
	if o.tenant != "" {
		return nil, &usageError{withHint(fmt.Errorf("--tenant %s over the network: a token or a credential says which tenant it is of", o.tenant), "leave --tenant out, or ask a node of your own")}
	}
	file := cmp.Or(o.credential, os.Getenv(credentialEnv))
	if file == "" {
		t, ok, err := userToken(address)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &usageError{withHint(fmt.Errorf("--address %s is a cluster's, where only those with a token or a credential are heard", address),
				"have a token made on a head, with wray token create, and log in: wray login --address %s", address)}
		}
		c, err := rpc.NewUser(t, address)
		if err != nil {
			return nil, err
		}
		return &operatorClient{c, address}, nil
	}
	cred, err := auth.OpenOperator(file)
	if err != nil {
		return nil, withHint(fmt.Errorf("the credential: %w", err), "have one made on a head: wray operator NAME")
	}
	if left := time.Until(cred.NotAfter()); left <= 0 {
		return nil, withHint(fmt.Errorf("the credential in %s ended at %s", file, cred.NotAfter().Format(time.DateTime)), "have another made on a head: wray operator %s", cred.Name)
	}
	c, err := rpc.NewOperator(cred, address)
	if err != nil {
		return nil, err
	}
	return &operatorClient{c, address}, nil
}

// operatorClient is a node of a cluster, over the network.
type operatorClient struct {
	*rpc.Client
	address string
}

// SubmitJob implements jobsClient.
func (c *operatorClient) SubmitJob(ctx context.Context, j node.Job) (clientwire.JobInfo, error) {
	l := j.Limits
	if len(j.Dirs) > 0 {
		return clientwire.JobInfo{}, &usageError{withHint(fmt.Errorf("a directory is granted, %s, and the node at %s is another machine's", j.Dirs[0].Host, c.address),
			"submit it on the node's machine, or put what it needs into the program")}
	}
	spec := clientwire.JobSpec{Args: j.Args, Env: j.Env, Egress: j.Egress, Memory: l.Memory, Stack: int64(l.Stack), Files: int64(l.Files), Handles: int64(l.Handles),
		Windows: int64(l.Windows), LogRate: l.LogRate, Timeout: l.Timeout.Milliseconds()}
	info, err := c.Client.SubmitJob(ctx, spec, &loaded{j.Modules})
	return info, c.explain(err)
}

// Jobs implements jobsClient, as do the methods after it.
func (c *operatorClient) Jobs(ctx context.Context) (clientwire.JobList, error) {
	list, err := c.Client.Jobs(ctx)
	return list, c.explain(err)
}

func (c *operatorClient) Job(ctx context.Context, id string) (clientwire.JobInfo, error) {
	info, err := c.Client.Job(ctx, id)
	return info, c.explain(err)
}

func (c *operatorClient) StopJob(ctx context.Context, id string) (clientwire.JobInfo, error) {
	info, err := c.Client.StopJob(ctx, id)
	return info, c.explain(err)
}

func (c *operatorClient) JobLogs(ctx context.Context, id string, offset int64, wait bool) (clientwire.JobLogs, error) {
	part, err := c.Client.JobLogs(ctx, id, offset, wait)
	return part, c.explain(err)
}

// explain says what to do about a node that is not reached.
func (c *operatorClient) explain(err error) error {
	if errors.Is(err, rpc.ErrUnavailable) {
		return withHint(fmt.Errorf("the node at %s: %w", c.address, err), "see whether it runs and whether the token or the credential is of its cluster and not revoked; any node of the cluster answers")
	}
	return err
}

// loaded is a rpc.ModuleSource of modules in memory.
type loaded struct{ left []node.Module }

func (l *loaded) Next() (string, io.Reader, error) {
	if len(l.left) == 0 {
		return "", nil, io.EOF
	}
	m := l.left[0]
	l.left = l.left[1:]
	return m.Name, bytes.NewReader(m.Wasm), nil
}

func newJob() *cobra.Command {
	cmd := &cobra.Command{
		Use: "job", Short: "Submit jobs to a node, and follow, list and stop them",
		Long: `Job submits programs to a node, where they run on when the command has ended, and
says what became of them. The node keeps the newest of what each prints.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{withHint(fmt.Errorf("there is no command %q", "job "+args[0]), "see wray job --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobSubmit(), newJobList(), newJobLogs(), newJobStatus(), newJobStop())
	return cmd
}

func newJobSubmit() *cobra.Command {
	var n nodeFlags
	var o jobOptions
	var detach bool
	cmd := &cobra.Command{
		Use: "submit PACKAGE|FILE.wasm [--] [ARG...]", Short: "Submit a job to a node, and show what it prints",
		Long: `Submit builds a program as wray run does, gives it to a node, and shows what it prints
until it has ended. The exit code is the driver's.

The job is the node's from the moment on at which its ID is printed, to standard
error: ^C, or the end of this command for any other reason, leaves it running. It has
no standard input.`,
		Example: `  wray job submit ./examples/wordcount
  wray job submit --detach tool.wasm -- --verbose`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{withHint(errors.New("submit needs a package directory or a .wasm file"), "see wray job submit --help")}
			}
			return nil
		},
		ValidArgsFunction: completeProgram,
		RunE: func(cmd *cobra.Command, args []string) error {
			cache, err := cacheDir()
			if err != nil {
				return err
			}
			c, err := n.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			job, err := o.job(cmd.Context(), args, cache)
			if err != nil {
				return err
			}
			info, err := c.SubmitJob(cmd.Context(), job)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case n.asJSON:
				if err := newJSON(out).Encode(jobRecord{Job: &info}); err != nil {
					return err
				}
			case detach:
				fmt.Fprintln(out, info.ID)
			default:
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: job %s runs on node %s\n", info.ID, line(info.Node))
			}
			if detach {
				return nil
			}
			return followJob(cmd, c, &n, info.ID)
		},
	}
	o.flags(cmd)
	n.flags(cmd)
	cmd.Flags().BoolVar(&detach, "detach", false, "print the job's ID and end")
	return cmd
}

// jobRecord is what --json prints a line of. One field is set.
type jobRecord struct {
	Job     *clientwire.JobInfo `json:"job,omitempty"`
	Output  *clientwire.JobLine `json:"output,omitempty"`
	Dropped int64               `json:"dropped,omitempty"` // bytes of the log that are kept no more
}

// followJob shows what a job prints until it has ended, and ends as it did.
func followJob(cmd *cobra.Command, c jobsClient, n *nodeFlags, id string) error {
	ctx := cmd.Context()
	err := showLogs(cmd, c, n, id, true)
	if ctx.Err() != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "wray: job %s goes on; see wray job logs --follow %s, and wray job stop %s\n", id, id, id)
		return err
	}
	if err != nil {
		return err
	}
	info, err := c.Job(ctx, id)
	if err != nil {
		return err
	}
	if n.asJSON {
		if err := newJSON(cmd.OutOrStdout()).Encode(jobRecord{Job: &info}); err != nil {
			return err
		}
	}
	if info.Note != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: %s\n", paragraph(info.Note))
	}
	return jobEnd(&info)
}

// jobEnd is the end of a command that has followed a job to its end.
func jobEnd(info *clientwire.JobInfo) error {
	switch {
	case info.ExitCode != 0:
		return &exitError{info.ExitCode} // its driver has spoken
	case info.State == clientwire.JobStopped:
		return fmt.Errorf("job %s was stopped", info.ID)
	case info.State != clientwire.JobFailed:
		return nil
	}
	text := info.Error
	if info.Trace != "" {
		text += "\n" + clientwire.TraceHeading(line(info.TraceOf)) + "\n" + indent(info.Trace)
	}
	err := errors.New(text)
	if info.Hint != "" {
		return withHint(err, "%s", info.Hint)
	}
	return err
}

// showLogs prints what a job printed, with follow until it has ended.
func showLogs(cmd *cobra.Command, c jobsClient, n *nodeFlags, id string, follow bool) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	out := newPrinter(cmd.OutOrStdout(), cmd.ErrOrStderr())
	out.fail = cancel
	enc := newJSON(cmd.OutOrStdout())
	for offset := int64(0); ; {
		part, err := c.JobLogs(ctx, id, offset, follow)
		if lost := out.lost(); lost != nil {
			return lost
		}
		if err != nil {
			return err
		}
		if part.Dropped > 0 {
			if n.asJSON {
				err = enc.Encode(jobRecord{Dropped: part.Dropped})
			} else {
				out.print("", worker.Notice, fmt.Appendf(nil, "about %s of older output are dropped: the node keeps the newest\n", bytesText(part.Dropped)))
			}
		}
		for i := range part.Parts {
			p := &part.Parts[i]
			if n.asJSON {
				line := p.Line()
				err = errors.Join(err, enc.Encode(jobRecord{Output: &line}))
			} else {
				out.print(p.Task, worker.Stream(p.Stream), p.Data)
			}
		}
		if lost := errors.Join(err, out.lost()); lost != nil {
			return lost
		}
		if part.End || !follow && len(part.Parts) == 0 {
			return nil
		}
		offset = part.Next
	}
}

func newJobLogs() *cobra.Command {
	var n nodeFlags
	var follow bool
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Show what a job printed", Args: cobra.ExactArgs(1),
		Long: `Logs shows what a job printed, as wray run would: the driver's lines as they are, a
task's headed with its name. With --follow it goes on until the job has ended.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := n.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return showLogs(cmd, c, &n, args[0], follow)
		},
	}
	n.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	return cmd
}

func newJobList() *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := n.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Jobs(cmd.Context())
			if err != nil {
				return err
			}
			if list.Partial != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: %s\n", paragraph(list.Partial))
			}
			if n.asJSON {
				for i := range list.Jobs {
					if err := newJSON(cmd.OutOrStdout()).Encode(list.Jobs[i]); err != nil {
						return err
					}
				}
				return nil
			}
			return printJobs(cmd.OutOrStdout(), list.Jobs)
		},
	}
	n.flags(cmd)
	return cmd
}

func newJobStatus() *cobra.Command {
	return newJobAsk("status ID", "Show a job", jobsClient.Job)
}

func newJobStop() *cobra.Command {
	return newJobAsk("stop ID", "Stop a job, and wait for its end", jobsClient.StopJob)
}

// newJobAsk is a command that asks a node for one job.
func newJobAsk(use, short string, ask func(jobsClient, context.Context, string) (clientwire.JobInfo, error)) *cobra.Command {
	var n nodeFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := n.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			info, err := ask(c, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if n.asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(info)
			}
			return printJob(cmd.OutOrStdout(), &info)
		},
	}
	n.flags(cmd)
	return cmd
}

func printJobs(out io.Writer, list []clientwire.JobInfo) error {
	if len(list) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTATE\tSUBMITTED\tTIME\tNODE\tPROGRAM")
	for i := range list {
		j := &list[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\t%s\n", line(j.ID), j.State, time.UnixMilli(j.Submitted).Format(time.DateTime), jobTime(j),
			line(j.Node), line(programText(j)))
	}
	return w.Flush()
}

// programText is a job's program and its arguments, cut short.
func programText(j *clientwire.JobInfo) string {
	s := strings.Join(append([]string{j.Name}, j.Args...), " ")
	s = strings.Join(strings.Fields(s), " ") // on one line
	if r := []rune(s); len(r) > 60 {
		s = string(r[:59]) + "…"
	}
	return s
}

// jobTime is how long a job runs or ran.
func jobTime(j *clientwire.JobInfo) time.Duration {
	end := time.UnixMilli(j.Ended)
	if j.Ended == 0 {
		end = time.Now()
	}
	d := end.Sub(time.UnixMilli(j.Submitted))
	if d > time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}

func printJob(out io.Writer, j *clientwire.JobInfo) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, paragraph(text))
		}
	}
	date := func(ms int64) string {
		if ms == 0 {
			return ""
		}
		return time.UnixMilli(ms).Format(time.DateTime)
	}
	row("job", j.ID)
	row("program", strings.Join(append([]string{j.Name}, j.Args...), " "))
	row("node", j.Node)
	row("by", j.By)
	row("state", j.State)
	row("submitted", date(j.Submitted))
	row("started", date(j.Started))
	row("ended", date(j.Ended))
	row("time", jobTime(j).String())
	if j.ExitCode != 0 {
		row("exit code", fmt.Sprint(j.ExitCode))
	}
	row("note", j.Note)
	row("error", j.Error)
	row("hint", j.Hint)
	if err := w.Flush(); err != nil || j.Trace == "" {
		return err
	}
	_, err := fmt.Fprintf(out, "%s\n%s\n", clientwire.TraceHeading(line(j.TraceOf)), indent(string(plain.Text([]byte(j.Trace)))))
	return err
}
