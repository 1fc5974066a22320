//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSignedElsewhere has a node that trusts somebody be given tasks of a module
// that nobody has signed, by a node that takes any: it runs none of them.
func TestSignedElsewhere(t *testing.T) {
	dir := t.TempDir()
	r := run(t, "", "module", "keygen", "ours", "-o", filepath.Join(dir, "ours.key"))
	trust := filepath.Join(dir, "ours")
	if err := os.WriteFile(trust, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	_, atOne, said := clusterNode(t, dir, "one", "--head", "--labels", "zone=west")
	clusterNode(t, dir, "two", "--address", invited(t, said), "--labels", "zone=east,disk=ssd", "--trust", trust)
	awaitStatus(t, atOne, "two", "alive")
	r = run(t, "", "run", "--address", atOne, "--timeout", "15s", "./tests/e2e/testdata/place")
	if strings.Contains(r.stdout, ": two") || !strings.Contains(r.stderr, "the module is not signed") {
		t.Errorf("exit %d, said %s\n%s", r.code, r.stdout, r.stderr)
	}
}
