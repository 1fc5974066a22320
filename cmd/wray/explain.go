package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/internal/clientwire"
)

func newExplain() *cobra.Command {
	var address, tenant string
	var asJSON bool
	var limit count
	cmd := &cobra.Command{
		Use: "explain [TASK|ACTOR|GROUP|JOB]", Short: "Say what waits, and what keeps it from going on", Args: cobra.MaximumNArgs(1),
		Long: `Explain asks a node of yours on this machine what waits there: tasks and actors that
have no node with room, in groups of those alike, and for each node what is short or
does not fit; what waits for arguments, and whose they are; what runs and waits; actors
whose calls wait; placement groups. With a name it tells of that task, actor, group or job alone; a job is named
by its program, its number in wray memory, or its ID in wray job list.

What was submitted on another node that one knows: see --address.`,
		Example: `  wray explain
  wray explain train
  wray explain --address unix:///run/user/1000/wray/node.sock --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := clientwire.ExplainBody{Most: int(limit), Tenant: tenant}
			if len(args) > 0 {
				if q.What = args[0]; q.What == "" {
					return &usageError{withHint(fmt.Errorf("the name is empty"), "leave it out to see all that waits")}
				}
			}
			var x clientwire.Explained
			if err := ask(cmd, address, clientwire.KindExplain, q, &x); err != nil {
				return err
			}
			if asJSON {
				x.Tasks, x.Actors, x.Jobs = orEmpty(x.Tasks), orEmpty(x.Actors), orEmpty(x.Jobs)
				return newJSON(cmd.OutOrStdout()).Encode(x)
			}
			return printExplained(cmd.OutOrStdout(), &x)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "ask the node at this `ADDRESS`, as wray start prints it (default your node's)")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.StringVar(&tenant, "tenant", "", "what waits of the tenant `NAME` (default local)")
	f.Var(limited{&limit, 256}, "limit", "most groups to list, 256 at most (default 64)")
	return cmd
}

// orEmpty makes of no list an empty one, for programs that read JSON.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func printExplained(out io.Writer, x *clientwire.Explained) error {
	fmt.Fprintf(out, "node %s\n", line(x.Node))
	printResources(out, x.Resources)
	switch {
	case x.Idle != "":
		fmt.Fprintf(out, "it does not wait: %s\n", line(x.Idle))
	case len(x.Tasks) == 0 && len(x.Actors) == 0 && len(x.Groups) == 0:
		fmt.Fprintln(out, "nothing waits here")
	}
	return printWaits(out, x, false)
}

// printWaits prints what waits. brief leaves out what wray explain has besides.
func printWaits(out io.Writer, x *clientwire.Explained, brief bool) error {
	p := &waitPrinter{out: out, jobs: map[uint32]string{}, brief: brief}
	for _, j := range x.Jobs {
		p.jobs[j.Number] = line(j.Name)
	}
	if !brief {
		p.grants(x.Jobs)
	}
	p.groups(x.Groups, x.MoreGroups)
	queued := false
	for i := range x.Tasks {
		p.wait(&x.Tasks[i])
		queued = queued || x.Tasks[i].State == clientwire.WaitQueued
	}
	if x.More > 0 {
		p.line("and %d more tasks wait, in groups beyond those; see --limit of wray explain", x.More)
	}
	if x.Unseen > 0 {
		p.line("and %d more tasks wait whose names were not looked at", x.Unseen)
	}
	for i := range x.Actors {
		p.actor(&x.Actors[i])
	}
	if x.MoreCalls > 0 {
		p.line("and %d more calls of actors are not answered", x.MoreCalls)
	}
	if queued {
		for _, n := range x.Others {
			p.line("nothing goes to node %s: %s", n.Node, n.Why)
		}
		if x.MoreOthers > 0 {
			p.line("nothing goes to %d more nodes, whose workers are not known here", x.MoreOthers)
		}
	}
	if brief {
		p.line("wray explain says more")
	}
	return p.err
}

// waitPrinter prints what waits, and keeps the first error.
type waitPrinter struct {
	out   io.Writer
	jobs  map[uint32]string
	brief bool
	err   error
}

// line prints a line without control characters: names are a program's own.
func (p *waitPrinter) line(format string, args ...any) {
	s := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	if _, err := fmt.Fprintf(p.out, "%s\n", paragraph(s)); err != nil && p.err == nil {
		p.err = err
	}
}

// job names a job by its number and its program.
func (p *waitPrinter) job(number uint32) string {
	if name := p.jobs[number]; name != "" {
		return fmt.Sprintf("job %d (%s)", number, name)
	}
	return fmt.Sprintf("job %d", number)
}

func (p *waitPrinter) wait(w *clientwire.Wait) {
	what := "task " + w.Name
	switch {
	case w.Name == "":
		what = fmt.Sprintf("%d more tasks, whose names were not looked at", w.Count)
	case w.Actor:
		what = "actor " + w.Name
	case w.Again:
		what += ", run again as its result was lost"
	}
	if w.Name != "" && w.Count > 1 {
		what += fmt.Sprintf(" ×%d", w.Count)
	}
	what += " of " + p.job(w.Job)
	if wants := wantsText(w); wants != "" {
		what += ", wants " + wants
	}
	why := map[string]string{
		clientwire.WaitQueued:  "waits for a node with room",
		clientwire.WaitArgs:    "waits for its arguments",
		clientwire.WaitBackoff: "waits for its next attempt",
		clientwire.WaitEnd:     "is about to end",
		clientwire.WaitBlocked: "runs, and waits",
	}[w.State]
	switch {
	case w.Never:
		why = "CAN RUN NOWHERE: no node that is known could ever hold it"
	case why == "":
		why = "is " + w.State
	}
	if w.Name != "" {
		why += fmt.Sprintf(", for %v", time.Duration(w.Seconds)*time.Second)
	}
	p.line("%s: %s", what, why)
	if w.Why != "" {
		p.line("    for: %s", w.Why)
	}
	for i := range w.For {
		p.line("    for: %s", forText(&w.For[i]))
	}
	if w.MoreFor > 0 {
		p.line("    for: %d more objects", w.MoreFor)
	}
	p.verdicts(w)
	if w.Scaling != "" {
		p.line("    %s", w.Scaling)
	}
}

// verdicts prints what keeps tasks from nodes, those alike together.
func (p *waitPrinter) verdicts(w *clientwire.Wait) {
	type alike struct {
		why   string
		nodes []string
	}
	var list []alike
	at := map[string]int{}
	for _, n := range w.Nodes {
		why := cmp.Or(n.Why, "nothing keeps it from there: it is next, or will be asked")
		if n.Never && !w.Never {
			why = "never, " + why
		}
		i, ok := at[why]
		if !ok {
			i = len(list)
			at[why] = i
			list = append(list, alike{why: why})
		}
		list[i].nodes = append(list[i].nodes, cmp.Or(n.Node, "this node"))
	}
	const most = 4
	for _, a := range list {
		names := strings.Join(a.nodes[:min(len(a.nodes), most)], ", ")
		if more := len(a.nodes) - most; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		p.line("    %s: %s", names, a.why)
	}
	if w.MoreNodes > 0 {
		p.line("    %d more nodes were not looked at", w.MoreNodes)
	}
}

func wantsText(w *clientwire.Wait) string {
	var parts []string
	for _, r := range w.Wants {
		switch {
		case r.Custom:
			parts = append(parts, fmt.Sprintf("%s=%g", r.Name, r.Total))
		case r.Name == "memory":
			parts = append(parts, bytesText(int64(r.Total))+" of memory")
		default:
			parts = append(parts, fmt.Sprintf("%g CPUs", r.Total))
		}
	}
	parts = append(parts, slices.Sorted(slices.Values(w.Labels))...)
	if w.Strategy != "" {
		parts = append(parts, w.Strategy)
	}
	return strings.Join(parts, ", ")
}

func forText(f *clientwire.WaitFor) string {
	switch {
	case f.Actor != "":
		return fmt.Sprintf("call %s of actor %s", f.Task, f.Actor)
	case f.Task == "":
		return fmt.Sprintf("object %s, which no task known here makes", f.Object)
	}
	s := fmt.Sprintf("what task %s makes, which is %s", f.Task, f.State)
	if f.Node != "" {
		s += " to node " + f.Node
	}
	if f.Again {
		s += "; it was lost, and is made again"
	}
	return s
}

func (p *waitPrinter) actor(a *clientwire.ActorWait) {
	name := a.Actor.Class
	if a.Actor.Name != "" {
		name = fmt.Sprintf("%s (%s)", a.Actor.Name, a.Actor.Class)
	}
	state := a.Actor.State
	if a.Actor.Call != "" {
		state += " " + a.Actor.Call
	}
	if a.Actor.Why != "" {
		state += ", " + a.Actor.Why
	}
	switch a.Start {
	case clientwire.WaitQueued, clientwire.WaitArgs:
		state = "not started: see its constructor above"
	case clientwire.WaitBackoff:
		state = "restarting: its last attempt failed"
	}
	p.line("actor %s of %s: %d calls are not answered, %d of them wait; it is %s", name, p.job(a.Actor.Job), a.Calls, a.Actor.Waiting, state)
	for i := range a.For {
		p.line("    a call waits for: %s", forText(&a.For[i]))
	}
}

// grants prints what jobs were granted, and what of it their tenant's policy has no
// more.
func (p *waitPrinter) grants(jobs []clientwire.Job) {
	for _, j := range jobs {
		var have, refused []string
		for _, g := range j.Grants {
			if have = append(have, line(g.Grant)); g.Refused {
				refused = append(refused, line(g.Grant))
			}
		}
		if len(have) > 0 {
			p.line("job %d, %s, is granted %s", j.Number, line(j.Name), strings.Join(have, ", "))
		}
		if len(refused) > 0 {
			p.line("  of which its tenant's policy does not have %s; see wray policy show", strings.Join(refused, ", "))
		}
	}
}
