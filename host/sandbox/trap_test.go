package sandbox

import (
	"errors"
	"testing"
)

// TestGuestTrace holds that a trace has names alone, that what the meter adds
// is not in it, and that a recursion is one line.
func TestGuestTrace(t *testing.T) {
	for text, want := range map[string]string{
		"no trace": "",
		"x\nwasm stack trace:\n\twray_meter.overflow()\n\twray:check()\n\t.main.rec(i32) i32\n\t.main.rec(i32) i32\n\t.main.rec(i32) i32\n\t.main.run(i32,i64)": "main.rec\n… and 2 times more\nmain.run",
		"x\nwasm stack trace:\n\t.f(int)(i32) i32\n\t.$3(i32,i32) (i32,i32)\n":                                                                                  "f(int)\n$3",
		"x\nwasm stack trace:\n\t.a()\n\t\t0x16: /src/a.c:3\n\t.a()\n\t... maybe followed by omitted frames":                                                    "a\n\t0x16: /src/a.c:3\na\n…",
	} {
		if got := guestTrace(errors.New(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
