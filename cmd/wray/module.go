package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/wasm/rewrite"
)

func newModule() *cobra.Command {
	cmd := &cobra.Command{Use: "module", Short: "Look at and rewrite WebAssembly modules", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newInspect(), newRewrite(), newKeygen(), newSign(), newVerify())
	return cmd
}

func newInspect() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "inspect PACKAGE|FILE.wasm", Short: "Show what a module wants and what a sandbox grants it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cache, err := cacheDir()
			if err != nil {
				return err
			}
			p, err := loadProgram(cmd.Context(), args[0], cache)
			if err != nil {
				return err
			}
			i, err := sandbox.Inspect(p.wasm, sandbox.CompileOptions{Modules: []sandbox.HostModule{worker.HostModule()}})
			if err != nil {
				return err
			}
			if asJSON {
				return newJSON(cmd.OutOrStdout()).Encode(i)
			}
			return printInspection(cmd, i)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printInspection(cmd *cobra.Command, i *sandbox.Inspection) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "kind\t%s\n", i.Kind)
	fmt.Fprintf(w, "size\t%d bytes, %d functions\n", i.Size, i.Functions)
	fmt.Fprintf(w, "memory\t%d to %d pages of 64 KiB\n", i.MemoryMin, i.MemoryMax)
	if i.Signed == nil {
		fmt.Fprintf(w, "signed\tby nobody\n")
	}
	for _, name := range i.Signed {
		fmt.Fprintf(w, "signed\tby somebody who says to be %s; wray module verify knows\n", line(name))
	}
	reset := "in place, from memory and globals"
	if !i.Resettable {
		reset = "replaced after use: " + line(i.NotResettable)
	}
	fmt.Fprintf(w, "reset\t%s\n", reset)
	fmt.Fprintf(w, "asks for\t%s\n", line(wants(i)))
	fmt.Fprintf(w, "imports\t%d\n", len(i.Imports))
	for _, im := range i.Imports {
		fmt.Fprintf(w, "\t%s.%s\t%s\t%s\n", line(im.Module), line(im.Name), im.Type, im.Grant)
	}
	fmt.Fprintf(w, "exports\t%d\n", len(i.Exports))
	for _, ex := range i.Exports {
		fmt.Fprintf(w, "\t%s\t%s %s\n", line(ex.Name), ex.Kind, ex.Type)
	}
	return w.Flush()
}

// asked is what grants the capabilities of imports that not everybody has.
var asked = []struct{ grant, how string }{
	{"dirs", "directories (--dir)"}, {"args", "arguments and environment (--env)"}, {"egress", "HTTP (--egress)"}, {"clock", "clocks"}, {"random", "random numbers"},
	{"tasks", "tasks"}, {"objects", "objects"},
}

// wants lists what a module's imports are of use for. That one is there does not
// say that it is called: a Go program imports what its runtime might.
func wants(i *sandbox.Inspection) string {
	var list []string
	for _, a := range asked {
		for _, im := range i.Imports {
			if im.Grant == a.grant {
				list = append(list, a.how)
				break
			}
		}
	}
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

func newRewrite() *cobra.Command {
	var o rewrite.Options
	var out string
	cmd := &cobra.Command{
		Use: "rewrite FILE.wasm -o OUT.wasm", Short: "Run the passes over a module, for use with other engines", Args: cobra.ExactArgs(1),
		Long: `Rewrite writes the module with the passes that the flags name.

A metered module imports wray_meter.tick, (i64) -> i64, which it calls when its
fuel is used up and whose result is the fuel until the next call, and
wray_meter.overflow, () -> (), which it calls when its stack is used up. It
exports its counters as wray:fuel and wray:depth; depth must be set before each
call. A module taken apart for snapshots has no data segments and no start
function any more; it is of use to an engine that puts them back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return &usageError{withHint(fmt.Errorf("rewrite needs a place for its result"), "name it with -o")}
			}
			if !o.Meter && !o.Snapshot {
				return &usageError{withHint(fmt.Errorf("rewrite has no pass to run"), "name it with --meter, --snapshot, or both")}
			}
			wasm, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if err := rewrite.Admit(wasm, rewrite.DefaultAdmitLimits()); err != nil {
				return err
			}
			o.TailCalls = true
			a, err := rewrite.Rewrite(wasm, o)
			if err != nil {
				return err
			}
			return os.WriteFile(out, a.Wasm, 0o644)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "where the result goes")
	cmd.Flags().BoolVar(&o.Meter, "meter", false, "inject the meter")
	cmd.Flags().BoolVar(&o.Snapshot, "snapshot", false, "take data segments and the start function out, and export globals")
	return cmd
}
