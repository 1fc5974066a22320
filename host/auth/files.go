package auth

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Files of a node's state directory, all in PEM. Those with a key are readable
// by their owner alone, and are refused otherwise.
const (
	// AuthorityFile has the authority's key and certificate, on heads.
	AuthorityFile = "authority.pem"
	// ClusterFile has the authority's certificate, on every node.
	ClusterFile = "cluster.pem"
	// NodeFile has the node's key and, once it has joined, its certificate.
	// Both are in one file, so that they are replaced together.
	NodeFile = "node.pem"
)

const (
	blockCert = "CERTIFICATE"
	blockKey  = "PRIVATE KEY"
	// maxFile bounds a file, in bytes, before it is decoded.
	maxFile = 64 << 10
)

// OpenAuthority returns the authority kept in a directory, and makes it where
// there is none. Of two that make it at once one is first, and both have its.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	path := filepath.Join(dir, AuthorityFile)
	a, err := loadAuthority(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	if a, err = NewAuthority(now); err != nil {
		return nil, err
	}
	b, err := encodePEM(a.key, a.authority)
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, b, true); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return loadAuthority(path)
		}
		return nil, fmt.Errorf("keep the cluster's authority: %w", err)
	}
	return a, nil
}

func loadAuthority(path string) (*Authority, error) {
	key, cert, err := readPEM(path, true)
	if err != nil {
		return nil, fmt.Errorf("the cluster's authority: %w", err)
	}
	if cert == nil {
		return nil, fmt.Errorf("%s has no certificate: put back the file that was there", path)
	}
	a, err := newAuthority(cert.Raw, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func encodePEM(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	var b []byte
	if cert != nil {
		b = pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: cert.Raw})
	}
	if key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der})...)
	}
	return b, nil
}

// readPEM reads a key and a certificate. With secret the file must have a key,
// be a plain one, and be nobody's but its owner's.
func readPEM(path string, secret bool) (crypto.Signer, *x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no plain file", path)
	}
	if secret && runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return nil, nil, fmt.Errorf("%s has a key and mode %#o: others may have read it; if nobody has, chmod 600 it, else take it away and join anew", path, st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxFile {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	key, cert, err := decodePEM(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if secret && key == nil {
		return nil, nil, fmt.Errorf("%s has no key: put back the file that was there, or take it away and join anew", path)
	}
	if key != nil && cert != nil && !samePublicKey(cert.PublicKey, key.Public()) {
		return nil, nil, fmt.Errorf("%s: the key is not the one of its certificate: one of the two was exchanged; put back the file that was there, or take it away and join anew", path)
	}
	return key, cert, nil
}

func decodePEM(b []byte) (key crypto.Signer, cert *x509.Certificate, err error) {
	for len(b) > 0 {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		switch {
		case block.Type == blockCert && cert == nil:
			if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, err
			}
		case block.Type == blockKey && key == nil:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, err
			}
			s, ok := k.(crypto.Signer)
			if !ok {
				return nil, nil, fmt.Errorf("a key of type %T does not sign", k)
			}
			key = s
		default:
			return nil, nil, fmt.Errorf("a block %q too many", block.Type)
		}
	}
	if key == nil && cert == nil {
		return nil, nil, errors.New("there is neither a key nor a certificate in it")
	}
	return key, cert, nil
}

// WriteFile replaces a file of the node's directory, for its owner alone: whole
// or not at all, and so that it is there after a power cut.
func WriteFile(path string, b []byte) error { return writeFile(path, b, false) }

// writeFile puts a file there whole and on stable storage, or not at all, with
// mode 0600. With fresh it fails with fs.ErrExist where there is one.
func writeFile(path string, b []byte, fresh bool) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if fresh {
		err = os.Link(f.Name(), path)
	} else {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && runtime.GOOS != "windows" {
		return err
	}
	return nil
}
