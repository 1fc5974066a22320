//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPlace holds that tasks and actors run on the nodes that they ask for, by
// name and by labels, and that who asks for what no node is fails.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--labels", "zone=west")
	join := invited(t, said)
	clusterNode(t, dir, "two", "--address", join, "--labels", "zone=east,disk=ssd")
	awaitStatus(t, atOne, "two", "alive")
	if r := run(t, "", "status", "--address", atOne); !strings.Contains(r.stdout, " zone=west ") || !strings.Contains(r.stdout, " disk=ssd,zone=east ") {
		t.Errorf("wray status does not show the labels: %s", r.stdout)
	}

	const never = "Unschedulable: no node could ever hold it: one: the task is to run on node %q; two: %s"
	nobody := fmt.Sprintf(never, "nobody", `the task is to run on node "nobody"`)
	want := `on two: two
on one: one
a disk, any: two
no disk: one
zone east or north: two
not zone west: two
by the label that each has: two
rather on two: two
rather on nobody: one
on two in zone west: Unschedulable: no node could ever hold it: one: the task is to run on node "two"; two: its labels are not as wanted: zone=west
on nobody: ` + nobody + `
spread, in zone east: two
spread: true true 2
an actor on two: two
an actor without a disk: one
an actor rather on nobody: two
an actor on nobody: ` + nobody + `
from two, {Zone:west Actor:false}: one
from two, {Zone:east Actor:false}: two
from two, {Zone:west Actor:true}: one
from two, {Zone:east Actor:true}: two
nonsense: BadArgument: Labels: the selector "zone west": after the key one of =, ==, !=, in and notin is wanted
nonsense: BadArgument: OnNode: the name of a node is wanted
nonsense: BadArgument: PreferNode("a\x00b"): a node's name of 3 bytes: at most 256, and no zero byte, are wanted
a method: BadArgument: a method has the options Name, Timeout, Window and CallKey; what its actor has is given when that is made
`
	r := run(t, "", "run", "--address", atOne, "./tests/e2e/testdata/place")
	if r.code != 0 || r.stdout != want {
		t.Errorf("exit %d, said\n%s\nwant\n%s\n%s", r.code, r.stdout, want, r.stderr)
	}
}

// TestPlaceAlone holds that a node alone is a cluster of one, which waits for
// nobody, and that one process is another.
func TestPlaceAlone(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := `on two: Unschedulable: no node could ever hold it: ` + host + `: the task is to run on node "two"`
	if r := run(t, "", "run", "--labels", "zone=west", "./tests/e2e/testdata/place"); !strings.HasPrefix(r.stdout, want) || !strings.Contains(r.stdout, "\nrather on nobody: "+host+"\n") {
		t.Errorf("wray run: exit %d, said %s%s, want %s", r.code, r.stdout, r.stderr, want)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./tests/e2e/testdata/place")
	cmd.Dir = root
	if out, _ := cmd.Output(); !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "\nno disk: \n") {
		t.Errorf("go run: said %s, want %s", out, want)
	}
	for flag, says := range map[string]string{"zone": "no value", "zone=": "0 bytes", "zo ne=a": "letters", "a=1,a=2": "twice", "wray/os=plan9": "the node's own", "a=(b)": "letters"} {
		if r := run(t, "", "start", "--labels", flag); r.code != 2 || !strings.Contains(r.stderr, says) || !strings.Contains(r.stderr, "KEY=VALUE") {
			t.Errorf("--labels %s: exit %d, %s", flag, r.code, r.stderr)
		}
	}
}
