package wray

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Code classifies a failure. Callers branch on codes; people read messages.
// Codes travel between sandboxes and nodes: numbers are never reused.
type Code uint32

// The codes. The comment says who is at fault and whether a retry can help.
const (
	CodeOK               Code = 0
	CodeInternal         Code = 1  // a bug of wray; system failure, retried
	CodeUserError        Code = 2  // the task returned an error; retried on request
	CodePanic            Code = 3  // the task panicked; retried on request
	CodeTrap             Code = 4  // the sandbox trapped (unreachable, bad access); retried on request
	CodeExit             Code = 5  // the task called exit
	CodeCanceled         Code = 6  // the caller canceled the task
	CodeTimeout          Code = 7  // the task ran past its deadline
	CodeOutOfMemory      Code = 8  // the sandbox asked for more memory than its limit
	CodeStackOverflow    Code = 9  // calls nested deeper than the limit
	CodeDeadlock         Code = 10 // everything in the guest waits for nothing
	CodeResourceDeadlock Code = 11 // holders of resources wait for work that cannot be admitted
	CodeUnschedulable    Code = 12 // the task asks for more than the machine has
	CodeLimitExceeded    Code = 13 // a limit of the sandbox or the job was passed
	CodeInvalidModule    Code = 14 // the module is not valid WebAssembly, or is refused
	CodeUnknownImport    Code = 15 // the module needs an import that no host provides
	CodeUnknownFunction  Code = 16 // no function of that name is declared
	CodeBadArgument      Code = 17 // an argument or a result does not decode
	CodeWorkerDied       Code = 18 // the worker process died; system failure, retried
	CodeOwnerDied        Code = 19 // the owner of the object is gone
	CodeObjectLost       Code = 20 // the object is gone and cannot be made again
	CodeStoreFull        Code = 21 // the object store has no room and nothing can be dropped
	CodeDenied           Code = 22 // not granted to this job
	CodeEndOfStream      Code = 23 // no further items; not a failure
	CodeDependencyFailed Code = 24 // an argument's task failed
	CodeActorDied        Code = 25 // the actor is gone, or lost its state during the call
	CodeActorRestarted   Code = 26 // the actor is again what it was before calls that it had answered; Lost says how many
	CodeDiverged         Code = 27 // a durable actor's call was run again, after a crash, and went another way
	CodeGroupRemoved     Code = 28 // the placement group that it ran in, or was to run in, was removed
)

var codeNames = [...]string{
	"OK", "Internal", "UserError", "Panic", "Trap", "Exit", "Canceled", "Timeout",
	"OutOfMemory", "StackOverflow", "Deadlock", "ResourceDeadlock", "Unschedulable",
	"LimitExceeded", "InvalidModule", "UnknownImport", "UnknownFunction", "BadArgument",
	"WorkerDied", "OwnerDied", "ObjectLost", "StoreFull", "Denied", "EndOfStream",
	"DependencyFailed", "ActorDied", "ActorRestarted", "Diverged", "GroupRemoved",
}

// String returns the code's name, such as "OutOfMemory".
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("Code(%d)", uint32(c))
}

// System reports whether the failure is the platform's and not the task's:
// such tasks are retried by default.
func (c Code) System() bool {
	switch c {
	case CodeInternal, CodeWorkerDied, CodeOwnerDied, CodeObjectLost:
		return true
	}
	return false
}

// Error is how every failure of a task, an object or a module reaches a user.
// It says what happened (Code, Message), where (Task, Attempt, Node, Trace)
// and what to do next (Hint).
type Error struct {
	Code    Code   `cbor:"1,keyasint"`
	Message string `cbor:"2,keyasint,omitempty"`
	Task    string `cbor:"3,keyasint,omitempty"` // name of the task that failed
	Attempt int    `cbor:"4,keyasint,omitempty"` // from 1
	Node    string `cbor:"5,keyasint,omitempty"`
	Trace   string `cbor:"6,keyasint,omitempty"` // the guest's stack trace
	Hint    string `cbor:"7,keyasint,omitempty"` // what to do next
	// Sentinels names the registered errors that the task's error matched, so
	// that errors.Is works across sandboxes.
	Sentinels []string `cbor:"8,keyasint,omitempty"`
	Limit     *Limit   `cbor:"9,keyasint,omitempty"` // set with CodeLimitExceeded and kin
	ExitCode  int      `cbor:"10,keyasint,omitempty"`
	// Cause is the error of the task whose result this one needed.
	Cause *Error `cbor:"11,keyasint,omitempty"`
	// Lost is how many calls that an actor had answered it lost when it was
	// started again; set with CodeActorRestarted and CodeActorDied.
	Lost int `cbor:"12,keyasint,omitempty"`
}

// Limit is a bound that was passed.
type Limit struct {
	Name  string `cbor:"1,keyasint"`           // what is bounded, such as "memory"
	Value int64  `cbor:"2,keyasint"`           // the bound
	Unit  string `cbor:"3,keyasint,omitempty"` // its unit, such as "bytes"
	Flag  string `cbor:"4,keyasint,omitempty"` // the flag that raises it
}

// Units in which people do not count.
const (
	UnitCPU    = "ten-thousandths of a core" // see CPU
	UnitAmount = "ten-thousandths of one"    // see Amount
	UnitTime   = "ns"
)

// amount writes the bound for people: "2 cores", "100ms".
func (l *Limit) amount() string {
	switch l.Unit {
	case "":
		return strconv.FormatInt(l.Value, 10)
	case UnitCPU:
		return CPU(l.Value).String() + " cores"
	case UnitAmount:
		return Amount(l.Value).String()
	case UnitTime:
		return time.Duration(l.Value).String()
	}
	if l.Unit == "bytes" {
		for _, u := range []struct {
			name  string
			shift uint
		}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
			if l.Value > 0 && l.Value%(1<<u.shift) == 0 {
				return strconv.FormatInt(l.Value>>u.shift, 10) + " " + u.name
			}
		}
	}
	return strconv.FormatInt(l.Value, 10) + " " + l.Unit
}

// Errorf returns an Error of code with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error returns one line: where, what class, what happened.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Task != "" {
		fmt.Fprintf(&b, "task %s", e.Task)
		if e.Attempt > 0 {
			fmt.Fprintf(&b, " (attempt %d", e.Attempt)
			if e.Node != "" {
				fmt.Fprintf(&b, " on %s", e.Node)
			}
			b.WriteByte(')')
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Code.String())
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if l := e.Limit; l != nil {
		fmt.Fprintf(&b, " (limit %s = %s", l.Name, l.amount())
		if l.Flag != "" {
			fmt.Fprintf(&b, ", raise it with %s", l.Flag)
		}
		b.WriteByte(')')
	}
	if e.Cause != nil {
		b.WriteString(": ")
		b.WriteString(e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the failure of the task whose result this one needed.
func (e *Error) Unwrap() error {
	if e.Cause == nil {
		return nil
	}
	return e.Cause
}

// Is reports whether target is an *Error with no more than a code, and that
// code is e's: errors.Is(err, wray.ErrTimeout).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Message == "" && t.Task == "" && t.Code == e.Code
}

// Sentinels to match with errors.Is.
var (
	ErrUserError        = &Error{Code: CodeUserError}
	ErrPanic            = &Error{Code: CodePanic}
	ErrTrap             = &Error{Code: CodeTrap}
	ErrExit             = &Error{Code: CodeExit}
	ErrCanceled         = &Error{Code: CodeCanceled}
	ErrTimeout          = &Error{Code: CodeTimeout}
	ErrOutOfMemory      = &Error{Code: CodeOutOfMemory}
	ErrStackOverflow    = &Error{Code: CodeStackOverflow}
	ErrDeadlock         = &Error{Code: CodeDeadlock}
	ErrResourceDeadlock = &Error{Code: CodeResourceDeadlock}
	ErrUnschedulable    = &Error{Code: CodeUnschedulable}
	ErrLimitExceeded    = &Error{Code: CodeLimitExceeded}
	ErrInvalidModule    = &Error{Code: CodeInvalidModule}
	ErrUnknownImport    = &Error{Code: CodeUnknownImport}
	ErrUnknownFunction  = &Error{Code: CodeUnknownFunction}
	ErrBadArgument      = &Error{Code: CodeBadArgument}
	ErrWorkerDied       = &Error{Code: CodeWorkerDied}
	ErrObjectLost       = &Error{Code: CodeObjectLost}
	ErrStoreFull        = &Error{Code: CodeStoreFull}
	ErrDenied           = &Error{Code: CodeDenied}
	ErrEndOfStream      = &Error{Code: CodeEndOfStream}
	ErrDependencyFailed = &Error{Code: CodeDependencyFailed}
	ErrActorDied        = &Error{Code: CodeActorDied}
	ErrActorRestarted   = &Error{Code: CodeActorRestarted}
	ErrDiverged         = &Error{Code: CodeDiverged}
	ErrGroupRemoved     = &Error{Code: CodeGroupRemoved}
)
