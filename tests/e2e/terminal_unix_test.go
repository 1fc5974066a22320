//go:build unix

package e2e

import (
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

const terminalProgram = "./tests/e2e/testdata/terminal"

// onTerminal runs wray with its standard output and error on a terminal, gives
// it a line once what it wrote matches until, and returns all that it wrote.
func onTerminal(t *testing.T, until *regexp.Regexp, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	in, line, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	cmd := exec.CommandContext(ctx, wray, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = root, in, tty, tty
	err = cmd.Start()
	in.Close()
	tty.Close()
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	asked := false
	for buf := make([]byte, 4096); ; {
		n, err := terminal.Read(buf)
		all = append(all, buf[:n]...)
		if !asked && until.Match(all) {
			asked = true
			if _, err := io.WriteString(line, "go on\n"); err != nil {
				t.Error(err)
			}
		}
		if err != nil { // EIO on Linux, where the other end is closed
			break
		}
	}
	if err := cmd.Wait(); err != nil || ctx.Err() != nil {
		t.Fatalf("wray %s: %v, %v\n%q", strings.Join(args, " "), err, ctx.Err(), all)
	}
	if !asked {
		t.Errorf("it never wrote what matches %s", until)
	}
	return string(all)
}

// screen is what a terminal shows after s: it knows carriage returns and the
// sequence that clears the rest of a line, which is all that wray may use
// beside colours.
func screen(s string) []string {
	var lines []string
	var line []byte
	at := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			lines = append(lines, string(line))
			line, at = nil, 0
		case s[i] == '\r':
			at = 0
		case strings.HasPrefix(s[i:], "\x1b[K"):
			line = line[:at]
			i += 2
		default:
			line = append(line[:at], append([]byte{s[i]}, line[min(at+1, len(line)):]...)...)
			at++
		}
	}
	return append(lines, string(line))
}

var progressLine = regexp.MustCompile(`tasks: \d+ running, \d+ waiting, \d+ done`)

// TestTerminal holds what a job looks like on a terminal: tasks have their
// names in colours before each line, guests cannot drive the terminal, and a
// line of progress stands below, while tasks run and no longer.
func TestTerminal(t *testing.T) {
	all := onTerminal(t, progressLine, "run", terminalProgram)
	shown := screen(all)
	if last := shown[len(shown)-1]; last != "" {
		t.Errorf("the last line is not empty: %q", last)
	}
	if text := strings.Join(shown, "\n"); progressLine.MatchString(text) {
		t.Errorf("progress is left on the screen:\n%s", text)
	}
	colour := regexp.MustCompile(`^\x1b\[3([1-6])m\((left|right)\)\x1b\[0m (.*)$`)
	colours, plain, said := map[string]string{}, []string{}, map[string][]string{}
	for _, l := range shown[:len(shown)-1] {
		m := colour.FindStringSubmatch(l)
		if m == nil {
			plain = append(plain, l)
			continue
		}
		if c, ok := colours[m[2]]; ok && c != m[1] {
			t.Errorf("%s has the colours %s and %s", m[2], c, m[1])
		}
		colours[m[2]] = m[1]
		said[m[2]] = append(said[m[2]], m[3])
	}
	if colours["left"] == "" || colours["left"] == colours["right"] {
		t.Errorf("colours: %v", colours)
	}
	for task, text := range map[string]string{"left": "one", "right": "two"} {
		got := strings.Join(said[task], "\n")
		for _, want := range []string{text + " out", text + " err", "no \uFFFD[2Jescape\uFFFD, no end of line"} {
			if strings.Count("\n"+got+"\n", "\n"+want+"\n") != 1 {
				t.Errorf("%s did not say %q once:\n%s", task, want, got)
			}
		}
	}
	if got := strings.Join(plain, "\n"); got != "driver out\ndriver err\ndriver ends" && got != "driver err\ndriver out\ndriver ends" {
		t.Errorf("without a name:\n%s", got)
	}
}

// TestPiped holds that no colour is in a pipe, where the guest's bytes pass as they
// are.
func TestPiped(t *testing.T) {
	r := run(t, "go on\n", "run", terminalProgram)
	wantOut := "driver out\n(left) one out\n(left) no \x1b[2Jescape\r, no end of line\n" +
		"(right) two out\n(right) no \x1b[2Jescape\r, no end of line\ndriver ends\n"
	wantErr := "driver err\n(left) one err\n(right) two err\n"
	if r.code != 0 || r.stdout != wantOut || r.stderr != wantErr {
		t.Errorf("exit %d\nstdout %q\n  want %q\nstderr %q\n  want %q", r.code, r.stdout, wantOut, r.stderr, wantErr)
	}
}
