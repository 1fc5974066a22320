package member

import (
	"errors"
	"testing"

	"github.com/wray-project/wray/host/auth"
)

// TestNoHeadUnrecorded: no node is let be a head where that cannot be recorded.
func TestNoHeadUnrecorded(t *testing.T) {
	full := errors.New("the disk is full")
	m := &Member{cfg: Config{Ready: func() error { return full }}}
	if _, err := m.enlistRecorded(t.Context(), auth.Identity{Name: "a"}, "127.0.0.1:1"); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}
