package rewrite

import "unicode/utf8"

// reader reads the primitive values of the binary format out of b. The first
// failure sticks: every later read returns zero, so that a decoder looks at err
// once a loop and not once a byte.
type reader struct {
	b    []byte
	pos  int
	base int // offset of b[0] in the module, for messages
	err  error
}

// off returns the offset in the module of the next byte.
func (r *reader) off() int { return r.base + r.pos }

// left returns the number of bytes not yet read.
func (r *reader) left() int { return len(r.b) - r.pos }

// fail records err unless there is one, and leaves nothing to read.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.pos = len(r.b)
}

func (r *reader) eof() { r.fail(invalid(r.base+len(r.b), "unexpected end")) }

func (r *reader) byte() byte {
	if r.pos >= len(r.b) {
		r.eof()
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

// bytes returns the next n bytes, which alias the input.
func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(r.left()) {
		r.eof()
		return nil
	}
	p := r.b[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return p
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	if r.pos < len(r.b) {
		if c := r.b[r.pos]; c < 0x80 {
			r.pos++
			return uint32(c)
		}
	}
	v, n := leb32(r.b[r.pos:])
	if n <= 0 {
		r.badLEB(n)
		return 0
	}
	r.pos += n
	return v
}

// s33 reads a signed LEB128 of at most 33 bits.
func (r *reader) s33() int64 { return r.signed(33) }

func (r *reader) signed(bits int) int64 {
	v, n := sleb(r.b[r.pos:], bits)
	if n <= 0 {
		r.badLEB(n)
		return 0
	}
	r.pos += n
	return v
}

func (r *reader) badLEB(n int) {
	if n == 0 {
		r.eof()
		return
	}
	r.fail(invalid(r.off(), "number too long"))
}

// count reads the length of a vector whose elements take at least min bytes
// each, and fails when that many cannot follow or when there are more than
// limit: nobody allocates for elements that are not there.
func (r *reader) count(what string, min int, limit uint32) int {
	off := r.off()
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if n > limit {
		r.fail(tooMany(off, what, uint64(n), uint64(limit)))
		return 0
	}
	if uint64(n)*uint64(min) > uint64(r.left()) {
		r.fail(invalid(off, "%d %s cannot follow in %d bytes", n, what, r.left()))
		return 0
	}
	return int(n)
}

// name reads a UTF-8 string.
func (r *reader) name(what string) string {
	off := r.off()
	n := r.u32()
	if n > maxName && r.err == nil {
		r.fail(tooMany(off, "bytes of "+what, uint64(n), maxName))
		return ""
	}
	p := r.bytes(n)
	if !utf8.Valid(p) {
		r.fail(invalid(off, "%s is not UTF-8", what))
		return ""
	}
	return string(p)
}

// leb32 decodes an unsigned LEB128 of at most 32 bits at the start of b. n is
// its length, 0 when b ends before it does and -1 when it is too long.
func leb32(b []byte) (v uint32, n int) {
	for i := range 5 {
		if i >= len(b) {
			return 0, 0
		}
		c := b[i]
		if i == 4 && c > 0x0f {
			return 0, -1
		}
		v |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, -1
}

// sleb decodes a signed LEB128 of at most bits bits, as leb32 does.
func sleb(b []byte, bits int) (v int64, n int) {
	last := (bits+6)/7 - 1 // index of the last byte there may be
	for i := 0; i <= last; i++ {
		if i >= len(b) {
			return 0, 0
		}
		c := b[i]
		if i == last {
			// The bits beyond the value must repeat its sign.
			used := bits - 7*last
			top := int8(c<<1) >> used
			if c >= 0x80 || (top != 0 && top != -1) {
				return 0, -1
			}
		}
		v |= int64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if shift := 64 - 7*(i+1); shift > 0 {
				v = v << shift >> shift
			}
			return v, i + 1
		}
	}
	return 0, -1
}

// appendU32 appends v as an unsigned LEB128.
func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// appendS64 appends v as a signed LEB128.
func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// appendName appends s as a vector of bytes.
func appendName(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}
