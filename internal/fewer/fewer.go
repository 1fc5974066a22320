// Package fewer keeps what strangers can cause from flooding a log: of each kind
// of message a few are written in a while, and of the rest how many there were.
package fewer

import (
	"fmt"
	"sync"
	"time"
)

// maxKinds bounds the kinds that are told apart: a stranger may have a say in
// what the kinds are.
const maxKinds = 64

// Log writes few of many messages. Close it.
type Log struct {
	most   int
	window time.Duration

	mu     sync.Mutex
	kinds  map[string]*kind // guarded by mu
	closed bool             // guarded by mu
}

// kind is what was written, and not, of one kind in the window that has begun.
type kind struct {
	written, left int
	last          func(more string)
	end           *time.Timer
}

// New returns a Log that writes at most so many messages of a kind in a window.
func New(most int, window time.Duration) *Log {
	return &Log{most: most, window: window, kinds: map[string]*kind{}}
}

// Write has a message of a kind written by write, now, or, where there were too
// many, the last of them at the end of the window. more is to be appended to the
// message: it is empty, or says how many were left out.
func (l *Log) Write(of string, write func(more string)) {
	l.mu.Lock()
	k := l.kinds[of]
	if k == nil && len(l.kinds) >= maxKinds {
		of = ""
		k = l.kinds[of]
	}
	if k == nil {
		k = &kind{}
		l.kinds[of] = k
		if !l.closed {
			k.end = time.AfterFunc(l.window, func() { l.over(of, k) })
		}
	}
	if k.written >= l.most {
		k.left++
		k.last = write
		l.mu.Unlock()
		return
	}
	k.written++
	l.mu.Unlock()
	write("")
}

// over ends the window of a kind.
func (l *Log) over(of string, k *kind) {
	l.mu.Lock()
	if l.kinds[of] != k {
		l.mu.Unlock()
		return
	}
	delete(l.kinds, of)
	l.mu.Unlock()
	l.tell(k) // nobody else has it any more
}

func (l *Log) tell(k *kind) {
	if k.left > 0 {
		k.last(fmt.Sprintf(" (and %d more like it in %v)", k.left, l.window))
	}
}

// Close writes what was left out so far. Nothing is written later but by Write.
func (l *Log) Close() {
	l.mu.Lock()
	kinds := l.kinds
	l.kinds, l.closed = map[string]*kind{}, true
	l.mu.Unlock()
	for _, k := range kinds {
		if k.end != nil {
			k.end.Stop()
		}
		l.tell(k)
	}
}
