package main

import (
	"strings"
	"testing"

	"github.com/wray-project/wray/internal/clientwire"
)

// A node is ready when others may give it work.
func TestUnready(t *testing.T) {
	one := func(n clientwire.NodeStatus) clientwire.Status {
		other := clientwire.NodeStatus{Name: "other", Status: "dead", Draining: true}
		return clientwire.Status{Node: "one", Cluster: "c", Nodes: []clientwire.NodeStatus{n, other}}
	}
	for says, s := range map[string]clientwire.Status{
		"no record":   one(clientwire.NodeStatus{Name: "two", Status: "alive"}),
		"draining":    one(clientwire.NodeStatus{Name: "one", Status: "alive", Draining: true}),
		"unreachable": one(clientwire.NodeStatus{Name: "one", Status: "unreachable"}),
		"not answer":  {Node: "one", Partial: []string{"the tasks of this node: its worker does not answer"}},
		"no vote":     one(clientwire.NodeStatus{Name: "one", Status: "alive", Head: true, Learner: true}),
	} {
		if err := unready(s); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "node one") {
			t.Errorf("%s: %v", says, err)
		}
	}
	for _, s := range []clientwire.Status{{Node: "one"}, {Node: "one", Partial: []string{"the jobs: x"}, Waits: &clientwire.Explained{}}, one(clientwire.NodeStatus{Name: "one", Status: "alive", Head: true})} {
		if err := unready(s); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
