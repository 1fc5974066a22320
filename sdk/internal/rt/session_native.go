//go:build !wasip1

package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/wasm/abi"
)

// Session is a client's session in a node: a job whose driver is this process.
// What package clientwire says of sessions is all there is between the two.
//
// Commands are gathered in out and leave as one message, when somebody waits
// for an answer, when they are many, or a moment later by the flusher. A second
// goroutine reads answers; neither waits for the other.
type Session struct {
	control *link.Conn
	conn    *link.Conn
	output  func(task string, stream uint8, p []byte)
	ran     chan struct{} // closed when the node says that the job has ended
	ranErr  error         // set before ran is closed
	lost    chan struct{} // closed when the session has ended
	wg      sync.WaitGroup

	sending sync.Mutex // held while a message is written
	wake    chan struct{}

	mu      sync.Mutex
	out     []byte              // guarded by mu, as is all that follows
	spare   []byte              // what out was before the last message
	waking  bool                // the flusher is on its way; only its coming clears this
	drops   []uint32            // handles to be dropped; their numbers are free after that
	unmaps  []uint32            // likewise of files
	free    []uint32            // numbers of handles
	last    uint32              // the greatest number that was used
	limit   uint32              // of handles
	calls   map[uint32]*request // that wait for their answer
	lastReq uint32
	most    int           // requests that may wait
	full    bool          // the store has no room
	changed chan struct{} // closed when something became ready
	numbers map[[2]string]uint32
	mapped  int // files that are mapped
	dead    error
	closing bool
	welcome chan struct{} // closed when limit is known
	welcame bool
}

// request waits for an answer.
type request struct {
	done   chan struct{} // closed when it is there; nil for OpReady
	h      *handle
	number uint32 // of an item

	value  Value
	nrefs  uint32
	result uint32
	errno  abi.Errno
	err    error
}

// SessionOptions say what a session is to be.
type SessionOptions struct {
	Name    string
	Modules []SessionModule // the first is what functions without a module are of
	Run     clientwire.RunBody
	Output  func(task string, stream uint8, p []byte)
}

// SessionModule is a module of a session.
type SessionModule struct {
	Name string
	File *os.File
}

// defaultSession is the session of all contexts that name no other. A closed one
// stays until another takes its place: the tasks of a program that was a client
// must not fall back to its own process, which is no sandbox.
var defaultSession atomic.Pointer[Session]

type sessionKey struct{}

// WithSession returns a context whose tasks run in s.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

// SessionOf returns the session in which what ctx is given to happens: ctx's, or
// else the process's; nil where there is none.
func SessionOf(ctx context.Context) *Session {
	s := defaultSession.Load()
	if ctx == nil {
		return s
	}
	if own, ok := ctx.Value(sessionKey{}).(*Session); ok {
		return own
	}
	if _, ok := ctx.Value(taskKey{}).(context.Context); ok {
		return nil // a task of this process
	}
	return s
}

// Dial opens a session. Where the process has none, it becomes that of all
// contexts that name no other.
func Dial(ctx context.Context, address string, o SessionOptions) (*Session, error) {
	control, err := nodeaddr.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	conn, theirs, err := link.Pair(clientwire.SessionOptions())
	if err != nil {
		control.Close()
		return nil, err
	}
	s := &Session{control: control, conn: conn, output: o.Output, ran: make(chan struct{}), lost: make(chan struct{}),
		wake: make(chan struct{}, 1), calls: map[uint32]*request{}, numbers: map[[2]string]uint32{}, welcome: make(chan struct{})}
	body := o.Run
	body.Version, body.Session, body.Name = clientwire.Version, true, o.Name
	var files []*os.File
	for _, m := range o.Modules {
		body.Modules = append(body.Modules, m.Name)
		files = append(files, m.File)
	}
	b, err := link.Marshal(body)
	if err != nil {
		control.Close()
		conn.Close()
		theirs.Close()
		return nil, err
	}
	s.wg.Go(func() { _ = control.Serve(context.Background(), s.printed) })
	sent := make(chan struct{})
	s.wg.Go(func() {
		m, err := control.Call(context.Background(), link.Message{Kind: clientwire.KindRun, Body: b, Files: append(files, theirs)})
		m.CloseFiles()
		theirs.Close()
		s.ranErr = err
		close(s.ran)
		close(sent)
	})
	go s.read()
	s.wg.Go(s.flusher)
	answers := make(chan struct{})
	s.wg.Go(func() {
		m, err := control.Call(context.Background(), link.Message{Kind: clientwire.KindPing})
		m.CloseFiles()
		// One that does not know the message says so: that is an answer.
		if !errors.Is(err, link.ErrClosed) {
			close(answers)
		}
	})
	if err = s.awaitWelcome(ctx, address, answers); err == nil {
		if old := defaultSession.Load(); old == nil || old.closed() {
			defaultSession.CompareAndSwap(old, s)
		}
		return s, nil
	}
	if silent := (*silence)(nil); errors.As(err, &silent) {
		s.end(silent.why)
		control.Close() // it would not end the session
	}
	s.Close()
	<-sent
	if err == nil {
		err = s.why()
	}
	return nil, err
}

// answerTime is how long a node may take to answer at all. What it does to begin
// a session may take longer: it compiles modules that it has not seen.
var answerTime = 10 * time.Second

// silence says that a node does not answer.
type silence struct{ why *wray.Error }

func (e *silence) Error() string { return e.why.Error() }
func (e *silence) Unwrap() error { return e.why }

// awaitWelcome waits until the session has begun, and says what it waited for
// where it has not. answers is closed when the node has answered something.
func (s *Session) awaitWelcome(ctx context.Context, address string, answers <-chan struct{}) error {
	begun := time.Now()
	late := time.NewTimer(answerTime)
	defer late.Stop()
	for {
		select {
		case <-s.welcome:
			return nil
		case <-s.ran:
			return s.ranErr
		case <-s.lost:
			return s.why()
		case <-answers:
			late.Stop()
			answers = nil
		case <-late.C:
			return &silence{s.silent(address, begun)}
		case <-ctx.Done():
			waited := time.Since(begun).Round(100 * time.Millisecond)
			select {
			case <-answers:
				answers = nil
			default:
			}
			if answers != nil {
				return fmt.Errorf("%w: %w", s.silent(address, begun), ctx.Err())
			}
			code := wray.CodeCanceled
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				code = wray.CodeTimeout
			}
			return fmt.Errorf("%w: %w", &wray.Error{Code: code, Message: fmt.Sprintf("connect: the node is there, and has not begun the session within %v", waited),
				Hint: "a module that the node has not seen is compiled first, which takes up to a minute or more on a busy machine: give Connect longer the first time"}, ctx.Err())
		}
	}
}

func (s *Session) silent(address string, since time.Time) *wray.Error {
	if path, err := nodeaddr.Socket(address); err == nil {
		address = path
	}
	return &wray.Error{Code: wray.CodeTimeout, Message: fmt.Sprintf("connect: what listens at %s has said nothing for %v", address, time.Since(since).Round(100*time.Millisecond)),
		Hint: "see whether the node there is stopped or overloaded (wray status); if it is gone, start another: wray start"}
}

// printed serves the node's requests, which are what the job prints.
func (s *Session) printed(_ context.Context, m link.Message) (link.Message, error) {
	m.CloseFiles()
	var b clientwire.OutputBody
	if m.Kind != clientwire.KindOutput {
		return link.Message{}, fmt.Errorf("%w: message %d", link.ErrProtocol, m.Kind)
	}
	if err := link.Unmarshal(m.Body, &b); err != nil {
		return link.Message{}, err
	}
	if s.output != nil {
		s.output(b.Task, b.Stream, b.Data)
	}
	return link.Message{}, nil
}

// errClosed is what everything fails with that is asked of a closed session.
var errClosed = &wray.Error{Code: wray.CodeCanceled, Message: "the client is closed", Hint: "close it when nothing more is to run, or connect again"}

func (s *Session) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Close ends the session, its job, and all that the session holds in the node.
// What was read from it stays good. What is asked of it afterwards fails, of the
// process's session too: it is not run here instead. It is idempotent.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.ran
		return nil
	}
	s.closing = true
	if s.dead == nil {
		s.emitDrops()
		s.out = clientwire.Append(s.out, clientwire.OpBye, 0, 0, nil)
	}
	s.mu.Unlock()
	s.flush()
	select {
	case <-s.ran:
	case <-s.lost:
	case <-time.After(closeGrace):
	}
	s.end(errClosed)
	s.control.Close() // which ends the job, if that has not happened
	s.wg.Wait()
	s.mu.Lock()
	keep := s.mapped > 0
	s.mu.Unlock()
	if !keep {
		s.conn.Close()
	}
	return nil
}

// closeGrace is what a node has to end a session by itself.
const closeGrace = 10 * time.Second

// end fails everything that waits, and all that comes.
func (s *Session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return
	}
	s.dead = err
	for n, r := range s.calls {
		r.err = err
		if r.done != nil {
			close(r.done)
		}
		delete(s.calls, n)
	}
	s.broadcast()
	close(s.lost)
}

func (s *Session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

func (s *Session) broadcast() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// await waits until ready, called with the lock held, reports true.
func (s *Session) await(ctx context.Context, ready func() bool) error {
	for {
		s.mu.Lock()
		if ready() {
			s.mu.Unlock()
			return nil
		}
		if err := s.dead; err != nil {
			s.mu.Unlock()
			return err
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// flusher sends what nobody waits for, a moment after it was said: then there
// is more of it. Where it finds again and again that somebody sent it who waited
// for an answer, it comes more seldom: to wake it for each task of a program
// that gets one result after the other would take a large part of the task's
// time.
func (s *Session) flusher() {
	delay := flushDelay
	for {
		select {
		case <-s.wake:
		case <-s.lost:
			return
		}
		time.Sleep(delay)
		s.mu.Lock()
		s.waking = false
		left := len(s.out) > 0
		s.mu.Unlock()
		s.flush()
		delay = nextDelay(delay, left)
	}
}

const (
	flushDelay = 50 * time.Microsecond
	// seldom bounds what the flusher's delay grows to.
	seldom = 800 * time.Microsecond
)

// nextDelay returns the flusher's next delay after one of delay; left says
// whether there was something to send.
func nextDelay(delay time.Duration, left bool) time.Duration {
	if left {
		return flushDelay
	}
	return min(2*delay, seldom)
}

// soonLocked has what is in out sent, by the flusher.
func (s *Session) soonLocked() {
	if !s.waking {
		s.waking = true
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// emitDrops says what is not needed any more. mu is held.
func (s *Session) emitDrops() {
	if len(s.drops) > 0 {
		for some := range slices.Chunk(s.drops, maxNumbers) {
			s.out = appendNumbers(s.out, clientwire.OpDrop, 0, some)
		}
		s.free = append(s.free, s.drops...)
		s.drops = s.drops[:0]
	}
	if len(s.unmaps) > 0 {
		s.out = appendNumbers(s.out, clientwire.OpUnmap, 0, s.unmaps)
		s.unmaps = s.unmaps[:0]
	}
}

// maxNumbers bounds the handles that are dropped by one command, which is far
// from filling a batch.
const maxNumbers = 64 << 10

func appendNumbers(out []byte, op clientwire.Op, a uint32, ns []uint32) []byte {
	start := len(out)
	out = clientwire.Begin(out, op, a, uint32(len(ns)))
	for _, n := range ns {
		out = binary.LittleEndian.AppendUint32(out, n)
	}
	return clientwire.End(out, start)
}

// flush sends what is in out.
func (s *Session) flush() { s.send(nil, nil) }

// send sends what is in out, then what more appends, with its file.
func (s *Session) send(more func(), file *os.File) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if s.dead == nil && !s.closing {
		s.emitDrops()
	}
	if more != nil {
		more()
	}
	b := s.out
	s.out, s.spare = s.spare[:0], nil
	s.mu.Unlock()
	for rest := b; len(rest) > 0; {
		m := link.Message{Kind: clientwire.KindCommands, Body: clientwire.Cut(rest)}
		rest = rest[len(m.Body):]
		if file != nil && len(rest) == 0 { // its command is the last
			m.Files = []*os.File{file}
		}
		if s.conn.Send(m) != nil {
			s.conn.Close() // commands are lost, so the session is, which the reader sees
			break
		}
	}
	s.mu.Lock()
	if cap(b) <= 4*sendSize {
		s.spare = b
	}
	s.mu.Unlock()
}

// sendSize is the bytes of commands from which whoever adds one sends them.
const sendSize = 128 << 10

// say has command append one to s.out. Where many have gathered it sends them,
// and waits while the worker is behind.
func (s *Session) say(command func() error) error {
	s.mu.Lock()
	if s.dead != nil {
		defer s.mu.Unlock()
		return s.dead
	}
	err := command()
	many := len(s.out) > sendSize
	if !many {
		s.soonLocked()
	}
	s.mu.Unlock()
	if many {
		s.flush()
	}
	return err
}

// number returns a number for a handle. mu is held.
func (s *Session) number() (uint32, error) {
	if n := len(s.free); n > 0 {
		h := s.free[n-1]
		s.free = s.free[:n-1]
		return h, nil
	}
	if s.last >= s.limit {
		if len(s.drops) > 0 {
			s.emitDrops()
			return s.number()
		}
		return 0, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("the session holds %d references", s.limit),
			Limit: &wray.Limit{Name: "handles", Value: int64(s.limit)},
			Hint:  "drop references that are no longer needed, or raise ConnectOptions.MaxHandles"}
	}
	s.last++
	return s.last, nil
}

// request makes a request and returns the number for its answer. mu is held.
func (s *Session) request(r *request) (uint32, error) {
	if len(s.calls) >= s.most {
		return 0, &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("the session waits for %d answers", len(s.calls)),
			Limit: &wray.Limit{Name: "requests", Value: int64(s.most)}, Hint: "wait for fewer references at once"}
	}
	for {
		s.lastReq++
		if s.lastReq != 0 && s.calls[s.lastReq] == nil {
			break
		}
	}
	s.calls[s.lastReq] = r
	return s.lastReq, nil
}

// ask makes a request whose command is what command appends, and waits.
func (s *Session) ask(ctx context.Context, r *request, command func(n uint32)) error {
	r.done = make(chan struct{})
	err := s.say(func() error {
		n, err := s.request(r)
		if err == nil {
			command(n)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.flush()
	return s.wait(ctx, r)
}

func (s *Session) wait(ctx context.Context, r *request) error {
	select {
	case <-r.done:
		return r.failure()
	default:
	}
	select {
	case <-r.done:
		return r.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure is what an answer says that is none.
func (r *request) failure() error {
	if r.err != nil {
		return r.err
	}
	if r.errno != abi.Success {
		return Errno(r.errno)
	}
	return nil
}

// unmapped takes note that a file is not mapped any more.
func (s *Session) unmapped(number uint32) {
	s.mu.Lock()
	s.mapped--
	last := s.closing && s.dead != nil && s.mapped == 0
	s.unmaps = append(s.unmaps, number)
	late := s.closing
	if late {
		if s.dead != nil {
			s.out = s.out[:0] // nobody reads it any more
		}
		s.out = appendNumbers(s.out, clientwire.OpUnmap, 0, s.unmaps)
		s.unmaps = s.unmaps[:0]
	} else if s.dead == nil {
		s.soonLocked()
	}
	s.mu.Unlock()
	if late {
		s.flush()
	}
	if last {
		s.conn.Close()
	}
}

// Lookup returns the number of a function.
func (s *Session) Lookup(module, name string) (uint32, error) {
	key := [2]string{module, name}
	s.mu.Lock()
	n, ok := s.numbers[key]
	s.mu.Unlock()
	if ok {
		return n, nil
	}
	var r request
	err := s.ask(context.Background(), &r, func(b uint32) {
		s.out = clientwire.Append(s.out, clientwire.OpFunction, 0, b, clientwire.AppendText(clientwire.AppendText(nil, module), name))
	})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.numbers[key] = r.result
	s.mu.Unlock()
	return r.result, nil
}

// lookupActor returns the actor of a name.
func (s *Session) lookupActor(name string) (*Ref, error) {
	var r request
	h := &handle{s: s}
	err := s.ask(context.Background(), &r, func(b uint32) {
		h.n, _ = s.number() // 0 where there is none, which ends the session
		s.out = clientwire.Append(s.out, clientwire.OpActor, h.n, b, clientwire.AppendText(nil, name))
	})
	if err != nil {
		s.mu.Lock()
		if h.n != 0 { // else it was not asked
			s.free = append(s.free, h.n)
		}
		s.mu.Unlock()
		return nil, err
	}
	return newSessionRef(h), nil
}

// mine returns an error unless all of refs can be named in s.
func (s *Session) mine(refs ...*Ref) error {
	if i := slices.IndexFunc(refs, func(r *Ref) bool { return r != nil && (r.h == nil || r.h.s != s) }); i >= 0 {
		if err := refs[i].err; err != nil {
			return err
		}
		return &wray.Error{Code: wray.CodeBadArgument, Message: "a reference of another session, or of this process, is of no use in this one",
			Hint: "get its value and put it here"}
	}
	return nil
}
