package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/spill/s3"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/objectstore"
)

// nodeOptions are the flags of a node.
type nodeOptions struct {
	store     size
	residents count
	sandboxes count
	spill     []string
	spillMax  size
	spillS3   s3.Config
	state     string
	cpus      cores
	resources []string
	labels    []string
	trust     []string
	private   []string
	weak      bool
	idle      span // of wray start
}

func (o *nodeOptions) flags(f *pflag.FlagSet) {
	f.Var(bounded{&o.store, 1 << 20, 1 << 50, "an object store"}, "object-store-memory", "memory of the object store (default three tenths of the machine's)")
	f.StringArrayVar(&o.spill, "spill-dir", nil, "`DIR` for objects that the object store has no room for, or s3://BUCKET/PREFIX, or none (default spill in the cache directory)")
	f.StringVar(&o.spillS3.Endpoint, "spill-endpoint", "", "`URL` of the S3 server (default $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL, or Amazon's)")
	f.StringVar(&o.spillS3.Region, "spill-region", "", "region of the bucket (default $AWS_REGION, $AWS_DEFAULT_REGION, or us-east-1)")
	f.StringVar(&o.spillS3.Credentials, "spill-credentials", "", "`FILE` with credentials for S3, as ~/.aws/credentials (default $AWS_ACCESS_KEY_ID and its kin, or that file)")
	f.Var(&o.spillMax, "spill-limit", "most bytes of such objects on disk (default half of what is free there)")
	f.StringVar(&o.state, "state", "", "`DIR` that keeps durable actors (sdk.Durable), on a disk; no other node may have it")
	f.Var(&o.residents, "max-resident-actors", fmt.Sprintf("actors that have a sandbox at once; others sleep (default %d, and as many as take an eighth of the memory)", worker.DefaultResidents))
	f.Var(&o.sandboxes, "max-live-sandboxes", fmt.Sprintf("sandboxes that tasks have at once; others queue, and fail where all of half as many more wait for others (default %d)", worker.DefaultSandboxes))
	f.Var(&o.cpus, "cpus", "cores that tasks may hold (default all)")
	f.StringArrayVar(&o.resources, "resource", nil, "what tasks may hold of a resource of any name, as `NAME=AMOUNT`; tasks ask for it with sdk.Resource")
	f.StringArrayVar(&o.labels, "labels", nil, "what tasks may ask for of the node that they run on, as `KEY=VALUE,...`; tasks ask with sdk.Labels")
	f.StringArrayVar(&o.trust, "trust", nil, "`FILE` of those of whom one must have signed a module (wray module sign), a name and a key on each line; TENANT=FILE: a tenant's (default anybody, or nobody)")
	f.StringArrayVar(&o.private, "egress-private", nil, "let your own jobs with --egress ask servers in a network that is not public, as `ADDRESS/BITS`; in a cluster a policy of tenant local is in its place")
	f.BoolVar(&o.weak, "allow-weak-jail", false, "run on a machine that cannot lock the worker up: a guest that breaks out of its sandbox then has your rights")
}

// node starts a node.
func (o *nodeOptions) node(cache string) (*node.Node, error) {
	custom, err := parseResources(o.resources)
	if err != nil {
		return nil, err
	}
	labels, err := parseLabels(o.labels)
	if err != nil {
		return nil, err
	}
	trust, of, err := readTrust(o.trust)
	if err != nil {
		return nil, err
	}
	if _, err := (&wray.Policy{Private: o.private}).PrivateNetworks(); err != nil {
		return nil, &usageError{fmt.Errorf("--egress-private: %w", err)}
	}
	for _, dir := range o.spill {
		parent := filepath.Dir(dir)
		if _, err := os.Stat(parent); !strings.Contains(dir, "://") && errors.Is(err, fs.ErrNotExist) {
			return nil, &usageError{withHint(fmt.Errorf("%s %s: there is no directory %s", objectstore.SpillDirFlag, dir, parent), "make it, where the name is right: mkdir -p %s", dir)}
		}
	}
	n, err := node.New(node.Config{CacheDir: cache, StoreBytes: int64(o.store), Residents: int(o.residents), Sandboxes: int(o.sandboxes), AllowWeak: o.weak, SpillDirs: o.spill, SpillLimit: int64(o.spillMax), SpillS3: o.spillS3, State: o.state,
		Capacity: wray.Resources{CPU: wray.CPUs(float64(o.cpus))}, Custom: custom, Labels: labels, Trust: trust, TrustOf: of, WorkerIdle: time.Duration(o.idle), EgressPrivate: o.private})
	if at := (*fs.PathError)(nil); errors.As(err, &at) && strings.HasPrefix(err.Error(), objectstore.SpillDirFlag) {
		return nil, withHint(fmt.Errorf("no file can be made in a directory for objects: %w", err), "name one of your own, on a disk")
	}
	return n, err
}

// runner runs jobs: a node of this process, or one elsewhere.
type runner interface {
	Run(ctx context.Context, j node.Job) (exitCode int, err error)
	Stats(ctx context.Context) (worker.StatsBody, error)
	Close() error
}

// runOptions are the flags of wray run.
type runOptions struct {
	nodeOptions
	jobOptions
	address string
}

// jobOptions are the flags of a job.
type jobOptions struct {
	dirs    []string
	env     []string
	egress  []string
	with    []string
	memory  size
	stack   size
	files   count
	handles count
	windows count
	logRate size
	timeout span
	sign    string
}

func newRun() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run PACKAGE|FILE.wasm [--] [ARG...]",
		Short: "Run a program's tasks in sandboxes on this machine",
		Long: `Run builds a Go package for WebAssembly, or takes a .wasm file, and runs it: the
driver and each of its tasks in a sandbox that reaches nothing it is not granted.

The exit code is the driver's. What tasks print is headed with their name; what
the driver prints is not, so that it can be piped.

What follows the program is the driver's; flags of its own come after --.`,
		Example: `  wray run ./examples/wordcount
  wray run ./examples/wordcount --dir .:/here:ro -- /here/README.md
  wray run tool.wasm --env LEVEL=3 -- --verbose`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{withHint(fmt.Errorf("run needs a package directory or a .wasm file"), "see wray run --help")}
			}
			return nil
		},
		ValidArgsFunction: completeProgram,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	o.jobOptions.flags(cmd)
	f.StringVar(&o.address, "address", "", "run in the node at this `ADDRESS` (unix:///PATH; see wray start) instead of one of its own")
	o.nodeOptions.flags(f)
	return cmd
}

// completeProgram completes what names a program, and its arguments.
func completeProgram(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []string{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func (o *jobOptions) flags(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if path := cmd.CommandPath(); errors.As(err, &unknown) {
			return &usageError{withHint(err, "see %s --help; flags of the program itself come after --, as in: %s PROGRAM -- -v", path, path)}
		}
		return &usageError{withHint(err, "see %s --help", cmd.CommandPath())}
	})
	f := cmd.Flags()
	f.StringArrayVar(&o.dirs, "dir", nil, "grant a directory, as `HOST:GUEST[:ro]`")
	f.StringArrayVar(&o.env, "env", nil, "set a variable of the driver's environment, as `KEY=VALUE`")
	f.StringArrayVar(&o.egress, "egress", nil, "let the program ask a server over HTTP, as `HOST[:PORT]`; *.HOST is every name below HOST")
	f.StringArrayVar(&o.with, "with", nil, "submit another module with the job, as `[NAME=]FILE.wasm` or a package")
	f.Var(bounded{&o.memory, 64 << 10, 4 << 30, "a sandbox"}, "memory", "most memory of one sandbox (default 1GiB)")
	f.Var(bounded{&o.stack, 64 << 10, 1 << 30, "a sandbox"}, "stack", "most native stack of one sandbox (default 32MiB)")
	f.Var(&o.files, "max-files", "most open files of one sandbox (default 64)")
	f.Var(&o.handles, "max-handles", fmt.Sprintf("most references that one sandbox holds (default %d)", worker.DefaultHandles))
	f.Var(&o.windows, "max-windows", fmt.Sprintf("most large values that one sandbox has mapped at once (default %d)", worker.DefaultWindows))
	f.Var(&o.logRate, "log-rate", "bytes a second that the tasks of one sandbox may print for long (default 4MiB)")
	f.StringVar(&o.sign, "sign", "", "sign the job's modules, as they are sent, with the key in this `FILE` (wray module keygen)")
	f.Var(&o.timeout, "timeout", "end the job after this time")
}

func (o *runOptions) run(cmd *cobra.Command, args []string) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	return hintCache(o.runIn(cmd, args, cache), cache)
}

func (o *runOptions) runIn(cmd *cobra.Command, args []string, cache string) error {
	ctx := cmd.Context()
	if err := o.check(); err != nil {
		return err
	}
	n, err := o.runner(cmd, cache)
	if err != nil {
		return err
	}
	defer n.Close()
	job, err := o.job(ctx, args, cache)
	if err != nil {
		return err
	}
	if in, ok := cmd.InOrStdin().(*os.File); ok {
		job.Stdin = in
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newPrinter(cmd.OutOrStdout(), cmd.ErrOrStderr())
	out.fail = cancel
	job.Output = out.print
	stop := out.progress(ctx, n)
	code, err := n.Run(ctx, job)
	stop()
	if lost := out.lost(); lost != nil {
		return lost
	}
	if err != nil || code != 0 {
		out.hintDir(job.Dirs)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code}
	}
	return nil
}

// job loads a program and what goes with it.
func (o *jobOptions) job(ctx context.Context, args []string, cache string) (job node.Job, err error) {
	if err := o.check(); err != nil {
		return job, err
	}
	sign, err := signing(o.sign)
	if err != nil {
		return job, err
	}
	p, err := loadProgram(ctx, args[0], cache)
	if err != nil {
		return job, err
	}
	if p.wasm, err = sign(p.wasm); err != nil {
		return job, err
	}
	job = node.Job{
		Name: p.name, Modules: []node.Module{{Name: p.name, Wasm: p.wasm}}, Args: args[1:], Env: o.env, Egress: o.egress,
		Limits: worker.Limits{Memory: int64(o.memory), Stack: int32(o.stack),
			Files: int(o.files), Handles: int(o.handles), Windows: int(o.windows), LogRate: int64(o.logRate), Timeout: time.Duration(o.timeout)},
	}
	if job.Dirs, err = o.grants(p.dirs); err != nil {
		return job, err
	}
	for _, w := range o.with {
		name, file := withModule(w)
		wp, err := loadProgram(ctx, file, cache)
		if err != nil {
			return job, fmt.Errorf("--with %s: %w", w, err)
		}
		if wp.wasm, err = sign(wp.wasm); err != nil {
			return job, fmt.Errorf("--with %s: %w", w, err)
		}
		if name == "" {
			name = wp.name
		}
		job.Modules = append(job.Modules, node.Module{Name: name, Wasm: wp.wasm})
	}
	return job, nil
}

// check looks at what the job's flags name, before anything is built: a mistake
// is told at once.
func (o *jobOptions) check() error {
	for _, e := range o.env {
		switch key, _, ok := strings.Cut(e, "="); {
		case !ok:
			return &usageError{withHint(fmt.Errorf("--env %s has no value", e), "write --env %s=VALUE", e)}
		case key == "":
			return &usageError{withHint(fmt.Errorf("--env %s has no name", e), "write --env KEY=VALUE")}
		}
	}
	if _, err := o.grants(nil); err != nil {
		return err
	}
	if _, err := wray.ParseEgressRules(o.egress); err != nil {
		return &usageError{fmt.Errorf("--%w", err)}
	}
	for _, w := range o.with {
		_, file := withModule(w)
		if err := programThere(file); err != nil {
			return fmt.Errorf("--with %s: %w", w, err)
		}
	}
	return nil
}

// withModule splits a value of --with into the name, which may be empty, and
// what is to be loaded.
func withModule(w string) (name, file string) {
	if name, file, ok := strings.Cut(w, "="); ok {
		return name, file
	}
	return "", w
}

// runner returns the node at --address, or starts one.
func (o *runOptions) runner(cmd *cobra.Command, cache string) (runner, error) {
	if o.address != "" {
		var own pflag.FlagSet
		new(nodeOptions).flags(&own)
		var bad error
		own.VisitAll(func(f *pflag.Flag) {
			if cmd.Flags().Changed(f.Name) {
				bad = &usageError{withHint(fmt.Errorf("--%s is of a node, and --address names one that runs", f.Name), "give it to wray start")}
			}
		})
		if bad != nil {
			return nil, bad
		}
		return dialNode(cmd.Context(), o.address)
	}
	n, err := o.node(cache)
	if err != nil {
		return nil, err
	}
	return inspectable(n), nil
}

// grants turns --dir values into directories: those of the command line, then
// those the program asks for whose place is still free.
func (o *jobOptions) grants(own []string) ([]node.Dir, error) {
	var dirs []node.Dir
	seen := map[string]bool{}
	for i, d := range append(append([]string{}, o.dirs...), own...) {
		g, err := parseDir(d)
		if err != nil {
			return nil, err
		}
		if seen[g.Guest] {
			if i < len(o.dirs) {
				return nil, &usageError{fmt.Errorf("--dir grants %s twice", g.Guest)}
			}
			continue
		}
		seen[g.Guest] = true
		dirs = append(dirs, g)
	}
	return dirs, nil
}

func parseDir(s string) (node.Dir, error) {
	bad := func(what string) (node.Dir, error) {
		return node.Dir{}, &usageError{withHint(fmt.Errorf("--dir %s: %s", s, what), "write --dir HOST:GUEST, or --dir HOST:GUEST:ro for reading alone")}
	}
	var d node.Dir
	rest := s
	if r, ok := strings.CutSuffix(rest, ":ro"); ok {
		rest, d.ReadOnly = r, true
	}
	i := strings.LastIndex(rest, ":")
	if i <= 0 || i == len(rest)-1 {
		return bad("it needs a directory of the host and a path for the guest")
	}
	d.Host, d.Guest = rest[:i], rest[i+1:]
	if !strings.HasPrefix(d.Guest, "/") {
		if strings.Count(rest, ":") > 1 {
			return bad("after the guest's path, :ro is all that can follow, not :" + d.Guest)
		}
		return bad("the guest's path must begin with /")
	}
	st, err := os.Stat(d.Host)
	if err != nil {
		return bad("there is no such directory")
	}
	if !st.IsDir() {
		return bad(filepath.Base(d.Host) + " is not a directory")
	}
	return d, nil
}

// size is a flag of bytes, such as 512MiB.
type size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}, {"", 1}}

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || x <= 0 || x*float64(u.bytes) > 1<<50 {
			break
		}
		*s = size(x * float64(u.bytes))
		return nil
	}
	return fmt.Errorf("%q is not a size: write 512MiB or 2GiB, more than 0", text)
}

// String implements pflag.Value.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	for _, u := range sizeUnits {
		if int64(*s)%u.bytes == 0 && int64(*s) >= u.bytes {
			return strconv.FormatInt(int64(*s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type implements pflag.Value.
func (s *size) Type() string { return "SIZE" }
