package sandbox_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/host/wasi"
)

// TestKeepsAreBounded takes checkpoints of more sandboxes than may have a file
// for them: those that have none are kept as differences, and come back as well.
func TestKeepsAreBounded(t *testing.T) {
	sandbox.LimitKeeps(t, 2)
	m := load(t, growing())
	open := func() (n int) {
		for fd := range 4096 {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				n++
			}
		}
		return n
	}
	take := func(fill byte) (*sandbox.State, []byte) {
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer sb.Close()
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Fatal(err)
		}
		for at := range sb.Memory() {
			sb.Memory()[at] = fill
		}
		s, err := sb.Checkpoint(nil)
		if err != nil {
			t.Fatal(err)
		}
		return s, append([]byte(nil), sb.Memory()...)
	}
	first, _ := take(1)
	before := open() // the pool of memories, and the like, is there
	var states []*sandbox.State
	for i := range 4 {
		s, want := take(byte(i + 2))
		if has := s.Kept() > 0; has != (i < 1) && sandbox.CanKeep() {
			t.Errorf("checkpoint %d has a file: %v", i, has)
		}
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := sb.Configure(&wasi.Config{Args: []string{"guest"}}); err != nil {
			t.Fatal(err)
		}
		if err := sb.Dig(s); err != nil {
			t.Fatal(err)
		}
		if err := sb.Load(s); err != nil {
			t.Fatal(err)
		}
		same(t, "what comes back", sb.Memory(), want)
		sb.Close()
		states = append(states, s)
	}
	if n := open(); n > before+1 {
		t.Errorf("%d files are open, with one checkpoint %d", n, before)
	}
	first.Free()
	if s, _ := take(9); s.Kept() == 0 && sandbox.CanKeep() {
		t.Error("one was let go, and there is no room for another")
	} else {
		s.Free()
	}
	for _, s := range states {
		s.Free()
	}
}
