package plain

import (
	"io"
	"unicode"
	"unicode/utf8"
)

// JSON returns a writer of JSON text to w, in which what drives a terminal, turns
// the direction of writing or is not seen is escaped: it decodes to the same. Each
// Write must be of whole characters, as those of encoding/json are.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

// Write implements io.Writer.
func (j jsonWriter) Write(b []byte) (int, error) {
	var out []byte // nil while nothing is escaped
	const digits = "0123456789abcdef"
	u := func(r uint32) {
		out = append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r >= 0x7f && (r == utf8.RuneError && n == 1 || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)) {
			if out == nil {
				out = append(make([]byte, 0, len(b)+16), b[:i]...)
			}
			if r < 0x10000 {
				u(uint32(r))
			} else { // a pair of surrogates
				u(0xd800 + uint32(r-0x10000)>>10)
				u(0xdc00 + uint32(r-0x10000)&0x3ff)
			}
		} else if out != nil {
			out = append(out, b[i:i+n]...)
		}
		i += n
	}
	if out == nil {
		return j.w.Write(b)
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}
