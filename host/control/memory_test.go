package control_test

import (
	"testing"
	"time"

	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/control/controltest"
)

func TestMemory(t *testing.T) {
	controltest.Run(t, &controltest.Harness{
		Bubble: true,
		Open:   func(*testing.T) control.Store { return control.NewMemory(control.MemoryOptions{}) },
		Compact: func(t *testing.T, s control.Store, rev control.Revision) {
			s.(*control.Memory).Compact(rev)
		},
		Outage: func(t *testing.T, s control.Store) func() {
			m := s.(*control.Memory)
			m.LoseQuorum()
			return m.RestoreQuorum
		},
	})
}

// TestMemoryByClock has leases go by a clock that is not the machine's, and
// holds what an outage does to them.
func TestMemoryByClock(t *testing.T) {
	clock := controltest.NewClock(time.Unix(0, 0))
	m := control.NewMemory(control.MemoryOptions{Clock: clock})
	defer m.Close()
	l, err := m.Grant(t.Context(), 8*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Commit(t.Context(), control.Txn{Do: []control.Op{control.PutLeased("a", nil, l.ID)}}); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, err := m.Get(t.Context(), "a")
		return err == nil
	}
	for i, step := range []struct {
		do    func()
		there bool
	}{
		{func() { clock.Advance(7999 * time.Millisecond) }, true},
		{func() { m.KeepAlive(t.Context(), l.ID) }, true},
		{func() { clock.Advance(7 * time.Second) }, true},
		{func() { m.LoseQuorum(); clock.Advance(time.Hour); m.RestoreQuorum() }, true},
		{func() { clock.Advance(7999 * time.Millisecond) }, true},
		{func() { clock.Advance(time.Millisecond) }, false},
	} {
		step.do()
		if got := there(); got != step.there {
			t.Errorf("step %d: the record is there: %v", i, got)
		}
	}
}

// TestMemoryForgets holds that a store that lives long keeps no more than it
// was told to.
func TestMemoryForgets(t *testing.T) {
	m := control.NewMemory(control.MemoryOptions{Keep: 100})
	defer m.Close()
	for range 1000 {
		if _, err := m.Commit(t.Context(), control.Txn{Do: []control.Op{control.Put("a", make([]byte, 10))}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []control.Revision{1001, 901} {
		if _, err := m.List(t.Context(), control.ListRequest{At: at}); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.List(t.Context(), control.ListRequest{At: 800}); err == nil {
		t.Error("all is kept")
	}
}

// TestMemoryHistories has clients work at the same time, over connections that
// lose requests and replies, while the quorum goes and comes.
func TestMemoryHistories(t *testing.T) {
	m := control.NewMemory(control.MemoryOptions{})
	defer m.Close()
	controltest.CheckHistories(t, controltest.Histories{Clients: controltest.Faulty(t, m, 6), Ops: 120, Patience: 20 * time.Millisecond, Disturb: func() {
		for range 5 {
			m.LoseQuorum()
			time.Sleep(30 * time.Millisecond) // an outage lasts; nothing is waited for
			m.RestoreQuorum()
			time.Sleep(30 * time.Millisecond)
		}
	}})
}
