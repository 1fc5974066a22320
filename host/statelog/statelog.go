// Package statelog keeps the history of one durable actor on stable storage.
//
// A log is a pair of files, of which one is current. A file holds records that
// are only ever appended:
//
//	 0  [4]byte  "wrya"
//	 4  u32      CRC-32C of the record from here on
//	 8  u32      length of the payload
//	12  u32      kind
//	16  u64      generation of the file
//	24  u64      epoch of who wrote it
//	32           the payload
//
// all little-endian. The first is a head, which says whose log it is. An open
// begins an epoch, behind what an earlier one left; blobs are what commits refer to by key, so that what does not
// change is written once; a commit is all of the actor but that, and says where
// the file ended that the commit before it had on the disk; an end says that the
// actor was killed.
//
// Commit returns when its record, and all it refers to, is on the disk. When
// the current file is long enough, the next commit goes, with its blobs, into
// the other one, as a generation of its own; the old one is left alone until
// then, so a crash finds a whole log at any moment. No name changes, so who
// writes needs two descriptors and no directory.
//
// What a crash leaves behind the last commit is dropped. What is damaged before
// it is an error, ErrDamaged: acknowledged calls are never dropped silently.
package statelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// File is a file of a log. An [os.File] is one.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	// Sync returns when what was written is on stable storage. After an error
	// that is not known of anything written since the last Sync.
	Sync() error
	io.Closer
}

// Identity says whose log it is. Name is the actor's. Module is the content of
// the program, which alone understands the state.
type Identity struct{ Module, Class, Name string }

// Key names a blob: no two blobs of a log have the same.
type Key [16]byte

// Blob is something that a commit refers to. Data is called where the log does
// not have it yet.
type Blob struct {
	Key  Key
	Data func() ([]byte, error)
}

// Errors of Open and Commit.
var (
	// ErrDamaged says that a record before the last commit is not whole.
	ErrDamaged = errors.New("statelog: the log is damaged")
	// ErrForeign says that a log is another actor's, or another program's.
	ErrForeign = errors.New("statelog: the log is of another program")
	// ErrBroken says that a write failed in a way that leaves open what is on the
	// disk. The log takes nothing more; opening it again finds out.
	ErrBroken = errors.New("statelog: an earlier write to the log failed")
	// ErrFenced says that somebody has opened the log since, or written to it.
	ErrFenced = errors.New("statelog: the log was opened by another since")
)

const (
	magic      = "wrya"
	headerSize = 32
	version    = 1

	// MaxPayload bounds a record.
	MaxPayload = 1 << 30
	maxBlobs   = 1 << 20

	// A file is long enough at minRewrite, or at rewriteFactor times what the next
	// generation begins with, whichever is more.
	rewriteFactor = 4
)

var minRewrite int64 = 4 << 20 // changed by tests

// Kinds of records.
const (
	kindHead uint32 = iota + 1
	kindOpen
	kindBlob
	kindCommit
	kindEnd
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Log is an open log. It is not for concurrent use.
type Log struct {
	files [2]File
	id    Identity
	epoch uint64

	cur    int
	gen    uint64 // of the current file; 0: there is none yet
	newest uint64 // generation that either file has seen
	end    int64  // of what is on the disk in the current file
	blobs  map[Key]place
	last   []byte // payload of the last commit; nil: none
	live   int64  // bytes that a new generation would begin with
	broken error
}

// place is where a blob lies in the current file.
type place struct{ off, n int64 }

// Open reads a log, which may be a pair of empty files, and begins an epoch.
// The files are the log's until Close, or the caller's on an error.
func Open(files [2]File, id Identity) (*Log, error) {
	l := &Log{files: files, id: id}
	var best *scanned
	var damaged error
	var epoch, damagedGen uint64
	for i, f := range files {
		s, err := scan(f)
		if err != nil {
			return nil, err
		}
		l.newest = max(l.newest, s.seen)
		epoch = max(epoch, s.epoch)
		if s.damagedGen > damagedGen {
			damaged, damagedGen = s.damaged, s.damagedGen
		}
		if s.whole() && (best == nil || s.gen > best.gen) {
			best, l.cur = s, i
		}
	}
	// An older generation may be half overwritten.
	if damaged != nil && (best == nil || damagedGen >= best.gen) {
		return nil, damaged
	}
	l.epoch = epoch + 1
	if best == nil {
		l.cur = 1 // the first generation goes into files[0]
		return l, nil
	}
	if best.ended {
		return l, nil // the next one's first generation leaves that file alone
	}
	if best.id != id {
		return nil, fmt.Errorf("%w: of the class %q, module %s, and not of the class %q, module %s",
			ErrForeign, best.id.Class, short(best.id.Module), id.Class, short(id.Module))
	}
	l.gen, l.end, l.blobs, l.last, l.live = best.gen, best.end, best.blobs, best.commit, best.live
	// What a crash left behind the end goes first, and the epoch is there before
	// anything is done in it.
	if err := files[l.cur].Truncate(l.end); err != nil {
		return nil, fmt.Errorf("statelog: cut what a crash left: %w", err)
	}
	if err := l.append(l.record(nil, kindOpen, nil)); err != nil {
		return nil, err
	}
	return l, nil
}

func short(module string) string { return module[:min(len(module), 12)] }

// Epoch returns the number of times the log was opened.
func (l *Log) Epoch() uint64 { return l.epoch }

// Last returns what the last commit said, nil where there is none. It is the
// log's.
func (l *Log) Last() []byte { return l.last }

// Blob returns a blob of the last commit.
func (l *Log) Blob(k Key) ([]byte, error) {
	p, ok := l.blobs[k]
	if !ok {
		return nil, fmt.Errorf("%w: a commit refers to %x, which is not there", ErrDamaged, k)
	}
	b := make([]byte, p.n)
	if _, err := l.files[l.cur].ReadAt(b, p.off); err != nil {
		return nil, fmt.Errorf("statelog: read back: %w", err)
	}
	r, ok := parse(b)
	if !ok || r.kind != kindBlob || len(r.payload) < len(k) || Key(r.payload[:len(k)]) != k {
		return nil, fmt.Errorf("%w: blob %x", ErrDamaged, k)
	}
	return r.payload[len(k):], nil
}

// Commit makes payload, with the blobs that it refers to, what the log says. On
// an error it says what it said before, or, with ErrBroken, one of the two.
func (l *Log) Commit(payload []byte, blobs []Blob) error {
	if l.broken != nil {
		return l.broken
	}
	if len(blobs) > maxBlobs {
		return fmt.Errorf("statelog: a commit refers to %d blobs, at most %d", len(blobs), maxBlobs)
	}
	if err := l.mine(); err != nil {
		return err
	}
	if l.gen == 0 || l.end > max(minRewrite, rewriteFactor*l.live) {
		return l.rewrite(payload, blobs)
	}
	var b []byte
	places := map[Key]place{}
	for _, blob := range blobs {
		if _, ok := l.blobs[blob.Key]; ok {
			continue
		}
		if _, ok := places[blob.Key]; ok {
			continue
		}
		data, err := blob.Data()
		if err != nil {
			return err
		}
		at := len(b)
		if b, err = l.blobRecord(b, l.gen, blob.Key, data); err != nil {
			return err
		}
		places[blob.Key] = place{l.end + int64(at), int64(len(b) - at)}
	}
	b, err := l.commitRecord(b, l.gen, l.end, payload, blobs)
	if err != nil {
		return err
	}
	if err := l.append(b); err != nil {
		return err
	}
	for k, p := range places {
		l.blobs[k] = p
	}
	l.committed(payload, blobs)
	return nil
}

// mine checks that the current file ends where this log had it end. Whoever
// opens a log sees to it that who had it before is gone; should that fail, this
// one notices.
func (l *Log) mine() error {
	var b [1]byte
	n, err := l.files[l.cur].ReadAt(b[:], l.end)
	if l.gen == 0 || n == 0 && err == io.EOF {
		return nil
	}
	if n > 0 {
		err = ErrFenced
	}
	return l.breaks(err)
}

func (l *Log) committed(payload []byte, blobs []Blob) {
	l.last = append(l.last[:0:0], payload...)
	l.live = int64(len(payload)) + 2*headerSize
	for _, b := range blobs {
		l.live += l.blobs[b.Key].n
	}
}

// rewrite commits into the other file.
func (l *Log) rewrite(payload []byte, blobs []Blob) error {
	gen, to := l.newest+1, 1-l.cur
	b, err := l.recordOf(nil, gen, kindHead, appendHead(nil, l.id))
	if err != nil {
		return err
	}
	places := map[Key]place{}
	for _, blob := range blobs {
		if _, ok := places[blob.Key]; ok {
			continue
		}
		var data []byte
		if _, ok := l.blobs[blob.Key]; ok {
			data, err = l.Blob(blob.Key)
		} else {
			data, err = blob.Data()
		}
		if err != nil {
			return err
		}
		at := len(b)
		if b, err = l.blobRecord(b, gen, blob.Key, data); err != nil {
			return err
		}
		places[blob.Key] = place{int64(at), int64(len(b) - at)}
	}
	if b, err = l.commitRecord(b, gen, 0, payload, blobs); err != nil {
		return err
	}
	f := l.files[to]
	l.newest = gen // whatever becomes of it, no other file has this one
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("statelog: begin a new file: %w", err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		_ = f.Truncate(0) // not whole, so it does not count
		return fmt.Errorf("statelog: write: %w", err)
	}
	if err := f.Sync(); err != nil {
		return l.breaks(err)
	}
	l.cur, l.gen, l.end, l.blobs = to, gen, int64(len(b)), places
	l.committed(payload, blobs)
	return nil
}

// End says that the actor is no more: opened again, the log is empty.
func (l *Log) End() error {
	if l.broken != nil {
		return l.broken
	}
	if l.gen == 0 {
		return nil
	}
	if err := l.mine(); err != nil {
		return err
	}
	return l.append(l.record(nil, kindEnd, nil))
}

// Close closes the files. It is idempotent.
func (l *Log) Close() error {
	if l.broken == errClosed {
		return nil
	}
	l.broken = errClosed
	return errors.Join(l.files[0].Close(), l.files[1].Close())
}

var errClosed = fmt.Errorf("%w: it is closed", ErrBroken)

// append writes records to the current file, and returns when they are on the
// disk.
func (l *Log) append(b []byte) error {
	f := l.files[l.cur]
	if _, err := f.WriteAt(b, l.end); err != nil {
		err = fmt.Errorf("statelog: write: %w", err)
		if cut := f.Truncate(l.end); cut != nil {
			return l.breaks(errors.Join(err, cut))
		}
		return err
	}
	if err := f.Sync(); err != nil {
		return l.breaks(err)
	}
	l.end += int64(len(b))
	return nil
}

// breaks takes note that it is not known what is on the disk.
func (l *Log) breaks(err error) error {
	l.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	return l.broken
}

func (l *Log) record(b []byte, kind uint32, payload []byte) []byte {
	b, _ = l.recordOf(b, l.gen, kind, payload)
	return b
}

// recordOf appends a record to b.
func (l *Log) recordOf(b []byte, gen uint64, kind uint32, payload []byte) ([]byte, error) {
	if len(payload) > MaxPayload {
		return b, fmt.Errorf("statelog: a record of %d bytes, at most %d", len(payload), MaxPayload)
	}
	at := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint64(b, gen)
	b = binary.LittleEndian.AppendUint64(b, l.epoch)
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(b[at+8:], castagnoli))
	return b, nil
}

func (l *Log) blobRecord(b []byte, gen uint64, k Key, data []byte) ([]byte, error) {
	return l.recordOf(b, gen, kindBlob, append(append(make([]byte, 0, len(k)+len(data)), k[:]...), data...))
}

// commitRecord appends a commit: where the file ended before, the blobs, and
// the payload.
func (l *Log) commitRecord(b []byte, gen uint64, before int64, payload []byte, blobs []Blob) ([]byte, error) {
	p := make([]byte, 0, 12+len(blobs)*len(Key{})+len(payload))
	p = binary.LittleEndian.AppendUint64(p, uint64(before))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(blobs)))
	for i := range blobs {
		p = append(p, blobs[i].Key[:]...)
	}
	return l.recordOf(b, gen, kindCommit, append(p, payload...))
}
