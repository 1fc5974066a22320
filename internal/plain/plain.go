// Package plain prints what others wrote: text of a module, a guest or another
// node may neither drive the terminal nor pass for a line of who prints it.
package plain

import (
	"bytes"
	"strings"
	"unicode"
)

// Text replaces what drives a terminal: control characters other than tab and
// newline, and those that turn the direction of writing.
func Text(b []byte) []byte {
	clean := true
	for _, c := range b {
		if c < 0x20 && c != '\t' && c != '\n' || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return b
	}
	return bytes.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, b)
}

// Line is text that stays on its line and in its column: a name.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\u2028' || r == '\u2029' {
			return unicode.ReplacementChar
		}
		return r
	}, string(Text([]byte(s))))
}

// Paragraph is text of which only the first line begins where lines of wray's
// do; the others are set in.
func Paragraph(s string) string {
	s = string(Text([]byte(s)))
	end := ""
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		s, end = t, "\n"
	}
	return strings.ReplaceAll(s, "\n", "\n    ") + end
}
