package worker

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/internal/gotrace"
)

// A Go program that ends by a panic or a fatal error says so on its standard
// error, and ends by a trap, of which the caller hears nothing but
// "unreachable". So lines that look like such an end are held back, until the
// guest prints something else, waits, or ends; and if it ends by a trap they
// are its error and its trace, and not output. Command tasks, whose output is a
// result, are left alone.

// dumps holds lines back that may be the end of a Go program, and reports
// whether it has taken p.
func (g *guest) dumps(p []byte, inCall bool) bool {
	if !inCall && !g.dump.Held() {
		return false
	}
	taken := false
	for rest := p; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		if !g.dump.Add(rest[:n]) {
			g.undump()
			if !g.dump.Add(rest[:n]) {
				if taken {
					g.print(Stderr, rest, inCall)
				}
				return taken
			}
		}
		taken, rest = true, rest[n:]
	}
	return taken
}

// undump prints what was held back: it was not the guest's end.
func (g *guest) undump() {
	if !g.dump.Held() {
		return
	}
	text, lost := g.dump.Take()
	g.print(Stderr, text, false)
	if lost > 0 && g.job.out != nil {
		g.job.out.put(g.name(), Notice, fmt.Appendf(nil, "%d bytes that followed are left out\n", lost))
	}
}

// ended passes on what the guest printed, after a call of it that ended with
// err, and returns what it ended with.
func (g *guest) ended(err error) error {
	if g.dump.Held() && g.stderr.buf != nil {
		g.stderr.flush() // the last line of the dump
	}
	message, panicked, stacks, ok := g.dump.Parts()
	if !ok || err == nil {
		g.flush()
		return err
	}
	trace := stacks
	if !slices.Contains(g.job.spec.Env, gotrace.EverythingEnv+"="+gotrace.EverythingValue) {
		trace = gotrace.Short(stacks, 1)
	}
	var e *wray.Error
	var exit *sandbox.ExitError
	switch {
	case errors.As(err, &e) && (e.Code == wray.CodeTrap || e.Code == wray.CodeOutOfMemory):
		told := *e
		told.Trace = trace
		if e.Code == wray.CodeTrap {
			told.Message = message
			if panicked {
				told.Code = wray.CodePanic
			}
		}
		g.dump.Take()
		err = &told
	case errors.As(err, &exit): // says no more than its code
		if panicked {
			message = "panic: " + message
		}
		g.dump.Take()
		g.print(Stderr, []byte(message+"\n\n"+trace+"\n"), false)
	}
	g.flush()
	return err
}
