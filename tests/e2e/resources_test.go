package e2e

import (
	"strings"
	"testing"
)

// TestResources holds that tasks and actors share what the node has of custom
// resources, and that who asks for what there never is is told so at once.
func TestResources(t *testing.T) {
	r := run(t, "", "run", "--resource", "licence=1", "--resource", "link=0.5", "--cpus", "4", "--dir", t.TempDir()+":/notes",
		"./tests/e2e/testdata/resources", "--", "/notes/log")
	want := `6 uses, none at the same time
more than there is: Unschedulable, licence = 10000, --resource
what there is not: Unschedulable, of another node = 0, --resource
an actor: Unschedulable, link = 5000, --resource
the actor says 7 <nil>
beside the actor a half ran, and of those who want it all 0 <nil>
without it 100 <nil>
nested: true
a call holds none: true
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("exit %d, said\n%s\nwant\n%s\n%s", r.code, r.stdout, want, r.stderr)
	}
	for flag, says := range map[string]string{
		"licence": "no amount", "licence=": "decimal", "licence=0.00001": "steps of 0.0001", "=1": "name", "licence=-1": "decimal", "a=1 a=2": "twice",
	} {
		args := []string{"run"}
		for _, f := range strings.Fields(flag) {
			args = append(args, "--resource", f)
		}
		if r := run(t, "", append(args, "./tests/e2e/testdata/echo")...); r.code != 2 || !strings.Contains(r.stderr, says) || !strings.Contains(r.stderr, "NAME=AMOUNT") {
			t.Errorf("--resource %s: exit %d, %s", flag, r.code, r.stderr)
		}
	}
}
