//go:build linux

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wray-project/wray/host/control/controltest"
	"github.com/wray-project/wray/host/control/etcdstore"
)

// outsideEtcd runs an etcd that is nobody's yet, and returns the flags with
// which heads use it.
func outsideEtcd(t *testing.T) (flags []string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	f := controltest.NewCA(t).Issue(t, "etcd", net.IPv4(127, 0, 0, 1))
	s, err := etcdstore.Start(t.Context(), etcdstore.Options{Dir: t.TempDir(),
		Clients: &etcdstore.Listener{Address: at, Cert: f.Cert, Key: f.Key, CA: f.CA}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return []string{"--etcd", at, "--etcd-ca", f.CA, "--etcd-cert", f.Cert, "--etcd-key", f.Key}
}

// TestEtcd has two heads keep the control state in an etcd that runs elsewhere:
// either goes, and comes back without a flag; others may not take the etcd.
func TestEtcd(t *testing.T) {
	dir := t.TempDir()
	etcd := outsideEtcd(t)
	head := func(name string, args ...string) (*process, string, string) {
		return clusterNode(t, dir, name, append(append([]string{"--head", "--cpus", "1"}, etcd...), args...)...)
	}
	refused := func(name, why string, args ...string) {
		t.Helper()
		r := run(t, "", append([]string{"start", "--head", "--name", name, "--cluster-dir", filepath.Join(dir, name),
			"--listen", "127.0.0.1:0", "--socket", filepath.Join(dir, name+".sock")}, args...)...)
		if r.code == 0 || !strings.Contains(r.stderr, why) || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("head %s with %v: %d, %s, want %q and a hint", name, args, r.code, r.stderr, why)
		}
	}
	one, atOne, said := head("one")
	addr := invited(t, said)
	_, atWorker, _ := clusterNode(t, dir, "worker", "--address", addr, "--cpus", "1")
	os.Unsetenv("WRAY_JOIN_TOKEN")

	refused("other", "the control state is another cluster's", etcd...)
	token, _ := tokenOf(t, atOne, "--head", "--uses", "9")
	t.Setenv("WRAY_JOIN_TOKEN", token)
	refused("two", "in an etcd of its own", "--address", addr)
	refused("two", "not the one of the cluster", append([]string{"--address", addr, "--etcd-prefix", "else/"}, etcd...)...)
	two, atTwo, _ := head("two", "--address", addr)
	os.Unsetenv("WRAY_JOIN_TOKEN")
	awaitVotes(t, atOne, "one", "two")

	// The first is killed: the other writes, and is who the worker asks.
	if err := one.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, atWorker, "one", "dead")
	awaitWrite(t, atTwo)
	if r := run(t, "", "run", "--address", atWorker, "./examples/gridsearch"); r.code != 0 || !strings.Contains(r.stdout, "best: x=0 y=0 score=0") {
		t.Errorf("a program with the other head: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// It is back by its name alone, and a head.
	_, atOne, _ = clusterNode(t, dir, "one", "--cpus", "1")
	awaitVotes(t, atTwo, "one", "two")

	// The other one leaves for good, and the last may not.
	if r := run(t, "", "node", "drain", "two", "--address", atOne); r.code != 0 {
		t.Errorf("drain a head: %d, %s", r.code, r.stderr)
	}
	awaitStatus(t, atOne, "two", "dead")
	for two.lines.Scan() {
	}
	if err := two.cmd.Wait(); err != nil {
		t.Errorf("the head that was drained: %v: %s", err, two.errs.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "two", "authority.pem")); err == nil {
		t.Error("a head that left for good keeps the authority")
	}
	if r := run(t, "", "node", "drain", "one", "--address", atOne); r.code == 0 || !strings.Contains(r.stderr, "the only head") {
		t.Errorf("drain the only head: %d, %s", r.code, r.stderr)
	}
}
