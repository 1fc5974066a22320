package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/wray-project/wray/host/control"
)

// Kinds of records. All are of the tenant control.Cluster.
const (
	KindToken    = "token"    // a join token, named by its ID
	KindIdentity = "identity" // which certificates a node has, named by the node
	KindRevoked  = "revoked"  // a certificate that is revoked, named by its serial
)

const (
	// MaxTokenUses is the most machines that one token lets in.
	MaxTokenUses = 1000
	// MaxTokenLife is how long a token is valid at most.
	MaxTokenLife = 30 * 24 * time.Hour
	// maxLive is how many certificates of a node are valid at one time: a node
	// that renews faster than they expire is refused.
	maxLive = 16
)

// use is one machine that a token let in: who asks again with the same key, as
// after a reply that was lost, does not use it up.
type use struct {
	Key  []byte `cbor:"1,keyasint"` // SHA-256 of its public key
	Name string `cbor:"2,keyasint"`
}

// tokenRecord is what is kept of a token.
type tokenRecord struct {
	Hash    []byte `cbor:"1,keyasint"` // SHA-256 of the secret
	Max     int    `cbor:"2,keyasint"` // how many machines
	Used    []use  `cbor:"3,keyasint,omitempty"`
	Expires int64  `cbor:"4,keyasint"`           // Unix time in milliseconds
	Name    string `cbor:"5,keyasint,omitempty"` // the only one that it is good for
	Head    bool   `cbor:"6,keyasint,omitempty"` // who is let in may be a head
}

// issued is a certificate that a node was given.
type issued struct {
	Serial   []byte `cbor:"1,keyasint"`
	NotAfter int64  `cbor:"2,keyasint"` // Unix time in seconds
}

// identityRecord is what is known of a node.
type identityRecord struct {
	Live    []issued `cbor:"1,keyasint,omitempty"` // not expired when it was written
	Key     []byte   `cbor:"2,keyasint,omitempty"` // hash of the key of the newest
	Newest  []byte   `cbor:"3,keyasint,omitempty"` // the newest certificate, to answer a repeated request with
	Revoked bool     `cbor:"4,keyasint,omitempty"`
	Head    bool     `cbor:"5,keyasint,omitempty"` // it may be a head
}

// Revocation says why a certificate is not accepted any more.
type Revocation struct {
	Node     string `cbor:"1,keyasint"`
	NotAfter int64  `cbor:"2,keyasint"` // Unix time in seconds; later the record may go
	Why      string `cbor:"3,keyasint,omitempty"`
}

func revocations(s control.Store) control.Table[Revocation] {
	return control.NewTable[Revocation](s, KindRevoked, 1)
}

// Registrar decides what an authority signs. Any number of them, on several
// heads, may share one store: what they decide they commit first, on the
// condition that nobody else did. Every method may be repeated after a reply
// that was lost.
type Registrar struct {
	Authority *Authority
	Store     control.Store
	Now       func() time.Time // nil is time.Now
	Life      time.Duration    // of certificates; zero is DefaultLife
}

func (r *Registrar) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

func (r *Registrar) life() time.Duration {
	if r.Life > 0 {
		return r.Life
	}
	return DefaultLife
}

func (r *Registrar) tokens() control.Table[tokenRecord] {
	return control.NewTable[tokenRecord](r.Store, KindToken, 1)
}

func (r *Registrar) identities() control.Table[identityRecord] {
	return control.NewTable[identityRecord](r.Store, KindIdentity, 1)
}

// Grant is what a node is given.
type Grant struct {
	Certificate []byte // in DER
	Authority   []byte // the authority's, in DER
}

// TokenOptions say what a token is good for.
type TokenOptions struct {
	Uses int           // how many machines; zero is one
	Life time.Duration // zero is an hour
	// Name is the one node that it lets in. Such a token lets a node in again
	// that lost its key, or was revoked; its older certificates are revoked.
	Name string
	// Head lets in nodes that may be heads: they are given the authority itself.
	Head bool
}

// NewToken makes a token. It is shown once: only its hash is kept.
func (r *Registrar) NewToken(ctx context.Context, o TokenOptions) (Token, error) {
	if o.Uses == 0 {
		o.Uses = 1
	}
	if o.Life == 0 {
		o.Life = time.Hour
	}
	if o.Uses < 0 || o.Uses > MaxTokenUses {
		return Token{}, fmt.Errorf("a token for %d machines: it must be for 1 to %d", o.Uses, MaxTokenUses)
	}
	if o.Life < 0 || o.Life > MaxTokenLife {
		return Token{}, fmt.Errorf("a token for %v: it must be for more than nothing and at most %v", o.Life, MaxTokenLife)
	}
	if o.Name != "" {
		if err := CheckName(o.Name); err != nil {
			return Token{}, err
		}
	}
	t := Token{Pin: r.Authority.Pin()}
	if _, err := rand.Read(t.ID[:]); err != nil {
		return Token{}, err
	}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return Token{}, err
	}
	hash := sha256.Sum256(t.Secret[:])
	_, err := r.tokens().Create(ctx, control.Cluster, hex.EncodeToString(t.ID[:]), tokenRecord{
		Hash: hash[:], Max: o.Uses, Expires: r.now().Add(o.Life).UnixMilli(), Name: o.Name, Head: o.Head,
	})
	if err != nil {
		return Token{}, fmt.Errorf("keep the token: %w", err)
	}
	return t, nil
}

// Withdraw makes a token worthless. That there is none is no error.
func (r *Registrar) Withdraw(ctx context.Context, id [8]byte) error {
	for {
		e, err := r.tokens().Get(ctx, control.Cluster, hex.EncodeToString(id[:]))
		if errors.Is(err, control.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.tokens().Delete(ctx, e); !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// Join spends a use of a token and signs a request. Of a token only its ID and
// secret are looked at: the pin was for the machine that joins.
func (r *Registrar) Join(ctx context.Context, token Token, csr []byte) (Grant, error) {
	req, err := parseRequest(csr)
	if err != nil {
		return Grant{}, err
	}
	if req.cluster != "" && req.cluster != r.Authority.cluster {
		return Grant{}, fmt.Errorf("%w: it is for cluster %s, this is %s", ErrRequest, req.cluster, r.Authority.cluster)
	}
	for {
		g, err := r.join(ctx, token, req)
		if !errors.Is(err, control.ErrConflict) {
			return g, err
		}
		// Another head was first, for this token or this name: look again.
		if err := ctx.Err(); err != nil {
			return Grant{}, err
		}
	}
}

func (r *Registrar) join(ctx context.Context, token Token, req request) (Grant, error) {
	now := r.now()
	tok, err := r.tokens().Get(ctx, control.Cluster, hex.EncodeToString(token.ID[:]))
	missing := errors.Is(err, control.ErrNotFound)
	if err != nil && !missing {
		return Grant{}, err
	}
	want := tok.Value.Hash
	if missing {
		want = make([]byte, sha256.Size) // compare all the same
	}
	got := sha256.Sum256(token.Secret[:])
	if subtle.ConstantTimeCompare(got[:], want) != 1 || missing {
		return Grant{}, fmt.Errorf("%w: make one on a head, with wray node token", ErrToken)
	}
	if now.UnixMilli() >= tok.Value.Expires {
		return Grant{}, fmt.Errorf("%w, at %s: make another one on a head", ErrTokenExpired, time.UnixMilli(tok.Value.Expires).UTC().Format(time.RFC3339))
	}
	if tok.Value.Name != "" && tok.Value.Name != req.name {
		return Grant{}, fmt.Errorf("%w: the token is for node %s, and %s asked", ErrToken, tok.Value.Name, req.name)
	}
	id, err := r.identities().Get(ctx, control.Cluster, req.name)
	known := err == nil
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return Grant{}, err
	}
	sameKey := known && !id.Value.Revoked && bytes.Equal(id.Value.Key, req.keyHash[:])
	spent := false
	for _, u := range tok.Value.Used {
		spent = spent || u.Name == req.name && bytes.Equal(u.Key, req.keyHash[:])
	}
	if spent && sameKey {
		if g, ok := r.again(id.Value, now); ok {
			return g, nil
		}
	}
	if !spent && len(tok.Value.Used) >= tok.Value.Max {
		return Grant{}, fmt.Errorf("%w, by %d: make another one on a head", ErrTokenUsed, tok.Value.Max)
	}
	if known && !sameKey && tok.Value.Name != req.name {
		return Grant{}, fmt.Errorf("%w: a node %s joined before; choose another name, or make a token for that name, which replaces it", ErrNameTaken, req.name)
	}
	if spent && !sameKey {
		// The node was revoked, or replaced, since: a use is good for one key once.
		return Grant{}, fmt.Errorf("%w: node %s was revoked after it joined with it: make another one on a head", ErrTokenUsed, req.name)
	}

	txn := control.Txn{If: []control.Cond{control.At(tok.Record.Key, tok.Record.Modified)}}
	if !spent {
		tok.Value.Used = append(tok.Value.Used, use{Key: req.keyHash[:], Name: req.name})
		b, err := r.tokens().Encode(tok.Value)
		if err != nil {
			return Grant{}, err
		}
		txn.Do = append(txn.Do, control.Put(tok.Record.Key, b))
	}
	if !sameKey {
		if err := r.revokeAll(&txn, req.name, id.Value.Live, now, "the node joined anew"); err != nil {
			return Grant{}, err
		}
		id.Value = identityRecord{}
	}
	id.Value.Head = id.Value.Head || tok.Value.Head
	return r.sign(ctx, txn, id, req, now)
}

// Admit signs a request without a token, for the node that has the authority
// itself. The name must be free, or be this key's.
func (r *Registrar) Admit(ctx context.Context, csr []byte) (Grant, error) {
	req, err := parseRequest(csr)
	if err != nil {
		return Grant{}, err
	}
	for {
		now := r.now()
		id, err := r.identities().Get(ctx, control.Cluster, req.name)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return Grant{}, err
		}
		if err == nil {
			if id.Value.Revoked {
				return Grant{}, fmt.Errorf("node %s: %w", req.name, ErrRevoked)
			}
			if !bytes.Equal(id.Value.Key, req.keyHash[:]) {
				return Grant{}, fmt.Errorf("%w: a node %s is there, with another key", ErrNameTaken, req.name)
			}
			if g, ok := r.again(id.Value, now); ok {
				return g, nil
			}
		}
		id.Value.Head = true
		g, err := r.sign(ctx, control.Txn{}, id, req, now)
		if !errors.Is(err, control.ErrConflict) {
			return g, err
		}
		if err := ctx.Err(); err != nil {
			return Grant{}, err
		}
	}
}

// Renew signs a request of a node, for itself alone: who asks was verified by
// the connection it came over.
func (r *Registrar) Renew(ctx context.Context, who Identity, csr []byte) (Grant, error) {
	req, err := parseRequest(csr)
	if err != nil {
		return Grant{}, err
	}
	if who.Role != RoleNode || who.Cluster != r.Authority.cluster || req.cluster != who.Cluster || req.name != who.Name {
		return Grant{}, fmt.Errorf("%w: %s asks for spiffe://%s/node/%s", ErrRequest, who.URI(), req.cluster, req.name)
	}
	serial, err := hex.DecodeString(who.Serial)
	if err != nil {
		return Grant{}, fmt.Errorf("%w: serial %q", ErrIdentity, who.Serial)
	}
	for {
		now := r.now()
		id, err := r.identities().Get(ctx, control.Cluster, req.name)
		if errors.Is(err, control.ErrNotFound) {
			return Grant{}, fmt.Errorf("node %s: %w: it is not known here", req.name, ErrRevoked)
		}
		if err != nil {
			return Grant{}, err
		}
		has := false
		for _, l := range id.Value.Live {
			has = has || bytes.Equal(l.Serial, serial)
		}
		if id.Value.Revoked || !has {
			return Grant{}, fmt.Errorf("node %s: %w; join again, with a token for that name", req.name, ErrRevoked)
		}
		if bytes.Equal(id.Value.Key, req.keyHash[:]) {
			if g, ok := r.again(id.Value, now); ok {
				return g, nil
			}
		}
		g, err := r.sign(ctx, control.Txn{}, id, req, now)
		if !errors.Is(err, control.ErrConflict) {
			return g, err
		}
		if err := ctx.Err(); err != nil {
			return Grant{}, err
		}
	}
}

// again returns the newest certificate of a node, if it has most of its life yet.
func (r *Registrar) again(id identityRecord, now time.Time) (Grant, bool) {
	c, err := x509.ParseCertificate(id.Newest)
	if err != nil || c.NotAfter.Sub(now) < r.life()*2/3 {
		return Grant{}, false
	}
	return Grant{Certificate: c.Raw, Authority: r.Authority.authority.Raw}, true
}

// sign makes a certificate and commits, with txn, that it was made, before
// anybody has it: whoever revokes the node finds it.
func (r *Registrar) sign(ctx context.Context, txn control.Txn, id control.Entry[identityRecord], req request, now time.Time) (Grant, error) {
	cert, err := r.Authority.issue(RoleNode, req.name, req.key, now, r.life())
	if err != nil {
		return Grant{}, err
	}
	var live []issued
	for _, l := range id.Value.Live {
		if l.NotAfter >= now.Unix() {
			live = append(live, l)
		}
	}
	if len(live) >= maxLive {
		return Grant{}, fmt.Errorf("%w: node %s has %d valid certificates; it may have another one when the first expires", ErrRequest, req.name, len(live))
	}
	b, err := r.identities().Encode(identityRecord{
		Live:   append(live, issued{Serial: cert.SerialNumber.Bytes(), NotAfter: cert.NotAfter.Unix()}),
		Key:    req.keyHash[:],
		Newest: cert.Raw,
		Head:   id.Value.Head,
	})
	if err != nil {
		return Grant{}, err
	}
	key, err := control.Key(KindIdentity, control.Cluster, req.name)
	if err != nil {
		return Grant{}, err
	}
	cond := control.Absent(key)
	if id.Record.Modified != 0 {
		cond = control.At(key, id.Record.Modified)
	}
	txn.If = append(txn.If, cond)
	txn.Do = append(txn.Do, control.Put(key, b))
	if _, err := r.Store.Commit(ctx, txn); err != nil {
		return Grant{}, fmt.Errorf("note the certificate of node %s: %w", req.name, err)
	}
	return Grant{Certificate: cert.Raw, Authority: r.Authority.authority.Raw}, nil
}

// revokeAll adds to txn the revocation of all certificates of a node, or of an
// operator, that are valid yet.
func (r *Registrar) revokeAll(txn *control.Txn, name string, live []issued, now time.Time, why string) error {
	for _, l := range live {
		if l.NotAfter+int64(skew/time.Second) < now.Unix() {
			continue
		}
		key, err := control.Key(KindRevoked, control.Cluster, hex.EncodeToString(l.Serial))
		if err != nil {
			return err
		}
		b, err := revocations(r.Store).Encode(Revocation{Node: name, NotAfter: l.NotAfter, Why: why})
		if err != nil {
			return err
		}
		txn.Do = append(txn.Do, control.Put(key, b))
	}
	return nil
}

// Revoke puts all certificates of a node on the list, and gives it no other. It
// may join again with a token for its name.
func (r *Registrar) Revoke(ctx context.Context, name, why string) error {
	for {
		id, err := r.identities().Get(ctx, control.Cluster, name)
		if err != nil {
			return fmt.Errorf("revoke node %s: %w", name, err)
		}
		if id.Value.Revoked {
			return nil
		}
		txn := control.Txn{If: []control.Cond{control.At(id.Record.Key, id.Record.Modified)}}
		if err := r.revokeAll(&txn, name, id.Value.Live, r.now(), why); err != nil {
			return err
		}
		id.Value = identityRecord{Revoked: true}
		b, err := r.identities().Encode(id.Value)
		if err != nil {
			return err
		}
		txn.Do = append(txn.Do, control.Put(id.Record.Key, b))
		if _, err = r.Store.Commit(ctx, txn); !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// Prune removes revocations of certificates that have expired, and tokens that
// have. Somebody calls it now and then.
func (r *Registrar) Prune(ctx context.Context) error {
	now := r.now()
	for e, err := range revocations(r.Store).All(ctx, control.Cluster) {
		if err != nil {
			return err
		}
		if time.Unix(e.Value.NotAfter, 0).Add(skew).Before(now) {
			if err := revocations(r.Store).Delete(ctx, e); err != nil && !errors.Is(err, control.ErrConflict) {
				return err
			}
		}
	}
	for e, err := range r.tokens().All(ctx, control.Cluster) {
		if err != nil {
			return err
		}
		if now.UnixMilli() >= e.Value.Expires {
			if err := r.tokens().Delete(ctx, e); err != nil && !errors.Is(err, control.ErrConflict) {
				return err
			}
		}
	}
	return nil
}
