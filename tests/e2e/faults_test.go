package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// TestFaults holds what a user sees of a task that fails: its name, attempt and
// class, the guest's own stack with files and lines where there is one, and a
// hint where something can be done.
func TestFaults(t *testing.T) {
	const stack = "trace:\n\tgoroutine 1 [running]:\n"
	at := func(fn string) string { return `\tmain\.` + fn + `\(.*\)\n\t\t\S*testdata/faults/main\.go:\d+` }
	deep := []string{at("inner"), at("outer")}
	for _, c := range []struct {
		how   string
		first string // of standard error, without the node's name
		has   []string
		match []string
	}{
		{"panic", "error: task fault (attempt 1): Panic: broken on purpose: panic", []string{stack}, deep},
		{"retry", "error: task fault (attempt 3): Panic: broken on purpose: retry", []string{stack}, deep},
		{"depend", "error: task relay: DependencyFailed: argument 0 failed: task fault (attempt 1): Panic: broken on purpose: panic",
			[]string{stack, "\nhint: the cause is the error to mend\n"}, deep},
		{"exit", "error: task fault (attempt 1): Exit: the task called exit(9) instead of returning",
			[]string{"\nhint: return a value or an error; os.Exit is for drivers\n"}, nil},
		{"error", "error: task fault (attempt 1): UserError: no luck", nil, nil},
		{"driver", "wray: error: task driver: Panic: broken on purpose: driver", []string{"\nwray: the guest's stack:\n    goroutine 1 [running]:\n    main.inner("},
			[]string{`main\.inner\(.*\)\n\s*\S*testdata/faults/main\.go:\d+`}},
	} {
		r := run(t, "", "run", "./tests/e2e/testdata/faults", c.how)
		// Which part of the worker sees a failed argument first is a matter of time.
		text := strings.Replace(r.stderr, "an argument could not be computed", "argument 0 failed", 1)
		text = regexp.MustCompile(`\(attempt (\d+) on [^)]+\)`).ReplaceAllString(text, "(attempt $1)")
		first, _, _ := strings.Cut(text, "\n")
		if r.code != 1 || r.stdout != "" || first != c.first {
			t.Errorf("%s: exit %d, said %q\n%s\nwant first %s", c.how, r.code, r.stdout, r.stderr, c.first)
		}
		for _, s := range c.has {
			if !strings.Contains(text, s) {
				t.Errorf("%s: no %q in\n%s", c.how, s, r.stderr)
			}
		}
		for _, s := range c.match {
			if !regexp.MustCompile(s).MatchString(text) {
				t.Errorf("%s: nothing matches %s in\n%s", c.how, s, r.stderr)
			}
		}
		if strings.Contains(r.stderr, "host/worker") || strings.Contains(r.stderr, "wazero") {
			t.Errorf("%s: it speaks of the host's code:\n%s", c.how, r.stderr)
		}
	}
}

// TestRuntimeFaults holds that a program that Go's runtime ends is told of
// once and briefly: the error, the goroutine that failed with the program's own
// frames, and how to see the rest.
func TestRuntimeFaults(t *testing.T) {
	frames := func(fn string) string { return `goroutine \d+ \[[^]]+\]:\n\s*main\.` + fn + `\(` }
	for _, c := range []struct {
		args  []string // behind the program
		code  int
		first string // of standard error
		match []string
		lines int // at most
	}{
		{[]string{"goroutine"}, 1, "error: task fault: Panic: broken on purpose: goroutine", []string{frames("inner")}, 10},
		{[]string{"here", "goroutine"}, 1, "wray: error: task driver: Panic: broken on purpose: goroutine", []string{frames("inner")}, 10},
		{[]string{"unlock"}, 1, "error: task fault: Trap: fatal error: sync: unlock of unlocked mutex", []string{`main\.crash\(`}, 16},
		{[]string{"here", "unlock"}, 1, "wray: error: task driver: Trap: fatal error: sync: unlock of unlocked mutex", []string{`main\.crash\(`}, 20},
		{[]string{"memory"}, 1, "error: task fault: OutOfMemory: asked for more memory than its limit (limit memory = 64 MiB, raise it with --memory)", []string{frames("crash")}, 12},
		{[]string{"here", "memory"}, 1, "wray: error: task driver: OutOfMemory: asked for more memory than its limit (limit memory = 64 MiB, raise it with --memory)", []string{frames("crash")}, 14},
		{[]string{"deadlock"}, 1, "error: task fault: Deadlock: all goroutines wait, and nothing that they wait for can come", []string{frames("crash"), "… and 13 goroutines more; GOTRACEBACK=all in the job's environment"}, 60},
		{[]string{"here", "deadlock"}, 2, "wray: deadlock: all goroutines wait, and nothing that they wait for can come", []string{frames("crash"), "… and 13 goroutines more; GOTRACEBACK=all in the job's environment"}, 60},
		{[]string{"here", "like"}, 3, "panic: it only looks so", []string{`goroutine 1 \[running\]:\nmain\.crash\(\)\n\tmain\.go:1\n$`}, 5},
	} {
		r := run(t, "", append([]string{"run", "--memory", "64MiB", "./tests/e2e/testdata/faults", "--"}, c.args...)...)
		text := regexp.MustCompile(` \(attempt 1 on [^)]+\)`).ReplaceAllString(r.stderr, "")
		first, _, _ := strings.Cut(text, "\n")
		if r.code != c.code || r.stdout != "" || first != c.first {
			t.Errorf("%q: exit %d, said %q\n%s\nwant exit %d, first %s", c.args, r.code, r.stdout, r.stderr, c.code, c.first)
		}
		for _, m := range c.match {
			if !regexp.MustCompile(m).MatchString(text) {
				t.Errorf("%q: nothing matches %s in\n%s", c.args, m, r.stderr)
			}
		}
		if n := strings.Count(text, "\n"); n > c.lines || strings.Contains(text, "wray/wasm/guest.") || strings.Contains(text, "wray/sdk.") {
			t.Errorf("%q: %d lines, of wray itself as well:\n%s", c.args, n, r.stderr)
		}
	}
	// Who wants to see everything does.
	r := run(t, "", "run", "--env", "GOTRACEBACK=all", "./tests/e2e/testdata/faults", "--", "here", "unlock")
	if r.code != 1 || !strings.Contains(r.stderr, "wray/wasm/guest.") {
		t.Errorf("GOTRACEBACK=all: exit %d\n%s", r.code, r.stderr)
	}
}

// TestDriverTimeout holds that a driver of the SDK ends at its deadline.
func TestDriverTimeout(t *testing.T) {
	r := run(t, "", "run", "--timeout", "300ms", "./tests/e2e/testdata/faults", "spin")
	if r.code != 1 || !strings.Contains(r.stderr, "wray: error: task driver: Timeout: ran past its deadline\nwray: the guest's stack:\n    main.") ||
		!strings.Contains(r.stderr, "\nwray: hint: give it more time") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}
