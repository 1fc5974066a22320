package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/tests/bench/engine"
)

// clientPrefix heads the names of cases that a native client ran.
const clientPrefix = "client: "

func newBenchClient() *cobra.Command {
	var asJSON bool
	rounds, seconds := count(5), factor(2)
	cmd := &cobra.Command{
		Use: "client [PART-OF-A-NAME]", Short: "Run the cases of core from a native process, and from a driver beside it", Args: cobra.MaximumNArgs(1),
		Long: `Client runs the cases of wray bench core that a driver has from a native
process (sdk.Connect), over a node's Unix socket, and in the same node from a
driver in a sandbox. It builds both from source, so run it in a checkout.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			t := &benchTable{out: cmd.OutOrStdout(), asJSON: asJSON}
			err := benchClient(cmd, []string{rounds.String(), seconds.String(), strings.Join(args, ""), "native"}, t)
			if err != nil {
				return errors.Join(err, t.flushClient())
			}
			return errors.Join(t.flushClient(), t.none(cmd, args))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	f.Var(limited{&rounds, maxRounds}, "rounds", "rounds of each case, of which the median counts")
	f.Var(&seconds, "seconds", "length of a round")
	return cmd
}

func benchClient(cmd *cobra.Command, args []string, t *benchTable) error {
	ctx := cmd.Context()
	p, src, cache, err := benchProgram(ctx, benchPackage)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wray-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	module, program, socket := filepath.Join(dir, "bench.wasm"), filepath.Join(dir, "client"), filepath.Join(dir, "s")
	if err := os.WriteFile(module, p.wasm, 0o600); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, ".")
	build.Dir = src
	if msg, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build of %s failed:\n%s", src, indent(string(msg)))
	}
	n, err := node.New(node.Config{CacheDir: cache, StoreBytes: 8 << 30})
	if err != nil {
		return err
	}
	defer n.Close()
	s, err := n.Serve(socket, false)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := benchDriver(cmd, n, p.wasm, args, t.add); err != nil {
		return err
	}
	client := exec.CommandContext(ctx, program, append([]string{"client", "unix://" + socket, module}, args...)...)
	client.Env = append(os.Environ(), benchActors())
	client.Stderr = cmd.ErrOrStderr()
	out, err := client.StdoutPipe()
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	var bad error
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var l engine.Line
		err := json.Unmarshal(lines.Bytes(), &l)
		if err != nil {
			err = fmt.Errorf("the client printed %q", lines.Bytes())
		} else {
			l.Case = clientPrefix + l.Case
			err = t.add(l)
		}
		bad = errors.Join(bad, err)
	}
	return errors.Join(lines.Err(), client.Wait(), bad)
}

// flushClient prints cases with what a driver reached beside them.
func (t *benchTable) flushClient() error {
	if t.asJSON || len(t.lines) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "case\tclient\tmin\tmax\tunit\tdriver in a sandbox\tRay 2.48, 64 CPUs\t\n")
	for _, l := range t.lines {
		name, ok := strings.CutPrefix(l.Case, clientPrefix)
		if !ok {
			continue
		}
		driver, ray := "", ""
		if d := t.find(name); d != nil {
			driver = short(d.Median)
		}
		if r := rayPublished[name]; r != 0 {
			ray = short(r)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, short(l.Median), short(l.Min), short(l.Max), l.Unit, driver, ray)
	}
	return w.Flush()
}
