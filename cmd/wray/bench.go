package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
	"github.com/wray-project/wray/tests/bench/engine"
)

// benchPackage is the driver of the benchmark, built from source like any
// program.
const benchPackage = "github.com/wray-project/wray/tests/bench/core"

// rayPublished are Ray's own figures, on other hardware: release 2.48.0, one
// m5.16xlarge with 64 processors, release/perf_metrics/microbenchmark.json.
var rayPublished = map[string]float64{
	"single client get calls (Plasma Store)":       10620,
	"single client put calls (Plasma Store)":       5173,
	"multi client put calls (Plasma Store)":        16526,
	"single client put gigabytes":                  19.86 * 0.78125 / 0.8, // 0.78125 GiB are counted as 0.8
	"multi client put gigabytes":                   38.14 * 0.78125 / 0.8,
	"single client tasks and get batch":            5.80,
	"single client get object containing 10k refs": 13.37,
	"single client wait 1k refs":                   5.08,
	"single client tasks sync":                     981,
	"single client tasks async":                    8041,
	"multi client tasks async":                     21230,
	"1:1 actor calls sync":                         2012,
	"1:1 actor calls async":                        8664,
	"1:1 actor calls concurrent":                   5775,
	"1:1 async-actor calls sync":                   1460,
	"1:1 async-actor calls async":                  4260,
	"1:1 async-actor calls with args async":        2836,
	"1:n async-actor calls async":                  7383,
	"n:n async-actor calls async":                  23675,
	"1:n actor calls async":                        8038,
	"n:n actor calls async":                        27376,
	"n:n actor calls with arg async":               2759,
	"placement group create/removal":               765,
}

func newBench() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var asJSON bool
	rounds, seconds := count(5), factor(2)
	core := &cobra.Command{
		Use: "core [PART-OF-A-NAME]", Short: "Run Ray's microbenchmarks from a driver in a sandbox", Args: cobra.MaximumNArgs(1),
		Long: `Core runs the cases of Ray's microbenchmark that apply on one node, with Ray's
names, loops and counting, and what wray adds: the machine's memory, metering,
restoring and keeping sandboxes, hostile guests, starting a node. Ray's figures beside them were
published for other hardware (64 processors) and are no comparison on the same
machine. It builds its driver from source, so run it where this module's source
is: in a checkout, or in a module that requires it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return benchCore(cmd, int(rounds), float64(seconds), asJSON, args)
		},
	}
	f := core.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	f.Var(limited{&rounds, maxRounds}, "rounds", "rounds of each case, of which the median counts")
	f.Var(&seconds, "seconds", "length of a round")
	cmd.AddCommand(core, newBenchScale(), newBenchClient(), newBenchSim())
	return cmd
}

func benchCore(cmd *cobra.Command, rounds int, seconds float64, asJSON bool, args []string) error {
	ctx := cmd.Context()
	p, _, cache, err := benchProgram(ctx, benchPackage)
	if err != nil {
		return err
	}
	t := &benchTable{out: cmd.OutOrStdout(), asJSON: asJSON}
	if err := benchCoreDriver(cmd, p.wasm, cache, append([]string{strconv.Itoa(rounds),
		strconv.FormatFloat(seconds, 'g', -1, 64)}, args...), t); err != nil {
		return errors.Join(err, t.flush())
	}
	if err := engine.Run(ctx, engine.Config{
		Rounds: rounds, Round: time.Duration(seconds * float64(time.Second)), Only: strings.Join(args, ""),
		Guest: p.wasm, Cache: cache, Emit: t.add, Past: t.find,
		Note: func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), "note:", s) },
	}); err != nil {
		return errors.Join(err, t.flush())
	}
	return errors.Join(t.flush(), t.none(cmd, args))
}

// maxRounds bounds the rounds of a case.
const maxRounds = 10000

// none is an error where no case was run, since none has the name asked for.
func (t *benchTable) none(cmd *cobra.Command, args []string) error {
	if len(t.lines) > 0 || cmd.Context().Err() != nil {
		return nil
	}
	return &usageError{withHint(fmt.Errorf("no case of %s has %q in its name", cmd.CommandPath(), strings.Join(args, "")),
		"docs/CLI.md lists the cases, such as %q; without a name all are run", benchExample[cmd.Name()])}
}

// benchExample is a case of each benchmark.
var benchExample = map[string]string{"core": "single client tasks sync", "client": "single client tasks sync", "scale": "3,000 returns of one task"}

// caseReplaced is how many sandboxes the cases with a fresh one used up.
const caseReplaced = "fresh sandbox, replaced since it grew"

// caseSync is what the durable calls are to be compared with.
const caseSync = "durable calls: a bare write and fsync of 2 KiB"

// benchSync writes as much as the commit of a small actor to a file in dir, and
// syncs it, over and over.
func benchSync(dir string, args []string) (l engine.Line, err error) {
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return l, err
	}
	seconds, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return l, err
	}
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		return l, err
	}
	defer f.Close()
	b := make([]byte, 2<<10)
	var rates []float64
	for range rounds {
		begin, n := time.Now(), 0
		for ; time.Since(begin).Seconds() < seconds; n++ {
			if _, err := f.Write(b); err != nil {
				return l, err
			}
			if err := f.Sync(); err != nil {
				return l, err
			}
		}
		rates = append(rates, float64(n)/time.Since(begin).Seconds())
	}
	slices.Sort(rates)
	return engine.Line{Case: caseSync, Unit: "call/s", Median: rates[len(rates)/2], Min: rates[0], Max: rates[len(rates)-1]}, nil
}

// benchCoreDriver runs the cases of the driver of core.
func benchCoreDriver(cmd *cobra.Command, wasm []byte, cache string, args []string, t *benchTable) error {
	ctx := cmd.Context()
	state, err := os.MkdirTemp("", "wray-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	n, err := node.New(node.Config{CacheDir: cache, StoreBytes: 8 << 30, State: filepath.Join(state, "state")})
	if err != nil {
		return err
	}
	defer n.Close()
	if strings.Contains(caseSync, strings.Join(args[2:], "")) {
		l, err := benchSync(state, args)
		if err != nil {
			return err
		}
		if err := t.add(l); err != nil {
			return err
		}
	}
	if err := benchDriver(cmd, n, wasm, args, t.add); err != nil || !t.fresh && !strings.Contains(caseReplaced, strings.Join(args[2:], "")) {
		return err
	}
	s, err := n.Stats(ctx, "")
	if err != nil {
		return err
	}
	r := float64(s.Replaced)
	return t.add(engine.Line{Case: caseReplaced, Unit: "sandboxes", Median: r, Min: r, Max: r})
}

// benchDriver runs a driver in a sandbox, which prints its cases.
func benchDriver(cmd *cobra.Command, n *node.Node, wasm []byte, args []string, add func(engine.Line) error) error {
	var out bytes.Buffer
	var bad error
	code, err := n.Run(cmd.Context(), node.Job{
		Name: "bench", Modules: []node.Module{{Name: "bench", Wasm: wasm}},
		Args: args, Env: []string{benchActors()}, Limits: worker.Limits{Memory: 4 << 30},
		Output: func(_ string, s worker.Stream, b []byte) {
			if s == worker.Stderr {
				_, _ = cmd.ErrOrStderr().Write(b)
				return
			}
			out.Write(b)
			for bytes.IndexByte(out.Bytes(), '\n') >= 0 {
				line, _ := out.ReadBytes('\n')
				var l engine.Line
				err := json.Unmarshal(line, &l)
				if err != nil {
					err = fmt.Errorf("the driver printed %q", line)
				} else {
					err = add(l)
				}
				bad = errors.Join(bad, err)
			}
		},
	})
	if err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code}
	}
	return bad
}

// benchActors tells a driver how many actors there are to be in cases of
// several: half as many as processors, as Ray has it.
func benchActors() string { return fmt.Sprint("WRAY_BENCH_ACTORS=", max(runtime.NumCPU()/2, 1)) }

// benchTable prints cases: as JSON when they come, as a table at the end.
type benchTable struct {
	out    io.Writer
	asJSON bool
	lines  []engine.Line
	fresh  bool // a case with a fresh sandbox was run
}

func (t *benchTable) add(l engine.Line) error {
	t.lines = append(t.lines, l)
	t.fresh = t.fresh || strings.HasPrefix(l.Case, "fresh sandbox")
	if t.asJSON {
		return newJSON(t.out).Encode(l)
	}
	return nil
}

// find returns a case that was run, or nil.
func (t *benchTable) find(name string) *engine.Line {
	for i := range t.lines {
		if t.lines[i].Case == name {
			return &t.lines[i]
		}
	}
	return nil
}

func (t *benchTable) flush() error {
	if t.asJSON || len(t.lines) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "case\tmedian\tmin\tmax\tunit\tRay 2.48, 64 CPUs\t\n")
	for _, l := range t.lines {
		ray := ""
		if r := rayPublished[l.Case]; r != 0 {
			ray = short(r)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t\n", l.Case, short(l.Median), short(l.Min), short(l.Max), l.Unit, ray)
	}
	return w.Flush()
}

// short writes a figure with the digits that mean something.
func short(x float64) string {
	switch {
	case x >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// benchProgram builds a package of this module for wasip1. dir is where its
// source lies.
func benchProgram(ctx context.Context, pkg string) (p *program, dir, cache string, err error) {
	if dir, err = packageDir(ctx, pkg); err != nil {
		return nil, "", "", err
	}
	if cache, err = cacheDir(); err != nil {
		return nil, "", "", err
	}
	p, err = buildPackage(ctx, dir, cache)
	return p, dir, cache, err
}

// packageDir finds the source of a package.
func packageDir(ctx context.Context, pkg string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", withHint(fmt.Errorf("find the source of %s: %w", pkg, err), "run it in a checkout of wray")
	}
	return filepath.Clean(string(bytes.TrimSpace(out))), nil
}
