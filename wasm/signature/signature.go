// Package signature says who signed a WebAssembly module, in the format of the
// WebAssembly tool conventions (Signatures.md, specification version 1, SHA-256
// and Ed25519): a custom section "signature" in front of all others, or the same
// bytes beside the module.
//
// It looks at the frames of sections and at nothing in them, so that who decides
// whether a module may be compiled need not decode it.
package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Errors, to match with errors.Is.
var (
	// ErrNone says that a module has no signature.
	ErrNone = errors.New("the module is not signed")
	// ErrUntrusted says that nobody has signed the module who is trusted, or that it
	// was changed since.
	ErrUntrusted = errors.New("the module is not signed, as it is, by anybody who is trusted")
	// ErrFormat says that a signature, or the module, cannot be read.
	ErrFormat = errors.New("cannot be read")
)

const (
	section   = "signature"           // name of the custom section
	delimiter = "signature_delimiter" // and of those that part a module into what is signed alone

	version     = 1 // of the specification
	contentWasm = 1 // a module
	hashSHA256  = 1
	algEd25519  = 1

	// Most of each that are read: the specification names none.
	maxSets, maxHashes, maxSignatures, maxKeyID = 16, 64, 64, 255
)

// Hash is what is signed of a module: all bytes of its sections up to a point.
type Hash = [sha256.Size]byte

// Signature is one, by one key.
type Signature struct {
	KeyID string // what the signer calls the key, unchecked; it may be empty
	Alg   byte   // 1: Ed25519
	Bytes []byte
}

// Set is hashes that were signed together.
type Set struct {
	Hashes     []Hash // up to the end of each part
	Signatures []Signature
}

// Data is all signatures of a module.
type Data []Set

// message is what is signed.
func (s *Set) message() []byte {
	b := append([]byte("wasmsig"), version, contentWasm, hashSHA256)
	for _, h := range s.Hashes {
		b = append(b, h[:]...)
	}
	return b
}

// Marshal returns d as it is in the section.
func (d Data) Marshal() []byte {
	b := []byte{version, contentWasm, hashSHA256}
	b = binary.AppendUvarint(b, uint64(len(d)))
	for _, s := range d {
		b = binary.AppendUvarint(b, uint64(len(s.Hashes)))
		for _, h := range s.Hashes {
			b = append(b, h[:]...)
		}
		b = binary.AppendUvarint(b, uint64(len(s.Signatures)))
		for _, g := range s.Signatures {
			b = binary.AppendUvarint(b, uint64(len(g.KeyID)))
			b = append(append(b, g.KeyID...), g.Alg)
			b = binary.AppendUvarint(b, uint64(len(g.Bytes)))
			b = append(b, g.Bytes...)
		}
	}
	return b
}

// Parse reads what Marshal writes. Errors: ErrFormat.
func Parse(b []byte) (Data, error) {
	r := reader{b}
	head := r.bytes(3)
	if r.b == nil || head[0] != version || head[1] != contentWasm || head[2] != hashSHA256 {
		return nil, fmt.Errorf("the signature %w: it is not of version 1, of a module, with SHA-256", ErrFormat)
	}
	var d Data
	for range r.count(maxSets) {
		var s Set
		for range r.count(maxHashes) {
			var h Hash
			copy(h[:], r.bytes(len(h)))
			s.Hashes = append(s.Hashes, h)
		}
		for range r.count(maxSignatures) {
			g := Signature{KeyID: string(r.bytes(r.count(maxKeyID)))}
			if alg := r.bytes(1); alg != nil {
				g.Alg = alg[0]
			}
			g.Bytes = bytes.Clone(r.bytes(r.count(1 << 12)))
			s.Signatures = append(s.Signatures, g)
		}
		d = append(d, s)
	}
	if r.b == nil || len(r.b) > 0 {
		return nil, fmt.Errorf("the signature %w: it is cut short, too large, or bytes follow it", ErrFormat)
	}
	return d, nil
}

// reader takes bytes from the front. After a mistake b is nil.
type reader struct{ b []byte }

func (r *reader) bytes(n int) []byte {
	if r.b == nil || n > len(r.b) {
		r.b = nil
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

// count reads a varuint32 of at most most, and 0 after a mistake.
func (r *reader) count(most uint64) int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || size > 5 || n > most {
		r.b = nil
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

// Split returns a module without its signature, and that; nil where it has none.
// Nothing is copied but for the eight bytes of the module's beginning where there
// is one. Errors: ErrFormat, for what is no module or has a signature that cannot
// be read.
func Split(wasm []byte) (module []byte, d Data, err error) {
	if err := begins(wasm); err != nil {
		return nil, nil, err
	}
	first, rest, err := next(wasm[8:])
	if err != nil {
		return nil, nil, err
	}
	payload, ok := first.custom(section)
	if !ok {
		return wasm, nil, nil
	}
	if d, err = Parse(payload); err != nil {
		return nil, nil, err
	}
	return append(wasm[:8:8], rest...), d, nil
}

// beginning is that of modules of version 1. No hash has it: what begins in another
// way is none that was signed.
const beginning = "\x00asm\x01\x00\x00\x00"

func begins(module []byte) error {
	if !bytes.HasPrefix(module, []byte(beginning)) {
		return fmt.Errorf("the module %w: it does not begin as one of version 1", ErrFormat)
	}
	return nil
}

// Join returns a module, which must have no signature, with one.
func Join(module []byte, d Data) []byte {
	name := append([]byte{byte(len(section))}, section...)
	payload := append(name, d.Marshal()...)
	b := append(slices.Clip(module[:8]), 0)
	b = binary.AppendUvarint(b, uint64(len(payload)))
	return append(append(b, payload...), module[8:]...)
}

// frame is a section with its head.
type frame struct {
	id      byte
	whole   []byte // with its head
	payload []byte
}

// next takes the first section of b; a frame without bytes where b is empty.
func next(b []byte) (f frame, rest []byte, err error) {
	if len(b) == 0 {
		return f, nil, nil
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || size > 5 || n > uint64(len(b)-1-size) {
		return f, nil, fmt.Errorf("the module %w: it ends within a section", ErrFormat)
	}
	end := 1 + size + int(n)
	return frame{b[0], b[:end], b[1+size : end]}, b[end:], nil
}

// custom returns what follows the name of a custom section of that name.
func (f *frame) custom(name string) ([]byte, bool) {
	if f.id != 0 || len(f.whole) == 0 {
		return nil, false
	}
	n, size := binary.Uvarint(f.payload)
	if size <= 0 || n != uint64(len(name)) || uint64(len(f.payload)-size) < n || string(f.payload[size:size+int(n)]) != name {
		return nil, false
	}
	return f.payload[size+int(n):], true
}

// Hashes returns what there is to sign of a module without a signature: the hash
// of all its sections up to the end of each part. The last is that of all.
func Hashes(module []byte) ([]Hash, error) {
	if err := begins(module); err != nil {
		return nil, err
	}
	h := sha256.New()
	var list []Hash
	open := true // something follows the last delimiter, or there is none
	for b := module[8:]; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return nil, err
		}
		h.Write(f.whole)
		b, open = rest, true
		if _, ok := f.custom(delimiter); ok {
			if open = false; len(list) == maxHashes-1 {
				return nil, fmt.Errorf("the module %w: it has more than %d parts", ErrFormat, maxHashes-1)
			}
			list = append(list, Hash(h.Sum(nil)))
		}
	}
	if open {
		list = append(list, Hash(h.Sum(nil)))
	}
	return list, nil
}

// Sign adds a signature of the whole of a module without one to d, which may be
// nil. id is what the signer calls the key.
func Sign(module []byte, d Data, key ed25519.PrivateKey, id string) (Data, error) {
	if len(id) > maxKeyID {
		return nil, fmt.Errorf("a name of a key has %d bytes: at most %d are possible", len(id), maxKeyID)
	}
	hashes, err := Hashes(module)
	if err != nil {
		return nil, err
	}
	d = slices.Clone(d)
	at := slices.IndexFunc(d, func(s Set) bool { return slices.Equal(s.Hashes, hashes) })
	if at < 0 {
		at = len(d)
		d = append(d, Set{Hashes: hashes})
	}
	s := &d[at]
	g := Signature{KeyID: id, Alg: algEd25519, Bytes: ed25519.Sign(key, s.message())}
	for _, old := range s.Signatures { // Ed25519 gives the same again
		if bytes.Equal(old.Bytes, g.Bytes) {
			return d, nil
		}
	}
	if len(d) > maxSets || len(s.Signatures) == maxSignatures {
		return nil, fmt.Errorf("the module has too many signatures for one more")
	}
	s.Signatures = append(slices.Clip(s.Signatures), g)
	return d, nil
}

// Signer is a key that is trusted.
type Signer struct {
	Name string // who has it
	Key  ed25519.PublicKey
}

// Verify returns those of the signers who have signed the whole of a module
// without its signature. A signature of parts of it is none. Errors: ErrNone where
// d is empty, ErrUntrusted, ErrFormat.
func Verify(module []byte, d Data, signers []Signer) ([]Signer, error) {
	if len(d) == 0 {
		return nil, ErrNone
	}
	hashes, err := Hashes(module)
	if err != nil {
		return nil, err
	}
	var by []Signer
	for _, k := range signers {
		if len(k.Key) == ed25519.PublicKeySize && signed(hashes, d, k.Key) {
			by = append(by, k)
		}
	}
	if by == nil {
		return nil, ErrUntrusted
	}
	return by, nil
}

// signed reports whether the key has signed the hashes of all parts, or that of
// the whole.
func signed(hashes []Hash, d Data, key ed25519.PublicKey) bool {
	for i := range d {
		s := &d[i]
		if !slices.Equal(s.Hashes, hashes) && !slices.Equal(s.Hashes, hashes[len(hashes)-1:]) {
			continue
		}
		for _, g := range s.Signatures {
			if g.Alg == algEd25519 && ed25519.Verify(key, s.message(), g.Bytes) {
				return true
			}
		}
	}
	return false
}
