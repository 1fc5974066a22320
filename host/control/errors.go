package control

import (
	"errors"
	"fmt"
)

// Sentinels, to match with errors.Is.
var (
	// ErrNotFound says that there is no record under the key.
	ErrNotFound = errors.New("no such record")
	// ErrConflict says that a condition of a commit does not hold, and nothing
	// was done. It comes as a *ConflictError.
	ErrConflict = errors.New("changed meanwhile")
	// ErrCompacted says that a revision is too old to be known. It comes as a
	// *CompactedError.
	ErrCompacted = errors.New("revision is forgotten")
	// ErrLeaseLapsed says that there is no such lease, or none any more.
	ErrLeaseLapsed = errors.New("lease has lapsed")
	// ErrUnavailable says that the state cannot be reached, or that a quorum
	// of those who keep it is gone. What was asked for may have happened.
	ErrUnavailable = errors.New("control state is unavailable")
	// ErrInvalid says that a request makes no sense, whatever the state.
	ErrInvalid = errors.New("invalid request")
	// ErrTooLarge says that a limit was passed. It comes as a *LimitError.
	ErrTooLarge = errors.New("too large")
	// ErrDenied says that an external store does not let this node do it.
	ErrDenied = errors.New("not allowed")
	// ErrClosed says that the store or the watcher was closed.
	ErrClosed = errors.New("closed")
)

// ConflictError says which condition did not hold.
type ConflictError struct {
	Cond  Cond
	Found Record // what is under the key; zero where nothing is
}

// Error implements error.
func (e *ConflictError) Error() string {
	found := "it is not there"
	if e.Found.Modified != 0 {
		found = fmt.Sprintf("it was made by commit %d and last written by %d", e.Found.Created, e.Found.Modified)
	}
	switch e.Cond.kind {
	case condAbsent:
		return fmt.Sprintf("record %q should not be there: %s: read it again", e.Cond.Key, found)
	case condBorn:
		return fmt.Sprintf("record %q should be the one that commit %d made: %s: who held it holds it no more", e.Cond.Key, e.Cond.rev, found)
	}
	return fmt.Sprintf("record %q should be as commit %d left it: %s: read it again", e.Cond.Key, e.Cond.rev, found)
}

// Is matches ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// CompactedError says what is still known.
type CompactedError struct {
	Asked  Revision
	Oldest Revision // what may be asked for, or zero where that is not known
}

// Error implements error.
func (e *CompactedError) Error() string {
	known := ""
	if e.Oldest != 0 {
		known = fmt.Sprintf(", the oldest one known is %d", e.Oldest)
	}
	return fmt.Sprintf("revision %d is forgotten%s: list again, and go on from there", e.Asked, known)
}

// Is matches ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// LimitError says which limit was passed.
type LimitError struct {
	What  string // such as "value of record \"kv/a/b\""
	Size  int
	Limit int
	Unit  string // such as "bytes"
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("%s has %d %s, at most %d are allowed; the control state is for what is small: put the rest into an object",
		e.What, e.Size, e.Unit, e.Limit)
}

// Is matches ErrTooLarge.
func (e *LimitError) Is(target error) bool { return target == ErrTooLarge }

// Unavailable wraps the reason why a store could not be reached, for
// implementations of Store.
func Unavailable(doing string, cause error) error {
	if cause == nil {
		return fmt.Errorf("%s: %w", doing, ErrUnavailable)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, cause)
}
