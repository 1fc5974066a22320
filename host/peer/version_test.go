package peer

import (
	"strings"
	"testing"
)

// TestOtherVersion: a node that greets with another version is refused with a
// reason, and both sides tell their people once, however often they try.
func TestOtherVersion(t *testing.T) {
	old := helloFrame{from: Node{"b", 1}, to: 1, epoch: 1}.append(nil)
	if old[1] != version {
		t.Fatalf("the version is not where it was: % x", old)
	}
	old[1]--
	told := func(list []Action) (n int, last []byte) {
		for _, a := range list {
			switch a := a.(type) {
			case Misfit:
				if n++; !strings.Contains(a.Why, "version 1") || !strings.Contains(a.Why, "version 2") || !strings.Contains(a.Why, "upgrade") {
					t.Errorf("it says %q", a.Why)
				}
			case Cut:
				last = a.Last
			case Change:
				t.Errorf("a session: %+v", a)
			}
		}
		return n, last
	}
	a := NewMachine(Config{}, Node{"a", 1}, "b")
	a.Learn(0, 1)
	n, bye := told(a.Receive(0, 1, old))
	if n != 1 || bye == nil {
		t.Fatalf("told %d times, and sent % x", n, bye)
	}
	if n, bye := told(a.Receive(0, 2, old)); n != 0 || bye == nil {
		t.Errorf("told %d times more, and sent % x", n, bye)
	}
	// Who connected is told so, and tries again.
	b := NewMachine(Config{}, Node{"b", 1}, "a")
	b.Learn(0, 1)
	b.Connect(0)
	b.Opened(0, 1, true)
	if n, _ := told(b.Receive(0, 1, bye)); n != 1 {
		t.Errorf("who connected is told %d times", n)
	}
	if at, ok := b.Next(); !ok || at < minRetry {
		t.Errorf("it tries again at %v, %v", at, ok)
	}
}
