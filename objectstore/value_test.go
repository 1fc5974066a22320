package objectstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// TestHeaderGolden pins the binary form: nodes of different versions read it.
func TestHeaderGolden(t *testing.T) {
	h := Header{
		Encoding: abi.EncodingNumeric, Meta: uint32(abi.ElemF64), Len: 4096,
		Refs: []wray.ID{{Owner: 1, Seq: 2}, {Owner: 0xffffffffffffffff, Seq: 3}},
	}
	const want = "77727976" + "0100" + "0000" + "03000000" + "0a000000" + "0010000000000000" + "02000000" + "c7941898" +
		"01000000000000000200000000000000" + "ffffffffffffffff0300000000000000"
	b, err := h.AppendBinary([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b[6:]); got != want {
		t.Errorf("header is\n%s: expected\n%s", got, want)
	}
	got, n, err := DecodeHeader(append(b[6:], "after"...))
	if err != nil || n != HeaderSize(2) || !reflect.DeepEqual(got, h) {
		t.Errorf("decoded %+v, %d bytes, %v", got, n, err)
	}
}

func TestHeaderRefuses(t *testing.T) {
	good, err := Header{Encoding: abi.EncodingCBOR, Len: 5, Refs: []wray.ID{{Owner: 1, Seq: 1}}}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	// resum makes a header whose checksum is right, so that what is tested is
	// not the checksum.
	resum := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		binary.LittleEndian.PutUint32(b[28:], headerSum(b))
		return b
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"short":              good[:31],
		"magic":              resum(func(b []byte) { b[0]++ }),
		"version":            resum(func(b []byte) { b[4]++ }),
		"flags":              resum(func(b []byte) { b[6]++ }),
		"encoding":           resum(func(b []byte) { b[8] = 6 }),
		"meta":               resum(func(b []byte) { b[12] = 1 }),
		"length":             resum(func(b []byte) { b[23] = 0x80 }),
		"zero reference":     resum(func(b []byte) { clear(b[32:]) }),
		"missing references": good[:40],
		"reference bomb":     resum(func(b []byte) { copy(b[24:], "\xff\xff\xff\xff") }),
	} {
		if h, _, err := DecodeHeader(b); !errors.Is(err, ErrBadHeader) {
			t.Errorf("%s: decoded %+v, %v", name, h, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if h, _, err := DecodeHeader(b); err == nil {
			t.Errorf("byte %d changed: decoded %+v", i, h)
		}
	}
	for _, h := range []Header{{}, {Encoding: abi.EncodingRaw, Len: MaxPayload + 1}, {Encoding: abi.EncodingRaw, Refs: make([]wray.ID, 1)}} {
		if _, err := h.AppendBinary(nil); !errors.Is(err, ErrBadHeader) {
			t.Errorf("%+v: encoded, %v", h, err)
		}
	}
}

// FuzzValueHeader: whatever the bytes, DecodeHeader gives an error or a header
// that encodes to the same bytes.
func FuzzValueHeader(f *testing.F) {
	for _, h := range []Header{
		{Encoding: abi.EncodingRaw},
		{Encoding: abi.EncodingNumeric, Meta: uint32(abi.ElemI16), Len: 2},
		{Encoding: abi.EncodingCBOR, Len: 1 << 30, Refs: []wray.ID{{Owner: 1, Seq: 1}, {Owner: 1, Seq: 2}}},
	} {
		b, err := h.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) >= headerFixed {
			// Past the checksum, which chance does not pass.
			b = bytes.Clone(b)
			n := uint64(binary.LittleEndian.Uint32(b[24:]))
			if end := headerFixed + n*headerRef; end <= uint64(len(b)) {
				binary.LittleEndian.PutUint32(b[28:], headerSum(b[:end]))
			}
		}
		h, n, err := DecodeHeader(b)
		if err != nil {
			if !errors.Is(err, ErrBadHeader) {
				t.Fatalf("error is of no class: %v", err)
			}
			return
		}
		again, err := h.AppendBinary(nil)
		if err != nil {
			t.Fatalf("a decoded header does not encode: %v", err)
		}
		if !bytes.Equal(again, b[:n]) {
			t.Fatalf("%x decodes and encodes as %x", b[:n], again)
		}
	})
}

// FuzzFailure: whatever a guest says its failure is, there is an error with a
// code, which can be stored again.
func FuzzFailure(f *testing.F) {
	f.Add(EncodeFailure(&wray.Error{Code: wray.CodeUserError, Message: "no", Cause: wray.Errorf(wray.CodeTrap, "x")}))
	f.Add([]byte{0xa1, 0x01, 0x00})
	f.Add(bytes.Repeat([]byte{0xa1, 0x0b}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := DecodeFailure(b)
		if e == nil || e.Code == wray.CodeOK {
			t.Fatalf("%x is the failure %v", b, e)
		}
		_ = e.Error()
		p := EncodeFailure(e)
		if len(p) >= InlineMax {
			t.Fatalf("a failure of %d bytes", len(p))
		}
		if again := DecodeFailure(p); again.Code != e.Code {
			t.Fatalf("code %v is stored as %v", e.Code, again.Code)
		}
	})
}
