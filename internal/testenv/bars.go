package testenv

import (
	"fmt"
	"os"
	"testing"
)

// BarsEnv is set where the bars are measured that take minutes, by make bars.
const BarsEnv = "WRAY_BARS"

// NeedBars skips a test that measures a bar for minutes, but where make bars runs
// it.
func NeedBars(t testing.TB) {
	t.Helper()
	if os.Getenv(BarsEnv) == "" {
		t.Skip("SKIP: it takes minutes; make bars runs it")
	}
}

// Bar says what was measured for a bar of docs/THREATS.md, and fails the test
// where it is missed. The format is read by tests/bars.
func Bar(t testing.TB, n int, value any, unit string, pass bool) {
	t.Helper()
	verdict := "PASS"
	if !pass {
		verdict = "FAIL"
	}
	line := fmt.Sprintf("BAR %d %v %s %s", n, value, unit, verdict)
	if pass {
		t.Log(line)
	} else {
		t.Error(line)
	}
}

// BarSkip says why something of a bar was not measured.
func BarSkip(t testing.TB, n int, what, reason string) {
	t.Helper()
	t.Logf("BAR %d - %s SKIP %s", n, what, reason)
}
