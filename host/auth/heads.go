package auth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/wray-project/wray/host/control"
)

// HeadsName is the server name by which a head calls another for the control
// state that they keep together, in the handshake. It stands in the certificates
// that heads show each other there, which no member accepts for anything else.
const HeadsName = "heads.wray"

// HeadsFile has a head's key and certificate for other heads.
const HeadsFile = "heads.pem"

// ErrNotHead says that a node may not be a head: no token for heads let it in.
var ErrNotHead = errors.New("this node may not be a head")

// MayHead reports whether a node was let in as a head: ErrNotHead where it was
// not, or its certificate is not of those that it has.
func (r *Registrar) MayHead(ctx context.Context, who Identity) error {
	id, err := r.identities().Get(ctx, control.Cluster, who.Name)
	if errors.Is(err, control.ErrNotFound) {
		return fmt.Errorf("node %s: %w", who.Name, ErrNotHead)
	}
	if err != nil {
		return err
	}
	serial, err := hex.DecodeString(who.Serial)
	if err != nil {
		return fmt.Errorf("%w: serial %q", ErrIdentity, who.Serial)
	}
	has := false
	for _, l := range id.Value.Live {
		has = has || bytes.Equal(l.Serial, serial)
	}
	if !id.Value.Head || id.Value.Revoked || !has {
		return fmt.Errorf("node %s: %w; make a token for heads, with wray node token --head", who.Name, ErrNotHead)
	}
	return nil
}

// IsHead reports whether the node of that name was let in as a head.
func (r *Registrar) IsHead(ctx context.Context, name string) (bool, error) {
	id, err := r.identities().Get(ctx, control.Cluster, name)
	if errors.Is(err, control.ErrNotFound) {
		return false, nil
	}
	return id.Value.Head && !id.Value.Revoked, err
}

// Dismiss takes from a node that it may be a head. Its certificate stays.
func (r *Registrar) Dismiss(ctx context.Context, name string) error {
	_, err := r.identities().Modify(ctx, control.Cluster, name, func(v *identityRecord) error {
		v.Head = false
		return nil
	})
	if errors.Is(err, control.ErrNotFound) {
		return nil
	}
	return err
}

// ErrLastHead says that no other head would be left.
var ErrLastHead = errors.New("no other head would be left")

// DismissBeside is Dismiss of a head that goes, while one of others may be a head:
// of two that go at the same time, one does, and the other gets ErrLastHead.
func (r *Registrar) DismissBeside(ctx context.Context, name string, others []string) error {
	table := r.identities()
	for {
		own, err := table.Get(ctx, control.Cluster, name)
		if errors.Is(err, control.ErrNotFound) || err == nil && !own.Value.Head {
			return nil
		}
		if err != nil {
			return err
		}
		var other control.Entry[identityRecord]
		for _, o := range others {
			e, err := table.Get(ctx, control.Cluster, o)
			if err != nil && !errors.Is(err, control.ErrNotFound) {
				return err
			}
			if err == nil && e.Value.Head && !e.Value.Revoked && o != name {
				other = e
			}
		}
		if other.Name == "" {
			return ErrLastHead
		}
		own.Value.Head = false
		b, err := table.Encode(own.Value)
		if err != nil {
			return err
		}
		_, err = r.Store.Commit(ctx, control.Txn{
			If: []control.Cond{control.At(own.Record.Key, own.Record.Modified), control.At(other.Record.Key, other.Record.Modified)},
			Do: []control.Op{control.Put(own.Record.Key, b)}})
		if !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// Export returns the authority with its key, in PEM, for another head: it is
// the cluster's most valuable secret.
func (a *Authority) Export() ([]byte, error) { return encodePEM(a.key, a.authority) }

// ImportAuthority keeps what Export of another head returned, readable by this
// user alone. It must be the authority that t trusts. One that is there already
// must be the same.
func ImportAuthority(dir string, b []byte, t *Trust) (*Authority, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: an authority of %d bytes", ErrIdentity, len(b))
	}
	key, cert, err := decodePEM(b)
	if err != nil || key == nil || cert == nil {
		return nil, fmt.Errorf("%w: what the other head sent is no authority: %w", ErrIdentity, err)
	}
	if !cert.Equal(t.authority) {
		return nil, fmt.Errorf("%w: the other head sent the authority of another cluster", ErrPin)
	}
	a, err := newAuthority(cert.Raw, key)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, AuthorityFile)
	if err := writeFile(path, b, true); errors.Is(err, fs.ErrExist) {
		old, err := loadAuthority(path)
		if err != nil {
			return nil, err
		}
		if !old.authority.Equal(cert) {
			return nil, fmt.Errorf("%s is of another cluster: take it away, or use another directory", path)
		}
	} else if err != nil {
		return nil, fmt.Errorf("keep the cluster's authority: %w", err)
	}
	return a, nil
}

// HasAuthority reports whether a directory has an authority.
func HasAuthority(dir string) (bool, error) {
	_, err := loadAuthority(filepath.Join(dir, AuthorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// HeadKeys are the certificates that a head shows other heads, of its own
// making: it has the authority. They are in a file too, for who reads them from
// there for each connection.
type HeadKeys struct {
	authority *Authority
	name      string
	path      string
	now       func() time.Time

	mu   sync.Mutex
	last *tls.Certificate // guarded by mu
}

// HeadKeys makes the first, and its file in dir; that of the authority's
// certificate is there too, then. now nil is time.Now.
func (a *Authority) HeadKeys(dir, name string, now func() time.Time) (*HeadKeys, error) {
	if now == nil {
		now = time.Now
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ca, err := encodePEM(nil, a.authority)
	if err == nil {
		err = writeFile(filepath.Join(dir, ClusterFile), ca, false)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the authority's certificate: %w", err)
	}
	k := &HeadKeys{authority: a, name: name, path: filepath.Join(dir, HeadsFile), now: now}
	_, err = k.Certificate()
	return k, err
}

// File is where the newest key and certificate are.
func (k *HeadKeys) File() string { return k.path }

// Certificate returns the newest, which is made when the one before is half way
// through its life: whoever reads the file alone calls it now and then.
func (k *HeadKeys) Certificate() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if k.last != nil && now.Before(k.last.Leaf.NotAfter.Add(-DefaultLife/2)) {
		return k.last, nil
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := k.authority.issue(RoleHead, k.name, key.Public(), now, DefaultLife, HeadsName)
	if err != nil {
		return nil, err
	}
	b, err := encodePEM(key, leaf)
	if err != nil {
		return nil, err
	}
	if err := writeFile(k.path, b, false); err != nil {
		return nil, fmt.Errorf("keep the certificate for other heads: %w", err)
	}
	k.last = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	return k.last, nil
}

// ServerConfig is for connections of other heads, under HeadsName. Who has such
// a certificate has the authority: no list can revoke it. Whether it is one of
// those who keep the control state is for that to say.
func (k *HeadKeys) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.Certificate() },
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) != 1 {
				return fmt.Errorf("%w: %d certificates came, a head sends 1", ErrIdentity, len(s.PeerCertificates))
			}
			_, err := k.authority.VerifyOfHeads(s.PeerCertificates[0], k.now())
			return err
		},
	}
}

// VerifyOfHeads returns whose certificate leaf is, of those that heads show each
// other.
func (t *Trust) VerifyOfHeads(leaf *x509.Certificate, now time.Time) (Identity, error) {
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != HeadsName {
		return Identity{}, fmt.Errorf("certificate %.40x: %w: it is not one for heads among themselves", leaf.SerialNumber, ErrIdentity)
	}
	id, err := t.verify(leaf, now, HeadsName)
	if err == nil && id.Role != RoleHead {
		err = fmt.Errorf("it is %s", id.URI())
	}
	if err != nil {
		return Identity{}, fmt.Errorf("certificate %.40x of cluster %s: %w: %w", leaf.SerialNumber, t.cluster, ErrIdentity, err)
	}
	return id, nil
}
