package clientwire

import (
	"unicode/utf8"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
)

// Messages about jobs that outlive who submits them.
const (
	KindJobSubmit link.Kind = 22 // client: request RunBody with files, as for KindRun; reply JobInfo
	KindJobs      link.Kind = 23 // client: request JobsBody, reply JobList
	KindJob       link.Kind = 24 // client: request JobBody, reply JobInfo
	KindJobStop   link.Kind = 25 // client: request JobBody, reply JobInfo
	KindJobLogs   link.Kind = 26 // client: request JobLogsBody, reply JobLogs
	KindOperator  link.Kind = 27 // client: request OperatorBody, reply Operator
)

// States of a job.
const (
	JobPending   = "pending"   // accepted; its modules are being compiled
	JobRunning   = "running"   //
	JobSucceeded = "succeeded" // its driver ended with 0
	JobFailed    = "failed"    // Error says why
	JobStopped   = "stopped"   // somebody stopped it
)

// JobEnded reports whether a job in that state runs no more.
func JobEnded(state string) bool {
	return state == JobSucceeded || state == JobFailed || state == JobStopped
}

// JobInfo is a submitted job, as everybody sees it. Times are Unix milliseconds,
// zero where they are not reached.
type JobInfo struct {
	ID        string   `cbor:"1,keyasint" json:"id"`
	Name      string   `cbor:"2,keyasint" json:"name"` // of its driver's module
	Args      []string `cbor:"3,keyasint,omitempty" json:"args,omitempty"`
	Node      string   `cbor:"4,keyasint" json:"node"` // where its driver runs
	State     string   `cbor:"5,keyasint" json:"state"`
	Submitted int64    `cbor:"6,keyasint" json:"submitted_ms"`
	Started   int64    `cbor:"7,keyasint,omitempty" json:"started_ms,omitempty"`
	Ended     int64    `cbor:"8,keyasint,omitempty" json:"ended_ms,omitempty"`
	ExitCode  int      `cbor:"9,keyasint,omitempty" json:"exit_code"` // of the driver, of a job that has ended
	Error     string   `cbor:"10,keyasint,omitempty" json:"error,omitempty"`
	Hint      string   `cbor:"11,keyasint,omitempty" json:"hint,omitempty"`
	Trace     string   `cbor:"12,keyasint,omitempty" json:"trace,omitempty"` // the guest's stack, or what TraceOf says
	Note      string   `cbor:"13,keyasint,omitempty" json:"note,omitempty"`  // what else there is to say, such as lost output
	By        string   `cbor:"14,keyasint,omitempty" json:"by,omitempty"`    // who submitted it, of those who come over the network
	Tenant    string   `cbor:"15,keyasint,omitempty" json:"tenant,omitempty"`
	TraceOf   string   `cbor:"16,keyasint,omitempty" json:"trace_of,omitempty"` // which process of wray said what is in Trace; empty: the guest
}

// TraceOf says which process of wray has said what a failure of that code has as
// its trace: a worker, or a compiler, that died. Empty: it is a guest's stack.
func TraceOf(c wray.Code) string {
	switch c {
	case wray.CodeWorkerDied:
		return "worker"
	case wray.CodeInvalidModule:
		return "compiler"
	}
	return ""
}

// TraceHeading is what a person reads above a trace, of what TraceOf says.
func TraceHeading(of string) string {
	if of == "" {
		return "the guest's stack:"
	}
	return "what the " + of + " process said in the end:"
}

// JobList is the jobs that a node knows of, the newest first.
type JobList struct {
	Jobs []JobInfo `cbor:"1,keyasint" json:"jobs"`
	// Partial says why jobs of other nodes may be missing, or empty.
	Partial string `cbor:"2,keyasint,omitempty" json:"partial,omitempty"`
}

// JobsBody asks for the jobs of a tenant; empty: of those who run the cluster.
type JobsBody struct {
	Tenant string `cbor:"1,keyasint,omitempty"`
}

// JobBody names a job.
type JobBody struct {
	ID     string `cbor:"1,keyasint"`
	Tenant string `cbor:"2,keyasint,omitempty"` // whose it is; empty: of those who run the cluster
}

// JobLogsBody asks for a part of what a job printed.
type JobLogsBody struct {
	ID     string `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint"` // 0 for the beginning, or Next of the part before
	Tenant string `cbor:"4,keyasint,omitempty"`
	Wait   bool   `cbor:"3,keyasint"` // where there is nothing yet, wait for more or for the job's end
}

// JobLogs is a part of what a job printed, in order.
type JobLogs struct {
	Parts []JobOutput `cbor:"1,keyasint" json:"parts"`
	Next  int64       `cbor:"2,keyasint" json:"next"` // where the next part begins
	// Dropped is bytes of the log between the offset that was asked for and the
	// first part, which are kept no more.
	Dropped int64 `cbor:"3,keyasint,omitempty" json:"dropped,omitempty"`
	// End is set where nothing follows: the job has ended.
	End bool `cbor:"4,keyasint,omitempty" json:"end,omitempty"`
}

// JobOutput is bytes that a job printed at once.
type JobOutput struct {
	Time   int64  `cbor:"1,keyasint" json:"time_ms"` // Unix milliseconds
	Task   string `cbor:"2,keyasint,omitempty" json:"task,omitempty"`
	Stream uint8  `cbor:"3,keyasint" json:"stream"` // 1: standard output, 2: standard error, 3: what wray says
	Data   []byte `cbor:"4,keyasint" json:"data"`
}

// JobLine is a JobOutput as programs read it that read JSON.
type JobLine struct {
	Time   int64  `json:"time_ms"` // Unix milliseconds
	Task   string `json:"task,omitempty"`
	Stream string `json:"stream"` // stdout, stderr, or notice: what wray says
	Text   string `json:"text,omitempty"`
	Data   []byte `json:"data,omitempty"` // in place of Text, of what is not UTF-8
}

// Line returns the output in that form.
func (o *JobOutput) Line() JobLine {
	l := JobLine{Time: o.Time, Task: o.Task, Stream: "notice"}
	switch o.Stream {
	case Stdout:
		l.Stream = "stdout"
	case Stderr:
		l.Stream = "stderr"
	}
	if utf8.Valid(o.Data) {
		l.Text = string(o.Data)
	} else {
		l.Data = o.Data
	}
	return l
}

// JobSpec is what a job is run with that comes over the network. Numbers that
// are zero are the defaults of wray run.
type JobSpec struct {
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`         // KEY=VALUE
	Memory  int64    `json:"memory,omitempty"`      // bytes of one sandbox
	Stack   int64    `json:"stack,omitempty"`       // bytes
	Files   int64    `json:"max_files,omitempty"`   // open in one sandbox
	Handles int64    `json:"max_handles,omitempty"` // of one sandbox
	Windows int64    `json:"max_windows,omitempty"` // of one sandbox
	LogRate int64    `json:"log_rate,omitempty"`    // bytes a second
	Timeout int64    `json:"timeout_ms,omitempty"`  // 0: never
	Egress  []string `json:"egress,omitempty"`      // servers that it may ask over HTTP, HOST or HOST:PORT
}
