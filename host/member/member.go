// Package member is one node's part in a cluster: its identity, its one port,
// its record among the nodes', and what it knows of the others. It ties auth,
// control, rpc, gossip and directory together, and knows nothing of jobs.
//
// All that has to outlast the process is in one directory: keys and
// certificates (see package auth), the incarnation, the heads that were known
// last, and on heads the control state.
package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/cluster/gossip"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/internal/rpc"
)

// DefaultListen is where a node listens for others where nothing is said: on
// this machine alone.
const DefaultListen = "127.0.0.1:7420"

// Config says how a node takes part.
type Config struct {
	Name string // of the node, see cluster.CheckName
	Dir  string // what outlasts the process; made, for this user alone
	// Listen is the address, IP:port, of TCP and UDP; port 0 takes any that is
	// free. Advertise is how others reach it, where that is another.
	Listen    string
	Advertise string
	// OpenControl makes the node a head: it opens the control state that the
	// directory keeps, and that it may keep with other heads, if it is a
	// control.Quorum. ControlKept reports whether the directory has one: with Join,
	// a head without becomes one more of those that there are. Nil: it always has.
	OpenControl func(ctx context.Context, dir string, p control.Port) (control.Store, error)
	ControlKept func(dir string) bool
	// Outside says that what OpenControl opens is kept elsewhere, not by the heads.
	Outside bool
	// Join is where a head listens, and Token lets the node in. A node that has
	// joined needs neither again.
	Join  string
	Token string
	// Offer is what the node offers to others, but for its address and incarnation.
	Offer directory.Node
	// Directory are the options of the directory.
	Directory directory.Options
	Probe     time.Duration // of gossip; zero is its default
	// Handler takes what other nodes send, and is told of sessions. Nil drops it.
	Handler peer.Handler
	// Drain is called once when a head orders this node to leave, with the time
	// that what it runs has to end. It must not wait.
	Drain func(within time.Duration)
	// Blob is what the node gives to others by hash: see rpc.Options.
	Blob func(ctx context.Context, from auth.Identity, sha256 [32]byte) (rpc.Blob, int64, error)
	// Protocols are what the node serves to others beside calls: see rpc.Options.
	Protocols map[string]func(ctx context.Context, c *rpc.Conn)
	// Jobs and HTTP are what the node does for who submits jobs, HTTPHosts names by
	// which it is called, and Denied is told who was refused: see rpc.Options.
	Jobs      rpc.Jobs
	HTTP      *http.ServeMux
	HTTPHosts []string
	Denied    func(p access.Principal, call, from string)
	Login     func(p access.Principal, from string) // told of a token that is used again: see access.CheckerOptions
	// Decided is told whom a head has let join, or be a head, and whom not: err says
	// why. Ready says whether it can be recorded now: on an error nobody is let in.
	// Both may be nil.
	Decided func(ctx context.Context, p access.Principal, action access.Action, object string, err error)
	Ready   func() error
	Log     *slog.Logger // nil drops what it says
}

// Member is a node that takes part. Its methods may be called by any number of
// goroutines.
type Member struct {
	cfg    Config
	self   cluster.Member
	cred   *auth.Credentials
	store  control.Store
	remote *rpc.Control   // store, of a node that is no head
	quorum control.Quorum // store, of a head that keeps it with others; else nil
	guard  *auth.Guard
	people *access.People // nil on a node that is no head
	check  *access.Checker
	head   *auth.Registrar // nil on a node that is no head
	server *rpc.Server
	gossip *gossip.Gossip
	dir    *directory.Directory
	mesh   *peer.Mesh

	running context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	closers []func() error // in the order of opening
	once    sync.Once

	mu      sync.Mutex
	clients map[string]*rpc.Client // guarded by mu; of heads, by name and address
	boot    []*rpc.Client          // of heads, from before it was known what is revoked; nil when others are there
}

// ErrTokenNeeded says that the node has not joined and was given nothing to
// join with.
var ErrTokenNeeded = errors.New("this node has joined no cluster")

// Start has the node take part: it makes the cluster (a head, the first time),
// or joins it with a token (another node, the first time), or is back. Close
// the Member.
func Start(ctx context.Context, cfg Config) (_ *Member, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	cfg.Directory.Log = cfg.Log
	cfg.Directory.Witness = cfg.OpenControl == nil
	if err := cluster.CheckName(cfg.Name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("the node's directory: %w", err)
	}
	m := &Member{cfg: cfg, clients: map[string]*rpc.Client{}}
	m.running, m.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			_ = m.Close()
		}
	}()
	inc, err := nextIncarnation(cfg.Dir)
	if err != nil {
		return nil, err
	}
	port, err := listen(cfg.Listen, cfg.Advertise)
	if err != nil {
		return nil, err
	}
	m.closers = append(m.closers, port.Close)
	m.self = cluster.Member{Name: cfg.Name, Incarnation: inc, Addr: port.advertise, Version: cfg.Offer.Version, Head: cfg.OpenControl != nil}
	options := rpc.Options{Plain: port.plain, Blob: cfg.Blob, Protocols: cfg.Protocols, Jobs: cfg.Jobs, HTTP: cfg.HTTP, HTTPHosts: hosts(port.advertise, cfg.HTTPHosts), Log: func(format string, args ...any) { cfg.Log.Warn(fmt.Sprintf(format, args...)) }}
	if cfg.OpenControl != nil {
		err = m.openHead(ctx, &options, port)
	} else {
		err = m.openNode(ctx)
	}
	if err != nil {
		return nil, err
	}
	if m.cred.Name() != cfg.Name {
		return nil, fmt.Errorf("%s belongs to node %s, and this is to be node %s: use another directory, or that name", cfg.Dir, m.cred.Name(), cfg.Name)
	}
	if m.guard, err = auth.NewGuard(ctx, m.cred, m.store, nil); err != nil {
		return nil, fmt.Errorf("read what is revoked: %w", err)
	}
	m.closers = append(m.closers, m.guard.Close)
	m.check = access.NewChecker(m.store, access.CheckerOptions{Login: cfg.Login})
	m.closers = append(m.closers, m.check.Close)
	options.Access, options.Denied = m.check, cfg.Denied
	if m.head != nil {
		pin := m.cred.Trust().Pin()
		m.people = &access.People{Store: m.store, Pin: &pin}
	}
	keys, err := m.gossipKeys(ctx)
	if err != nil {
		return nil, err
	}
	if m.gossip, err = gossip.New(m.self, gossip.Options{Keys: keys, Packets: port.udp, Streams: port.streams, Dial: port.dial,
		Probe: cfg.Probe, Log: cfg.Log}); err != nil {
		return nil, err
	}
	m.closers = append(m.closers, m.gossip.Close)
	n := cfg.Offer
	n.Incarnation, n.Addr, n.Head = inc, m.self.Addr, m.self.Head
	if m.dir, err = directory.Join(ctx, m.store, cfg.Name, n, cfg.Directory); err != nil {
		return nil, err
	}
	m.closers = append(m.closers, m.dir.Close)
	// Whoever has read the record and connects waits in the kernel for a moment.
	m.mesh = peer.NewMesh(peer.Config{}, peer.Node{Name: cfg.Name, Incarnation: inc}, peer.NewCarrier(m.guard), sessions{m},
		func(n peer.Node) { m.dir.Heard(n.Name, n.Incarnation) })
	m.closers = append(m.closers, m.mesh.Close)
	options.Guard, options.Session = m.guard, m.mesh.Serve
	if m.server != nil {
		m.server.Serve(options)
		m.closers = append(m.closers, m.server.Quiet)
	} else {
		m.server = rpc.Serve(port.tcp, options)
		m.closers = append(m.closers, m.server.Close)
	}
	m.wg.Go(m.followNodes)
	m.wg.Go(m.keepFresh)
	m.wg.Go(m.followOrders)
	m.wg.Go(m.followKeys)
	if m.head != nil {
		m.wg.Go(func() { m.check.Run(m.running, m.people) })
		m.wg.Go(m.prune)
	}
	return m, nil
}

// openNode opens what another node keeps, or joins, and reaches the control
// state of the heads.
func (m *Member) openNode(ctx context.Context) error {
	heads, err := loadHeads(m.cfg.Dir)
	if err != nil {
		return err
	}
	if m.cfg.Join != "" {
		heads = append([]headAddr{{Addr: m.cfg.Join}}, heads...)
	}
	m.cred, err = auth.Open(m.cfg.Dir)
	switch {
	case errors.Is(err, auth.ErrNotJoined):
		// Where it has joined is kept before anything else: who stops it now can
		// start it again without an address.
		if err = m.join(ctx, func() (*auth.Enrollment, error) { return auth.Enroll(m.cfg.Dir, "", m.cfg.Name) }); err == nil {
			err = keepHeads(m.cfg.Dir, heads)
		}
	case err == nil && m.cred.Expired(time.Now()):
		over := fmt.Errorf("%w: node %s, at %s", auth.ErrExpired, m.cred.Name(), m.cred.Certificate().Leaf.NotAfter.UTC().Format(time.RFC3339))
		if err = m.join(ctx, m.cred.Reenroll); err != nil {
			err = fmt.Errorf("%w: %w", over, err)
		}
	}
	if err != nil {
		return err
	}
	if len(heads) == 0 {
		return fmt.Errorf("no head is known: say where one listens")
	}
	// What is revoked is known only when the heads were reached: until then
	// nothing is, and the connections made so end afterwards.
	none := control.NewMemory(control.MemoryOptions{})
	boot, err := auth.NewGuard(ctx, m.cred, none, nil)
	if err != nil {
		return err
	}
	var clients []*rpc.Client
	for _, h := range heads {
		c, err := rpc.NewClient(boot, h.Name, h.Addr)
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	m.closers = append(m.closers, none.Close, boot.Close)
	m.boot = clients
	m.closers = append(m.closers, m.endBoot)
	if m.cfg.OpenControl != nil {
		return nil // of another head it needs nothing more
	}
	m.remote = rpc.NewControl(clients...)
	m.store = m.remote
	m.closers = append(m.closers, m.remote.Close)
	return nil
}

// endBoot ends the connections that were made before it was known what is
// revoked.
func (m *Member) endBoot() error {
	m.mu.Lock()
	boot := m.boot
	m.boot = nil
	m.mu.Unlock()
	var err error
	for _, c := range boot {
		err = errors.Join(err, c.Close())
	}
	return err
}

// join gets the node a certificate with its token: the first, or another one
// where that is over.
func (m *Member) join(ctx context.Context, enroll func() (*auth.Enrollment, error)) error {
	if m.cfg.Join == "" || m.cfg.Token == "" {
		return fmt.Errorf("%w: give it the address of a head and a token", ErrTokenNeeded)
	}
	token, err := auth.ParseToken(m.cfg.Token)
	if err != nil {
		return err
	}
	e, err := enroll()
	if err != nil {
		return err
	}
	m.cred, err = rpc.Join(ctx, m.cfg.Join, token, e)
	return err
}

// Self is this node, as it tells others.
func (m *Member) Self() cluster.Member { return m.self }

// Cluster is the ID of the cluster.
func (m *Member) Cluster() string { return m.cred.Trust().Cluster() }

// Nodes is what this node knows of all nodes.
func (m *Member) Nodes() *directory.Directory { return m.dir }

// Mesh is the sessions with other nodes.
func (m *Member) Mesh() *peer.Mesh { return m.mesh }

// Store is the control state.
func (m *Member) Store() control.Store { return m.store }

// People are the users of the cluster, and their tokens, on a head.
func (m *Member) People() (*access.People, error) {
	if m.people == nil {
		return nil, &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "see to users and tokens on a head", Node: m.cfg.Name}
	}
	return m.people, nil
}

// Access knows whose a user's token is.
func (m *Member) Access() *access.Checker { return m.check }

// hosts are the names by which the node is called over HTTP: that of its address,
// and more.
func hosts(addr string, more []string) (out []string) {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		out = append(out, strings.ToLower(host))
	}
	for _, h := range more {
		out = append(out, strings.ToLower(h))
	}
	return out
}

// Guard says who may connect.
func (m *Member) Guard() *auth.Guard { return m.guard }

// ErrNoHead says that something is for heads to do.
var ErrNoHead = errors.New("this node is no head")

// NewToken makes a join token, on a head.
func (m *Member) NewToken(ctx context.Context, o auth.TokenOptions) (auth.Token, error) {
	if m.head == nil {
		return auth.Token{}, &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "make tokens on a head", Node: m.cfg.Name}
	}
	return m.head.NewToken(ctx, o)
}

// NewOperator makes the credential of somebody who is to submit jobs, on a head:
// see auth.Registrar.NewOperator.
func (m *Member) NewOperator(ctx context.Context, name string, life time.Duration) ([]byte, error) {
	if m.head == nil {
		return nil, &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "make credentials on a head", Node: m.cfg.Name}
	}
	return m.head.NewOperator(ctx, name, life)
}

// RevokeOperator makes all credentials of an operator worthless, on a head.
func (m *Member) RevokeOperator(ctx context.Context, name string) error {
	if m.head == nil {
		return &wray.Error{Code: wray.CodeDenied, Message: ErrNoHead.Error(), Hint: "revoke credentials on a head", Node: m.cfg.Name}
	}
	err := m.head.RevokeOperator(ctx, name, "it was revoked")
	if errors.Is(err, control.ErrNotFound) {
		return &wray.Error{Code: wray.CodeBadArgument, Message: fmt.Sprintf("there is no operator %q", name)}
	}
	return err
}

// Leave tells the others that the node goes, and closes it.
func (m *Member) Leave(ctx context.Context) error {
	err := m.dir.Leave(ctx)
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return errors.Join(err, m.gossip.Leave(short), m.Close())
}

// Close ends the node's part without a word to others. It is idempotent.
func (m *Member) Close() error {
	var err error
	m.once.Do(func() {
		m.stop()
		m.wg.Wait()
		for i := len(m.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, m.closers[i]())
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range m.clients {
			err = errors.Join(err, c.Close())
		}
	})
	return err
}

// nextIncarnation returns a number larger than all that it returned before for
// this directory: the time, so that it is also larger than those of a directory
// that the node lost, or one more where the clock went back.
func nextIncarnation(dir string) (uint64, error) {
	path := filepath.Join(dir, "incarnation")
	last := uint64(0)
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if last, err = strconv.ParseUint(string(b), 10, 64); err != nil {
			return 0, fmt.Errorf("%s is damaged: %w", path, err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return 0, err
	}
	last = max(last+1, uint64(max(time.Now().UnixMilli(), 0)))
	return last, auth.WriteFile(path, []byte(strconv.FormatUint(last, 10)))
}

// port is the one number at which a node is reached, by TCP and UDP.
type port struct {
	advertise string
	tcp       net.Listener
	udp       net.PacketConn
	streams   *streams
}
