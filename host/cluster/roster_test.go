package cluster

import "testing"

// What is late changes nothing, whatever it says.
func TestRosterLate(t *testing.T) {
	var r Roster
	heard := func(inc uint64, s Status) string {
		r.Heard(Peer{Member{Name: "a", Incarnation: inc}, s})
		p := r.Peers()
		if len(p) != 1 {
			t.Fatalf("peers: %v", p)
		}
		return p[0].Status.String()
	}
	for i, step := range []struct {
		inc  uint64
		s    Status
		want string
	}{
		{2, Alive, "alive"}, {1, Failed, "alive"}, {2, Failed, "failed"}, {2, Alive, "alive"},
		{2, Left, "left"}, {2, Alive, "left"}, {2, Failed, "left"}, {3, Alive, "alive"}, {2, Left, "alive"},
	} {
		if got := heard(step.inc, step.s); got != step.want {
			t.Errorf("step %d: after %d is %v it is %s, want %s", i, step.inc, step.s, got, step.want)
		}
	}
	r.Forget("a", 2)
	r.Forget("a", 3) // is alive
	if len(r.Peers()) != 1 {
		t.Error("forgot who is alive, for an older incarnation")
	}
	heard(3, Failed)
	r.Forget("a", 3)
	if len(r.Peers()) != 0 {
		t.Error("did not forget who failed")
	}
}
