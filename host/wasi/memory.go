package wasi

import "encoding/binary"

// memory is the guest's linear memory for the length of one call. Pointers
// and lengths are the guest's 32-bit values; sums are made in 64 bits.
type memory []byte

// slice returns n bytes at p, or false where they are not all in memory. The
// slice cannot be extended past its end.
func (m memory) slice(p uint32, n uint64) ([]byte, bool) {
	size := uint64(len(m))
	if uint64(p) > size || n > size-uint64(p) {
		return nil, false
	}
	end := uint64(p) + n
	return m[p:end:end], true
}

// has reports whether n bytes at p are in memory.
func (m memory) has(p uint32, n uint64) bool {
	size := uint64(len(m))
	return uint64(p) <= size && n <= size-uint64(p)
}

// put32 writes v at p, which the caller has checked.
func (m memory) put32(p uint32, v uint32) { binary.LittleEndian.PutUint32(m[p:], v) }

// put64 writes v at p, which the caller has checked.
func (m memory) put64(p uint32, v uint64) { binary.LittleEndian.PutUint64(m[p:], v) }

// putFilestat writes st at p, which the caller has checked.
func (m memory) putFilestat(p uint32, st *Filestat) {
	b := m[p:][:sizeFilestat]
	clear(b)
	binary.LittleEndian.PutUint64(b[0:], st.Dev)
	binary.LittleEndian.PutUint64(b[8:], st.Ino)
	b[16] = byte(st.Type)
	binary.LittleEndian.PutUint64(b[24:], st.Nlink)
	binary.LittleEndian.PutUint64(b[32:], st.Size)
	binary.LittleEndian.PutUint64(b[40:], st.Atim)
	binary.LittleEndian.PutUint64(b[48:], st.Mtim)
	binary.LittleEndian.PutUint64(b[56:], st.Ctim)
}
