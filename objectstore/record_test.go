package objectstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// sampleRecord returns a record of a payload of n bytes, and what it is of.
func sampleRecord(t testing.TB, n int, shrinks bool) (file []byte, data, index int64, id wray.ID, payload []byte) {
	t.Helper()
	payload = make([]byte, n)
	if !shrinks {
		_, _ = rand.NewChaCha8([32]byte{7}).Read(payload)
	}
	id = wray.ID{Owner: 3, Seq: 4}
	h := Header{Encoding: abi.EncodingRaw, Len: uint64(n), Refs: []wray.ID{{Owner: 3, Seq: 1}}}
	var b bytes.Buffer
	data, index, err := new(packer).write(&b, id, h, source{p: payload})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), data, index, id, payload
}

// TestRecordCorrupt changes each byte of an index, and bytes all over the
// chunks, and cuts the record short at every place that means something: each
// is told, and none is taken for the payload.
func TestRecordCorrupt(t *testing.T) {
	for name, shrinks := range map[string]bool{"raw": false, "compressed": true} {
		t.Run(name, func(t *testing.T) {
			file, data, index, id, payload := sampleRecord(t, 2*recordChunk+100, shrinks)
			dst := make([]byte, len(payload))
			read := func(b []byte, id wray.ID, dst []byte) error {
				return readRecord(bytes.NewReader(b), 0, data, index, id, dst)
			}
			if err := read(file, id, dst); err != nil || !bytes.Equal(dst, payload) {
				t.Fatalf("as it was written: %v", err)
			}
			bad := func(what string, at int64, err error) {
				t.Helper()
				if !errors.Is(err, ErrBadRecord) {
					t.Errorf("%s %d: %v: expected ErrBadRecord", what, at, err)
				}
			}
			change := func(at int64) {
				file[at] ^= 0x10
				bad("changed byte", at, read(file, id, dst))
				file[at] ^= 0x10
			}
			for i := range index {
				change(data + i)
			}
			for i := int64(0); i < data; i += data/16 + 1 {
				change(i)
			}
			for _, n := range []int64{0, 1, data - 1, data, data + recordFixed - 1, data + index - 1} {
				bad("cut at", n, read(file[:n], id, dst))
			}
			bad("another object", 0, read(file, wray.ID{Owner: 3, Seq: 5}, dst))
			bad("a shorter place", 0, read(file, id, dst[:len(dst)-1]))
			if err := read(file, id, dst); err != nil || !bytes.Equal(dst, payload) {
				t.Errorf("in the end: %v", err)
			}
		})
	}
}

// failingReader is a disk that fails.
type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

// TestRecordReadFails: an error of the disk is not taken for a bad record.
func TestRecordReadFails(t *testing.T) {
	err := readRecord(failingReader{}, 0, 100, 100, wray.ID{}, make([]byte, 100))
	if !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, ErrBadRecord) {
		t.Errorf("%v", err)
	}
}

// FuzzIndex: any bytes are an index that is read, and is written as it was, or
// ErrBadRecord. Those that the sum keeps out are given theirs.
func FuzzIndex(f *testing.F) {
	for _, n := range []int{InlineMax, recordChunk, 3*recordChunk + 5} {
		file, data, _, _, _ := sampleRecord(f, n, n == recordChunk)
		f.Add(file[data:])
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeIndex(b); err != nil && !errors.Is(err, ErrBadRecord) {
			t.Fatalf("%v", err)
		}
		if len(b) < recordFixed {
			return
		}
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[32:], indexSum(b))
		r, err := decodeIndex(b)
		if err != nil {
			if !errors.Is(err, ErrBadRecord) {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := r.appendIndex(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x was read, and %x written, %v", b, again, err)
		}
	})
}

// FuzzRecord reads any bytes as a record, with an index that says that they are
// the chunks of a payload.
func FuzzRecord(f *testing.F) {
	file, data, _, _, payload := sampleRecord(f, InlineMax, true)
	f.Add(file[:data], uint32(len(payload)), true, false)
	f.Add([]byte("\x05\x10hello"), uint32(5), true, true)
	f.Fuzz(func(t *testing.T, chunk []byte, n uint32, pack, honest bool) {
		if len(chunk) == 0 || len(chunk) > recordChunk || n == 0 || n > recordChunk {
			return
		}
		id := wray.ID{Owner: 1, Seq: 2}
		r := record{id: id, header: Header{Encoding: abi.EncodingRaw, Len: uint64(n)}}
		c := chunkOf(chunk, pack)
		if !honest {
			c.sum ^= 1
		}
		r.chunks = append(r.chunks, c)
		index, err := r.appendIndex(nil)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]byte, n)
		err = readRecord(bytes.NewReader(append(bytes.Clone(chunk), index...)), 0, int64(len(chunk)), int64(len(index)), id, dst)
		switch {
		case err != nil && !errors.Is(err, ErrBadRecord):
			t.Fatalf("%v", err)
		case err == nil && !honest:
			t.Fatal("a chunk of another sum was taken")
		case err == nil && !pack && !bytes.Equal(dst, chunk):
			t.Fatal("a chunk is not what was read")
		}
	})
}
