// Package statelogtest has a disk for tests that loses, when the power fails,
// what was not synced, and tears what was being written.
package statelogtest

import (
	"bytes"
	"errors"
	"math/rand/v2"
)

// Disk is where files lie that lose, when the power fails, any part of what was
// not synced.
type Disk struct {
	Rng   *rand.Rand
	Until int  // operations until the power fails; < 0: never
	Off   bool // the power has failed
	Full  bool // the next write does not fit
}

// What a disk fails with.
var (
	ErrPower = errors.New("the power failed")
	ErrFull  = errors.New("no space left on device")
)

func (d *Disk) step() error {
	if d.Off {
		return ErrPower
	}
	if d.Until == 0 {
		d.Off = true
		return ErrPower
	}
	d.Until--
	return nil
}

// File is one of a disk, a statelog.File.
type File struct {
	d      *Disk
	now    []byte // what a reader sees
	synced []byte // what is on the disk for sure
	dirty  []change
}

// change is a write, or, where p is nil, a truncation.
type change struct {
	off int64
	p   []byte
}

func (c change) apply(b []byte) []byte {
	if c.p == nil {
		if c.off <= int64(len(b)) {
			return b[:c.off:c.off]
		}
		return append(b, make([]byte, c.off-int64(len(b)))...)
	}
	if end := c.off + int64(len(c.p)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[c.off:], c.p)
	return b
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.now).ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.step(); err != nil {
		f.dirty = append(f.dirty, change{off, bytes.Clone(p)}) // some of it may get there
		return 0, err
	}
	n := len(p)
	var err error
	if f.d.Full {
		f.d.Full = false
		n, err = f.d.Rng.IntN(len(p)), ErrFull
	}
	c := change{off, append([]byte{}, p[:n]...)}
	f.now, f.dirty = c.apply(f.now), append(f.dirty, c)
	return n, err
}

// Truncate implements statelog.File.
func (f *File) Truncate(size int64) error {
	c := change{off: size}
	f.dirty = append(f.dirty, c)
	if err := f.d.step(); err != nil {
		return err
	}
	f.now = c.apply(bytes.Clone(f.now))
	return nil
}

// Sync implements statelog.File.
func (f *File) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.synced, f.dirty = bytes.Clone(f.now), nil
	return nil
}

// Close implements io.Closer.
func (f *File) Close() error { return nil }

// Restart returns the file as a machine finds it that comes up again: of what
// was not synced any sectors are there.
func (f *File) Restart(d *Disk) *File {
	const sector = 64
	b := bytes.Clone(f.synced)
	for _, c := range f.dirty {
		if c.p == nil {
			if d.Rng.IntN(2) == 0 {
				b = c.apply(b)
			}
			continue
		}
		for i := 0; i < len(c.p); i += sector {
			if d.Rng.IntN(3) > 0 {
				b = change{c.off + int64(i), c.p[i:min(i+sector, len(c.p))]}.apply(b)
			}
		}
	}
	return &File{d: d, now: b, synced: bytes.Clone(b)}
}

// NewFile returns an empty file of d.
func (d *Disk) NewFile() *File { return &File{d: d} }

// FileOf returns a file of d with content b.
func (d *Disk) FileOf(b []byte) *File { return &File{d: d, now: b} }

// Bytes returns what a reader of the file sees.
func (f *File) Bytes() []byte { return f.now }
