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
// the file ended that the commit before it had on the disk; kept blobs belong to
// all commits until one drops them; a note says what is under way since the last
// commit, and is nothing more when the next one is there; an end says that the
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
// the program, which alone understands the state. Where Class is empty the log
// is opened whatever its class.
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
	version    = 2

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
	kindKeep
	kindNote
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
	kept   map[Key]struct{} // those of blobs that stay until they are dropped
	last   []byte           // payload of the last commit; nil: none
	refs   []Key            // blobs that it refers to, less those kept
	notes  [][]byte         // since
	live   int64            // bytes that a new generation would begin with
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
	if id.Class == "" {
		l.id.Class = best.id.Class
		id = l.id
	}
	if best.id != id {
		return nil, fmt.Errorf("%w: of the class %q, module %s, and not of the class %q, module %s",
			ErrForeign, best.id.Class, short(best.id.Module), id.Class, short(id.Module))
	}
	l.gen, l.end, l.blobs, l.last, l.live = best.gen, best.end, best.blobs, best.commit, best.live
	l.kept, l.refs, l.notes = best.kept, best.refs, best.notes
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

// Identity says whose log it is.
func (l *Log) Identity() Identity { return l.id }

// Epoch returns the number of times the log was opened.
func (l *Log) Epoch() uint64 { return l.epoch }

// Last returns what the last commit said, nil where there is none. It is the
// log's.
func (l *Log) Last() []byte { return l.last }

// Notes returns what was noted since the last commit, oldest first. It is the
// log's.
func (l *Log) Notes() [][]byte { return l.notes }

// Kept calls yield for each blob that is kept, in no order, until it returns
// false.
func (l *Log) Kept(yield func(Key) bool) {
	for k := range l.kept {
		if !yield(k) {
			return
		}
	}
}

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
	if !ok || r.kind != kindBlob && r.kind != kindKeep || len(r.payload) < len(k) || Key(r.payload[:len(k)]) != k {
		return nil, fmt.Errorf("%w: blob %x", ErrDamaged, k)
	}
	return r.payload[len(k):], nil
}

// Change is what a commit makes the log say.
type Change struct {
	Payload []byte
	Blobs   []Blob // all that Payload refers to, less what is kept
	Keep    []Blob // blobs that are the log's until they are dropped
	Drop    []Key  // of blobs that were kept; keys of others are of no effect
}

// Commit makes c what the log says; notes are forgotten. On an error it says
// what it said before, or, with ErrBroken, one of the two.
func (l *Log) Commit(c Change) error {
	if l.broken != nil {
		return l.broken
	}
	if n := max(len(c.Blobs), len(c.Keep)+len(l.kept), len(c.Drop)); n > maxBlobs {
		return fmt.Errorf("statelog: a commit refers to %d blobs, at most %d", n, maxBlobs)
	}
	if err := l.mine(); err != nil {
		return err
	}
	if l.gen == 0 || l.end > max(minRewrite, rewriteFactor*l.live) {
		return l.rewrite(&c)
	}
	w := blobWriter{l: l, gen: l.gen, at: l.end, places: map[Key]place{}}
	for i := range c.Blobs {
		if _, ok := l.blobs[c.Blobs[i].Key]; !ok {
			w.add(kindBlob, &c.Blobs[i])
		}
	}
	for i := range c.Keep {
		w.add(kindKeep, &c.Keep[i])
	}
	if w.err != nil {
		return w.err
	}
	b, err := l.commitRecord(w.b, l.gen, l.end, &c)
	if err != nil {
		return err
	}
	if err := l.append(b); err != nil {
		return err
	}
	for _, k := range c.Drop {
		if _, ok := l.kept[k]; ok {
			delete(l.kept, k)
			delete(l.blobs, k)
		}
	}
	for k, p := range w.places {
		l.blobs[k] = p
	}
	l.committed(&c)
	return nil
}

// Note puts on stable storage what a commit that is to come will stand for: what
// is under way. There must have been a commit.
func (l *Log) Note(payload []byte) error {
	if l.broken != nil {
		return l.broken
	}
	if l.gen == 0 {
		return errors.New("statelog: a note before the first commit")
	}
	if err := l.mine(); err != nil {
		return err
	}
	b, err := l.recordOf(nil, l.gen, kindNote, append(binary.LittleEndian.AppendUint64(nil, uint64(l.end)), payload...))
	if err != nil {
		return err
	}
	if err := l.append(b); err != nil {
		return err
	}
	l.notes = append(l.notes, append([]byte{}, payload...))
	return nil
}

// blobWriter makes records of blobs.
type blobWriter struct {
	l      *Log
	gen    uint64
	at     int64 // in the file, of what is in b
	b      []byte
	places map[Key]place
	err    error
}

// add adds a blob that is not there yet.
func (w *blobWriter) add(kind uint32, blob *Blob) {
	if _, ok := w.places[blob.Key]; ok || w.err != nil {
		return
	}
	data, err := blob.Data()
	if err != nil {
		w.err = err
		return
	}
	at := len(w.b)
	k := blob.Key
	if w.b, w.err = w.l.recordOf(w.b, w.gen, kind, append(append(make([]byte, 0, len(k)+len(data)), k[:]...), data...)); w.err == nil {
		w.places[k] = place{w.at + int64(at), int64(len(w.b) - at)}
	}
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

// committed takes note of c, whose blobs are in l.blobs.
func (l *Log) committed(c *Change) {
	l.last = append(l.last[:0:0], c.Payload...)
	l.notes = nil
	if l.kept == nil {
		l.kept = map[Key]struct{}{}
	}
	l.live = int64(len(c.Payload)) + 2*headerSize
	l.refs = l.refs[:0]
	for i := range c.Blobs {
		l.refs = append(l.refs, c.Blobs[i].Key)
		l.live += l.blobs[c.Blobs[i].Key].n
	}
	for i := range c.Keep {
		l.kept[c.Keep[i].Key] = struct{}{}
	}
	for k := range l.kept {
		l.live += l.blobs[k].n
	}
}

// Again returns the blobs of the last commit, for one with another payload.
func (l *Log) Again() []Blob {
	blobs := make([]Blob, len(l.refs))
	for i, k := range l.refs {
		blobs[i] = l.old(k)
	}
	return blobs
}

// old returns a blob that is in the current file.
func (l *Log) old(k Key) Blob {
	return Blob{Key: k, Data: func() ([]byte, error) { return l.Blob(k) }}
}

// rewrite commits into the other file.
func (l *Log) rewrite(c *Change) error {
	gen, to := l.newest+1, 1-l.cur
	b, err := l.recordOf(nil, gen, kindHead, appendHead(nil, l.id))
	if err != nil {
		return err
	}
	w := blobWriter{l: l, gen: gen, b: b, places: map[Key]place{}}
	for i := range c.Blobs {
		blob := c.Blobs[i]
		if _, ok := l.blobs[blob.Key]; ok {
			blob = l.old(blob.Key)
		}
		w.add(kindBlob, &blob)
	}
	kept := map[Key]struct{}{}
	for k := range l.kept {
		kept[k] = struct{}{}
	}
	for _, k := range c.Drop {
		delete(kept, k)
	}
	for i := range c.Keep {
		w.add(kindKeep, &c.Keep[i])
		delete(kept, c.Keep[i].Key)
	}
	for k := range kept {
		blob := l.old(k)
		w.add(kindKeep, &blob)
	}
	if w.err != nil {
		return w.err
	}
	if b, err = l.commitRecord(w.b, gen, 0, c); err != nil {
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
	l.cur, l.gen, l.end, l.blobs, l.kept = to, gen, int64(len(b)), w.places, kept
	l.committed(c)
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

// commitRecord appends a commit: where the file ended before, how many keys of
// blobs and of those dropped follow, these, and the payload.
func (l *Log) commitRecord(b []byte, gen uint64, before int64, c *Change) ([]byte, error) {
	p := make([]byte, 0, commitHead+(len(c.Blobs)+len(c.Drop))*len(Key{})+len(c.Payload))
	p = binary.LittleEndian.AppendUint64(p, uint64(before))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(c.Blobs)))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(c.Drop)))
	for i := range c.Blobs {
		p = append(p, c.Blobs[i].Key[:]...)
	}
	for i := range c.Drop {
		p = append(p, c.Drop[i][:]...)
	}
	return l.recordOf(b, gen, kindCommit, append(p, c.Payload...))
}

// commitHead is what a commit begins with.
const commitHead = 16
