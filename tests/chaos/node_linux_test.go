package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take that no bound is given for.
const patience = 3 * time.Minute

// node is a process on a host, which is started again where it was.
type node struct {
	c       *cluster
	name    string
	host    *host
	args    []string
	env     []string
	address string // of its socket

	cmd   *exec.Cmd // nil when it does not run
	ended chan struct{}
	said  *said // of all its processes
}

// said is what processes print, for who reads it while they do.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start starts the node and waits until it listens.
func (n *node) start() {
	n.c.t.Helper()
	cmd := n.host.command(wray, append([]string{"start", "--name", n.name, "--listen", n.host.addr + ":7420", "--cpus", "2",
		"--cluster-dir", filepath.Join(n.c.dir, n.name), "--spill-dir", filepath.Join(n.c.dir, n.name+".spill"),
		"--object-store-memory", storeSize, "--socket", strings.TrimPrefix(n.address, "unix://")}, n.args...)...)
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stderr = n.said
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.c.t.Fatal(err)
	}
	listens, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		heard := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(n.said, lines.Text())
			if !heard && strings.Contains(lines.Text(), "listens at unix://") {
				heard = true
				close(listens)
			}
		}
		if err := cmd.Wait(); err != nil {
			fmt.Fprintln(n.said, "it ended:", err)
		}
	}()
	n.cmd, n.ended = cmd, ended
	select {
	case <-listens:
	case <-ended:
		n.c.t.Fatalf("node %s ended as it began:\n%s", n.name, n.said)
	case <-time.After(patience):
		n.c.t.Fatalf("node %s does not listen:\n%s", n.name, n.said)
	}
}

// storeSize is what each node has for objects: little, so that some spill.
var storeSize = "256MiB"

// stop has the node end by a signal, and waits for that.
func (n *node) stop(sig syscall.Signal) {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(sig)
	select {
	case <-n.ended:
	case <-time.After(patience):
		_ = n.cmd.Process.Kill()
		<-n.ended
		n.c.t.Errorf("node %s did not end by %v within %v:\n%s", n.name, sig, patience, n.said)
	}
	n.cmd = nil
}

// runs reports whether the process is there.
func (n *node) runs() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// worker returns the process of the node's worker, or 0.
func (n *node) worker() int {
	for _, pid := range ours() {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(n.cmd.Process.Pid) && bytes.Contains(line, []byte("worker-process")) {
			return pid
		}
	}
	return 0
}

// ours returns all processes of the wray that is tested.
func ours() (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && exe == wray {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// status is what a node says of its cluster and itself, as far as it is read.
type status struct {
	Tasks struct{ Running, Waiting, Retried, Finished int }
	Nodes []struct {
		Name, Status, Why string
		Incarnation       int
		CPU, Memory       int64
		Free              *struct{ CPU, Memory int64 }
	}
	Waits *struct {
		Tasks, Actors []json.RawMessage
	}
}

// knows returns what the node thinks of another: alive, unreachable, dead.
func (s status) knows(name string) string {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n.Status
		}
	}
	return "unknown"
}

// ask runs a command of wray that asks the node, and reads its JSON.
func (n *node) ask(into any, args ...string) error {
	out, err := exec.Command(wray, append(args, "--json", "--address", n.address)...).Output()
	if err != nil {
		if e := (*exec.ExitError)(nil); asExit(err, &e) {
			err = fmt.Errorf("%w: %s", err, e.Stderr)
		}
		return fmt.Errorf("wray %s at %s: %w", strings.Join(args, " "), n.name, err)
	}
	return json.Unmarshal(out, into)
}

func asExit(err error, e **exec.ExitError) (ok bool) {
	*e, ok = err.(*exec.ExitError)
	return ok
}

// cluster is a head, the node of the driver, and others.
type cluster struct {
	t      testing.TB
	dir    string
	net    *network
	nodes  []*node
	head   *node
	driver *node
	others []*node

	givesUp bool // nodes may be called dead that live, and end when they hear it
}

// revive starts nodes again that were called dead, as whoever keeps a node running
// does. No other node ends by itself.
func (c *cluster) revive() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.cmd == nil || n.runs() {
			continue
		}
		said := n.said.String()
		if said = said[strings.LastIndex(said, "listens at"):]; !c.givesUp || !strings.Contains(said, "the cluster has given this node up") {
			c.t.Errorf("node %s has ended by itself:\n%s", n.name, said)
		} else {
			c.t.Logf("node %s was called dead, has ended, and is started again", n.name)
		}
		n.start()
	}
}

// newCluster starts one, which ends with the test.
func newCluster(t testing.TB, names ...string) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos") // short, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cluster{t: t, dir: dir, net: newNetwork(t)}
	t.Cleanup(func() {
		for _, n := range slices.Backward(c.nodes) {
			if n.cmd != nil {
				_ = n.cmd.Process.Kill()
				<-n.ended
			}
			if t.Failed() {
				t.Logf("node %s said:\n%s", n.name, n.said)
			}
		}
	})
	for i, name := range names {
		n := &node{c: c, name: name, host: c.net.host(), address: "unix://" + filepath.Join(dir, name+".sock"), said: &said{}}
		c.nodes = append(c.nodes, n)
		switch i {
		case 0:
			c.head = n
			n.args = []string{"--head", "--no-token"}
			n.start()
			continue
		case 1:
			c.driver = n
			n.args = []string{"--state", filepath.Join(dir, "state")}
		default:
			c.others = append(c.others, n)
		}
		n.args = append(n.args, "--address", c.head.host.addr+":7420")
		n.env = []string{"WRAY_JOIN_TOKEN=" + c.token()}
		n.start()
		n.env = nil
	}
	for _, n := range c.nodes {
		c.awaitAll(n)
	}
	return c
}

// token has the head make one.
func (c *cluster) token() string {
	c.t.Helper()
	var out struct{ Token string }
	c.eventually(patience, func() error { return c.head.ask(&out, "node", "token") })
	return out.Token
}

// eventually waits until f has no objection.
func (c *cluster) eventually(within time.Duration, f func() error) {
	c.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v: %v\n%s", within, err, c.explain())
		}
	}
}

// awaitAll waits until a node knows all to be alive.
func (c *cluster) awaitAll(at *node) {
	c.t.Helper()
	c.eventually(patience, func() error {
		c.revive() // one may hear late that it is dead
		var s status
		if err := at.ask(&s, "status"); err != nil {
			return err
		}
		for _, n := range c.nodes {
			if k := s.knows(n.name); k != "alive" {
				return fmt.Errorf("to %s, node %s is %s", at.name, n.name, k)
			}
		}
		return nil
	})
}

// explain is what all nodes say of themselves, for who reads of a failure.
func (c *cluster) explain() string {
	var b strings.Builder
	for _, n := range c.nodes {
		if !n.runs() {
			fmt.Fprintf(&b, "--- %s does not run\n", n.name)
			continue
		}
		for _, verb := range []string{"status", "explain", "memory"} {
			out, err := exec.Command("timeout", "20", wray, verb, "--address", n.address).CombinedOutput()
			if len(out) > 8<<10 {
				out = out[:8<<10]
			}
			fmt.Fprintf(&b, "--- %s: wray %s: %v\n%s", n.name, verb, err, out)
		}
	}
	return b.String()
}

// awaitRest waits until all nodes are alive to all, have all that they offer
// free, and hold nothing.
func (c *cluster) awaitRest(within time.Duration) {
	c.t.Helper()
	for _, n := range c.nodes {
		c.awaitAll(n)
	}
	c.eventually(within, func() error {
		for _, at := range c.nodes {
			var s status
			if err := at.ask(&s, "status"); err != nil {
				return err
			}
			for _, n := range s.Nodes {
				if n.Name == at.name && n.Status == "alive" && n.Free != nil && (n.Free.CPU != n.CPU || n.Free.Memory != n.Memory) {
					return fmt.Errorf("of node %s are free %d of %d CPU, %d of %d bytes", n.Name, n.Free.CPU, n.CPU, n.Free.Memory, n.Memory)
				}
			}
			if s.Tasks.Running+s.Tasks.Waiting > 0 || s.Waits != nil && len(s.Waits.Tasks)+len(s.Waits.Actors) > 0 {
				return fmt.Errorf("node %s has tasks: %+v", at.name, s)
			}
			var m struct {
				Objects []json.RawMessage
				Actors  []json.RawMessage
				Used    int64
			}
			if err := at.ask(&m, "memory"); err != nil {
				return err
			}
			if len(m.Objects)+len(m.Actors) > 0 {
				return fmt.Errorf("node %s holds %s %s", at.name, m.Objects, m.Actors)
			}
		}
		return nil
	})
}

// end stops all nodes, and sees that nothing is left of them.
func (c *cluster) end() {
	c.t.Helper()
	for _, n := range slices.Backward(c.nodes) {
		n.stop(syscall.SIGINT)
	}
	c.eventually(patience, func() error {
		if left := ours(); len(left) > 0 {
			return fmt.Errorf("processes %v are left", left)
		}
		return nil
	})
	spilled, _ := filepath.Glob(filepath.Join(c.dir, "*.spill", "*"))
	for _, path := range spilled {
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Size() > 0 {
			c.t.Errorf("%s is left, of %d bytes", path, info.Size())
		}
	}
}
