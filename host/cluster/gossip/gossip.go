// Package gossip tells which nodes there are, with serf: every node tells a few
// others what it has heard, and asks a few whether they are there. It is the
// only package that knows serf.
//
// A serf member is one incarnation of a node, NAME.INCARNATION, so that a node
// that is back, at whatever address, is a new member, and what is late of the
// old one cannot be taken for it.
package gossip

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/wray-project/wray/host/cluster"
)

// KeySize is the length of a gossip key, for AES-256.
const KeySize = 32

// Options say how a node gossips.
type Options struct {
	// Keys encrypt and authenticate all that is told: one that has none of them
	// is not heard. The first is used to write; there is at least one.
	Keys [][]byte
	// Packets and Streams carry it, and Dial reaches the Streams of another node,
	// by its Member's Addr. Packets go to the same address, by UDP. All three are
	// needed, and the gossip's from now on.
	Packets net.PacketConn
	Streams net.Listener
	Dial    func(ctx context.Context, addr string) (net.Conn, error)
	// Probe is between two questions to others whether they are there. One that
	// does not answer for about four of them has failed. By default a second.
	Probe time.Duration
	// Keep is for how long those that failed are looked for, a day by default,
	// and those that left remembered.
	Keep time.Duration
	// Log gets serf's warnings and errors. Nil drops them.
	Log *slog.Logger
}

// Gossip is a [cluster.Membership].
type Gossip struct {
	cluster.Roster
	serf   *serf.Serf
	events chan serf.Event
	drain  sync.WaitGroup

	mu   sync.Mutex
	self cluster.Member // guarded by mu

	ring  *memberlist.Keyring
	again time.Duration // before a question is asked again
	close func() error
}

var _ cluster.Membership = (*Gossip)(nil)

// New returns the membership of a node that knows of itself alone.
func New(self cluster.Member, o Options) (*Gossip, error) {
	if len(o.Keys) == 0 {
		return nil, errors.New("gossip: no key: what nodes tell each other is never in the clear")
	}
	if o.Probe <= 0 {
		o.Probe = time.Second
	}
	if o.Keep <= 0 {
		o.Keep = 24 * time.Hour
	}
	ring, err := memberlist.NewKeyring(o.Keys, o.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	t, err := newTransport(self.Addr, o)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	self.Addr = t.advertise
	if err := self.Check(); err != nil {
		_ = t.Shutdown()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	logger, few := newLogger(o.Log)
	ml := memberlist.DefaultLANConfig()
	ml.Transport, ml.Keyring, ml.Logger = t, ring, logger
	ml.ProbeInterval, ml.ProbeTimeout = o.Probe, o.Probe/2
	ml.GossipInterval = min(ml.GossipInterval, o.Probe/2)
	c := serf.DefaultConfig()
	c.NodeName, c.Tags = nodeName(self), tags(self)
	c.MemberlistConfig, c.Logger, c.ValidateNodeNames = ml, logger, true
	c.ReconnectTimeout, c.TombstoneTimeout = o.Keep, o.Keep
	c.ReapInterval = min(c.ReapInterval, o.Keep)
	c.ReconnectInterval = min(c.ReconnectInterval, 10*o.Probe)
	// Leaving is a hint too: it waits for nobody long.
	c.BroadcastTimeout, c.LeavePropagateDelay = o.Probe, o.Probe/4
	c.DisableCoordinates, c.EnableNameConflictResolution = true, false
	g := &Gossip{events: make(chan serf.Event, 64), self: self, ring: ring, again: o.Probe / 2}
	c.EventCh = g.events
	g.Heard(cluster.Peer{Member: self, Status: cluster.Alive})
	if g.serf, err = serf.Create(c); err != nil {
		_ = t.Shutdown()
		few.Close()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.drain.Go(g.follow)
	g.close = sync.OnceValue(func() error {
		err := g.serf.Shutdown()
		g.drain.Wait()
		g.Roster.Close()
		err = errors.Join(err, t.Shutdown())
		few.Close()
		return err
	})
	return g, nil
}

// follow takes serf's events until it is shut down.
func (g *Gossip) follow() {
	for {
		select {
		case e := <-g.events:
			if m, ok := e.(serf.MemberEvent); ok {
				for i := range m.Members {
					g.heard(m.Type, &m.Members[i])
				}
			}
		case <-g.serf.ShutdownCh():
			return
		}
	}
}

func (g *Gossip) heard(what serf.EventType, m *serf.Member) {
	p, err := member(m)
	if err != nil {
		return // of another version, or of nobody we know
	}
	switch what {
	case serf.EventMemberJoin, serf.EventMemberUpdate:
		g.Heard(cluster.Peer{Member: p, Status: cluster.Alive})
	case serf.EventMemberFailed:
		g.Heard(cluster.Peer{Member: p, Status: cluster.Failed})
	case serf.EventMemberLeave:
		g.Heard(cluster.Peer{Member: p, Status: cluster.Left})
	case serf.EventMemberReap:
		g.Forget(p.Name, p.Incarnation)
	}
}

// Join implements [cluster.Membership].
func (g *Gossip) Join(ctx context.Context, addrs ...string) error {
	type answer struct {
		n   int
		err error
	}
	c := make(chan answer, 1)
	go func() { // ends with the timeouts of the dials, at the latest
		n, err := g.serf.Join(addrs, true)
		c <- answer{n, err}
	}()
	select {
	case a := <-c:
		if a.n == 0 {
			return fmt.Errorf("%w: %w", cluster.ErrNobody, a.err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Update implements [cluster.Membership].
func (g *Gossip) Update(m cluster.Member) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.Name, m.Incarnation, m.Addr = g.self.Name, g.self.Incarnation, g.self.Addr
	if err := m.Check(); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	if g.serf.State() != serf.SerfAlive {
		return cluster.ErrClosed
	}
	if err := g.serf.SetTags(tags(m)); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	g.self = m
	g.Heard(cluster.Peer{Member: m, Status: cluster.Alive})
	return nil
}

// Leave implements [cluster.Membership].
func (g *Gossip) Leave(ctx context.Context) error {
	if g.serf.State() == serf.SerfShutdown {
		return cluster.ErrClosed
	}
	c := make(chan error, 1)
	go func() { c <- g.serf.Leave() }() // ends with serf's own timeouts, or Shutdown
	select {
	case err := <-c:
		if err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements [cluster.Membership].
func (g *Gossip) Close() error { return g.close() }

// Adopt has this node alone read these keys and no others, and write with the
// first.
func (g *Gossip) Adopt(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("gossip: no key")
	}
	for _, k := range keys {
		if err := g.ring.AddKey(k); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	if err := g.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	for _, old := range slices.Clone(g.ring.GetKeys()) {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := g.ring.RemoveKey(old); err != nil {
				return fmt.Errorf("gossip: %w", err)
			}
		}
	}
	return nil
}

// Rotate has all nodes write with a new key, and forget all others. Nodes are
// asked by packets, which may be lost, and a step is only taken when all have
// answered the one before: Rotate asks again until they have, or ctx ends. Then
// all nodes still understand each other, and Rotate may be called again. Nodes
// that have failed are not asked.
func (g *Gossip) Rotate(ctx context.Context, key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("gossip: a key of %d bytes: want %d", len(key), KeySize)
	}
	m := g.serf.KeyManager()
	b64 := base64.StdEncoding.EncodeToString(key)
	ask := func(what string, question func() (*serf.KeyResponse, error)) (*serf.KeyResponse, error) {
		for {
			r, err := question()
			if err == nil {
				return r, nil
			}
			if ctx.Err() != nil || g.serf.State() != serf.SerfAlive {
				return nil, fmt.Errorf("gossip: %s on %d nodes: %w: %v", what, r.NumNodes, err, r.Messages)
			}
			// A question takes as long as serf waits for its answers, but not where
			// it could not be asked.
			select {
			case <-ctx.Done():
			case <-time.After(g.again):
			}
		}
	}
	if _, err := ask("install the new key", func() (*serf.KeyResponse, error) { return m.InstallKey(b64) }); err != nil {
		return err
	}
	if _, err := ask("use the new key", func() (*serf.KeyResponse, error) { return m.UseKey(b64) }); err != nil {
		return err
	}
	r, err := ask("list the keys", m.ListKeys)
	if err != nil {
		return err
	}
	for old := range r.Keys {
		if old == b64 {
			continue
		}
		if _, err := ask("remove an old key", func() (*serf.KeyResponse, error) { return m.RemoveKey(old) }); err != nil {
			return err
		}
	}
	return nil
}

// nodeName is how serf knows a member.
func nodeName(m cluster.Member) string {
	return m.Name + "." + strconv.FormatUint(m.Incarnation, 16)
}

// The tags of a serf member: short, for all of them together have 512 bytes.
const (
	tagAddr     = "a"
	tagVersion  = "v"
	tagHead     = "h"
	tagDraining = "d"
	tagMeta     = "m"
)

func tags(m cluster.Member) map[string]string {
	t := map[string]string{tagAddr: m.Addr, tagVersion: m.Version, tagMeta: m.Meta}
	if m.Head {
		t[tagHead] = "1"
	}
	if m.Draining {
		t[tagDraining] = "1"
	}
	return t
}

// member reads what a serf member says of itself.
func member(m *serf.Member) (cluster.Member, error) {
	i := strings.LastIndexByte(m.Name, '.')
	if i < 0 {
		return cluster.Member{}, fmt.Errorf("gossip: member %q has no incarnation", m.Name)
	}
	inc, err := strconv.ParseUint(m.Name[i+1:], 16, 64)
	if err != nil {
		return cluster.Member{}, fmt.Errorf("gossip: member %q: %w", m.Name, err)
	}
	out := cluster.Member{Name: m.Name[:i], Incarnation: inc, Addr: m.Tags[tagAddr], Version: m.Tags[tagVersion],
		Head: m.Tags[tagHead] != "", Draining: m.Tags[tagDraining] != "", Meta: m.Tags[tagMeta]}
	return out, out.Check()
}
