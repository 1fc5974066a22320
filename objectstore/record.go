package objectstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/s2"

	wray "github.com/wray-project/wray"
)

// An object on disk is a record: the chunks of its payload, one after the
// other, and then the index, which tells them apart. The index comes last
// because what a chunk takes is known when it is written.
//
// The index, little-endian:
//
//	 0  [4]byte  "wrys"
//	 4  u16      version, 1
//	 6  u16      flags, 0
//	 8  u64      owner, and
//	16  u64      seq, of the object's ID
//	24  u32      n, the number of chunks: of recordChunk bytes, the last as long as it takes
//	28  u32      length of the value's header
//	32  u32      CRC-32C of the index, this field apart
//	36           the value's header (Header), then
//	    n times  u32 length as stored, the highest bit set where compressed (S2 block format)
//	             u32 CRC-32C of the chunk as stored
//
// Chunks are checked one by one, so that a record is read into its place and
// checked on the way. The index names the object: a record that is whole, and
// another's, is refused too.
const (
	recordMagic   = "wrys"
	recordVersion = 1
	recordFixed   = 36
	recordEntry   = 8
	recordChunk   = 1 << 20
	recordPacked  = 1 << 31 // in a stored length
)

// ErrBadRecord says that bytes from disk are not the record that is wanted.
var ErrBadRecord = errors.New("objectstore: bad record")

// record is what an index says.
type record struct {
	id     wray.ID
	header Header
	chunks []chunk
}

// chunk is one chunk of a payload, as stored.
type chunk struct {
	stored uint32 // its length, with recordPacked
	sum    uint32
}

func (c chunk) packed() bool { return c.stored&recordPacked != 0 }
func (c chunk) len() int64   { return int64(c.stored &^ recordPacked) }

// chunkOf describes a chunk that is stored as p.
func chunkOf(p []byte, packed bool) chunk {
	c := chunk{stored: uint32(len(p)), sum: crc32.Checksum(p, castagnoli)}
	if packed {
		c.stored |= recordPacked
	}
	return c
}

// chunksOf returns how many chunks a payload of n bytes has.
func chunksOf(n uint64) int { return int((n + recordChunk - 1) / recordChunk) }

// indexSize returns the length of the index of a value of n bytes with refs
// references.
func indexSize(n uint64, refs int) int {
	return recordFixed + HeaderSize(refs) + recordEntry*chunksOf(n)
}

// recordBound returns the most bytes that a record takes.
func recordBound(n uint64, refs int) int64 { return int64(n) + int64(indexSize(n, refs)) }

// appendIndex appends the index of r to b.
func (r *record) appendIndex(b []byte) ([]byte, error) {
	at := len(b)
	b = append(b, recordMagic...)
	b = binary.LittleEndian.AppendUint16(b, recordVersion)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint64(b, r.id.Owner)
	b = binary.LittleEndian.AppendUint64(b, r.id.Seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.chunks)))
	b = binary.LittleEndian.AppendUint32(b, uint32(HeaderSize(len(r.header.Refs))))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b, err := r.header.AppendBinary(b)
	if err != nil {
		return b[:at], err
	}
	for _, c := range r.chunks {
		b = binary.LittleEndian.AppendUint32(b, c.stored)
		b = binary.LittleEndian.AppendUint32(b, c.sum)
	}
	binary.LittleEndian.PutUint32(b[at+32:], indexSum(b[at:]))
	return b, nil
}

// decodeIndex reads an index, which is all of b. The bytes may be anything:
// errors wrap ErrBadRecord, and no more is allocated than b is long.
func decodeIndex(b []byte) (record, error) {
	bad := func(format string, args ...any) (record, error) {
		return record{}, fmt.Errorf("%w: "+format, append([]any{ErrBadRecord}, args...)...)
	}
	if len(b) < recordFixed {
		return bad("the index has %d bytes: expected at least %d", len(b), recordFixed)
	}
	if got, want := indexSum(b), binary.LittleEndian.Uint32(b[32:]); got != want {
		return bad("the index's checksum is %#08x: expected %#08x", got, want)
	}
	if string(b[:4]) != recordMagic || binary.LittleEndian.Uint16(b[4:]) != recordVersion || binary.LittleEndian.Uint16(b[6:]) != 0 {
		return bad("the index begins with %x", b[:8])
	}
	h, used, err := DecodeHeader(b[recordFixed:])
	if err != nil {
		return bad("%w", err)
	}
	n := chunksOf(h.Len)
	rest := b[recordFixed+used:]
	if int64(binary.LittleEndian.Uint32(b[24:])) != int64(n) || int64(binary.LittleEndian.Uint32(b[28:])) != int64(used) ||
		int64(len(rest)) != int64(n)*recordEntry {
		return bad("the index has %d bytes for a payload of %d", len(b), h.Len)
	}
	r := record{id: wray.ID{Owner: binary.LittleEndian.Uint64(b[8:]), Seq: binary.LittleEndian.Uint64(b[16:])}, header: h}
	r.chunks = make([]chunk, n)
	for i := range r.chunks {
		c := chunk{stored: binary.LittleEndian.Uint32(rest[i*recordEntry:]), sum: binary.LittleEndian.Uint32(rest[i*recordEntry+4:])}
		raw := chunkLen(h.Len, i)
		if c.packed() && c.len() >= raw || !c.packed() && c.len() != raw || c.len() == 0 {
			return bad("chunk %d of %d bytes is stored as %d", i, raw, c.len())
		}
		r.chunks[i] = c
	}
	return r, nil
}

// chunkLen returns the length of chunk i of a payload of n bytes.
func chunkLen(n uint64, i int) int64 {
	return int64(min(n-uint64(i)*recordChunk, recordChunk))
}

// indexSum is the checksum of b, a whole index, its own field apart.
func indexSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli, b[:32])
	return crc32.Update(sum, castagnoli, b[36:])
}

// Compression pays where it takes a quarter away: below, the processor's time
// buys too little room. A few samples tell before a payload is worked through.
const (
	sampleSize  = 16 << 10
	samples     = 3
	packedShare = 0.75
)

// compressible reports whether compressing p pays, by samples of it: of a short
// payload by one, from its middle.
func compressible(p []byte, buf []byte) bool {
	raw, packed, first, last := 0, 0, 0, samples
	if len(p) < recordChunk {
		first, last = samples/2, samples/2+1
	}
	for i := first; i < last; i++ {
		at := (len(p) - sampleSize) / (samples - 1) * i
		s := p[at : at+sampleSize]
		raw += len(s)
		packed += len(s2.Encode(buf, s))
	}
	return float64(packed) <= packedShare*float64(raw)
}

// packer writes records. It belongs to one goroutine.
type packer struct {
	buf []byte
}

// source is the payload of a record to be written.
type source struct {
	p    []byte   // at least InlineMax long
	file *os.File // that has p at its beginning; nil: there is none
	sums []uint32 // of p's chunks; nil: to be taken
}

// write writes the record of the object id with header h and payload from, and
// returns how many bytes are chunks and how many the index. The payload's file
// is in use until w was sealed.
func (k *packer) write(w io.Writer, id wray.ID, h Header, from source) (data, index int64, err error) {
	if k.buf == nil {
		k.buf = make([]byte, s2.MaxEncodedLen(recordChunk))
	}
	p := from.p
	r := record{id: id, header: h, chunks: make([]chunk, 0, chunksOf(uint64(len(p))))}
	pack := compressible(p, k.buf)
	files, _ := w.(FileWriter)
	for i := 0; len(p) > 0; i++ {
		raw := p[:min(len(p), recordChunk)]
		p = p[len(raw):]
		if pack {
			if small := s2.Encode(k.buf, raw); float64(len(small)) <= packedShare*float64(len(raw)) {
				r.chunks = append(r.chunks, chunkOf(small, true))
				if _, err := w.Write(small); err != nil {
					return 0, 0, err
				}
				data += int64(len(small))
				continue
			}
		}
		if from.sums != nil {
			r.chunks = append(r.chunks, chunk{stored: uint32(len(raw)), sum: from.sums[i]})
		} else {
			r.chunks = append(r.chunks, chunkOf(raw, false))
		}
		if from.file != nil && files != nil {
			err = files.WriteFile(from.file, int64(i)*recordChunk, int64(len(raw)))
		} else {
			_, err = w.Write(raw)
		}
		if err != nil {
			return 0, 0, err
		}
		data += int64(len(raw))
	}
	b, err := r.appendIndex(nil)
	if err != nil {
		return 0, 0, err
	}
	_, err = w.Write(b)
	return data, int64(len(b)), err
}

// bulkOf returns how much of r is best read at once. A file gives what it has
// at once, and what is summed soon after it was read is in the cache.
func bulkOf(r io.ReaderAt) int64 {
	if b, ok := r.(BulkReader); ok {
		return max(b.BulkRead(), recordChunk)
	}
	return recordChunk
}

// readRecord reads the payload of the object id into dst, whose length it must
// have, from a record of which data bytes are chunks and index bytes the
// index. Errors wrap ErrBadRecord where what was read is not right; then dst
// may hold anything.
func readRecord(r io.ReaderAt, off, data, index int64, id wray.ID, dst []byte) error {
	b := make([]byte, index)
	if err := readFull(r, b, off+data); err != nil {
		return err
	}
	rec, err := decodeIndex(b)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, c := range rec.chunks {
		total += c.len()
	}
	switch {
	case rec.id != id:
		return fmt.Errorf("%w: it is object %v's: expected %v's", ErrBadRecord, rec.id, id)
	case rec.header.Len != uint64(len(dst)) || total != data:
		return fmt.Errorf("%w: it holds %d bytes in %d: expected %d in %d", ErrBadRecord, rec.header.Len, total, len(dst), data)
	}
	var buf []byte
	readRun := bulkOf(r)
	for i := 0; i < len(rec.chunks); {
		// A run of chunks of the same kind, read at once: into its place, or
		// into a buffer to be expanded.
		run, n, raw := i, int64(0), int64(0)
		for run < len(rec.chunks) && rec.chunks[run].packed() == rec.chunks[i].packed() && n+rec.chunks[run].len() <= readRun {
			n += rec.chunks[run].len()
			raw += chunkLen(rec.header.Len, run)
			run++
		}
		to := dst[:raw]
		if rec.chunks[i].packed() {
			buf = slices.Grow(buf[:0], int(n))
			to = buf[:n]
		}
		if readRun > recordChunk {
			if err := readFull(r, to, off); err != nil {
				return err
			}
		}
		for ; i < run; i++ {
			c := rec.chunks[i]
			piece := to[:c.len()]
			to = to[c.len():]
			var got uint32
			if readRun > recordChunk {
				got = crc32.Checksum(piece, castagnoli)
			} else if got, err = readSummed(r, piece, off); err != nil {
				return err
			}
			off += c.len()
			if got != c.sum {
				return fmt.Errorf("%w: the checksum of chunk %d is %#08x: expected %#08x", ErrBadRecord, i, got, c.sum)
			}
			place := dst[:chunkLen(rec.header.Len, i)]
			dst = dst[len(place):]
			if c.packed() {
				if err := expand(place, piece); err != nil {
					return fmt.Errorf("%w: chunk %d: %w", ErrBadRecord, i, err)
				}
			}
		}
	}
	return nil
}

// readSummed reads all of b at off and returns its checksum.
func readSummed(r io.ReaderAt, b []byte, off int64) (sum uint32, err error) {
	for len(b) > 0 {
		p := b[:min(len(b), sumStep)]
		if err := readFull(r, p, off); err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, p)
		b, off = b[len(p):], off+int64(len(p))
	}
	return sum, nil
}

// expand fills dst from the S2 block p.
func expand(dst, p []byte) error {
	n, err := s2.DecodedLen(p)
	if err != nil {
		return err
	}
	if n != len(dst) {
		return fmt.Errorf("it expands to %d bytes: expected %d", n, len(dst))
	}
	_, err = s2.Decode(dst, p)
	return err
}

// readFull reads all of b at off. A record that ends early is a bad one.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends %d bytes early", ErrBadRecord, len(b)-n)
	}
	return fmt.Errorf("read %d bytes: %w", len(b), err)
}
