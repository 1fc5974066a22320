package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/audit"
)

func newAudit() *cobra.Command {
	return group("audit", "Check and read the log of who did what on a node",
		`Audit reads the log that wray start keeps of what was done and refused: see --audit-dir.`,
		newAuditVerify(), newAuditExport())
}

func newAuditVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE|DIR", Short: "Check that no record was changed, removed or put in between", Args: cobra.ExactArgs(1),
		Long: `Verify reads a log, and says how many records it has and the hash of the last; or which
line is the first that is wrong, and ends with 1. Records that were cut off at the end
are seen by who has kept a hash from before: it must be that of a record of the log.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := audit.Verify(args[0])
			if le := (*audit.LineError)(nil); errors.As(err, &le) {
				return withHint(err, "what comes before it holds; take the rest from a copy, and keep this one to find out who changed it")
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if v.Torn > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: %d bytes at the end are half of a record, as a crash leaves it, or a node that writes right now\n", v.Torn)
			}
			switch {
			case v.From <= 1:
			case v.Retired == v.From-1:
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: records 1 to %d are not there: the log removed them, as it kept enough (--audit-keep)\n", v.Retired)
			default:
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: records %d to %d are not there, and the log does not say that it removed them: somebody has moved the files, or taken them\n", v.Retired+1, v.From-1)
			}
			_, err = fmt.Fprintf(out, "%d records, %d to %d, in %d files hold together; the last has the hash %s\n", v.Records, v.From, v.Last, v.Files, v.Hash)
			return err
		},
	}
}

func newAuditExport() *cobra.Command {
	var since string
	var denied bool
	cmd := &cobra.Command{
		Use: "export FILE|DIR", Short: "Print records, one object of JSON a line, and check them", Args: cobra.ExactArgs(1),
		Long: `Export prints the records of a log as they are kept, and checks them as verify does: it
ends with 1 at the first that is wrong, which is not printed.`,
		Example: "  wray audit export ~/.local/state/wray/cluster/one/audit --since 2026-01-31T00:00:00Z --denied",
		RunE: func(cmd *cobra.Command, args []string) error {
			var from time.Time
			if since != "" {
				var err error
				if from, err = time.Parse(time.RFC3339, since); err != nil {
					return &usageError{withHint(fmt.Errorf("--since %q is no time", since), "write it as 2026-01-31T00:00:00Z")}
				}
			}
			out := cmd.OutOrStdout()
			_, err := audit.Read(args[0], func(r audit.Record, line []byte) error {
				at, err := time.Parse(time.RFC3339, r.Time)
				if err != nil || at.Before(from) || denied && r.Decision != audit.Denied {
					return nil
				}
				_, err = out.Write(line)
				return err
			})
			return err
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "records from this `TIME` on alone, as 2026-01-31T00:00:00Z")
	cmd.Flags().BoolVar(&denied, "denied", false, "records of requests that were refused alone")
	return cmd
}
