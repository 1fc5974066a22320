package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
		{"--memory", "100GiB", "from 64KiB to 4GiB"},
		{"--memory", "1", "from 64KiB to 4GiB"},
		{"--stack", "1", "from 64KiB to 1GiB"},
		{"--stack", "2GiB", "from 64KiB to 1GiB"},
		{"--object-store-memory", "1", "from 1MiB"},
		{"--log-rate", "0", "more than 0"},
	} {
		if s := mistake(t, "run", "no-such-program", c.flag, c.value); !strings.Contains(s, c.says) || !strings.Contains(s, c.flag) {
			t.Errorf("%s %s: no %q in %s", c.flag, c.value, c.says, s)
		}
	}
	for _, c := range []struct {
		verb        string // to the flag
		value, says string
	}{
		{"bench core --rounds", "0", "number from 1 to 10000"},
		{"bench core --rounds", "-1", "number from 1 to 10000"},
		{"bench client --rounds", "2000000000", "number from 1 to 10000"},
		{"bench core --seconds", "-2", "above 0"},
		{"bench client --seconds", "NaN", "above 0"},
		{"bench scale --rounds", "0", "number from 1 to 10000"},
		{"bench scale --scale", "0", "above 0"},
		{"bench scale --max-resident-actors", "-1", "number from 1"},
		{"bench sim --nodes", "0", "number from 1 to 10000"},
		{"bench sim --tasks", "-1", "number from 1"},
		{"bench sim --load", "NaN", "above 0"},
		{"memory --limit", "0", "number from 1 to 5000"},
		{"memory --limit", "5001", "number from 1 to 5000"},
		{"memory --job", "-1", "number from 1"},
		{"memory --job", "0", "number from 1"},
		{"node token --uses", "0", "number from 1"},
		{"node token --valid", "-1h", "more than 0"},
	} {
		args := append(strings.Fields(c.verb), c.value)
		if s := mistake(t, args...); !strings.Contains(s, c.says) {
			t.Errorf("%v: no %q in %s", args, c.says, s)
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

// What a command line names wrongly is said before anything is built: here the
// program could not be.
func TestMistakesBeforeBuild(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	program := t.TempDir()
	for says, args := range map[string][]string{
		"no such directory":          {"--dir", "/no/such:/x"},
		"--dir grants /x twice":      {"--dir", "/:/x", "--dir", "/:/x"},
		"--env A has no value":       {"--env", "A"},
		"--env =1 has no name":       {"--env", "=1"},
		"no file or package no.wasm": {"--with", "no.wasm"},
		"no file or package ./none":  {"--with", "x=./none"},
	} {
		var out, errs bytes.Buffer
		code := Main(t.Context(), append([]string{"run", program}, args...), strings.NewReader(""), &out, &errs)
		if code != exitUsage || !strings.Contains(errs.String(), says) {
			t.Errorf("%v: exit %d, no %q in %s", args, code, says, errs.String())
		}
	}
}

// A place where no file can be made is refused, with what to do.
func TestSpillDirClosed(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("SKIP: there is no /proc")
	}
	t.Setenv("WRAY_CACHE", t.TempDir())
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"run", "a", "--spill-dir", "/proc"}, strings.NewReader(""), &out, &errs)
	if s := errs.String(); code != exitFailure || !strings.Contains(s, "no file can be made in a directory for objects: --spill-dir") || !strings.Contains(s, "on a disk") {
		t.Errorf("exit %d\n%s", code, s)
	}
}

// A socket's directory is made, not what it is in.
func TestSocketMistyped(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	none := filepath.Join(t.TempDir(), "none")
	if s := mistake(t, "start", "--socket", filepath.Join(none, "x", "s")); !strings.Contains(s, "no directory "+none) {
		t.Errorf("not said: %s", s)
	}
	if _, err := os.Stat(none); err == nil {
		t.Errorf("%s was made", none)
	}
}

// Help that cannot be written is a failure.
func TestHelpLost(t *testing.T) {
	var errs bytes.Buffer
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"bench"}, {}} {
		errs.Reset()
		if code := Main(t.Context(), args, strings.NewReader(""), full{}, &errs); code != exitFailure || !strings.Contains(errs.String(), "the help is lost: ") {
			t.Errorf("wray %s: exit %d, %s", strings.Join(args, " "), code, errs.String())
		}
	}
}

func TestVersionFlag(t *testing.T) {
	var flag, verb bytes.Buffer
	for args, out := range map[string]*bytes.Buffer{"--version": &flag, "version": &verb} {
		if code := Main(t.Context(), []string{args}, strings.NewReader(""), out, out); code != 0 {
			t.Errorf("wray %s: exit %d", args, code)
		}
	}
	if flag.String() != verb.String() || !strings.HasPrefix(flag.String(), "wray ") {
		t.Errorf("wray --version says %q, wray version %q", &flag, &verb)
	}
}

// A node that is not there is said to be so once.
func TestNoNodeOnce(t *testing.T) {
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"memory", "--address", filepath.Join(t.TempDir(), "s")}, strings.NewReader(""), &out, &errs)
	if s := errs.String(); code == 0 || strings.Count(s, "there is no node") != 1 {
		t.Errorf("exit %d\n%s", code, s)
	}
}

// Doctor speaks of the machine also where there is no place for a cache.
func TestDoctorHomeless(t *testing.T) {
	for _, v := range []string{"WRAY_CACHE", "XDG_CACHE_HOME", "HOME", "LocalAppData", "home"} {
		t.Setenv(v, "")
	}
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"doctor"}, strings.NewReader(""), &out, &errs)
	if s := out.String(); code != exitFailure || !strings.Contains(s, "fail  cache directory") || !strings.Contains(s, "cache directory: set WRAY_CACHE") || errs.Len() > 0 {
		t.Errorf("exit %d\n%s%s", code, s, &errs)
	}
}

// Verbs that need a directory of the user's say which variable names one where
// there is no home.
func TestHomeless(t *testing.T) {
	for _, v := range []string{"WRAY_CACHE", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "WRAY_ADDRESS", "HOME", "LocalAppData", "home"} {
		t.Setenv(v, "")
	}
	try := func(args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		code := Main(t.Context(), args, strings.NewReader(""), &out, &errs)
		if _, hint, _ := strings.Cut(errs.String(), "wray: hint: "); code == 0 || !strings.Contains(hint, "WRAY_CACHE") && !strings.Contains(hint, "HOME") {
			t.Errorf("%v: exit %d\n%s%s", args, code, &out, &errs)
		}
	}
	program := t.TempDir()
	for _, args := range [][]string{{"run", program}, {"start"}, {"job", "submit", program}, {"job", "list"}, {"status"}, {"explain"}, {"memory"}, {"node", "drain", "a"}, {"node", "token"}, {"user", "list"}, {"token", "list"}} {
		try(args...)
	}
	t.Setenv("WRAY_CACHE", t.TempDir())
	for _, args := range [][]string{{"start"}, {"start", "--head"}} {
		try(args...)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	for says, args := range map[string][]string{
		"did you mean wray run":       {"rn"},
		"see wray --help":             {"frobnicate"},
		"after --":                    {"run", "no-such-program", "--verbose"},
		"no file or package a":        {"run", "a", "b"},
		"no file or package ./a.wasm": {"run", "./a.wasm"},
		"--meter, --snapshot":         {"module", "rewrite", "a.wasm", "-o", "b.wasm"},
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

// A cache directory that cannot be made is named, with what to set.
func TestNoCache(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, cache := range []string{filepath.Join(file, "x"), file} {
		t.Setenv("WRAY_CACHE", cache)
		var errs bytes.Buffer
		code := Main(t.Context(), []string{"run", "no-such-program"}, strings.NewReader(""), &errs, &errs)
		if code != exitFailure || !strings.Contains(errs.String(), cache) || !strings.Contains(errs.String(), "\nwray: hint: set WRAY_CACHE") {
			t.Errorf("%s: exit %d: %s", cache, code, errs.String())
		}
	}
}

// A signal during the build ends with its code, and not with what the build
// says of it.
func TestInterruptedBuild(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module mine\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "main.go"), "package main\n\nfunc main() {}\n")
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(interrupted(sig))
		var errs bytes.Buffer
		code := Main(ctx, []string{"run", dir}, strings.NewReader(""), &errs, &errs)
		if code != want || errs.String() != "wray: interrupted\n" {
			t.Errorf("%v: exit %d: %q", sig, code, errs.String())
		}
	}
}

// What fails below the cache directory, for want of room or of leave to write,
// names WRAY_CACHE, from wherever it comes; what fails elsewhere does not.
func TestCacheHint(t *testing.T) {
	const cache = "/var/cache/wray"
	for text, want := range map[string]string{
		"write " + cache + "/code/x: no space left on device":                           "full",
		"lock the code cache: open " + cache + "/locks/x: read-only file system":        "set WRAY_CACHE",
		"go build of . failed:\n    open " + cache + "/build/x.wasm: permission denied": "set WRAY_CACHE",
		"open " + cache + "-other/x: read-only file system":                             "",
		"open " + cache + "/x: no such file or directory":                               "",
		"open /data/x: permission denied":                                               "",
	} {
		var errs bytes.Buffer
		printError(&errs, hintCache(errors.New(text), cache))
		_, hint, _ := strings.Cut(errs.String(), "\nwray: hint: ")
		if (hint == "") != (want == "") || !strings.Contains(hint, want) || want != "" && !strings.Contains(hint, "WRAY_CACHE") {
			t.Errorf("%s: %q", text, hint)
		}
	}
}
