package auth

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotJoined says that the directory has no certificate yet.
var ErrNotJoined = errors.New("this node has not joined a cluster")

// Credentials are a node's key and certificate, and its trust in its cluster.
// They change when they are renewed: whoever uses them asks each time.
type Credentials struct {
	dir   string
	name  string
	trust *Trust

	current atomic.Pointer[tls.Certificate]
	renew   sync.Mutex    // held by whoever renews
	next    crypto.Signer // guarded by renew; the key of a request whose reply may be lost
}

// Enrollment is a node's first certificate, on the way.
type Enrollment struct {
	Request []byte // in DER, to send
	dir     string
	name    string
	key     crypto.Signer
}

// Enroll begins to join: it makes a key, or takes the one of an earlier try, so
// that a use of the token which was spent before the reply was lost is not lost.
// cluster is empty where it is not known.
func Enroll(dir, cluster, name string) (*Enrollment, error) {
	path := filepath.Join(dir, NodeFile)
	key, cert, err := readPEM(path, true)
	if cert != nil {
		return nil, fmt.Errorf("%s: this node is in a cluster already; take the file away to join anew", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, key, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, err
		}
		var b []byte
		if b, err = encodePEM(key, nil); err == nil {
			err = writeFile(path, b, true)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key of node %s: %w", name, err)
	}
	csr, err := NewRequest(key, cluster, name)
	if err != nil {
		return nil, err
	}
	return &Enrollment{Request: csr, dir: dir, name: name, key: key}, nil
}

// Expired reports whether the certificate of now is over.
func (c *Credentials) Expired(now time.Time) bool {
	return !now.Before(c.current.Load().Leaf.NotAfter)
}

// Reenroll begins to join again, with the key of a certificate that is over.
func (c *Credentials) Reenroll() (*Enrollment, error) {
	key, ok := c.current.Load().PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("BUG: the key of node %s is a %T", c.name, c.current.Load().PrivateKey)
	}
	csr, err := NewRequest(key, c.trust.cluster, c.name)
	if err != nil {
		return nil, err
	}
	return &Enrollment{Request: csr, dir: c.dir, name: c.name, key: key}, nil
}

// Finish checks what the authority gave and keeps it. t is whom the connection
// was made to, see [VerifyHead].
func (e *Enrollment) Finish(g Grant, t *Trust, now time.Time) (*Credentials, error) {
	cert, err := checkGrant(g, t, e.name, e.key, now)
	if err != nil {
		return nil, err
	}
	ca, err := encodePEM(nil, t.authority)
	if err != nil {
		return nil, err
	}
	// In this order: with a certificate in the node's file both are there.
	if err := writeFile(filepath.Join(e.dir, ClusterFile), ca, false); err != nil {
		return nil, err
	}
	c := &Credentials{dir: e.dir, name: e.name, trust: t}
	if err := c.keep(e.key, cert); err != nil {
		return nil, err
	}
	return c, nil
}

// checkGrant holds that a grant is what was asked for: a signer that is wrong,
// or lies, must not give a node another's name.
func checkGrant(g Grant, t *Trust, name string, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(g.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, fmt.Errorf("%w: the certificate is for another key", ErrIdentity)
	}
	id, err := t.Verify(cert, now)
	if err != nil {
		return nil, err
	}
	if id.Role != RoleNode || id.Name != name {
		return nil, fmt.Errorf("%w: the certificate is for %s, node %s asked", ErrIdentity, id.URI(), name)
	}
	return cert, nil
}

func (c *Credentials) keep(key crypto.Signer, cert *x509.Certificate) error {
	b, err := encodePEM(key, cert)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.dir, NodeFile), b, false); err != nil {
		return fmt.Errorf("keep the certificate of node %s: %w", c.name, err)
	}
	c.current.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
	return nil
}

// Open reads a node's credentials from its directory, or returns ErrNotJoined.
// That the certificate has expired is for others to refuse, and for the caller
// to see in RenewAt.
func Open(dir string) (*Credentials, error) {
	key, cert, err := readPEM(filepath.Join(dir, NodeFile), true)
	if errors.Is(err, fs.ErrNotExist) || err == nil && cert == nil {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotJoined)
	}
	if err != nil {
		return nil, err
	}
	_, ca, err := readPEM(filepath.Join(dir, ClusterFile), false)
	if err != nil {
		return nil, err
	}
	if ca == nil {
		return nil, fmt.Errorf("%s has no certificate: put back the file that was there", filepath.Join(dir, ClusterFile))
	}
	t, err := NewTrust(ca)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ClusterFile), err)
	}
	// At a moment at which it was valid: an expired one is no exchanged one.
	id, err := t.Verify(cert, cert.NotBefore.Add(time.Second))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, NodeFile), err)
	}
	if id.Role != RoleNode {
		return nil, fmt.Errorf("%s: %w: it is %s", filepath.Join(dir, NodeFile), ErrIdentity, id.URI())
	}
	c := &Credentials{dir: dir, name: id.Name, trust: t}
	c.current.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
	return c, nil
}

// Name is the node's.
func (c *Credentials) Name() string { return c.name }

// Trust is the node's cluster.
func (c *Credentials) Trust() *Trust { return c.trust }

// Certificate is the one to present now.
func (c *Credentials) Certificate() *tls.Certificate { return c.current.Load() }

// RenewAt is when the certificate is to be renewed: at half of its life.
func (c *Credentials) RenewAt() time.Time {
	leaf := c.current.Load().Leaf
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 2)
}

// Renew has a request signed by ask, with a new key, and takes what comes into
// use, on disk first. The request is the same again after an error, since the
// reply may have been lost.
func (c *Credentials) Renew(ctx context.Context, now time.Time, ask func(ctx context.Context, csr []byte) (Grant, error)) error {
	c.renew.Lock()
	defer c.renew.Unlock()
	if c.next == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		c.next = key
	}
	csr, err := NewRequest(c.next, c.trust.cluster, c.name)
	if err != nil {
		return err
	}
	g, err := ask(ctx, csr)
	if err != nil {
		return fmt.Errorf("renew the certificate of node %s, valid until %s: %w", c.name, c.current.Load().Leaf.NotAfter.UTC().Format(time.RFC3339), err)
	}
	cert, err := checkGrant(g, c.trust, c.name, c.next, now)
	if err != nil {
		return err
	}
	if err := c.keep(c.next, cert); err != nil {
		return err
	}
	c.next = nil
	return nil
}

// KeepFresh renews the certificate whenever it is half way through its life,
// until ctx ends. Where that fails it is tried again each hundredth of its life,
// so that before two thirds of it are over there were 16 tries, and failed is
// told.
func (c *Credentials) KeepFresh(ctx context.Context, ask func(ctx context.Context, csr []byte) (Grant, error), failed func(error)) {
	for {
		wait := time.Until(c.RenewAt())
		leaf := c.current.Load().Leaf
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			try, cancel := context.WithTimeout(ctx, time.Minute)
			err := c.Renew(try, time.Now(), ask)
			cancel()
			if err == nil {
				break
			}
			failed(err)
			wait = leaf.NotAfter.Sub(leaf.NotBefore) / 100
		}
		if ctx.Err() != nil {
			return
		}
	}
}
