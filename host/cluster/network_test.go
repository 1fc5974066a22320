package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/host/cluster/clustertest"
)

// twin is a Network whose addresses are numbers.
type twin struct {
	*cluster.Network
	n int
}

func (w *twin) New(t *testing.T, m cluster.Member, at string) cluster.Membership {
	w.n++
	if m.Addr = at; at == "" {
		m.Addr = fmt.Sprintf("host:%d", w.n)
	}
	out, err := w.Network.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *twin) Settle() time.Duration { return 50 * time.Millisecond }

func TestNetwork(t *testing.T) {
	clustertest.Test(t, func(*testing.T) clustertest.World {
		return &twin{Network: cluster.NewNetwork(time.Millisecond)}
	})
}

func TestCheck(t *testing.T) {
	good := cluster.Member{Name: "node-1.rack", Incarnation: 1, Addr: "10.0.0.1:7070"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*cluster.Member){
		"no name":         func(m *cluster.Member) { m.Name = "" },
		"upper case":      func(m *cluster.Member) { m.Name = "Node" },
		"a slash":         func(m *cluster.Member) { m.Name = "a/b" },
		"a dash in front": func(m *cluster.Member) { m.Name = "-a" },
		"a long name":     func(m *cluster.Member) { m.Name = fmt.Sprintf("%064d", 1) },
		"no incarnation":  func(m *cluster.Member) { m.Incarnation = 0 },
		"no address":      func(m *cluster.Member) { m.Addr = "" },
		"a long version":  func(m *cluster.Member) { m.Version = fmt.Sprintf("%065d", 1) },
	} {
		m := good
		change(&m)
		if m.Check() == nil {
			t.Errorf("%s: %+v was taken", what, m)
		}
	}
}
