package scheduler

import "container/heap"

// Mailbox decides which call of an actor runs next. Calls of one caller run in
// the order in which they came, so one whose arguments are not there yet holds
// up the later ones of its caller and nobody else's; between callers, who came
// first goes first. As many calls are out at once as Width says, and each is
// taken back by Done or PutBack; where what runs them is far, more are, to wait
// there. Like the Scheduler it is a state machine
// without goroutines or clock, and not safe for concurrent use. The zero
// Mailbox is empty.
type Mailbox[T any] struct {
	Width int // calls that may run at once; 0: one
	Ahead int // calls that may be out besides, to wait where they will run

	callers map[uint64]*caller[T]
	some    *caller[T] // one of callers, from which the others are reached; nil: none
	heads   heads[T]   // those that may run
	last    uint64     // arrivals so far
	n       int
	out     int        // returned by Next, and neither done nor put back
	spare   *caller[T] // its queue was used up; nil or one
}

// A Letter is a call in a Mailbox.
type Letter[T any] struct {
	Value T

	caller  *caller[T]
	next    *Letter[T] // the same caller's next
	seq     uint64
	missing int
	index   int // in heads, or -1
	state   letterState
}

type letterState uint8

const (
	letterTaken  letterState = iota // by Next, or never posted
	letterPosted                    // in its caller's queue
	letterDead                      // removed; still in the queue, to be skipped
)

// caller is the queue of one caller's calls, oldest first.
type caller[T any] struct {
	key         uint64
	first, last *Letter[T]
	left, right *caller[T] // a ring of all callers
}

// Len returns how many calls wait.
func (m *Mailbox[T]) Len() int { return m.n }

// Out returns how many calls are out.
func (m *Mailbox[T]) Out() int { return m.out }

// Waiting returns how many calls do not run: those that wait here, and those that
// are out ahead of their turn.
func (m *Mailbox[T]) Waiting() int { return m.n + max(m.out-max(m.Width, 1), 0) }

// Full reports whether as many calls are out as may be.
func (m *Mailbox[T]) Full() bool { return m.out >= max(m.Width, 1)+m.Ahead }

// Trim gives back memory that an empty mailbox keeps for its next calls.
func (m *Mailbox[T]) Trim() {
	if m.n == 0 && len(m.callers) == 0 {
		m.callers, m.heads, m.spare = nil, nil, nil
	}
}

// Post adds a call of the caller called from, which misses so many arguments.
// l may be one that Next returned.
func (m *Mailbox[T]) Post(l *Letter[T], from uint64, missing int) {
	if l.state != letterTaken {
		panic("BUG: scheduler: a letter is posted twice")
	}
	c := m.callerOf(from)
	m.last++
	l.caller, l.next, l.seq, l.missing, l.index, l.state = c, nil, m.last, missing, -1, letterPosted
	if c.last != nil {
		c.last.next = l
	} else {
		c.first = l
	}
	c.last = l
	m.n++
	m.offer(c)
}

// Done tells that a call which Next returned is over.
func (m *Mailbox[T]) Done() {
	if m.out--; m.out < 0 {
		panic("BUG: scheduler: a call is done that was not out")
	}
}

// PutBack posts a call that Next returned ahead of all others of its caller,
// to be run again. It misses nothing. Of several the one that Next returned
// last is put back first, so that they keep their order.
func (m *Mailbox[T]) PutBack(l *Letter[T], from uint64) {
	if l.state != letterTaken {
		panic("BUG: scheduler: a letter is posted twice")
	}
	m.Done()
	c := m.callerOf(from)
	if c.first != nil && c.first.index >= 0 {
		heap.Remove(&m.heads, c.first.index)
	}
	l.caller, l.next, l.missing, l.index, l.state = c, c.first, 0, -1, letterPosted
	c.first = l
	if c.last == nil {
		c.last = l
	}
	m.n++
	m.offer(c)
}

// Arrived tells that an argument which l missed is there. It reports whether
// Next has something to return because of that.
func (m *Mailbox[T]) Arrived(l *Letter[T]) bool {
	if l.missing--; l.state != letterPosted || l.missing > 0 || l.caller.first != l {
		return false
	}
	m.offer(l.caller)
	return true
}

// Remove takes out a call that waits. False: it does not.
func (m *Mailbox[T]) Remove(l *Letter[T]) bool {
	if l.state != letterPosted {
		return false
	}
	if l.index >= 0 {
		heap.Remove(&m.heads, l.index)
	}
	l.state = letterDead
	m.n--
	m.offer(l.caller)
	return true
}

// Next returns the call that is to start now and takes it out, or nil.
func (m *Mailbox[T]) Next() *Letter[T] {
	if len(m.heads) == 0 || m.Full() {
		return nil
	}
	l := m.heads[0]
	c := l.caller
	c.pop()
	m.n--
	m.out++
	if h := c.head(); h != nil && h.missing == 0 {
		h.index, m.heads[0] = 0, h
		heap.Fix(&m.heads, 0)
	} else {
		heap.Pop(&m.heads)
		m.leave(c)
	}
	l.state, l.caller, l.next, l.index = letterTaken, nil, nil, -1
	return l
}

// Take takes out a call, in no useful order, for a mailbox that is to be
// emptied; nil when none is left.
func (m *Mailbox[T]) Take() *Letter[T] {
	if m.some == nil {
		return nil
	}
	l := m.some.head()
	m.Remove(l)
	return l
}

func (m *Mailbox[T]) callerOf(key uint64) *caller[T] {
	c := m.callers[key]
	if c != nil {
		return c
	}
	if c, m.spare = m.spare, nil; c == nil {
		c = new(caller[T])
	}
	c.key = key
	if m.callers == nil {
		m.callers = make(map[uint64]*caller[T])
	}
	m.callers[key] = c
	if m.some == nil {
		c.left, c.right, m.some = c, c, c
	} else {
		c.left, c.right = m.some, m.some.right
		c.left.right, c.right.left = c, c
	}
	return c
}

// offer puts c's oldest call among those that may run, if it may, and forgets
// a caller of which nothing waits.
func (m *Mailbox[T]) offer(c *caller[T]) {
	if l := c.head(); l != nil && l.missing == 0 && l.index < 0 {
		heap.Push(&m.heads, l)
	}
	m.leave(c)
}

func (m *Mailbox[T]) leave(c *caller[T]) {
	if c.head() == nil && m.callers[c.key] == c {
		delete(m.callers, c.key)
		if m.some == c {
			m.some = c.right
		}
		if m.some == c {
			m.some = nil
		}
		c.left.right, c.right.left = c.right, c.left
		m.spare = c
	}
}

// head returns the oldest call, less those that were removed.
func (c *caller[T]) head() *Letter[T] {
	for c.first != nil && c.first.state == letterDead {
		c.pop()
	}
	return c.first
}

func (c *caller[T]) pop() {
	l := c.first
	if c.first = l.next; c.first == nil {
		c.last = nil
	}
	l.next = nil
}

// heads is a heap of calls, the earliest first.
type heads[T any] []*Letter[T]

func (h heads[T]) Len() int           { return len(h) }
func (h heads[T]) Less(i, k int) bool { return h[i].seq < h[k].seq }
func (h heads[T]) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].index, h[k].index = i, k
}

// Push is for container/heap.
func (h *heads[T]) Push(x any) {
	l := x.(*Letter[T])
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop is for container/heap.
func (h *heads[T]) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.index = -1
	return l
}
