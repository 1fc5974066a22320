package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/plain"
	"github.com/wray-project/wray/sdk/internal/rt"
)

// Main runs the driver: the part of the program that submits tasks. It is all
// that main does:
//
//	func main() { sdk.Main(run) }
//
// Under wray, run's context is done when the job is to end, and an error is
// printed with its hint and the trace of the task that failed, and makes the
// job end with exit code 1. os.Exit ends it with any other.
//
// In a native build, run and all tasks are goroutines of this process, which
// Main says on standard error, since then nothing is sandboxed.
func Main(run func(ctx context.Context) error) {
	ctx := rt.Context()
	if !rt.Sandboxed {
		fmt.Fprintln(os.Stderr, "sdk: running natively: tasks are goroutines of this process, and nothing is sandboxed; for sandboxes use wray run")
	}
	err := run(ctx)
	if err == nil {
		return
	}
	report(os.Stderr, err)
	if !rt.Sandboxed {
		os.Exit(1)
	}
	rt.SetExitCode(1)
}

// report explains err to a person, whose terminal texts of others do not drive.
func report(w io.Writer, err error) {
	text := func(s string) string { return string(plain.Text([]byte(s))) }
	fmt.Fprintln(w, "error:", text(err.Error()))
	var e *wray.Error
	if !errors.As(err, &e) {
		return
	}
	// The trace and the hint that help are those of the first failure.
	hint, trace := "", ""
	for c := e; c != nil; c = c.Cause {
		if c.Hint != "" {
			hint = c.Hint
		}
		if c.Trace != "" {
			trace = c.Trace
		}
	}
	if trace != "" {
		fmt.Fprintf(w, "trace:\n\t%s\n", strings.ReplaceAll(strings.TrimSpace(text(trace)), "\n", "\n\t"))
	}
	if hint != "" {
		fmt.Fprintln(w, "hint:", text(hint))
	}
}
