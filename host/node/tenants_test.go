package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/codecache"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
)

// bareNode is a node that runs nothing, with these tenants and in a cluster.
func bareNode(t *testing.T, records map[string]control.Tenant) *Node {
	cache, err := codecache.Open(codecache.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cache: cache, cfg: Config{Tenant: "local"}, tenants: map[string]*tenant{}, records: records, early: map[string]control.Revision{}}
	n.peers = newPeering(n)
	t.Cleanup(n.ends.Wait)
	return n
}

// TestLearnedLate: a record that was read before its tenant was removed does not
// bring that back; one that the node has not heard of yet is taken, and stays where
// older commits come.
func TestLearnedLate(t *testing.T) {
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	table := control.Tenants(store)
	n := bareNode(t, nil)
	record := func(created int64, at control.Revision, deleted bool) control.Event {
		t.Helper()
		key, err := control.Key(control.KindTenant, "a", "a")
		if err != nil {
			t.Fatal(err)
		}
		e := control.Event{Deleted: deleted, Record: control.Record{Key: key, Modified: at}}
		if !deleted {
			r, err := table.Create(t.Context(), "a", "a", control.Tenant{Created: created})
			if err != nil {
				t.Fatal(err)
			}
			e.Record.Value = r.Record.Value
			if err := table.Delete(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	there := func() int64 {
		if x, err := n.tenant("a"); err == nil {
			return x.created
		}
		return 0
	}
	n.applyTenants(store, control.Batch{Revision: 10, Events: []control.Event{record(1, 10, false)}})
	if there() != 1 {
		t.Fatal("it is not there")
	}
	n.applyTenants(store, control.Batch{Revision: 11, Events: []control.Event{record(1, 11, true)}})
	n.learn("a", control.Tenant{Created: 1}, 10) // what somebody read at 10
	if there() != 0 {
		t.Error("a tenant that was removed is back")
	}
	before := n.records
	n.learn("a", control.Tenant{Created: 2}, 15)
	if there() != 2 {
		t.Error("one that was made is not there")
	}
	if _, changed := before["a"]; changed {
		t.Error("the records that others have were changed")
	}
	n.applyTenants(store, control.Batch{Revision: 13, Events: []control.Event{record(3, 12, false), record(0, 13, true)}})
	if there() != 2 {
		t.Error("what was before it took it away")
	}
	n.applyTenants(store, control.Batch{Revision: 16, Events: []control.Event{record(2, 15, false), record(0, 16, true)}})
	if there() != 0 {
		t.Error("it stays where it is removed")
	}
}

// TestPeerOfRemoved: a worker of a tenant that was removed is no peer of one that
// was made under its name, and one of that is, once it is known here.
func TestPeerOfRemoved(t *testing.T) {
	n := bareNode(t, map[string]control.Tenant{"a": {Created: 5}})
	p := n.peers
	defer p.close()
	p.stop()
	far := peer.Node{Name: "far", Incarnation: 1}
	p.up[far] = true
	for _, h := range []hello{{Tenant: "a", Worker: 11}, {Tenant: "a", Worker: 12, Created: 4}, {Tenant: "a", Worker: 13, Created: 6, Awake: true}} {
		p.handleMessage(far, &nodeMessage{Hello: &h})
	}
	x, err := n.tenant("a")
	if err != nil {
		t.Fatal(err)
	}
	if len(x.peers.far) != 0 || p.foreign != 3 || len(p.unknown) != 1 {
		t.Errorf("workers of other tenants of the name are its peers: %v; %d are counted, %d kept", x.peers.far, p.foreign, len(p.unknown))
	}
	p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: "a", Worker: 14, Created: 5}})
	if x.peers.far[14] != far || x.peers.awakeFar[14] {
		t.Errorf("its own worker is no peer: %v", x.peers.far)
	}
	n.mu.Lock()
	n.tenants["a"].gone = true // as when it is removed
	delete(n.tenants, "a")
	n.mu.Unlock()
	p.forget(x.peers)
	n.setRecords(map[string]control.Tenant{"a": {Created: 6}})
	if y, err := n.tenant("a"); err != nil || y.peers.far[13] != far || len(y.peers.far) != 1 || !y.peers.awakeFar[13] {
		t.Errorf("the worker of the new one is no peer: %+v, %v", y, err)
	}
	// One that is no more is not remembered.
	p.handleMessage(far, &nodeMessage{Hello: &hello{Tenant: "b", Worker: 20}})
	p.handleMessage(far, &nodeMessage{Gone: &hello{Tenant: "b", Worker: 20}})
	if len(p.unknown) != 0 {
		t.Errorf("kept are %v", p.unknown)
	}
}

// TestStartedAfterStopped: a worker that was ended while its start went on is no
// tenant's worker to others.
func TestStartedAfterStopped(t *testing.T) {
	p := newTestPeers()
	p.peering.stop()
	close(p.ready)
	p.mesh = &peer.Mesh{}
	w := &workerProcess{peers: p}
	p.stopped(w)
	p.started(w, 7)
	if p.own != nil || p.peering.own[7] != nil {
		t.Error("a worker that has ended is the tenant's")
	}
}

// TestModulesOfOthers: a module is had by a name that its tenant alone is told. By
// the hash of its bytes nobody gets it, nor by what another tenant's is called;
// and what came with another's head is as if it were not there.
func TestModulesOfOthers(t *testing.T) {
	n := bareNode(t, map[string]control.Tenant{"a": {Created: 1}, "b": {Created: 1}})
	part := func(name string) *tenantPeers {
		x, err := n.tenant(name)
		if err != nil {
			t.Fatal(err)
		}
		return x.peers
	}
	a, b := part("a"), part("b")
	wasm := []byte("a program")
	names, end := a.share([]Module{{Wasm: wasm}})
	again, endAgain := a.share([]Module{{Wasm: wasm}})
	others, endOther := b.share([]Module{{Wasm: wasm}})
	plain := sha256.Sum256(wasm)
	if names[0] == others[0] || names[0] == hex.EncodeToString(plain[:]) || names[0] != again[0] {
		t.Errorf("a's is called %s and %s, b's %s", names[0], again[0], others[0])
	}
	get := func(sum [32]byte) ([]byte, error) {
		f, size, err := n.peers.blob(t.Context(), auth.Identity{}, sum)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		got, err := io.ReadAll(io.NewSectionReader(f, 0, size))
		if s := sha256.Sum256(got); err == nil && s != sum {
			t.Errorf("what came has another hash")
		}
		return got, err
	}
	if _, err := get(plain); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("by the hash of its bytes: %v", err)
	}
	var sum [32]byte
	_, _ = hex.Decode(sum[:], []byte(names[0]))
	came, err := get(sum)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.ownModule(came); err != nil || !bytes.Equal(got, wasm) {
		t.Errorf("a gets %q, %v", got, err)
	}
	if got, err := b.ownModule(came); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("b gets a's: %q, %v", got, err)
	}
	for _, bad := range [][]byte{nil, wasm, came[:20]} {
		if got, err := a.ownModule(bad); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of %q: %q, %v", bad, got, err)
		}
	}
	end()
	if _, err := get(sum); err != nil {
		t.Errorf("another job has it yet: %v", err)
	}
	endAgain()
	endOther()
	if _, err := get(sum); !errors.Is(err, fs.ErrNotExist) || len(n.peers.modules) != 0 {
		t.Errorf("when its jobs have ended: %v, %d kept", err, len(n.peers.modules))
	}
}

// A tenant is learnt before the records were read for the first time, and into
// no map that somebody reads.
func TestLearnTenant(t *testing.T) {
	n := &Node{}
	n.learn("a", control.Tenant{Created: 1}, 1)
	before := n.records
	n.learn("b", control.Tenant{Created: 2}, 2)
	n.learn("a", control.Tenant{Created: 3}, 3)
	if n.records["a"].Created != 1 || n.records["b"].Created != 2 {
		t.Errorf("known are %v", n.records)
	}
	if len(before) != 1 {
		t.Errorf("a map was changed that others may read: %v", before)
	}
}
