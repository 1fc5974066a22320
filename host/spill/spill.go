// Package spill keeps what an object store has no room for: in files, in one
// directory or several, or in another place ([Place]; package s3 has one).
//
// The store is in a process that a guest may take over, and may open nothing,
// so another process keeps the batches (Host) and the store asks it (Disk). It
// is given descriptors of the memory that is to be written, and gives out
// descriptors that can only be read: what it counts is what there is.
//
// No file has a name: who dies, by whatever means, leaves nothing behind, and
// nothing is there that a process could find torn.
package spill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// prefix is how files begin that have a name for a moment.
const prefix = "wray-spill-"

// Dir is a directory that keeps batches.
type Dir struct{ path string }

// OpenDir returns the place that dir is. It is made where it is missing, what it
// is in is not: that is a mistyped name more often than not. One in which no file
// can be made is an error.
func OpenDir(dir string) (*Dir, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(abs, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	sweep(abs)
	d := &Dir{path: abs}
	p, err := d.Create(1)
	if err != nil {
		return nil, err
	}
	defer p.Remove()
	f, err := p.File()
	if err != nil {
		return nil, err
	}
	return d, f.Close()
}

// Name implements Place: it is the directory's absolute path.
func (d *Dir) Name() string { return d.path }

// Remote implements Place.
func (d *Dir) Remote() bool { return false }

// Create implements Place. The room is taken at once, where the file system
// can: that says early when there is none, and what is then written there costs
// less.
func (d *Dir) Create(n int64) (Pen, error) {
	f, err := unnamed(d.path)
	if err != nil {
		return nil, err
	}
	if err := allocate(f, n); err != nil {
		f.Close()
		return nil, err
	}
	return &filePen{dir: d.path, file: f}, nil
}

// filePen is a batch in a file without a name.
type filePen struct {
	dir  string
	file *os.File
	at   int64
}

func (p *filePen) String() string { return "a file in " + p.dir }

func (p *filePen) File() (*os.File, error) { return reading(p.file) }

func (p *filePen) Write(_ context.Context, w []Chunk, last bool) (keeps bool, err error) {
	for _, c := range w {
		if c.File == nil {
			_, err = p.file.WriteAt(c.Data, p.at)
		} else {
			err = transfer(p.file, p.at, c.File, c.Off, c.Len)
		}
		if err != nil {
			return false, err
		}
		p.at += c.Len
	}
	if last { // the file is for this node, so that it reaches the disk some time is enough
		err = p.file.Truncate(p.at)
	}
	return false, err
}

func (p *filePen) Read(_ context.Context, b []byte, off int64) (int, error) {
	return p.file.ReadAt(b, off)
}

func (p *filePen) Punch(off, n int64) { _ = punch(p.file, off, n) } // else it takes its room until it goes

// block is what file systems take disk in.
const block = 4 << 10

func (p *filePen) Size(written int64) int64 {
	return min(allocated(p.file), (written+block-1)/block*block)
}

func (p *filePen) Remove() {
	_ = p.file.Truncate(0) // somebody may have it open, and nothing of it is of use
	_ = p.file.Close()
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

// errShort says that a file which was to be written from ends early.
var errShort = errors.New("the memory to be written ends early")

// copyRange copies what transfer cannot have the kernel move.
func copyRange(dst *os.File, at int64, src *os.File, off, n int64) error {
	buf := make([]byte, min(n, copyUnit))
	for n > 0 {
		k, err := src.ReadAt(buf[:min(n, int64(len(buf)))], off)
		if k == 0 {
			return fmt.Errorf("%w: %w", errShort, err)
		}
		if _, err := dst.WriteAt(buf[:k], at); err != nil {
			return err
		}
		at, off, n = at+int64(k), off+int64(k), n-int64(k)
	}
	return nil
}

// File opens a new file in the directory, as batches have: for what is measured
// beside them.
func (d *Dir) File() (*os.File, error) { return unnamed(d.path) }
