// Package auth decides who belongs to a cluster. A certificate authority, made
// when the cluster is, signs a certificate for each node; a join token lets a
// machine ask for its first one; a list in the control state says whose is
// revoked.
//
// An identity is a URI in the certificate, spiffe://CLUSTER/node/NAME, and
// nothing else of it counts: no host name, no address, no subject. The
// incarnation of a node is not in it, since a node that starts again is the same
// node. An authority speaks as spiffe://CLUSTER/head/NAME where it accepts
// tokens, so that no other node can collect them.
//
// [Authority] holds the key that signs, [Registrar] decides what is signed,
// [Credentials] are what a node has, and [Guard] is what it asks about others.
// Time is a parameter everywhere.
package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Sentinels, to match with errors.Is.
var (
	// ErrIdentity says that a certificate is not one of this cluster's, or not
	// of whom it should be.
	ErrIdentity = errors.New("not a valid identity of this cluster")
	// ErrExpired says that a node's certificate has ended: it was away for too
	// long to renew it.
	ErrExpired = errors.New("the node's certificate has expired")
	// ErrRevoked says that the certificate, or the node, was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrToken says that a join token is not valid here: mistyped, of another
	// cluster, withdrawn, or made up. It does not say which.
	ErrToken = errors.New("join token is not valid")
	// ErrTokenExpired says that a join token was valid once.
	ErrTokenExpired = errors.New("join token has expired")
	// ErrTokenUsed says that a join token has no use left.
	ErrTokenUsed = errors.New("join token is used up")
	// ErrPin says that who answered is not the authority that the token names.
	ErrPin = errors.New("not the cluster that the join token is for")
	// ErrRequest says that a signing request asks for what it may not have.
	ErrRequest = errors.New("signing request is refused")
	// ErrNameTaken says that another node has the name.
	ErrNameTaken = errors.New("node name is taken")
)

// Role is what an identity may act as.
type Role string

// The roles. They stand in the URI.
const (
	RoleNode Role = "node" // a member, to other members
	RoleHead Role = "head" // an authority, to a machine that joins
	// RoleOperator is who submits jobs and asks after them, from anywhere. It may
	// do nothing else, and speaks for no node.
	RoleOperator Role = "operator"
)

// MaxName is the most bytes of a node's name.
const MaxName = 63

// Identity is who a certificate says somebody is. Only verified ones are made.
type Identity struct {
	Cluster  string
	Role     Role
	Name     string    // of the node, or the operator
	Serial   string    // of the certificate, in hexadecimal
	NotAfter time.Time // when the certificate ends
}

// URI returns the identity as it stands in a certificate.
func (i Identity) URI() string { return identityURI(i.Cluster, i.Role, i.Name).String() }

// CheckName reports what is wrong with a node's name: it is 1 to 63 letters,
// digits, dots, dashes and underscores, and begins with a letter or digit.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("node name %.70q has %d bytes, it must have 1 to %d", name, len(name), MaxName)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return fmt.Errorf("node name %q has %q at %d; letters and digits are allowed, and after the first dots, dashes and underscores", name, c, i)
		}
	}
	return nil
}

func identityURI(cluster string, role Role, name string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/" + string(role) + "/" + name}
}

// parseURI reads an identity. Only the canonical form is one: what prints as
// something else is refused.
func parseURI(u *url.URL) (cluster string, role Role, name string, err error) {
	s := u.String()
	rest, ok := strings.CutPrefix(s, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return "", "", "", fmt.Errorf("%.200q is no spiffe://CLUSTER/node/NAME", s)
	}
	cluster, role, name = parts[0], Role(parts[1]), parts[2]
	if role != RoleNode && role != RoleHead && role != RoleOperator {
		return "", "", "", fmt.Errorf("%.200q has none of node, head and operator", s)
	}
	if err := checkCluster(cluster); err != nil {
		return "", "", "", err
	}
	if err := CheckName(name); err != nil {
		return "", "", "", err
	}
	return cluster, role, name, nil
}

// checkCluster reports what is wrong with a cluster's ID, which newCluster makes.
func checkCluster(id string) error {
	if len(id) == 0 || len(id) > MaxName {
		return fmt.Errorf("cluster %.70q has %d bytes, it must have 1 to %d", id, len(id), MaxName)
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("cluster %q has %q; lower-case letters, digits and dashes are allowed", id, c)
		}
	}
	return nil
}

// Trust is what a member needs to know another by: the cluster and its
// authority. It is immutable.
type Trust struct {
	cluster   string
	authority *x509.Certificate
	pool      *x509.CertPool
}

// NewTrust returns the trust in an authority, whose certificate says which
// cluster it is of.
func NewTrust(authority *x509.Certificate) (*Trust, error) {
	if !authority.IsCA || len(authority.URIs) != 1 || authority.URIs[0].Scheme != "spiffe" || strings.Trim(authority.URIs[0].Path, "/") != "" {
		return nil, fmt.Errorf("%w: the certificate is no authority's", ErrIdentity)
	}
	cluster := authority.URIs[0].Host
	if err := checkCluster(cluster); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	t := &Trust{cluster: cluster, authority: authority, pool: x509.NewCertPool()}
	t.pool.AddCert(authority)
	return t, nil
}

// Cluster is the ID of the cluster.
func (t *Trust) Cluster() string { return t.cluster }

// Pin is the hash of the authority's key, which a join token carries.
func (t *Trust) Pin() [sha256.Size]byte { return keyHash(t.authority) }

// keyHash is the SHA-256 of a certificate's public key, with its algorithm, as
// it stands in the certificate (SubjectPublicKeyInfo).
func keyHash(c *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(c.RawSubjectPublicKeyInfo)
}

// Verify returns whose certificate leaf is, at a moment. That it was not revoked
// is for the Guard to say.
func (t *Trust) Verify(leaf *x509.Certificate, now time.Time) (Identity, error) {
	id, err := t.verify(leaf, now, "")
	if err != nil {
		return Identity{}, fmt.Errorf("certificate %.40x of cluster %s: %w: %w", leaf.SerialNumber, t.cluster, ErrIdentity, err)
	}
	return id, nil
}

// verify is Verify of a certificate that has this DNS name and no other; none
// where it is empty.
func (t *Trust) verify(leaf *x509.Certificate, now time.Time, dns string) (Identity, error) {
	names := 0
	if dns != "" {
		names = 1
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots:         t.pool,
		Intermediates: x509.NewCertPool(), // none: what a peer sends beside its own is not looked at
		CurrentTime:   now,
		// KeyUsages are alternatives to Verify; that all are there is checked below.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return Identity{}, err
	}
	switch {
	case leaf.IsCA:
		return Identity{}, errors.New("it is an authority's, and no member's")
	case len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses) != names || names > 0 && (len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != dns):
		return Identity{}, errors.New("it has names beside the one of a member")
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return Identity{}, errors.New("it has critical extensions that are unknown")
	}
	cluster, role, name, err := parseURI(leaf.URIs[0])
	if err != nil {
		return Identity{}, err
	}
	if cluster != t.cluster {
		return Identity{}, fmt.Errorf("it is of cluster %s", cluster)
	}
	return Identity{Cluster: cluster, Role: role, Name: name, Serial: serialOf(leaf), NotAfter: leaf.NotAfter}, nil
}

func serialOf(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }
