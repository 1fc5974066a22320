package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// What a record says of a file that the log removes: the number of the last record
// of it, and that one's hash, which the first of the next file has as its Prev.
const retired = "more than %d bytes were kept; its last record is %d, with the hash %64s"

// retireLocked removes the oldest files beyond what is kept. That a file goes is on
// stable storage before it does.
func (l *Log) retireLocked() error {
	l.begun = false
	if l.o.Keep < 0 {
		return nil
	}
	names, err := files(l.dir)
	if err != nil {
		return l.failLocked(err)
	}
	total := int64(0)
	sizes := make([]int64, len(names))
	for i, name := range names {
		if st, err := os.Stat(filepath.Join(l.dir, name)); err == nil {
			sizes[i] = st.Size()
			total += sizes[i]
		}
	}
	for i := 0; i+2 < len(names) && total > l.o.Keep; i++ {
		prev, err := prevOf(filepath.Join(l.dir, names[i+1]))
		if err != nil {
			return l.failLocked(err)
		}
		e := Event{Who: self, Action: actRetire, Object: names[i], Decision: Allowed, Why: fmt.Sprintf(retired, l.o.Keep, numberOf(names[i+1])-1, prev)}
		if err := l.writeLocked(e, l.o.Now()); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(l.dir, names[i])); err != nil {
			return l.failLocked(err)
		}
		total -= sizes[i]
	}
	return nil
}

// numberOf is the number of the first record of a file, by its name; 0 for none.
func numberOf(name string) (seq uint64) {
	_, _ = fmt.Sscanf(name, "audit-%d.jsonl", &seq)
	return seq
}

// prevOf is the Prev of the first record of a file.
func prevOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := newLines(f).next()
	if err != nil {
		return "", fmt.Errorf("%s: its first record: %w", path, err)
	}
	var r Record
	if err := json.NewDecoder(bytes.NewReader(line)).Decode(&r); err != nil {
		return "", fmt.Errorf("%s: its first record: %w", path, err)
	}
	return r.Prev, nil
}

// anchor is what a log says of the files that it removed.
type anchor struct {
	last uint64 // the last record that was removed; 0: none was
	hash string // of that
}

// note takes what a record says of a file that is removed.
func (a *anchor) note(r *Record) {
	if r.Action != actRetire || r.Who != self {
		return
	}
	var keep int64
	var last uint64
	var hash string
	if n, err := fmt.Sscanf(r.Why, retired, &keep, &last, &hash); n == 3 && err == nil && last > a.last {
		a.last, a.hash = last, hash
	}
}
