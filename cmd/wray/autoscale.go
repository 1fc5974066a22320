package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/autoscale"
	"github.com/wray-project/wray/host/autoscale/kube"
	"github.com/wray-project/wray/host/autoscale/local"
	"github.com/wray-project/wray/host/autoscale/plan"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/nodeaddr"
)

// localDrain is how long a node on this machine has to end what it runs, and
// localLeave how long until it is killed.
const (
	localDrain = 30 * time.Second
	localLeave = localDrain + 45*time.Second
)

// groupsFile has which file of groups a head was given, for one that is back
// without the flag.
const groupsFile = "autoscale.json"

type groupsKept struct {
	File string `json:"file"`
}

// scaling is which groups of nodes a head is to keep.
type scaling struct {
	conf *autoscale.Config // nil: none
	file string            // its path, absolute
	dir  string            // that keeps the path; empty of a node that is no head
}

// readGroups reads the file of --autoscale, or, where the flag was not given, that
// of the last time.
func readGroups(path string, given bool, c *clusterOptions) (*scaling, error) {
	s := &scaling{}
	if c.wanted() {
		conf, err := c.config() // which finds out whether it is a head
		if err != nil {
			return nil, err
		}
		s.dir = conf.Dir
	}
	if !c.head {
		if path != "" {
			return nil, &usageError{withHint(errors.New("--autoscale is for heads"), "start the node with --head")}
		}
		return &scaling{}, nil
	}
	hint := "docs/AUTOSCALING.md shows a file"
	if !given && s.dir != "" {
		b, err := os.ReadFile(filepath.Join(s.dir, groupsFile))
		if err == nil {
			var last groupsKept
			err = json.Unmarshal(b, &last)
			path = last.File
		}
		if errors.Is(err, os.ErrNotExist) {
			return s, nil
		}
		hint = "this head was started with it last; name another with --autoscale, or none: --autoscale="
		if err != nil {
			return nil, withHint(fmt.Errorf("%s: %w", filepath.Join(s.dir, groupsFile), err), "%s", hint)
		}
	}
	if path == "" {
		return s, nil
	}
	var err error
	if s.file, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	f, err := os.Open(s.file)
	if err != nil {
		return nil, &usageError{withHint(fmt.Errorf("--autoscale: %w", err), "%s", hint)}
	}
	defer f.Close()
	if s.conf, err = autoscale.Read(f); err != nil {
		return nil, &usageError{withHint(fmt.Errorf("--autoscale %s: %w", path, err), "%s", hint)}
	}
	return s, nil
}

// remember keeps which file it is, or that there is none.
func (s *scaling) remember() error {
	if s.dir == "" {
		return nil
	}
	at := filepath.Join(s.dir, groupsFile)
	if s.file == "" {
		if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(groupsKept{s.file})
	if err != nil {
		return err
	}
	return auth.WriteFile(at, b)
}

// autoscaled has n, a head, keep groups of nodes.
func autoscaled(n *node.Node, conf *autoscale.Config, o *nodeOptions, c *clusterOptions) error {
	mc, err := c.config()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	ac := node.AutoscaleConfig{Names: map[string]string{}, Providers: map[string]autoscale.Provider{}, Log: log}
	fail := func(g *autoscale.Group, err error) error {
		for _, p := range ac.Providers {
			err = errors.Join(err, p.Close(false))
		}
		return fmt.Errorf("--autoscale: group %s: %w", g.Name, err)
	}
	for i := range conf.Groups {
		g := &conf.Groups[i]
		pg, err := g.Plan(worker.DefaultMemory())
		if err != nil {
			return fail(g, err)
		}
		p, err := newProvider(n, g, pg, o, mc, log)
		if err != nil {
			return fail(g, err)
		}
		ac.Groups = append(ac.Groups, pg)
		ac.Names[g.Name], ac.Providers[g.Name] = g.Provider, p
	}
	return n.Autoscale(ac)
}

func newProvider(n *node.Node, g *autoscale.Group, pg plan.Group, o *nodeOptions, mc member.Config, log *slog.Logger) (autoscale.Provider, error) {
	if g.Provider == autoscale.Kubernetes {
		api, err := kube.InCluster()
		if err != nil {
			return nil, err
		}
		return kube.New(api, kube.Workload(g.Kubernetes)), nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	at := n.Member().Self()
	listen, _, err := net.SplitHostPort(mc.Listen)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(listen); ip == nil || ip.IsUnspecified() {
		if listen, _, err = net.SplitHostPort(at.Addr); err != nil || net.ParseIP(listen) == nil {
			return nil, fmt.Errorf("nodes on this machine listen where this head does, and %s is no IP address of one interface: name one with --listen", mc.Listen)
		}
	}
	return local.New(local.Config{Prefix: g.Name + "-" + at.Name, Dir: filepath.Join(mc.Dir, "autoscale", g.Name), Drain: localLeave, Log: log,
		Command: func(ctx context.Context, name, dir string) (*exec.Cmd, error) {
			// For its name, so that a node which lost its keys is let in again.
			t, err := n.NewToken(ctx, auth.TokenOptions{Name: name, Life: max(pg.Patience, time.Minute)})
			if err != nil {
				return nil, fmt.Errorf("make a join token: %w", err)
			}
			sockets, err := nodeaddr.RuntimeDir() // whose path is short
			if err != nil {
				return nil, err
			}
			socket := filepath.Join(sockets, fmt.Sprintf("%s-%d.sock", name, os.Getpid()))
			return localCommand(self, name, dir, socket, at.Addr, net.JoinHostPort(listen, "0"), t.Reveal(), g, pg, o.weak), nil
		}})
}

// localCommand starts a node on this machine.
func localCommand(self, name, dir, socket, head, listen, token string, g *autoscale.Group, pg plan.Group, weak bool) *exec.Cmd {
	args := []string{"start", "--address", head, "--listen", listen, "--name", name, "--cluster-dir", filepath.Join(dir, "cluster"),
		"--socket", socket, "--drain", localDrain.String(), "--cpus", fmt.Sprint(g.CPUs)}
	for _, c := range pg.Custom {
		args = append(args, "--resource", c.Name+"="+c.Amount.String())
	}
	for _, l := range pg.Labels {
		if own := strings.HasPrefix(l.Key, "wray/") && l.Key != "wray/group"; !own {
			args = append(args, "--labels", l.String())
		}
	}
	if weak {
		args = append(args, "--allow-weak-jail")
	}
	cmd := exec.Command(self, append(args, g.Flags...)...)
	// What this process was given, but for secrets that are not the node's.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, tokenEnv+"=") || strings.HasPrefix(kv, etcdPasswordEnv+"=")
	}), tokenEnv+"="+token)
	return cmd
}
