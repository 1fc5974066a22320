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
		torn, err := c.file(p, func(r Record, line []byte) error {
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
