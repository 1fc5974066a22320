//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// clusterOf is what the test reads of wray status --json.
type clusterOf struct {
	Cluster string `json:"cluster"`
	Tasks   struct {
		Running  int `json:"running"`
		Finished int `json:"finished"`
		Retried  int `json:"retried"`
	} `json:"tasks"`
	Nodes []struct {
		Name        string `json:"name"`
		Incarnation int    `json:"incarnation"`
		Status      string `json:"status"`
		Head        bool   `json:"head"`
		Learner     bool   `json:"learner"`
		Why         string `json:"why"`
	} `json:"nodes"`
}

// awaitStatus waits until the node at an address knows another in a status.
func awaitStatus(t *testing.T, address, name, status string) (c clusterOf) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		r := run(t, "", "status", "--json", "--address", address)
		if r.code == 0 {
			c = clusterOf{}
			if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
				t.Fatalf("%v in %q", err, r.stdout)
			}
			for _, n := range c.Nodes {
				if n.Name == name && n.Status == status {
					return c
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s knows %+v, want %s %s; %s", address, c, name, status, r.stderr)
		}
	}
}

// clusterNode starts a node of a cluster whose state is in dir, and waits until
// it listens. It returns what it printed before.
func clusterNode(t *testing.T, dir, name string, args ...string) (p *process, address, said string) {
	t.Helper()
	socket := filepath.Join(dir, name+".sock")
	args = append([]string{"start", "--name", name, "--cluster-dir", filepath.Join(dir, name), "--listen", "127.0.0.1:0", "--socket", socket}, args...)
	p = begin(t, "wray: node "+name, wray, args...)
	said = p.lines.Text() + "\n"
	t.Cleanup(func() {
		p.end() // then nobody writes what it said of itself
		if t.Failed() {
			t.Logf("node %s said: %s", name, p.errs.String())
		}
	})
	for p.lines.Scan() {
		said += p.lines.Text() + "\n"
		if strings.Contains(p.lines.Text(), "listens at unix://") {
			return p, "unix://" + socket, said
		}
	}
	t.Fatalf("node %s ended: %s%s", name, said, p.errs.String())
	panic("not reached")
}

// invited sets the token with which a head said that another node may join, and
// returns the address that it said.
func invited(t *testing.T, said string) (address string) {
	t.Helper()
	m := regexp.MustCompile(`WRAY_JOIN_TOKEN=(\S+) wray start --address (\S+)`).FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("the head does not say how to join: %s", said)
	}
	t.Setenv("WRAY_JOIN_TOKEN", m[1])
	return m[2]
}

// TestCluster starts a head, has a node join as the head says, kills it, starts
// it again, and has it leave.
func TestCluster(t *testing.T) {
	dir := t.TempDir()
	head, atHead, said := clusterNode(t, dir, "one", "--head")
	join := invited(t, said)
	two, atTwo, _ := clusterNode(t, dir, "two", "--address", join)
	c := awaitStatus(t, atTwo, "one", "alive")
	first := c.Nodes[len(c.Nodes)-1].Incarnation
	if len(c.Nodes) != 2 || !c.Nodes[0].Head || c.Nodes[1].Head || c.Cluster == "" {
		t.Errorf("node two knows %+v", c)
	}
	awaitStatus(t, atHead, "two", "alive")

	// The token was for one.
	late := exec.Command(wray, "start", "--name", "late", "--cluster-dir", filepath.Join(dir, "late"), "--address", join,
		"--listen", "127.0.0.1:0", "--socket", filepath.Join(dir, "late.sock"))
	out, err := late.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "token is used up") || !strings.Contains(string(out), "hint: ") {
		t.Errorf("a node with a used token: %v, %s", err, out)
	}
	os.Unsetenv("WRAY_JOIN_TOKEN")
	if r := run(t, "", "node", "token", "--address", atTwo); r.code == 0 || !strings.Contains(r.stderr, "no head") {
		t.Errorf("a token of a node that is no head: %d, %s", r.code, r.stderr)
	}
	if r := run(t, "", "node", "token", "--address", atHead, "--uses", "2", "--valid", "10m"); r.code != 0 || !strings.Contains(r.stdout, "--address "+join) {
		t.Errorf("wray node token: %d, %s%s", r.code, r.stdout, r.stderr)
	}

	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, atHead, "two", "unreachable")
	awaitStatus(t, atHead, "two", "dead")
	two, _, _ = clusterNode(t, dir, "two") // it needs no token, and no address
	if c := awaitStatus(t, atHead, "two", "alive"); c.Nodes[1].Incarnation <= first {
		t.Errorf("node two is back as %+v", c.Nodes[1])
	}
	if err := two.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := two.cmd.Wait(); err != nil {
		t.Errorf("node two, which was interrupted: %v: %s", err, two.errs.String())
	}
	if c := awaitStatus(t, atHead, "two", "dead"); c.Nodes[1].Why != "it left" {
		t.Errorf("why node two is gone: %q", c.Nodes[1].Why)
	}
	if err := head.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := head.cmd.Wait(); err != nil || head.errs.Len() > 0 {
		t.Errorf("the head, which was interrupted: %v: %s", err, head.errs.String())
	}
}

// statusAt is what a node says of its cluster and of itself.
func statusAt(t *testing.T, address string) (c clusterOf) {
	t.Helper()
	r := run(t, "", "status", "--json", "--address", address)
	if err := json.Unmarshal([]byte(r.stdout), &c); r.code != 0 || err != nil {
		t.Fatalf("wray status: %d, %v, %s%s", r.code, err, r.stdout, r.stderr)
	}
	return c
}

// TestClusterTasks runs one program on two nodes of one processor each, and
// kills one of them in the middle of another.
func TestClusterTasks(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	join := invited(t, said)
	two, atTwo, _ := clusterNode(t, dir, "two", "--address", join, "--cpus", "1")
	awaitStatus(t, atOne, "two", "alive")

	const best = "best: x=0 y=0 score=0"
	for _, program := range []struct{ name, want string }{{"gridsearch", best}, {"pi", "pi    3.14"}} {
		// A job that ends before the other node has compiled its module runs at
		// home: so it is run until the other has had some of it.
		before := statusAt(t, atTwo).Tasks.Finished
		for deadline := time.Now().Add(patience); ; {
			r := run(t, "", "run", "--address", atOne, "./examples/"+program.name)
			if r.code != 0 || !strings.Contains(r.stdout, program.want) {
				t.Fatalf("%s on two nodes: %d, %s%s", program.name, r.code, r.stdout, r.stderr)
			}
			if statusAt(t, atTwo).Tasks.Finished > before {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node two was given none of %s", program.name)
			}
		}
	}

	// First the worker of node two is killed, which has no job of its own and so
	// nobody who asks after it; then the node, in the middle of the same.
	for _, victim := range []string{"worker", "node"} {
		ended := make(chan result, 1)
		go func() { ended <- run(t, "", "run", "--address", atOne, "./examples/gridsearch") }()
		for statusAt(t, atTwo).Tasks.Running == 0 {
			select {
			case r := <-ended:
				if victim == "node" && r.code == 0 { // the new worker had still to compile
					go func() { ended <- run(t, "", "run", "--address", atOne, "./examples/gridsearch") }()
					continue
				}
				t.Fatalf("the program ended before node two ran any of it: %d, %s%s", r.code, r.stdout, r.stderr)
			default:
			}
		}
		pid := two.cmd.Process.Pid
		if victim == "worker" {
			pid = workerOf(t, pid)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if r := <-ended; r.code != 0 || !strings.Contains(r.stdout, best) {
			t.Errorf("a program whose second %s was killed: %d, %s%s", victim, r.code, r.stdout, r.stderr)
		}
	}
}

// TestClusterActors spreads actors over nodes of one CPU each, kills the node
// of one, and has it come back on a third, which is drained then.
func TestClusterActors(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	join := invited(t, said)
	two, atTwo, _ := clusterNode(t, dir, "two", "--address", join, "--cpus", "1")
	awaitStatus(t, atOne, "two", "alive")

	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer in.Close()
	p := beginWith(t, r, "before 0 1100", wray, "run", "--address", atOne, "./testdata/roam")
	next := func(want string) {
		t.Helper()
		if !p.lines.Scan() || p.lines.Text() != want {
			t.Fatalf("the program printed %q, not %q; %s", p.lines.Text(), want, p.errs.String())
		}
	}
	next("before 1 2100")
	if n := statusAt(t, atTwo).Tasks.Running; n != 1 {
		t.Errorf("%d tasks run on node two, where an actor is to live", n)
	}
	token, _ := tokenOf(t, atOne)
	t.Setenv("WRAY_JOIN_TOKEN", token)
	_, atThree, _ := clusterNode(t, dir, "three", "--address", join, "--cpus", "1")
	awaitStatus(t, atOne, "three", "alive")
	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, atOne, "two", "dead")
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	next("after 0 1200")
	next("after 1 2100") // from its constructor
	if n := statusAt(t, atThree).Tasks.Running; n != 1 {
		t.Errorf("%d tasks run on node three, where the actor is to be", n)
	}

	// An actor has no end that a drain could wait for: it is given back.
	_, atTwo, _ = clusterNode(t, dir, "two", "--cpus", "1")
	awaitStatus(t, atOne, "two", "alive")
	if r := run(t, "", "node", "drain", "three", "--within", "100ms", "--address", atOne); r.code != 0 || r.stdout != "node three has left\n" {
		t.Errorf("wray node drain: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	next("again 0 1300")
	next("again 1 2100")
	if n := statusAt(t, atTwo).Tasks.Running; n != 1 {
		t.Errorf("%d tasks run on node two, where the actor is to be again", n)
	}
	if _, err := in.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	if p.lines.Scan() {
		t.Errorf("the program printed %q after its end", p.lines.Text())
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the program: %v: %s", err, p.errs.String())
	}
}

// workerOf returns the process of a node's worker.
func workerOf(t *testing.T, node int) int {
	t.Helper()
	var b []byte
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", node))
	for _, path := range threads {
		more, _ := os.ReadFile(path)
		b = append(append(b, ' '), more...)
	}
	for f := range strings.FieldsSeq(string(b)) {
		line, _ := os.ReadFile("/proc/" + f + "/cmdline")
		if strings.Contains(string(line), "worker-process") {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("node %d has no worker among %q", node, b)
	panic("not reached")
}

// TestDrain drains one of two nodes in the middle of a program that runs on
// both, by a command at the head and by a signal.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	join := invited(t, said)
	two, atTwo, _ := clusterNode(t, dir, "two", "--address", join, "--cpus", "1")
	os.Unsetenv("WRAY_JOIN_TOKEN")
	for _, by := range []string{"command", "signal"} {
		awaitStatus(t, atOne, "two", "alive")
		ended := make(chan result, 1)
		begin := func() { ended <- run(t, "", "run", "--address", atOne, "./examples/gridsearch") }
		go begin()
		for statusAt(t, atTwo).Tasks.Running == 0 {
			select {
			case r := <-ended:
				if r.code != 0 {
					t.Fatalf("the program: %d, %s%s", r.code, r.stdout, r.stderr)
				}
				go begin() // node two had still to compile
			default:
			}
		}
		if by == "command" {
			if r := run(t, "", "node", "drain", "one", "--address", atTwo); r.code == 0 || !strings.Contains(r.stderr, "no head") {
				t.Errorf("a node that is no head drains another: %d, %s%s", r.code, r.stdout, r.stderr)
			}
			if r := run(t, "", "node", "drain", "two", "--within", "5m", "--address", atOne); r.code != 0 || r.stdout != "node two has left\n" {
				t.Errorf("wray node drain: %d, %s%s", r.code, r.stdout, r.stderr)
			}
		} else if err := two.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if r := <-ended; r.code != 0 || !strings.Contains(r.stdout, "best: x=0 y=0 score=0") {
			t.Errorf("a program of whose nodes one was drained: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		rest := ""
		for two.lines.Scan() {
			rest += two.lines.Text() + "\n"
		}
		if err := two.cmd.Wait(); err != nil {
			t.Errorf("the node that was drained: %v: %s", err, two.errs.String())
		}
		if !regexp.MustCompile(`[1-9]\d* tasks ended and 0 are run elsewhere, \d+ objects moved and 0 are lost`).MatchString(rest) {
			t.Errorf("the node that was drained says: %s", rest)
		}
		c := awaitStatus(t, atOne, "two", "dead")
		if c.Nodes[1].Why != "it left" || c.Tasks.Retried != 0 {
			t.Errorf("of the node that was drained the head knows: %+v", c)
		}
		if by == "command" {
			two, atTwo, _ = clusterNode(t, dir, "two", "--cpus", "1", "--drain", "5m")
		}
	}
}
