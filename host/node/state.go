package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

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
	dir    *statelog.Dir
	tenant string
	quota  func() wray.Quota // as it is now

	making   sync.Mutex     // held while it is decided whether one more is made
	watching sync.WaitGroup // see watch
	done     chan struct{}  // closed by close
	every    time.Duration  // stateWatch; tests set it

	mu     sync.Mutex
	open   map[string]bool // guarded by mu
	closed bool            // guarded by mu
}

// newStateFiles returns nil where dir is.
func newStateFiles(dir *statelog.Dir, tenant string, quota func() wray.Quota) *stateFiles {
	if dir == nil {
		return nil
	}
	return &stateFiles{dir: dir, tenant: tenant, quota: quota, done: make(chan struct{}), every: stateWatch, open: map[string]bool{}}
}

// stateSlack is what a tenant's durable actors may take beyond twice its quota: a
// log has its last two generations on disk, and files are never empty for long.
const stateSlack = 8 << 20

// room returns why the tenant may have no more on disk: no new actor, or, where
// its worker has written more than one that keeps to its bounds does, none at all.
func (s *stateFiles) room(another bool) error {
	u, err := s.dir.Usage()
	if err != nil {
		return fmt.Errorf("count durable actors on disk: %w", err)
	}
	q := s.quota()
	if b := q.StateBytes; b > 0 && (another && u.Bytes >= b || (u.Bytes-stateSlack)/2 > b) {
		return q.Exceeded(s.tenant, "state-bytes")
	}
	if q.StateActors == 0 {
		q.StateActors = wray.DefaultStateActors
	}
	if another && u.Actors >= q.StateActors {
		return q.Exceeded(s.tenant, "state-actors")
	}
	return nil
}

// make opens an actor's files, which may be new.
func (s *stateFiles) make(name string) ([2]*os.File, error) {
	files, err := s.dir.Find(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return files, err
	}
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.room(true); err != nil {
		return files, err
	}
	return s.dir.Open(name)
}

// stateWatch is how often it is looked what a worker has written.
const stateWatch = 2 * time.Second

// watch calls over, once, when the worker has written far more than its tenant may
// have. Its files are open there, so nothing else keeps it from writing.
func (s *stateFiles) watch(over func(error)) {
	if s == nil {
		return
	}
	s.watching.Go(func() {
		tick := time.NewTicker(s.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-s.done:
				return
			}
			s.mu.Lock()
			any := len(s.open) > 0
			s.mu.Unlock()
			if any && s.quota().StateBytes > 0 {
				if err := s.room(false); errors.Is(err, wray.ErrLimitExceeded) {
					over(err)
					return
				}
			}
		}
	})
}

// do does what the worker asks for, which may be anything.
func (s *stateFiles) do(b worker.StateBody) (link.Message, error) {
	if s == nil {
		return link.Message{}, wray.Errorf(wray.CodeDenied, "no directory keeps durable actors")
	}
	switch b.Op {
	case worker.StateOpen:
		return s.openFiles(b.Name, s.make)
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
	var files [2]*os.File
	if err = s.room(false); err == nil {
		files, err = open(name)
	}
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
	if !s.closed {
		close(s.done)
	}
	s.closed = true
	s.mu.Unlock()
	s.watching.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.open {
		s.dir.Release(name)
	}
	clear(s.open)
}
