package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/wray-project/wray/host/control"
)

// KindOperator are the records of which certificates an operator has, named by
// the operator.
const KindOperator = "operator"

const (
	// DefaultOperatorLife is how long an operator's certificate is valid. It is
	// not renewed: another is made.
	DefaultOperatorLife = 30 * 24 * time.Hour
	// MaxOperatorLife is how long it is valid at most.
	MaxOperatorLife = 366 * 24 * time.Hour
)

// operatorRecord is what is known of an operator.
type operatorRecord struct {
	Live []issued `cbor:"1,keyasint,omitempty"` // not expired when it was written
}

func (r *Registrar) operators() control.Table[operatorRecord] {
	return control.NewTable[operatorRecord](r.Store, KindOperator, 1)
}

// NewOperator makes a key and a certificate for who is to submit jobs, and
// returns both and the authority's certificate in PEM. It is shown once: the key
// is kept nowhere. life zero is DefaultOperatorLife.
func (r *Registrar) NewOperator(ctx context.Context, name string, life time.Duration) ([]byte, error) {
	if life == 0 {
		life = DefaultOperatorLife
	}
	if life < 0 || life > MaxOperatorLife {
		return nil, fmt.Errorf("a credential for %v: it must be for more than nothing and at most %v", life, MaxOperatorLife)
	}
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	now := r.now()
	cert, err := r.Authority.issue(RoleOperator, name, key.Public(), now, life)
	if err != nil {
		return nil, err
	}
	// What is not on record is not given: whoever revokes the operator finds it.
	for {
		e, err := r.operators().Get(ctx, control.Cluster, name)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return nil, err
		}
		missing := err != nil
		e.Value.Live = slices.DeleteFunc(e.Value.Live, func(l issued) bool { return l.NotAfter < now.Unix() })
		if len(e.Value.Live) >= maxLive {
			return nil, fmt.Errorf("%w: operator %s has %d valid credentials; revoke them, or take another name", ErrRequest, name, len(e.Value.Live))
		}
		e.Value.Live = append(e.Value.Live, issued{Serial: cert.SerialNumber.Bytes(), NotAfter: cert.NotAfter.Unix()})
		if missing {
			_, err = r.operators().Create(ctx, control.Cluster, name, e.Value)
		} else {
			_, err = r.operators().Update(ctx, e)
		}
		if errors.Is(err, control.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("note the credential of operator %s: %w", name, err)
		}
		break
	}
	b, err := encodePEM(key, cert)
	if err != nil {
		return nil, err
	}
	ca, err := encodePEM(nil, r.Authority.authority)
	return append(b, ca...), err
}

// RevokeOperator puts all certificates of an operator on the list: open
// connections end.
func (r *Registrar) RevokeOperator(ctx context.Context, name, why string) error {
	for {
		e, err := r.operators().Get(ctx, control.Cluster, name)
		if err != nil {
			return fmt.Errorf("revoke operator %s: %w", name, err)
		}
		txn := control.Txn{If: []control.Cond{control.At(e.Record.Key, e.Record.Modified)}, Do: []control.Op{control.Delete(e.Record.Key)}}
		if err := r.revokeAll(&txn, name, e.Value.Live, r.now(), why); err != nil {
			return err
		}
		if _, err = r.Store.Commit(ctx, txn); !errors.Is(err, control.ErrConflict) {
			return err
		}
	}
}

// Operator is the credential of who submits jobs. It is immutable.
type Operator struct {
	Name  string
	trust *Trust
	cert  *tls.Certificate
}

// Cluster is the ID of the cluster that it is for.
func (o *Operator) Cluster() string { return o.trust.cluster }

// NotAfter is when it ends.
func (o *Operator) NotAfter() time.Time { return o.cert.Leaf.NotAfter }

// OpenOperator reads what NewOperator returned from a file, which must be its
// owner's alone.
func OpenOperator(path string) (*Operator, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has a key and mode %#o: others may have read it; if nobody has, chmod 600 it, else revoke it and make another", path, st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	o, err := ParseOperator(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// ParseOperator reads what NewOperator returned.
func ParseOperator(b []byte) (*Operator, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	// The first two blocks are the operator's, the third the authority's.
	text := strings.TrimSpace(string(b))
	i := strings.LastIndex(text, "-----BEGIN ")
	if i <= 0 {
		return nil, errors.New("it is no operator's credential, which wray operator makes")
	}
	key, cert, err := decodePEM([]byte(text[:i]))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text[i:]))
	if key == nil || cert == nil || block == nil || block.Type != blockCert {
		return nil, errors.New("a key, a certificate or the authority's certificate is missing: copy the file whole")
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, errors.New("the key is not the one of its certificate")
	}
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	t, err := NewTrust(authority)
	if err != nil {
		return nil, err
	}
	id, err := t.Verify(cert, cert.NotBefore.Add(time.Second)) // that it has expired is for nodes to say
	if err != nil {
		return nil, err
	}
	if id.Role != RoleOperator {
		return nil, fmt.Errorf("%w: it is %s", ErrIdentity, id.URI())
	}
	return &Operator{Name: id.Name, trust: t, cert: &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}}, nil
}

// ClientConfig is for a connection to any node of the cluster, with an
// application protocol. Nobody else is spoken to.
func (o *Operator) ClientConfig(proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		// Names are URIs, which crypto/tls does not compare: VerifyConnection does,
		// and the chain with them.
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.cert, nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := needsProtocol(s); err != nil {
				return err
			}
			if len(s.PeerCertificates) != 1 {
				return fmt.Errorf("%w: %d certificates came, a node sends 1", ErrIdentity, len(s.PeerCertificates))
			}
			id, err := o.trust.Verify(s.PeerCertificates[0], time.Now())
			if err == nil && id.Role != RoleNode {
				err = fmt.Errorf("%w: %s answered, which is no node", ErrIdentity, id.URI())
			}
			return err
		},
	}
}
