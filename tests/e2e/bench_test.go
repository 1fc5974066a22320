package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// benchCase finds a row of the documented table of cases.
var benchCase = regexp.MustCompile("(?m)^\\| `([^`-][^`]*)` \\| ([^|]+?) \\|")

// TestBenchCore runs every case for a moment and holds that what is printed is
// what docs/CLI.md lists, in that order.
func TestBenchCore(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it moves gigabytes")
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "CLI.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## wray bench core\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var want []string
	for _, m := range benchCase.FindAllStringSubmatch(section, -1) {
		want = append(want, m[1]+" in "+m[2])
	}
	if len(want) < 40 {
		t.Fatalf("%d cases found in docs/CLI.md: the pattern does not see them", len(want))
	}
	got := benchCore(t)
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("printed:\n%s\n\nlisted in docs/CLI.md:\n%s", g, w)
	}
}

// TestBenchCorePart holds that a part of a name picks cases of both sides.
func TestBenchCorePart(t *testing.T) {
	for part, want := range map[string]string{
		"get calls":        "single client get calls (Plasma Store) in get/s",
		"of an empty job":  "node start, to the end of an empty job in ms",
		"20 times the sto": "put and drop 20 times the store's capacity in GiB/s",
		"moved to disk":    "spill, objects moved to disk in MiB/s\nspill, objects moved to disk and synced in MiB/s",
	} {
		if got := strings.Join(benchCore(t, part), "\n"); got != want {
			t.Errorf("%q printed %q, want %q", part, got, want)
		}
	}
}

// TestBenchNothing holds that a case that does not exist is a mistake, and is
// told where the names are.
func TestBenchNothing(t *testing.T) {
	r := run(t, "", "bench", "core", "--rounds", "1", "--seconds", "0.05", "no such case")
	if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, `no case of wray bench core has "no such case" in its name`) || !strings.Contains(r.stderr, "docs/CLI.md") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// benchCore runs the benchmark for a moment and returns its cases, each with
// its unit.
func benchCore(t *testing.T, args ...string) (cases []string) {
	t.Helper()
	r := run(t, "", append([]string{"bench", "core", "--json", "--rounds", "1", "--seconds", "0.05"}, args...)...)
	if r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		var l struct {
			Case, Unit       string
			Median, Min, Max float64
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if l.Min > l.Median || l.Median > l.Max {
			t.Errorf("%+v is out of order", l)
		}
		// What is a difference, or counts what should not be, may be anything.
		if l.Median <= 0 && !strings.HasPrefix(l.Case, "fresh sandbox") && !strings.HasPrefix(l.Case, "hostile") {
			t.Errorf("%+v measures nothing", l)
		}
		cases = append(cases, l.Case+" in "+l.Unit)
	}
	return cases
}

// TestBenchClient holds that a case is run from a driver and from a native
// client.
func TestBenchClient(t *testing.T) {
	r := run(t, "", "bench", "client", "--json", "--rounds", "1", "--seconds", "0.05", "1:1 actor calls sync")
	var cases []string
	for line := range strings.Lines(r.stdout) {
		var l struct {
			Case, Unit string
			Median     float64
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Median <= 0 {
			t.Errorf("%v: %s", err, line)
		}
		cases = append(cases, l.Case+" in "+l.Unit)
	}
	want := "1:1 actor calls sync in call/s, client: 1:1 actor calls sync in call/s"
	if got := strings.Join(cases, ", "); r.code != 0 || got != want {
		t.Errorf("exit %d, printed %q, want %q\n%s", r.code, got, want, r.stderr)
	}
}

// TestBenchScale runs its cases small, and holds that docs/CLI.md lists them.
func TestBenchScale(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "docs", "CLI.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n## wray bench scale\n")
	section, _, _ = strings.Cut(section, "\n## ")
	r := run(t, "", "bench", "scale", "--json", "--scale", "0.002", "--max-resident-actors", "20")
	if r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var got, want []string
	for line := range strings.Lines(r.stdout) {
		var c struct{ Case, Unit string }
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, c.Case+" in "+c.Unit)
	}
	for _, m := range benchCase.FindAllStringSubmatch(section, -1) {
		want = append(want, m[1]+" in "+m[2])
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("printed:\n%s\n\nlisted in docs/CLI.md:\n%s", g, w)
	}
}
