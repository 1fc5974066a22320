package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/tests/random/program"
)

// How long a program may take. They bound a test that has failed, and are far
// beyond what a program takes.
const (
	hung      = time.Minute
	hungSmall = 10 * time.Second // one of few steps
)

// errStuck is that of a job which does not end when it is told to.
var errStuck = errors.New("the job does not end")

// compiled is a guest whose code is in a cache that all workers of a test use.
type compiled struct {
	module ModuleSpec
	cache  string
}

// guests are those that some test has compiled, for all tests.
var guests struct {
	sync.Mutex
	dir    string
	byName map[string]compiled
}

func TestMain(m *testing.M) {
	code := m.Run()
	if guests.dir != "" {
		os.RemoveAll(guests.dir)
	}
	os.Exit(code)
}

// compileGuest builds and compiles a guest once for many workers.
func compileGuest(t testing.TB, name string) compiled {
	t.Helper()
	guests.Lock()
	defer guests.Unlock()
	if c, ok := guests.byName[name]; ok {
		return c
	}
	if guests.dir == "" {
		dir, err := os.MkdirTemp("", "wray-guests")
		if err != nil {
			t.Fatal(err)
		}
		guests.dir, guests.byName = dir, map[string]compiled{}
	}
	wasm, out := goModule(t, name), filepath.Join(guests.dir, strconv.Itoa(len(guests.byName)))
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	compile := exec.Command("go", "test", "-count=1", "./testdata/compile", "-module", wasm, "-into", out)
	compile.Env = append(os.Environ(), "CGO_ENABLED=0") // without the race detector
	if msg, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("go test ./testdata/compile: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(filepath.Join(out, sandbox.ArtifactFile))
	if err != nil {
		t.Fatal(err)
	}
	a, err := sandbox.DecodeArtifact(b)
	if err != nil {
		t.Fatal(err)
	}
	c := compiled{module: ModuleSpec{Name: filepath.Base(name), Artifact: a}, cache: filepath.Join(out, sandbox.NativeDir)}
	entries, err := filepath.Glob(filepath.Join(c.cache, "*", "*"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("compiled code: %v, %v", entries, err)
	}
	c.module.Native = entries[0]
	guests.byName[name] = c
	return c
}

// player is a job that runs the random programs it is given.
type player struct {
	w      *Worker
	in     *os.File      // its standard input
	out    *bufio.Reader // its standard output
	said   *io.PipeWriter
	cancel context.CancelFunc
	ended  chan error
	err    error // how it ended
	over   bool

	roomy    bool                                    // the store is never short of room
	alsoLeft func() error                            // says what is left elsewhere; may be nil
	check    func(want, got []program.Outcome) error // in place of program.Check, where it is set
}

// play starts the guest of tests/random. Stop it.
func play(t *testing.T, w *Worker, guest compiled, args ...string) *player {
	t.Helper()
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := newInput(r)
	if err != nil {
		t.Fatal(err)
	}
	out, said := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	p := &player{w: w, in: in, out: bufio.NewReader(out), said: said, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		code, err := w.Run(ctx, JobSpec{Name: "random", Args: args, Stdin: stdin, Modules: []ModuleSpec{guest.module},
			Output: func(_ string, _ Stream, b []byte) { _, _ = said.Write(b) }})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit %d", code)
		}
		said.CloseWithError(fmt.Errorf("the job ended: %w", errors.Join(err, io.EOF)))
		stdin.Close()
		r.Close()
		p.ended <- err
	}()
	return p
}

// stop ends the job, and returns how it ended.
func (p *player) stop() error {
	if p.over {
		return p.err
	}
	p.over = true
	p.in.Close()
	bounded(hung, func() {
		p.cancel()
		p.said.CloseWithError(context.DeadlineExceeded)
	}, func() { _, _ = io.Copy(io.Discard, p.out) })
	select {
	case p.err = <-p.ended:
	case <-time.After(hungSmall):
		p.err = fmt.Errorf("%w\n%s", errStuck, goroutines())
	}
	p.cancel()
	return p.err
}

// bounded runs f, and when that takes longer than d, late beside it.
func bounded(d time.Duration, late, f func()) {
	timer := time.AfterFunc(d, late)
	defer timer.Stop()
	f()
}

// goroutines lists what the process does.
func goroutines() string {
	var b strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return err.Error()
	}
	return b.String()
}

// run runs a program, compares what it gave with the model, and looks whether
// anything is left of it.
func (p *player) run(ops []program.Op, patience time.Duration) (err error) {
	late := time.AfterFunc(patience, func() {
		p.said.CloseWithError(fmt.Errorf("nothing for %v; the worker does\n%s", patience, goroutines()))
		p.cancel()
	})
	defer late.Stop()
	plan, want := program.Model(ops)
	b, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	var got []program.Outcome
	if err := json.Unmarshal(line, &got); err != nil {
		return fmt.Errorf("it said %q", line)
	}
	check := program.Check
	if p.check != nil {
		check = p.check
	}
	if err := check(want, got); err != nil {
		return err
	}
	// What the guest has dropped is given back while it runs on, and what was
	// canceled ends when it gets to it.
	for begun, next := time.Now(), "again\n"; next == "again\n"; {
		if line, err := p.out.ReadString('\n'); err != nil || line != "dropped\n" {
			return fmt.Errorf("it said %q, %w", line, err)
		}
		left := p.left()
		if left == nil && p.alsoLeft != nil {
			left = p.alsoLeft()
		}
		if left == nil || time.Since(begun) > patience/2 {
			next, err = "next\n", left
		} else if !p.roomy {
			// Actors at rest that have forgotten each other let go when they sleep, or
			// as here when the store has no room.
			p.w.onPressure(0)
		}
		if _, err := io.WriteString(p.in, next); err != nil {
			return err
		}
	}
	return err
}

// left says what is left of a program.
func (p *player) left() error {
	s := p.w.Stats()
	// The guest may have the result that it waited for last.
	if s.Store.Objects <= 1 && s.Resident == 0 && s.Asleep == 0 {
		return nil
	}
	err := fmt.Errorf("left behind: store %+v, %d actors with a sandbox and %d without", s.Store, s.Resident, s.Asleep)
	for _, o := range p.w.Memory(clientwire.MemoryBody{}).Objects {
		err = fmt.Errorf("%w\n%+v", err, o)
	}
	return err
}
