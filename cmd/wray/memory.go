package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/nodeaddr"
)

func newMemory() *cobra.Command {
	var address, tenant string
	var asJSON bool
	var leaks bool
	var job count
	limit := count(1000)
	cmd := &cobra.Command{
		Use: "memory", Short: "List live objects and who holds them", Args: cobra.NoArgs,
		Long: `Memory lists the objects that live in your nodes on this machine, those of wray run
included, the largest first: what each is, which job made it, and who holds it, how
often, and for how long. --leaks lists those alone that nobody will use again.`,
		Example: `  wray memory
  wray memory --job 3 --leaks
  wray memory --address unix:///run/user/1000/wray/node.sock --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return memory(cmd, address, clientwire.MemoryBody{Job: uint32(job), Leaks: leaks, Most: int(limit), Tenant: tenant}, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS` alone")
	f.BoolVar(&asJSON, "json", false, "print one JSON object for each node")
	f.Var(&job, "job", "list what this job has made alone, by its `NUMBER` in the listing")
	f.BoolVar(&leaks, "leaks", false, "list what nobody will use again alone")
	f.StringVar(&tenant, "tenant", "", "objects of the tenant `NAME` (default local)")
	f.Var(limited{&limit, 5000}, "limit", "most objects to list, 5000 at most")
	return cmd
}

func memory(cmd *cobra.Command, address string, q clientwire.MemoryBody, asJSON bool) error {
	ctx := cmd.Context()
	sockets := []string{address}
	if address == "" {
		var err error
		if sockets, err = nodeaddr.Sockets(); err != nil {
			return err
		}
		if os.Getenv(nodeaddr.Env) != "" {
			own, err := nodeaddr.Socket("")
			if err != nil {
				return err
			}
			if !slices.Contains(sockets, own) {
				sockets = append(sockets, own)
			}
		}
	}
	asked := 0
	for _, s := range sockets {
		m, err := askMemory(ctx, s, q)
		if err != nil {
			if address == "" && errors.As(err, new(*noNode)) {
				continue // it has died
			}
			return err
		}
		asked++
		if asJSON {
			if err := newJSON(cmd.OutOrStdout()).Encode(m); err != nil {
				return err
			}
			continue
		}
		if asked > 1 {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		if err := printMemory(cmd.OutOrStdout(), s, m); err != nil {
			return err
		}
	}
	if asked == 0 {
		return withHint(errors.New("no node of yours runs on this machine"), "start one with: wray start; or name one that listens elsewhere with --address")
	}
	return nil
}

// noNode marks an error that says that no node is there.
type noNode struct{ error }

func (e *noNode) Unwrap() error { return e.error }

func askMemory(ctx context.Context, address string, q clientwire.MemoryBody) (m clientwire.Memory, err error) {
	r, err := dialNode(ctx, address)
	if e := (*wray.Error)(nil); errors.As(err, &e) && e.Code == wray.CodeBadArgument { // and not Denied, or canceled
		return m, &noNode{err}
	}
	if err != nil {
		return m, err
	}
	defer r.Close()
	return m, r.call(ctx, clientwire.KindMemory, q, nil, &m)
}

func printMemory(out io.Writer, socket string, m clientwire.Memory) error {
	fmt.Fprintf(out, "node %s (process %d) at %s\n", line(m.Node), m.PID, socket)
	fmt.Fprintf(out, "store: %s of %s used, %s kept for reuse\n", bytesText(m.Used), bytesText(m.Capacity), bytesText(m.Pooled))
	fmt.Fprintf(out, "objects: %d of %s", m.Count, bytesText(m.Bytes))
	if m.Leaked > 0 {
		fmt.Fprintf(out, ", %d of which nobody will use again", m.Leaked)
	}
	fmt.Fprintln(out)
	for _, j := range m.Jobs {
		fmt.Fprintf(out, "job %d: %s\n", j.Number, line(j.Name))
	}
	if m.Kept > 0 || m.KeptOnDisk > 0 {
		fmt.Fprintf(out, "actors that sleep, and checkpoints: %s of memory, %s on disk\n", bytesText(m.Kept), bytesText(m.KeptOnDisk))
	}
	if m.Undrained > 0 {
		fmt.Fprintf(out, "no checkpoint, as calls under way did not end: %d times\n", m.Undrained)
	}
	printResources(out, m.Resources)
	if err := printActors(out, &m); err != nil {
		return err
	}
	if len(m.Objects) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "OBJECT\tSIZE\tSTATE\tENCODING\tAGE\tMADE BY\tREFS\tHELD BY")
	for i := range m.Objects {
		o := &m.Objects[i]
		by := "?"
		if o.Job != 0 {
			by = fmt.Sprintf("job %d", o.Job)
		}
		if o.Task != "" {
			by += " " + line(o.Task)
		}
		var held []string
		for _, h := range o.Holders {
			held = append(held, holderText(&h))
		}
		if o.More > 0 {
			held = append(held, fmt.Sprintf("%d others", o.More))
		}
		if o.Leak != "" {
			held = append(held, "LEAK: "+o.Leak)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", o.ID, bytesText(o.Bytes), o.State, o.Encoding,
			time.Duration(o.Age)*time.Second, by, o.Refs, strings.Join(held, "; "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if left := m.Count - int64(len(m.Objects)); left > 0 {
		fmt.Fprintf(out, "and %d smaller ones; see --limit\n", left)
	}
	return nil
}

// printResources prints what is free of what there is.
func printResources(out io.Writer, list []clientwire.Resource) {
	var parts []string
	for _, r := range list {
		total, free := short(r.Total), short(r.Free)
		if r.Name == "memory" && !r.Custom {
			total, free = bytesText(int64(r.Total)), bytesText(int64(r.Free))
		}
		parts = append(parts, fmt.Sprintf("%s %s of %s", line(r.Name), free, total))
	}
	if len(parts) > 0 {
		fmt.Fprintf(out, "free: %s\n", strings.Join(parts, ", "))
	}
}

func printActors(out io.Writer, m *clientwire.Memory) error {
	if len(m.ActorStates) == 0 {
		return nil
	}
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(m.ActorStates)) {
		parts = append(parts, fmt.Sprintf("%d %s", m.ActorStates[state], line(state)))
	}
	fmt.Fprintf(out, "actors: %s\n", strings.Join(parts, ", "))
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ACTOR\tCLASS\tNAME\tJOB\tCALLS\tQUEUED\tSIZE\tSTATE")
	for i := range m.Actors {
		a := &m.Actors[i]
		state := a.State
		if a.Call != "" {
			state += " in " + a.Call
		}
		if a.Why != "" {
			state += ", " + a.Why
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", a.ID, line(a.Class), line(a.Name), a.Job, a.Calls, a.Waiting,
			bytesText(a.Bytes), line(state))
	}
	return w.Flush()
}

func holderText(h *clientwire.Holder) string {
	s := h.Kind
	if h.Name != "" {
		s += " " + line(h.Name)
	}
	if h.Count > 1 {
		s += fmt.Sprintf(" ×%d", h.Count)
	}
	if h.Age >= 0 {
		s += fmt.Sprintf(" for %v", time.Duration(h.Age)*time.Second)
	}
	return s
}

// bytesText writes a number of bytes for a person.
func bytesText(n int64) string {
	for _, u := range sizeUnits[:3] {
		if n >= u.bytes {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(u.bytes), u.suffix)
		}
	}
	return fmt.Sprintf("%d B", n)
}
