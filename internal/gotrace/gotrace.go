// Package gotrace reads what Go's runtime prints of goroutines, and makes it
// short: a person who looks for the mistake in a program has no use for the
// frames of the runtime and of wray, nor for a hundred goroutines that wait.
package gotrace

import (
	"fmt"
	"strings"
)

// Everything is the variable, and its value, that keeps stacks as they are: the
// one that Go's own runtime obeys.
const (
	EverythingEnv   = "GOTRACEBACK"
	EverythingValue = "all"
)

// maxFrames bounds the frames of one goroutine that are kept.
const maxFrames = 40

// hidden are the beginnings of functions that are not the program's.
var hidden = []string{
	"runtime.", "wray_call(", "internal/sync.fatal(", "internal/runtime/",
	"github.com/wray-project/wray/sdk.", "github.com/wray-project/wray/sdk/internal/",
	"github.com/wray-project/wray/wasm/guest.", "github.com/wray-project/wray/wasm/guest/",
}

// Short returns the first goroutines of stacks, at most most of them, in the
// runtime's order and without the frames that are not the program's. Goroutines
// that have no others are left out. The last line says how many more of the
// program's there were. Where the program has no frame at all, the first
// goroutine is returned as it is.
func Short(stacks string, most int) string {
	var kept []string
	more := 0
	first := ""
	for block := range strings.SplitSeq(strings.Trim(stacks, "\n"), "\n\n") {
		if !strings.HasPrefix(block, "goroutine ") {
			continue // the runtime's own stack
		}
		if first == "" {
			first = block
		}
		b, ok := goroutine(block)
		switch {
		case !ok:
		case len(kept) >= most:
			more++
		default:
			kept = append(kept, b)
		}
	}
	if len(kept) == 0 {
		if first == "" {
			first = strings.Trim(stacks, "\n")
		}
		return cut(strings.Split(first, "\n"))
	}
	s := strings.Join(kept, "\n\n")
	if more > 0 {
		s += fmt.Sprintf("\n\n… and %s; %s=%s in the job's environment shows all", goroutines(more), EverythingEnv, EverythingValue)
	}
	return s
}

func goroutines(n int) string {
	if n == 1 {
		return "1 goroutine more"
	}
	return fmt.Sprintf("%d goroutines more", n)
}

// cut bounds the lines of a goroutine.
func cut(lines []string) string {
	if more := len(lines) - 1 - 2*maxFrames; more > 0 {
		lines = append(lines[:1+2*maxFrames:1+2*maxFrames], fmt.Sprintf("… and %d frames more", (more+1)/2))
	}
	return strings.Join(lines, "\n")
}

// goroutine leaves of one goroutine the program's frames, and reports whether
// there are any.
func goroutine(block string) (string, bool) {
	lines := strings.Split(block, "\n")
	kept := []string{header(lines[0])}
	any := false
	for i := 1; i < len(lines); i++ {
		fn := lines[i]
		at := ""
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\t") {
			i++
			at, _, _ = strings.Cut(lines[i], " fp=0x") // which the runtime adds where it is at fault itself
		}
		name := strings.TrimPrefix(fn, "created by ")
		if isHidden(name) {
			continue
		}
		any = any || name == fn // who made a goroutine is no frame of it
		kept = append(kept, fn)
		if at != "" {
			kept = append(kept, at)
		}
	}
	return cut(kept), any
}

// header is the line above a goroutine's frames, without addresses.
func header(l string) string {
	number, state, ok := strings.Cut(l, " [")
	if i := strings.Index(number, " gp="); ok && i > 0 {
		return number[:i] + " [" + state
	}
	return l
}

func isHidden(fn string) bool {
	for _, h := range hidden {
		if strings.HasPrefix(fn, h) {
			return true
		}
	}
	return false
}

// maxDump bounds what of a dump is kept, in bytes.
const maxDump = 64 << 10

// Dump collects the lines that a Go program's runtime prints while the program
// ends by a panic or a fatal error, and tells them from others that begin
// alike. The zero Dump is empty.
type Dump struct {
	text    []byte
	lost    int  // bytes that came after text was full
	stacks  int  // where in text the stacks begin; 0 before they do
	partial bool // text ends within a line
}

// Add takes a line, with its end, and reports whether it is part of a dump. One
// that is not leaves the dump as it is: what was held is then no dump either,
// but what the program printed.
func (d *Dump) Add(line []byte) bool {
	s := strings.TrimSuffix(string(line[:min(len(line), 4<<10)]), "\n")
	switch {
	case d.partial:
	case len(d.text) == 0:
		if !begins(s) {
			return false
		}
	case d.stacks == 0:
		if strings.HasPrefix(s, "goroutine ") || s == "runtime stack:" {
			d.stacks = len(d.text)
		} else if !(s == "" || s[0] == '\t' || s[0] == '[' || begins(s)) {
			return false
		}
	default:
		if !(s == "" || s[0] == '\t' || strings.HasSuffix(s, ")") || strings.HasSuffix(s, "]:") ||
			strings.HasPrefix(s, "created by ") || strings.HasPrefix(s, "...") || s == "runtime stack:") {
			return false
		}
	}
	if d.stacks == 0 && len(d.text)+len(line) > maxDump {
		return false
	}
	n := min(len(line), maxDump-len(d.text))
	d.text = append(d.text, line[:n]...)
	d.lost += len(line) - n
	d.partial = !strings.HasSuffix(string(line), "\n")
	return true
}

func begins(s string) bool {
	return strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ") || strings.HasPrefix(s, "runtime: ")
}

// Held reports whether there are lines.
func (d *Dump) Held() bool { return len(d.text) > 0 }

// Take empties the dump and returns its lines as they came, and how many bytes
// of them had no room.
func (d *Dump) Take() (text []byte, lost int) {
	text, lost = d.text, d.lost
	*d = Dump{}
	return text, lost
}

// Parts returns what the dump says went wrong, without "panic: " where it was
// one, and the stacks. ok is false where no stack has come.
func (d *Dump) Parts() (message string, panicked bool, stacks string, ok bool) {
	if d.stacks == 0 {
		return "", false, "", false
	}
	// Of several lines the last that begins one is what ended the program; the
	// runtime's own remarks come before it.
	lines := strings.Split(strings.TrimSpace(string(d.text[:d.stacks])), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			lines = lines[i:]
			break
		}
	}
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "\t")
	}
	message, panicked = strings.CutPrefix(strings.TrimSpace(strings.Join(lines, "\n")), "panic: ")
	return message, panicked, string(d.text[d.stacks:]), true
}
