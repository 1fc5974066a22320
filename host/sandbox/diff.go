package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// A diff says how pages differ from others, their base: for each page that
// does, the distance from the page before, less one, the number of runs, and
// for each run the bytes that are skipped, the length, and the bytes. All
// numbers are unsigned varints (encoding/binary).

// statePage is the unit of a diff.
const statePage = 4096

// joinGap is how many equal bytes between two that differ are written rather
// than skipped: to skip them costs two numbers.
const joinGap = 4

// diffWriter makes a diff.
type diffWriter struct {
	out  []byte
	last int // page written last, -1 before the first
	runs []run
}

type run struct{ from, to int }

// page adds the page number n, later than those before, if it differs from its
// base. base is nil for zeros; it may be shorter than the page, which then
// continues with zeros.
func (w *diffWriter) page(n int, page, base []byte) {
	w.runs = w.runs[:0]
	if len(base) < len(page) {
		var zeros [statePage]byte
		copy(zeros[:], base)
		base = zeros[:len(page)]
	} else if bytes.Equal(page, base[:len(page)]) {
		return
	}
	i := 0
	for i+8 <= len(page) {
		x := binary.LittleEndian.Uint64(page[i:]) ^ binary.LittleEndian.Uint64(base[i:])
		if x == 0 {
			i += 8
			continue
		}
		from, to := i+bits.TrailingZeros64(x)/8, i+8-bits.LeadingZeros64(x)/8
		if k := len(w.runs) - 1; k >= 0 && from-w.runs[k].to <= joinGap {
			w.runs[k].to = to
		} else {
			w.runs = append(w.runs, run{from, to})
		}
		i += 8
	}
	if len(w.runs) == 0 {
		return
	}
	w.out = binary.AppendUvarint(w.out, uint64(n-w.last-1))
	w.last = n
	w.out = binary.AppendUvarint(w.out, uint64(len(w.runs)))
	at := 0
	for _, r := range w.runs {
		w.out = binary.AppendUvarint(w.out, uint64(r.from-at))
		w.out = binary.AppendUvarint(w.out, uint64(r.to-r.from))
		w.out = append(w.out, page[r.from:r.to]...)
		at = r.to
	}
}

var errBadDiff = errors.New("a saved state is damaged")

// applyDiff makes mem, which is as the base was, what the diff says. On an
// error mem has changed in part.
func applyDiff(mem, diff []byte) error {
	next := func() (int, bool) {
		v, n := binary.Uvarint(diff)
		if n <= 0 || v > 1<<32 {
			return 0, false
		}
		diff = diff[n:]
		return int(v), true
	}
	page := -1
	for len(diff) > 0 {
		skip, ok1 := next()
		runs, ok2 := next()
		if !ok1 || !ok2 || skip >= len(mem)/statePage {
			return errBadDiff
		}
		if page += skip + 1; page >= len(mem)/statePage {
			return errBadDiff
		}
		dst := mem[page*statePage : (page+1)*statePage]
		for range runs {
			skip, ok1 := next()
			n, ok2 := next()
			if !ok1 || !ok2 || n == 0 || skip+n > len(dst) || n > len(diff) {
				return errBadDiff
			}
			copy(dst[skip:], diff[:n])
			dst, diff = dst[skip+n:], diff[n:]
		}
	}
	return nil
}
