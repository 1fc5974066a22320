package main

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wray-project/wray/host/worker"
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
