package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/plain"
)

// printer shows what a job prints: the driver's lines as they are, a task's
// headed with its name, and below them on a terminal a line of progress.
type printer struct {
	out, err     io.Writer
	outTTY, errT bool

	mu     sync.Mutex
	status string // guarded by mu; the progress line on the terminal now
	tail   []byte // guarded by mu; the end of the driver's standard error
	failed error  // guarded by mu; the first write that was not taken
	fail   func() // called once then; may be nil
}

func newPrinter(out, err io.Writer) *printer {
	return &printer{out: out, err: err, outTTY: isTerminal(out), errT: isTerminal(err)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// print writes what a job printed. What goes to a terminal is stripped of
// control characters: guests may not drive it.
func (p *printer) print(task string, s worker.Stream, b []byte) {
	w, tty := p.out, p.outTTY
	if s != worker.Stdout {
		w, tty = p.err, p.errT
	}
	var buf bytes.Buffer
	switch {
	case s == worker.Notice:
		buf.WriteString("wray: note: " + paragraph(string(b)))
	case task == "" && !tty:
		buf.Write(b)
	default:
		for line := range bytes.Lines(b) {
			if task != "" {
				buf.WriteString(heading(task, tty))
			}
			if tty {
				line = plain.Text(line)
			}
			buf.Write(line)
			if task != "" && !bytes.HasSuffix(line, []byte("\n")) {
				buf.WriteByte('\n')
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if task == "" && s == worker.Stderr {
		p.tail = keep(p.tail, b)
	}
	p.clearLocked()
	// A reader that went away ends the program by SIGPIPE. Output that is lost for
	// another reason, such as a full disk, is a job that failed.
	if _, err := w.Write(buf.Bytes()); err != nil && p.failed == nil {
		p.failed = fmt.Errorf("what the job printed is lost: %w", err)
		if p.fail != nil {
			p.fail()
		}
	}
	p.drawLocked()
}

// lost returns the first failure to write what the job printed.
func (p *printer) lost() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// heading is what a task's lines begin with, in a colour of the task's own on
// a terminal.
func heading(task string, tty bool) string {
	name := line(task)
	if !tty {
		return "(" + name + ") "
	}
	h := fnv.New32a()
	h.Write([]byte(task))
	return fmt.Sprintf("\x1b[3%dm(%s)\x1b[0m ", 1+h.Sum32()%6, name)
}

// progress keeps a line of progress on standard error while the job runs, if
// that is a terminal. The result ends it and waits for that.
func (p *printer) progress(ctx context.Context, n runner) (stop func()) {
	if !p.errT {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				p.set("")
				return
			case <-t.C:
			}
			s, err := n.Stats(ctx)
			if err != nil || s.Running+s.Waiting == 0 {
				p.set("")
				continue
			}
			p.set(progressLine(s))
		}
	}()
	return func() { cancel(); <-done }
}

// progressLine says how far a job is, on one line.
func progressLine(s worker.StatsBody) string {
	line := fmt.Sprintf("tasks: %d running, %d waiting, %d done", s.Running, s.Waiting, s.Finished)
	if s.Failed > 0 {
		line += fmt.Sprintf(", %d failed", s.Failed)
	}
	if s.OnDisk > 0 {
		line += fmt.Sprintf("; objects on disk: %s", bytesText(s.OnDisk))
	}
	return line
}

func (p *printer) set(status string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	p.status = status
	p.drawLocked()
}

func (p *printer) clearLocked() {
	if p.status != "" {
		_, _ = io.WriteString(p.err, "\r\x1b[K")
	}
}

func (p *printer) drawLocked() {
	if p.status != "" {
		_, _ = io.WriteString(p.err, p.status)
	}
}
