package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// explainedOf is what the test reads of wray explain --json.
type explainedOf struct {
	Node  string `json:"node"`
	Idle  string `json:"idle"`
	Tasks []struct {
		Name  string `json:"name"`
		State string `json:"state"`
		Count int    `json:"count"`
		Never bool   `json:"never"`
		Nodes []struct {
			Node  string   `json:"node"`
			Never bool     `json:"never"`
			Fails []failOf `json:"fails"`
		} `json:"nodes"`
		For []struct {
			Task  string `json:"task"`
			State string `json:"state"`
		} `json:"for"`
	} `json:"tasks"`
	Actors []struct {
		Actor struct {
			Name    string `json:"name"`
			Call    string `json:"call"`
			Waiting int    `json:"waiting"`
		} `json:"actor"`
		Unanswered int `json:"unanswered"`
	} `json:"actors"`
}

// failOf is a constraint that fails.
type failOf struct {
	Constraint      string `json:"constraint"`
	Name            string `json:"name"`
	Need, Has, Free float64
}

func explainAt(t *testing.T, address string, what ...string) (x explainedOf) {
	t.Helper()
	r := run(t, "", append([]string{"explain", "--json", "--address", address}, what...)...)
	if err := json.Unmarshal([]byte(r.stdout), &x); r.code != 0 || err != nil {
		t.Fatalf("wray explain %v: %d, %v, %s%s", what, r.code, err, r.stdout, r.stderr)
	}
	return x
}

// TestExplain has tasks and calls wait on two nodes, asks why, kills the node that
// has what they want, and asks again.
func TestExplain(t *testing.T) {
	dir := t.TempDir()
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--cpus", "1")
	join := invited(t, said)
	if r := run(t, "", "explain", "--address", atOne); r.code != 0 || !strings.Contains(r.stdout, "nothing waits here") {
		t.Errorf("wray explain of a node with nothing to do: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	two, _, _ := clusterNode(t, dir, "two", "--address", join, "--cpus", "1", "--resource", "licence=1")
	awaitStatus(t, atOne, "two", "alive")

	p := beginWith(t, nil, "", wray, "run", "--address", atOne, "./testdata/waits")
	said = p.lines.Text()
	for _, want := range []string{"(hold) has it", "(clerk.rest) rests", "they wait"} {
		for !strings.Contains(said, want) {
			if !p.lines.Scan() {
				t.Fatalf("the program ended without %q: %s%s", want, said, p.errs.String())
			}
			said += "\n" + p.lines.Text()
		}
	}

	// All three are of one group, and each node says why it has no room.
	x := explainAt(t, atOne, "use")
	if len(x.Tasks) != 1 || x.Tasks[0].Count != 3 || x.Tasks[0].State != "queued" || x.Tasks[0].Never || len(x.Tasks[0].Nodes) != 2 {
		t.Fatalf("of task use: %+v", x)
	}
	one, other := x.Tasks[0].Nodes[0], x.Tasks[0].Nodes[1]
	if one.Node != "one" || !one.Never || len(one.Fails) != 1 || one.Fails[0].Constraint != "resource" || one.Fails[0].Name != "licence" || one.Fails[0].Has != 0 {
		t.Errorf("why node one does not take it: %+v", one)
	}
	if other.Node != "two" || other.Never || !slices.Contains(other.Fails, failOf{"resource", "licence", 1, 1, 0}) {
		t.Errorf("why node two does not take it: %+v", other)
	}
	if x := explainAt(t, atOne, "after"); len(x.Tasks) != 1 || x.Tasks[0].State != "waiting" || len(x.Tasks[0].For) != 1 || x.Tasks[0].For[0].Task != "use" || x.Tasks[0].For[0].State != "queued" {
		t.Errorf("of task after: %+v", x)
	}
	if x := explainAt(t, atOne, "ann"); len(x.Actors) != 1 || x.Actors[0].Unanswered != 2 || x.Actors[0].Actor.Waiting != 1 || x.Actors[0].Actor.Call == "" {
		t.Errorf("of actor ann: %+v", x)
	}
	if x := explainAt(t, atOne, "hold"); len(x.Tasks) != 0 || !strings.Contains(x.Idle, "lent to node two") {
		t.Errorf("of task hold, which runs: %+v", x)
	}
	if x := explainAt(t, atOne, "waits"); len(x.Tasks) != 2 || x.Tasks[0].Name != "use" || x.Tasks[1].Name != "after" {
		t.Errorf("of the job: %+v", x)
	}
	if r := run(t, "", "explain", "nobody", "--address", atOne); r.code != 1 || !strings.Contains(r.stderr, `called "nobody"`) || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("wray explain of nothing: %d, %s", r.code, r.stderr)
	}
	r := run(t, "", "explain", "--address", atOne)
	for _, want := range []string{"task use ×3 of job", "one: never, 1 of \"licence\" is wanted, it has 0\n", "what task use makes, which is queued", "actor ann (clerk)"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("wray explain does not say %q:\n%s%s", want, r.stdout, r.stderr)
		}
	}
	if r := run(t, "", "explain", "--limit", "1", "--address", atOne); !strings.Contains(r.stdout, "and 1 more tasks wait") {
		t.Errorf("wray explain --limit 1 does not say how many more there are:\n%s%s", r.stdout, r.stderr)
	}
	r = run(t, "", "status", "--address", atOne)
	for _, want := range []string{"free: CPU", "FREE", "(waits)", "task use ×3 of job"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("wray status does not say %q:\n%s%s", want, r.stdout, r.stderr)
		}
	}

	// With node two goes the only licence. The program says when that is known.
	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for p.lines.Text() != "it is lost: true" {
		if !p.lines.Scan() {
			t.Fatalf("the program ended: %s", p.errs.String())
		}
	}
	r = run(t, "", "explain", "use", "--address", atOne)
	for _, want := range []string{"CAN RUN NOWHERE", "nothing goes to node two: it is dead"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("wray explain, without node two, does not say %q:\n%s%s", want, r.stdout, r.stderr)
		}
	}
}
