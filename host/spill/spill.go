// Package spill keeps what an object store has no room for in files, in one
// directory or several.
//
// No file has a name: who dies, by whatever means, leaves nothing behind, and
// nothing is there that a process could find torn. The process that may open
// files (Opener) need not be the one that writes and reads them (Dirs).
package spill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray/objectstore"
)

// retryDir is how long a directory that failed is left alone.
const retryDir = 10 * time.Second

// Dirs is an objectstore.Disk of files without names. It takes the directories
// in turn, leaves out those that failed of late, and fails when none is left.
type Dirs struct {
	names []string
	limit int64
	open  func(dir int) (*os.File, error)

	mu   sync.Mutex
	used int64 // guarded by mu, as is all that follows; what is promised to batches in the making included
	next int
	bad  map[int]failure
}

type failure struct {
	at  time.Time
	err error
}

// NewDirs returns a disk over directories that are known by their positions in
// names, which is for errors. limit bounds the bytes of all together. open
// opens a new file without a name, for reading and writing.
func NewDirs(names []string, limit int64, open func(dir int) (*os.File, error)) *Dirs {
	return &Dirs{names: names, limit: limit, open: open, bad: map[int]failure{}}
}

// Used implements objectstore.Disk.
func (d *Dirs) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Create implements objectstore.Disk.
func (d *Dirs) Create(n int64) (objectstore.Batch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.used+n > d.limit {
		return nil, fmt.Errorf("%w: %d of %d bytes are taken (%s)", objectstore.ErrDiskFull, d.used, d.limit, objectstore.SpillLimitFlag)
	}
	var errs []error
	for range d.names {
		i := d.next % len(d.names)
		d.next++
		if f, ok := d.bad[i]; ok {
			if time.Since(f.at) < retryDir {
				errs = append(errs, f.err)
				continue
			}
			delete(d.bad, i)
		}
		file, err := d.open(i)
		if err != nil {
			d.failLocked(i, err)
			errs = append(errs, d.bad[i].err)
			continue
		}
		d.used += n
		return &batch{d: d, dir: i, file: file, promised: n}, nil
	}
	return nil, fmt.Errorf("%w: %w", objectstore.ErrDiskFull, errors.Join(errs...))
}

func (d *Dirs) failLocked(i int, err error) {
	d.bad[i] = failure{at: time.Now(), err: fmt.Errorf("%s: %w", d.names[i], err)}
}

// batch is a file.
type batch struct {
	d        *Dirs
	dir      int
	file     *os.File
	size     int64 // written
	promised int64 // counted in used
}

func (b *batch) Write(p []byte) (int, error) {
	n, err := b.file.WriteAt(p, b.size)
	b.size += int64(n)
	if err != nil {
		b.d.mu.Lock()
		b.d.failLocked(b.dir, err)
		b.d.mu.Unlock()
	}
	return n, err
}

// Seal only settles the account: the file is for this process, so that it
// reaches the disk some time is enough.
func (b *batch) Seal() error {
	b.settle(b.size - b.promised)
	return nil
}

// settle counts n bytes more, or less.
func (b *batch) settle(n int64) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	b.promised += n
	b.d.used += n
}

func (b *batch) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }

func (b *batch) Punch(off, n int64) {
	if punch(b.file, off, n) == nil {
		b.settle(-n)
	} // else the batch takes its room until it goes
}

func (b *batch) Remove() {
	_ = b.file.Close() // nothing of it is of use
	b.settle(-b.promised)
}

// prefix is how files begin that have a name for a moment.
const prefix = "wray-spill-"

// Opener opens files in directories, which it makes where they are missing.
type Opener struct{ dirs []string }

// NewOpener returns an opener for dirs. A directory in which no file can be
// made is an error.
func NewOpener(dirs []string) (*Opener, error) {
	o := &Opener{}
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(abs, 0o700); err != nil {
			return nil, err
		}
		o.dirs = append(o.dirs, abs)
		sweep(abs)
		f, err := o.Open(len(o.dirs) - 1)
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	return o, nil
}

// Dirs returns the absolute paths of the directories.
func (o *Opener) Dirs() []string { return o.dirs }

// Open opens a new file without a name. Any number may be asked for.
func (o *Opener) Open(dir int) (*os.File, error) {
	if dir < 0 || dir >= len(o.dirs) {
		return nil, fmt.Errorf("there is no directory %d for objects", dir)
	}
	return unnamed(o.dirs[dir])
}

// brief makes a file that has a name for a moment, where there are none without.
func brief(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what somebody left who died between the making of a file and
// the removal of its name: files that are empty and not of this moment.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		i, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), prefix) && i.Mode().IsRegular() && i.Size() == 0 && time.Since(i.ModTime()) > time.Minute {
			_ = os.Remove(filepath.Join(dir, e.Name())) // somebody else may be quicker
		}
	}
}
