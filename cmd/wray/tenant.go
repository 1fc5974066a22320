package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

// headFlag adds the flag that says which head is asked.
func headFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "address", "", "ask the head at this `ADDRESS`, as wray start prints it (default your node's)")
}

func newTenant() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tenant", Short: "Make, show and remove those who share the cluster", Args: cobra.NoArgs,
		Long: `A tenant owns jobs, objects, actors and a quota. What one has on a node another can
neither see nor name, and each has processes of its own there. The tenant local, of
those who run the cluster, is always there.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTenantSet("create NAME", "Make a tenant", clientwire.TenantCreate),
		newTenantSet("set NAME", "Change a tenant's share, or its nodes", clientwire.TenantChange),
		newTenantDisable("disable NAME", "Take nothing new of a tenant", "takes nothing new; what runs goes on", true),
		newTenantDisable("enable NAME", "Take new jobs of a tenant again", "may begin jobs again", false),
		newTenantRemove(), newTenantList(), newTenantShow(), newTenantLift())
	return cmd
}

func newTenantSet(use, short, what string) *cobra.Command {
	var address string
	var nodes []string
	var exclusive bool
	weight := factor(1)
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := clientwire.TenantBody{What: what, Name: args[0]}
			changed := cmd.Flags().Changed
			if changed("weight") {
				w := float64(weight)
				b.Weight = &w
			}
			if b.SetNodes = changed("nodes"); b.SetNodes && !slices.Equal(nodes, []string{"none"}) {
				b.Nodes = nodes
			}
			if changed("exclusive") {
				b.Exclusive = &exclusive
			}
			if what == clientwire.TenantChange && b.Weight == nil && !b.SetNodes && b.Exclusive == nil {
				return &usageError{errors.New("say what is to change, with --weight, --nodes or --exclusive; wray quota set changes its quota")}
			}
			var t clientwire.Tenant
			if err := ask(cmd, address, clientwire.KindTenantSet, b, &t); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s has the weight %v%s\n", t.Name, t.Weight, nodesOf(&t))
			return nil
		},
	}
	headFlag(cmd, &address)
	f := cmd.Flags()
	f.Var(share{&weight}, "weight", "its share of a node that several want, 0.01 to 100, where others have 1")
	f.StringArrayVar(&nodes, "nodes", nil, "keep it to nodes with these labels, `SELECTOR` as KEY=VALUE, '!KEY' or 'KEY in (A,B)'; may be repeated, and all must hold; none: any node")
	f.BoolVar(&exclusive, "exclusive", false, "keep all others off those nodes; --exclusive=false: let them on")
	return cmd
}

// nodesOf says on which nodes a tenant is.
func nodesOf(t *clientwire.Tenant) string {
	if len(t.Nodes) == 0 {
		return ""
	}
	var list []string
	for _, n := range t.Nodes {
		list = append(list, line(n))
	}
	s := ", on nodes with " + strings.Join(list, " and ")
	if t.Exclusive {
		s += ", which are nobody else's"
	}
	return s
}

func newTenantDisable(use, short, done string, disable bool) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b := clientwire.TenantBody{What: clientwire.TenantChange, Name: args[0], Disable: &disable}
			if err := ask(cmd, address, clientwire.KindTenantSet, b, &clientwire.Tenant{}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s %s\n", args[0], done)
			return nil
		},
	}
	headFlag(cmd, &address)
	return cmd
}

func newTenantRemove() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Remove a tenant that runs nothing, and all it has", Args: cobra.ExactArgs(1),
		Long: `Remove ends a tenant's processes on all nodes and removes what is kept of its jobs
and of its durable actors. None of its jobs may run. Another tenant may have the
name then, and has nothing of the first.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b := clientwire.TenantBody{What: clientwire.TenantRemove, Name: args[0]}
			if err := ask(cmd, address, clientwire.KindTenantSet, b, &clientwire.Tenant{}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "tenant %s is removed\n", args[0])
			return nil
		},
	}
	headFlag(cmd, &address)
	return cmd
}

func newTenantList() *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List tenants, and what a node has of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all clientwire.Tenants
			if err := ask(cmd, address, clientwire.KindTenants, clientwire.TenantsBody{}, &all); err != nil {
				return err
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "TENANT\tWEIGHT\tJOBS ON %s\tMEMORY\tON DISK\tWORKERS DIED\tIN QUARANTINE\n", line(all.Node))
			for _, t := range all.Tenants {
				name := t.Name
				if t.Disabled {
					name += " (disabled)"
				}
				memory := "-"
				if t.Worker {
					memory = bytesText(t.Memory)
				}
				fmt.Fprintf(w, "%s\t%v\t%d\t%s\t%s\t%d\t%d\n", line(name), t.Weight, t.Jobs, memory, bytesText(t.Spilled+t.State), t.Restarts, len(t.Quarantine))
			}
			return w.Flush()
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// oneTenant asks a node for a tenant.
func oneTenant(cmd *cobra.Command, address, name string) (string, clientwire.Tenant, error) {
	var all clientwire.Tenants
	if err := ask(cmd, address, clientwire.KindTenants, clientwire.TenantsBody{Name: name}, &all); err != nil {
		return "", clientwire.Tenant{}, err
	}
	if len(all.Tenants) != 1 {
		return "", clientwire.Tenant{}, fmt.Errorf("the node tells of %d tenants %s", len(all.Tenants), name)
	}
	return all.Node, all.Tenants[0], nil
}

func newTenantShow() *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a tenant, and what a node has of it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, t, err := oneTenant(cmd, address, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return newJSON(out).Encode(t)
			}
			fmt.Fprintf(out, "tenant %s, weight %v", line(t.Name), t.Weight)
			if t.Disabled {
				fmt.Fprint(out, ", disabled")
			}
			fmt.Fprint(out, nodesOf(&t))
			if t.Created > 0 {
				fmt.Fprintf(out, ", made %s", time.UnixMilli(t.Created).Format(time.DateTime))
			}
			fmt.Fprintf(out, "\non node %s: %d jobs, ", line(node), t.Jobs)
			if t.Worker {
				fmt.Fprintf(out, "a worker of %s", bytesText(t.Memory))
			} else {
				fmt.Fprint(out, "no worker")
			}
			fmt.Fprintf(out, ", %s of objects on disk, %d workers that died\n", bytesText(t.Spilled), t.Restarts)
			if t.Barred != "" {
				fmt.Fprintln(out, line(t.Barred))
			}
			for _, s := range t.Quarantine {
				fmt.Fprintf(out, "in quarantine: %s %s, after %d workers, the last at %s: %s\n", line(s.Hash), line(s.Name), s.Deaths, time.UnixMilli(s.Last).Format(time.DateTime), line(s.Why))
			}
			if err := printQuota(out, t); err != nil {
				return err
			}
			return printPolicy(out, t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newTenantLift() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "lift NAME HASH", Short: "Have a node run a module again that it has in quarantine", Args: cobra.ExactArgs(2),
		Long: `A module in whose presence three workers of a tenant have died by themselves within
ten minutes is run no more on that node. Lift has it run again. HASH is its SHA-256,
or the first eight digits of that: wray tenant show NAME lists which there are.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ask(cmd, address, clientwire.KindTenantLift, clientwire.LiftBody{Tenant: args[0], Hash: args[1]}, &struct{}{}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "module %s of tenant %s may run again\n", args[1], args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	return cmd
}

func newQuota() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quota", Short: "Bound what a tenant may have on each node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuotaSet(), newQuotaShow())
	return cmd
}

// bound is a flag of one bound of a quota: a number in its unit, or none.
type bound struct {
	field wray.QuotaField
	value int64
	text  string
}

// Set implements pflag.Value.
func (b *bound) Set(text string) error {
	b.text = text
	if text == "none" {
		b.value = 0
		return nil
	}
	var err error
	switch unit := b.field.Unit; {
	case unit == wray.UnitCPU:
		var c cores
		err = c.Set(text)
		b.value = int64(wray.CPUs(float64(c)))
	case strings.HasPrefix(unit, "bytes"):
		var s size
		err = s.Set(text)
		b.value = int64(s)
	default:
		b.value, err = strconv.ParseInt(text, 10, 64)
		if err == nil && b.value < 1 {
			err = errors.New("less than 1")
		}
		if err != nil {
			err = fmt.Errorf("%q is not a number, 1 or more", text)
		}
	}
	if err != nil {
		return fmt.Errorf("%w; or none, for no bound", err)
	}
	return nil
}

// String implements pflag.Value.
func (b *bound) String() string { return b.text }

// Type implements pflag.Value.
func (b *bound) Type() string { return "VALUE" }

func newQuotaSet() *cobra.Command {
	var address string
	var bounds []*bound
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change bounds of a tenant's quota", Args: cobra.ExactArgs(1),
		Long: `Set changes the bounds that are given and leaves the others: a VALUE, or none. They
hold on each node by itself. A tenant's jobs that run go on with the bounds that
they began with, but for those of processor time, disk and printing, which hold at
once.`,
		Example: `  wray quota set analytics --cpu 2 --memory 4GiB --tasks 10000
  wray quota set analytics --tasks none`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b := clientwire.TenantBody{What: clientwire.TenantChange, Name: args[0], Quota: map[string]int64{}}
			for _, x := range bounds {
				if cmd.Flags().Changed(x.field.Flag) {
					b.Quota[x.field.Flag] = x.value
				}
			}
			if len(b.Quota) == 0 {
				return &usageError{errors.New("say which bounds are to change: see wray quota set --help")}
			}
			var t clientwire.Tenant
			if err := ask(cmd, address, clientwire.KindTenantSet, b, &t); err != nil {
				return err
			}
			return printQuota(cmd.OutOrStdout(), t)
		},
	}
	headFlag(cmd, &address)
	for _, f := range wray.QuotaFields {
		b := &bound{field: f}
		bounds = append(bounds, b)
		cmd.Flags().Var(b, f.Flag, f.What)
	}
	return cmd
}

func newQuotaShow() *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a tenant's quota", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, t, err := oneTenant(cmd, address, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(t.Quota)
			}
			return printQuota(cmd.OutOrStdout(), t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print JSON: bounds by their flags, cores in ten-thousandths")
	return cmd
}

func printQuota(out io.Writer, t clientwire.Tenant) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range wray.QuotaFields {
		v, text := t.Quota[f.Flag], "none"
		switch {
		case v <= 0:
		case f.Unit == wray.UnitCPU:
			text = wray.CPU(v).String()
		case f.Unit == "bytes":
			text = bytesText(v)
		case f.Unit == "bytes/s":
			text = bytesText(v) + "/s"
		default:
			text = strconv.FormatInt(v, 10)
		}
		fmt.Fprintf(w, "--%s\t%s\t%s\n", f.Flag, text, f.What)
	}
	return w.Flush()
}
