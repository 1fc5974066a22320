package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultLife is how long a node's certificate is valid. A node renews it
	// at half of that.
	DefaultLife = 24 * time.Hour
	// authorityLife is how long an authority is. Its key is replaced by making
	// a new cluster.
	authorityLife = 20 * 365 * 24 * time.Hour
	// skew is how far the clocks of two nodes may be apart: certificates begin
	// this long before they are made.
	skew = 2 * time.Minute
)

// base32Lower is what identifiers are written in.
var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Authority signs the certificates of a cluster. It is immutable.
type Authority struct {
	*Trust
	key crypto.Signer
}

// NewAuthority makes a cluster: an ID of its own, and a key. Nothing is kept;
// see [OpenAuthority].
func NewAuthority(now time.Time) (*Authority, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	var id [10]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	cluster := "wray-" + base32Lower.EncodeToString(id[:])
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: cluster},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: cluster}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            0,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		// Whoever trusts this authority for more than wray gets no more than
		// names of its cluster from it.
		PermittedURIDomains:         []string{cluster},
		PermittedDNSDomainsCritical: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	return newAuthority(der, key)
}

func newAuthority(der []byte, key crypto.Signer) (*Authority, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, errors.New("the authority's key is not the one of its certificate: one of the two was exchanged; put back the file that belongs there")
	}
	t, err := NewTrust(cert)
	if err != nil {
		return nil, err
	}
	return &Authority{Trust: t, key: key}, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// newSerial returns 126 random bits: no two certificates have the same, and
// none can be guessed.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil // always 16 bytes long
}

// request is what a signing request asks for, checked.
type request struct {
	cluster string // empty where the request leaves it to the authority
	name    string
	key     crypto.PublicKey
	keyHash [sha256.Size]byte
}

// joinHost is the cluster in the requests of machines that do not know it yet.
const joinHost = "join"

// NewRequest returns a signing request, in DER, for a node's name. cluster is
// empty where it is not known yet.
func NewRequest(key crypto.Signer, cluster, name string) ([]byte, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if cluster == "" {
		cluster = joinHost
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		URIs: []*url.URL{identityURI(cluster, RoleNode, name)},
	}, key)
}

// maxRequest bounds a signing request, in bytes, before it is decoded.
const maxRequest = 4 << 10

// RequestName is the name of the node that asks with a request for a certificate;
// empty where it is none. Nothing says that the name is its.
func RequestName(der []byte) string {
	r, err := readRequest(der)
	if err != nil {
		return ""
	}
	return r.name
}

// parseRequest reads a signing request. One that asks for more than a name is
// refused rather than trimmed: an honest node does not send it.
func parseRequest(der []byte) (request, error) {
	r, err := readRequest(der)
	if err != nil {
		return request{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return r, nil
}

func readRequest(der []byte) (request, error) {
	if len(der) > maxRequest {
		return request{}, fmt.Errorf("it has %d bytes, at most %d", len(der), maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return request{}, err
	}
	if err := csr.CheckSignature(); err != nil {
		return request{}, fmt.Errorf("it is not signed with its own key: %w", err)
	}
	switch k := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return request{}, fmt.Errorf("its key is on %s; ed25519 and P-256 are accepted", k.Curve.Params().Name)
		}
	default:
		return request{}, fmt.Errorf("its key is a %T; ed25519 and P-256 are accepted", k)
	}
	// The names in it are one URI, and every other extension is too many.
	if len(csr.URIs) != 1 || len(csr.DNSNames)+len(csr.EmailAddresses)+len(csr.IPAddresses) > 0 || len(csr.Extensions) != 1 {
		return request{}, errors.New("it asks for other names than one node's, or for other extensions")
	}
	if len(csr.Subject.Names) > 0 {
		return request{}, errors.New("it asks for a subject")
	}
	cluster, role, name, err := parseURI(csr.URIs[0])
	if err != nil {
		return request{}, err
	}
	if role != RoleNode {
		return request{}, fmt.Errorf("it asks to be a %s", role)
	}
	if cluster == joinHost {
		cluster = ""
	}
	return request{cluster: cluster, name: name, key: csr.PublicKey, keyHash: sha256.Sum256(csr.RawSubjectPublicKeyInfo)}, nil
}

// issue signs a certificate. That the caller may have it was decided before.
func (a *Authority) issue(role Role, name string, key crypto.PublicKey, now time.Time, life time.Duration, dns ...string) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	uses := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if role == RoleOperator {
		uses = uses[1:] // nobody calls one, whatever he verifies
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		URIs:                  []*url.URL{identityURI(a.cluster, role, name)},
		DNSNames:              dns,
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           uses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.authority, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s %s: %w", role, name, err)
	}
	return x509.ParseCertificate(der)
}

// HeadCertificate returns a certificate with which this authority speaks to
// machines that join, valid for DefaultLife, and followed by the authority's
// own, which they pin.
func (a *Authority) HeadCertificate(name string, now time.Time) (*tls.Certificate, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := a.issue(RoleHead, name, key.Public(), now, DefaultLife)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.authority.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// HeadCertificates returns a function that gives a head's certificate, and makes
// a new one when the last is half way through its life.
func (a *Authority) HeadCertificates(name string, now func() time.Time) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var last *tls.Certificate // guarded by mu
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if last != nil && now().Before(last.Leaf.NotAfter.Add(-DefaultLife/2)) {
			return last, nil
		}
		c, err := a.HeadCertificate(name, now())
		if err == nil {
			last = c
		}
		return c, err
	}
}

// VerifyHead checks who answered a machine that joins: chain is what it sent,
// in DER, pin from the token. It returns the trust in the authority that was
// pinned. Nothing is taken on first use: without the pin there is no trust.
func VerifyHead(chain [][]byte, pin [sha256.Size]byte, now time.Time) (*Trust, error) {
	if len(chain) != 2 {
		return nil, fmt.Errorf("%w: it sent %d certificates, an authority sends 2; ask an address of a head", ErrPin, len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPin, err)
	}
	authority, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPin, err)
	}
	if h := keyHash(authority); !bytes.Equal(h[:], pin[:]) {
		return nil, fmt.Errorf("%w: its key is %.8x…, the token says %.8x…; somebody else answers at that address, or the token is of another cluster", ErrPin, h, pin)
	}
	t, err := NewTrust(authority)
	if err != nil {
		return nil, err
	}
	id, err := t.Verify(leaf, now)
	if err != nil {
		return nil, err
	}
	if id.Role != RoleHead {
		return nil, fmt.Errorf("%w: node %s answered, which is no head and must not see a token", ErrIdentity, id.Name)
	}
	return t, nil
}

// Token lets a machine ask for its first certificate. What is printed of it is a
// secret; what is kept is its hash.
type Token struct {
	ID     [8]byte           // names the record, no secret
	Secret [20]byte          // 160 random bits
	Pin    [sha256.Size]byte // the hash of the authority's key
}

const tokenPrefix = "wray1"

// String hides the secret, so that a log does not have it. See [Token.Reveal].
func (t Token) String() string { return fmt.Sprintf("%s-%x-(secret)", tokenPrefix, t.ID) }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Reveal returns the printed form, for the person who carries it: version, and
// in base 32 the ID, the secret, the pin and a checksum against typing errors.
func (t Token) Reveal() string {
	b := append(append(append([]byte(nil), t.ID[:]...), t.Secret[:]...), t.Pin[:]...)
	sum := sha256.Sum256(append([]byte(tokenPrefix), b...))
	return tokenPrefix + base32Lower.EncodeToString(append(b, sum[:5]...))
}

// ParseToken reads the printed form.
func ParseToken(s string) (Token, error) {
	var t Token
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return t, fmt.Errorf("%w: it does not begin with %s; copy it whole, from where it was printed", ErrToken, tokenPrefix)
	}
	want := len(t.ID) + len(t.Secret) + len(t.Pin) + 5
	if len(rest) != base32Lower.EncodedLen(want) {
		return t, fmt.Errorf("%w: it has %d characters, %d are expected; copy it whole, from where it was printed", ErrToken, len(rest), base32Lower.EncodedLen(want))
	}
	b, err := base32Lower.DecodeString(rest)
	if err != nil {
		return t, fmt.Errorf("%w: it has characters that no token has", ErrToken)
	}
	body := b[:len(b)-5]
	sum := sha256.Sum256(append([]byte(tokenPrefix), body...))
	if !bytes.Equal(sum[:5], b[len(b)-5:]) {
		return t, fmt.Errorf("%w: its checksum does not fit; it was mistyped", ErrToken)
	}
	n := copy(t.ID[:], body)
	n += copy(t.Secret[:], body[n:])
	copy(t.Pin[:], body[n:])
	return t, nil
}
