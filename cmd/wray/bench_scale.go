package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/tests/bench/engine"
)

// scalePackage is the driver of bench scale.
const scalePackage = "github.com/wray-project/wray/tests/bench/scale"

// unitMemory is the unit of lines whose figure is the worker's memory at the
// time they are printed.
const unitMemory = "GiB of the worker's memory"

func newBenchScale() *cobra.Command {
	var asJSON bool
	rounds, scale := count(1), factor(1)
	var residents count
	cmd := &cobra.Command{
		Use: "scale [PART-OF-A-NAME]", Short: "See how large things may get: tasks queued, objects, actors", Args: cobra.MaximumNArgs(1),
		Long: `Scale runs what applies on one node of Ray's scalability envelope, from a
driver in a sandbox, and cases about many actors. It takes minutes and up to
8 GB of memory. It builds its driver from source, so run it in a checkout.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			p, _, cache, err := benchProgram(ctx, scalePackage)
			if err != nil {
				return err
			}
			n, err := node.New(node.Config{CacheDir: cache, StoreBytes: 8 << 30, Residents: int(residents)})
			if err != nil {
				return err
			}
			defer n.Close()
			t := &benchTable{out: cmd.OutOrStdout(), asJSON: asJSON}
			err = benchDriver(cmd, n, p.wasm, []string{rounds.String(), scale.String(), strings.Join(args, "")},
				func(l engine.Line) error {
					if l.Unit == unitMemory {
						s, err := n.Memory("")
						if err != nil {
							return err
						}
						st, err := n.Stats(ctx, "")
						if err != nil {
							return err
						}
						if st.Resident+st.Asleep > 0 {
							fmt.Fprintf(cmd.ErrOrStderr(), "note: %d actors have a sandbox and %d sleep, in %.3f GiB of memory and %.3f GiB of disk\n",
								st.Resident, st.Asleep, gibs(st.AsleepBytes), gibs(st.AsleepOnDisk))
						}
						gib := gibs(s)
						l = engine.Line{Case: l.Case, Unit: "GiB", Median: gib, Min: gib, Max: gib}
					}
					return t.add(l)
				})
			if err != nil {
				return errors.Join(err, t.flush())
			}
			return errors.Join(t.flush(), t.none(cmd, args))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	f.Var(limited{&rounds, maxRounds}, "rounds", "rounds of each case, of which the median counts")
	f.Var(&scale, "scale", "share of the numbers in the names of the cases, to try them out")
	f.Var(&residents, "max-resident-actors", "as of wray run")
	return cmd
}

// gibs returns so many bytes in GiB.
func gibs(n int64) float64 { return float64(n) / (1 << 30) }
