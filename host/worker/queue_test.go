package worker

import (
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

// TestPlaceBytes holds that the queue's bound sees what a placement takes.
func TestPlaceBytes(t *testing.T) {
	long := strings.Repeat("x", 100)
	p := &wray.Placement{Node: long, Where: []wray.Selector{{Key: long, Values: []string{long, "y" + long}}}}
	without, with := (&task{}).bytes(), (&task{place: p}).bytes()
	if with < without+2*400 {
		t.Errorf("%d bytes, without a placement %d: its text alone is 400, kept twice", with, without)
	}
}
