package peer

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// slow is a handler that takes nothing until it is told to.
type slow struct {
	goOn  chan struct{}
	mu    sync.Mutex
	bytes int
}

func (s *slow) Receive(_ Node, messages [][]byte) {
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range messages {
		s.bytes += len(b)
	}
}

func (s *slow) Change(Node, Status, string) { <-s.goOn }

// script is a connection on which frames come that were written before.
type script struct {
	frames [][]byte
	closed chan struct{}
	once   sync.Once
}

func (s *script) Send([]byte) error { return nil }

func (s *script) Recv() ([]byte, error) {
	if len(s.frames) > 0 {
		f := s.frames[0]
		s.frames = s.frames[1:]
		return f, nil
	}
	<-s.closed
	return nil, errors.New("closed")
}

func (s *script) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

// A node that comes as one incarnation after the other has a new window with
// each, and yet no more waits here for the handler than two of them hold.
func TestIncarnationsFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &slow{goOn: make(chan struct{})}
		m := NewMesh(Config{Window: MaxMessage, Messages: 16}, Node{"a", 1}, nil, h, nil)
		const flaps = 20
		var wg sync.WaitGroup
		var conns []*script
		for i := range uint64(flaps) {
			c := &script{closed: make(chan struct{}), frames: [][]byte{
				helloFrame{from: Node{"b", i + 1}, to: 1, epoch: 1}.append(nil),
				appendMessage(appendDataHead(nil, 0, 1), make([]byte, MaxMessage)),
			}}
			conns = append(conns, c)
			wg.Go(func() { m.Accept("b", c) })
			synctest.Wait()
		}
		l := m.link("b")
		l.mu.Lock()
		backlog := l.backlog
		l.mu.Unlock()
		if backlog < MaxMessage || backlog > 3*MaxMessage+1<<16 {
			t.Errorf("%d bytes wait for the handler, the window is %d", backlog, MaxMessage)
		}
		close(h.goOn)
		synctest.Wait()
		l.mu.Lock()
		if l.backlog != 0 {
			t.Errorf("%d bytes are counted when nothing waits", l.backlog)
		}
		l.mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
		wg.Wait()
		m.Close()
	})
}
