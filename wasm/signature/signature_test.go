package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func key(n byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)) }

func signer(name string, n byte) Signer {
	return Signer{name, key(n).Public().(ed25519.PublicKey)}
}

func part(id byte, payload ...byte) []byte {
	return append(binary.AppendUvarint([]byte{id}, uint64(len(payload))), payload...)
}

func custom(name string, b ...byte) []byte {
	return part(0, append(append([]byte{byte(len(name))}, name...), b...)...)
}

// module is sections behind the beginning of a module.
func module(parts ...[]byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), bytes.Join(parts, nil)...)
}

var plain = module(part(1, 1, 0x60, 0, 0), part(3, 1, 0), custom("name", 1, 2, 3))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestFormat holds the bytes of the section to those of the conventions' example:
// one part, one signature without a name.
func TestFormat(t *testing.T) {
	d := must(Sign(plain, nil, key(1), ""))
	sum := sha256.Sum256(plain[8:])
	want := append([]byte{1, 1, 1, 1, 1}, sum[:]...)
	want = append(want, 1, 0, 1, 64)
	want = append(want, ed25519.Sign(key(1), append([]byte("wasmsig\x01\x01\x01"), sum[:]...))...)
	if got := d.Marshal(); !bytes.Equal(got, want) {
		t.Errorf("the section is\n%x, want\n%x", got, want)
	}
	joined := Join(plain, d)
	if want := module(custom("signature", want...), plain[8:]); !bytes.Equal(joined, want) {
		t.Errorf("the module is\n%x, want\n%x", joined, want)
	}
	m, again, err := Split(joined)
	if err != nil || !bytes.Equal(m, plain) || !bytes.Equal(again.Marshal(), d.Marshal()) {
		t.Errorf("it is parted into %x and %v, %v", m, again, err)
	}
}

// TestVerify changes a signed module, its signature and who is trusted.
func TestVerify(t *testing.T) {
	d := must(Sign(plain, nil, key(1), "first"))
	d = must(Sign(plain, d, key(2), "second"))
	if again := must(Sign(plain, d, key(2), "second")); len(again) != 1 || len(again[0].Signatures) != 2 {
		t.Errorf("signed twice: %v", again)
	}
	all := []Signer{signer("a", 1), signer("b", 2), signer("c", 3)}
	by, err := Verify(plain, d, all)
	if err != nil || len(by) != 2 || by[0].Name != "a" || by[1].Name != "b" {
		t.Errorf("signed by %v, %v", by, err)
	}
	refused := func(what string, m []byte, d Data, who []Signer, want error) {
		t.Helper()
		if by, err := Verify(m, d, who); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v; want %v", what, by, err, want)
		}
	}
	refused("nobody is trusted", plain, d, nil, ErrUntrusted)
	refused("another is trusted", plain, d, all[2:], ErrUntrusted)
	refused("a key of no size", plain, d, []Signer{{Name: "x"}}, ErrUntrusted)
	refused("no signature", plain, nil, all, ErrNone)
	refused("another module", module(part(1)), d, all, ErrUntrusted)
	refused("a section more", append(slices.Clone(plain), custom("x")...), d, all, ErrUntrusted)
	refused("a section less", plain[:len(plain)-len(custom("name", 1, 2, 3))], d, all, ErrUntrusted)
	for i := 8; i < len(plain); i++ {
		m := slices.Clone(plain)
		m[i] ^= 1
		if _, err := Verify(m, d, all); err == nil {
			t.Errorf("byte %d of the module may be another", i)
		}
	}
	b := must(Sign(plain, nil, key(1), "")).Marshal()
	for i := range b {
		c := slices.Clone(b)
		c[i] ^= 1
		if d, err := Parse(c); err == nil {
			if _, err := Verify(plain, d, all); err == nil {
				t.Errorf("byte %d of the signature may be another", i)
			}
		}
	}
}

// TestParts has a module whose parts are signed: all of them count, or the whole;
// less does not.
func TestParts(t *testing.T) {
	m := module(part(1, 1, 0x60, 0, 0), custom("signature_delimiter", 7), custom("name", 1), custom("signature_delimiter", 8))
	hashes := must(Hashes(m))
	if len(hashes) != 2 {
		t.Fatalf("%d parts", len(hashes))
	}
	who := []Signer{signer("a", 1)}
	sign := func(h ...Hash) Data {
		s := Set{Hashes: h}
		s.Signatures = []Signature{{Alg: algEd25519, Bytes: ed25519.Sign(key(1), s.message())}}
		return Data{s}
	}
	for _, good := range []Data{must(Sign(m, nil, key(1), "")), sign(hashes...), sign(hashes[1])} {
		if _, err := Verify(m, good, who); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []Data{sign(hashes[0]), sign(), sign(hashes[1], hashes[0]), sign(hashes[0], hashes[1], hashes[1])} {
		if _, err := Verify(m, bad, who); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	// What follows the last delimiter is a part too.
	if _, err := Verify(append(slices.Clone(m), custom("x")...), sign(hashes...), who); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a section behind the last delimiter: %v", err)
	}
}

func TestSplit(t *testing.T) {
	if m, d, err := Split(plain); err != nil || d != nil || !bytes.Equal(m, plain) {
		t.Errorf("a module without one: %v, %v", d, err)
	}
	// A signature that is not in front is a custom section like any other.
	late := module(part(1), custom("signature", 9))
	if _, d, err := Split(late); err != nil || d != nil {
		t.Errorf("a late one: %v, %v", d, err)
	}
	for what, b := range map[string][]byte{
		"nothing": nil, "text": []byte("hello, world"), "cut": plain[:len(plain)-1][:10],
		"a bad signature": module(custom("signature", 9)), "an empty one": module(custom("signature")),
	} {
		if _, _, err := Split(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeys(t *testing.T) {
	k := key(1)
	if again := must(ParseKey(MarshalKey(k))); !again.Equal(k) {
		t.Error("another key came back")
	}
	mixed := append(MarshalKey(k)[:33:33], key(2)[32:]...)
	for _, bad := range [][]byte{nil, MarshalKey(k)[1:], MarshalPublic(ed25519.PublicKey(k[32:])), mixed} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%x is a key", bad)
		}
	}
	text := "# who may\n\n" + FormatSigner(signer("a", 1)) + "\n  " + FormatSigner(signer("b", 2)) + "  \n"
	who := must(ParseTrust([]byte(text)))
	if len(who) != 2 || who[1].Name != "b" || !who[1].Key.Equal(key(2).Public()) {
		t.Errorf("trusted are %v", who)
	}
	for _, bad := range []string{"", "# nobody\n", "a", "a b c", "a !!!!", "a AAAA", FormatSigner(signer("a", 1)) + "AAAA"} {
		if who, err := ParseTrust([]byte(bad)); err == nil {
			t.Errorf("%q trusts %v", bad, who)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(must(Sign(plain, nil, key(1), "k")).Marshal())
	f.Add([]byte{1, 1, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := Parse(b); err == nil {
			if again, err := Parse(d.Marshal()); err != nil || !bytes.Equal(again.Marshal(), d.Marshal()) {
				t.Fatalf("%x: %v, %v", b, again, err)
			}
		}
	})
}

// FuzzSplit reads modules of which nothing is known, and holds that no module is
// signed but by who signed it.
func FuzzSplit(f *testing.F) {
	f.Add(plain)
	f.Add(Join(plain, must(Sign(plain, nil, key(1), "k"))))
	f.Add(module(custom("signature_delimiter", 1), part(1), custom("signature_delimiter")))
	who := []Signer{signer("a", byte(rand.N(200)+2))}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, d, err := Split(b)
		if err != nil {
			return
		}
		if by, err := Verify(m, d, who); err == nil {
			t.Fatalf("signed by %v", by)
		}
		if d != nil && !bytes.Equal(m, plain) {
			if _, err := Verify(m, d, []Signer{signer("a", 1)}); err == nil && !bytes.Equal(m[8:], plain[8:]) {
				t.Fatalf("%x passes for what was signed", b)
			}
		}
	})
}

// TestVersionWord changes the bytes of a signed module that no hash has.
func TestVersionWord(t *testing.T) {
	d := must(Sign(plain, nil, key(1), ""))
	for at := range 8 {
		m := bytes.Clone(Join(plain, d))
		m[at] ^= 3
		if _, _, err := Split(m); !errors.Is(err, ErrFormat) {
			t.Errorf("with another byte %d it is a module: %v", at, err)
		}
		m = bytes.Clone(plain)
		m[at] ^= 3
		if by, err := Verify(m, d, []Signer{signer("a", 1)}); !errors.Is(err, ErrFormat) {
			t.Errorf("with another byte %d it is signed by %v, %v", at, by, err)
		}
		if _, err := Sign(m, nil, key(1), ""); !errors.Is(err, ErrFormat) {
			t.Errorf("with another byte %d it is signed: %v", at, err)
		}
	}
}

// TestTrustSecret reads secret keys in place of a trust file: no error has any of
// their bytes.
func TestTrustSecret(t *testing.T) {
	for n := range byte(255) {
		secret := MarshalKey(key(n))
		for _, file := range [][]byte{secret, append([]byte("ann "), secret...), bytes.Replace(secret, secret[1:2], []byte("x y"), 1),
			[]byte("AGE-SECRET-KEY-1QQQQ QQQQ\n"), []byte("a b c secret\n")} {
			_, err := ParseTrust(file)
			if err == nil {
				t.Fatalf("%q is a trust file", file)
			}
			for _, f := range bytes.Fields(file) {
				if q := strconv.Quote(string(f)); len(f) > 3 && (strings.Contains(err.Error(), string(f[:4])) || strings.Contains(err.Error(), q[1:5])) {
					t.Fatalf("%q says what is in the file, %q", err, file)
				}
			}
		}
	}
}
