package worker

import (
	"io"
	"os"
	"sync"

	"github.com/wray-project/wray/host/wasi"
)

// input is a driver's standard input: a file that may be a terminal or a slow
// pipe. Nobody waits for it but a goroutine of its own, so a driver that waits
// for input is parked like any other: it holds no turn, and can be stopped.
//
// The goroutine reads when the driver asks, and no more than it asks for: what
// a driver leaves unread is left for the next program of a script. Should
// another program on the same terminal read first what it saw, its read waits
// until there is more, and Close with it.
type input struct {
	wasi.Stream
	f    *os.File // borrowed
	wait waiter
	ask  chan int      // how much to read; one at most
	done chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	buf    []byte // guarded by mu; read and not yet taken
	end    bool   // guarded by mu; nothing comes any more
	errno  wasi.Errno
	asked  bool   // guarded by mu; the goroutine owes an answer
	closed bool   // guarded by mu
	notify func() // guarded by mu; called when there is something, may be nil
}

// waiter waits until a file can be read.
type waiter interface {
	// wait reports false when stop was called.
	wait() bool
	stop()
	close()
}

// What is read at once, at most, and where the driver only asked whether there
// is something.
const (
	maxInputRead = 64 << 10
	peekInput    = 4 << 10
)

// newInput returns a driver's input that reads f. Close it before f.
func newInput(f *os.File) (*input, error) {
	w, err := newWaiter(f)
	if err != nil {
		return nil, err
	}
	in := &input{f: f, wait: w, ask: make(chan int, 1), done: make(chan struct{})}
	go in.pump()
	return in, nil
}

// onReady sets what is called, from another goroutine, when there is something
// to read.
func (in *input) onReady(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.notify = f
}

func (in *input) pump() {
	defer close(in.done)
	for n := range in.ask {
		if !in.wait.wait() {
			return
		}
		b := make([]byte, n)
		n, err := in.f.Read(b)
		in.mu.Lock()
		in.buf, in.asked = b[:n], false
		switch {
		case err == io.EOF:
			in.end = true
		case err != nil:
			in.end, in.errno = true, wasi.ErrnoOf(err)
		}
		notify := in.notify
		in.mu.Unlock()
		if notify != nil {
			notify()
		}
	}
}

// readyLocked reports whether Read has something to say, and asks for n bytes
// if not.
func (in *input) readyLocked(n int) bool {
	if len(in.buf) > 0 || in.end || in.closed {
		return true
	}
	if !in.asked {
		in.asked = true
		in.ask <- min(n, maxInputRead)
	}
	return false
}

// Read implements wasi.File.
func (in *input) Read(p []byte) (int, wasi.Errno) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case !in.readyLocked(len(p)):
		return 0, wasi.EAGAIN
	case len(in.buf) > 0:
		n := copy(p, in.buf)
		in.buf = in.buf[n:]
		return n, wasi.Success
	}
	return 0, in.errno
}

// Ready implements wasi.File.
func (in *input) Ready() (read, write bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.readyLocked(peekInput), false
}

// Close ends the goroutine and waits for it. It is idempotent.
func (in *input) Close() wasi.Errno {
	in.mu.Lock()
	first := !in.closed
	in.closed, in.notify = true, nil
	in.mu.Unlock()
	if first {
		in.wait.stop()
		close(in.ask) // nobody asks a closed input
		<-in.done
		in.wait.close()
	}
	<-in.done
	return wasi.Success
}
