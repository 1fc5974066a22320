package worker

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/scheduler"
	"github.com/wray-project/wray/wasm/abi"
)

// task is a submitted call of a function, from submission to its final
// result.
type task struct {
	id        wray.ID
	job       *job
	fn        *function
	name      string
	resources wray.Resources
	memory    int64 // of the sandbox, 0 for the job's default
	flags     uint32
	retryOn   []string
	timeout   time.Duration
	place     *wray.Placement     // nil: the default
	group     *objectstore.Object // of the placement group that it runs in, with a reference; nil: none
	bundle    int                 // of that; wray.AnyBundle: any
	only      *narrowing          // what it may of what its job may; nil: all

	args    []arg
	results []*objectstore.Object // one reference each, held by the task
	stream  *objectstore.Stream   // with SpecStream, instead of results; the readers hold the references
	items   uint64                // given by this attempt; belongs to the runner

	// The rest belongs to the goroutine that runs the task.
	attempt int
	failure *wray.Error // given by task_fail
	stdout  []byte      // of a command
	stderr  []byte

	makes    *actor                   // the actor that the task creates and then is, or nil
	held     []held                   // results that this attempt gave, until it has ended
	letter   *scheduler.Letter[*task] // of a call of an actor, else nil
	actor    *actor                   // that is called, or nil
	from     uint64                   // the caller, of a call
	call     underWay                 // of a call of an actor that takes several at once
	restarts int                      // of the actor that the task makes; scheduler.Forever
	tries    int                      // how often a call may run again after its actor restarted; negative: without end

	// Of a call of a durable actor:
	effect *durable.ID           // of the durable actor that calls, or nil
	again  bool                  // the effect may have been had before
	epoch  uint64                // of that one's log
	key    string                // that the caller chose, or ""
	digest durable.Digest        // with either
	keeps  []*objectstore.Object // that its record may want, with a reference each; belongs to the goroutine of live

	canceled bool // who runs the call was told so; guarded by the actor's lock

	far     *far      // nil where it has nothing to do with other nodes
	runner  *guest    // the guest that runs it; guarded by Worker.mu
	stopped wray.Code // stopped before it had a runner; guarded by Worker.mu

	older, younger *task                  // in Worker.tasks; guarded by Worker.mu
	one            [1]*objectstore.Object // results, where there is one
}

// taskList is tasks in the order of their submission.
type taskList struct {
	oldest, youngest *task
	n                int
	actors           int // of n, those that make one
}

func (l *taskList) add(t *task) {
	t.older, t.younger = l.youngest, nil
	if l.youngest != nil {
		l.youngest.younger = t
	} else {
		l.oldest = t
	}
	l.youngest = t
	l.n++
	if t.makes != nil {
		l.actors++
	}
}

func (l *taskList) remove(t *task) {
	if t.older != nil {
		t.older.younger = t.younger
	} else {
		l.oldest = t.younger
	}
	if t.younger != nil {
		t.younger.older = t.older
	} else {
		l.youngest = t.older
	}
	t.older, t.younger = nil, nil
	l.n--
	if t.makes != nil {
		l.actors--
	}
}

// all calls yield for each task until it returns false.
func (l *taskList) all(yield func(*task) bool) {
	for t := l.oldest; t != nil && yield(t); t = t.younger {
	}
}

// arg is an argument: a small value copied at submission, or an object.
type arg struct {
	encoding abi.Encoding
	meta     uint32
	payload  []byte
	object   *objectstore.Object // one reference, held by the task; nil for a small value
	// later: the object was not there when argsTravel found out what goes with a
	// message, and so is not in it, wherever it is by now.
	later bool
}

// fresh reports whether the task wants a sandbox that has run no other.
func (t *task) fresh() bool { return t.flags&abi.SpecFresh != 0 }

// dependencyFailed is the failure of a task whose argument i failed with err.
func dependencyFailed(i int, err *wray.Error) *wray.Error {
	return &wray.Error{Code: wray.CodeDependencyFailed, Message: fmt.Sprintf("argument %d failed", i),
		Hint: "the cause is the error to mend", Cause: err}
}

// label names the task in logs and errors.
func (t *task) label() string { return t.name }

// release gives back what the task holds.
func (t *task) release() {
	for _, a := range t.args {
		if a.object != nil {
			a.object.Release()
		}
	}
	for _, o := range t.results {
		o.Release()
	}
	for _, o := range t.keeps {
		o.Release()
	}
	if t.group != nil {
		t.group.Release()
	}
	t.keeps, t.group = nil, nil
	t.args, t.results, t.stream, t.one[0] = nil, nil, nil, nil
}

// fail makes everybody who waits for the task's results see err.
func (t *task) fail(err *wray.Error) {
	for _, o := range t.results {
		_ = o.Fail(err) // sealed ones keep their value
	}
	if t.stream != nil {
		_ = t.job.w.store.FailStream(t.stream, t.job.w.newID(), err)
	}
}

// execute runs one attempt of a task in the guest and returns its failure.
func (g *guest) execute(t *task) *wray.Error {
	g.begin(t)
	return g.outcome(t, g.enter(t))
}

// begin makes t the task that the guest runs.
func (g *guest) begin(t *task) {
	g.task = t
	if t.actor == nil {
		g.holder = t
		g.last.Store(t.fn)
	}
	t.failure, t.stdout, t.stderr, g.refused = nil, nil, nil, nil
	t.dropHeld()
	if t.timeout > 0 {
		g.sb.SetDeadline(t.timeout)
	}
}

// enter has the guest run the task that it was given, and returns how that ended.
func (g *guest) enter(t *task) error {
	if t.fn.command {
		return g.executeCommand(t)
	}
	_, err := g.sb.Call(abi.OpTask, 0)
	return err
}

// outcome returns the failure of an attempt of t whose call ended with err.
func (g *guest) outcome(t *task, err error) *wray.Error {
	err = g.ended(err)
	if err == nil && t.failure == nil {
		e := t.complete()
		if e == nil {
			return nil
		}
		if g.refused != nil { // it may have been refused its input
			e.Cause, e.Hint = g.refused, g.refused.Hint
		}
		err = e
	}
	e := t.failure
	if err != nil {
		e = t.asError(err)
		if e.Code == wray.CodeTimeout && t.timeout > 0 {
			// Its sandbox, which does not know how much it was, came first.
			late := t.overran()
			late.Trace = e.Trace
			e = late
		}
	}
	e = t.job.named(e, t.name, t.attempt)
	return e
}

// complete checks that a task that ended well gave all its results.
func (t *task) complete() *wray.Error {
	for i, o := range t.results {
		if !o.Ready() && !t.holding(i) {
			return wray.Errorf(wray.CodeBadArgument, "the task returned without its result %d of %d", i, len(t.results))
		}
	}
	return nil
}

// answered reports whether the task's caller has all that it asked for, though
// the attempt has not ended: then there is nothing to run it again for.
func (t *task) answered() bool {
	return t.stream == nil && len(t.results) > 0 && t.held == nil && t.failure == nil && t.complete() == nil
}

// asError makes a typed error of what a call ended with.
func (t *task) asError(err error) *wray.Error {
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		if t.failure != nil {
			return t.failure // it explained itself before it left
		}
		return &wray.Error{Code: wray.CodeExit, ExitCode: int(exit.Code),
			Message: fmt.Sprintf("the task called exit(%d) instead of returning", exit.Code),
			Hint:    "return a value or an error; os.Exit is for drivers"}
	}
	var e *wray.Error
	if errors.As(err, &e) {
		if e.Code == wray.CodeDeadlock && t.failure != nil {
			e = t.failure
		}
		return e
	}
	return &wray.Error{Code: wray.CodeInternal, Message: err.Error()}
}

// retryable reports whether a failure asks for another attempt.
func (t *task) retryable(e *wray.Error) bool {
	switch {
	case e.Code.System():
		return true
	case e.Code == wray.CodeCanceled, e.Code == wray.CodeGroupRemoved, e.Code == wray.CodeUnknownFunction, e.Code == wray.CodeBadArgument:
		return false
	case t.flags&abi.SpecRetryErrors != 0:
		return true
	}
	for _, s := range e.Sentinels {
		if slices.Contains(t.retryOn, s) {
			return true
		}
	}
	return false
}

// maxCapture bounds what is kept of a command's output.
const maxCapture = 64 << 20

// capture keeps what a command prints.
func (t *task) capture(s Stream, p []byte) {
	buf := &t.stdout
	if s == Stderr {
		buf = &t.stderr
	}
	if len(*buf)+len(p) > maxCapture {
		panic(sandbox.Stop(&wray.Error{Code: wray.CodeLimitExceeded, Message: "the command printed more than can be kept",
			Limit: &wray.Limit{Name: "output", Value: maxCapture, Unit: "bytes"}, Hint: "write to a granted directory instead"}))
	}
	*buf = append(*buf, p...)
}

// executeCommand runs a plain WASI command as a task: its arguments,
// environment and stdin are the task's arguments, stdout, stderr and the exit
// code its results.
func (g *guest) executeCommand(t *task) error {
	var argv, env []string
	var stdin wasi.File
	for i, a := range t.args {
		b, err := a.payload, error(nil)
		if a.object != nil {
			v, e := g.viewOf(a.object)
			if e != nil {
				return e
			}
			defer v.Close()
			b = v.Bytes()
		}
		switch i {
		case 0:
			err = cbor.Unmarshal(b, &argv)
		case 1:
			m := map[string]string{}
			err = cbor.Unmarshal(b, &m)
			for k, v := range m {
				env = append(env, k+"="+v)
			}
			slices.Sort(env)
		case 2:
			stdin = wasi.NewBytes(b)
		default:
			err = errors.New("a command takes arguments, environment and stdin")
		}
		if err != nil {
			return wray.Errorf(wray.CodeBadArgument, "argument %d of command %s: %v", i, t.name, err)
		}
	}
	g.configure(append([]string{t.fn.name}, argv...), stdin, env...)
	code, err := g.sb.Start()
	g.flush()
	if err != nil {
		return err
	}
	exit, _ := cbor.Marshal(code)
	for i, v := range []objectstore.Value{
		{Encoding: abi.EncodingRaw, Payload: t.stdout},
		{Encoding: abi.EncodingRaw, Payload: t.stderr},
		{Encoding: abi.EncodingCBOR, Payload: exit},
	} {
		if i >= len(t.results) {
			break
		}
		if err := t.results[i].TrySeal(v); err != nil && !errors.Is(err, objectstore.ErrSealed) {
			return fmt.Errorf("keep the command's output: %w", err)
		}
	}
	return nil
}

// len returns the length of the argument's payload.
func (a *arg) len() int64 {
	if a.object != nil {
		return a.object.Info().Len
	}
	return int64(len(a.payload))
}
