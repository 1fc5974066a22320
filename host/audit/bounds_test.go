package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestFailures has a tenant's people fail at much: some of it is recorded, the rest
// counted, and what fails of another tenant is recorded all the same.
func TestFailures(t *testing.T) {
	c := &clock{now: time.Unix(1000, 0)}
	dir := t.TempDir()
	l := open(t, dir, Options{Denials: 5, Now: c.Now})
	fail := func(tenant string) {
		t.Helper()
		if err := l.Write(Event{Who: "user x of tenant " + tenant, Tenant: tenant, Action: "job.submit", Decision: Failed}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for range 1000 {
			fail("loud")
			if err := l.Write(Event{Who: "tenant loud", Tenant: "loud", Action: "egress.ask", Decision: Denied}); err != nil {
				t.Fatal(err)
			}
		}
		fail("quiet")
		if err := l.Write(Event{Who: "nobody", Action: "x", Decision: Denied}); err != nil {
			t.Fatal(err)
		}
		c.move(time.Second)
	}
	for i := range 3 * maxBudgets { // which are not kept for each
		fail(fmt.Sprint("one of many ", i))
	}
	if len(l.spent) > maxBudgets+1 {
		t.Errorf("there are %d budgets", len(l.spent))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n, dropped := map[string]int{}, uint64(0)
	if _, err := Read(dir, func(r Record, _ []byte) error {
		n[r.Tenant+" "+r.Decision]++
		dropped += r.Dropped
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n["loud failed"] != 15 || n["loud denied"] != 15 || n["quiet failed"] != 3 || n[" denied"] != 3 || dropped != 2*3*995+2*maxBudgets-5 {
		t.Errorf("%v, %d are counted", map[string]int{"loud": n["loud failed"], "quiet": n["quiet failed"], "denied": n[" denied"]}, dropped)
	}
}

// TestKeep writes more than is kept: the oldest files go, which the log says before,
// and what is left holds together with that. A file that somebody else removed is
// told from them.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	all := t.TempDir()
	o := Options{File: 2000, Keep: 10_000}
	for range 2 {
		l := open(t, dir, o)
		for range 40 {
			write(t, l, 1)
			names, err := files(dir)
			if err != nil {
				t.Fatal(err)
			}
			total := int64(0)
			for _, name := range names {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				total += int64(len(b))
				if err := os.WriteFile(filepath.Join(all, name), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if most := o.Keep + 2*o.File; total > most {
				t.Fatalf("%d bytes in %d files, of %d", total, len(names), most)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	v := count(t, dir)
	if v.From < 20 || v.Retired != v.From-1 || v.Records != v.Last-v.From+1 {
		t.Errorf("%+v", v)
	}
	// With those that were copied it is one chain.
	if whole := count(t, all); whole.From != 1 || whole.Last != v.Last || whole.Hash != v.Hash || whole.Retired != 0 {
		t.Errorf("%+v", whole)
	}
	// One more that is gone was not removed by the log.
	names, err := files(dir)
	if err == nil {
		err = os.Rename(filepath.Join(dir, names[0]), filepath.Join(t.TempDir(), "taken"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if taken := count(t, dir); taken.Retired != v.Retired || taken.Retired >= taken.From-1 {
		t.Errorf("after a file was taken: %+v", taken)
	}
	// What is written again from a record on holds together in itself, and not with
	// what the log says of those before.
	forged := t.TempDir()
	prev := strings.Repeat("f", len(first))
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(all, name))
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		for line := range strings.Lines(string(b)) {
			var r Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			r.Prev = prev
			now, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			now = append(now, '\n')
			prev = hashOf(now)
			out = append(out, now...)
		}
		if err := os.WriteFile(filepath.Join(forged, name), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Verify(forged); !errors.Is(err, errBroken) {
		t.Errorf("a log that was written again passes: %+v, %v", got, err)
	}
}

// TestFull has a disk take nothing more: who must not act without a record hears
// that, what is not recorded is counted, and the log goes on by itself when there
// is room again.
func TestFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no file that is always full: ", err)
	}
	c := &clock{now: time.Unix(1000, 0)}
	dir := t.TempDir()
	l := open(t, dir, Options{Now: c.Now})
	write(t, l, 2)
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	real := l.f
	l.f = full
	done := Event{Who: "a", Action: "x", Decision: Allowed}
	if err := l.Write(done); err == nil {
		t.Fatal("it is recorded on a full disk")
	}
	l.f = real
	for range 10 {
		if l.Write(done) == nil || l.Ready() == nil {
			t.Fatal("it is tried at once again")
		}
	}
	c.move(mendEvery)
	if err := l.Ready(); err != nil {
		t.Errorf("there is room: %v", err)
	}
	write(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dropped := uint64(0)
	v, err := Read(dir, func(r Record, _ []byte) error {
		if dropped += r.Dropped; r.Dropped != 0 && r.Action != actResume {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil || v.Records != 4 || dropped != 11 {
		t.Errorf("%+v, %v, %d are counted", v, err, dropped)
	}
	var none *Log
	if err := errors.Join(none.Ready(), none.Write(done)); err != nil {
		t.Errorf("where there is no log: %v", err)
	}
}

// TestSlowMend: where it takes long to find out that a log cannot be written, that
// is tried rarely, however much there is to write.
func TestSlowMend(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no file that is always full: ", err)
	}
	c := &clock{now: time.Unix(1000, 0)}
	dir := t.TempDir()
	// Between any two looks at the clock two seconds go by: so long does it take to try.
	l := open(t, dir, Options{Now: func() time.Time { c.move(2 * time.Second); return c.Now() }})
	write(t, l, 2)
	name := l.f.Name()
	l.f.Close()
	l.f = full
	was, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tries, tried := 0, time.Time{}
	for range 100 {
		if l.Write(Event{Who: "a", Action: "x", Decision: Allowed}) == nil {
			t.Fatal("it is recorded in a log that is broken")
		}
		if l.tried != tried {
			tries, tried = tries+1, l.tried
		}
	}
	if tries < 2 || tries > 11 {
		t.Errorf("of 100 writes %d read the file", tries)
	}
	if err := os.WriteFile(name, was, 0o600); err != nil {
		t.Fatal(err)
	}
	c.move(mendMost)
	write(t, l, 1)
}
