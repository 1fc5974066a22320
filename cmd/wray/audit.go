package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/internal/plain"
)

func newAudit() *cobra.Command {
	return group("audit", "Check and read the log of who did what on a node",
		`Audit reads the log that wray start keeps of what was done and refused: see --audit-dir.`,
		newAuditVerify(), newAuditExport())
}

func newAuditVerify() *cobra.Command {
	var kept string
	cmd := &cobra.Command{
		Use: "verify FILE|DIR", Short: "Check that no record was changed, removed or put in between", Args: cobra.ExactArgs(1),
		Long: `Verify reads a log, and says how many records it has and the hash of the last; or which
line is the first that is wrong, and ends with 1. That sees what was changed, removed in
front or in the middle, or put in between. It does not see that the last records were
cut off, or that all was written anew with new hashes: keep the number and the hash that
are printed elsewhere, where who can write the log cannot, and give them by --expect.`,
		Example: "  wray audit verify ~/.local/state/wray/cluster/one/audit\n  wray audit verify audit --expect 17:9f2c4a…",
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := verifyAudit(args[0], kept)
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
			case isDir(args[0]) && kept == "":
				return withHint(fmt.Errorf("records %d to %d are not there, and the log does not say that it removed them: somebody has moved the files, or taken them", v.Retired+1, v.From-1),
					"if they were moved, check them by themselves, and these with --expect %d:HASH, the hash of the last that was moved", v.From-1)
			default:
				fmt.Fprintf(cmd.ErrOrStderr(), "wray: note: records %d to %d are not there, and the log does not say that it removed them: they are in other files, or somebody has taken them\n", v.Retired+1, v.From-1)
			}
			if v.Records == 0 {
				_, err = fmt.Fprintln(out, "0 records: nothing was recorded yet, or all was removed, which --expect alone tells")
				return err
			}
			_, err = fmt.Fprintf(out, "%d records, %d to %d, in %d files hold together; the last has the hash %s\nto see later that none was cut off: --expect %d:%s\n", v.Records, v.From, v.Last, v.Files, v.Hash, v.Last, v.Hash)
			return err
		},
	}
	cmd.Flags().StringVar(&kept, "expect", "", "the log must have the record of this `NUMBER:HASH`, kept from an earlier verify")
	return cmd
}

// verifyAudit verifies a log, which must have a record that was kept, NUMBER:HASH,
// where that is not empty.
func verifyAudit(path, kept string) (audit.Verified, error) {
	if kept == "" {
		return audit.Verify(path)
	}
	number, hash, _ := strings.Cut(kept, ":")
	seq, err := strconv.ParseUint(number, 10, 63)
	if b, herr := hex.DecodeString(hash); err != nil || seq == 0 || herr != nil || len(b) != sha256.Size {
		return audit.Verified{}, &usageError{withHint(fmt.Errorf("--expect %q is no record", kept), "write NUMBER:HASH, as wray audit verify prints it")}
	}
	return audit.VerifyKept(path, seq, strings.ToLower(hash))
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func newAuditExport() *cobra.Command {
	var since string
	var denied bool
	cmd := &cobra.Command{
		Use: "export FILE|DIR", Short: "Print records, one object of JSON a line, and check them", Args: cobra.ExactArgs(1),
		Long: `Export prints the records of a log and checks them as verify does: it ends with 1 at the
first that is wrong, which is not printed. Characters that a terminal would heed are
printed as \u escapes; but for those the lines are as they are kept, with their hashes.`,
		Example: "  wray audit export ~/.local/state/wray/cluster/one/audit --since 2026-01-31T00:00:00Z --denied",
		RunE: func(cmd *cobra.Command, args []string) error {
			var from time.Time
			if since != "" {
				var err error
				if from, err = time.Parse(time.RFC3339, since); err != nil {
					return &usageError{withHint(fmt.Errorf("--since %q is no time", since), "write it as 2026-01-31T00:00:00Z")}
				}
			}
			out := plain.JSON(cmd.OutOrStdout())
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
