package sandbox

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/wray-project/wray"
)

// classify turns what wazero returns into an error a user can act on.
func (sb *Sandbox) classify(err error) error {
	var s *stop
	if errors.As(err, &s) {
		if s.exit {
			if sb.mem.denied && s.code != 0 {
				return sb.outOfMemory(err)
			}
			return &ExitError{Code: s.code}
		}
		e := *s.err
		if e.Trace == "" {
			e.Trace = guestTrace(err)
		}
		return &e
	}
	msg := err.Error()
	if i := strings.Index(msg, "\nGo runtime stack trace:"); i >= 0 {
		// A host function panicked: not the guest's fault.
		return &wray.Error{Code: wray.CodeInternal, Message: msg}
	}
	if strings.Contains(msg, "wasm error: stack overflow") {
		e := sb.stackOverflow()
		e.Trace = guestTrace(err)
		return e
	}
	if sb.mem.denied {
		return sb.outOfMemory(err)
	}
	first, _, _ := strings.Cut(msg, "\n")
	first = strings.TrimPrefix(first, "wasm error: ")
	first = strings.TrimSuffix(first, " (recovered by wazero)")
	return &wray.Error{Code: wray.CodeTrap, Message: first, Trace: guestTrace(err)}
}

func (sb *Sandbox) outOfMemory(err error) *wray.Error {
	return &wray.Error{
		Code: wray.CodeOutOfMemory, Message: "asked for more memory than its limit",
		Limit: sb.limits.memoryLimit(), Trace: guestTrace(err),
	}
}

func (sb *Sandbox) stackOverflow() *wray.Error {
	return &wray.Error{
		Code: wray.CodeStackOverflow, Message: "calls nested too deep",
		Limit: &wray.Limit{Name: "stack", Value: int64(sb.limits.Stack), Unit: "bytes", Flag: "--stack"},
	}
}

// signature is how wazero writes the type of a function, behind its name.
var signature = regexp.MustCompile(`\([a-z0-9,]*\)( [a-z0-9,()]+)?$`)

// guestTrace returns the guest's part of wazero's error text: the names of the
// functions, the innermost first. Their types, the meter's own functions, and
// calls of one function by itself but the first are left out.
func guestTrace(err error) string {
	_, trace, ok := strings.Cut(err.Error(), "wasm stack trace:\n")
	if !ok {
		return ""
	}
	const most = 40
	var lines []string
	again := 0
	repeats := func() {
		if again > 0 {
			lines = append(lines, fmt.Sprintf("… and %d times more", again))
		}
		again = 0
	}
	last := ""
	for l := range strings.Lines(trace) {
		l = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(l, "\n"), "\t"), ".")
		l = signature.ReplaceAllString(l, "")
		if l == ".. maybe followed by omitted frames" {
			l = "…"
		}
		switch {
		case l == "wray_meter.overflow", l == "wray_meter.tick", l == "wray:check":
			continue
		case l == last:
			again++
			continue
		}
		repeats()
		if len(lines) >= most {
			lines = append(lines, "…")
			return strings.Join(lines, "\n")
		}
		lines, last = append(lines, l), l
	}
	repeats()
	return strings.Join(lines, "\n")
}
