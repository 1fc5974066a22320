//go:build !wasip1

package sdk

import (
	"bytes"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
)

// What a session's tasks are called and print drives no terminal; what goes to a
// file is as it was printed.
func TestSessionPrints(t *testing.T) {
	var out, errs bytes.Buffer
	put := printTo(&out, &errs, false, true)
	put("a\x1b[2J\nb", clientwire.Stdout, []byte("raw\x1b[31m\nnext\n"))
	put("", clientwire.Stdout, []byte("\x00\n"))
	put("task", clientwire.Stdout+1, []byte("red\x1b[31m\n"))
	if want := "(a\ufffd[2J\ufffdb) raw\x1b[31m\n(a\ufffd[2J\ufffdb) next\n\x00\n"; out.String() != want {
		t.Errorf("printed %q, not %q", &out, want)
	}
	if want := "(task) red\ufffd[31m\n"; errs.String() != want {
		t.Errorf("printed %q, not %q", &errs, want)
	}
	out.Reset()
	report(&out, &wray.Error{Code: wray.CodeUserError, Message: "m\x1b[2J", Trace: "t\x1b[2J", Hint: "h\x1b[2J"})
	if want := "error: UserError: m\ufffd[2J\ntrace:\n\tt\ufffd[2J\nhint: h\ufffd[2J\n"; out.String() != want {
		t.Errorf("reported %q, not %q", &out, want)
	}
}
