package main

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/wray-project/wray/internal/plain"
)

// Text of a module, a guest or another node goes through one of these, or
// through plain.Text, where it is printed.

// line is text that stays on its line and in its column: a name.
func line(s string) string { return plain.Line(s) }

// paragraph is text of which only the first line begins where lines of wray's
// do; the others are set in.
func paragraph(s string) string { return plain.Paragraph(s) }

// newJSON writes what --json prints, of which all goes through it.
func newJSON(w io.Writer) *json.Encoder { return json.NewEncoder(plain.JSON(w)) }

// indent sets every line of s in by four spaces.
func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
