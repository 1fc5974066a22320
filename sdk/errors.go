package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

var sentinels struct {
	sync.RWMutex
	names  []string
	errors []error
}

func init() {
	for _, s := range []struct {
		name string
		err  error
	}{
		{"context.Canceled", context.Canceled}, {"context.DeadlineExceeded", context.DeadlineExceeded},
		{"io.EOF", io.EOF}, {"io.ErrUnexpectedEOF", io.ErrUnexpectedEOF},
		{"fs.ErrNotExist", fs.ErrNotExist}, {"fs.ErrExist", fs.ErrExist}, {"fs.ErrPermission", fs.ErrPermission},
		{"errors.ErrUnsupported", errors.ErrUnsupported},
	} {
		RegisterError(s.name, s.err)
	}
}

// RegisterError gives err a name, under which it travels between sandboxes: an
// error of a task for which errors.Is(·, err) holds arrives as one for which
// it holds too. Both sides register, in a package variable, so that it happens
// in every sandbox:
//
//	var ErrNoText = sdk.RegisterError("wordcount.ErrNoText", errors.New("no text"))
//
// It returns err, and panics when the name is taken by another error. A few
// errors of the standard library are registered already: those of package
// context, io.EOF, io.ErrUnexpectedEOF, fs.ErrNotExist, fs.ErrExist,
// fs.ErrPermission and errors.ErrUnsupported.
func RegisterError(name string, err error) error {
	if name == "" || strings.ContainsRune(name, 0) {
		panic("sdk: RegisterError needs a name without zero bytes")
	}
	sentinels.Lock()
	defer sentinels.Unlock()
	for i, n := range sentinels.names {
		if n == name {
			if sentinels.errors[i] != err {
				panic("sdk: two errors are registered as " + name)
			}
			return err
		}
	}
	sentinels.names = append(sentinels.names, name)
	sentinels.errors = append(sentinels.errors, err)
	return err
}

// sentinelNames returns the names of the registered errors that err matches.
func sentinelNames(err error) (names []string) {
	sentinels.RLock()
	defer sentinels.RUnlock()
	for i, s := range sentinels.errors {
		if errors.Is(err, s) {
			names = append(names, sentinels.names[i])
		}
	}
	return names
}

// failure is a *wray.Error together with the registered errors that it names.
// errors.As finds the first, errors.Is both.
type failure struct {
	err  *wray.Error
	also []error
}

// Error returns what the *wray.Error says.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap implements the tree of errors that package errors walks.
func (f *failure) Unwrap() []error { return append([]error{f.err}, f.also...) }

// withSentinels returns e as an error that matches the registered errors that
// it and its causes name.
func withSentinels(e *wray.Error) error {
	var also []error
	sentinels.RLock()
	defer sentinels.RUnlock()
	for c := e; c != nil; c = c.Cause {
		for _, name := range c.Sentinels {
			for i, n := range sentinels.names {
				if n == name {
					also = append(also, sentinels.errors[i])
				}
			}
		}
	}
	if also == nil {
		return e
	}
	return &failure{e, also}
}

// decodeFailure turns the payload of an ERROR value into an error.
func decodeFailure(b []byte) error {
	e := new(wray.Error)
	if err := cbor.Unmarshal(b, e); err != nil {
		return wray.Errorf(wray.CodeInternal, "a failure that does not decode: %v", err)
	}
	return withSentinels(e)
}

// local turns an error of the runtime below into one for users. doing says
// what failed, such as "get".
func local(doing string, err error) error {
	if err == nil {
		return nil
	}
	var e *wray.Error
	if errors.As(err, &e) {
		return err
	}
	if why := rt.Why(err); why != nil {
		e = new(wray.Error)
		if cbor.Unmarshal(why, e) == nil {
			e.Message = doing + ": " + e.Message
			return e
		}
	}
	e = &wray.Error{Code: wray.CodeInternal, Message: doing + ": " + err.Error()}
	var errno rt.Errno
	switch {
	case errors.Is(err, context.Canceled):
		e.Code = wray.CodeCanceled
		return &failure{e, []error{err}}
	case errors.Is(err, context.DeadlineExceeded):
		e.Code = wray.CodeTimeout
		return &failure{e, []error{err}}
	case errors.Is(err, rt.ErrStale):
		e.Code = wray.CodeBadArgument
		e.Hint = "a reference lives as long as the task that got it; return it, or pass it on"
	case errors.Is(err, rt.ErrFreed):
		e.Code = wray.CodeObjectLost
		e.Hint = "free a value when nobody is to read it any more"
	case errors.Is(err, rt.ErrStreamDropped):
		e.Code = wray.CodeCanceled
	case errors.As(err, &errno):
		switch abi.Errno(errno) {
		case abi.ENOSPC:
			e.Code, e.Hint = wray.CodeStoreFull, "keep fewer references, or give the store more room"
		case abi.ECANCELED:
			e.Code = wray.CodeCanceled
		case abi.EPERM:
			e.Code = wray.CodeDenied
		case abi.E2BIG, abi.EMSGSIZE:
			e.Code = wray.CodeLimitExceeded
		case abi.ENOMEM:
			e.Code = wray.CodeOutOfMemory
			if doing == "get" {
				e.Hint = "the value does not fit into this sandbox: read parts of it with ReadRange or NewReader, or give sandboxes more with --memory"
			}
		case abi.EINVAL:
			e.Code = wray.CodeBadArgument
		}
	default:
		e.Code = wray.CodeBadArgument
	}
	return e
}

// failureOf turns what a task returned into what its caller gets.
func failureOf(c *rt.Call, err error) *wray.Error {
	e := &wray.Error{Code: wray.CodeUserError, Message: err.Error(), Task: c.Name(), Attempt: c.Attempt(), Sentinels: sentinelNames(err)}
	var cause *wray.Error
	if errors.As(err, &cause) {
		e.Cause = cause
		// Error prints the cause after the message.
		e.Message = strings.TrimSuffix(strings.TrimSuffix(e.Message, cause.Error()), ": ")
	}
	if why := c.Context().Err(); why != nil && errors.Is(err, why) {
		switch why {
		case context.Canceled:
			e.Code = wray.CodeCanceled
		case context.DeadlineExceeded:
			e.Code = wray.CodeTimeout
		}
	}
	return e
}

// panicOf turns what a task panicked with into what its caller gets. It is
// called while the task's stack is still there.
func panicOf(c *rt.Call, v any) *wray.Error {
	e := &wray.Error{Code: wray.CodePanic, Message: fmt.Sprint(v), Task: c.Name(), Attempt: c.Attempt(), Trace: panicTrace(debug.Stack())}
	if err, ok := v.(error); ok {
		e.Sentinels = sentinelNames(err)
	}
	return e
}

// panicTrace cuts from a stack what is not the program's: the recovery above
// the panic, and below the task how it was called.
func panicTrace(stack []byte) string {
	s := string(stack)
	if head, rest, ok := strings.Cut(s, "\n"); ok {
		if i := strings.Index(rest, "\npanic("); i >= 0 {
			s = head + rest[i:]
		}
	}
	const pkg = "\ngithub.com/wray-project/wray/sdk."
	if i := strings.Index(s, pkg+"declare"); i >= 0 {
		s = s[:i]
		if j := strings.LastIndex(s, pkg); j >= 0 && strings.Contains(s[j:], "[...].func") && strings.Count(s[j+1:], "\n") == 1 {
			s = s[:j] // the function that gets the task's arguments
		}
	}
	return s
}

// Bounds in bytes of the text of a task's failure, and of how many causes go with
// it. What is longer would be refused by the host, and the failure lost whole;
// the host cuts causes shorter yet.
const (
	maxFailureText   = 8 << 10
	maxFailureTrace  = 16 << 10
	maxFailureCauses = 5
)

// fitting returns e with text that is UTF-8, as CBOR needs, and within bounds.
func fitting(e *wray.Error, causes int) *wray.Error {
	c := *e
	c.Message, c.Hint, c.Trace = fittingText(c.Message, maxFailureText), fittingText(c.Hint, maxFailureText), fittingText(c.Trace, maxFailureTrace)
	c.Task, c.Node = fittingText(c.Task, maxFailureText), fittingText(c.Node, maxFailureText)
	if e.Cause != nil && causes == 0 {
		c.Cause = nil
	} else if e.Cause != nil {
		c.Cause = fitting(e.Cause, causes-1)
	}
	return &c
}

func fittingText(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "?")
	}
	const note = " ... (cut)"
	return strings.ToValidUTF8(s[:n-len(note)], "?") + note
}

// fail ends the task with e.
func fail(c *rt.Call, e *wray.Error) {
	b, err := cbor.Marshal(fitting(e, maxFailureCauses))
	if err != nil {
		panic("BUG: a wray.Error does not encode: " + err.Error())
	}
	_ = c.Fail(&rt.Value{Encoding: abi.EncodingError, Data: b})
}
