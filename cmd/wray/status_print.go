package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

func printStatus(out io.Writer, s clientwire.Status) error {
	if s.Cluster == "" {
		fmt.Fprintf(out, "node %s is in no cluster\n", line(s.Node))
	} else {
		fmt.Fprintf(out, "cluster %s, as node %s knows it\n", line(s.Cluster), line(s.Node))
	}
	fmt.Fprintf(out, "tasks of this node: %d wait, %d run, %d finished, %d failed\n", s.Tasks.Waiting, s.Tasks.Running, s.Tasks.Finished, s.Tasks.Failed)
	if s.Waits != nil {
		printResources(out, s.Waits.Resources)
	}
	for _, p := range s.Partial {
		fmt.Fprintf(out, "could not be had: %s\n", line(p))
	}
	if err := printNodes(out, s.Nodes); err != nil {
		return err
	}
	if err := printGroups(out, s.Groups); err != nil {
		return err
	}
	if err := printRunningJobs(out, &s); err != nil {
		return err
	}
	if s.Waits != nil && (len(s.Waits.Tasks) > 0 || len(s.Waits.Actors) > 0 || len(s.Waits.Groups) > 0) {
		fmt.Fprintln(out)
		return printWaits(out, s.Waits, true)
	}
	return nil
}

func printNodes(out io.Writer, nodes []clientwire.NodeStatus) error {
	if len(nodes) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tROLE\tSTATUS\tSINCE\tADDRESS\tCPUS\tMEMORY\tFREE\tRESOURCES\tLABELS\tWHY")
	for _, n := range nodes {
		role := "node"
		if n.Head {
			role = "head"
			if n.Learner {
				role = "head, without a vote yet"
			}
		}
		status := n.Status
		if n.Draining {
			status += ", draining"
		}
		var custom []string
		for _, c := range n.Custom {
			custom = append(custom, fmt.Sprintf("%s=%v", line(c.Name), wray.Amount(c.Amount)))
		}
		slices.Sort(custom)
		var labels []string
		for k, v := range n.Labels {
			// What every node has is said by its name, or seldom of use here.
			if !strings.HasPrefix(k, wray.LabelPrefix) {
				labels = append(labels, line(k+"="+v))
			}
		}
		slices.Sort(labels)
		free := "?"
		if n.Free != nil {
			free = fmt.Sprintf("%v CPUs, %s", wray.CPU(n.Free.CPU), bytesText(n.Free.Memory))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%s\t%v\t%s\t%s\t%s\t%s\t%s\n", line(n.Name), role, status, time.Duration(n.Since)*time.Second,
			line(n.Addr), wray.CPU(n.CPU), bytesText(n.Memory), free, cmp.Or(strings.Join(custom, ","), "-"), cmp.Or(strings.Join(labels, ","), "-"), line(n.Why))
	}
	return w.Flush()
}

// printGroups prints the groups of nodes that come and go.
func printGroups(out io.Writer, groups []clientwire.GroupStatus) error {
	if len(groups) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tPROVIDER\tNODES\tWANTED\tTHERE\tSTARTING\tDRAINING\tWHY")
	for _, g := range groups {
		fmt.Fprintf(w, "%s\t%s\t%d to %d\t%d\t%d\t%d\t%d\t%s\n", line(g.Name), line(g.Provider), g.Min, g.Max, g.Wanted, g.There, g.Starting, g.Draining,
			line(g.Why))
	}
	return w.Flush()
}

// printRunningJobs prints the submitted jobs of all nodes, and the others of this
// one.
func printRunningJobs(out io.Writer, s *clientwire.Status) error {
	if len(s.Jobs) > 0 {
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "JOB\tPROGRAM\tNODE\tSTATE")
		for _, j := range s.Jobs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", line(j.ID), line(j.Name), line(j.Node), line(j.State))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if s.MoreJobs > 0 {
			fmt.Fprintf(out, "and %d more jobs; see wray job list\n", s.MoreJobs)
		}
	}
	if s.Waits == nil || len(s.Waits.Jobs) == 0 {
		return nil
	}
	var names []string
	for _, j := range s.Waits.Jobs {
		names = append(names, fmt.Sprintf("%d (%s)", j.Number, line(j.Name)))
	}
	if s.Waits.MoreJobs > 0 {
		names = append(names, fmt.Sprintf("and %d more", s.Waits.MoreJobs))
	}
	_, err := fmt.Fprintf(out, "\njobs with tasks on this node, by number: %s\n", strings.Join(names, ", "))
	return err
}
