package member

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/liveness"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/internal/rpc"
)

// headAddr is a head and where it listens. The name is empty where it is not
// known yet: any node of the cluster may answer there.
type headAddr struct {
	Name string `json:"name,omitempty"`
	Addr string `json:"addr"`
}

// headsFile has the heads that were known last, to find the cluster again.
const headsFile = "heads.json"

func loadHeads(dir string) ([]headAddr, error) {
	b, err := os.ReadFile(filepath.Join(dir, headsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var heads []headAddr
	if err := json.Unmarshal(b, &heads); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", headsFile, err)
	}
	return heads, nil
}

func keepHeads(dir string, heads []headAddr) error {
	b, err := json.Marshal(heads)
	if err != nil {
		return err
	}
	return auth.WriteFile(filepath.Join(dir, headsFile), b)
}

// followNodes acts on what is known of nodes: it gossips with them, and keeps
// to the heads that there are.
func (m *Member) followNodes() {
	w := m.dir.Watch()
	defer w.Close()
	var heads []headAddr
	for {
		entries, err := w.Next(m.running)
		if err != nil {
			return
		}
		m.talk(entries)
		m.meet(entries)
		var now []headAddr
		for _, e := range m.dir.Nodes() {
			if e.Node.Head && e.Status != liveness.Dead {
				now = append(now, headAddr{e.Name, e.Node.Addr})
			}
		}
		slices.SortFunc(now, func(a, b headAddr) int { return strings.Compare(a.Name, b.Name) })
		if len(now) > 0 && !slices.Equal(now, heads) {
			heads = now
			m.setHeads(heads)
		}
	}
}

// talk keeps a session with each node that lives, and ends those of the dead.
func (m *Member) talk(entries []directory.Entry) {
	for _, e := range entries {
		n := peer.Node{Name: e.Name, Incarnation: e.Node.Incarnation}
		switch {
		case e.Name == m.cfg.Name:
		case e.Status == liveness.Dead:
			m.mesh.Dead(n, e.Why)
		default:
			m.mesh.Learn(n, e.Node.Addr)
			m.mesh.Connect(e.Name)
		}
	}
}

// sessions is the handler of the member's sessions: what they tell of nodes is
// the directory's too.
type sessions struct{ m *Member }

// Receive implements peer.Handler.
func (s sessions) Receive(from peer.Node, messages [][]byte) {
	if h := s.m.cfg.Handler; h != nil {
		h.Receive(from, messages)
	}
}

// Change implements peer.Handler.
func (s sessions) Change(n peer.Node, to peer.Status, why string) {
	if to == peer.Unreachable {
		s.m.dir.Closed(n.Name, n.Incarnation)
	}
	if h := s.m.cfg.Handler; h != nil {
		h.Change(n, to, why)
	}
}

// meet gossips with nodes that came.
func (m *Member) meet(entries []directory.Entry) {
	known := map[string]bool{}
	for _, p := range m.gossip.Peers() {
		known[fmt.Sprint(p.Name, "#", p.Incarnation)] = true
	}
	var addrs []string
	for _, e := range entries {
		if e.Status != liveness.Dead && !known[fmt.Sprint(e.Name, "#", e.Node.Incarnation)] {
			addrs = append(addrs, e.Node.Addr)
		}
	}
	if len(addrs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(m.running, 5*time.Second)
	defer cancel()
	if err := m.gossip.Join(ctx, addrs...); err != nil && m.running.Err() == nil {
		m.cfg.Log.Warn("nodes are registered, and do not answer gossip", "addrs", addrs, "err", err)
	}
}

// setHeads keeps the heads for the next start, and asks them from now on.
func (m *Member) setHeads(heads []headAddr) {
	if err := keepHeads(m.cfg.Dir, heads); err != nil {
		m.cfg.Log.Warn("the heads cannot be kept for the next start", "err", err)
	}
	if m.remote == nil {
		return
	}
	var clients []*rpc.Client
	for _, h := range heads {
		c, err := m.headClient(h)
		if err != nil {
			m.cfg.Log.Error("a head cannot be asked", "head", h.Name, "err", err)
			continue
		}
		clients = append(clients, c)
	}
	if len(clients) == 0 {
		return
	}
	m.remote.SetHeads(clients...)
	_ = m.endBoot()
}

func (m *Member) headClient(h headAddr) (*rpc.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := h.Name + "@" + h.Addr
	if c := m.clients[key]; c != nil {
		return c, nil
	}
	c, err := rpc.NewClient(m.guard, h.Name, h.Addr)
	if err == nil {
		m.clients[key] = c
	}
	return c, err
}

// keepFresh renews the node's certificate in time.
func (m *Member) keepFresh() {
	m.cred.KeepFresh(m.running, m.renewal, func(err error) {
		m.cfg.Log.Warn("the node's certificate is not renewed yet", "err", err)
	})
}

// pruneEvery is how often a head removes what nobody needs any more.
const pruneEvery = time.Hour

// prune removes, on a head, tokens and revocations that have expired.
func (m *Member) prune() {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(m.running, time.Minute)
		err := m.head.Prune(ctx)
		cancel()
		if err != nil && m.running.Err() == nil {
			m.cfg.Log.Warn("what has expired could not be removed from the control state; this is tried again", "err", err)
		}
		select {
		case <-m.running.Done():
			return
		case <-tick.C:
		}
	}
}

// renewal asks this head, or one after the other.
func (m *Member) renewal(ctx context.Context, csr []byte) (auth.Grant, error) {
	if m.head != nil {
		leaf := m.cred.Certificate().Leaf
		return m.head.Renew(ctx, auth.Identity{Cluster: m.Cluster(), Role: auth.RoleNode, Name: m.cfg.Name,
			Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), NotAfter: leaf.NotAfter}, csr)
	}
	heads, err := loadHeads(m.cfg.Dir)
	if err != nil {
		return auth.Grant{}, err
	}
	err = errors.New("no head is known")
	for _, h := range heads {
		var c *rpc.Client
		if c, err = m.headClient(h); err != nil {
			continue
		}
		var g auth.Grant
		if g, err = c.Renew(ctx, csr); err == nil {
			return g, nil
		}
	}
	return auth.Grant{}, err
}
