package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Write(Event{Who: "user ann of tenant local", Action: "job.submit", Object: fmt.Sprint("job-", i), Decision: Allowed, Why: "<&>\u2028\xff"}); err != nil {
			t.Fatal(err)
		}
	}
}

func count(t testing.TB, path string) Verified {
	t.Helper()
	v, err := Verify(path)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestChain writes over several files and starts, reads all of it, and changes
// bytes of it: no change passes.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		l := open(t, dir, Options{File: 1000})
		write(t, l, 5)
		if _, err := Open(dir, Options{}); err == nil {
			t.Error("two write one log")
		}
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if l.Write(Event{}) == nil {
			t.Error("a log that is closed is written")
		}
	}
	v := count(t, dir)
	if v.Records != 15 || v.From != 1 || v.Last != 15 || v.Files < 3 || v.Torn != 0 {
		t.Errorf("%+v", v)
	}
	names, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	seed := time.Now().UnixNano()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	for _, name := range names {
		path := filepath.Join(dir, name)
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if one := count(t, path); one.Records == 0 {
			t.Errorf("%s alone: %+v", name, one)
		}
		for range 60 {
			i := r.IntN(len(was))
			now := bytes.Clone(was)
			now[i] ^= 1
			if err := os.WriteFile(path, now, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Verify(dir)
			le := (*LineError)(nil)
			if err == nil && got.Hash == v.Hash {
				t.Fatalf("%s with byte %d changed passes", name, i)
			}
			if err != nil && (!errors.As(err, &le) || le.File == "") {
				t.Fatalf("%s with byte %d changed: %v", name, i, err)
			}
		}
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A line that is gone, twice there, or at another place.
	path := filepath.Join(dir, names[0])
	was, _ := os.ReadFile(path)
	all := bytes.SplitAfter(was, []byte("\n"))
	for what, lines := range map[string][][]byte{"gone": {all[0], all[2]}, "twice": {all[0], all[0]}, "moved": {all[1], all[0]}} {
		if err := os.WriteFile(path, bytes.Join(lines, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		line := 2
		if what == "moved" { // the file's name says which record is its first
			line = 1
		}
		if _, err := Verify(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(", line %d: ", line)) {
			t.Errorf("a line that is %s: %v", what, err)
		}
	}
	// A record has one text: the last line too is as it was written, or none.
	for _, odd := range []string{" {", "{ "} {
		if err := os.WriteFile(path, bytes.Replace(all[0], []byte("{"), []byte(odd), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(path); err == nil {
			t.Errorf("a record that begins with %q passes", odd)
		}
	}
	if err := os.Remove(filepath.Join(dir, names[1])); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(path, was, 0o600)
	if _, err := Verify(dir); err == nil {
		t.Error("a file that is gone is not missed")
	}
}

// TestTorn cuts the newest file anywhere: what is whole stays, the rest is removed,
// which is recorded, and the chain goes on.
func TestTorn(t *testing.T) {
	master := t.TempDir()
	l := open(t, master, Options{})
	write(t, l, 3)
	l.Close()
	names, _ := files(master)
	whole, err := os.ReadFile(filepath.Join(master, names[0]))
	if err != nil {
		t.Fatal(err)
	}
	lengths := []int{0, 1, len(whole) - 1, len(whole)}
	seed := time.Now().UnixNano()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 40 {
		lengths = append(lengths, r.IntN(len(whole)))
	}
	for _, n := range lengths {
		dir := t.TempDir()
		path := filepath.Join(dir, names[0])
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		kept := uint64(bytes.Count(whole[:n], []byte("\n")))
		torn := n > 0 && whole[n-1] != '\n'
		l := open(t, dir, Options{})
		write(t, l, 1)
		l.Close()
		want := kept + 1
		if torn {
			want++
		}
		if v := count(t, dir); v.Records != want || v.Torn != 0 {
			t.Errorf("cut at %d of %d: %+v, want %d records", n, len(whole), v, want)
		}
		b, _ := os.ReadFile(path)
		if torn != bytes.Contains(b, []byte("audit.repair")) {
			t.Errorf("cut at %d: what was removed is not said", n)
		}
	}
	// What is wrong before the end is no torn tail.
	dir := t.TempDir()
	bad := bytes.Replace(whole, []byte("job-1"), []byte("job-7"), 1)
	if err := os.WriteFile(filepath.Join(dir, names[0]), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a log that was changed goes on")
	}
}

// TestEmptyNewest has a crash between the making of a file and its first record.
func TestEmptyNewest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	write(t, l, 2)
	l.Close()
	if err := os.WriteFile(filepath.Join(dir, fileName(3)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	write(t, l, 1)
	l.Close()
	if v := count(t, dir); v.Records != 3 || v.Files != 2 {
		t.Errorf("%+v", v)
	}
}

// TestDenials has many requests denied: some are recorded, the rest counted, and
// what is allowed is always recorded.
func TestDenials(t *testing.T) {
	now := time.Unix(1000, 0)
	var mu sync.Mutex
	dir := t.TempDir()
	l := open(t, dir, Options{Denials: 5, Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	for range 3 {
		for range 100 {
			if err := l.Write(Event{Who: "nobody", Action: "job.submit", Decision: Denied}); err != nil {
				t.Fatal(err)
			}
		}
		write(t, l, 1)
		mu.Lock()
		now = now.Add(time.Second)
		mu.Unlock()
	}
	for range 7 {
		_ = l.Write(Event{Who: "nobody", Action: "job.submit", Decision: Denied})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	denied, dropped := 0, uint64(0)
	v, err := Read(dir, func(r Record, _ []byte) error {
		if r.Decision == Denied {
			denied++
		}
		dropped += r.Dropped
		return nil
	})
	if err != nil || denied != 20 || dropped != 287 {
		t.Errorf("%d recorded, %d counted, %+v, %v", denied, dropped, v, err)
	}
}

// TestLong records what is too long for a line: it is cut.
func TestLong(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	long := strings.Repeat("\x01ü", 10*maxField)
	if err := l.Write(Event{Who: long, Tenant: long, Token: long, From: long, Action: long, Object: long, Decision: Allowed, Why: long}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if v := count(t, dir); v.Records != 1 {
		t.Errorf("%+v", v)
	}
}

// TestConcurrent has many write at once.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{File: 4000})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				_ = l.Write(Event{Who: "nobody", Action: "x", Decision: Denied})
				_ = l.Write(Event{Who: "a", Action: "x", Decision: Allowed})
			}
		})
	}
	wg.Wait()
	l.Close()
	n, dropped := 0, uint64(0)
	if _, err := Read(dir, func(r Record, _ []byte) error {
		if r.Action == "x" {
			n++
		}
		dropped += r.Dropped
		return nil
	}); err != nil || n+int(dropped) != 320 {
		t.Errorf("%d and %d dropped, %v", n, dropped, err)
	}
}

// FuzzRead reads any bytes as a log: what passes is what a log writes.
func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir, Options{})
	write(f, l, 2)
	l.Close()
	names, _ := files(dir)
	b, err := os.ReadFile(filepath.Join(dir, names[0]))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &chain{}
		n := uint64(0)
		var from uint64
		good, torn, err := c.read(bytes.NewReader(b), func(r Record, line []byte) error {
			if n == 0 {
				from = r.Seq
			}
			n++
			return nil
		})
		if err == nil && good+torn != int64(len(b)) {
			t.Errorf("of %d bytes %d are right and %d torn", len(b), good, torn)
		}
		if n > 0 && c.last != from+n-1 {
			t.Errorf("%d records from %d on end at %d", n, from, c.last)
		}
		again := &chain{}
		if g, tail, err := again.read(io.LimitReader(bytes.NewReader(b), good), nil); err != nil || g != good || tail != 0 || again.prev != c.prev {
			t.Errorf("what was right is read otherwise again: %d of %d, %v", g, good, err)
		}
	})
}

// BenchmarkWrite is a record of something allowed, on stable storage.
func BenchmarkWrite(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	for b.Loop() {
		write(b, l, 1)
	}
}
