package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/fleet"
)

func newUp() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "up FILE", Short: "Start the nodes of a small cluster over ssh", Args: cobra.ExactArgs(1),
		Long: `Up copies this program to the hosts that a file lists, and has a node started on
each: the first head begins the cluster, and the others join it. It asks your ssh
program, without a terminal. What is as it should be is left as it is; a node whose
flags or program are others than before is drained and started again. A first head
that is new, where other hosts have joined a cluster, is refused.`,
		Example: `  wray up fleet.yaml --dry-run
  wray up fleet.yaml
  wray down fleet.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readFleet(args[0])
			if err != nil {
				return err
			}
			u := &upper{Fleet: f, out: cmd.OutOrStdout(), dry: dry}
			return u.up(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be done, and reach no host")
	return cmd
}

func newDown() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "down FILE", Short: "Stop the nodes that wray up started", Args: cobra.ExactArgs(1),
		Long: `Down drains and stops the nodes of the hosts that a file lists, heads last. What
they keep stays: wray up has the same cluster back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readFleet(args[0])
			if err != nil {
				return err
			}
			u := &upper{Fleet: f, out: cmd.OutOrStdout(), dry: dry}
			return u.down(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be done, and reach no host")
	return cmd
}

func readFleet(name string) (*fleet.Fleet, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, &usageError{withHint(err, "name a file of hosts; docs/DEPLOY.md has one")}
	}
	defer file.Close()
	f, err := fleet.Read(file)
	if err != nil {
		return nil, &usageError{withHint(fmt.Errorf("%s: %w", name, err), "docs/DEPLOY.md says what such a file has")}
	}
	// Flags are looked at here, before any host is reached.
	for _, h := range f.Hosts {
		start := newStart()
		err := start.ParseFlags(f.Flags(h))
		if err == nil && start.Flags().NArg() > 0 {
			err = fmt.Errorf("%q is no flag", start.Flags().Arg(0))
		}
		for _, own := range []string{"token", "cluster-dir", "socket", "alone"} {
			if err == nil && start.Flags().Changed(own) {
				err = fmt.Errorf("wray up says --%s itself", own)
			}
		}
		if err != nil {
			return nil, &usageError{withHint(fmt.Errorf("%s: host %s: %w", name, h.SSH, err), "see wray start --help")}
		}
	}
	return f, nil
}

// hostOrder is what wray up has the program do that it has copied to a host. It
// travels by standard input, since it may have a token.
type hostOrder struct {
	Do    string   `json:"do"` // up, down, token
	Name  string   `json:"name"`
	Flags []string `json:"flags,omitempty"`
	Token string   `json:"token,omitempty"` // up: to join with, where the node has not
	Head  bool     `json:"head,omitempty"`  // token: for a head
}

// hostReport is what became of an order.
type hostReport struct {
	Did   string `json:"did"`             // in words
	Join  bool   `json:"join,omitempty"`  // nothing: the node has to join first, with a token
	Token string `json:"token,omitempty"` // that was asked for
}

// upper does what wray up and wray down do.
type upper struct {
	*fleet.Fleet
	dry bool
	sum string // of this program

	mu  sync.Mutex
	out io.Writer // guarded by mu
}

func (u *upper) say(h fleet.Host, format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintf(u.out, "%s (%s): %s\n", h.Name, h.SSH, paragraph(fmt.Sprintf(format, args...)))
}

func (u *upper) up(ctx context.Context) error {
	hosts := u.Order()
	if u.dry {
		for _, h := range hosts {
			u.say(h, "copy wray to %s, unless it is there; then, unless it runs: wray start %s", u.Directory, strings.Join(u.Flags(h), " "))
		}
		return nil
	}
	if err := u.program(); err != nil {
		return err
	}
	if err := u.oneCluster(ctx, hosts[0], hosts[1:]); err != nil {
		return err
	}
	// One head after the other: each needs those before it.
	heads := slices.IndexFunc(hosts, func(h fleet.Host) bool { return !h.Head })
	if heads < 0 {
		heads = len(hosts)
	}
	for _, h := range hosts[:heads] {
		if err := u.upOne(ctx, hosts[0], h); err != nil {
			return err
		}
	}
	return each(hosts[heads:], func(h fleet.Host) error { return u.upOne(ctx, hosts[0], h) })
}

// oneCluster refuses to have the first head begin a cluster where others are in
// one, or may be: they do not answer.
func (u *upper) oneCluster(ctx context.Context, first fleet.Host, others []fleet.Host) error {
	if in, err := u.joined(ctx, first); in || err != nil {
		return err
	}
	return each(others, func(h fleet.Host) error {
		in, err := u.joined(ctx, h)
		if err != nil {
			return fmt.Errorf("whether it is in a cluster already, before %s begins one: %w", first.Name, err)
		}
		if !in {
			return nil
		}
		return withHint(fmt.Errorf("%s (%s) is the first head and has joined no cluster, and %s (%s) is in one: it would begin another", first.Name, first.SSH, h.Name, h.SSH),
			"list a head of that cluster first; where there is none any more, remove %s on each host, and with it what is left of that cluster", path.Join(u.Directory, "NAME"))
	})
}

// joined reports whether a host has what a node keeps that has joined a cluster.
func (u *upper) joined(ctx context.Context, h fleet.Host) (bool, error) {
	out, err := u.ssh(ctx, h, nil, "test ! -e "+path.Join(u.Directory, h.Name, "cluster", auth.NodeFile)+" || echo yes")
	return strings.TrimSpace(string(out)) == "yes", err
}

func (u *upper) down(ctx context.Context) error {
	hosts := u.Order()
	slices.Reverse(hosts)
	if u.dry {
		for _, h := range hosts {
			u.say(h, "drain the node, and stop it")
		}
		return nil
	}
	one := func(h fleet.Host) error {
		r, err := u.order(ctx, h, hostOrder{Do: "down", Name: h.Name})
		if err == nil {
			u.say(h, "%s", r.Did)
		}
		return err
	}
	heads := slices.IndexFunc(hosts, func(h fleet.Host) bool { return h.Head })
	if err := each(hosts[:heads], one); err != nil {
		return err
	}
	for _, h := range hosts[heads:] {
		if err := one(h); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for all hosts, several at once, and returns all errors.
func each(hosts []fleet.Host, f func(fleet.Host) error) error {
	errs := make([]error, len(hosts))
	turns := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			errs[i] = f(h)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// program looks at what is copied.
func (u *upper) program() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := elf.Open(self)
	if err != nil {
		return withHint(fmt.Errorf("this program cannot be copied: %w", err), "run wray up on Linux")
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return withHint(errors.New("this program is not static, and might not run elsewhere"), "build it with make build, or with CGO_ENABLED=0")
		}
	}
	u.sum, err = fileSum(self)
	return err
}

func (u *upper) upOne(ctx context.Context, first, h fleet.Host) error {
	out, err := u.ssh(ctx, h, nil, "uname -sm; sha256sum "+u.remote()+" 2>/dev/null || :")
	if err != nil {
		return err
	}
	system, there, _ := strings.Cut(string(out), "\n")
	if want := map[string]string{"amd64": "Linux x86_64", "arm64": "Linux aarch64"}[runtime.GOARCH]; system != want {
		return fmt.Errorf("%s (%s): that host is %q, and this program is for %s", h.Name, h.SSH, line(system), want)
	}
	if !strings.HasPrefix(there, u.sum) {
		if err := u.copy(ctx, h); err != nil {
			return err
		}
		u.say(h, "wray was copied to %s", u.Directory)
	}
	o := hostOrder{Do: "up", Name: h.Name, Flags: u.Flags(h)}
	r, err := u.order(ctx, h, o)
	if err == nil && r.Join {
		var t hostReport
		if t, err = u.order(ctx, first, hostOrder{Do: "token", Name: first.Name, Head: h.Head}); err != nil {
			return fmt.Errorf("a token for %s: %w", h.Name, err)
		}
		o.Token = t.Token
		r, err = u.order(ctx, h, o)
	}
	if err == nil {
		u.say(h, "%s", r.Did)
	}
	return err
}

func (u *upper) remote() string { return path.Join(u.Directory, "wray") }

func (u *upper) copy(ctx context.Context, h fleet.Host) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := os.Open(self)
	if err != nil {
		return err
	}
	defer f.Close()
	to := u.remote()
	_, err = u.ssh(ctx, h, f, fmt.Sprintf("umask 077 && mkdir -p %s && cat >%s.new && chmod 700 %s.new && mv -f %s.new %s", u.Directory, to, to, to, to))
	return err
}

// order has the program on a host do something.
func (u *upper) order(ctx context.Context, h fleet.Host, o hostOrder) (r hostReport, err error) {
	b, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	to := u.remote()
	if !path.IsAbs(to) {
		to = "./" + to
	}
	out, err := u.ssh(ctx, h, bytes.NewReader(b), "exec "+to+" on-host")
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("%s (%s): the program there does not answer as this one would: %w", h.Name, h.SSH, err)
	}
	return r, nil
}

// hostPatience is how long a host may take for one step: a drain, and a start.
const hostPatience = 10 * time.Minute

// ssh runs a command on a host, and returns what it prints. Neither the command
// nor an error has a secret: those are in stdin.
func (u *upper) ssh(ctx context.Context, h fleet.Host, stdin io.Reader, command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hostPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-T", "-o", "BatchMode=yes", h.SSH, command)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	hint := "see what ssh " + h.SSH + " says; it must need no password"
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() != 255 {
		hint = "log in with ssh " + h.SSH + " and look; what is there is in " + u.Directory
	}
	said := strings.TrimSpace(errs.String())
	return nil, withHint(fmt.Errorf("%s (%s): %w: %s", h.Name, h.SSH, err, paragraph(said[max(0, len(said)-2000):])), "%s", hint)
}
