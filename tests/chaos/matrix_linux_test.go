package chaos

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	full = flag.Bool("chaos.full", false, "all cells, each for -chaos.for")
	each = flag.Duration("chaos.for", 2*time.Minute, "how long things go wrong in a cell of -chaos.full")
	seed = flag.Uint64("chaos.seed", 0, "seed of what goes wrong; 0: another each time")
	cell = flag.String("chaos.cell", "", "only this cell, WORKLOAD/FAULT, as if of -chaos.full; either may be left out")
)

var (
	wray  string // the program
	guest string // the module of the workloads
)

func TestMain(m *testing.M) {
	flag.Parse()
	if what := os.Getenv(copyEnv); what != "" {
		if err := bareCopy(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(setUp(m))
}

func setUp(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wray-chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	wray, guest = filepath.Join(dir, "wray"), filepath.Join(dir, "guest.wasm")
	for _, b := range []struct {
		env  []string
		args []string
	}{
		{[]string{"CGO_ENABLED=0"}, []string{"-o", wray, "../../cmd/wray"}},
		{[]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, []string{"-buildmode=c-shared", "-ldflags=-checklinkname=0", "-o", guest, "./guest"}},
	} {
		cmd := exec.Command("go", append([]string{"build"}, b.args...)...)
		cmd.Env = append(os.Environ(), b.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	os.Setenv("WRAY_CACHE", filepath.Join(dir, "cache"))
	os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	os.Unsetenv("WRAY_JOIN_TOKEN")
	os.Unsetenv("WRAY_ADDRESS")
	return m.Run()
}

var workloads = []string{"tasks", "actors", "streaming", "borrowing"}

// short are the cells that run with all other tests: each workload, and each kind
// of fault but the baseline, which the time before each is.
var short = []string{"tasks/node kill", "actors/worker kill", "streaming/asymmetric partition", "borrowing/blackout"}

// TestChaos is the matrix.
func TestChaos(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64() >> 32
	}
	for _, f := range faults {
		for _, w := range workloads {
			name := w + "/" + f.name
			of := *each
			switch {
			case *cell != "":
				wantW, wantF, _ := strings.Cut(*cell, "/")
				if wantW != "" && wantW != w || wantF != "" && wantF != f.name {
					continue
				}
			case *full:
			case slices.Contains(short, name):
				of = 0
			default:
				continue
			}
			t.Run(name, func(t *testing.T) { runCell(t, w, f, s, of) })
		}
	}
}

// job is a run of the guest.
type job struct {
	c      *cluster
	cmd    *exec.Cmd
	lines  chan string // what it prints; closed at its end
	in     io.WriteCloser
	errs   *said
	rounds int
	said   string      // by the last round
	at     []time.Time // when each round ended
	ops    []op
}

// begin starts a workload at the driver's node.
func (c *cluster) begin(workload string, seed uint64) *job {
	c.t.Helper()
	j := &job{c: c, lines: make(chan string), errs: &said{}}
	j.cmd = exec.Command(wray, "run", "--address", c.driver.address, guest, "--", workload, strconv.FormatUint(seed, 10))
	j.cmd.Stderr = j.errs
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if j.in, err = j.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	if err := j.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(j.lines)
		for s := bufio.NewReaderSize(out, 1<<20); ; {
			line, err := s.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case j.lines <- strings.TrimSpace(line):
			case <-stop:
			}
		}
	}()
	c.t.Cleanup(func() {
		close(stop)
		_ = j.cmd.Process.Kill()
		for range j.lines {
		}
		_ = j.cmd.Wait()
	})
	return j
}

// round awaits the end of a round, or until.
func (j *job) round(until <-chan time.Time) (ended bool) {
	j.c.t.Helper()
	select {
	case line, ok := <-j.lines:
		if !ok {
			j.c.t.Fatalf("the job ended after %d rounds:\n%s\n%s", j.rounds, j.errs, j.c.explain())
		}
		n, rest, _ := strings.Cut(strings.TrimPrefix(line, "round "), " ")
		if n != strconv.Itoa(j.rounds+1) {
			j.c.t.Fatalf("the job says %q after round %d:\n%s", line, j.rounds, j.errs)
		}
		j.rounds++
		j.said = rest
		j.at = append(j.at, time.Now())
		if strings.HasPrefix(rest, "[") {
			var ops []op
			if err := json.Unmarshal([]byte(rest), &ops); err != nil {
				j.c.t.Fatal(err)
			}
			j.ops = append(j.ops, ops...)
		}
		return true
	case <-until:
		return false
	case <-time.After(patience):
		j.c.t.Fatalf("round %d does not end:\n%s\n%s", j.rounds+1, j.errs, j.c.explain())
	}
	panic("not reached")
}

func (j *job) tell(what string) {
	if _, err := io.WriteString(j.in, what+"\n"); err != nil {
		j.c.t.Logf("tell the job %q: %v", what, err)
	}
}

// until lets rounds go by.
func (j *job) until(at time.Time) {
	j.c.t.Helper()
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for j.round(timer.C) {
		j.tell("on")
	}
}

// whole returns when a round has ended that began after the call.
func (j *job) whole() {
	for range 2 {
		j.round(nil)
		j.tell("on")
	}
}

func runCell(t *testing.T, workload string, f fault, seed uint64, of time.Duration) {
	again := fmt.Sprintf("go test ./tests/chaos -run TestChaos -v -chaos.seed %d -chaos.cell '%s/%s' -chaos.for %v", seed, workload, f.name, of)
	t.Logf("again with: %s", again)
	names := []string{"head", "driver", "three", "four"}
	if of == 0 {
		names = names[:3]
	}
	c := newCluster(t, names...)
	c.givesUp = f.givesUp
	j := c.begin(workload, seed)
	j.round(nil) // now it is compiled where it runs
	j.tell("on")
	h := fnv.New64()
	fmt.Fprint(h, workload, f.name)
	rng := rand.New(rand.NewPCG(seed, h.Sum64()))
	plan := f.schedule(c, rng, of)
	t.Logf("what goes wrong:%s", describe(plan))
	start := time.Now()
	for _, b := range plan {
		j.until(start.Add(b.at))
		begun, before := time.Now(), j.rounds
		end := b.begin()
		if b.gone != nil {
			c.eventually(patience, func() error {
				var s status
				if err := c.driver.ask(&s, "status"); err != nil {
					return err
				}
				if k := s.knows(b.gone.name); k == "alive" {
					return fmt.Errorf("node %s was killed, and is %s", b.gone.name, k)
				}
				return nil
			})
			t.Logf("node %s was known to be gone after %v", b.gone.name, time.Since(begun).Round(time.Millisecond))
		}
		j.until(begun.Add(b.lasts))
		during := j.rounds - before
		end()
		c.revive()
		j.whole()
		// The round that was under way is before; the next has begun after the blow.
		t.Logf("%s for %v: the first round that began then ended after %v; %d ended meanwhile", b.what, b.lasts, j.at[before+1].Sub(begun).Round(time.Millisecond), during)
	}
	j.until(start.Add(of))
	j.whole()
	j.finish(f)
	t.Logf("%d rounds in %v", j.rounds, time.Since(start).Round(time.Second))
	if len(j.ops) > 0 {
		linearizable(t, j.ops)
	}
	begun := time.Now()
	c.awaitRest(time.Minute)
	t.Logf("at rest after %v", time.Since(begun).Round(100*time.Millisecond))
	c.end()
}

// finish has the job end after this round, and sees that all was right.
func (j *job) finish(f fault) {
	t := j.c.t
	t.Helper()
	j.round(nil)
	j.tell("end")
	last := ""
	for line := range j.lines {
		last = line
	}
	if err := j.cmd.Wait(); err != nil || !strings.HasPrefix(last, "ended") {
		t.Fatalf("the job ended with %v, %q:\n%s", err, last, j.errs)
	}
	if strings.Contains(last, "lost=") && last != "ended lost=0" && !f.lossy {
		t.Errorf("values were lost where no node was: %s", last)
	}
	t.Log(last)
}
