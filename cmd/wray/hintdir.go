package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/internal/plain"
)

// Guests find out for themselves that a path is in none of their directories:
// the library that they are linked with looks through those and asks nobody. So
// all there is to go by, when a job has failed, is what its driver said.

// keptErr is how much of a driver's standard error is kept for that.
const keptErr = 4 << 10

// keep adds what a driver printed to tail, of which the end is kept.
func keep(tail, b []byte) []byte {
	if len(b) > keptErr {
		b = b[len(b)-keptErr:]
	}
	if over := len(tail) + len(b) - keptErr; over > 0 {
		tail = append(tail[:0], tail[over:]...)
	}
	return append(tail, b...)
}

var (
	// noFile is how the languages that build for WASI say ENOENT, EBADF and
	// ENOTCAPABLE, which their libraries give for a path outside of all grants.
	noFile = regexp.MustCompile(`(?i)no such file|bad file (number|descriptor)|capabilities insufficient|not capable|pre-?opened file descriptor`)
	// absolute is a path in a message.
	absolute = regexp.MustCompile("(?:^|[\\s\"'`(=])(/[^\\s\"'`:;,()]+)")
)

// ungranted returns the path that a failed driver could not open, by the last
// lines of its standard error, if none of dirs holds it; else "".
func ungranted(stderr []byte, dirs []node.Dir) string {
	lines := bytes.Split(stderr, []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		if !noFile.Match(lines[i]) {
			continue
		}
		for _, m := range absolute.FindAllSubmatch(lines[i], -1) {
			if name := string(plain.Text(m[1])); len(name) <= 512 && !granted(name, dirs) {
				return name
			}
		}
	}
	return ""
}

// granted reports whether one of dirs holds a path of the guest.
func granted(name string, dirs []node.Dir) bool {
	for _, d := range dirs {
		dir := strings.TrimRight(d.Guest, "/")
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// hintDir names --dir where a job that failed has asked for a path outside of
// dirs. The guest chose the path, so the hint proposes no directory of the host.
func (p *printer) hintDir(dirs []node.Dir) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name := ungranted(p.tail, dirs); name != "" {
		fmt.Fprintf(p.err, "wray: hint: no directory that the program was granted holds %s: if it should have it, grant one with --dir HOST:GUEST\n", name)
	}
}
