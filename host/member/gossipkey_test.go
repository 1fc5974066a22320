package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/host/cluster/gossip"
	"github.com/wray-project/wray/host/control"
)

// TestRekey exchanges the key that nodes gossip with, also where an exchange
// was begun and not ended, and while a node comes; who has the old key alone is
// not understood.
func TestRekey(t *testing.T) {
	ctx, s, head, join := alone(t)
	know := func(m *Member, n int) {
		t.Helper()
		w := m.gossip.Watch()
		defer w.Close()
		for {
			if _, err := w.Next(ctx); err != nil {
				t.Fatalf("%s gossips with %v, want %d", m.cfg.Name, m.gossip.Peers(), n)
			}
			alive := 0
			for _, p := range m.gossip.Peers() {
				if p.Status == cluster.Alive {
					alive++
				}
			}
			if alive == n {
				return
			}
		}
	}
	key := func() []byte {
		t.Helper()
		r, err := s.Get(ctx, gossipKeyName)
		if err != nil {
			t.Fatal(err)
		}
		return r.Value
	}
	a := join("a")
	for _, m := range []*Member{head, a} {
		know(m, 2)
	}
	if err := a.Rekey(ctx); err == nil {
		t.Error("a node that is no head exchanges the key")
	}
	first := key()
	if err := head.Rekey(ctx); err != nil {
		t.Fatal(err)
	}
	second := key()
	if len(second) != gossip.KeySize || bytes.Equal(first, second) {
		t.Fatalf("the key is %x, it was %x", second, first)
	}
	// One that was begun and that all nodes but the record know of, and a node that
	// comes then: it writes with the old key, which nobody reads.
	third := bytes.Repeat([]byte{7}, gossip.KeySize)
	if _, err := s.Commit(ctx, control.Txn{Do: []control.Op{control.Put(gossipKeyName, append(bytes.Clone(second), third...))}}); err != nil {
		t.Fatal(err)
	}
	if err := head.gossip.Rotate(ctx, third); err != nil {
		t.Fatal(err)
	}
	b := join("b")
	if err := head.Rekey(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Member{head, a, b} {
		know(m, 3)
	}
	if !bytes.Equal(key(), third) {
		t.Errorf("the exchange that was begun ended with %x", key())
	}
	d := join("d")
	for _, m := range []*Member{head, a, b, d} {
		know(m, 4)
	}
	for _, old := range [][]byte{first, second} {
		p, err := listen("127.0.0.1:0", "")
		if err != nil {
			t.Fatal(err)
		}
		g, err := gossip.New(cluster.Member{Name: "removed", Incarnation: 1, Addr: p.advertise, Version: "test"},
			gossip.Options{Keys: [][]byte{old}, Packets: p.udp, Streams: p.streams, Dial: p.dial, Probe: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		short, stop := context.WithTimeout(ctx, 2*time.Second)
		if err := g.Join(short, head.Self().Addr); err == nil {
			t.Errorf("who has the key %.4x… alone gossips", old)
		}
		stop()
		if err := errors.Join(g.Close(), p.Close()); err != nil {
			t.Log(fmt.Sprint("close: ", err))
		}
	}
}
