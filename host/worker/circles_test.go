package worker

import (
	"strings"
	"testing"
)

// TestCircles has actors call each other in circles. Where none can go on, the
// call that closes the circle fails, and everybody goes on; where one takes
// another call, or gives up by itself, nothing is done.
func TestCircles(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "durable")
	for args, want := range map[string]string{
		"circle 1 1 0s 0s":   "Deadlock: actors would wait for each other for ever: knot 0 -> knot 0",
		"circle 3 1 0s 0s":   "knot 0",
		"circle 3 2 0s 0s":   "4 <nil>\n4 <nil>\n",
		"circle 2 1 50ms 0s": "Timeout",
		"circle 2 1 0s 50ms": "ran longer than its timeout of 50ms",
	} {
		got, err := runDurable(t, guest, t.TempDir(), strings.Fields(args)...)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v\n%s", args, err, got)
		}
		stuck := 0
		if strings.HasSuffix(args, " 1 0s 0s") {
			stuck = 2
		}
		if strings.Count(got, "Deadlock: actors would wait for each other for ever: ") != stuck {
			t.Errorf("%s: not %d deadlocks:\n%s", args, stuck, got)
		}
		if strings.HasPrefix(args, "circle 3 1") {
			for _, name := range []string{"knot 0 -> ", "knot 1 -> ", "knot 2 -> "} {
				if strings.Count(got, name) != stuck {
					t.Errorf("%s: %q is not named:\n%s", args, name, got)
				}
			}
		}
	}
}
