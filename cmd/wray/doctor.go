package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/doctor"
	"github.com/wray-project/wray/host/node"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Show what this machine offers, and how to get what it lacks", Args: cobra.NoArgs,
		Long: `Doctor looks at what wray needs of the machine. Each check is ok, warn (wray runs,
but slower, with fewer sandboxes or a weaker jail) or fail (wray run does not
work here). The exit code is 1 when a check fails.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cache, err := node.CacheDir()
			checks := doctor.Run(cmd.Context(), doctor.Options{CacheDir: cache})
			if err != nil { // one thing more that this machine lacks
				checks = append(checks, doctor.Check{Name: "cache directory", Status: doctor.Fail, Detail: err.Error(),
					Remedy: "set WRAY_CACHE to a directory of your own that you can write"})
			}
			if err := printChecks(cmd.OutOrStdout(), checks, asJSON); err != nil {
				return err
			}
			if doctor.Failed(checks) {
				return &exitError{exitFailure}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

// printChecks writes a table, and below it a remedy for each check that is not
// ok: remedies are sentences and too long for a column.
func printChecks(out io.Writer, checks []doctor.Check, asJSON bool) error {
	if asJSON {
		enc := newJSON(out)
		for _, c := range checks {
			if err := enc.Encode(c); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, c := range checks {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Status, c.Name, c.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range checks {
		if c.Remedy == "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "\n%s: %s\n", c.Name, c.Remedy); err != nil {
			return err
		}
	}
	return nil
}
