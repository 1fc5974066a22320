package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Say what the jobs of a tenant may be granted", Args: cobra.NoArgs,
		Long: `A job reaches what it was granted with flags such as --dir and --egress, and its
tenant's policy says which of these it may be granted at all. Where none was set, the
tenant local may have every directory and every server of the public internet, and
others neither.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicySet(), newPolicyShow())
	return cmd
}

func newPolicySet() *cobra.Command {
	var address string
	var p wray.Policy
	cmd := &cobra.Command{
		Use: "set TENANT", Short: "Change a tenant's policy", Args: cobra.ExactArgs(1),
		Long: `Set replaces the lists that are given and leaves the others; none is an empty list.
It holds at once for what is submitted and asked from then on, by jobs that run too:
but for directories that these have.`,
		Example: `  wray policy set analytics --egress api.example.com --egress '*.example.org:8443'
  wray policy set analytics --dir /srv/data:ro --egress none`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, t, err := oneTenant(cmd, address, args[0])
			if err != nil {
				return err
			}
			next, changed := t.Policy, false
			if t.Unset {
				next.Private = nil // they are what the node that was asked was started with
			}
			for _, l := range []struct {
				flag      string
				list, old *[]string
			}{{"dir", &p.Dirs, &next.Dirs}, {"egress", &p.Egress, &next.Egress}, {"private", &p.Private, &next.Private}} {
				if !cmd.Flags().Changed(l.flag) {
					continue
				}
				if changed, *l.old = true, *l.list; slices.Equal(*l.list, []string{"none"}) {
					*l.old = nil
				}
			}
			if !changed {
				return &usageError{errors.New("say what is to change: see wray policy set --help")}
			}
			if err := next.Check(); err != nil {
				return err
			}
			b := clientwire.TenantBody{What: clientwire.TenantChange, Name: args[0], Policy: &next}
			if err := ask(cmd, address, clientwire.KindTenantSet, b, &t); err != nil {
				return err
			}
			if len(t.Policy.Private) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: warning: jobs of tenant %s may ask servers in %s: whatever answers there without asking for a credential, they have\n",
					line(t.Name), line(strings.Join(t.Policy.Private, ", ")))
			}
			return printPolicy(cmd.OutOrStdout(), t)
		},
	}
	headFlag(cmd, &address)
	f := cmd.Flags()
	f.StringArrayVar(&p.Dirs, "dir", nil, "a `DIR` of nodes that may be granted, with what is below; DIR:ro for reading alone; / for all")
	f.StringArrayVar(&p.Egress, "egress", nil, "servers that may be granted, as `HOST[:PORT]`, *.HOST, or *:* for all")
	f.StringArrayVar(&p.Private, "private", nil, "a network that is not public, as `ADDRESS/BITS`, in which servers may be asked all the same")
	return cmd
}

func newPolicyShow() *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show TENANT", Short: "Show what the jobs of a tenant may be granted", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, t, err := oneTenant(cmd, address, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(t.Policy)
			}
			return printPolicy(cmd.OutOrStdout(), t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printPolicy(out io.Writer, t clientwire.Tenant) error {
	if t.Unset {
		fmt.Fprintln(out, "policy, as nobody has set one:")
	} else {
		fmt.Fprintln(out, "policy:")
	}
	for _, l := range []struct {
		flag string
		list []string
		none string
	}{{"dir", t.Policy.Dirs, "no directories"}, {"egress", t.Policy.Egress, "no servers"}, {"private", t.Policy.Private, "none that is not public"}} {
		text := l.none
		if len(l.list) > 0 {
			text = line(strings.Join(l.list, ", "))
		}
		if _, err := fmt.Fprintf(out, "--%-8s %s\n", l.flag, text); err != nil {
			return err
		}
	}
	return nil
}
