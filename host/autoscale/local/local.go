// Package local is the provider of nodes that are processes on this machine, for
// tests and laptops. They belong to the process that started them: they end when
// it closes the provider, and, on Linux, when it dies.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wray-project/wray/host/autoscale/plan"
	"github.com/wray-project/wray/host/cluster"
	"github.com/wray-project/wray/internal/fd"
)

// Config says how nodes are started.
type Config struct {
	// Prefix is what names begin with; a dash and a number follow.
	Prefix string
	// Dir keeps a directory for each node while it is there. What it holds at first
	// is removed: another process has left it. What a node has that is yet there,
	// as the other was killed and it drains, stays, and its name is not used.
	Dir string
	// Command starts the node of a name, with what it keeps in a directory, and
	// lets it join. It may fail.
	Command func(ctx context.Context, name, dir string) (*exec.Cmd, error)
	// Drain is how long a node has to go by itself once it is told to.
	Drain time.Duration
	Log   *slog.Logger // nil drops what it says
}

// leaveLimit is how long a node has that is told to leave at once.
const leaveLimit = 15 * time.Second

// tailBytes is how much of what a node has printed last is told when it fails.
const tailBytes = 2000

// Provider starts and ends processes. It is an autoscale.Provider.
type Provider struct {
	cfg   Config
	start chan starting // to the goroutine that starts all
	wg    sync.WaitGroup

	mu     sync.Mutex
	procs  map[string]*process // guarded by mu
	closed bool                // guarded by mu
	once   sync.Once
}

type process struct {
	name    string
	dir     string
	cmd     *exec.Cmd
	log     *os.File
	ended   chan struct{}
	stopped time.Time // when it was told to go; zero: it was not. Guarded by Provider.mu
}

type starting struct {
	cmd *exec.Cmd
	err chan error
}

// New returns a Provider. Close it.
func New(cfg Config) (*Provider, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cluster.CheckName(cfg.Prefix + "-99999"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := sweep(cfg.Dir); err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, start: make(chan starting), procs: map[string]*process{}}
	p.wg.Go(func() { spawn(p.start) })
	return p, nil
}

// logFile is in the directory of each node what it prints. The node has it open as
// long as it runs, and with that the lock which was taken for it: so who starts
// anew sees which nodes of another process are there yet.
const logFile = "node.log"

// held reports whether a node runs that has its directory at dir.
func held(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, logFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	switch err := fd.TryLock(f); {
	case errors.Is(err, fd.ErrLocked):
		return true, nil
	case err == nil, errors.Is(err, errors.ErrUnsupported):
		return false, nil
	default:
		return false, err
	}
}

// sweep removes what is in dir of nodes that do not run, and returns how many do.
func sweep(dir string) (running int, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		h, err := held(at)
		if err == nil && !h {
			err = os.RemoveAll(at)
		}
		if err != nil {
			return 0, fmt.Errorf("remove what was left there: %w", err)
		}
		if h {
			running++
		}
	}
	return running, nil
}

// List implements autoscale.Provider.
func (p *Provider) List(context.Context) ([]plan.Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []plan.Instance
	for name := range p.procs {
		list = append(list, plan.Instance{Name: name})
	}
	return list, nil
}

// Start implements autoscale.Provider.
func (p *Provider) Start(ctx context.Context, n int) error {
	for range n {
		if err := p.startOne(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) startOne(ctx context.Context) (err error) {
	p.mu.Lock()
	name := ""
	for i := 0; ; i++ { // names are used again, so that the cluster remembers few that are dead
		name = fmt.Sprintf("%s-%d", p.cfg.Prefix, i)
		if p.procs[name] != nil {
			continue
		}
		var h bool
		if h, err = held(filepath.Join(p.cfg.Dir, name)); err != nil || !h {
			break
		}
	}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return errors.New("the provider is closed")
	}
	if err != nil {
		return err
	}
	x := &process{name: name, dir: filepath.Join(p.cfg.Dir, name), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			if x.log != nil {
				x.log.Close()
			}
			os.RemoveAll(x.dir)
		}
	}()
	if err := os.RemoveAll(x.dir); err != nil { // of one that has ended since New
		return err
	}
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	if x.log, err = os.OpenFile(filepath.Join(x.dir, logFile), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	if err := fd.TryLock(x.log); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if x.cmd, err = p.cfg.Command(ctx, name, x.dir); err != nil {
		return err
	}
	x.cmd.Stdout, x.cmd.Stderr = x.log, x.log
	own(x.cmd)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("the provider is closed")
	}
	s := starting{x.cmd, make(chan error, 1)}
	p.start <- s
	if err := <-s.err; err != nil {
		return err
	}
	p.procs[name] = x
	p.wg.Go(func() { p.await(x) })
	return nil
}

// await waits for the end of a process, and forgets it.
func (p *Provider) await(x *process) {
	err := x.cmd.Wait()
	p.mu.Lock()
	told := !x.stopped.IsZero()
	p.mu.Unlock()
	if err != nil || !told {
		p.cfg.Log.Warn("autoscaling: a node has ended", "node", x.name, "how", x.cmd.ProcessState, "said", tail(x.log))
	}
	x.log.Close()
	if err := os.RemoveAll(x.dir); err != nil {
		p.cfg.Log.Warn("autoscaling: what a node has left cannot be removed", "node", x.name, "error", err)
	}
	p.mu.Lock()
	delete(p.procs, x.name)
	p.mu.Unlock()
	close(x.ended)
}

// tail is what a file ends with.
func tail(f *os.File) string {
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(st.Size(), tailBytes))
	n, _ := f.ReadAt(b, st.Size()-int64(len(b)))
	return strings.TrimSpace(string(b[:n]))
}

// Stop implements autoscale.Provider. A process that was told before, and has
// not gone in its time, is killed.
func (p *Provider) Stop(_ context.Context, names []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, name := range names {
		x := p.procs[name]
		switch {
		case x == nil:
		case x.stopped.IsZero():
			x.stopped = time.Now()
			err = errors.Join(err, terminate(x.cmd.Process))
		case time.Since(x.stopped) > p.cfg.Drain:
			err = errors.Join(err, kill(x.cmd.Process))
		}
	}
	return err
}

// Close implements autoscale.Provider.
func (p *Provider) Close(drain bool) error {
	p.mu.Lock()
	p.closed = true
	list := make([]*process, 0, len(p.procs))
	var err error
	for _, x := range p.procs {
		list = append(list, x)
		switch {
		case drain && x.stopped.IsZero():
			err = errors.Join(err, terminate(x.cmd.Process))
		case !drain:
			err = errors.Join(err, interrupt(x.cmd.Process))
		}
		if x.stopped.IsZero() {
			x.stopped = time.Now()
		}
	}
	p.mu.Unlock()
	limit := leaveLimit
	if drain {
		limit = p.cfg.Drain
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	slices.SortFunc(list, func(a, b *process) int { return strings.Compare(a.name, b.name) })
	over := false
	for _, x := range list {
		if !over {
			select {
			case <-x.ended:
				continue
			case <-late.C:
				over = true
			}
		}
		err = errors.Join(err, kill(x.cmd.Process))
		<-x.ended
	}
	p.once.Do(func() { close(p.start) })
	p.wg.Wait()
	running, serr := sweep(p.cfg.Dir)
	if serr == nil && running == 0 {
		serr = os.Remove(p.cfg.Dir)
	}
	if serr != nil && !errors.Is(serr, os.ErrNotExist) {
		err = errors.Join(err, serr)
	}
	return err
}

// kill ends a process that is there.
func kill(p *os.Process) error { return gone(p.Kill()) }

func gone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
