package main

import (
	"io"
	"math"
	"strings"
	"testing"
)

// sample is made up, in the form in which "ray microbenchmark" prints.
const sample = `Tip: set TESTS_TO_RUN='pattern' to run a subset of benchmarks
2026-01-01 00:00:00,000	INFO worker.py:1 -- Started a local Ray instance.
single client get calls (Plasma Store) per second 4000.5 +- 12.25
(pid=1) something per second that is no result
single client put gigabytes per second 8.0 +- nan
single client tasks and get batch per second 3.25 +- 0.5
single client wait 1k refs per second 1e+03 +- 2.5
`

func TestParse(t *testing.T) {
	want := map[string]bool{}
	for _, c := range []string{"single client get calls (Plasma Store)", "single client put gigabytes", "single client wait 1k refs"} {
		want[c] = true
	}
	got, err := scan(strings.NewReader(sample), want, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || len(want) != 0 {
		t.Fatalf("%+v, not seen: %v", got, want)
	}
	if l := got[0]; l != (line{byRay, "single client get calls (Plasma Store)", 4000.5, 12.25}) {
		t.Errorf("%+v", l)
	}
	if l := got[1]; l.Rate != 7.8125 || !math.IsNaN(l.Spread) {
		t.Errorf("10 arrays of 100 Mi numbers a second, which Ray counts as 8 gigabytes, are not 7.8125 GiB: %+v", l)
	}
	if l := got[2]; l.Rate != 1000 || l.Spread != 2.5 {
		t.Errorf("%+v", l)
	}
}

// Reading ends with the last that is wanted: Ray goes on for minutes.
func TestScanEnds(t *testing.T) {
	r := strings.NewReader(sample + strings.Repeat("more\n", 100_000))
	if _, err := scan(r, map[string]bool{"single client tasks and get batch": true}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if r.Len() == 0 {
		t.Error("it read to the end")
	}
}

// The pieces have every case once, and Ray's filter has nothing else.
func TestPieces(t *testing.T) {
	for _, c := range rayCases {
		n := 0
		for _, p := range pieces {
			if strings.Contains(c, p) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q is in %d pieces", c, n)
		}
		if strings.Contains(c, "client: ") {
			t.Errorf("%q is skipped", c)
		}
	}
}

// Every package is pinned by version and hash.
func TestRequirements(t *testing.T) {
	n := 0
	for l := range strings.Lines(string(requirements)) {
		if strings.HasPrefix(l, "#") {
			continue
		}
		n++
		f := strings.Fields(l)
		if len(f) != 2 || !strings.Contains(f[0], "==") || !strings.HasPrefix(f[1], "--hash=sha256:") || len(f[1]) != len("--hash=sha256:")+64 {
			t.Errorf("%q", l)
		}
	}
	if n < 10 || pinned("ray") != "2.60.0" {
		t.Errorf("%d packages, Ray %q", n, pinned("ray"))
	}
}

func TestReport(t *testing.T) {
	lines := []line{
		{byRay, "single client tasks sync", 100, 10}, {byRay, "single client tasks sync", 300, 30},
		{byDriver, "single client tasks sync", 20_000, 1}, {byClient, "single client tasks sync", 800, 1},
		{byRay, "single client put gigabytes", 10, 1},
		{byDriver, "single client put gigabytes", 9, 1}, {byClient, "single client put gigabytes", 90, 1},
		{byDriver, "1:1 actor calls sync", 5, 1}, // Ray did not run it
	}
	r := newReport(lines, machine{Ray: "2.60.0", Cores: 2})
	if len(r.rows) != 2 || r.rounds != 2 {
		t.Fatalf("%+v", r)
	}
	d, c := r.means() // of 100 and 0.9, of 4 and 9
	if math.Abs(d-math.Sqrt(90)) > 1e-9 || math.Abs(c-6) > 1e-9 {
		t.Errorf("means %v and %v", d, c)
	}
	misses := strings.Join(r.misses(), "\n")
	if strings.Count(misses, "\n") != 1 || !strings.Contains(misses, "mean of the driver in a sandbox is 9.5") || !strings.Contains(misses, "gigabytes` by the driver in a sandbox reaches 0.90") {
		t.Errorf("misses:\n%s", misses)
	}
	text, err := r.replace("before\n" + from + "old\n" + to + "after\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n" + from, to + "after\n", "| single client tasks sync | task | 200 ±20.0 | 20,000 | 100.0 | 800 | 4.0 |", "**9.5**", "2 cores"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "old") {
		t.Error("the old table stays")
	}
	if _, err := r.replace("another file\n"); err == nil {
		t.Error("a file without the marks was taken")
	}
}
