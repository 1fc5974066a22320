// Command wray runs programs whose tasks are WebAssembly sandboxes. Each verb
// is a file of this package.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray"
	_ "github.com/wray-project/wray/cmd/wray/early" // workers and compilers end there
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/plain"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lasts as long as the process
		s, _ := (<-signals).(syscall.Signal)
		signal.Stop(signals) // a second signal ends the program at once
		cancel(interrupted(s))
	}()
	os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// interrupted is the cause of a context that a signal has ended.
type interrupted syscall.Signal

func (i interrupted) Error() string { return "interrupted" }

// code is what a shell makes of a program that the signal ended.
func (i interrupted) code() int { return 128 + int(i) }

// Exit codes beside those of the jobs themselves.
const (
	exitFailure = 1
	exitUsage   = 2
)

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(stdin, stdout, stderr)
	root.SetArgs(args)
	var helpLost error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		w := &firstError{w: stdout}
		cmd.SetOut(w)
		help(cmd, args)
		helpLost = w.err
	})
	err := root.ExecuteContext(ctx)
	if err == nil && helpLost != nil {
		err = fmt.Errorf("the help is lost: %w", helpLost)
	}
	var exit *exitError
	var i interrupted
	switch {
	case err == nil:
		return 0
	case errors.As(context.Cause(ctx), &i):
		// What failed failed by that, and what it says of it is of no use.
		fmt.Fprintln(stderr, "wray: interrupted")
		return i.code()
	case errors.As(err, &exit):
		return exit.code
	}
	printError(stderr, err)
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// firstError keeps the first error of a writer whose caller looks at none.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if f.err == nil {
		f.err = err
	}
	return n, err
}

// exitError ends the program with a code and without words: the job has
// spoken.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// hinted adds what to do next to an error.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

func withHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// printError writes an error, where it happened in the guest, and the hint. All
// of them may hold text of a module or a guest.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "wray: error: %s\n", paragraph(err.Error()))
	var e *wray.Error
	hint := ""
	if errors.As(err, &e) {
		hint = e.Hint
		for c := e; c != nil; c = c.Cause {
			if c.Trace != "" {
				fmt.Fprintf(w, "wray: %s\n%s\n", clientwire.TraceHeading(clientwire.TraceOf(c.Code)), indent(string(plain.Text([]byte(c.Trace)))))
			}
			if hint == "" {
				hint = c.Hint
			}
		}
	}
	var h *hinted
	if errors.As(err, &h) {
		hint = h.hint
	}
	if hint != "" {
		fmt.Fprintf(w, "wray: hint: %s\n", paragraph(hint))
	}
}

func newRoot(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "wray",
		Short: "Run tasks in WebAssembly sandboxes",
		Long: `wray runs programs whose tasks are functions in WebAssembly sandboxes.

  wray run ./examples/wordcount          run a Go program's tasks
  wray run tool.wasm -- -v input.txt     run any WASI command
  wray start                             a node that takes jobs and native clients
  wray job submit ./examples/wordcount   a job there, which goes on without you
  wray status                            nodes, resources, jobs, what waits
  wray explain                           what waits, and for what
  wray memory                            what objects live, and who holds them
  wray module inspect tool.wasm          what a module wants and gets
  wray doctor                            what this machine offers`,
		SilenceUsage: true, SilenceErrors: true,
		Version: programVersion(), SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return &usageError{withHint(err, "did you mean wray %s?", strings.Join(near, " or wray "))}
			}
			return &usageError{withHint(err, "see wray --help")}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(versionLine())
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{withHint(err, "see %s --help", cmd.CommandPath())}
	})
	root.AddCommand(newRun(), newStart(), newJob(), newStatus(), newExplain(), newLogin(), newLogout(), newUser(), newToken(), newAudit(), newOperator(), newNode(), newTenant(), newQuota(), newPolicy(), newUp(), newDown(), newOnHost(), newMemory(), newModule(), newVersion(), newDoctor(), newBench())
	argumentsAreUsage(root)
	return root
}

// argumentsAreUsage makes wrong arguments of cmd, and of those below it,
// mistakes on the command line.
func argumentsAreUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var usage *usageError
			if err == nil || errors.As(err, &usage) {
				return err
			}
			return &usageError{withHint(err, "see %s --help", cmd.CommandPath())}
		}
	}
	for _, sub := range cmd.Commands() {
		argumentsAreUsage(sub)
	}
}
