//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tokenOf has a head make a token, and returns it and the head's address.
func tokenOf(t *testing.T, address string, args ...string) (token, addr string) {
	t.Helper()
	r := run(t, "", append([]string{"node", "token", "--json", "--address", address}, args...)...)
	var out struct{ Token, Address string }
	if err := json.Unmarshal([]byte(r.stdout), &out); r.code != 0 || err != nil {
		t.Fatalf("wray node token: %d, %v, %s%s", r.code, err, r.stdout, r.stderr)
	}
	return out.Token, out.Address
}

// awaitVotes waits until these heads have a vote.
func awaitVotes(t *testing.T, address string, names ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		voting := map[string]bool{}
		c := statusAt(t, address)
		for _, n := range c.Nodes {
			voting[n.Name] = n.Head && !n.Learner && n.Status == "alive"
		}
		all := true
		for _, name := range names {
			all = all && voting[name]
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("heads %v, as %s knows: %+v", names, address, c)
		}
	}
}

// awaitWrite waits until a head can write control state, and returns how long
// that took.
func awaitWrite(t *testing.T, address string) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		r := run(t, "", "node", "token", "--address", address)
		if r.code == 0 {
			return time.Since(begun)
		}
		if time.Since(begun) > patience {
			t.Fatalf("no token of %s: %s", address, r.stderr)
		}
	}
}

// TestHeads has three heads keep the control state, kills the first, and takes
// one after the other away until one is left.
func TestHeads(t *testing.T) {
	dir := t.TempDir()
	one, atOne, said := clusterNode(t, dir, "one", "--head", "--no-token", "--cpus", "1")
	if strings.Contains(said, "WRAY_JOIN_TOKEN") {
		t.Errorf("a head with --no-token printed one: %s", said)
	}
	if r := run(t, "", "status", "--ready", "--address", atOne); r.code != 0 || r.stdout != "" {
		t.Errorf("wray status --ready: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	plain, addr := tokenOf(t, atOne, "--uses", "2")
	t.Setenv("WRAY_JOIN_TOKEN", plain)
	_, atWorker, _ := clusterNode(t, dir, "worker", "--address", addr, "--cpus", "1")
	// A token for nodes makes no heads, and no authority is given away.
	late := run(t, "", "start", "--head", "--name", "late", "--cluster-dir", filepath.Join(dir, "late"), "--address", addr,
		"--listen", "127.0.0.1:0", "--socket", filepath.Join(dir, "late.sock"))
	if late.code == 0 || !strings.Contains(late.stderr, "may not be a head") || !strings.Contains(late.stderr, "hint: ") {
		t.Errorf("a head with a token for nodes: %d, %s", late.code, late.stderr)
	}
	forHeads, _ := tokenOf(t, atOne, "--head", "--uses", "2")
	t.Setenv("WRAY_JOIN_TOKEN", forHeads)
	_, atTwo, _ := clusterNode(t, dir, "two", "--head", "--address", addr, "--cpus", "1")
	three, atThree, _ := clusterNode(t, dir, "three", "--head", "--address", addr, "--cpus", "1")
	os.Unsetenv("WRAY_JOIN_TOKEN")
	awaitVotes(t, atTwo, "one", "two", "three")
	for name, want := range map[string]bool{"one": true, "two": true, "three": true, "worker": false, "late": false} {
		info, err := os.Stat(filepath.Join(dir, name, "authority.pem"))
		if (err == nil) != want || err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("the authority of %s: %v, %v", name, info, err)
		}
	}

	if r := run(t, "", "node", "rekey", "--address", atTwo); r.code != 0 {
		t.Errorf("wray node rekey: %d, %s", r.code, r.stderr)
	}
	// The first is killed. The others go on: they write, and run programs.
	if err := one.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{atTwo, atThree} {
		t.Logf("%s writes control state again after %v", at, awaitWrite(t, at))
	}
	before := statusAt(t, atWorker).Tasks.Finished
	for deadline := time.Now().Add(patience); statusAt(t, atWorker).Tasks.Finished == before; {
		if r := run(t, "", "run", "--address", atTwo, "./examples/gridsearch"); r.code != 0 || !strings.Contains(r.stdout, "best: x=0 y=0 score=0") {
			t.Fatalf("a program after a head was killed: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		if time.Now().After(deadline) {
			t.Fatal("the worker was given nothing")
		}
	}
	awaitStatus(t, atThree, "one", "dead")
	awaitStatus(t, atWorker, "one", "dead")
	// It is back, at another address, with the state that the others kept.
	one, atOne, _ = clusterNode(t, dir, "one", "--head", "--cpus", "1")
	awaitVotes(t, atOne, "one", "two", "three")
	awaitStatus(t, atOne, "worker", "alive")

	// One that is gone for good is removed, then one is drained: then there is one.
	if err := three.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitWrite(t, atTwo)
	if r := run(t, "", "node", "remove", "three", "--address", atWorker); r.code == 0 || !strings.Contains(r.stderr, "no head") {
		t.Errorf("a node that is no head removes one: %d, %s", r.code, r.stderr)
	}
	if r := retry(t, "node", "remove", "three", "--address", atTwo); r.stdout != "node three was removed\n" {
		t.Errorf("wray node remove: %s", r.stdout)
	}
	if r := retry(t, "node", "drain", "one", "--address", atTwo); r.stdout != "node one has left\n" {
		t.Errorf("wray node drain: %s", r.stdout)
	}
	awaitWrite(t, atTwo)
	for one.lines.Scan() {
	}
	if err := one.cmd.Wait(); err != nil {
		t.Errorf("the head that was drained: %v: %s", err, one.errs.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "one", "authority.pem")); err == nil {
		t.Error("a head that was drained kept the authority")
	}
	if r := run(t, "", "node", "drain", "two", "--address", atTwo); r.code == 0 || !strings.Contains(r.stderr, "the only head") {
		t.Errorf("the only head is drained: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// What was removed is not let in again by what it kept.
	back := run(t, "", "start", "--head", "--name", "three", "--cluster-dir", filepath.Join(dir, "three"),
		"--listen", "127.0.0.1:0", "--socket", filepath.Join(dir, "three.sock"))
	if back.code == 0 {
		t.Errorf("a head that was removed is back: %s", back.stdout)
	}
}

// retry runs a command until it succeeds: heads refuse changes of who they are
// for some seconds after the last.
func retry(t *testing.T, args ...string) result {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r := run(t, "", args...)
		if r.code == 0 {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("wray %v: %d, %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
}

// TestOnlyHead kills the only head: the others run on, and are there when it is
// back.
func TestOnlyHead(t *testing.T) {
	dir := t.TempDir()
	one, atOne, _ := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	token, addr := tokenOf(t, atOne, "--uses", "2")
	t.Setenv("WRAY_JOIN_TOKEN", token)
	_, atTwo, _ := clusterNode(t, dir, "two", "--address", addr, "--cpus", "1")
	_, atThree, _ := clusterNode(t, dir, "three", "--address", addr, "--cpus", "1")
	os.Unsetenv("WRAY_JOIN_TOKEN")
	awaitStatus(t, atTwo, "three", "alive")
	awaitStatus(t, atThree, "two", "alive")
	began := map[string]int{}
	for _, n := range statusAt(t, atTwo).Nodes {
		began[n.Name] = n.Incarnation
	}
	if err := one.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, atTwo, "one", "unreachable")
	// The two go on to share work, and nobody is called dead.
	before := statusAt(t, atThree).Tasks.Finished
	for deadline := time.Now().Add(patience); statusAt(t, atThree).Tasks.Finished == before; {
		if r := run(t, "", "run", "--address", atTwo, "./examples/gridsearch"); r.code != 0 || !strings.Contains(r.stdout, "best: x=0 y=0 score=0") {
			t.Fatalf("a program without a head: %d, %s%s", r.code, r.stdout, r.stderr)
		}
		if time.Now().After(deadline) {
			t.Fatal("node three was given nothing")
		}
	}
	_, atOne, _ = clusterNode(t, dir, "one", "--head", "--listen", addr, "--cpus", "1")
	for _, name := range []string{"two", "three"} {
		c := awaitStatus(t, atOne, name, "alive")
		for _, n := range c.Nodes {
			if n.Name == name && n.Incarnation != began[name] {
				t.Errorf("node %s began anew", name)
			}
		}
	}
	awaitStatus(t, atTwo, "one", "alive")
}

// TestPlainStart has a node that has joined be back by wray start alone, where
// it listened, and stay away with --alone.
func TestPlainStart(t *testing.T) {
	dir := t.TempDir()
	_, atHead, _ := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	token, addr := tokenOf(t, atHead)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("WRAY_JOIN_TOKEN", token)
	socket := filepath.Join(dir, "plain.sock")
	start := func(want string, args ...string) (p *process, said string) {
		t.Helper()
		p = begin(t, "wray: ", wray, append([]string{"start", "--socket", socket}, args...)...)
		said = p.lines.Text()
		if !strings.Contains(said, want) {
			t.Fatalf("wray start %v says %q, want %q: %s", args, said, want, p.errs.String())
		}
		for !strings.Contains(p.lines.Text(), "listens at unix://") && p.lines.Scan() {
		}
		return p, said
	}
	kill := func(p *process) {
		t.Helper()
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
	}
	p, _ := start("is in the cluster", "--address", addr, "--listen", "127.0.0.2:0")
	kill(p)
	os.Unsetenv("WRAY_JOIN_TOKEN")
	p, said := start("is in the cluster")
	if !strings.Contains(said, "at 127.0.0.2:") {
		t.Errorf("the node is back elsewhere: %s", said)
	}
	kill(p)
	p, _ = start("a node listens at unix://", "--alone")
	if c := statusAt(t, "unix://"+socket); c.Cluster != "" {
		t.Errorf("a node that is to be alone knows %+v", c)
	}
	kill(p)
	// Where it has joined none, a place to listen is no reason to be alone in
	// silence.
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "other"))
	if r := run(t, "", "start", "--socket", socket, "--listen", "127.0.0.2:0"); r.code == 0 || !strings.Contains(r.stderr, "has joined no cluster") {
		t.Errorf("--listen alone: %d, %s%s", r.code, r.stdout, r.stderr)
	}
}
