package e2e

import (
	"strings"
	"testing"
)

// TestTenants has two tenants on two nodes: each runs jobs on either, sees its own
// alone, and is bounded by its own quota, which a head changes for all nodes.
func TestTenants(t *testing.T) {
	dir := t.TempDir()
	_, atHead, said := clusterNode(t, dir, "one", "--head")
	join := invited(t, said)
	_, atTwo, _ := clusterNode(t, dir, "two", "--address", join)
	awaitStatus(t, atHead, "two", "alive")
	awaitStatus(t, atTwo, "one", "alive")

	does := func(code int, says string, args ...string) string {
		t.Helper()
		r := run(t, "", args...)
		if r.code != code || !strings.Contains(r.stdout+r.stderr, says) {
			t.Fatalf("wray %s: %d, %s%s, want %d and %q", strings.Join(args, " "), r.code, r.stdout, r.stderr, code, says)
		}
		return r.stdout
	}
	does(0, "has the weight 2", "tenant", "create", "a", "--weight", "2", "--address", atHead)
	does(0, "has the weight 1", "tenant", "create", "b", "--address", atHead)
	does(1, "already", "tenant", "create", "b", "--address", atHead)
	does(1, "no name for a tenant", "tenant", "create", "No", "--address", atHead)
	does(1, "heads keep", "tenant", "create", "c", "--address", atTwo)
	does(0, "3", "quota", "set", "a", "--actors", "3", "--memory", "1GiB", "--address", atHead)
	does(2, "none", "quota", "set", "a", "--actors", "0", "--address", atHead)
	if shown := does(0, "--actors", "quota", "show", "a", "--address", atHead); !strings.Contains(shown, "1 GiB") {
		t.Errorf("the quota is %s", shown)
	}
	// Nodes hear of it: one that was not told yet asks.
	const program = "./tests/e2e/testdata/tenants"
	submit := func(address, tenant string, args ...string) []string {
		return append([]string{"job", "submit", "--address", address, "--tenant", tenant, program, "--"}, args...)
	}
	for _, at := range []string{atTwo, atHead} {
		does(0, "quota actors is 3", submit(at, "a", "actors", "5")...)
		does(0, "5 are there", submit(at, "b", "actors", "5")...)
		does(0, "60 are there", submit(at, "a", "tasks", "60")...)
	}
	does(1, `there is no tenant "c"`, submit(atTwo, "c", "tasks", "1")...)

	// Each sees its own, at either node, and nobody else's.
	r := run(t, "", "job", "submit", "--detach", "--address", atTwo, "--tenant", "a", program, "--", "wait", "0")
	id := strings.TrimSpace(r.stdout)
	if r.code != 0 || id == "" {
		t.Fatalf("%d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, at := range []string{atTwo, atHead} {
		for _, verb := range []string{"status", "logs", "stop"} {
			for _, other := range []string{"b", "local"} {
				does(1, "there is no job", "job", verb, id, "--address", at, "--tenant", other)
			}
		}
		for _, other := range []string{"b", "local"} {
			if list := does(0, "", "job", "list", "--address", at, "--tenant", other); strings.Contains(list, id) {
				t.Errorf("%s is shown %s", other, list)
			}
		}
	}
	does(0, "running", "job", "status", id, "--address", atTwo, "--tenant", "a")
	const quota = `"total":1073741824` // the memory that a may have
	for verb, what := range map[string]string{"status": id, "memory": quota, "explain": quota} {
		does(0, what, verb, "--json", "--address", atTwo, "--tenant", "a")
		for _, other := range []string{"b", "local"} {
			if said := does(0, "", verb, "--json", "--address", atTwo, "--tenant", other); strings.Contains(said, what) {
				t.Errorf("wray %s of tenant %s is %s", verb, other, said)
			}
		}
		does(1, `there is no tenant "c"`, verb, "--address", atTwo, "--tenant", "c")
	}

	// One that is disabled or runs something is not what it was, or there.
	does(0, "takes nothing new", "tenant", "disable", "b", "--address", atHead)
	does(1, "it is disabled", submit(atHead, "b", "tasks", "1")...)
	does(1, "has not ended", "tenant", "remove", "a", "--address", atHead)
	does(0, "stopped", "job", "stop", id, "--address", atHead, "--tenant", "a")
	does(0, "is removed", "tenant", "remove", "a", "--address", atHead)
	does(1, `there is no tenant "a"`, submit(atHead, "a", "tasks", "1")...)
	if list := does(0, "TENANT", "tenant", "list", "--address", atHead); strings.Contains(list, "\na ") || !strings.Contains(list, "b (disabled)") {
		t.Errorf("the tenants are %s", list)
	}
}
