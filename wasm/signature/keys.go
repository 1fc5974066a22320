package signature

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Keys are files as the conventions have them: a byte that says what follows, and
// the key.
const (
	kindPublic = 0x01 // 32 bytes follow
	kindPair   = 0x81 // 64: the seed, and the public key
)

// MarshalKey returns a key as it is in its file, which is a secret.
func MarshalKey(key ed25519.PrivateKey) []byte { return append([]byte{kindPair}, key...) }

// ParseKey reads what MarshalKey writes.
func ParseKey(b []byte) (ed25519.PrivateKey, error) {
	if len(b) != 1+ed25519.PrivateKeySize || b[0] != kindPair {
		return nil, errors.New("it is no key to sign with: 65 bytes that begin with 0x81 are wanted, as wray module keygen writes them")
	}
	key := ed25519.NewKeyFromSeed(b[1 : 1+ed25519.SeedSize])
	if !bytes.Equal(key, b[1:]) {
		return nil, errors.New("its public half is not that of its secret half")
	}
	return key, nil
}

// MarshalPublic returns a public key as it is in its file.
func MarshalPublic(key ed25519.PublicKey) []byte { return append([]byte{kindPublic}, key...) }

// FormatSigner returns a signer as a line of a trust file.
func FormatSigner(s Signer) string {
	return s.Name + " " + base64.StdEncoding.EncodeToString(MarshalPublic(s.Key))
}

// maxSigners bounds a trust file: each module is checked against all.
const maxSigners = 256

// ParseTrust reads a trust file: on each line a name and a public key, as
// FormatSigner has them; empty lines and such as begin with # are left out. A file
// that names nobody is an error: it would refuse every module.
//
// No error has any of what is in the file: it may be the wrong one, and a secret.
func ParseTrust(b []byte) ([]Signer, error) {
	if len(b) > 0 && b[0] == kindPair {
		return nil, errors.New("it is a key to sign with, which is a secret: a file of names and public keys is wanted, as wray module keygen prints them")
	}
	var list []Signer
	in := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("line %d: a name and a key are wanted, with a space between them", n)
		}
		key, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != kindPublic {
			return nil, fmt.Errorf("line %d: what follows the name is no public key of Ed25519 in base64, as wray module keygen prints them", n)
		}
		if len(list) == maxSigners {
			return nil, fmt.Errorf("line %d: more than %d keys", n, maxSigners)
		}
		list = append(list, Signer{f[0], key[1:]})
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("it names nobody, and would refuse every module")
	}
	return list, nil
}
