package scheduler

import "github.com/wray-project/wray"

// Forever is the Spec.Retries of a task that is retried until it succeeds or
// is canceled.
const Forever = -1

// Spec describes a task to Submit. Submit copies what it keeps: the slices
// stay the caller's.
type Spec struct {
	ID  wray.ID // unused so far
	Job wray.ID

	// Parent is the task that submits, with the attempt it does so in. Zero
	// for the driver, unless the driver is itself a task here.
	Parent        wray.ID
	ParentAttempt int

	Name      string // shown in errors
	Resources wray.Resources
	Custom    []wray.Custom // each name once

	// Deps are the objects that the task needs and that are not there yet. It
	// does not run before all of them are, and fails when one of them does.
	Deps []wray.ID

	// Results are the objects that the task makes. They are there once
	// ObjectReady says so or the task is done without error, and fail with
	// the task.
	Results []wray.ID

	Retries int   // attempts beyond the first, for retryable failures; Forever
	Timeout int64 // nanoseconds an attempt may take from its Start, waits included; 0: no bound
	Again   bool  // it ran before, and what is lost of it is wanted: as a retry it may pass the limits on what is queued
	Bytes   int64 // what the caller keeps in memory for the task while it is queued

	// Place says where it may run; nil: here, and where there is no room on another
	// node.
	Place *Place

	// Value is the caller's own record of the task: every Decision about the
	// task has it, so that the caller need not look for it.
	Value any
}

// Outcome is how an attempt ended.
type Outcome struct {
	Err *wray.Error // nil when it ended well

	// Retryable says that the failure is one that the task's policy lets be
	// tried again: the caller knows system failures from user errors.
	// Timeouts may be retryable; a canceled task is never retried.
	Retryable bool
}

// Wait says what a blocked attempt waits for. It must name everything that can
// end the wait, for an attempt that waits only for work which cannot be
// admitted is taken to be deadlocked. The zero Wait is one that something
// outside can end: a timer, a message, room in the window of a stream.
type Wait struct {
	Objects []wray.ID // not there yet; any one of them ends the wait
	All     bool      // all Objects are needed to end it
	Space   bool      // the Space of the attempt's job ends it
}

// Kind is what a Decision asks for.
type Kind uint8

// The kinds of decisions.
const (
	// Start: run attempt Attempt of Task. Its resources are set aside.
	Start Kind = iota + 1

	// Stop: end Attempt of Task; Code (CodeCanceled or CodeTimeout) says why.
	// At most one for an attempt.
	Stop

	// Resume: Task, told Unblocked, has its CPU again.
	Resume

	// Done: Task is over after Attempt attempts, well when Err is nil. Code
	// is Err's. It is forgotten: its ID means nothing any more.
	Done

	// Space: Job, whose Submit was refused with ErrQueueFull, has room again.
	Space

	// JobEnded: EndJob was called for Job and its last task is done. Stats is
	// its final account. It is forgotten.
	JobEnded

	// Lend: have the worker Peer run attempt Attempt of Task. It ends with one
	// Finished, or with Refused. A Stop may follow, with the same Peer.
	Lend

	// TellGroup: tell the worker Peer the Note.
	TellGroup

	// GroupReady: all bundles of the group Task are reserved, for the first time or
	// again.
	GroupReady

	// GroupEnded: the group Task is no more. Err is nil when RemoveGroup ended it.
	GroupEnded
)

var kindNames = [...]string{"?", "Start", "Stop", "Resume", "Done", "Space", "JobEnded", "Lend", "TellGroup", "GroupReady", "GroupEnded"}

// String returns the kind's name, such as "Start".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[0]
}

// Decision is what the caller is to do.
type Decision struct {
	Seq     uint64 // from 1, without gaps
	Kind    Kind
	Code    wray.Code // of Stop and Done
	Attempt int       // from 1; 0 for the Done of a task that never started
	Task    wray.ID
	Job     wray.ID
	Err     *wray.Error // of Done
	Stats   *Stats      // of JobEnded
	Value   any         // the Spec's, of Task; nil where there is none
	Peer    PeerID      // of Lend, TellGroup, and of the Stop of an attempt that was lent
	Note    *GroupNote  // of TellGroup
	Bundle  int         // of Lend: that it runs in, of its group
}
