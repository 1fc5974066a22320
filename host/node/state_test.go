package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/worker"
)

// states returns the durable actors of a tenant with a quota.
func states(t *testing.T, q wray.Quota) *stateFiles {
	t.Helper()
	d, err := statelog.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s := newStateFiles(d, "x", func() wray.Quota { return q })
	t.Cleanup(s.close)
	return s
}

// A worker that makes and releases durable actors makes as many as its tenant may
// have, and goes on with those that there are.
func TestStateActors(t *testing.T) {
	s := states(t, wray.Quota{StateActors: 3})
	made := 0
	var last error
	for i := range 20 {
		name := fmt.Sprint("a", i)
		m, err := s.do(worker.StateBody{Op: worker.StateOpen, Name: name})
		if last = err; err == nil {
			made++
			m.CloseFiles()
		}
		_, _ = s.do(worker.StateBody{Op: worker.StateRelease, Name: name})
	}
	var e *wray.Error
	if made != 3 || !errors.As(last, &e) || e.Code != wray.CodeLimitExceeded || e.Limit.Flag != "--state-actors" {
		t.Errorf("%d were made, then: %v", made, last)
	}
	m, err := s.do(worker.StateBody{Op: worker.StateOpen, Name: "a1"})
	if err != nil {
		t.Errorf("one that is there: %v", err)
	}
	m.CloseFiles()
}

// A worker that has written its tenant's bytes makes no new actor, and one that
// has written far more is ended and opens none.
func TestStateBytes(t *testing.T) {
	s := states(t, wray.Quota{StateBytes: 1 << 20})
	s.every = 50 * time.Millisecond
	files, err := s.dir.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer files[1].Close()
	if err := files[0].Truncate(2 << 20); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	s.dir.Release("a")
	if _, err := s.do(worker.StateBody{Op: worker.StateOpen, Name: "b"}); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("a new one: %v", err)
	}
	m, err := s.do(worker.StateBody{Op: worker.StateOpen, Name: "a"})
	if err != nil {
		t.Fatalf("one that is there: %v", err)
	}
	ended := make(chan error, 1)
	s.watch(func(err error) { ended <- err })
	if err := m.Files[0].Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	m.CloseFiles()
	if err := <-ended; !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("it was ended for: %v", err)
	}
	_, _ = s.do(worker.StateBody{Op: worker.StateRelease, Name: "a"})
	if _, err := s.do(worker.StateBody{Op: worker.StateFind, Name: "a"}); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("when it was ended: %v", err)
	}
}
