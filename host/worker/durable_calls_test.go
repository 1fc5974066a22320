package worker

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDurableCalls has durable actors call each other, and drivers repeat calls.
func TestDurableCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "transfers")
	dir := t.TempDir()
	for _, step := range []struct{ args, want string }{
		{"new move k1 30 sums", "70 false false\n70 130\n"},
		// The same key, in this run and in another: the same answer, and nothing done.
		{"move k1 30 move k2 10 move k1 30 sums", "70 false false\n60 false false\n70 false false\n60 140\n"},
		{"move k1 31 sums", "0 false true\n60 140\n"},
		// An error is an answer, too.
		{"move k3 1000 move k3 1000 sums", "0 true false\n0 true false\n60 140\n"},
		{"spread s 20 spread s 20 sums", "40 <nil>\n40 <nil>\n40 160\n"},
		// Actors that the state refers to are there again.
		{"again sums", "161 <nil>\n39 161\n"},
		{"nobody", "true\n"},
		{"vast vast", "true\ntrue\n"},
		// Circles end, and leave nothing undone.
		{"circle circle sums", "true\ntrue\n39 161\n"},
		{"both", "true true\n"},
	} {
		got, err := runDurable(t, guest, dir, strings.Fields(step.args)...)
		if err != nil || got != step.want {
			t.Fatalf("%s: %q, %v\nwant %q", step.args, got, err, step.want)
		}
	}
	if got, err := runDurable(t, guest, dir, "self", "nobody", "sums"); err != nil || !strings.Contains(got, "durable actors would wait for each other: bob -> bob") {
		t.Errorf("one that calls itself: %q, %v", got, err)
	}
	if got, err := runDurable(t, guest, dir, "kill"); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	if entries, err := os.ReadDir(dir + "/actors"); err != nil || len(entries) != 0 {
		t.Errorf("files: %v, %v", entries, err)
	}
}

// TestDurableLeft ends jobs with calls under way: the next job finishes them
// before anything else, or does not know of them, and never does a part.
func TestDurableLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "transfers")
	dir := t.TempDir()
	if _, err := runDurable(t, guest, dir, "new", "sums"); err != nil {
		t.Fatal(err)
	}
	left := 100
	for i := range 12 {
		if _, err := runDurable(t, guest, dir, strings.Fields(fmt.Sprintf("leave k%d 4 sums", i))[:3]...); err != nil {
			t.Fatal(err)
		}
		got, err := runDurable(t, guest, dir, "sums")
		if err != nil {
			t.Fatal(err)
		}
		var a, b int
		if _, err := fmt.Sscan(got, &a, &b); err != nil || a+b != 200 || a != left && a != left-4 {
			t.Fatalf("round %d: %q, and there was %d", i, got, left)
		}
		// Whoever asks again makes it whole.
		if got, err = runDurable(t, guest, dir, strings.Fields(fmt.Sprintf("spread k%d 4 sums", i))...); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d <nil>\n%d %d\n", 96-4*i, 96-4*i, 104+4*i); got != want {
			t.Fatalf("round %d: %q, want %q", i, got, want)
		}
		left = 96 - 4*i
	}
}

// TestDurableCrossed ends jobs while two actors are in calls that call each other:
// alice's was answered, and is asked again by the next job, when bob may wait for
// alice. It was done, and so it is not refused.
func TestDurableCrossed(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "transfers")
	dir := t.TempDir()
	if _, err := runDurable(t, guest, dir, "new", "sums"); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		key := fmt.Sprint("k", i)
		if _, err := runDurable(t, guest, dir, "cross", key); err != nil {
			t.Fatal(err)
		}
		got, err := runDurable(t, guest, dir, "crossed", key)
		if err != nil || got != "<nil> true\n" {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
		seen, err := runDurable(t, guest, dir, "seen", "sums")
		if n := strings.Count(seen, key+" x"); err != nil || n != 1 {
			t.Fatalf("round %d: %d deposits: %q, %v", i, n, seen, err)
		}
	}
}
