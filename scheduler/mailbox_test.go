package scheduler

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMailbox reads scripts: "a1" posts call 1 of caller a, "a1?" one that
// misses an argument, "+1" tells that it came, "-1" removes it, "<1" puts it
// back, "~1" tells that it is done, and "=1" says that it is the next, "=" that
// none is. "w2" lets two run at once, else all may, "h2" two be out besides, and
// "#2" says that two do not run.
func TestMailbox(t *testing.T) {
	for _, script := range []string{
		"a1 a2 b3 =1 =2 =3 =",
		"a1? a2 b3 =3 = +1 =1 =2 =",       // who waits holds up its own caller only
		"a1? b2 a3 +1 =1 =2 =3 =",         // and keeps its place
		"a1 a2? a3 =1 = -2 =3 =",          // a call that is canceled holds up nobody
		"a1? a2? a3 -2 = +1 =1 =3 =",      // nor one in the middle
		"a1 a2 b3 =1 <1 =1 =2 =3 =",       // one that is run again goes first
		"a1 a2 =1 =2 a3 b4 <2 =2 =3 =4 =", //
		"a1 =1 <1 -1 a2 =2 =",             //
		"a1?? a2 +1 = +1 =1 =2 =",         // two arguments
		"a1? -1 +1 a2 =2 =",               // what comes late is not missed
		"a1 -1 = a2 b3 -3 =2 =",           //
		"w1 a1 b2 =1 = ~1 =2 = ~2 =",      // one at a time
		"w2 a1 a2 b3 =1 =2 = ~2 =3 = ~1 =",
		"w2 a1 a2? b3 b4 =1 =3 = ~3 =4 = +2 = ~1 =2 =", // starts in order, ends in any
		"w2 a1 a2 a3 =1 =2 <2 <1 =1 =2 = ~1 =3 =",      // all are put back, the last first
		"w2 a1 b2 a3 =1 =2 = -3 ~1 =",                  // one that was removed takes no place
		"w1 h2 a1 b2 a3 a4 =1 =2 =3 = #3 ~1 =4 = #2",   // two go ahead of the one that runs
		"w2 h1 a1 a2 a3 a4 #4 =1 #3 =2 #2 =3 #2 = ~2 =4 #1 =",
		"w1 h2 a1 a2 a3 b4 =1 =2 =3 <3 h0 <2 ~1 =2 = #2 ~2 =3 ~3 =4 =", // they come back, and one goes at a time
		"w1 h1 a1 a2 =1 =2 h0 a3 = ~1 = ~2 =3 =",                       // none goes until there is room for it
	} {
		m := Mailbox[string]{Width: 1 << 30}
		letters, from := map[string]*Letter[string]{}, map[string]uint64{}
		for _, w := range strings.Fields(script) {
			id := strings.Trim(w[1:], "?")
			switch w[0] {
			case 'w':
				m.Width, _ = strconv.Atoi(id)
			case 'h':
				m.Ahead, _ = strconv.Atoi(id)
			case '#':
				if n := m.Waiting(); strconv.Itoa(n) != id {
					t.Errorf("%s: at %s: %d do not run", script, w, n)
				}
			case '~':
				m.Done()
			case '=':
				got := ""
				if l := m.Next(); l != nil {
					got = l.Value
				}
				if got != id {
					t.Errorf("%s: at %s: next is %q", script, w, got)
				}
			case '+':
				m.Arrived(letters[id])
			case '-':
				if !m.Remove(letters[id]) {
					t.Errorf("%s: at %s: not there", script, w)
				}
			case '<':
				m.PutBack(letters[id], from[id])
			default:
				letters[id], from[id] = &Letter[string]{Value: id}, uint64(w[0])
				m.Post(letters[id], from[id], strings.Count(w, "?"))
			}
		}
		if m.Len() != 0 || len(m.callers) != 0 || len(m.heads) != 0 {
			t.Errorf("%s: left: %d calls, %d callers, %d heads", script, m.Len(), len(m.callers), len(m.heads))
		}
	}
}

// TestMailboxModel compares with a slice that is searched.
func TestMailboxModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("WRAY_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("again: WRAY_SEED=%d go test ./scheduler -run TestMailboxModel", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	type call struct {
		*Letter[int]
		from    uint64
		missing int
	}
	m := Mailbox[int]{Width: 1 + rng.IntN(3)}
	var model, taken []call // taken in the order in which they started
	next := func() int {
		if len(taken) >= m.Width+m.Ahead {
			return -1
		}
	search:
		for i, c := range model {
			if c.missing > 0 {
				continue
			}
			for _, earlier := range model[:i] {
				if earlier.from == c.from {
					continue search
				}
			}
			return i
		}
		return -1
	}
	var trace []string
	for i := range 20_000 {
		if rng.IntN(100) == 0 {
			m.Ahead = rng.IntN(4)
			trace = append(trace, fmt.Sprintf("ahead %d", m.Ahead))
		}
		switch op := rng.IntN(10); {
		case op < 4:
			c := call{&Letter[int]{Value: i}, rng.Uint64N(4), max(0, rng.IntN(4)-1)}
			trace = append(trace, fmt.Sprintf("post %d of %d missing %d", i, c.from, c.missing))
			m.Post(c.Letter, c.from, c.missing)
			model = append(model, c)
		case op < 6 && len(model) > 0:
			k := rng.IntN(len(model))
			c := &model[k]
			if c.missing > 0 {
				trace = append(trace, fmt.Sprintf("arrived %d", c.Value))
				c.missing--
				behind := slices.ContainsFunc(model[:k], func(earlier call) bool { return earlier.from == c.from })
				if runs, want := m.Arrived(c.Letter), c.missing == 0 && !behind; runs != want {
					t.Fatalf("an argument of %d came, which may run now: %v, want %v: %v", c.Value, runs, want, trace[max(0, len(trace)-50):])
				}
			}
		case op < 7 && len(model) > 0:
			k := rng.IntN(len(model))
			trace = append(trace, fmt.Sprintf("remove %d", model[k].Value))
			if !m.Remove(model[k].Letter) {
				t.Fatalf("not there: %v", trace)
			}
			model = append(model[:k:k], model[k+1:]...)
		default:
			k, l := next(), m.Next()
			switch {
			case k < 0 && l == nil:
			case k < 0 || l == nil || model[k].Letter != l:
				t.Fatalf("next is %v, want %d of %v: %v", l, k, model, trace[max(0, len(trace)-50):])
			default:
				trace = append(trace, fmt.Sprintf("next %d", l.Value))
				taken = append(taken, model[k])
				model = append(model[:k:k], model[k+1:]...)
			}
			for len(taken) > 0 && rng.IntN(8) == 0 {
				// The sandbox is gone: all are the oldest of their callers again, and
				// keep their places.
				c := taken[len(taken)-1]
				taken = taken[:len(taken)-1]
				trace = append(trace, fmt.Sprintf("put back %d", c.Value))
				m.PutBack(c.Letter, c.from)
				at, _ := slices.BinarySearchFunc(model, c, func(a, b call) int { return a.Value - b.Value })
				model = slices.Insert(model, at, c)
			}
			if len(taken) > 0 && rng.IntN(2) == 0 {
				k := rng.IntN(len(taken))
				trace = append(trace, fmt.Sprintf("done %d", taken[k].Value))
				taken = slices.Delete(taken, k, k+1)
				m.Done()
			}
		}
		if m.Len() != len(model) {
			t.Fatalf("%d calls wait, want %d: %v", m.Len(), len(model), trace[max(0, len(trace)-50):])
		}
		if want := len(model) + max(len(taken)-m.Width, 0); m.Waiting() != want {
			t.Fatalf("%d calls do not run, want %d: %v", m.Waiting(), want, trace[max(0, len(trace)-50):])
		}
	}
	for m.Take() != nil {
	}
	if m.Len() != 0 || len(m.callers) != 0 || len(m.heads) != 0 {
		t.Errorf("left: %d calls, %d callers, %d heads", m.Len(), len(m.callers), len(m.heads))
	}
}
