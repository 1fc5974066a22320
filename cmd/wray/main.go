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
)

func main() {
	if code, ok := runHidden(os.Args); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes beside those of the jobs themselves.
const (
	exitFailure = 1
	exitUsage   = 2
)

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(stdin, stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
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

// printError writes an error, where it happened in the guest, and the hint.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "wray: error: %v\n", err)
	var e *wray.Error
	hint := ""
	if errors.As(err, &e) {
		hint = e.Hint
		for c := e; c != nil; c = c.Cause {
			if c.Trace != "" {
				fmt.Fprintf(w, "wray: the guest's stack:\n%s\n", indent(c.Trace))
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
		fmt.Fprintf(w, "wray: hint: %s\n", hint)
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
  wray memory                            what objects live, and who holds them
  wray module inspect tool.wasm          what a module wants and gets
  wray doctor                            what this machine offers`,
		SilenceUsage: true, SilenceErrors: true,
		SuggestionsMinimumDistance: 2,
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
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{withHint(err, "see %s --help", cmd.CommandPath())}
	})
	root.AddCommand(newRun(), newStart(), newMemory(), newModule(), newVersion(), newDoctor(), newBench())
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
