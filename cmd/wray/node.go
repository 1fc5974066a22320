package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/internal/clientwire"
)

func newNode() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Let in, drain, revoke and remove nodes of the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeDrain(),
		newNodeRemove("revoke NAME", "Accept a node's certificates no more", `Revoke ends a node's connections and accepts none of its certificates from then
on: to the cluster it is dead. It may join again with a token for its name. Ask a
head. A head has the cluster's authority: revoking one helps only against one that
does no harm.`, "was revoked", false),
		newNodeRemove("remove NAME", "Revoke a node that is gone for good, head or not", `Remove is revoke of a node that does not come back. If it is a head, the others
keep the control state without it from then on: remove a head that is lost before
another is. Ask a head.`, "was removed", true), newNodeRekey(), newNodeToken())
	return cmd
}

func newNodeDrain() *cobra.Command {
	var address string
	within := span(node.DefaultDrain)
	cmd := &cobra.Command{
		Use: "drain NAME", Short: "Have a node end what it does, and leave", Args: cobra.ExactArgs(1),
		Long: `Drain has a node take nothing new. What runs there ends, or, when the time is
over, is run elsewhere; what it alone has moves to those that need it; then it
leaves, and its process ends. Ask the node itself, or a head.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			body := clientwire.DrainBody{Name: args[0], Within: int64(within)}
			if err := ask(cmd, address, clientwire.KindDrain, body, &struct{}{}); err != nil {
				return err
			}
			return awaitLeft(cmd, address, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.Var(&within, "within", "how long what runs there has to end")
	return cmd
}

// awaitLeft waits until a node has left, as the node that is asked knows it: if
// that is the same, until it answers no more.
func awaitLeft(cmd *cobra.Command, address, name string) error {
	for asked := ""; ; {
		var s clientwire.Status
		err := ask(cmd, address, clientwire.KindStatus, nil, &s)
		gone := err != nil && asked == name
		if err != nil && !gone {
			return err
		}
		asked = s.Node
		there := false
		for _, n := range s.Nodes {
			there = there || n.Name == name && n.Status != liveness.Dead.String()
		}
		if gone || !there && asked != name {
			fmt.Fprintf(cmd.OutOrStdout(), "node %s has left\n", name)
			return nil
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func newNodeRemove(use, short, long, done string, head bool) *cobra.Command {
	var address, why string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := clientwire.RemoveBody{Name: args[0], Why: why, Head: head}
			if err := ask(cmd, address, clientwire.KindRemove, body, &struct{}{}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %s %s\n", args[0], done)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the head at this `ADDRESS`, as wray start prints it (default your node's)")
	f.StringVar(&why, "why", "revoked by hand", "what others are told of the reason")
	return cmd
}

func newNodeRekey() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "rekey", Short: "Exchange the key that nodes gossip with", Args: cobra.NoArgs,
		Long: `Rekey gives all nodes another key to gossip with: those that were revoked or
removed know the old one. If it fails it may be called again, and goes on where it
was. Ask a head.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := ask(cmd, address, clientwire.KindRekey, nil, &struct{}{}); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "all nodes gossip with another key")
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "ask the head at this `ADDRESS`, as wray start prints it (default your node's)")
	return cmd
}

func newNodeToken() *cobra.Command {
	var address, name string
	var uses count
	var life span
	var asJSON, head bool
	cmd := &cobra.Command{
		Use: "token", Short: "Make a token with which nodes join the cluster", Args: cobra.NoArgs,
		Long: `Token asks a head of yours on this machine for a token, and prints the command with
which another node joins. It is a secret: whoever has it joins. With --head it lets in
further heads, which are given the cluster's authority: whoever has such a token
has the cluster.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var t clientwire.Token
			body := clientwire.TokenBody{Uses: int(uses), Life: int64(life), Name: name, Head: head}
			if err := ask(cmd, address, clientwire.KindToken, body, &t); err != nil {
				return err
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(t)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), joinCommand(t.Token, t.Addr, head))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the head at this `ADDRESS`, as wray start prints it (default your node's)")
	f.Var(&uses, "uses", "how many nodes it lets in (default 1)")
	f.Var(&life, "valid", "for how long it is good (default 1h)")
	f.BoolVar(&head, "head", false, "let in further heads")
	f.StringVar(&name, "name", "", "let in the node of this name alone, also one that lost its keys")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
