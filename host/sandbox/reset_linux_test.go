package sandbox_test

import (
	"testing"

	"github.com/wray-project/wray/host/sandbox"
)

// TestResetLooking is TestReset where page faults are not counted, so that each
// reset looks for the pages that were written to.
func TestResetLooking(t *testing.T) {
	sandbox.CountNoFaults(t)
	testReset(t, 50)
}
