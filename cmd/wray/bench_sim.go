package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/tests/sim"
)

func newBenchSim() *cobra.Command {
	c := sim.Config{}
	var steps bool
	nodes, tasks, load := count(2000), count(1_000_000), factor(0.7)
	cmd := &cobra.Command{
		Use: "sim", Short: "Simulate a cluster with faults on virtual time, and check what came of it", Args: cobra.NoArgs,
		Long: `Sim runs the schedulers of many nodes, and what they think of each other, in one
process on virtual time, while nodes die and links are cut, and checks that every
task is done once, that all resources are free again, and that nobody was called
dead who lives. It prints one JSON object, and the seed, with which the run is
the same again. 2,000 nodes take some 3 GB of memory and some minutes.

With --steps it prints instead what a scheduler takes for an event and what it
decides, in clusters of 10, 100, 1,000 and 2,000 nodes without faults.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Nodes, c.Tasks, c.Load = int(nodes), int(tasks), float64(load)
			out := newJSON(cmd.OutOrStdout())
			begin := time.Now()
			c.Clock = func() time.Duration { return time.Since(begin) }
			if !cmd.Flags().Changed("seed") {
				c.Seed = rand.Uint64()
			}
			if !steps {
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: seed %d\n", c.Seed)
				r, err := sim.Run(c)
				_ = out.Encode(r)
				return err
			}
			for _, n := range []int{10, 100, 1000, 2000} {
				c.Nodes, c.Tasks, c.Quiet = n, max(100*n, 20_000), true
				r, err := sim.Run(c)
				if err != nil {
					return err
				}
				if err := out.Encode(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.Var(limited{&nodes, 10_000}, "nodes", "nodes")
	f.Var(limited{&tasks, 1_000_000_000}, "tasks", "tasks that drivers submit, which submit more")
	f.Uint64Var(&c.Seed, "seed", 0, "seed of the run (default: another each time)")
	f.Var(&load, "load", "share of all processors that the tasks take")
	f.BoolVar(&steps, "steps", false, "measure steps of the schedulers")
	return cmd
}
