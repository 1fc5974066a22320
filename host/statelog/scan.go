package statelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// scanned is what a file says.
type scanned struct {
	id     Identity
	gen    uint64 // of the file; 0: it has no head
	seen   uint64 // the highest generation of any record
	epoch  uint64
	end    int64 // behind the last commit, and what was opened since
	commit []byte
	live   int64
	ended  bool
	blobs  map[Key]place
	kept   map[Key]struct{}
	refs   []Key
	notes  [][]byte

	damaged    error // there is a whole record behind one that is not
	damagedGen uint64
}

// whole reports whether the file is a log.
func (s *scanned) whole() bool { return s.gen != 0 && (s.commit != nil || s.ended) }

// record is a record as read.
type record struct {
	kind       uint32
	gen, epoch uint64
	payload    []byte // in the buffer that was read
}

// size returns the bytes of the record in the file.
func (r *record) size() int64 { return headerSize + int64(len(r.payload)) }

// parse reads the record that b begins with.
func parse(b []byte) (record, bool) {
	if len(b) < headerSize || string(b[:4]) != magic {
		return record{}, false
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if n > MaxPayload || uint64(n) > uint64(len(b)-headerSize) {
		return record{}, false
	}
	b = b[:headerSize+int(n)]
	if crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, false
	}
	return record{kind: binary.LittleEndian.Uint32(b[12:]), gen: binary.LittleEndian.Uint64(b[16:]),
		epoch: binary.LittleEndian.Uint64(b[24:]), payload: b[headerSize:]}, true
}

// MaxFile bounds a file of a log that is read.
const MaxFile = 16 << 30

// scan reads a file.
func scan(f File) (*scanned, error) {
	b, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("statelog: read: %w", err)
	}
	s := &scanned{blobs: map[Key]place{}, kept: map[Key]struct{}{}}
	var at int64
	pending := map[Key]pendingBlob{}
	for int(at) < len(b) {
		r, ok := parse(b[at:])
		if !ok || !s.take(r, at, pending) {
			break
		}
		at += r.size()
	}
	if int(at) < len(b) {
		s.lost(b[at:], at)
	}
	return s, nil
}

// pendingBlob is a blob of a commit that is still to come.
type pendingBlob struct {
	place
	keep bool
}

// take takes the record at at, unless it cannot be the next one.
func (s *scanned) take(r record, at int64, pending map[Key]pendingBlob) bool {
	if (at == 0) != (r.kind == kindHead) || s.ended {
		return false
	}
	s.seen = max(s.seen, r.gen)
	if at > 0 && r.gen != s.gen || r.kind != kindOpen && at > 0 && r.epoch != s.epoch || r.epoch < s.epoch {
		return false // of a file that was here before, or of who may write no more
	}
	end := at + r.size()
	switch r.kind {
	case kindHead:
		id, ok := parseHead(r.payload)
		if !ok {
			return false
		}
		s.id, s.gen, s.epoch = id, r.gen, r.epoch
	case kindOpen:
		s.epoch = r.epoch
		if s.commit != nil && len(pending) == 0 {
			s.end = end
		}
	case kindBlob, kindKeep:
		var k Key
		if len(r.payload) < len(k) {
			return false
		}
		copy(k[:], r.payload)
		pending[k] = pendingBlob{place{at, r.size()}, r.kind == kindKeep}
	case kindCommit:
		c, ok := parseCommit(r.payload)
		if !ok {
			return false
		}
		c.dropped(func(k Key) {
			if _, ok := s.kept[k]; ok {
				delete(s.kept, k)
				delete(s.blobs, k)
			}
		})
		for k, p := range pending {
			s.blobs[k] = p.place
			if p.keep {
				s.kept[k] = struct{}{}
			}
		}
		clear(pending)
		s.live = int64(len(c.payload)) + 2*headerSize
		s.refs = s.refs[:0]
		for i := 0; i < len(c.keys); i += len(Key{}) {
			k := Key(c.keys[i : i+len(Key{})])
			p, ok := s.blobs[k]
			if !ok {
				return false
			}
			s.refs = append(s.refs, k)
			s.live += p.n
		}
		for k := range s.kept {
			s.live += s.blobs[k].n
		}
		s.commit, s.end, s.notes = append([]byte{}, c.payload...), end, nil
	case kindNote:
		if s.commit == nil || len(pending) > 0 || len(r.payload) < 8 {
			return false
		}
		s.notes, s.end = append(s.notes, append([]byte{}, r.payload[8:]...)), end
	case kindEnd:
		s.ended, s.end = true, end
	default:
		return false
	}
	return true
}

// lost looks at what follows the last whole record, which ends at at: a torn
// tail, or commits that were on the disk.
func (s *scanned) lost(rest []byte, at int64) {
	for i := 0; ; i++ {
		j := bytes.Index(rest[i:], []byte(magic))
		if j < 0 {
			return
		}
		i += j
		r, ok := parse(rest[i:])
		if !ok {
			continue
		}
		s.seen = max(s.seen, r.gen)
		if r.gen < s.gen || r.epoch < s.epoch {
			continue
		}
		damaged := r.kind == kindOpen || r.kind == kindEnd
		if (r.kind == kindCommit || r.kind == kindNote) && len(r.payload) >= 8 {
			damaged = int64(binary.LittleEndian.Uint64(r.payload)) > at
		}
		if damaged && r.gen > s.damagedGen {
			s.damaged = fmt.Errorf("%w: at byte %d, and there is a whole record after it, at byte %d", ErrDamaged, at, at+int64(i))
			s.damagedGen = r.gen
		}
	}
}

// commit is a commit as read.
type commit struct{ keys, drops, payload []byte }

// dropped calls f with each key that the commit drops.
func (c *commit) dropped(f func(Key)) {
	for d := c.drops; len(d) > 0; d = d[len(Key{}):] {
		f(Key(d[:len(Key{})]))
	}
}

func parseCommit(p []byte) (c commit, ok bool) {
	if len(p) < commitHead {
		return c, false
	}
	n, d := uint64(binary.LittleEndian.Uint32(p[8:])), uint64(binary.LittleEndian.Uint32(p[12:]))
	p = p[commitHead:]
	if n > maxBlobs || d > maxBlobs || (n+d)*uint64(len(Key{})) > uint64(len(p)) {
		return c, false
	}
	k, e := int(n)*len(Key{}), int(n+d)*len(Key{})
	return commit{p[:k], p[k:e], p[e:]}, true
}

// appendHead appends what a head says.
func appendHead(b []byte, id Identity) []byte {
	b = binary.LittleEndian.AppendUint32(b, version)
	for _, s := range []string{id.Module, id.Class, id.Name} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

func parseHead(b []byte) (id Identity, ok bool) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != version {
		return id, false
	}
	b = b[4:]
	for _, s := range []*string{&id.Module, &id.Class, &id.Name} {
		if len(b) < 4 {
			return id, false
		}
		n := binary.LittleEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) {
			return id, false
		}
		*s, b = string(b[:n]), b[n:]
	}
	return id, len(b) == 0
}

// readAll reads a file from its beginning to its end.
func readAll(f File) ([]byte, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, MaxFile+1))
	if err == nil && int64(len(b)) > MaxFile {
		err = errors.New("the file is too long")
	}
	return b, err
}
