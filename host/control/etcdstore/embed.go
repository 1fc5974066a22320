package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray/host/control"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/lease"
	"go.uber.org/zap"
)

// MaxMembers is how many heads may keep the control state. With more, each
// write waits for more disks, and nothing is won.
const MaxMembers = 5

// Options say how an etcd runs inside of this process.
type Options struct {
	// Dir is where it keeps its files. It is made, for this user alone.
	Dir string
	// Name is the head's, unique among Members. "head" by default.
	Name string
	// Peer is where other heads reach this one. Nil is for a head that is
	// alone: it listens nowhere.
	Peer *Listener
	// Port is how other heads reach this one, without an address of etcd's own.
	// With it Peer, Members and Name are not used.
	Port *control.Port
	// Clients is where nodes that are no heads reach this one, by Dial. Nil is
	// nowhere: the Store of this process needs no connection.
	Clients *Listener
	// Members are all heads that the cluster begins with, this one too: names,
	// and the addresses, host:port, at which they are reached. Only read when
	// Dir is empty.
	Members map[string]string
	// Heartbeat and Election are between a leader's signs of life, and how long
	// a member waits for one. By default 10 and 100 ms for a head that is
	// alone, which so elects itself at once, and 100 and 1000 ms else.
	Heartbeat, Election time.Duration
	// Keep is how many revisions are kept for watchers and pages that are
	// late, 10,000 by default. What is older goes within five minutes.
	Keep int
	// Log gets etcd's warnings and errors. Nil drops them.
	Log *slog.Logger
}

// Listener is an address to listen at, with the certificates to do it with.
type Listener struct {
	Address string // IP:port
	// Advertise is the address, host:port, that others use. By default Address.
	Advertise string
	// Files with the certificate and key of this head, and the certificates of
	// those who sign those of others. They are read for each connection, so
	// that they may be changed while it runs.
	Cert, Key, CA string
}

// Start runs an etcd in this process, and returns when it answers: when a
// quorum of members is there.
func Start(ctx context.Context, o Options) (*Store, error) {
	log := &slogCore{log: o.Log, stopping: new(atomic.Bool)}
	ill := &illness{dir: o.Dir, log: o.Log, ended: make(chan struct{})}
	cfg, err := o.config(log, ill)
	if err != nil {
		return nil, fmt.Errorf("start the control state: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the control state: %w", err)
	}
	e, err := startEtcd(cfg, ill)
	if err != nil {
		return nil, fmt.Errorf("start the control state in %s: %w", o.Dir, err)
	}
	unserve := func() {}
	if o.Port != nil {
		unserve = sync.OnceFunc(servePort(e, o.Port))
	}
	stopped := make(chan struct{})
	begin := sync.OnceFunc(func() {
		log.stopping.Store(true)
		go func() {
			defer close(stopped)
			e.Close()
			unserve()
		}()
	})
	stop := func() {
		begin()
		select {
		case <-stopped:
		case <-ill.ended:
			select { // what has ended may have kept locks
			case <-stopped:
			case <-time.After(illStop):
			}
		}
	}
	// Other heads go on without this one: they are to hear nothing more of it.
	ill.end(func() { unserve(); begin() })
	select {
	case <-e.Server.ReadyNotify():
	case <-ill.ended:
		stop()
		return nil, fmt.Errorf("start the control state: %w", ill.Err())
	case <-e.Server.StopNotify():
		stop()
		return nil, fmt.Errorf("start the control state in %s: it stopped: see its log", o.Dir)
	case err := <-e.Err():
		stop()
		return nil, fmt.Errorf("start the control state in %s: %w", o.Dir, err)
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("start the control state in %s: %w: too few of its members %v are there: %w",
			o.Dir, control.ErrUnavailable, slices.Sorted(maps.Keys(o.Members)), ctx.Err())
	}
	s := newStore(v3client.New(e.Server), Prefix)
	s.ill = ill
	s.self = uint64(e.Server.MemberID())
	s.local = &local{name: o.Name, server: e.Server, tls: cfg.PeerTLSInfo}
	s.renew = func(ctx context.Context, id clientv3.LeaseID) (int64, error) {
		ttl, err := e.Server.LeaseRenew(ctx, lease.LeaseID(id))
		if errors.Is(err, lease.ErrLeaseNotFound) {
			return 0, nil
		}
		return ttl, err
	}
	s.shut = sync.OnceValue(func() error {
		err := s.client.Close()
		stop()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return err
	})
	if o.Port != nil || o.Peer != nil {
		go s.followLeader(e.Server.LeaderChangedNotify) // ends with Close
	}
	if o.Port != nil {
		if err := s.moved(ctx, o.Port.Advertise); err != nil {
			s.Close()
			return nil, fmt.Errorf("start the control state in %s: %w", o.Dir, err)
		}
	}
	return s, nil
}

// config checks the options and makes etcd's out of them.
func (o *Options) config(log *slogCore, ill *illness) (*embed.Config, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("%w: no directory for its files", control.ErrInvalid)
	}
	if o.Port != nil {
		o.Name, o.Peer, o.Members = o.Port.Name, nil, nil
	}
	if o.Name == "" {
		o.Name = "head"
	}
	if o.Keep <= 0 {
		o.Keep = 10_000
	}
	alone := o.Peer == nil && o.Port == nil
	if o.Heartbeat <= 0 || o.Election <= 0 {
		o.Heartbeat, o.Election = 100*time.Millisecond, time.Second
		if alone {
			o.Heartbeat, o.Election = 10*time.Millisecond, 100*time.Millisecond
		}
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(o.Dir, "etcd")
	cfg.Name = o.Name
	cfg.TickMs = uint(o.Heartbeat / time.Millisecond)
	cfg.ElectionMs = uint(o.Election / time.Millisecond)
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = strconv.Itoa(o.Keep)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(log, zap.WithFatalHook(ill), zap.WithPanicHook(ill)))
	cfg.EnableGRPCGateway = false
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil
	cfg.ListenPeerUrls = nil
	// Never dialed: a member needs an address, and one that is alone has none.
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "alone.invalid:1"}}
	if o.Peer != nil {
		listen, advertise, err := o.Peer.urls("peers")
		if err != nil {
			return nil, err
		}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = listen, advertise
		cfg.PeerTLSInfo = o.Peer.tls()
	}
	if o.Clients != nil {
		listen, advertise, err := o.Clients.urls("clients")
		if err != nil {
			return nil, err
		}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = listen, advertise
		cfg.ClientTLSInfo = o.Clients.tls()
	}
	if alone && len(o.Members) > 1 {
		return nil, fmt.Errorf("%w: %d members and no address where the others reach this one", control.ErrInvalid, len(o.Members))
	}
	if len(o.Members) > MaxMembers {
		return nil, fmt.Errorf("%w: %d members, at most %d keep the control state: let the others be nodes", control.ErrInvalid, len(o.Members), MaxMembers)
	}
	initial := []string{o.Name + "=" + cfg.AdvertisePeerUrls[0].String()}
	if len(o.Members) > 0 && !alone {
		if _, ok := o.Members[o.Name]; !ok {
			return nil, fmt.Errorf("%w: %q is none of the members %v", control.ErrInvalid, o.Name, slices.Sorted(maps.Keys(o.Members)))
		}
		initial = nil
		for _, name := range slices.Sorted(maps.Keys(o.Members)) {
			if _, _, err := net.SplitHostPort(o.Members[name]); err != nil || strings.ContainsAny(name, "=,") {
				return nil, fmt.Errorf("%w: member %q at %q; an address is host:port", control.ErrInvalid, name, o.Members[name])
			}
			initial = append(initial, name+"=https://"+o.Members[name])
		}
	}
	cfg.InitialCluster = strings.Join(initial, ",")
	cfg.InitialClusterToken = "wray"
	if o.Port != nil {
		if err := usePort(cfg, o.Port); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func (l *Listener) urls(who string) (listen, advertise []url.URL, err error) {
	if l.Cert == "" || l.Key == "" || l.CA == "" {
		return nil, nil, fmt.Errorf("%w: %s would be listened to at %s without certificates: there is no such thing", control.ErrInvalid, who, l.Address)
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil || net.ParseIP(host) == nil {
		return nil, nil, fmt.Errorf("%w: address %q for %s; it is IP:port", control.ErrInvalid, l.Address, who)
	}
	adv := l.Advertise
	if adv == "" {
		adv = l.Address
	}
	if _, _, err := net.SplitHostPort(adv); err != nil {
		return nil, nil, fmt.Errorf("%w: address %q for %s; it is host:port", control.ErrInvalid, adv, who)
	}
	return []url.URL{{Scheme: "https", Host: l.Address}}, []url.URL{{Scheme: "https", Host: adv}}, nil
}

func (l *Listener) tls() transport.TLSInfo {
	return transport.TLSInfo{CertFile: l.Cert, KeyFile: l.Key, TrustedCAFile: l.CA, ClientCertAuth: true,
		// Who a peer is is for its certificate to say, and not for the address
		// that its connection comes from.
		SkipClientSANVerify: true}
}

// Compact forgets what was before rev, now. It is done in time by itself.
func (s *Store) Compact(ctx context.Context, rev control.Revision) error {
	doing := "compact the control state"
	ctx, done, err := s.begin(ctx, doing)
	if err != nil {
		return err
	}
	defer done()
	if _, err := s.kv.Compact(ctx, int64(rev)); err != nil {
		return s.wrap(ctx, doing, err)
	}
	return nil
}
