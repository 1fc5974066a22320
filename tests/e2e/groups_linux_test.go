package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

const groupsSaid = `a task in it: 25 <nil>
in any of its bundles: 36 <nil>
by its name, and through another task: 49 <nil>
of no such name: GroupRemoved
of a name that is taken: BadArgument
the one that has it: 64 <nil>
an actor in it: 3 <nil>
what ran in it: GroupRemoved
what waited for it: GroupRemoved
its actor: GroupRemoved
after it was removed: GroupRemoved
removed twice: <nil>
apart, on one node: Unschedulable
a task in that: Unschedulable
nonsense: BadArgument: a placement group of 0 bundles: from 1 to 1024 are wanted
nonsense: BadArgument: bundle 0: it sets nothing aside
nonsense: BadArgument: a placement group has the options Pack, Spread, StrictPack, StrictSpread, Name, GetIfExists and Detached
nonsense: BadArgument: a placement group has one strategy: strict pack and Spread are two
nonsense: task square: BadArgument: InGroup: the zero Group is no placement group
nonsense: task square: BadArgument: InGroup: bundle -2: a number from 0 on, or AnyBundle, is wanted
nonsense: task square: BadArgument: CaptureTasks goes with InGroup
nonsense: task square: BadArgument: InGroup does not go with Spread, OnNode, PreferNode and Labels: where the task runs was said when the group was made
nonsense: task square: BadArgument: strict pack is an option of placement groups
`

// TestGroups holds that a program with placement groups says the same in
// sandboxes of one node and in one process.
func TestGroups(t *testing.T) {
	if r := run(t, "", "run", "--cpus", "3", "./tests/e2e/testdata/groups"); r.code != 0 || r.stdout != groupsSaid {
		t.Errorf("wray run: exit %d, said\n%s\nwant\n%s\n%s", r.code, r.stdout, groupsSaid, r.stderr)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./tests/e2e/testdata/groups")
	cmd.Dir = root
	if out, err := cmd.Output(); err != nil || string(out) != groupsSaid {
		t.Errorf("go run: %v, said\n%s\nwant\n%s", err, out, groupsSaid)
	}
}

// TestGroupsShown holds that a node says of a group where its bundles are, and of
// one that waits, why.
func TestGroupsShown(t *testing.T) {
	dir := t.TempDir()
	_, at, _ := clusterNode(t, dir, "one", "--head", "--cpus", "2")
	p := beginWith(t, nil, "", wray, "run", "--address", at, "./testdata/groups", "wait")
	if p.lines.Text() != "made" {
		t.Fatalf("the program said %q: %s", p.lines.Text(), p.errs.String())
	}
	for _, verb := range []string{"status", "explain"} {
		r := run(t, "", verb, "--address", at)
		for _, want := range []string{"placement group there of job 1 (groups), pack: ready", "bundle 0: 1 CPU: on one, 1 CPUs free",
			"placement group waits of job 1 (groups), strict pack: waiting for ", "1 tasks wait for room in it",
			"2 bundles are to be placed (strict pack), and have to wait for room: no node holds all of them", "bundles 0 to 1, each: 1 CPU: not placed"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("wray %s does not say %q:\n%s%s", verb, want, r.stdout, r.stderr)
			}
		}
	}
	if r := run(t, "", "explain", "--address", at, "square"); !strings.Contains(r.stdout, "one: it waits for its placement group: 2 bundles are to be placed") {
		t.Errorf("wray explain square: %s%s", r.stdout, r.stderr)
	}
	if r := run(t, "", "explain", "--address", at, "waits"); !strings.Contains(r.stdout, "placement group waits") || strings.Contains(r.stdout, "placement group there") {
		t.Errorf("wray explain waits: %s%s", r.stdout, r.stderr)
	}
}

// TestGroupsOnNodes holds that the bundles of a group lie on the nodes of a cluster
// as its strategy says, that tasks and actors run in them from every node, and
// that a bundle whose node dies comes to be on another, and its actor with it.
func TestGroupsOnNodes(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--cpus", "2", "--labels", "zone=west")
	join := invited(t, said)
	two, _, _ := clusterNode(t, dir, "two", "--address", join, "--cpus", "3", "--labels", "zone=east")
	awaitStatus(t, atOne, "two", "alive")
	r := run(t, "", "run", "--address", atOne, "./tests/e2e/testdata/groups", "nodes")
	want := `apart: true
apart, from two: true true
captured: true <nil>
an actor in 1: true
the actor, when it is removed: GroupRemoved
in zone east: two
not in the group, on one: one
together: true
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("exit %d, said\n%s\nwant\n%s\n%s", r.code, r.stdout, want, r.stderr)
	}
	if t.Failed() {
		return
	}

	p := beginWith(t, nil, "on two", wray, "run", "--address", atOne, "./testdata/groups", "hold")
	if !p.lines.Scan() || p.lines.Text() != "an actor on two" {
		t.Fatalf("the program said %q: %s", p.lines.Text(), p.errs.String())
	}
	if r := run(t, "", "status", "--address", atOne); !strings.Contains(r.stdout, "strict spread: ready") || !strings.Contains(r.stdout, ": 1 CPU: on two, 0 CPUs free") {
		t.Errorf("wray status does not show the group: %s%s", r.stdout, r.stderr)
	}
	token, _ := tokenOf(t, atOne)
	t.Setenv("WRAY_JOIN_TOKEN", token)
	clusterNode(t, dir, "three", "--address", join, "--cpus", "2")
	awaitStatus(t, atOne, "three", "alive")
	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !p.lines.Scan() || p.lines.Text() != "an actor on three" {
		t.Fatalf("when node two had died the program said %q: %s", p.lines.Text(), p.errs.String())
	}
}
