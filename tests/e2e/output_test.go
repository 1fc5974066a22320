package e2e

import (
	"strings"
	"testing"
)

// TestLiveSandboxes holds that nested tasks end where there are no more
// sandboxes than tasks that wait for others.
func TestLiveSandboxes(t *testing.T) {
	r := run(t, "", "run", "--max-live-sandboxes", "8", "./examples/pi", "--", "100000", "32")
	want := run(t, "", "run", "./examples/pi", "--", "100000", "32")
	if r.code != 0 || r.stderr != "" || r.stdout == "" || r.stdout != want.stdout {
		t.Errorf("%+v, want %+v", r, want)
	}
	r = run(t, "", "run", "--max-live-sandboxes", "1", "./examples/pi", "--", "100000", "32")
	if r.code != 1 || !strings.Contains(r.stderr, "limit live sandboxes = 1, raise it with --max-live-sandboxes") {
		t.Errorf("with one: %+v", r)
	}
}

// TestLogRate holds that a task which prints too fast is slowed down and gives
// its core to others, that its user is told so once, and that nothing is lost.
func TestLogRate(t *testing.T) {
	r := run(t, "", "run", "--cpus", "1", "--log-rate", "64KiB", "./tests/e2e/testdata/logs")
	if r.code != 0 || !strings.HasSuffix(r.stdout, "400 lines\n") {
		t.Errorf("exit %d, %d bytes\n%s", r.code, len(r.stdout), r.stderr)
	}
	if n := strings.Count(r.stdout, "(flood) "+strings.Repeat("x", 999)+"\n"); n != 400 {
		t.Errorf("%d lines came", n)
	}
	quick, last := strings.Index(r.stdout, "quick tasks are done\n"), strings.LastIndex(r.stdout, "(flood)")
	if quick < 0 || quick > last {
		t.Errorf("the others waited for the task that printed: their end is at %d, its last line at %d", quick, last)
	}
	const note = "wray: note: task flood: LimitExceeded: prints faster than for 4 seconds is allowed, and waits: nothing is lost " +
		"(limit log rate = 65536 bytes a second, raise it with --log-rate)\n"
	if r.stderr != note {
		t.Errorf("stderr is %q, want %q", r.stderr, note)
	}
	if r := run(t, "", "run", "./tests/e2e/testdata/logs"); r.code != 0 || r.stderr != "" {
		t.Errorf("with the default rate: exit %d\n%s", r.code, r.stderr)
	}
}
