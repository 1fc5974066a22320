package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
)

func TestBarredBy(t *testing.T) {
	records := map[string]control.Tenant{
		"x": {Nodes: []string{"pool=x"}, Exclusive: true},
		"y": {Nodes: []string{"pool=y", "!spot"}},
		"z": {},
		"u": {Nodes: []string{"no selector ="}},
	}
	x, y, spot, bare := []wray.Label{{Key: "pool", Value: "x"}}, []wray.Label{{Key: "pool", Value: "y"}}, []wray.Label{{Key: "pool", Value: "y"}, {Key: "spot", Value: "1"}}, []wray.Label(nil)
	for _, c := range []struct {
		tenant string
		labels []wray.Label
		want   string
	}{
		{"x", x, ""}, {"x", y, "pool=x"}, {"x", bare, "pool=x"},
		{"y", x, "pool=y"}, {"y", y, ""}, {"y", spot, "!spot"},
		{"z", x, "kept for another tenant"}, {"z", y, ""}, {"z", bare, ""},
		{"local", x, "kept for another tenant"}, {"local", y, ""},
		{"u", bare, "no selector"}, // what cannot be read is nowhere
	} {
		got := barredBy(c.tenant, records, c.labels)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Contains(got, "tenant x") && c.tenant != "x" {
			t.Errorf("tenant %s on %v: %q, want %q", c.tenant, c.labels, got, c.want)
		}
	}
}

// TestBarredPeers: a node that is not for a tenant takes no job of it, knows none
// of its workers elsewhere and starts none, whatever other nodes say and send; and
// those that have greeted are known when it is for the tenant.
func TestBarredPeers(t *testing.T) {
	n := bareNode(t, map[string]control.Tenant{"a": {Nodes: []string{"pool=y"}}, "b": {Nodes: []string{"pool=x"}, Exclusive: true}, "c": {}})
	n.cfg.Name, n.cfg.Labels = "here", []wray.Label{{Key: "pool", Value: "x"}}
	p := n.peers
	defer p.close()
	p.stop() // nothing is begun
	far := peer.Node{Name: "far", Incarnation: 1}
	p.up[far] = true
	var e *wray.Error
	for i, name := range []string{"a", "c", "local"} {
		h := hello{Tenant: name, Worker: uint64(11 + i), Awake: true}
		p.handleMessage(far, &nodeMessage{Hello: &h})
		x, err := n.tenant(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(x.peers.far) != 0 || len(x.peers.awakeFar) != 0 {
			t.Errorf("its worker on another node is known to tenant %s: %v", name, x.peers.far)
		}
		// It lends all the same, and wants objects, of any worker that there may be.
		for to := range uint64(20) {
			p.handleMessage(far, &nodeMessage{Piece: &piece{From: h.Worker, To: to, Data: []byte("lend")}})
			p.mu.Lock()
			if p.fetchedByLocked(to, h.Worker, far) != nil {
				t.Error("it may fetch")
			}
			p.mu.Unlock()
		}
		if len(x.peers.events) != 0 || x.peers.own != nil {
			t.Errorf("a worker of tenant %s was told %v", name, x.peers.events)
		}
		if _, err := x.startWorker(t.Context()); !errors.As(err, &e) || e.Code != wray.CodeDenied || x.starting != nil {
			t.Errorf("a worker of tenant %s: %v", name, err)
		}
		if _, err := n.admit(t.Context(), name); !errors.As(err, &e) || e.Code != wray.CodeDenied || strings.Contains(err.Error(), "tenant b") {
			t.Errorf("a job of tenant %s: %v", name, err)
		}
	}
	if _, err := n.admit(t.Context(), "b"); err != nil {
		t.Errorf("a job of the tenant whose node it is: %v", err)
	}
	there := directory.Entry{Name: "far", Status: liveness.Alive, Node: directory.Node{Labels: map[string]string{"pool": "y"}}}
	for tenant, want := range map[string]string{"a": "has not made itself known", "b": "pool=x", "": "has not made itself known"} {
		if why := n.whyUnknown(tenant, there); !strings.Contains(why, want) {
			t.Errorf("why nothing of tenant %q is lent to it: %q, want %q", tenant, why, want)
		}
	}
	n.setRecords(map[string]control.Tenant{"a": {}, "b": {}, "c": {}})
	for i, name := range []string{"a", "c", "local"} {
		if x, err := n.tenant(name); err != nil || x.peers.far[uint64(11+i)] != far {
			t.Errorf("tenant %s, whose node it is now, knows %v, %v", name, x.peers.far, err)
		}
	}
}
