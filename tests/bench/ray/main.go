// Command ray is "make bench-ray": it runs Ray's own microbenchmark and wray's
// cases of the same names on this machine, in turn, and writes what each reached
// and the ratio into docs/BENCHMARKS.md.
//
// Ray comes from the Python registry, at the versions and hashes of
// requirements.txt, into an environment of its own that is removed at the end;
// nothing of it is kept. "ray microbenchmark" runs as it is, a piece at a time
// (TESTS_TO_RUN), with its home and temporary directories inside of that
// environment, and all processes that come of it are ended. wray runs the piece
// right after, from a driver in a sandbox and from a native client.
//
// It needs Linux on amd64, CPython 3.11, the registry, and a machine that does
// nothing else: a round takes about 20 minutes.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wray-project/wray/tests/bench/engine"
)

//go:embed requirements.txt
var requirements []byte

// pieces are what is run in turn: parts of the names of cases, by which both
// choose what to run. Together they name every case once.
var pieces = []string{"single client", "multi client", "1:1 ", ":n ", "placement group"}

// options are the flags.
type options struct {
	python string
	dir    string
	rounds int
	piece  string
	out    string
	report bool
}

func main() {
	var o options
	flag.StringVar(&o.python, "python", "python3.11", "the CPython 3.11 that makes Ray's environment")
	flag.StringVar(&o.dir, "dir", "", "keep Ray's environment and what was measured in this `directory`, and add to it (default: a temporary one)")
	flag.IntVar(&o.rounds, "rounds", 1, "rounds, in each of which both run each piece")
	flag.StringVar(&o.piece, "piece", "", "run this piece alone: one of "+strings.Join(pieces, ", "))
	flag.BoolVar(&o.report, "report", false, "run nothing: write the report of what -dir has")
	flag.StringVar(&o.out, "out", "docs/BENCHMARKS.md", "the file whose table is written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-ray:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("it runs on linux/amd64 alone, for which Ray's hashes are pinned, and this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "wray-ray-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	results := filepath.Join(o.dir, "results.jsonl")
	if !o.report {
		todo := pieces
		if o.piece != "" {
			todo = []string{o.piece}
		}
		if err := measure(ctx, o, todo, results); err != nil {
			return err
		}
	}
	lines, err := load(results)
	if err != nil {
		return err
	}
	r := newReport(lines, describe(ctx))
	fmt.Print(r)
	return r.writeInto(o.out)
}

// measure runs the pieces, and adds what was measured to the file of results.
func measure(ctx context.Context, o options, todo []string, results string) error {
	ray, err := install(ctx, o.python, o.dir)
	if err != nil {
		return err
	}
	wray := filepath.Join(o.dir, "wray")
	if err := command(ctx, "go", "build", "-trimpath", "-o", wray, "./cmd/wray").Run(); err != nil {
		return fmt.Errorf("build wray: %w; run it at the root of a checkout", err)
	}
	f, err := os.OpenFile(results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	keep := json.NewEncoder(f)
	for round := range o.rounds {
		for _, p := range todo {
			fmt.Fprintf(os.Stderr, "bench-ray: round %d of %d, %q: Ray\n", round+1, o.rounds, p)
			got, err := ray.piece(ctx, p)
			if err != nil {
				return fmt.Errorf("%q of Ray: %w", p, err)
			}
			fmt.Fprintf(os.Stderr, "bench-ray: round %d of %d, %q: wray\n", round+1, o.rounds, p)
			ours, err := wrayPiece(ctx, wray, p)
			if err != nil {
				return fmt.Errorf("%q of wray: %w", p, err)
			}
			for _, l := range append(got, ours...) {
				if err := keep.Encode(l); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Who measured a line.
const (
	byRay    = "ray"
	byDriver = "driver" // wray's, in a sandbox
	byClient = "client" // wray's, a native process
)

// line is one case as one of the three ran it, once. Of Ray it is the mean and
// standard deviation of four rounds, as Ray prints them; of wray the median and
// half of the range of as many.
type line struct {
	By     string  `json:"by"`
	Case   string  `json:"case"`
	Rate   float64 `json:"rate"` // of what the case counts, a second
	Spread float64 `json:"spread"`
}

// Ray counts 0.8 for an array of 100 Mi numbers of 8 bytes, which is 0.78125
// GiB, and 8 for ten times ten of a tenth of it.
const gibOfRay = 0.78125 / 0.8

// inGiB reports whether a case counts bytes, which are GiB here.
func inGiB(name string) bool { return strings.HasSuffix(name, "put gigabytes") }

// wrayPiece runs wray's cases of a piece, as long and as often as Ray's.
func wrayPiece(ctx context.Context, wray, piece string) ([]line, error) {
	cmd := command(ctx, wray, "bench", "client", piece, "--json", "--rounds", "4", "--seconds", "2")
	cmd.Stdout = nil
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var list []line
	s := bufio.NewScanner(bytes.NewReader(out))
	for s.Scan() {
		var e engine.Line
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("it printed %q: %w", s.Text(), err)
		}
		l := line{By: byDriver, Case: e.Case, Rate: e.Median, Spread: (e.Max - e.Min) / 2}
		if name, ok := strings.CutPrefix(e.Case, "client: "); ok {
			l.By, l.Case = byClient, name
		}
		list = append(list, l)
	}
	return list, s.Err()
}

// command is a program whose output is seen. It is asked to end when ctx ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func load(name string) ([]line, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []line
	d := json.NewDecoder(f)
	for d.More() {
		var l line
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", name, err)
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return nil, errors.New("nothing was measured")
	}
	return list, nil
}

// machine is what was measured on.
type machine struct {
	Ray, Python, Wray, CPU, Kernel string
	Cores                          int
	MemoryGiB                      float64
}

func describe(ctx context.Context) machine {
	m := machine{Ray: pinned("ray"), Python: "CPython 3.11", Cores: runtime.NumCPU(), Wray: "an unknown commit"}
	if b, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		m.Wray = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	m.CPU = field("/proc/cpuinfo", "model name")
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64)
	m.MemoryGiB = kib / (1 << 20)
	return m
}

// field returns the value of the first line of a file that begins with a key.
func field(file, key string) string {
	b, _ := os.ReadFile(file)
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// pinned returns the version of a package in requirements.txt.
func pinned(name string) string {
	for l := range strings.Lines(string(requirements)) {
		if v, ok := strings.CutPrefix(l, name+"=="); ok {
			return strings.Fields(v)[0]
		}
	}
	return ""
}
