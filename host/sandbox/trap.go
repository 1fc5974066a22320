package sandbox

import (
	"errors"
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

// guestTrace returns the guest's part of wazero's error text.
func guestTrace(err error) string {
	_, trace, ok := strings.Cut(err.Error(), "wasm stack trace:\n")
	if !ok {
		return ""
	}
	lines := strings.Split(trace, "\n")
	const most = 40
	if len(lines) > most {
		lines = append(lines[:most], "…")
	}
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimPrefix(l, "\t"), ".")
	}
	return strings.Join(lines, "\n")
}
