package spill

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/wray-project/wray/objectstore"
)

// Disk is an objectstore.Disk whose batches another keeps, who is asked by
// messages: a Host.
type Disk struct {
	call Call

	mu   sync.Mutex
	used int64 // guarded by mu
}

// NewDisk returns a disk whose batches are with whom call asks.
func NewDisk(call Call) *Disk { return &Disk{call: call} }

// Used implements objectstore.Disk.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Create implements objectstore.Disk.
func (d *Disk) Create(n int64) (objectstore.Batch, error) {
	r, files, err := d.call(Request{Op: OpCreate, N: n}, nil)
	if err != nil {
		if errors.Is(err, objectstore.ErrDiskFull) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", objectstore.ErrDiskFull, err)
	}
	b := &batch{d: d, id: r.Batch, name: r.Name}
	for i, f := range files {
		if i == 0 {
			b.file = f
		} else {
			f.Close()
		}
	}
	b.settle(r.N)
	return b, nil
}

// batch is a batch that somebody else keeps.
type batch struct {
	d    *Disk
	id   uint64
	name string
	file *os.File // to read from; nil: by messages

	mu    sync.Mutex
	taken int64 // guarded by mu; counted in Disk.used

	// What is to be written. It belongs to the goroutine that writes.
	next   Request
	files  []*os.File
	queued int64
	flying chan error // of the write that is under way; nil: none is
}

// settle takes note that the batch takes n bytes.
func (b *batch) settle(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	b.d.used += n - b.taken
	b.taken = n
}

// String returns where the batch is.
func (b *batch) String() string { return b.name }

// Write implements objectstore.Batch. p is copied.
func (b *batch) Write(p []byte) (int, error) {
	done := 0
	for len(p) > 0 {
		room := maxData - len(b.next.Data)
		if room == 0 || len(b.next.Pieces) == maxPieces {
			if err := b.flush(false); err != nil {
				return done, err
			}
			continue
		}
		n := min(len(p), room)
		b.next.Data = append(b.next.Data, p[:n]...)
		if last := len(b.next.Pieces) - 1; last >= 0 && b.next.Pieces[last].File < 0 {
			b.next.Pieces[last].Len += int64(n)
		} else {
			b.next.Pieces = append(b.next.Pieces, Piece{File: -1, Len: int64(n)})
		}
		b.queued += int64(n)
		p, done = p[n:], done+n
	}
	return done, b.flushIfLong()
}

// WriteFile implements objectstore.FileWriter.
func (b *batch) WriteFile(f *os.File, off, n int64) error {
	for n > 0 {
		at := slices.Index(b.files, f)
		if len(b.next.Pieces) == maxPieces || b.queued == maxWrite || at < 0 && len(b.files) == maxFiles {
			if err := b.flush(false); err != nil {
				return err
			}
			continue
		}
		if at < 0 {
			at = len(b.files)
			b.files = append(b.files, f)
		}
		k := min(n, maxWrite-b.queued)
		if last := len(b.next.Pieces) - 1; last >= 0 && b.next.Pieces[last].File == at && b.next.Pieces[last].Off+b.next.Pieces[last].Len == off {
			b.next.Pieces[last].Len += k
		} else {
			b.next.Pieces = append(b.next.Pieces, Piece{File: at, Off: off, Len: k})
		}
		b.queued += k
		off, n = off+k, n-k
	}
	return b.flushIfLong()
}

func (b *batch) flushIfLong() error {
	if b.queued < maxWrite {
		return nil
	}
	return b.flush(false)
}

// flush has what is queued written, while the caller goes on, once what was
// under way is done.
func (b *batch) flush(last bool) error {
	if err := b.landed(); err != nil {
		return err
	}
	r, files := b.next, b.files
	r.Op, r.Batch, r.Last = OpWrite, b.id, last
	b.next, b.files, b.queued = Request{}, nil, 0
	flying := make(chan error, 1)
	b.flying = flying
	go func() { // ends with the call, which landed waits for
		reply, more, err := b.d.call(r, files)
		for _, f := range more {
			f.Close()
		}
		if err == nil && last {
			b.settle(reply.N)
		}
		flying <- err
	}()
	return nil
}

// landed waits for the write that is under way.
func (b *batch) landed() error {
	if b.flying == nil {
		return nil
	}
	err := <-b.flying
	b.flying = nil
	return err
}

// Seal implements objectstore.Batch.
func (b *batch) Seal() error {
	if err := b.flush(true); err != nil {
		return err
	}
	return b.landed()
}

// Whole implements objectstore.Whole: what is no file is in a bucket.
func (b *batch) Whole() bool { return b.file == nil }

// BulkRead implements objectstore.BulkReader.
func (b *batch) BulkRead() int64 {
	if b.file != nil {
		return 0
	}
	return readers * maxRead
}

// readers is how many reads by message are under way for one ReadAt.
const readers = 4

// ReadAt implements objectstore.Batch.
func (b *batch) ReadAt(p []byte, off int64) (int, error) {
	if b.file != nil {
		return b.file.ReadAt(p, off)
	}
	var wg sync.WaitGroup
	turn := make(chan struct{}, readers)
	parts := (len(p) + maxRead - 1) / maxRead
	got, errs := make([]int, parts), make([]error, parts)
	for i := range parts {
		part := p[i*maxRead : min((i+1)*maxRead, len(p))]
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			got[i], errs[i] = b.read(part, off+int64(i)*maxRead)
		})
	}
	wg.Wait()
	n := 0
	for i := range parts {
		n += got[i]
		if errs[i] != nil {
			return n, errs[i]
		}
		if got[i] < min(maxRead, len(p)-i*maxRead) {
			return n, io.EOF
		}
	}
	return n, nil
}

func (b *batch) read(p []byte, off int64) (int, error) {
	r, files, err := b.d.call(Request{Op: OpRead, Batch: b.id, Off: off, N: int64(len(p))}, nil)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return 0, err
	}
	if len(r.Data) > len(p) {
		return 0, fmt.Errorf("%s: %d bytes were read where %d were asked for", b.name, len(r.Data), len(p))
	}
	return copy(p, r.Data), nil
}

// Punch implements objectstore.Batch.
func (b *batch) Punch(off, n int64) {
	if r, _, err := b.d.call(Request{Op: OpPunch, Batch: b.id, Off: off, N: n}, nil); err == nil {
		b.settle(r.N)
	} // else the batch takes its room until it goes
}

// Remove implements objectstore.Batch.
func (b *batch) Remove() {
	_ = b.landed() // nothing of it is of use
	_, _, _ = b.d.call(Request{Op: OpRemove, Batch: b.id}, nil)
	if b.file != nil {
		b.file.Close()
	}
	b.settle(0)
}
