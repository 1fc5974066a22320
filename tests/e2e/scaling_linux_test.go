package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// groups are those of the test: one that comes and goes; one of which a node is
// always there; one whose nodes do not start.
const groups = `
groups:
  - {name: fast, provider: local, max: 2, cpus: 1, idle: 1s, settle: 100ms, labels: {pool: fast}, resources: {disk-fast: "1"}}
  - {name: kept, provider: local, min: 1, max: 1, cpus: 1, labels: {pool: kept}}
  - {name: broken, provider: local, max: 1, cpus: 1, labels: {pool: broken}, resources: {disk-broken: "1"}, flags: [--no-such-flag]}
`

type groupsOf struct {
	Groups []struct {
		Name                              string
		Wanted, There, Starting, Draining int
		Why                               string
	}
	Nodes []struct{ Name, Status string }
}

// awaitGroups waits until a node's status is as it is to be, and stays.
func awaitGroups(t *testing.T, address, what string, good func(groupsOf) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		r := run(t, "", "status", "--json", "--address", address)
		var g groupsOf
		if r.code == 0 {
			if err := json.Unmarshal([]byte(r.stdout), &g); err != nil {
				t.Fatalf("%v in %q", err, r.stdout)
			}
			if good(g) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not %s: %s%s", address, what, r.stdout, r.stderr)
		}
	}
}

// of reports whether there are so many nodes of a group, and no others on the way
// there or out of it.
func (g groupsOf) of(name string, there int) bool {
	alive := 0
	for _, n := range g.Nodes {
		if strings.HasPrefix(n.Name, name+"-") && n.Status != "dead" {
			alive++
		}
	}
	for _, x := range g.Groups {
		if x.Name == name {
			return alive == there && x.There == there && x.Starting == 0 && x.Draining == 0
		}
	}
	return false
}

// awaitNobody waits until no process has a word in its command line.
func awaitNobody(t *testing.T, word string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var left []string
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range lines {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), word) {
				left = append(left, strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", left)
		}
	}
}

// TestScaling holds that nodes come for what waits, run it, and go; that who asks
// for what no group has is told so; that the head takes with it what it has
// started, however it ends.
func TestScaling(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "groups.yaml")
	if err := os.WriteFile(file, []byte(groups), 0o600); err != nil {
		t.Fatal(err)
	}
	head, at, _ := clusterNode(t, dir, "one", "--head", "--cpus", "1", "--autoscale", file)
	awaitGroups(t, at, "one of kept", func(g groupsOf) bool { return g.of("kept", 1) && g.of("fast", 0) })
	r := run(t, "", "run", "--address", at, "./tests/e2e/testdata/scaled", "fast")
	if !regexp.MustCompile(`^tasks: \[fast-one-0( fast-one-1)?\]\nactor: fast-one-[01]\n$`).MatchString(r.stdout) || r.code != 0 {
		t.Errorf("exit %d, said %s%s", r.code, r.stdout, r.stderr)
	}
	awaitGroups(t, at, "none of fast, when they are idle", func(g groupsOf) bool { return g.of("kept", 1) && g.of("fast", 0) })

	// What a node could hold that does not come waits, and is told why. That it
	// does not wait ten seconds, and fails, is for the scheduler's tests.
	waits := exec.Command(wray, "run", "--address", at, "./tests/e2e/testdata/scaled", "broken")
	waits.Dir = root
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	told := func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			r := run(t, "", "explain", "--address", at)
			if strings.Contains(r.stdout, "a node of group broken could hold it: 0 are there, ") && strings.Contains(r.stdout, " 1 at most; ") &&
				strings.Contains(r.stdout, "tried again") {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("wray explain does not say that a node does not start: %s%s", r.stdout, r.stderr)
				return
			}
		}
	}
	told()
	if err := waits.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = waits.Wait()
	if r := run(t, "", "run", "--address", at, "./tests/e2e/testdata/scaled", "nowhere"); !strings.Contains(r.stdout, "no node could ever hold it") {
		t.Errorf("exit %d, said %s%s", r.code, r.stdout, r.stderr)
	}

	if err := head.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for head.lines.Scan() {
	}
	if err := head.cmd.Wait(); err != nil {
		t.Errorf("the head: %v", err)
	}
	awaitNobody(t, dir)

	// One that is killed.
	head, at, _ = clusterNode(t, dir, "one", "--head", "--cpus", "1", "--autoscale", file)
	awaitGroups(t, at, "one of kept", func(g groupsOf) bool { return g.of("kept", 1) })
	if err := head.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitNobody(t, dir)
}

// TestScalingHeads holds that of three heads one scales, and that another goes on
// with what there is when that one is killed.
func TestScalingHeads(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "groups.yaml")
	if err := os.WriteFile(file, []byte("groups: [{name: kept, provider: local, min: 1, max: 2, cpus: 1, labels: {pool: kept}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	head := func(name string, args ...string) (*process, string) {
		p, at, _ := clusterNode(t, dir, name, append([]string{"--head", "--no-token", "--cpus", "1", "--autoscale", file}, args...)...)
		return p, at
	}
	one, atOne := head("one")
	// It leads, as it is alone.
	awaitGroups(t, atOne, "a node", func(g groupsOf) bool { return g.of("kept", 1) })
	token, addr := tokenOf(t, atOne, "--head", "--uses", "2")
	t.Setenv("WRAY_JOIN_TOKEN", token)
	_, atTwo := head("two", "--address", addr)
	_, atThree := head("three", "--address", addr)
	os.Unsetenv("WRAY_JOIN_TOKEN")
	awaitVotes(t, atTwo, "one", "two", "three")
	for _, at := range []string{atTwo, atThree} {
		awaitGroups(t, at, "told of one node, and no other", func(g groupsOf) bool { return g.of("kept", 1) })
	}
	if err := one.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{atTwo, atThree} {
		awaitGroups(t, at, "a node of another head", func(g groupsOf) bool {
			for _, n := range g.Nodes {
				if n.Status == "alive" && (strings.HasPrefix(n.Name, "kept-two-") || strings.HasPrefix(n.Name, "kept-three-")) {
					return g.of("kept", 1)
				}
			}
			return false
		})
	}
}
