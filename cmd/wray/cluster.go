package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/etcdstore"
	"github.com/wray-project/wray/host/member"
	"github.com/wray-project/wray/host/node"
)

// clusterOptions are the flags of a node that takes part in a cluster.
type clusterOptions struct {
	head      bool
	address   string
	token     string
	name      string
	dir       string
	listen    string
	advertise string
	alone     bool
	noToken   bool
	httpHosts []string
	etcd      etcdOptions
}

func (o *clusterOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.head, "head", false, "be a head: begin a cluster, or go on with the one that is kept; with --address, one more head of a cluster that there is")
	f.StringVar(&o.address, "address", "", "join the cluster that has a head at this `HOST:PORT`")
	f.StringVar(&o.token, "token", "", "join with this token, the first time; a file is named with @FILE (default $"+tokenEnv+")")
	f.StringVar(&o.name, "name", "", "name of the node in its cluster (default the host's)")
	f.StringVar(&o.dir, "cluster-dir", "", "`DIR` that keeps the node's keys, and a head's control state (default cluster/NAME in $XDG_STATE_HOME/wray)")
	f.StringVar(&o.listen, "listen", "", "`IP:PORT` for other nodes, of TCP and UDP (default as the last time, or "+member.DefaultListen+")")
	f.StringVar(&o.advertise, "advertise", "", "`HOST:PORT` at which other nodes reach this one (default what --listen says)")
	f.BoolVar(&o.noToken, "no-token", false, "as a head, print no token: for one whose output is kept; the first admin's is written to a file in --cluster-dir")
	f.StringSliceVar(&o.httpHosts, "http-host", nil, "`NAME` by which HTTP is asked beside addresses, localhost and that of --advertise; may be repeated")
	o.etcd.flags(f)
	f.BoolVar(&o.alone, "alone", false, "take part in no cluster, also where this node has joined one")
}

// tokenEnv is the variable that has a join token, which is a secret: others see
// a command line.
const tokenEnv = "WRAY_JOIN_TOKEN"

// asked reports whether the flags say that the node is to take part in a cluster.
func (o *clusterOptions) asked() bool {
	return o.head || o.address != "" || o.token != "" || o.name != "" || o.dir != "" || o.advertise != "" || o.listen != "" || o.etcd.asked()
}

// wanted reports whether the node is to take part in a cluster: it is asked to,
// or has joined one before.
func (o *clusterOptions) wanted() bool {
	return !o.alone && (o.asked() || o.joined())
}

// joined reports whether the node has joined before, as a head or not.
func (o *clusterOptions) joined() bool {
	_, dir, err := o.place()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, auth.NodeFile))
	return err == nil
}

// place is the node's name, and the directory that keeps it.
func (o *clusterOptions) place() (name, dir string, err error) {
	name = o.name
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", "", withHint(err, "name the node with --name")
		}
		name, _, _ = strings.Cut(strings.ToLower(host), ".")
	}
	if err := cluster.CheckName(name); err != nil {
		return "", "", &usageError{withHint(err, "name the node with --name")}
	}
	if o.dir != "" {
		return name, o.dir, nil
	}
	state, err := stateDir()
	if err != nil {
		return "", "", withHint(fmt.Errorf("no directory that keeps the node's keys: %w", err), "name one with --cluster-dir, or set HOME or XDG_STATE_HOME")
	}
	return name, filepath.Join(state, "cluster", name), nil
}

// others says of a node that takes part in no cluster, though nobody has said so,
// which clusters nodes of this user are in under other names: it is one of them,
// perhaps, that was started with --name.
func (o *clusterOptions) others(w io.Writer) {
	state, err := stateDir()
	if err != nil || o.alone || o.wanted() {
		return
	}
	found, err := filepath.Glob(filepath.Join(state, "cluster", "*", auth.NodeFile))
	if err != nil || len(found) == 0 {
		return
	}
	fmt.Fprintf(w, "wray: note: this node is in no cluster; in %s are those that were named otherwise:\n", filepath.Join(state, "cluster"))
	for _, f := range found {
		fmt.Fprintf(w, "    wray start --name %s\n", line(filepath.Base(filepath.Dir(f))))
	}
	fmt.Fprintln(w, "    starts one of them again; --alone starts this one and says nothing")
}

// listenFile has what --listen and --advertise said last, for a node that is
// back without them.
const listenFile = "listen.json"

type listening struct {
	Listen    string `json:"listen"`
	Advertise string `json:"advertise,omitempty"`
}

// recall fills in what the flags do not say: where the node listened last, and
// whether it is a head.
func (o *clusterOptions) recall(dir string) error {
	if o.listen == "" && o.advertise == "" {
		var last listening
		b, err := os.ReadFile(filepath.Join(dir, listenFile))
		if err == nil {
			if err = json.Unmarshal(b, &last); err != nil {
				return withHint(fmt.Errorf("%s is damaged: %w", filepath.Join(dir, listenFile), err), "say where to listen with --listen")
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		o.listen, o.advertise = last.Listen, last.Advertise
	}
	if o.listen == "" {
		o.listen = member.DefaultListen
	}
	control := filepath.Join(dir, member.ControlDir)
	o.head = o.head || etcdstore.Kept(control) || etcdKept(control)
	if err := o.etcd.recall(control); err != nil {
		return err
	}
	if err := o.etcd.absolute(); err != nil {
		return err
	}
	return o.etcd.check(o.head, etcdstore.Kept(control))
}

// remember keeps where the node listens, and what has its control state.
func (o *clusterOptions) remember(dir string) error {
	b, err := json.Marshal(listening{o.listen, o.advertise})
	if err == nil {
		err = auth.WriteFile(filepath.Join(dir, listenFile), b)
	}
	return errors.Join(err, o.etcd.remember(filepath.Join(dir, member.ControlDir)))
}

// config is the node's part.
func (o *clusterOptions) config() (member.Config, error) {
	var c member.Config
	if o.alone && o.asked() {
		return c, &usageError{withHint(errors.New("--alone is for a node without a cluster, and the other flags are for one that has one"), "leave out either")}
	}
	name, dir, err := o.place()
	if err != nil {
		return c, err
	}
	if err := o.recall(dir); err != nil {
		return c, err
	}
	if o.address != "" {
		if _, _, err := net.SplitHostPort(o.address); err != nil {
			return c, &usageError{withHint(fmt.Errorf("--address %s: %w", o.address, err), "write HOST:PORT, as the head prints it")}
		}
	}
	reached := o.listen
	if o.advertise != "" {
		reached = o.advertise
	}
	if o.address != "" && loopback(reached) && !loopback(o.address) {
		return c, &usageError{withHint(fmt.Errorf("the cluster is on other machines, and nobody there reaches %s", reached),
			"name this machine's address with --listen IP:PORT, or --advertise")}
	}
	token := o.token
	if token == "" && o.address != "" {
		token = os.Getenv(tokenEnv)
		if _, err := auth.ParseToken(os.Getenv(userTokenEnv)); token == "" && err == nil {
			return c, &usageError{withHint(fmt.Errorf("$%s is for users' tokens, and has one with which nodes join", userTokenEnv), "give that in $%s", tokenEnv)}
		}
	}
	if path, ok := strings.CutPrefix(token, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, &usageError{fmt.Errorf("--token: %w", err)}
		}
		token = strings.TrimSpace(string(b))
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	c = member.Config{Name: name, Dir: dir, Listen: o.listen, Advertise: o.advertise, Join: o.address, Token: token, HTTPHosts: o.httpHosts,
		Offer: directory.Node{Version: programVersion()}, Log: log}
	if o.head && o.etcd.asked() {
		c.Outside = true
		c.ControlKept = etcdKept
		c.OpenControl = func(ctx context.Context, _ string, _ control.Port) (control.Store, error) { return o.etcd.open(ctx) }
	} else if o.head {
		c.ControlKept = etcdstore.Kept
		c.OpenControl = func(ctx context.Context, dir string, p control.Port) (control.Store, error) {
			return etcdstore.Start(ctx, etcdstore.Options{Dir: dir, Port: &p, Log: log})
		}
	}
	return c, nil
}

// stateDir is where wray keeps what must not be lost.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "wray"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "wray"), err
}

// join has a node take part, and says how others do.
func (o *clusterOptions) join(cmd *cobra.Command, n *node.Node) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	if err := n.Join(cmd.Context(), c); err != nil {
		return clusterHint(err, c)
	}
	m := n.Member()
	out := cmd.OutOrStdout()
	if err := o.remember(c.Dir); err != nil {
		return fmt.Errorf("keep where the node listens: %w", err)
	}
	if !o.head {
		fmt.Fprintf(out, "wray: node %s is in the cluster, at %s\n", m.Self().Name, m.Self().Addr)
		return nil
	}
	if o.address != "" {
		fmt.Fprintf(out, "wray: node %s is one more head, at %s\n", m.Self().Name, m.Self().Addr)
		return nil
	}
	if o.noToken {
		fmt.Fprintf(out, "wray: node %s is a head, at %s; a token for others: wray node token\n", m.Self().Name, m.Self().Addr)
		return o.firstAdmin(cmd, m, c.Dir)
	}
	t, err := n.NewToken(cmd.Context(), auth.TokenOptions{})
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	fmt.Fprintf(out, "wray: node %s is a head, at %s\n", m.Self().Name, m.Self().Addr)
	fmt.Fprintf(out, "wray: within an hour, let one node join with:\n  %s\n", joinCommand(t.Reveal(), m.Self().Addr, false))
	if loopback(m.Self().Addr) {
		fmt.Fprintf(out, "wray: only this machine reaches that address; listen at another with --listen\n")
	}
	return o.firstAdmin(cmd, m, c.Dir)
}

// adminFile has the first admin's token, where that is not printed.
const adminFile = "admin.token"

// firstAdmin makes the first user of a cluster that this head begins, and prints
// its token, or keeps it in a file.
func (o *clusterOptions) firstAdmin(cmd *cobra.Command, m *member.Member, dir string) error {
	p, err := m.People()
	if err != nil {
		return err
	}
	t, begun, err := p.Begin(cmd.Context())
	if err != nil {
		return fmt.Errorf("make the first admin: %w", err)
	}
	if !begun {
		return nil
	}
	out := cmd.OutOrStdout()
	if o.noToken {
		path := filepath.Join(dir, adminFile)
		if err := auth.WriteFile(path, []byte(t.Reveal()+"\n")); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "wray: the first admin's token is in %s: take it from there, and remove the file\n", path)
		return err
	}
	_, err = fmt.Fprintf(out, "wray: the first admin's token, which is shown this once:\n  %s\nwray: who has it runs the cluster; keep it with: wray login --address %s\n", t.Reveal(), m.Self().Addr)
	return err
}

// joinCommand is what a person types on the machine that joins.
func joinCommand(token, addr string, head bool) string {
	listen := "IP:7420, of that machine"
	if loopback(addr) {
		listen = "127.0.0.1:0"
	}
	if head {
		addr += " --head"
	}
	return fmt.Sprintf("%s=%s wray start --address %s --listen %s", tokenEnv, token, addr, listen)
}

// loopback reports whether an address is one that this machine alone reaches.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// clusterHint says what to do about a node that could not join.
func clusterHint(err error, c member.Config) error {
	switch {
	case errors.Is(err, auth.ErrExpired):
		return withHint(err, "start it with the address of a head and a new token: wray node token")
	case errors.Is(err, member.ErrTokenNeeded):
		return withHint(err, "a head prints a token: wray node token")
	case errors.Is(err, auth.ErrPin), errors.Is(err, auth.ErrToken):
		return withHint(err, "take a token of the cluster at %s: wray node token", c.Join)
	case errors.Is(err, auth.ErrTokenUsed), errors.Is(err, auth.ErrTokenExpired):
		return withHint(err, "make another on a head: wray node token")
	case errors.Is(err, auth.ErrNotHead):
		return withHint(err, "make a token for heads, and join with it from an empty --cluster-dir: wray node token --head")
	case errors.Is(err, auth.ErrNameTaken):
		return withHint(err, "give the node another name with --name; or, if it lost its --cluster-dir, make a token for that name: wray node token --name %s", c.Name)
	case errors.Is(err, directory.ErrCondemned), errors.Is(err, directory.ErrSuperseded):
		return withHint(err, "start it again")
	}
	return err
}
