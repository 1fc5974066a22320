package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// lines reads lines of at most MaxLine bytes.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReaderSize(r, MaxLine)} }

// next returns a line with its end, good until the next call; at the end io.EOF
// and what is left, which has none.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("it has more than %d bytes", MaxLine)
	}
	return line, err
}

// Verified is what a log was found to be.
type Verified struct {
	Files   int
	Records uint64
	From    uint64 // the number of the first record; more than 1 where older files are not there
	// Retired is the number of the last record that the log says it removed, as it
	// kept enough. What is between that and From somebody else moved, or removed.
	Retired uint64
	Last    uint64
	Hash    string // of the last record: who keeps it sees later that nothing was cut off
	Torn    int64  // bytes of a record at the end that was cut off, as by a crash
}

// Verify reads a file of a log, or all of a directory, and reports the first line
// that is wrong, as a *LineError.
func Verify(path string) (Verified, error) { return Read(path, nil) }

// VerifyKept is Verify, and checks that the record of a number is in the log with
// the hash that somebody has kept of it: so it is seen that nothing was cut off at
// the end since, and that nothing was written anew.
func VerifyKept(path string, seq uint64, hash string) (Verified, error) {
	got, before := "", ""
	v, err := Read(path, func(r Record, line []byte) error {
		switch r.Seq {
		case seq:
			got = hashOf(line)
		case seq + 1:
			before = r.Prev // of a record whose file is not there
		}
		return nil
	})
	if got == "" {
		got = before
	}
	switch {
	case err != nil:
		return v, err
	case got == "" && v.Last < seq:
		return v, fmt.Errorf("%w: the log ends at record %d, and record %d was there: what came last was cut off", errBroken, v.Last, seq)
	case got == "":
		return v, fmt.Errorf("%w: the log begins at record %d, and has no record %d", errBroken, v.From, seq)
	case got != hash:
		return v, fmt.Errorf("%w: record %d has the hash %s, and had another: the log was written anew", errBroken, seq, got)
	}
	return v, nil
}

// named returns an error where a file's first record is not the one that its name
// says: something was cut off in front, or the file was renamed. last is the number
// of the last record before it, 0 for none.
func named(path string, first, last uint64) error {
	seq := numberOf(filepath.Base(path))
	switch {
	case seq == 0: // a copy of another name
		return nil
	case first == 0 && last != 0 && seq != last+1:
		return &LineError{File: path, Line: 1, Why: fmt.Errorf("%w: the file is to begin with record %d, and record %d is the last before", errBroken, seq, last)}
	case first == 0 && last == 0 && seq > 1:
		return &LineError{File: path, Line: 1, Why: fmt.Errorf("%w: the file is to begin with record %d, and there are none at all", errBroken, seq)}
	case first != 0 && first != seq:
		return &LineError{File: path, Line: 1, Seq: first, Why: fmt.Errorf("%w: the file is to begin with record %d by its name, and begins with %d: something was cut off, or the file renamed", errBroken, seq, first)}
	}
	return nil
}

// Read is Verify, and gives each record that is right to each, with its line,
// which is good until each returns.
func Read(path string, each func(Record, []byte) error) (v Verified, err error) {
	paths := []string{path}
	st, err := os.Stat(path)
	if err != nil {
		return v, err
	}
	if st.IsDir() {
		names, err := files(path)
		if err != nil {
			return v, err
		}
		if len(names) == 0 {
			return v, fmt.Errorf("%s has no audit log", path)
		}
		paths = paths[:0]
		for _, n := range names {
			paths = append(paths, filepath.Join(path, n))
		}
	}
	c := &chain{}
	var a anchor
	before := "" // the first record's Prev
	for i, p := range paths {
		v.Files++
		last, first := c.last, uint64(0)
		torn, err := c.file(p, func(r Record, line []byte) error {
			if first == 0 {
				if first = r.Seq; named(p, first, last) != nil {
					return named(p, first, last) // before it is given to anybody
				}
			}
			if v.From == 0 {
				v.From, before = r.Seq, r.Prev
			}
			v.Records++
			a.note(&r)
			if each == nil {
				return nil
			}
			return each(r, line)
		})
		v.Last, v.Hash = c.last, c.prev
		if err == nil && first == 0 {
			if err = named(p, 0, last); err == nil && i < len(paths)-1 {
				err = &LineError{File: p, Line: 1, Why: fmt.Errorf("%w: the file is empty, and is followed by another", errBroken)}
			}
		}
		if err == nil && torn > 0 && i < len(paths)-1 {
			err = &LineError{File: p, Line: 0, Why: fmt.Errorf("%w: the file ends in the middle of a record, and is followed by another", errBroken)}
		}
		if err != nil {
			return v, err
		}
		v.Torn = torn
	}
	if v.Retired = min(a.last, max(v.From, 1)-1); a.last > 0 && a.last == v.From-1 && a.hash != before {
		return v, &LineError{File: paths[0], Line: 1, Seq: v.From, Why: fmt.Errorf("%w: record %d does not follow from the last one that the log says it removed", errBroken, v.From)}
	}
	return v, nil
}

// file reads a file that goes on from what was read before.
func (c *chain) file(path string, each func(Record, []byte) error) (torn int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	_, torn, err = c.read(f, each)
	if le := (*LineError)(nil); errors.As(err, &le) {
		le.File = path
	}
	return torn, err
}
