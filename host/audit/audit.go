// Package audit is a log of decisions that matter: who did what to what, and
// whether it was allowed. Records are lines of JSON, each with the hash of the
// line before it, so that none can be changed, removed or put in between without
// all that follow it being written again. The log is a directory of files; the
// chain goes on from each to the next.
//
// A log takes so much of a disk and no more: beyond that the oldest files are
// removed, which the chain says before, so that [Verify] tells a file that the log
// removed from one that somebody did.
//
// What is cut off at the end of the newest file cannot be told from what was
// never written, nor a log that was written anew, hashes and all, from the first
// one: who must be sure of that keeps the number and the hash of the last record
// elsewhere, which [Verify] gives, for [VerifyKept].
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/wray-project/wray/internal/fd"
)

// Decisions.
const (
	Allowed = "allowed"
	Denied  = "denied"
	Failed  = "failed" // it was allowed, and did not happen
)

// Event is what is recorded. None of its fields may have a secret.
type Event struct {
	Who      string `json:"who"`              // a principal, as package access names it
	Tenant   string `json:"tenant,omitempty"` // of whom
	Token    string `json:"token,omitempty"`  // the ID of the token it was known by
	From     string `json:"from,omitempty"`   // an address
	Action   string `json:"action"`
	Object   string `json:"object,omitempty"`
	Decision string `json:"decision"`
	Why      string `json:"why,omitempty"`
}

// Record is a line of the log.
type Record struct {
	Seq  uint64 `json:"seq"`  // from 1, without gaps
	Time string `json:"time"` // RFC 3339, UTC, with microseconds
	Event
	// Dropped is how many events are not recorded since the last record: of what was
	// denied or failed, because there were too many; of any, while the log could not
	// be written.
	Dropped uint64 `json:"dropped,omitempty"`
	// Prev is the SHA-256 of the line before, in hexadecimal; of zeros in the first.
	Prev string `json:"prev"`
}

// Bounds.
const (
	// MaxLine is the bytes of a line, its end included.
	MaxLine = 64 << 10
	// maxField is the bytes kept of a field of an event.
	maxField = 1 << 10
	// DefaultFile is the bytes after which a file is followed by another.
	DefaultFile = 64 << 20
	// DefaultKeep is the bytes that the files of a log take together, about.
	DefaultKeep = 2 << 30
	// maxBudgets is of how many tenants failures are counted each for itself.
	maxBudgets = 1000
)

// Actions of the log's own records.
const (
	actRepair  = "audit.repair"  // half a record was removed
	actDropped = "audit.dropped" // see Record.Dropped
	actRetire  = "audit.retire"  // the oldest file is removed
	actResume  = "audit.resume"  // it is written again, after it could not be
)

// first is the Prev of the first record.
var first = strings.Repeat("0", 2*sha256.Size)

// Options say how a log is kept.
type Options struct {
	// File is the bytes after which another file is begun; 0 is DefaultFile.
	File int64
	// Keep is the bytes of all files beyond which the oldest is removed; 0 is
	// DefaultKeep, less than 0 keeps all. The newest two stay in any case.
	Keep int64
	// Denials is how many denied requests are recorded in each second, and of each
	// tenant how many that failed, beyond which they are counted; 0 is 20.
	Denials int
	// SyncEach has each record on stable storage before Write returns. Else that is
	// so within SyncWithin, but for records of what was allowed or failed, which
	// are synced at once: denials are many, and lose little.
	SyncEach bool
	Now      func() time.Time // nil is time.Now
	Warn     *slog.Logger     // nil drops what it says
}

// SyncWithin is how long a record of a denial may take to be on stable storage.
const SyncWithin = time.Second

// Log is a log that is written. Its methods may be called by any number of
// goroutines. A nil one records nothing.
type Log struct {
	dir  string
	o    Options
	lock *os.File

	mu      sync.Mutex
	f       *os.File       // guarded by mu, as is all that follows
	size    int64          // of f
	seq     uint64         // of the last record
	prev    string         // its hash
	spent   map[string]int // what is denied and has failed in this second, by whose budget
	second  int64          // this second
	dropped uint64
	dirty   bool // f has what is not synced
	failed  error
	whole   bool          // while it has failed: f is open, and as long as size says
	tried   time.Time     // when it was last tried whether it can be written again
	wait    time.Duration // after tried, in which it is not
	sure    int64         // of f, so many bytes have their place on the disk
	begun   bool          // a file was, and it is not seen yet whether another is too much
	timer   *time.Timer   // that syncs, and records what was dropped; nil: not under way
	closed  bool
}

// fileName is the name of the file whose first record has a number. Names sort as
// numbers do.
func fileName(seq uint64) string { return fmt.Sprintf("audit-%020d.jsonl", seq) }

// Open opens the log in a directory, which is made, for this user alone, and goes
// on where it was. A line that was cut off, as by a crash, is removed and said.
// A log that does not hold together in its newest file is refused: move it away
// and keep it.
func Open(dir string, o Options) (_ *Log, err error) {
	if o.File <= 0 {
		o.File = DefaultFile
	}
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	if o.Denials <= 0 {
		o.Denials = 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, o: o, prev: first}
	if l.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.lock.Close()
		}
	}()
	if err := fd.TryLock(l.lock); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("audit log %s: another process writes it: %w", dir, err)
	}
	names, err := files(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return l, l.begin()
	}
	if err := l.resume(names[len(names)-1]); err != nil {
		return nil, err
	}
	return l, l.retireLocked() // nobody else has it yet
}

// files are the names of a log's files, in order.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "audit-") && strings.HasSuffix(e.Name(), ".jsonl") && len(e.Name()) == len(fileName(0)) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// resume goes on in the newest file.
func (l *Log) resume(name string) error {
	path := filepath.Join(l.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	c := &chain{}
	good, torn, err := c.read(f, nil)
	if err != nil {
		f.Close()
		return fmt.Errorf("audit log %s: %w: move the directory away and keep it, and another is begun", path, err)
	}
	if c.last == 0 { // it was begun, and nothing was written
		var seq uint64
		if _, err := fmt.Sscanf(name, "audit-%d.jsonl", &seq); err != nil || seq == 0 {
			f.Close()
			return fmt.Errorf("audit log %s: that is no name of a log's file", path)
		}
		if seq > 1 {
			if c.last, c.prev, err = l.lastBefore(name); err != nil || c.last != seq-1 {
				f.Close()
				return fmt.Errorf("audit log %s: the file before it ends at %d: %w", path, c.last, errors.Join(errBroken, err))
			}
		}
	}
	if torn > 0 {
		l.o.Warn.Warn("the audit log ended in the middle of a record, which was removed", "file", path, "bytes", torn, "after", c.last)
		if err := errors.Join(f.Truncate(good), f.Sync()); err != nil {
			f.Close()
			return err
		}
	}
	l.f, l.size, l.seq, l.prev, l.sure, l.dirty = f, good, c.last, c.prev, 0, false
	if l.prev == "" {
		l.prev = first
	}
	if torn > 0 {
		return l.writeLocked(Event{Who: self, Action: actRepair, Object: name, Decision: Allowed, Why: fmt.Sprintf("%d bytes of a record that was cut off were removed", torn)}, l.o.Now())
	}
	return nil
}

// lastBefore is the number and the hash of the last record before a file.
func (l *Log) lastBefore(name string) (uint64, string, error) {
	names, err := files(l.dir)
	if err != nil {
		return 0, "", err
	}
	i := slices.Index(names, name)
	if i < 1 {
		return 0, "", errors.New("there is none")
	}
	f, err := os.Open(filepath.Join(l.dir, names[i-1]))
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	c := &chain{}
	_, torn, err := c.read(f, nil)
	if err == nil && torn > 0 {
		err = errors.New("it ends in the middle of a record")
	}
	return c.last, c.prev, err
}

// begin begins a file with the next record.
func (l *Log) begin() error {
	f, err := os.OpenFile(filepath.Join(l.dir, fileName(l.seq+1)), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(l.dir); err != nil {
		f.Close()
		return err
	}
	l.f, l.size, l.sure, l.begun = f, 0, 0, true
	return nil
}

// self is who writes the log's own records.
const self = "this log"

// syncDir has the names in a directory on stable storage, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// clean is a field as it is kept.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > maxField {
		cut := maxField
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// Write records an event. What is denied or has failed may be counted in place of
// that: see Options. After an error, as on a full disk, what comes is counted, and
// it is tried whether the log can be written again, once in a second at most;
// Write returns the error meanwhile. Whoever must not act without a record of it
// asks Ready before.
func (l *Log) Write(e Event) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.f == nil {
		return fs.ErrClosed
	}
	now := l.o.Now()
	if !l.spendLocked(&e, now) {
		l.dropped++
		if l.failed == nil {
			l.laterLocked()
		}
		return nil
	}
	err := l.mendLocked(now)
	if err == nil {
		err = l.writeLocked(e, now)
	}
	if err != nil {
		l.dropped++
		return err
	}
	if l.begun {
		return l.retireLocked()
	}
	return nil
}

// spendLocked takes an event off the budget that it has; false where that is
// spent. Anybody may have requests denied, and a tenant's people have some fail:
// they are not to fill a disk, nor to take the places of others' records.
func (l *Log) spendLocked(e *Event, now time.Time) bool {
	if s := now.Unix(); s != l.second || l.spent == nil {
		l.second, l.spent = s, map[string]int{}
	}
	whose := "denied"
	switch {
	case e.Decision == Allowed:
		return true
	// Of a tenant's own guests, which need no credential to have much denied.
	case strings.HasPrefix(e.Who, "tenant ") && len(l.spent) < maxBudgets:
		whose = "denied of guests of " + e.Tenant
	case e.Decision == Failed && len(l.spent) < maxBudgets:
		whose = "failed of " + e.Tenant
	case e.Decision == Failed:
		whose = "failed of others"
	}
	if l.spent[whose] >= l.o.Denials {
		return false
	}
	l.spent[whose]++
	return true
}

// A log that could not be written is not tried again for mendEvery, nor for
// mendRest times what it took to try, where that is more, up to mendMost: to try
// may take the reading of a file, and anybody can have it tried.
const (
	mendEvery = time.Second
	mendRest  = 10
	mendMost  = time.Minute
)

// mendLocked has a log that could not be written go on, where it can be by now:
// from what is on disk, whatever was thought to be. That is read only where it may
// be other than what is known.
func (l *Log) mendLocked(now time.Time) error {
	if l.failed == nil {
		return nil
	}
	if at := now.Sub(l.tried); at >= 0 && at < l.wait {
		return l.failed
	}
	was := l.failed
	var err error
	if !l.asKnownLocked() {
		err = l.reopenLocked()
	}
	if err == nil {
		l.failed = nil
		err = l.writeLocked(Event{Who: self, Action: actResume, Decision: Allowed, Why: "it could not be written: " + was.Error()}, now)
	}
	if err != nil {
		l.failed, l.tried = was, l.o.Now()
		l.wait = min(max(mendEvery, mendRest*l.tried.Sub(now)), mendMost)
		return was
	}
	l.o.Warn.Warn("the audit log is written again", "dir", l.dir)
	return nil
}

// asKnownLocked reports whether the file is on disk as it is known here.
func (l *Log) asKnownLocked() bool {
	if !l.whole {
		return false
	}
	open, err := l.f.Stat()
	named, err2 := os.Stat(l.f.Name()) // somebody may have moved it away
	return err == nil && err2 == nil && os.SameFile(open, named) && open.Size() == l.size
}

// reopenLocked goes on from what is on disk.
func (l *Log) reopenLocked() error {
	l.whole = false
	_ = l.f.Close() // which may be so already
	names, err := files(l.dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("its files are gone")
	}
	return l.resume(names[len(names)-1])
}

// reserve is what Ready wants on the disk: room for what may be recorded before
// who asked writes his record.
const reserve = 16 * MaxLine

// Ready returns nil where what is decided now can be recorded: the log can be
// written, and has its place on the disk, where the system gives one.
func (l *Log) Ready() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fs.ErrClosed
	}
	if err := l.mendLocked(l.o.Now()); err != nil {
		return err
	}
	if l.sure-l.size >= reserve/2 {
		return nil
	}
	if err := allocate(l.f, l.size, reserve); err != nil {
		return fmt.Errorf("audit log %s: make sure of its place on the disk: %w", l.dir, err) // what fits is recorded yet
	}
	l.sure = l.size + reserve
	return nil
}

func (l *Log) writeLocked(e Event, now time.Time) error {
	for _, s := range []*string{&e.Who, &e.Tenant, &e.Token, &e.From, &e.Action, &e.Object, &e.Decision, &e.Why} {
		*s = clean(*s)
	}
	line, err := json.Marshal(Record{Seq: l.seq + 1, Time: now.UTC().Format("2006-01-02T15:04:05.000000Z"), Event: e, Dropped: l.dropped, Prev: l.prev})
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if l.size > 0 && l.size+int64(len(line)) > l.o.File {
		if err := errors.Join(l.f.Truncate(l.size), l.f.Sync(), l.f.Close()); err != nil { // what was reserved is free again
			return l.failLocked(err)
		}
		if err := l.begin(); err != nil {
			return l.failLocked(err)
		}
		l.dirty = false
	}
	if _, err := l.f.Write(line); err != nil {
		// What was written of it is cut off, so that a later record does not stand
		// behind half of one.
		cut := l.f.Truncate(l.size)
		err = l.failLocked(errors.Join(err, cut))
		l.whole, l.sure = cut == nil, 0 // what was reserved is free again
		return err
	}
	l.size += int64(len(line))
	l.seq++
	l.prev = hashOf(line)
	l.dropped = 0
	l.dirty = true
	if l.o.SyncEach || e.Decision != Denied {
		if err := l.f.Sync(); err != nil {
			return l.failLocked(err)
		}
		l.dirty = false
		return nil
	}
	l.laterLocked()
	return nil
}

func (l *Log) failLocked(err error) error {
	l.failed, l.whole = fmt.Errorf("audit log %s: %w", l.dir, err), false
	l.tried, l.wait = l.o.Now(), mendEvery
	l.o.Warn.Error("the audit log cannot be written: what is done is counted, and users, tenants, nodes and operators are not changed, until it can", "err", l.failed)
	return l.failed
}

// laterLocked has settle called within SyncWithin.
func (l *Log) laterLocked() {
	if l.timer == nil {
		l.timer = time.AfterFunc(SyncWithin, l.settle)
	}
}

// settle syncs, and records how many denials were dropped.
func (l *Log) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	if !l.closed && l.failed == nil {
		_ = l.settleLocked() // which is in failed
	}
}

func (l *Log) settleLocked() error {
	if l.dropped > 0 {
		return l.writeLocked(Event{Who: self, Action: actDropped, Decision: Allowed, Why: "more requests were denied or failed than are recorded"}, l.o.Now())
	}
	if l.dirty {
		if err := l.f.Sync(); err != nil {
			return l.failLocked(err)
		}
		l.dirty = false
	}
	return nil
}

// Last is the number and the hash of the last record; 0 where there is none.
func (l *Log) Last() (uint64, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.prev
}

// Close has all on stable storage, and ends the log. It may be called more than
// once.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	var err error
	if l.failed == nil {
		err = l.settleLocked()
	}
	if l.failed == nil && l.sure > l.size {
		err = errors.Join(err, l.f.Truncate(l.size)) // what was reserved is free again
	}
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	return errors.Join(err, l.f.Close(), l.lock.Close())
}

func hashOf(line []byte) string {
	h := sha256.Sum256(line)
	return hex.EncodeToString(h[:])
}

var errBroken = errors.New("the chain is broken")

// chain is the state of who reads records and checks that each follows from the
// one before.
type chain struct {
	last uint64 // the number of the last record; 0: there was none
	prev string // its hash
}

// read reads lines to their end. good is how many bytes are whole and right, torn
// how many are of a line that has no end, which is the last. Where a line is
// wrong, the error says which, counted from 1.
func (c *chain) read(r io.Reader, each func(Record, []byte) error) (good, torn int64, err error) {
	in := newLines(r)
	for n := 1; ; n++ {
		line, err := in.next()
		if err == io.EOF {
			return good, int64(len(line)), nil
		}
		if err != nil {
			return good, 0, &LineError{Line: n, Why: err}
		}
		rec, err := c.add(line)
		if err != nil {
			return good, 0, &LineError{Line: n, Seq: rec.Seq, Why: err}
		}
		if each != nil {
			if err := each(rec, line); err != nil {
				return good, 0, err
			}
		}
		good += int64(len(line))
	}
}

// add checks one line.
func (c *chain) add(line []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("it is no record: %w", err)
	}
	// A record has one text: what decodes to the same is not what was written.
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(append(again, '\n'), line) {
		return r, errors.New("it is not as a record is written")
	}
	switch {
	case r.Seq == 0:
		return r, errors.New("it has no number")
	case c.last == 0 && r.Seq == 1 && r.Prev != first:
		return r, fmt.Errorf("%w: record %d is not the first of a log", errBroken, r.Seq)
	case c.last != 0 && r.Seq != c.last+1:
		return r, fmt.Errorf("%w: record %d follows record %d", errBroken, r.Seq, c.last)
	case c.last != 0 && r.Prev != c.prev:
		return r, fmt.Errorf("%w: record %d does not follow from the one before it, or that was changed", errBroken, r.Seq)
	}
	c.last, c.prev = r.Seq, hashOf(line)
	return r, nil
}

// LineError says which line of a file is wrong.
type LineError struct {
	File string
	Line int    // from 1
	Seq  uint64 // of the record that it seems to be, or 0
	Why  error
}

// Error implements error.
func (e *LineError) Error() string {
	at := fmt.Sprintf("line %d", e.Line)
	if e.File != "" {
		at = e.File + ", " + at
	}
	return fmt.Sprintf("%s: %v", at, e.Why)
}

// Unwrap is the reason.
func (e *LineError) Unwrap() error { return e.Why }
