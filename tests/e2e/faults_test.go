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
		{"driver", "panic: broken on purpose: driver", []string{"\nwray: error: task driver: Trap: unreachable\nwray: the guest's stack:\n    runtime.abort(i32) i32\n",
			"\n    main.inner(i32) i32\n    main.outer(i32) i32\n"}, []string{`main\.inner\(.*\)\n\t\S*testdata/faults/main\.go:\d+`}},
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

// TestDriverTimeout holds that a driver of the SDK ends at its deadline.
func TestDriverTimeout(t *testing.T) {
	r := run(t, "", "run", "--timeout", "300ms", "./tests/e2e/testdata/faults", "spin")
	if r.code != 1 || !strings.Contains(r.stderr, "wray: error: task driver: Timeout: ran past its deadline\nwray: the guest's stack:\n    wray_meter.tick") ||
		!strings.Contains(r.stderr, "\nwray: hint: give it more time") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}
