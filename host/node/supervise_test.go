package node

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
)

// TestSuspects: a module with which workers die three times within ten minutes is
// refused until somebody lifts it; others of the tenant, and such as kill seldom,
// are not.
func TestSuspects(t *testing.T) {
	bad, seldom, good := moduleSum{sha256.Sum256([]byte("bad")), "bad"}, moduleSum{sha256.Sum256([]byte("seldom")), "seldom"}, moduleSum{sha256.Sum256([]byte("good")), "good"}
	var s suspects
	now := time.Now()
	for i := range 3 {
		at := now.Add(time.Duration(i) * 4 * time.Minute)
		if refused := s.note(at, []moduleSum{bad}, "it was killed"); (len(refused) == 1) != (i == 2) {
			t.Errorf("after death %d, %v are refused", i+1, refused)
		}
		s.note(now.Add(time.Duration(i)*6*time.Minute), []moduleSum{seldom}, "it was killed")
	}
	var e *wray.Error
	if err := s.check("a", bad); !errors.As(err, &e) || e.Code != wray.CodeDenied || !strings.Contains(e.Message, "quarantine") || !strings.Contains(e.Hint, "wray tenant lift a ") {
		t.Errorf("the module that kills: %v", err)
	}
	for _, m := range []moduleSum{seldom, good} {
		if err := s.check("a", m); err != nil {
			t.Errorf("module %s: %v", m.name, err)
		}
	}
	list := s.list()
	if len(list) != 1 || list[0].Name != "bad" || list[0].Deaths != maxDeaths {
		t.Fatalf("in quarantine are %+v", list)
	}
	for _, hash := range []string{"", list[0].Hash[:7], strings.Repeat("0", 64)} {
		if s.lift("a", hash) == nil {
			t.Errorf("%q is lifted", hash)
		}
	}
	if err := s.lift("a", list[0].Hash[:8]); err != nil {
		t.Error(err)
	}
	if err := s.check("a", bad); err != nil {
		t.Errorf("after it is lifted: %v", err)
	}
}

// TestSuspectsBounded: a tenant with ever new modules takes no more memory for it.
func TestSuspectsBounded(t *testing.T) {
	var s suspects
	now := time.Now()
	for i := range 3 * maxSuspect {
		s.note(now.Add(time.Duration(i)*time.Second), []moduleSum{{sum: sha256.Sum256([]byte{byte(i), byte(i >> 8)})}}, "")
	}
	if len(s.by) > maxSuspect {
		t.Errorf("%d modules are kept track of", len(s.by))
	}
}

// TestPause: who dies young again and again is replaced later and later.
func TestPause(t *testing.T) {
	last := time.Duration(-1)
	for young := range 12 {
		p := pause(young)
		if p <= last && p != lastPause || young == 0 && p != 0 {
			t.Errorf("after %d that died young it waits %v", young, p)
		}
		last = p
	}
	if last != lastPause {
		t.Errorf("the longest wait is %v", last)
	}
}

// TestLogRate: what is printed at a rate waits for what was printed before it, and
// a second's worth goes at once.
func TestLogRate(t *testing.T) {
	var l byteRate
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		bytes int
		want  time.Duration
	}{
		{0, 1000, 0}, {0, 500, 500 * time.Millisecond}, {500 * time.Millisecond, 1, time.Millisecond},
		{time.Hour, 1000, 0}, {0, 4000, 4 * time.Second}, {time.Second, 1000, 4 * time.Second},
	} {
		now = now.Add(c.after)
		if got := l.take(now, c.bytes, 1000); (got - c.want).Abs() > time.Microsecond {
			t.Errorf("%d bytes %v later wait %v, want %v", c.bytes, c.after, got, c.want)
		}
	}
}
