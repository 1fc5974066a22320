package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

func newStatus() *cobra.Command {
	var address, tenant string
	var asJSON, ready bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show nodes, resources, jobs, and what waits", Args: cobra.NoArgs,
		Long: `Status asks a node of yours on this machine what it knows of its cluster: which
nodes there are, whether they live, what they offer and have free, which jobs run, and
what waits there for what. wray explain tells more of what waits. What cannot be had is
said, and the rest is shown.

With --ready it prints nothing, and its exit code says whether the node takes work:
0, or 1 with what is missing. That it answers at all, wray status alone says.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s clientwire.Status
			if err := ask(cmd, address, clientwire.KindStatus, clientwire.StatusBody{Tenant: tenant}, &s); err != nil {
				return err
			}
			if ready {
				return unready(s)
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(s)
			}
			return printStatus(cmd.OutOrStdout(), s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.StringVar(&tenant, "tenant", "", "jobs and what waits of the tenant `NAME` (default local)")
	f.BoolVar(&ready, "ready", false, "print nothing, and end with 0 if the node takes work, or else with 1")
	return cmd
}

// unready says why a node takes no work, or nil. A node listens at its socket
// when it has joined, so that one without a cluster is ready when it answers.
func unready(s clientwire.Status) error {
	if s.Waits == nil && len(s.Partial) > 0 { // its worker does not answer
		return fmt.Errorf("node %s is not ready: %s", line(s.Node), line(s.Partial[0]))
	}
	if s.Cluster == "" {
		return nil
	}
	i := slices.IndexFunc(s.Nodes, func(n clientwire.NodeStatus) bool { return n.Name == s.Node })
	why := ""
	switch {
	case i < 0:
		why = "its cluster has no record of it"
	case s.Nodes[i].Draining:
		why = "it is draining"
	case s.Nodes[i].Status != liveness.Alive.String():
		why = "its cluster holds it for " + s.Nodes[i].Status
	case s.Nodes[i].Learner:
		why = "as a head it has no vote yet"
	default:
		return nil
	}
	return fmt.Errorf("node %s is not ready: %s", line(s.Node), line(why))
}

func newOperator() *cobra.Command {
	var address, out string
	var life span
	var revoke bool
	cmd := &cobra.Command{
		Use: "operator NAME", Short: "Make a credential with which jobs are submitted from elsewhere", Args: cobra.ExactArgs(1),
		Long: `Operator asks a head of yours on this machine for a credential: a key and a
certificate, in one file. Whoever has it submits jobs to any node of the cluster, sees
all jobs and what they print, and stops them, and can do nothing else there.

With --revoke all credentials of that name are good no more.`,
		Example: `  wray operator alice --out alice.pem
  wray job list --address 192.0.2.1:7420 --credential alice.pem
  wray operator alice --revoke`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var o clientwire.Operator
			if out == "" {
				out = args[0] + ".pem"
			}
			body := clientwire.OperatorBody{Name: args[0], Life: int64(life), Revoke: revoke}
			if revoke {
				if err := ask(cmd, address, clientwire.KindOperator, body, &o); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "wray: the credentials of operator %s are good no more\n", args[0])
				return err
			}
			err := keepCredential(out, func() ([]byte, error) {
				err := ask(cmd, address, clientwire.KindOperator, body, &o)
				return o.Credential, err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wray: %s is a secret, which whoever submits jobs needs:\n  wray job list --address %s --credential %s\n", out, line(o.Addr), out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the head at this `ADDRESS`, as wray start prints it (default your node's)")
	f.StringVar(&out, "out", "", "write it to this `FILE`, which is not there yet (default NAME.pem)")
	f.Var(&life, "valid", "for how long it is good (default 720h)")
	f.BoolVar(&revoke, "revoke", false, "make all credentials of that name worthless")
	return cmd
}

// keepCredential has a credential made and keeps it in a file that is not there
// yet, for this user alone: whole, or there is none.
func keepCredential(out string, make func() ([]byte, error)) (err error) {
	// Its place is taken first, so that no credential is made that nobody has.
	f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return &usageError{withHint(err, "name another file with --out")}
	}
	defer func() {
		if err != nil {
			os.Remove(out)
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	b, err := make()
	if err != nil {
		return err
	}
	if err := auth.WriteFile(out, b); err != nil {
		return withHint(fmt.Errorf("%s: %w", out, err), "the credential was made and is lost: make room, and have another made")
	}
	return nil
}

// ask asks a node one thing.
func ask(cmd *cobra.Command, address string, kind link.Kind, body, out any) error {
	r, err := dialNode(cmd.Context(), address)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.call(cmd.Context(), kind, body, nil, out)
}
