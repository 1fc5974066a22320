//go:build !linux

package sandbox

import "errors"

// linearMemory is the memory of one sandbox where pages cannot be mapped
// copy-on-write: it lives on the heap and a reset copies the whole image.
type linearMemory struct {
	buf    []byte
	length uint64 // for windows, which there are none of
	limit  uint64
	size   uint64
	denied bool
	image  *image
	keep   *keep // never, here
}

func newLinearMemory(limit uint64, img *image) (*linearMemory, error) {
	m := &linearMemory{limit: limit, image: img}
	if img != nil {
		m.Reallocate(uint64(len(img.bytes)))
		copy(m.buf, img.bytes)
	}
	return m, nil
}

// Reallocate implements experimental.LinearMemory.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.denied = true
		return nil
	}
	if size > uint64(len(m.buf)) {
		m.buf = append(m.buf, make([]byte, size-uint64(len(m.buf)))...)
	}
	m.size = size
	return m.buf[:size:size]
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {}

func (m *linearMemory) bytes() []byte { return m.buf[:m.size:m.size] }

func (m *linearMemory) reset() error {
	m.denied = false
	n := 0
	if m.image != nil {
		n = copy(m.buf, m.image.bytes)
	}
	clear(m.buf[n:])
	return nil
}

func (m *linearMemory) window(int, int64, uint64, uint64) error { return errors.ErrUnsupported }
func (m *linearMemory) lend([]byte, uint64) error               { return errors.ErrUnsupported }
func (m *linearMemory) unwindow(uint64, uint64) error           { return errors.ErrUnsupported }
func (m *linearMemory) release() error                          { m.buf = nil; return nil }
func (m *linearMemory) sparse(uint64, uint64, uint64) bool      { return false }

// image is a snapshot of linear memory.
type image struct{ bytes []byte }

func newImage(mem []byte) (*image, error) { return &image{bytes: append([]byte(nil), mem...)}, nil }
func (i *image) close() error             { return nil }

func (i *image) all() []byte { return i.bytes }

func (i *image) page(at uint64) []byte {
	if at >= uint64(len(i.bytes)) {
		return nil
	}
	return i.bytes[at : at+statePage]
}

func (m *linearMemory) holesNow() []span { return nil }

// changed calls f for all of memory: what of it changed is not known here.
func (m *linearMemory) changed(f func(from, to uint64)) error {
	f(0, m.size)
	return nil
}

// Prepare does nothing here.
func Prepare() (keep []int) { return nil }
