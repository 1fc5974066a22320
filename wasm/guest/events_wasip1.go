package guest

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/wray-project/wray/internal/gotrace"
	"github.com/wray-project/wray/wasm/abi"
	_ "github.com/wray-project/wray/wasm/guest/stdin" // lets goroutines wait for input
)

// A waiter is one parked goroutine. It is woken once, when need has come down
// to zero.
type waiter struct {
	ch   chan struct{} // holds one token at most
	need int
	link link // for waiters that wait for one thing
}

// A link puts a waiter into the list of one Ref, or of one condition.
type link struct {
	w    *waiter
	next *link
}

// A waitList holds the waiters of one condition.
type waitList struct{ head *link }

func (l *waitList) add(k *link) { k.next, l.head = l.head, k }

func (l *waitList) remove(w *waiter) {
	for p := &l.head; *p != nil; p = &(*p).next {
		if (*p).w == w {
			*p = (*p).next
			return
		}
	}
}

// signal counts one for each waiter of the list and empties it.
func (l *waitList) signal() {
	k := l.head
	l.head = nil
	for k != nil {
		next := k.next // the woken waiter may use its link again
		if k.w.need--; k.w.need <= 0 {
			k.w.wake()
		}
		k = next
	}
}

func (w *waiter) wake() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

var freeWaiter *waiter // one that was woken, to be used again, or nil

// newWaiter returns a waiter for parkSingle.
func newWaiter() *waiter {
	w := freeWaiter
	freeWaiter = nil // no call lies between, so no goroutine does
	if w == nil {
		w = &waiter{ch: make(chan struct{}, 1)}
		w.link.w = w
	}
	w.need = 1
	return w
}

// recycle takes back a waiter that waited with its own link and got its token:
// no signal is walking a list with that link any more.
func (w *waiter) recycle() { freeWaiter = w }

// park waits until w is woken, ctx is done, or the task is canceled. Before,
// it gives back the handles that are to be dropped: what follows may take
// long.
func park(ctx context.Context, w *waiter) error {
	events.waiting = true
	flushDrops()
	if err := openEvents(); err != nil {
		return err
	}
	if own, ok := ctx.(*taskContext); ok {
		// Cancellation wakes every waiter, so no select is needed.
		if err := own.err; err != nil {
			return err
		}
		own.waits++
		<-w.ch
		own.waits--
		return own.err
	}
	done := ctx.Done()
	if done == nil {
		<-w.ch
		return nil
	}
	select {
	case <-w.ch:
		return nil
	case <-done:
		return ctx.Err()
	}
}

// parkSingle puts w into l by its own link and parks. The caller has made sure
// that the event which l stands for is on its way.
func parkSingle(ctx context.Context, w *waiter, l *waitList) error {
	l.add(&w.link)
	err := park(ctx, w)
	if err != nil {
		l.remove(w)
		return err
	}
	w.recycle()
	return nil
}

// parkRoom waits for the event ROOM or SPACE: a yield is refused because the
// stream's window is full or because the store is, and either event is on its
// way.
func parkRoom(ctx context.Context) error {
	w := &waiter{ch: make(chan struct{}, 1), need: 1}
	room, space := link{w: w}, link{w: w}
	events.room.add(&room)
	events.space.add(&space)
	err := park(ctx, w)
	events.room.remove(w)
	events.space.remove(w)
	return err
}

var events struct {
	open     bool
	fd       uint32
	iov      iovec
	n        uint32
	draining bool // a goroutine is in drain
	buf      [128]rawEvent

	// watched holds, by handle, each Ref of which an event READY is awaited.
	// It keeps them from being collected, so an event never meets a handle
	// that was given out anew.
	watched []*Ref
	waiting bool     // something has been waited for since the call began
	space   waitList // for SPACE
	room    waitList // for ROOM
}

// openEvents opens the event descriptor and starts the dispatcher, once.
func openEvents() error {
	if events.open {
		return nil
	}
	events.open = true
	if e := importEventOpen(&events.fd); !ok(e) {
		events.open = false
		return fmt.Errorf("event_open: %w", Errno(e))
	}
	events.iov = iovec{ptr: addr(unsafe.Pointer(&events.buf)), len: uint32(unsafe.Sizeof(events.buf))}
	f := os.NewFile(uintptr(events.fd), "wray events")
	conn, err := f.SyscallConn()
	if err != nil {
		events.open = false
		return err
	}
	go func() {
		// Read calls its argument, parks in the poller until the descriptor is
		// readable, and calls it again, until that returns true.
		err := conn.Read(func(uintptr) bool { return !drain() })
		// The descriptor is gone, as after a move to another host: the next
		// wait opens another, and all that was watched is watched anew.
		_ = err
		runtime.KeepAlive(f)
		events.open = false
		rewatch()
	}()
	return nil
}

// drain handles the events that are there, without waiting. It reports false
// when the descriptor cannot be read any more.
func drain() bool {
	if !events.open || events.draining {
		return true
	}
	events.draining = true
	defer func() { events.draining = false }()
	for {
		e := wasiFdRead(events.fd, &events.iov, 1, &events.n)
		if abi.Errno(e) == abi.EAGAIN {
			return true
		}
		if !ok(e) {
			return false
		}
		n := int(events.n / abi.EventSize)
		for i := range events.buf[:n] {
			handle(&events.buf[i])
		}
		if n < len(events.buf) {
			return true
		}
	}
}

func handle(ev *rawEvent) {
	switch ev.kind {
	case abi.EventReady:
		if r := takeWatched(ev.handle); r != nil {
			r.ready()
		}
	case abi.EventSpace:
		events.space.signal()
	case abi.EventRoom:
		events.room.signal()
	case abi.EventCancel:
		// One that comes late is of an earlier call.
		if c := current.call; c != nil && c.head.taskSeq == ev.arg {
			current.ctx.cancel(context.Canceled)
		}
		if c := servedCall(ev.arg); c != nil {
			c.ctx.cancel(context.Canceled)
		}
	case abi.EventCall:
		start(ev.arg)
	case abi.EventDeadlock:
		deadlock()
	case abi.EventReclaim:
		go Reclaim()
	case abi.EventRest:
		select {
		case rested <- struct{}{}:
		default:
		}
	}
}

// watch notes that an event READY is on its way for r.
func watch(r *Ref) {
	for int(r.handle) >= len(events.watched) {
		events.watched = append(events.watched, nil)
	}
	events.watched[r.handle] = r
	events.waiting = true
	r.flags |= refWatched
}

func takeWatched(handle uint32) *Ref {
	if int(handle) >= len(events.watched) {
		return nil
	}
	r := events.watched[handle]
	events.watched[handle] = nil
	return r
}

// rewatch makes every waiter ask again.
func rewatch() {
	for h, r := range events.watched {
		if r != nil {
			events.watched[h] = nil
			r.flags &^= refWatched
			r.signal()
		}
	}
	events.space.signal()
	events.room.signal()
}

// wakeAll wakes every waiter, so that each looks at its context. What was
// watched stays so.
func wakeAll() {
	for _, r := range events.watched {
		if r != nil {
			r.signal()
		}
	}
	events.space.signal()
	events.room.signal()
}

// deadlocked is how many of the goroutines that wait are shown.
const deadlocked = 8

// deadlock ends the guest: every goroutine waits, and nothing it waits for can
// come. A task fails with the stacks of goroutines as its trace, a driver
// prints them. A task that wants to know when it is canceled may wait for that,
// which the host cannot see.
func deadlock() {
	awaits := current.call != nil && current.ctx.awaitsCancel()
	for _, c := range serving.calls {
		awaits = c.ctx.awaitsCancel() || awaits
	}
	if awaits {
		return
	}
	stack := make([]byte, 64<<10)
	stack = stack[:runtime.Stack(stack, true)]
	if os.Getenv(gotrace.EverythingEnv) != gotrace.EverythingValue {
		text := string(stack)
		if own, others, ok := strings.Cut(text, "\n\n"); ok && strings.Contains(own, "/guest.openEvents") {
			text = others
		}
		stack = []byte(gotrace.Short(text, deadlocked))
	}
	const message = "all goroutines wait, and nothing that they wait for can come"
	if c := current.call; c != nil {
		c.fail(codeDeadlock, message, string(stack), "")
	} else if len(serving.calls) > 0 {
		for _, c := range serving.calls {
			c.fail(codeDeadlock, message, string(stack), "")
		}
	} else {
		fmt.Fprintf(os.Stderr, "wray: deadlock: %s\n\n%s\n", message, stack)
	}
	os.Exit(2)
}
