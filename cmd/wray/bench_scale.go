package main

import (
	"errors"
	"strconv"
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
	var rounds, residents int
	var scale float64
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
			n, err := node.New(node.Config{CacheDir: cache, StoreBytes: 8 << 30, Residents: residents})
			if err != nil {
				return err
			}
			defer n.Close()
			t := &benchTable{out: cmd.OutOrStdout(), asJSON: asJSON}
			err = benchDriver(cmd, n, p.wasm, []string{strconv.Itoa(rounds), strconv.FormatFloat(scale, 'g', -1, 64), strings.Join(args, "")},
				func(l engine.Line) error {
					if l.Unit == unitMemory {
						s, err := n.Memory()
						if err != nil {
							return err
						}
						gib := float64(s) / (1 << 30)
						l = engine.Line{Case: l.Case, Unit: "GiB", Median: gib, Min: gib, Max: gib}
					}
					return t.add(l)
				})
			return errors.Join(err, t.flush())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	f.IntVar(&rounds, "rounds", 1, "rounds of each case, of which the median counts")
	f.Float64Var(&scale, "scale", 1, "share of the numbers in the names of the cases, to try them out")
	f.IntVar(&residents, "max-resident-actors", 0, "as of wray run")
	return cmd
}
