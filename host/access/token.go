package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"log/slog"
	"strings"
)

// TokenPrefix is what every token of a user begins with, so that programs that
// look for secrets find it. Join tokens of nodes begin otherwise.
const TokenPrefix = "wrayu1"

const (
	idBytes     = 10
	secretBytes = 32 // 256 bits, from the system's generator: nobody guesses it, so that a plain hash keeps it
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Secret is a token as whoever has it shows it. It prints as its ID alone, however
// it is printed, so that no log has it: Reveal gives the text.
type Secret struct {
	id     string // names the record, and is no secret
	secret [secretBytes]byte
	pin    *[sha256.Size]byte
}

// newSecret makes a token; pin is the hash of the authority's key that its bearer
// checks a node by, or nil.
func newSecret(pin *[sha256.Size]byte) Secret {
	var id [idBytes]byte
	s := Secret{pin: pin}
	rand.Read(id[:]) // it never fails
	rand.Read(s.secret[:])
	s.id = base32Lower.EncodeToString(id[:])
	return s
}

// ID names the token, and is no secret.
func (s Secret) ID() string { return s.id }

// Pin is the hash of the authority's key of the cluster that the token is for;
// false where it names none.
func (s Secret) Pin() ([sha256.Size]byte, bool) {
	if s.pin == nil {
		return [sha256.Size]byte{}, false
	}
	return *s.pin, true
}

// Reveal returns the token's text, for the person who has it: prefix, ID, secret
// and pin, in base 32 but the prefix.
func (s Secret) Reveal() string {
	text := TokenPrefix + "_" + s.id + "_" + base32Lower.EncodeToString(s.secret[:])
	if s.pin != nil {
		text += "_" + base32Lower.EncodeToString(s.pin[:])
	}
	return text
}

// String hides the secret.
func (s Secret) String() string { return TokenPrefix + "_" + s.id + "_(secret)" }

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format is String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// hash is what is kept of a token. It depends on the ID, so that no record's
// serves for another.
func (s Secret) hash() [sha256.Size]byte {
	b := make([]byte, 0, 128)
	b = append(b, "wray user token 1\x00"...)
	b = append(b, s.id...)
	b = append(b, 0)
	return sha256.Sum256(append(b, s.secret[:]...))
}

// is reports whether the token's hash is the one kept, in the same time whatever
// it is.
func (s Secret) is(kept []byte) bool {
	h := s.hash()
	return subtle.ConstantTimeCompare(h[:], kept) == 1
}

// ParseSecret reads a token's text. The error does not repeat it.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	bad := func(what string) (Secret, error) {
		return Secret{}, fmt.Errorf("%w: the token %s; copy it whole, from where it was printed", ErrUnknown, what)
	}
	if len(text) > 256 {
		return bad("is too long")
	}
	parts := strings.Split(text, "_")
	if len(parts) < 3 || len(parts) > 4 || parts[0] != TokenPrefix {
		return bad("is none: it begins with " + TokenPrefix + "_")
	}
	var id [idBytes]byte
	if !decode(id[:], parts[1]) || !decode(s.secret[:], parts[2]) {
		return bad("is cut short or damaged")
	}
	s.id = parts[1]
	if len(parts) == 4 {
		s.pin = new([sha256.Size]byte)
		if !decode(s.pin[:], parts[3]) {
			return bad("is cut short or damaged")
		}
	}
	return s, nil
}

// decode fills b of text, which must be its one encoding.
func decode(b []byte, text string) bool {
	if len(text) != base32Lower.EncodedLen(len(b)) || strings.ContainsAny(text, "\r\n") { // which a decoder skips
		return false
	}
	got, err := base32Lower.DecodeString(text)
	if err != nil || len(got) != len(b) || base32Lower.EncodeToString(got) != text {
		return false
	}
	copy(b, got)
	return true
}
