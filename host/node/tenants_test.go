package node

import (
	"testing"

	"github.com/wray-project/wray/host/control"
)

// A tenant is learnt before the records were read for the first time, and into
// no map that somebody reads.
func TestLearnTenant(t *testing.T) {
	n := &Node{}
	n.learn("a", control.Tenant{Created: 1})
	before := n.records
	n.learn("b", control.Tenant{Created: 2})
	n.learn("a", control.Tenant{Created: 3})
	if n.records["a"].Created != 1 || n.records["b"].Created != 2 {
		t.Errorf("known are %v", n.records)
	}
	if len(before) != 1 {
		t.Errorf("a map was changed that others may read: %v", before)
	}
}
