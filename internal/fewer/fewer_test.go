package fewer

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Of a flood a few are written, how many there were is told when the window has
// ended, and other kinds are written meanwhile.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(2, 10*time.Second)
		var mu sync.Mutex
		var got []string
		say := func(of string, i int) {
			l.Write(of, func(more string) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprintf("%s %d%s", of, i, more))
			})
		}
		for i := range 1000 {
			say("bad", i)
		}
		say("other", 0)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		say("bad", 1)
		say("bad", 2)
		say("bad", 3)
		l.Close()
		l.Close()
		want := []string{"bad 0", "bad 1", "other 0", "bad 999 (and 998 more like it in 10s)", "bad 1", "bad 2", "bad 3 (and 1 more like it in 10s)"}
		if !slices.Equal(got, want) {
			t.Errorf("wrote\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// Who may choose the kinds fills neither the log nor memory.
func TestManyKinds(t *testing.T) {
	l := New(1, time.Hour)
	n := 0
	for i := range 10_000 {
		l.Write(fmt.Sprint(i), func(string) { n++ })
	}
	if n > maxKinds+1 || len(l.kinds) > maxKinds+1 {
		t.Errorf("%d lines of %d kinds", n, len(l.kinds))
	}
	l.Close()
	if n > maxKinds+2 {
		t.Errorf("%d lines", n)
	}
}
