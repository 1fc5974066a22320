package objectstore

import (
	"strings"

	"github.com/fxamacker/cbor/v2"

	wray "github.com/wray-project/wray"
)

// Bounds in bytes of what a failure may carry. Errors are stored without
// asking for room, so they must be small: with these, EncodeFailure stays
// below 64 KiB.
const (
	maxFailureMessage   = 8 << 10
	maxFailureTrace     = 16 << 10
	maxFailureHint      = 2 << 10
	maxFailureName      = 512
	maxFailureLabel     = 128 // a sentinel, or a word about a limit
	maxFailureSentinels = 32
	maxFailureCauses    = 5
	maxCauseText        = 1 << 10 // message, hint and trace of a cause
	maxCauseSentinels   = 8
)

// failureDecoding bounds what a guest's error may cost the host.
var failureDecoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		MaxNestedLevels:  32,
		MaxArrayElements: 1 << 10,
		MaxMapPairs:      1 << 10,
		UTF8:             cbor.UTF8DecodeInvalid, // a guest in any language; cutFailure mends it
	}.DecMode()
	if err != nil {
		panic("BUG: objectstore: " + err.Error())
	}
	return m
}()

// EncodeFailure returns e as the payload of an ERROR value: a CBOR map with
// integer keys. Text that is too long is cut, and chains of causes too.
func EncodeFailure(e *wray.Error) []byte {
	b, err := cbor.Marshal(cutFailure(e, 0))
	if err != nil {
		// wray.Error is made of strings and integers, which always encode.
		panic("BUG: objectstore: encode failure: " + err.Error())
	}
	return b
}

// DecodeFailure returns the error that p encodes. p may come from a guest:
// where it encodes none, the result is a CodeInternal error that says so. Text
// that is too long is cut, and what of it is not UTF-8 is replaced.
func DecodeFailure(p []byte) *wray.Error {
	var e wray.Error
	if err := failureDecoding.Unmarshal(p, &e); err != nil {
		return wray.Errorf(wray.CodeInternal, "a task failed with an error that does not decode: %v", err)
	}
	if e.Code == wray.CodeOK {
		return wray.Errorf(wray.CodeInternal, "a task failed with an error without a code: %s", e.Message)
	}
	return cutFailure(&e, 0)
}

// cutFailure returns a copy of e within the bounds above.
func cutFailure(e *wray.Error, depth int) *wray.Error {
	if e == nil {
		return wray.Errorf(wray.CodeInternal, "a failure without an error")
	}
	c := *e
	text, trace, sentinels := maxFailureMessage, maxFailureTrace, maxFailureSentinels
	if depth > 0 {
		text, trace, sentinels = maxCauseText, maxCauseText, maxCauseSentinels
	}
	c.Message = cut(c.Message, text)
	c.Hint = cut(c.Hint, min(text, maxFailureHint))
	c.Trace = cut(c.Trace, trace)
	c.Task = cut(c.Task, maxFailureName)
	c.Node = cut(c.Node, maxFailureName)
	if n := min(len(c.Sentinels), sentinels); n > 0 {
		s := make([]string, n)
		for i := range s {
			s[i] = cut(c.Sentinels[i], maxFailureLabel)
		}
		c.Sentinels = s
	}
	if c.Limit != nil {
		l := *c.Limit
		l.Name, l.Unit, l.Flag = cut(l.Name, maxFailureLabel), cut(l.Unit, maxFailureLabel), cut(l.Flag, maxFailureLabel)
		c.Limit = &l
	}
	if c.Cause != nil {
		if depth == maxFailureCauses {
			c.Cause = nil
		} else {
			c.Cause = cutFailure(c.Cause, depth+1)
		}
	}
	return &c
}

// cut returns s, or what of its beginning fits into n bytes with a note that
// it was cut. The result is valid UTF-8, which CBOR text must be, and never
// longer than n.
func cut(s string, n int) string {
	const note = " ... (cut)"
	if len(s) <= n {
		return strings.ToValidUTF8(s, "?")
	}
	return strings.ToValidUTF8(s[:n-len(note)], "?") + note
}
