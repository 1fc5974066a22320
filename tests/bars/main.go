// Command bars measures what the threat model promises (docs/THREATS.md), and
// prints a line for each thing measured:
//
//	BAR number value unit PASS|FAIL|SKIP reason
//
// The measuring is done by tests of the packages that know how; bars runs them,
// reads what they say, and fails where one is missed, a test fails, or a bar
// says nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/wray-project/wray/internal/testenv"
)

// source is tests that say something about bars.
type source struct {
	bars []int
	pkg  string
	run  string
}

// sources are all tests that measure bars, the longest last.
var sources = []source{
	{[]int{14}, "./host/jail", "^(TestWorkerCanDoNothing|TestEnterReports|TestWorkerCanWork)$"},
	{[]int{13}, "./host/jail", "^TestNoNetwork$"},
	{[]int{13}, "./host/egress/client", "^TestBar13$"},
	{[]int{14}, "./host/codecache", "^TestSubvertedCompiler$"},
	{[]int{9, 10}, "./internal/jobhttp", "^(TestMatrix|TestBrowsers|TestPages)$"},
	{[]int{9}, "./internal/rpc", "^TestAccess$"},
	{[]int{20}, "./host/cluster/gossip", "^TestBar20$"},

	{[]int{15}, "./internal/rpc", "^TestBombs$"},
	{[]int{3}, "./tests/e2e", "^TestBar3$"},
	{[]int{1}, "./tests/isolation", "^TestBar1$"},
	{[]int{2}, "./tests/isolation", "^TestBar2$"},
	{[]int{5}, "./tests/isolation", "^TestBar5$"},
	{[]int{11}, "./tests/isolation", "^(TestBar11|TestBar11Tenants)$"},
	{[]int{12}, "./tests/isolation", "^TestBar12$"},
	{[]int{15}, "./tests/isolation", "^(TestBar15|TestBar15Bomb)$"},
}

func main() {
	only := flag.Int("bar", 0, "measure this bar alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, *only))
}

// result is what a run of one package's tests said.
type result struct {
	lines  []line
	failed []string // tests that did
	out    string   // all that was said, for who looks for a reason
}

type line struct {
	bar  int
	text string
}

func run(ctx context.Context, only int) int {
	os.Setenv(testenv.BarsEnv, "1")
	var lines []line
	failed := 0
	for _, s := range sources {
		if only != 0 && !slices.Contains(s.bars, only) {
			continue
		}
		r, err := measure(ctx, s)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bars: %s: %v\n", s.pkg, err)
			failed++
		}
		for _, n := range s.bars {
			if !slices.ContainsFunc(r.lines, func(l line) bool { return l.bar == n }) {
				r.lines = append(r.lines, line{n, fmt.Sprintf("BAR %d - nothing FAIL %s %s said nothing", n, s.pkg, s.run)})
			}
		}
		if len(r.failed) > 0 {
			fmt.Fprintf(os.Stderr, "bars: %s: failed: %s\n%s\n", s.pkg, strings.Join(r.failed, ", "), r.out)
			failed++
		}
		for _, l := range r.lines {
			fmt.Println(l.text)
			if only == 0 || l.bar == only {
				lines = append(lines, l)
			}
		}
	}
	counts := map[string]int{}
	for _, l := range lines {
		counts[verdictOf(l.text)]++
	}
	fmt.Printf("%d measured and passed, %d missed, %d not measured\n", counts["PASS"], counts["FAIL"], counts["SKIP"])
	if failed > 0 || counts["FAIL"] > 0 {
		return 1
	}
	return 0
}

var (
	barLine = regexp.MustCompile(`BAR (\d+) .*\b(PASS|FAIL|SKIP)\b.*`)
	// What go test -json says of a test.
	outputOf = regexp.MustCompile(`^\s*[^ ]+\.go:\d+: `)
)

func verdictOf(text string) string { return barLine.FindStringSubmatch(text)[2] }

// measure runs the tests of s.
func measure(ctx context.Context, s source) (r result, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-v", "-count=1", "-timeout", "30m", "-run", s.run, s.pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, err
	}
	var all strings.Builder
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			continue // what the go command says in other words
		}
		switch e.Action {
		case "output", "build-output":
			all.WriteString(e.Output)
			text := strings.TrimSpace(outputOf.ReplaceAllString(e.Output, ""))
			if m := barLine.FindStringSubmatch(text); m != nil {
				n, _ := strconv.Atoi(m[1]) // digits
				r.lines = append(r.lines, line{n, m[0]})
			}
		case "fail":
			if e.Test != "" {
				r.failed = append(r.failed, e.Test)
			}
		}
	}
	r.out = all.String()
	if err := errors.Join(scan.Err(), cmd.Wait()); err != nil && len(r.failed) == 0 {
		return r, fmt.Errorf("go test: %w\n%s", err, r.out)
	}
	return r, nil
}
