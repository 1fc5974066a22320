package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
)

// JoinName is the server name by which a machine without a certificate asks for
// one, in the handshake.
const JoinName = "join.wray"

// PeopleName is the server name by which a user's program calls, which knows the
// cluster by the hash of its authority's key.
const PeopleName = "people.wray"

// PeopleConfig is for the connection of a user's program to any node of the
// cluster whose authority's key has the hash pin, with an application protocol.
// Nobody else is spoken to, so that nobody else sees a token.
func PeopleConfig(pin [sha256.Size]byte, proto string, now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{proto},
		ServerName:             PeopleName,
		InsecureSkipVerify:     true, // VerifyConnection checks the pin, and the chain below it
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := needsProtocol(s); err != nil {
				return err
			}
			if len(s.PeerCertificates) != 2 {
				return fmt.Errorf("%w: %d certificates came, a node shows its own and the authority's", ErrIdentity, len(s.PeerCertificates))
			}
			authority := s.PeerCertificates[1]
			if h := keyHash(authority); subtle.ConstantTimeCompare(h[:], pin[:]) != 1 {
				return ErrPin
			}
			t, err := NewTrust(authority)
			if err != nil {
				return err
			}
			id, err := t.Verify(s.PeerCertificates[0], now())
			if err == nil && id.Role != RoleNode {
				err = fmt.Errorf("%w: %s answered, which is no node", ErrIdentity, id.URI())
			}
			return err
		},
	}
}

// Guard says who may hold a connection with this node, when it begins and as
// long as it lasts: a connection whose certificate is revoked, or expires, is
// closed.
type Guard struct {
	cred *Credentials
	now  func() time.Time

	mu      sync.Mutex
	revoked map[string]Revocation        // guarded by mu; by serial
	open    map[string]map[*guarded]bool // guarded by mu; by serial

	stop context.CancelFunc
	done chan struct{}
}

// guarded is a connection that was let in.
type guarded struct {
	conn  io.Closer
	timer *time.Timer
}

// NewGuard reads the list of what is revoked and follows it, until Close. It
// fails where the list cannot be read: without it nobody is let in. While the
// control state is away later, the list as it was last is what counts. now nil
// is time.Now.
func NewGuard(ctx context.Context, cred *Credentials, store control.Store, now func() time.Time) (*Guard, error) {
	if now == nil {
		now = time.Now
	}
	g := &Guard{cred: cred, now: now, open: map[string]map[*guarded]bool{}, done: make(chan struct{})}
	following, stop := context.WithCancel(context.Background())
	g.stop = stop
	w, err := g.load(ctx, following, store)
	if err != nil {
		stop()
		return nil, fmt.Errorf("read which certificates are revoked: %w", err)
	}
	go g.follow(following, store, w)
	return g, nil
}

// Close ends what NewGuard began. Connections stay. It may be called more than
// once.
func (g *Guard) Close() error {
	g.stop()
	<-g.done
	return nil
}

// load reads the list, and watches it for as long as following.
func (g *Guard) load(ctx, following context.Context, store control.Store) (control.Watcher, error) {
	prefix, err := revocations(store).Prefix(control.Cluster)
	if err != nil {
		return nil, err
	}
	all := map[string]Revocation{}
	req := control.ListRequest{Prefix: prefix}
	for {
		p, err := store.List(ctx, req)
		if err != nil {
			return nil, err
		}
		req.At = p.Revision
		for _, r := range p.Records {
			e, err := revocations(store).Decode(r)
			if err != nil {
				return nil, err
			}
			all[e.Name] = e.Value
			req.After = r.Key
		}
		if !p.More {
			break
		}
	}
	w, err := store.Watch(following, prefix, req.At+1)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.revoked = all
	g.mu.Unlock()
	for serial := range all {
		g.cut(serial)
	}
	return w, nil
}

func (g *Guard) follow(ctx context.Context, store control.Store, w control.Watcher) {
	defer close(g.done)
	defer func() {
		if w != nil {
			w.Close()
		}
	}()
	for ctx.Err() == nil {
		b, err := w.Next(ctx)
		switch {
		case err == nil:
			for _, e := range b.Events {
				g.apply(store, e)
			}
		case errors.Is(err, control.ErrUnavailable), ctx.Err() != nil:
		case errors.Is(err, control.ErrClosed):
			return
		default: // compacted: read all again
			w.Close()
			for w = nil; w == nil && ctx.Err() == nil; {
				if w, err = g.load(ctx, ctx, store); errors.Is(err, control.ErrClosed) {
					return
				} else if err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
		}
	}
}

func (g *Guard) apply(store control.Store, e control.Event) {
	_, _, serial, err := control.SplitKey(e.Record.Key)
	if err != nil {
		return
	}
	if e.Deleted { // its certificate has expired
		g.mu.Lock()
		delete(g.revoked, serial)
		g.mu.Unlock()
		return
	}
	// A record that does not decode revokes all the same.
	r, err := revocations(store).Decode(e.Record)
	if err != nil {
		r.Value.Why = "its record does not decode"
	}
	g.mu.Lock()
	g.revoked[serial] = r.Value
	g.mu.Unlock()
	g.cut(serial)
}

// cut closes the connections of a certificate.
func (g *Guard) cut(serial string) {
	g.mu.Lock()
	open := g.open[serial]
	delete(g.open, serial)
	g.mu.Unlock()
	for c := range open {
		c.timer.Stop()
		c.conn.Close()
	}
}

// Check says whether an identity may hold a connection now.
func (g *Guard) Check(id Identity) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.checkLocked(id)
}

func (g *Guard) checkLocked(id Identity) error {
	if r, ok := g.revoked[id.Serial]; ok {
		return fmt.Errorf("certificate %s of node %s: %w: %s", id.Serial, id.Name, ErrRevoked, r.Why)
	}
	if !g.now().Before(id.NotAfter) {
		return fmt.Errorf("certificate %s of node %s: %w: it has expired", id.Serial, id.Name, ErrIdentity)
	}
	return nil
}

// Admit notes a connection of a verified identity, which is closed when the
// identity may hold it no longer. The caller calls release when it has ended.
func (g *Guard) Admit(id Identity, conn io.Closer) (release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Under the lock: what is revoked after this finds the connection.
	if err := g.checkLocked(id); err != nil {
		return nil, err
	}
	c := &guarded{conn: conn}
	c.timer = time.AfterFunc(id.NotAfter.Sub(g.now()), func() { conn.Close() })
	if g.open[id.Serial] == nil {
		g.open[id.Serial] = map[*guarded]bool{}
	}
	g.open[id.Serial][c] = true
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		c.timer.Stop()
		if delete(g.open[id.Serial], c); len(g.open[id.Serial]) == 0 {
			delete(g.open, id.Serial)
		}
	}, nil
}

// Identify returns which node is at the other end of a handshake that was made
// with one of this guard's configurations.
func (g *Guard) Identify(s tls.ConnectionState) (Identity, error) {
	return g.identify(s, RoleNode)
}

// IdentifyCaller returns who called, in a handshake that was made with this
// guard's ServerConfig: a node, or an operator.
func (g *Guard) IdentifyCaller(s tls.ConnectionState) (Identity, error) {
	return g.identify(s, RoleNode, RoleOperator)
}

func (g *Guard) identify(s tls.ConnectionState, roles ...Role) (Identity, error) {
	// The first is who it is. Programs that read an operator's file with another
	// library send the authority along, which is trusted as little as before.
	if n := len(s.PeerCertificates); n < 1 || n > 2 {
		return Identity{}, fmt.Errorf("%w: %d certificates came, a node sends 1, an operator 2 at most", ErrIdentity, n)
	}
	id, err := g.cred.trust.Verify(s.PeerCertificates[0], g.now())
	if err != nil {
		return Identity{}, err
	}
	if !slices.Contains(roles, id.Role) {
		return Identity{}, fmt.Errorf("%w: %s does not speak to nodes", ErrIdentity, id.URI())
	}
	return id, g.Check(id)
}

// ServerConfig is for connections from other nodes and from operators, with the
// given application protocols: which of them an operator may speak is for the
// caller to see, by IdentifyCaller. Who comes without a certificate is answered
// where it speaks one of bearers, and is to be known otherwise. With head, which may be nil, machines that join are answered too,
// under JoinName and the protocol joinProto: they have no certificate, so that
// whoever serves that protocol does nothing for them but sign.
func (g *Guard) ServerConfig(protos, bearers []string, head func() (*tls.Certificate, error), joinProto string) *tls.Config {
	members := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// The chain is checked by Identify, by our rules for names.
		ClientAuth: tls.RequestClientCert,
		// A ticket would outlive what Identify saw.
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.cred.Certificate(), nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := needsProtocol(s); err != nil {
				return err
			}
			if len(s.PeerCertificates) == 0 && slices.Contains(bearers, s.NegotiatedProtocol) {
				return nil
			}
			_, err := g.IdentifyCaller(s)
			return err
		},
	}
	// Who knows the authority's hash alone needs the authority to see that.
	shown := members.Clone()
	shown.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := *g.cred.Certificate()
		c.Certificate = append(slices.Clone(c.Certificate), g.cred.trust.authority.Raw)
		return &c, nil
	}
	joining := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{joinProto},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return head() },
		VerifyConnection:       needsProtocol,
	}
	c := members.Clone()
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case h.ServerName == JoinName && head != nil:
			return joining, nil
		case h.ServerName == PeopleName:
			return shown, nil
		}
		return members, nil
	}
	return c
}

func needsProtocol(s tls.ConnectionState) error {
	if s.NegotiatedProtocol == "" {
		return errors.New("the peer names no application protocol")
	}
	return nil
}

// ClientConfig is for a connection to the node of that name, with an application
// protocol.
func (g *Guard) ClientConfig(name, proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		// Names are URIs, which crypto/tls does not compare: verify does, and
		// the chain with them.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return g.cred.Certificate(), nil
		},
		VerifyConnection: func(s tls.ConnectionState) error { return g.verify(s, name) },
	}
}

func (g *Guard) verify(s tls.ConnectionState, name string) error {
	if err := needsProtocol(s); err != nil {
		return err
	}
	id, err := g.Identify(s)
	if err != nil {
		return err
	}
	if name != "" && id.Name != name {
		return fmt.Errorf("%w: node %s answered, %s was called", ErrIdentity, id.Name, name)
	}
	return nil
}

// JoinConfig is for the connection of a machine that has a token and nothing
// else. When the handshake is done, trust has whom it found.
func JoinConfig(t Token, proto string, now func() time.Time, trust func(*Trust)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{proto},
		ServerName:         JoinName,
		InsecureSkipVerify: true, // VerifyHead checks the pin, and the chain below it
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := needsProtocol(s); err != nil {
				return err
			}
			var chain [][]byte
			for _, c := range s.PeerCertificates {
				chain = append(chain, c.Raw)
			}
			found, err := VerifyHead(chain, t.Pin, now())
			if err == nil {
				trust(found)
			}
			return err
		},
	}
}
