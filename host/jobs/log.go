package jobs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/wray-project/wray/internal/clientwire"
)

// A log is what one job printed, in two files: new is written to, and when it is
// as long as half of the limit it takes the place of old. So the newest output
// is kept, at least half of the limit of it.
//
// A file begins with a header of 16 bytes, the magic and the offset of what
// follows it in the whole log. Then come records:
//
//	u32 length of what follows the checksum
//	u32 CRC-32C of the record's offset in the whole log and what follows
//	i64 time, Unix milliseconds
//	u8  stream
//	u16 length of the task's name, and the name
//	the bytes that were printed
//
// Numbers are little-endian. The checksum covers the offset, so that an offset
// at which no record begins is told from one at which one does, whoever made
// it up. A record that was being written when the process ended is cut off.
const (
	newLog, oldLog = "output.new", "output.old"
	logMagic       = "wrayjob1"
	logHeader      = 16
	recordHead     = 8
	recordFixed    = 8 + 1 + 2
	maxData        = 64 << 10 // of one record; more is cut into several
	maxTask        = 4 << 10  // bytes of a task's name that are kept
	maxRecord      = recordFixed + maxTask + maxData
)

// minLog is the smallest limit: each of the two files takes one record at least.
const minLog = 2 * (logHeader + recordHead + maxRecord)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// ErrOffset says that no part of a log begins where one was asked for.
var ErrOffset = errors.New("no part of the log begins at that offset")

// log is the output of a job. Its methods may be called by any goroutines.
type log struct {
	dir   string
	limit int64 // of the records of both files, in bytes

	mu      sync.Mutex
	files   [2]segment    // guarded by mu; old and new
	failed  error         // guarded by mu; what ended the writing
	ended   bool          // guarded by mu; nothing is written any more
	changed chan struct{} // guarded by mu; closed when there is more, or no more; nil while nobody waits
	buf     []byte        // guarded by mu; of append
}

// segment is one of the files. Without a file it is empty, and at start.
type segment struct {
	f     *os.File
	start int64 // offset in the whole log of its first record
	size  int64 // bytes of its records
}

func (s *segment) end() int64 { return s.start + s.size }

// openLog opens the log that is kept in dir, which is there, or begins one.
func openLog(dir string, limit int64) (*log, error) {
	l := &log{dir: dir, limit: max(limit, minLog)}
	for i, name := range []string{oldLog, newLog} {
		s, err := openSegment(filepath.Join(dir, name))
		if err != nil {
			l.close()
			return nil, err
		}
		l.files[i] = s
	}
	old, now := &l.files[0], &l.files[1]
	switch {
	case now.f != nil && old.f != nil && old.end() != now.start:
		// Cut off at its end, as new ones are alone: what is between is lost.
		old.f.Close()
		*old = segment{start: now.start}
	case now.f != nil && old.f == nil:
		*old = segment{start: now.start}
	case now.f == nil:
		now.start = old.end()
	}
	return l, nil
}

// openSegment reads a file's header and finds the end of its last whole record.
func openSegment(path string) (s segment, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil || s.f == nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return s, err
	}
	var head [logHeader]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || string(head[:8]) != logMagic || binary.LittleEndian.Uint64(head[8:]) > 1<<62 {
		return s, nil // it was being made
	}
	s = segment{f: f, start: int64(binary.LittleEndian.Uint64(head[8:]))}
	for pos := int64(0); ; {
		_, n, err := s.read(s.start+pos, st.Size()-logHeader-pos)
		if err != nil {
			s.size = pos
			return s, f.Truncate(logHeader + pos)
		}
		pos += n
		if pos == st.Size()-logHeader {
			s.size = pos
			return s, nil
		}
	}
}

// read returns the record at an offset of the whole log, and its length. left
// is the bytes of the file from there on.
func (s *segment) read(off, left int64) (out clientwire.JobOutput, n int64, err error) {
	var head [recordHead]byte
	if left < recordHead+recordFixed {
		return out, 0, ErrOffset
	}
	pos := logHeader + off - s.start
	if _, err := s.f.ReadAt(head[:], pos); err != nil {
		return out, 0, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:]))
	if size < recordFixed || size > maxRecord || size > left-recordHead {
		return out, 0, ErrOffset
	}
	b := make([]byte, size)
	if _, err := s.f.ReadAt(b, pos+recordHead); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrOffset
		}
		return out, 0, err
	}
	if binary.LittleEndian.Uint32(head[4:]) != checksum(off, b) {
		return out, 0, ErrOffset
	}
	task := int64(binary.LittleEndian.Uint16(b[9:]))
	if task > size-recordFixed {
		return out, 0, ErrOffset
	}
	out.Time = int64(binary.LittleEndian.Uint64(b))
	out.Stream = b[8]
	out.Task = string(b[recordFixed : recordFixed+task])
	out.Data = b[recordFixed+task:]
	return out, recordHead + size, nil
}

func checksum(off int64, body []byte) uint32 {
	var at [8]byte
	binary.LittleEndian.PutUint64(at[:], uint64(off))
	return crc32.Update(crc32.Checksum(at[:], crcTable), crcTable, body)
}

// append writes what a job printed. The first failure to write ends the log, and
// is what every later call returns.
func (l *log) append(now int64, task string, stream uint8, data []byte) error {
	// Names are guests', and listings are texts.
	task = strings.ToValidUTF8(task[:min(len(task), maxTask)], "")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.failed != nil {
		return l.failed
	}
	for len(data) > 0 {
		some := data[:min(len(data), maxData)]
		data = data[len(some):]
		if l.failed = l.appendLocked(now, task, stream, some); l.failed != nil {
			break
		}
	}
	l.wakeLocked()
	return l.failed
}

func (l *log) appendLocked(now int64, task string, stream uint8, data []byte) error {
	size := recordHead + recordFixed + len(task) + len(data)
	s := &l.files[1]
	if s.f == nil || s.size > 0 && s.size+int64(size) > l.limit/2 {
		if err := l.turnLocked(); err != nil {
			return err
		}
	}
	b := binary.LittleEndian.AppendUint32(l.buf[:0], uint32(size-recordHead))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(now))
	b = append(b, stream)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(task)))
	b = append(append(b, task...), data...)
	binary.LittleEndian.PutUint32(b[4:], checksum(s.end(), b[recordHead:]))
	l.buf = b
	if _, err := s.f.WriteAt(b, logHeader+s.size); err != nil {
		_ = s.f.Truncate(logHeader + s.size) // so that no half of it is there
		return err
	}
	s.size += int64(size)
	return nil
}

// turnLocked puts the new file in the old one's place, and begins another.
func (l *log) turnLocked() error {
	s := &l.files[1]
	if s.f != nil {
		if err := os.Rename(filepath.Join(l.dir, newLog), filepath.Join(l.dir, oldLog)); err != nil {
			return err
		}
		if old := l.files[0].f; old != nil {
			old.Close()
		}
		l.files[0] = *s
		*s = segment{start: s.end()}
	}
	f, err := os.OpenFile(filepath.Join(l.dir, newLog), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	head := binary.LittleEndian.AppendUint64([]byte(logMagic), uint64(s.start))
	if _, err := f.WriteAt(head, 0); err != nil {
		f.Close()
		return err
	}
	s.f = f
	return nil
}

// read returns what follows an offset, some maxPart bytes at most, and a channel
// that is closed when there is more, where it returns nothing.
func (l *log) read(off int64) (part clientwire.JobLogs, more <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, end := l.files[0].start, l.files[1].end()
	if off < 0 || off > end {
		return part, nil, fmt.Errorf("%w: %d, it has %d to %d", ErrOffset, off, first, end)
	}
	if off < first {
		part.Dropped = first - off
		off = first
	}
	total := 0
	for i := range l.files {
		s := &l.files[i]
		for off < s.end() && total < maxPart && len(part.Parts) < maxParts {
			out, n, err := s.read(off, s.end()-off)
			if err != nil {
				return part, nil, fmt.Errorf("%w: %d", err, off)
			}
			off += n
			total += len(out.Data) + len(out.Task)
			part.Parts = append(part.Parts, out)
		}
	}
	part.Parts = joined(part.Parts)
	part.Next = off
	part.End = l.ended && off == end
	if off == end && !l.ended {
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		more = l.changed
	}
	return part, more, nil
}

// Bounds of one answer.
const (
	maxPart  = 1 << 20
	maxParts = 16 << 10
)

// joined makes one of parts that follow each other and differ in time alone, by
// less than a second: most are lines of one task.
func joined(parts []clientwire.JobOutput) []clientwire.JobOutput {
	var out []clientwire.JobOutput
	for _, p := range parts {
		if n := len(out); n > 0 {
			if o := &out[n-1]; o.Task == p.Task && o.Stream == p.Stream && p.Time-o.Time < 1000 && bytes.HasSuffix(o.Data, []byte("\n")) {
				o.Data = append(o.Data, p.Data...)
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

// end says that nothing is written any more.
func (l *log) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wakeLocked()
}

func (l *log) wakeLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// close lets go of the files. Reads fail from then on.
func (l *log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wakeLocked()
	for i := range l.files {
		if f := l.files[i].f; f != nil {
			f.Close()
		}
	}
}
