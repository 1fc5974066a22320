package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// Heads that keep the state together reach each other at the cluster's one port
// (control.Port): etcd listens nowhere itself. It calls others by HTTPS with a
// name of its own in the handshake, by which the port tells such connections
// from others; what comes there is handed to etcd's handler.

var _ control.Quorum = (*Store)(nil)

// Kept reports whether a directory has a control state. etcd makes member/ before
// it has asked the other members, and the log in it, at once, when it has.
func Kept(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "etcd", "member", "wal"))
	return err == nil
}

// usePort sets what etcd is to know of the port.
func usePort(cfg *embed.Config, p *control.Port) error {
	if p.File == "" || p.CA == "" || p.ServerName == "" || p.Advertise == "" {
		return fmt.Errorf("%w: a port without an address or certificates", control.ErrInvalid)
	}
	self := url.URL{Scheme: "https", Host: p.Advertise}
	cfg.AdvertisePeerUrls = []url.URL{self}
	cfg.PeerTLSInfo = transport.TLSInfo{CertFile: p.File, KeyFile: p.File, TrustedCAFile: p.CA, ServerName: p.ServerName}
	members := []string{cfg.Name + "=" + self.String()}
	if p.Join != nil {
		cfg.ClusterState = embed.ClusterStateFlagExisting
		for i, addr := range p.Join {
			if addr != p.Advertise {
				members = append(members, fmt.Sprintf("%s-%d=https://%s", cfg.Name, i, addr)) // by any name, as it is found by its address
			}
		}
	}
	cfg.InitialCluster = strings.Join(members, ",")
	return nil
}

// servePort hands what comes to the port to etcd. The result ends that.
func servePort(e *embed.Etcd, p *control.Port) (stop func()) {
	srv := &http.Server{Handler: etcdhttp.NewPeerHandler(e.GetLogger(), e.Server), ReadTimeout: 5 * time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = srv.Serve(p.Listener) }() // until stop
	return func() { srv.Close() }
}

// moved tells the others where this head is now, if that is not where it was.
func (s *Store) moved(ctx context.Context, advertise string) error {
	list, err := s.members(ctx)
	if err != nil {
		return err
	}
	now := "https://" + advertise
	for _, m := range list {
		if m.ID == s.self && !slices.Equal(m.PeerURLs, []string{now}) {
			_, err = s.client.MemberUpdate(ctx, s.self, []string{now})
		}
	}
	if err != nil {
		return s.wrap(ctx, "tell other heads the address", err)
	}
	return nil
}

func (s *Store) members(ctx context.Context) ([]*pb.Member, error) {
	r, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, s.wrap(ctx, "read who the heads are", err)
	}
	return r.Members, nil
}

func addrOf(m *pb.Member) string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	return strings.TrimPrefix(m.PeerURLs[0], "https://")
}

// Heads implements control.Quorum.
func (s *Store) Heads(ctx context.Context) ([]control.Head, error) {
	ctx, done, err := s.begin(ctx, "read who the heads are")
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := s.members(ctx)
	var out []control.Head
	for _, m := range list {
		out = append(out, control.Head{Name: m.Name, Addr: addrOf(m), Learner: m.IsLearner})
	}
	return out, err
}

// AddHead implements control.Quorum.
func (s *Store) AddHead(ctx context.Context, name, addr string) ([]string, error) {
	doing := "add a head"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	now := s.awaited.now()
	s.awaited.see(list, now)
	var all []string
	for _, m := range list {
		if m.ID == s.self && (m.Name == name || addrOf(m) == addr) {
			return nil, fmt.Errorf("%s: %w: %s is this head", doing, control.ErrInvalid, name)
		}
		if m.Name == "" && addrOf(m) == addr { // added before, and it did not come
			all = append(all, addr)
			continue
		}
		// etcd takes one learner at a time. Another one's place is its own for as
		// long as it may be on its way: who asks meanwhile asks again.
		switch {
		case m.Name == "" && s.awaited.coming(m.ID, name, now):
			return nil, control.Unavailable(doing, fmt.Errorf("another, at %s, is on its way", addrOf(m)))
		case m.Name != "" && m.Name != name && m.IsLearner:
			return nil, control.Unavailable(doing, fmt.Errorf("%s is one, and reads yet what the others have; if it is gone for good: wray node remove %[1]s", m.Name))
		}
		// One of that name has lost what it kept: without that it must not vote.
		// One that was added and did not come in time makes room.
		if m.Name == name || m.Name == "" {
			if _, err := s.client.MemberRemove(ctx, m.ID); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberNotFound) {
				return nil, s.wrap(ctx, doing, err)
			}
			continue
		}
		all = append(all, addrOf(m))
	}
	if slices.Contains(all, addr) {
		return all, nil
	}
	if len(all) >= MaxMembers {
		return nil, fmt.Errorf("%s: %w: %d are there, which is the most: let it be a node", doing, control.ErrInvalid, len(all))
	}
	r, err := s.client.MemberAddAsLearner(ctx, []string{"https://" + addr})
	if err != nil {
		return nil, s.wrap(ctx, doing, err)
	}
	s.awaited.add(r.Member.ID, name, now)
	return append(all, addr), nil
}

// comeTime is how long one that was added as a head has to come, from when this
// head knows of it on: until then no other takes its place.
const comeTime = 20 * time.Second

// awaited is what this head knows of those that were added and have not come,
// of whom etcd knows an address alone.
type awaited struct {
	now func() time.Time

	mu   sync.Mutex
	byID map[uint64]newcomer // guarded by mu
}

// newcomer is one of them.
type newcomer struct {
	name  string // empty where another head added it
	since time.Time
}

// see notes those of whom it is news that they are awaited, and forgets those
// who are not any more.
func (a *awaited) see(list []*pb.Member, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	still := map[uint64]newcomer{}
	for _, m := range list {
		if m.Name != "" {
			continue
		}
		n, known := a.byID[m.ID]
		if !known {
			n = newcomer{since: now}
		}
		still[m.ID] = n
	}
	a.byID = still
}

func (a *awaited) add(id uint64, name string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.byID[id] = newcomer{name, now}
}

// coming reports whether a member that see was told of may yet come, and is
// another one than name.
func (a *awaited) coming(id uint64, name string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, is := a.byID[id]
	return is && n.name != name && now.Sub(n.since) < comeTime
}

// Promote implements control.Quorum.
func (s *Store) Promote(ctx context.Context) error {
	doing := "give this head a vote"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return err
	}
	defer done()
	list, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.ID == s.self && !m.IsLearner {
			return nil
		}
	}
	if _, err = s.client.MemberPromote(ctx, s.self); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberNotLearner) {
		return s.wrap(ctx, doing, err)
	}
	return nil
}

// RemoveHead implements control.Quorum. A head may remove itself: then its store
// is good for nothing more. Its etcd stops a second after it knows, so that the
// answer may be lost, and is asked for again of an etcd that is no more: that is
// no failure.
func (s *Store) RemoveHead(ctx context.Context, name string) error {
	err := s.removeHead(ctx, name)
	if errors.Is(err, control.ErrUnavailable) && s.local != nil && name == s.local.name && s.local.removed(ctx) {
		return nil
	}
	return err
}

func (s *Store) removeHead(ctx context.Context, name string) error {
	doing := "remove a head"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return err
	}
	defer done()
	list, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.Name != name {
			continue
		}
		if len(list) == 1 {
			return fmt.Errorf("%s: %w: %s is the only one, and the control state would go with it", doing, control.ErrInvalid, name)
		}
		if _, err := s.client.MemberRemove(ctx, m.ID); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrMemberNotFound) {
			return s.wrap(ctx, doing, err)
		}
	}
	return nil
}

// local is the etcd that runs here.
type local struct {
	name   string // of the head
	server *etcdserver.EtcdServer
	tls    transport.TLSInfo // to call other heads with
}

// removed reports whether the heads have removed this one. What its own etcd has
// applied is sure. One that stopped before it got that far has been turned away
// by another head; but it stops also where a head took its messages for another
// one's, at an address that has changed hands. So others are asked: one that
// answers, and does not count this one, has applied the removal.
func (l *local) removed(ctx context.Context) bool {
	id := l.server.MemberID()
	if l.server.IsIDRemoved(uint64(id)) {
		return true
	}
	select {
	case <-l.server.StoppingNotify():
		return l.forgotten(ctx)
	default: // it can still be told
		return false
	}
}

// askTime is how long one other head has to say who the heads are.
const askTime = 2 * time.Second

// forgotten reports whether another head says that this one is none.
func (l *local) forgotten(ctx context.Context) bool {
	rt, err := transport.NewTransport(l.tls, askTime)
	if err != nil {
		return false
	}
	defer rt.CloseIdleConnections()
	cluster := l.server.Cluster()
	for _, m := range cluster.Members() {
		if m.ID == l.server.MemberID() {
			continue
		}
		for _, u := range m.PeerURLs {
			list, err := askMembers(ctx, rt, u, cluster.ID().String())
			if err == nil && !slices.ContainsFunc(list, func(o *membership.Member) bool { return o.ID == l.server.MemberID() }) {
				return true
			}
		}
	}
	return false
}

// askMembers has the head at an address say who the heads of a cluster are, as
// far as it knows.
func askMembers(ctx context.Context, rt http.RoundTripper, at, cluster string) ([]*membership.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/members", nil)
	if err != nil {
		return nil, err
	}
	r, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if got := r.Header.Get("X-Etcd-Cluster-ID"); r.StatusCode != http.StatusOK || got != cluster {
		return nil, fmt.Errorf("%s answers %s, of cluster %q, not %q", at, r.Status, got, cluster)
	}
	var list []*membership.Member
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s knows of no heads", at)
	}
	return list, nil
}
