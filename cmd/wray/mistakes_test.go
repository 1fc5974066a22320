package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mistake runs a command line that must end with 2 and a hint, and returns what
// it said.
func mistake(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(t.Context(), args, strings.NewReader(""), &out, &errs)
	s := errs.String()
	if code != exitUsage || out.Len() > 0 || !strings.HasPrefix(s, "wray: error: ") || !strings.Contains(s, "\nwray: hint: ") {
		t.Errorf("wray %s: exit %d\n%s%s", strings.Join(args, " "), code, out.String(), s)
	}
	return s
}

// Numbers that are out of range are refused, and so is 0, which stands for the
// default inside.
func TestNumbersInRange(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	for _, c := range []struct{ flag, value, says string }{
		{"--cpus", "-1", "number of cores"},
		{"--cpus", "0", "number of cores"},
		{"--cpus", "NaN", "number of cores"},
		{"--cpus", "1e300", "number of cores"},
		{"--max-files", "-4", "number from 1"},
		{"--max-handles", "0", "number from 1"},
		{"--max-windows", "99999999999", "number from 1"},
		{"--max-live-sandboxes", "-1", "number from 1"},
		{"--max-resident-actors", "0", "number from 1"},
		{"--timeout", "-5s", "more than 0"},
		{"--timeout", "0", "more than 0"},
		{"--memory", "100GiB", "from 1B to 4GiB"},
		{"--stack", "2GiB", "from 1B to 1GiB"},
		{"--object-store-memory", "1", "from 1MiB"},
		{"--log-rate", "0", "more than 0"},
	} {
		if s := mistake(t, "run", "no-such-program", c.flag, c.value); !strings.Contains(s, c.says) || !strings.Contains(s, c.flag) {
			t.Errorf("%s %s: no %q in %s", c.flag, c.value, c.says, s)
		}
	}
	cmd := newRun()
	if err := cmd.ParseFlags([]string{"--cpus", "0.5", "--max-files", "7", "--timeout", "90s", "--memory", "4GiB"}); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{"cpus": "0.5", "max-files": "7", "timeout": "1m30s", "memory": "4GiB"} {
		if got := cmd.Flag(flag).Value.String(); got != want {
			t.Errorf("--%s is %s, want %s", flag, got, want)
		}
	}
}

// A mistyped directory for objects is no directory that is made.
func TestSpillDirMistyped(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	none := filepath.Join(t.TempDir(), "none")
	if s := mistake(t, "run", "no-such-program", "--spill-dir", filepath.Join(none, "x")); !strings.Contains(s, "no directory "+none) {
		t.Errorf("not said: %s", s)
	}
	if _, err := os.Stat(none); err == nil {
		t.Errorf("%s was made", none)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	for says, args := range map[string][]string{
		"did you mean wray run?":      {"rn"},
		"see wray --help":             {"frobnicate"},
		"after --":                    {"run", "no-such-program", "--verbose"},
		"no file or package a":        {"run", "a", "b"},
		"no file or package ./a.wasm": {"run", "./a.wasm"},
		"no address of a node":        {"run", "a", "--address", "tcp://x"},
	} {
		if s := mistake(t, args...); !strings.Contains(s, says) {
			t.Errorf("%v: no %q in %s", args, says, s)
		}
	}
	if _, err := parseDir("/tmp:/x:rw"); err == nil || !strings.Contains(err.Error(), "not :rw") {
		t.Errorf("--dir: %v", err)
	}
}

// What the Go tool says of a program in no module, or in one that does not know
// wray, has a hint.
func TestBuildHints(t *testing.T) {
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOWORK", "off")
	for gomod, hint := range map[string]string{
		"":                         "go mod init",
		"module mine\n\ngo 1.26\n": "go mod edit -replace " + modulePath,
	} {
		dir := t.TempDir()
		if gomod != "" {
			write(t, filepath.Join(dir, "go.mod"), gomod)
		}
		write(t, filepath.Join(dir, "main.go"), "package main\n\nimport _ \""+modulePath+"/sdk\"\n\nfunc main() {}\n")
		_, err := loadProgram(t.Context(), dir, t.TempDir())
		var errs bytes.Buffer
		printError(&errs, err)
		if err == nil || !strings.Contains(errs.String(), "wray: hint: ") || !strings.Contains(errs.String(), hint) {
			t.Errorf("no %q in %s", hint, errs.String())
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
