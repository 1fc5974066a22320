package objectstore

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	wray "github.com/wray-project/wray"
)

// TestFailureText holds that a failure whose text is not UTF-8, or is long,
// arrives with what of it is good.
func TestFailureText(t *testing.T) {
	for _, text := range []string{"caf\xe9: no such table", "no such table: " + strings.Repeat("x", 1<<20)} {
		p, err := cbor.Marshal(&wray.Error{Code: wray.CodeUserError, Message: text, Trace: text,
			Cause: &wray.Error{Code: wray.CodeUserError, Message: text}})
		if err != nil {
			t.Fatal(err)
		}
		e := DecodeFailure(p)
		for _, got := range []string{e.Message, e.Trace, cause(e)} {
			if e.Code != wray.CodeUserError || !strings.Contains(got, "no such table") || !utf8.ValidString(got) || len(got) > maxFailureTrace {
				t.Errorf("%.40q: %v: %.80q, %d bytes", text, e.Code, got, len(got))
			}
		}
	}
}

func cause(e *wray.Error) string {
	if e.Cause == nil {
		return ""
	}
	return e.Cause.Message
}
