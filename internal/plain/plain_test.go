package plain

import "testing"

func TestPlain(t *testing.T) {
	for _, c := range []struct{ in, text, line, paragraph string }{
		{"plain", "plain", "plain", "plain"},
		{"a\tb\n", "a\tb\n", "a\ufffdb\ufffd", "a\tb\n"},
		{"\x1b]0;title\a", "\ufffd]0;title\ufffd", "\ufffd]0;title\ufffd", "\ufffd]0;title\ufffd"},
		{"a\r\u009bb\u202ec", "a\ufffd\ufffdb\ufffdc", "a\ufffd\ufffdb\ufffdc", "a\ufffd\ufffdb\ufffdc"},
		{"a\nwray: error: b", "a\nwray: error: b", "a\ufffdwray: error: b", "a\n    wray: error: b"},
		{"\u00e9\u2028\xff", "\u00e9\u2028\ufffd", "\u00e9\ufffd\ufffd", "\u00e9\u2028\ufffd"},
	} {
		if s := string(Text([]byte(c.in))); s != c.text {
			t.Errorf("Text(%q) is %q, not %q", c.in, s, c.text)
		}
		if s := Line(c.in); s != c.line {
			t.Errorf("Line(%q) is %q, not %q", c.in, s, c.line)
		}
		if s := Paragraph(c.in); s != c.paragraph {
			t.Errorf("Paragraph(%q) is %q, not %q", c.in, s, c.paragraph)
		}
	}
}
