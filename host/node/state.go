package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/internal/link"
)

// maxStates bounds the durable actors of a worker: each has two descriptors in
// it.
const maxStates = 10_000

// stateFiles are the durable actors that a worker has open. When its process is
// gone they are nobody's: until then no other worker gets them.
type stateFiles struct {
	dir *statelog.Dir

	mu     sync.Mutex
	open   map[string]bool // guarded by mu
	closed bool            // guarded by mu
}

// newStateFiles returns nil where dir is.
func newStateFiles(dir *statelog.Dir) *stateFiles {
	if dir == nil {
		return nil
	}
	return &stateFiles{dir: dir, open: map[string]bool{}}
}

// do does what the worker asks for, which may be anything.
func (s *stateFiles) do(b worker.StateBody) (link.Message, error) {
	if s == nil {
		return link.Message{}, wray.Errorf(wray.CodeDenied, "no directory keeps durable actors")
	}
	switch b.Op {
	case worker.StateOpen:
		return s.openFiles(b.Name, s.dir.Open)
	case worker.StateFind:
		m, err := s.openFiles(b.Name, s.dir.Find)
		if errors.Is(err, fs.ErrNotExist) {
			return link.Message{}, nil
		}
		return m, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.open[b.Name]
	delete(s.open, b.Name)
	switch {
	case b.Op == worker.StateRelease && mine:
		s.dir.Release(b.Name)
	case b.Op == worker.StateRemove && !s.closed:
		return link.Message{}, s.dir.Remove(b.Name, mine)
	}
	return link.Message{}, nil
}

// openFiles opens an actor's files, which may take a while: the lock is not
// held meanwhile.
func (s *stateFiles) openFiles(name string, open func(string) ([2]*os.File, error)) (link.Message, error) {
	s.mu.Lock()
	var err error
	switch {
	case s.closed:
		err = wray.Errorf(wray.CodeDenied, "the worker has ended")
	case s.open[name]:
		err = statelog.ErrOpen
	case len(s.open) >= maxStates:
		err = &wray.Error{Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("there are %d durable actors", len(s.open)),
			Limit: &wray.Limit{Name: "durable actors of a node", Value: maxStates}}
	default:
		s.open[name] = true
	}
	s.mu.Unlock()
	if err != nil {
		return link.Message{}, err
	}
	files, err := open(name)
	if err != nil {
		s.mu.Lock()
		delete(s.open, name)
		s.mu.Unlock()
		return link.Message{}, err
	}
	return link.Message{Files: []*os.File{files[0], files[1]}}, nil
}

// close gives back what the worker, whose process is gone, had open.
func (s *stateFiles) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for name := range s.open {
		s.dir.Release(name)
	}
	clear(s.open)
}
